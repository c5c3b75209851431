"""A RAY_ADDRESS at which there is no cluster is told in the time that was stated (law L8)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agentbudget import OwnerUnavailable
from agentbudget.runtime.on_ray.reach import require_reachable
from tests.tidy import rules

SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@contextmanager
def listening(answer: bytes = b"", *, closes: bool = False) -> Iterator[str]:
    """A program at a port that answers so, to whoever says something."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    there, _ = server.accept()
                    kept.append(there)
                    there.recv(64)
                    there.sendall(answer)
                    if closes:
                        there.close()
            except OSError:
                return  # the test is over

        kept: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for there in kept:
            there.close()


@pytest.fixture(autouse=True)
def _without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USE_TLS", raising=False)


def test_the_head_of_a_cluster_is_known_by_its_first_words() -> None:
    with listening(SETTINGS) as address:
        require_reachable(address, 30)
        require_reachable(f"ray://{address}", 30)


def test_a_real_head_answers(ray_cluster: str) -> None:
    require_reachable(ray_cluster, 30)


@pytest.mark.parametrize(
    ("answer", "closes", "why"),
    [(b"", False, "timed out"), (b"", True, "without a word"), (b"HTTP/1.1 400 Bad Request", False, "not the head")],
    ids=["paused, or mute", "hangs up", "another program"],
)
def test_L8_whoever_else_answers_there_is_told_of(answer: bytes, closes: bool, why: str) -> None:
    with listening(answer, closes=closes) as address, pytest.raises(OwnerUnavailable, match=why) as refused:
        require_reachable(address, 0.3)
    assert address in refused.value.what


def test_what_is_looked_for_on_this_machine_is_left_to_ray() -> None:
    for address in ("auto", "local"):
        require_reachable(address, 0.3)


PROGRAM = """
import sys
from agentbudget import OwnerUnavailable, Runtime
try:
    Runtime.open(sys.argv[1], timeout_seconds=0.5)
except OwnerUnavailable as error:
    print(error)
"""


def test_L8_opening_where_ray_address_names_nothing_ends_and_says_what_to_do(tmp_path: os.PathLike[str]) -> None:
    """Ray alone tries for more than a minute."""
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    environ = {**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": str(rules.ROOT)}
    program = [sys.executable, "-c", PROGRAM, f"sqlite:///{tmp_path}/budget.db"]
    result = subprocess.run(program, env=environ, capture_output=True, text=True, timeout=120, check=True)
    for words in (f"no Ray cluster has answered at {address}", "0.5 s", "refused", "RAY_AUTH_TOKEN", "host='local'"):
        assert words in result.stdout
