"""A host of each kind, with an owner that a test can hold up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.hosts.levers import Levers
from tests.hosts.places import KINDS, Place
from tests.sockets.support import START


@pytest.fixture(
    params=[
        pytest.param(kind, marks=pytest.mark.xdist_group("ray")) if kind.startswith("ray") else kind for kind in KINDS
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty ledger behind each kind of host."""
    if request.param.startswith("ray"):
        request.getfixturevalue("ray_cluster")
    if request.param.endswith("postgres"):
        server, template = (request.getfixturevalue(name) for name in ("postgres", "postgres_template"))
        (tmp_path / "database").write_text(server.url(server.new_database(template=template)))
    levers = Levers(tmp_path)
    with ExitStack() as stack:
        stack.callback(levers.close)
        made = KINDS[request.param](tmp_path, stack, levers)
        stack.callback(levers.open)  # first of all: what waits at the gate must not keep a host from closing
        yield made


@pytest.fixture
def begun(place: Place) -> Place:
    """The same, with a customer that has credits and an open session."""
    for command in START:
        place.host.ask("acme", command)
    return place
