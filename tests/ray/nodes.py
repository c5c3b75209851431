"""A Ray cluster of several nodes on this machine, of a test's own: nodes can be paused and killed as machines are.

A process of its own has it (this file, run as a program): it adds a node for each line on its standard input, which names a
resource of that node, and at the end of that, also when the test was killed, the cluster ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.ray.cluster import QUIET

SOON = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "300",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""A node that says nothing is given up after 7 s, and one whose processes are gone after 1 s. By default: 65 s and 15 s."""


class Node(NamedTuple):
    """``raylet``: the pid of what manages it, which has started all else."""

    id: str
    raylet: int

    def pids(self) -> list[int]:
        """Of its raylet and all that this has started."""
        return [self.raylet, *_below(self.raylet)]

    def pause(self, *others: int) -> None:
        """Its raylet stops in its tracks, and these processes too; what else runs on it goes on."""
        for pid in (self.raylet, *others):
            os.kill(pid, signal.SIGSTOP)

    def resume(self, *others: int) -> None:
        for pid in (*others, self.raylet):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """As when the power fails: every process of it, at once."""
        pids = self.pids()
        for how in (signal.SIGSTOP, signal.SIGKILL):  # or the raylet would see its workers die, and say so
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):  # idle workers come and go
                    os.kill(pid, how)


class Nodes:
    """``address``: of the head. ``head``: the node of whoever joins it here."""

    def __init__(self, keeper: subprocess.Popen[str]) -> None:
        self._keeper = keeper
        self.address, self.head = self._heard()

    def add(self, resource: str) -> Node:
        """A further node. What asks for the resource runs on nodes that have it, and nowhere else."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{resource}\n")
        self._keeper.stdin.flush()
        return self._heard()[1]

    def _heard(self) -> tuple[str, Node]:
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        assert line, "the cluster did not start"
        address, node, raylet = json.loads(line)
        return address, Node(node, raylet)


@contextmanager
def cluster_of_nodes(health: Mapping[str, str] | None = None) -> Iterator[Nodes]:
    """``health``: when Ray gives a node up; by default soon."""
    with tempfile.TemporaryDirectory(prefix="ab-ray-", ignore_cleanup_errors=True) as folder:
        environ = {**os.environ, **QUIET, **(SOON if health is None else health), "RAY_TMPDIR": folder}
        environ.pop("RAY_ADDRESS", None)
        with subprocess.Popen(
            [sys.executable, "-m", "tests.ray.nodes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True, env=environ, cwd=Path(__file__).parents[2],
        ) as keeper:  # fmt: skip
            yield Nodes(keeper)
            assert keeper.stdin is not None
            keeper.stdin.close()


def _below(pid: int) -> list[int]:
    """The processes that it started, and theirs."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):  # by thread
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, listed.read_text().split()):
                found += [child, *_below(child)]
    return found


def _keep() -> None:
    from ray.cluster_utils import Cluster

    said, sys.stdout = sys.stdout, sys.stderr
    cluster = Cluster()

    def add(**more: Any) -> None:
        node = cluster.add_node(num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, **more)
        raylet = next(
            one.process.pid for kind, found in node.all_processes.items() if kind == "raylet" for one in found
        )
        print(json.dumps([cluster.address, node.node_id, raylet]), file=said, flush=True)

    add()
    for resource in sys.stdin:
        add(resources={resource.strip(): 1})
    cluster.shutdown()


if __name__ == "__main__":
    _keep()
