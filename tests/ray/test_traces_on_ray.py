"""The trace of a step goes on in the owner's actor, and in the workers that join its session."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytest.importorskip("grpc")

from agentbudget.telemetry import names
from tests.ray.ending import end_owners
from tests.telemetry.collector import Collector, attributes_of
from tests.tidy import rules

PROGRAM = """
import os, sys
import ray
from agentbudget import Runtime
from tests.ray.work import spend_in

address, ledger, endpoint = sys.argv[1:]
variables = {"AGENTBUDGET_OTLP": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50", "PYTHONPATH": os.environ["PYTHONPATH"]}
os.environ |= variables
ray.init(address=address, namespace="traces", log_to_driver=False, runtime_env={"env_vars": variables})
with Runtime.open(ledger) as runtime:
    acme = runtime.customers.create("acme", plan="local")
    with acme.session(budget=5, mode="strict") as session:
        with session.step("tool", name="search", amount=1):
            pass
        ray.get(ray.remote(spend_in).options(num_cpus=0).remote(session.handle(), 10))
    print(os.getpid())
"""


def test_the_owners_span_in_its_actor_is_below_the_step_and_workers_spans_below_the_session(
    ray_cluster: str, tmp_path: Path
) -> None:
    ledger = f"sqlite:///{tmp_path}/budget.db"
    paths = os.pathsep.join([str(rules.ROOT), str(rules.ROOT / "integrations" / "langchain")])
    try:
        with Collector("http") as collector:
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, ray_cluster, ledger, collector.endpoint],
                env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            with collector.came:
                assert collector.came.wait_for(lambda: _commands(collector) >= {"Hold", "SettleHold"}, 60)
                assert collector.came.wait_for(lambda: len(collector.named(names.STEP)) == 2, 60)
                assert collector.came.wait_for(lambda: collector.named(names.SESSION), 60)
            here, there = sorted(collector.named(names.STEP), key=lambda span: span.start_time_unix_nano)
            sessions = {span.span_id for span in collector.named(names.SESSION)}
            held = [span for span in collector.named(names.OWNER) if attributes_of(span)[names.COMMAND] == "Hold"]
    finally:
        end_owners(ledger)
    of_here = [span for span in held if span.parent_span_id == here.span_id]
    assert len(of_here) == 1
    owner = attributes_of(of_here[0])[names.OWNER_NAME]
    assert owner.startswith("owner-0 (process ")
    assert f"(process {done.stdout.split()[-1]} on" not in owner  # another process than the program's
    assert here.trace_id == there.trace_id == of_here[0].trace_id
    assert here.parent_span_id in sessions


def _commands(collector: Collector) -> set[str]:
    return {attributes_of(span)[names.COMMAND] for span in collector.named(names.OWNER)}
