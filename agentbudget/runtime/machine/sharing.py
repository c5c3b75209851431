"""What the processes of one ledger share beside its database: where things are, and how a catalog travels."""

from __future__ import annotations

import logging
import os
import stat
import threading

import msgspec

from agentbudget.catalog import Catalog
from agentbudget.ledger.sqlite import SqliteFile
from agentbudget.runtime.host import Host
from agentbudget.runtime.spool.recovery import Recovered, recover
from agentbudget.runtime.spool.writing import Spool

_recovering = threading.Lock()
_log = logging.getLogger("agentbudget")


def database_of(url: str) -> str:
    """The real path of a ledger file: its lock, socket and spools stand beside it."""
    return SqliteFile.of_url(url).path


def spool_folder(database: str) -> str:
    """Where the processes that hold leases write what they have not reported."""
    return f"{database}.spool"


def open_spool(database: str, holder: str) -> Spool:
    """This process's spool; who may read the ledger may read it."""
    return Spool.open(spool_folder(database), holder, mode=stat.S_IMODE(os.stat(database).st_mode) & 0o666)


class Recovery:
    """Books what dead processes of this machine left in their spools: when a process opens the ledger, and then once a second
    in the one that owns it, so that somebody does. What has to wait is said once, and again when its reason changes."""

    def __init__(self, database: str, host: Host, holder: str) -> None:
        self._folder, self._host, self._holder = spool_folder(database), host, holder
        self._said: dict[str, str] = {}

    def run(self) -> None:
        """Look once."""
        if not os.path.isdir(self._folder):
            return
        with _recovering:  # two threads of one process would get in each other's way at the files' locks
            done = recover(self._folder, self._host.ask, own=self._holder)
            self._say(done)

    def again(self, *, trust_other_boots: bool) -> Recovered:
        """Look once, also at what was set aside before. See :func:`recover`."""
        with _recovering:
            return recover(
                self._folder, self._host.ask, own=self._holder, with_set_aside=True, trust_other_boots=trust_other_boots
            )

    def run_as_owner(self) -> None:
        """Look once, in the process that owns the ledger."""
        if self._host.is_owner:
            self.run()

    def _say(self, done: Recovered) -> None:
        if done.leases:
            _log.info(
                "replayed %d leases of dead processes: %d steps reported, %d of unknown cost", done.leases, done.reported,
                done.unknown,
            )  # fmt: skip
        waiting = dict(zip(done.waiting, done.why_waiting, strict=True))
        for name, why in waiting.items():
            if self._said.get(name) != why:
                _log.warning(
                    "the spool %s of a dead process is not booked yet: %s. What its steps hold stays held meanwhile; it is "
                    "tried again once a second", os.path.join(self._folder, name), why,
                )  # fmt: skip
        self._said = waiting


def document_of(catalog: Catalog) -> bytes:
    """A catalog as it travels: its text, which the other process reads and judges again."""
    return msgspec.msgpack.encode((catalog.text, catalog.format, catalog.source))


def catalog_of(document: bytes) -> Catalog:
    """The catalog of a document; raises ``CatalogError`` when it is none."""
    text, form, source = msgspec.msgpack.decode(document, type=tuple[str, str, str])
    return Catalog.loads(text, format=form, source=source)  # type: ignore[arg-type]
