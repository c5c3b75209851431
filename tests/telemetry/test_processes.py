"""The trace goes on in the process that owns the ledger, and in processes and threads that join a session."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from opentelemetry import trace

import agentbudget
from agentbudget import Runtime
from agentbudget.telemetry import names
from tests.runtime.support import PREPAID
from tests.telemetry.collector import Collector, attributes_of
from tests.telemetry.watched import Seen, parent_id, span_id
from tests.tidy import rules

CHILD = """
import pickle, sys
handle = pickle.loads(bytes.fromhex(sys.argv[1]))
with handle.join() as session:
    with session.step("tool", name="search", amount=1):
        pass
"""


def test_a_process_that_joins_a_session_is_below_it_and_its_owners_spans_come_from_the_owner(tmp_path: Path) -> None:
    import pickle

    with Collector("http") as collector, Runtime.open(f"sqlite:///{tmp_path}/budget.db", PREPAID) as runtime:
        export = agentbudget.telemetry.export(collector.endpoint)
        acme = runtime.customers.create("acme", plan="prepaid")
        acme.wallet.grant(10)
        with acme.session(budget=5) as session:
            handle = pickle.dumps(session.handle()).hex()
            subprocess.run(
                [sys.executable, "-c", CHILD, handle], check=True, timeout=120,
                env={**os.environ, "PYTHONPATH": str(rules.ROOT), "AGENTBUDGET_OTLP": collector.endpoint},
            )  # fmt: skip
        assert export.flush()
        export.shutdown()
        (step,) = collector.named(names.STEP)
        mine, theirs = sorted(collector.named(names.SESSION), key=lambda span: span.start_time_unix_nano)
        owners = [span for span in collector.named(names.OWNER) if span.parent_span_id == step.span_id]
    assert theirs.parent_span_id == mine.span_id
    assert step.parent_span_id == theirs.span_id
    assert step.trace_id == mine.trace_id
    assert [attributes_of(span)[names.OWNER_NAME].split()[1] for span in owners] == [str(os.getpid())]


def test_threads_that_are_in_one_session_leave_nothing_current_behind(seen: Seen) -> None:
    """The first that enters leaves first."""
    entered, left = threading.Event(), threading.Event()
    after: dict[str, bool] = {}

    def be_in(
        name: str, session: agentbudget.Session, before: threading.Event | None, wait: threading.Event | None
    ) -> None:
        with session:
            if before is not None:
                before.set()
            if wait is not None:
                assert wait.wait(20)
        after[name] = trace.get_current_span().get_span_context().is_valid

    with Runtime.open("memory://", PREPAID) as runtime:
        acme = runtime.customers.create("acme", plan="prepaid")
        session = acme.session(id="shared", budget=None)
        second_in = threading.Event()
        first = threading.Thread(target=be_in, args=("first", session, entered, second_in))
        second = threading.Thread(target=be_in, args=("second", session, second_in, left))
        first.start()
        assert entered.wait(20)
        second.start()
        first.join()
        left.set()
        second.join()
    assert after == {"first": False, "second": False}


def test_carried_work_in_another_thread_is_below_the_step_that_it_was_carried_from(seen: Seen) -> None:
    def work() -> None:
        session = agentbudget.current_session()
        assert session is not None
        session.reserve("tool", name="inner", amount=1).settle()

    with Runtime.open("memory://", PREPAID) as runtime:
        acme = runtime.customers.create("acme", plan="prepaid")
        acme.wallet.grant(10)
        with acme.session(budget=5) as session, session.step("tool", name="outer", amount=1):
            thread = threading.Thread(target=agentbudget.carry(work))
            thread.start()
            thread.join()
    inner, outer = seen.spans(names.STEP)
    assert parent_id(inner) == span_id(outer)
