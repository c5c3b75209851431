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
from agentbudget.runtime.machine_host import MachineHost
from agentbudget.runtime.recovery import recover
from agentbudget.runtime.spool import Spool

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


def recover_all(database: str, host: Host, holder: str) -> None:
    """Book what dead processes of this machine left in their spools."""
    folder = spool_folder(database)
    if not os.path.isdir(folder):
        return
    with _recovering:  # two threads of one process would get in each other's way at the files' locks
        done = recover(folder, host.ask, own=holder)
    if done.leases:
        _log.info(
            "replayed %d leases of dead processes: %d steps reported, %d of unknown cost", done.leases, done.reported,
            done.unknown,
        )  # fmt: skip


def recover_as_owner(database: str, host: Host, holder: str) -> None:
    """The same, in the process that owns the ledger: it looks once a second, so that somebody does."""
    if not isinstance(host, MachineHost) or host.is_owner:  # of a local host the owner is always here
        recover_all(database, host, holder)


def document_of(catalog: Catalog) -> bytes:
    """A catalog as it travels: its text, which the other process reads and judges again."""
    return msgspec.msgpack.encode((catalog.text, catalog.format, catalog.source))


def catalog_of(document: bytes) -> Catalog:
    """The catalog of a document; raises ``CatalogError`` when it is none."""
    text, form, source = msgspec.msgpack.decode(document, type=tuple[str, str, str])
    return Catalog.loads(text, format=form, source=source)  # type: ignore[arg-type]
