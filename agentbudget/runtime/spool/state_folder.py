"""Where this machine keeps what belongs to a ledger in a database that is not a file of it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger.postgres.place import place_of
from agentbudget.ledger.store import is_postgres


def ledger_id(url: str) -> str:
    """A name for a ledger that says nothing of where it is, nor of who may open it. A database has the same one whoever opens it
    and however: under a second name there would be owners that take each other's shards, and spools that nobody finds."""
    place = place_of(url) if is_postgres(url) else url
    return hashlib.sha256(place.encode()).hexdigest()[:16]


def spool_base(url: str) -> str:
    """The path beside which this machine's processes keep the spools of a ledger on PostgreSQL: a file in the folder for the
    state of programs that stands for it. Processes find each other's by the same database, host and port."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "agentbudget"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written
        folder = Path(tempfile.gettempdir()) / f"agentbudget-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        _require_ours(folder)
    base = folder / ledger_id(url)
    base.touch(mode=0o600)
    return str(base)


def _require_ours(folder: Path) -> None:
    """Anybody may make a folder of any name among the temporary ones."""
    about = folder.lstat()
    if folder.is_symlink() or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise OwnerUnavailable(f"{folder} is not this user's alone", "", "set XDG_STATE_HOME to a folder that is")
