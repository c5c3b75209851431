"""Where a host may run: each place has an owner, a host that the tests talk to, and levers on the owner's commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from agentbudget.clock import SystemClock
from agentbudget.ledger.journal import Archive
from agentbudget.ledger.store import Store, open_archive, open_journal
from agentbudget.runtime.host import Host
from agentbudget.runtime.machine.host import MachineHost
from agentbudget.runtime.on_ray.host import RayHost
from agentbudget.runtime.owner.local_host import LocalHost
from agentbudget.runtime.owner.owner import Owner
from agentbudget.testing import MemoryJournal
from tests.hosts.levers import Levered, Levers
from tests.sockets.support import Child


class Place:
    """``host``: the one to test. ``another``: makes one more host of the same ledger; in a place of one process, the same.
    ``open_archive``: how to read what is durable."""

    def __init__(
        self, host: Host, levers: Levers, open_archive: Callable[[], Archive], another: Callable[[], Host] | None = None
    ) -> None:
        self.host, self.levers, self.open_archive = host, levers, open_archive
        self._another = another

    def another(self) -> Host:
        return self.host if self._another is None else self._another()


Kind = Callable[[Path, ExitStack, Levers], Place]


def local_memory(folder: Path, stack: ExitStack, levers: Levers) -> Place:
    journal = MemoryJournal()
    host = LocalHost(levered(journal, folder), SystemClock())
    stack.callback(host.close)
    return Place(host, levers, lambda: MemoryJournal(journal.store))


def local_file_or_database(folder: Path, stack: ExitStack, levers: Levers) -> Place:
    url = url_in(folder)
    host = LocalHost(levered(open_journal(url), folder), SystemClock())
    stack.callback(host.close)
    return Place(host, levers, lambda: open_archive(url))


def machine_owner(folder: Path, stack: ExitStack, levers: Levers) -> Place:
    host = opened(machine_host(folder), stack)
    assert host.is_owner
    return Place(host, levers, lambda: open_archive(url_in(folder)), lambda: opened(machine_host(folder), stack))


def machine_client(folder: Path, stack: ExitStack, levers: Levers) -> Place:
    stack.enter_context(owned(folder))
    host = opened(machine_host(folder), stack)
    assert not host.is_owner
    return Place(host, levers, lambda: open_archive(url_in(folder)), lambda: opened(machine_host(folder), stack))


@contextmanager
def owned(folder: Path) -> Iterator[Child]:
    """Another process owns the ledger until the end; it is killed then."""

    def own(child: Child) -> None:
        host = machine_host(folder)
        child.say(host.is_owner)
        child.wait()
        host.close()

    with Child(own) as child:
        assert child.hear() is True
        yield child


def machine_host(folder: Path) -> MachineHost:
    url = url_in(folder)
    return MachineHost(lambda: levered(open_journal(url), folder), str(folder / "budget.db"), SystemClock())


def opened(host: MachineHost, stack: ExitStack) -> MachineHost:
    stack.callback(host.close)
    return host


def levered(store: Store, folder: Path) -> Any:
    return Levered(store, str(folder))


def url_in(folder: Path) -> str:
    """The place's ledger: the database that the folder names, else a file in it."""
    named = folder / "database"
    return named.read_text() if named.exists() else f"sqlite:///{folder}/budget.db"


def on_ray(folder: Path, stack: ExitStack, levers: Levers) -> Place:
    """One actor serves all tests of this process, a ledger after the other: starting one takes a second."""
    from agentbudget.runtime.on_ray.cluster import Post, Seat, node_here

    here = folder.parent / "ray-ledger"
    here.write_text(str(folder))
    post = Post(
        sha256(str(here).encode()).hexdigest()[:12], partial(levered_ledger, str(here)), Owner, node=node_here()
    )

    def another() -> RayHost:
        host = RayHost(post)
        stack.callback(host.close)
        return host

    stack.callback(Seat("owner-0", post).ask, "leave")
    return Place(another(), levers, lambda: open_archive(url_in(folder)), another)


def levered_ledger(where: str) -> Store:
    """As the owner's actor opens it, wherever it runs. ``where``: a file with the path of the ledger's folder."""
    folder = Path(Path(where).read_text())
    store: Store = levered(open_journal(url_in(folder)), folder)
    return store


KINDS: dict[str, Kind] = {
    "local-memory": local_memory,
    "local-sqlite": local_file_or_database,
    "local-postgres": local_file_or_database,
    "machine-owner": machine_owner,
    "machine-client": machine_client,
    "ray": on_ray,
    "ray-postgres": on_ray,
}
"""Every host there is, by name, and by the ledger's kind."""
