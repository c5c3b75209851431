"""Opening a ledger whose owners are Ray actors: when that is chosen, what the owners are made from, and where this machine keeps
what belongs to the ledger."""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from agentbudget.clock import SECOND_US
from agentbudget.errors import InvalidRequest, OwnerUnavailable
from agentbudget.ledger.entry import Sealed
from agentbudget.ledger.journal import Archive, DenialNote, Loaded
from agentbudget.ledger.shards import SHARDS
from agentbudget.ledger.sqlite import SqliteFile
from agentbudget.ledger.store import Store, open_archive, open_journal
from agentbudget.runtime.on_ray.host import RayHost
from agentbudget.runtime.owner.owner import Owner
from agentbudget.runtime.settings import Settings, Synchronous, with_settings
from agentbudget.runtime.spool import state_folder
from agentbudget.runtime.spool.state_folder import ledger_id

if TYPE_CHECKING:
    from agentbudget.runtime.on_ray.cluster import Post

_log = logging.getLogger("agentbudget")

MAX_OWNERS: Final = 16
"""Owners that are made unasked: each process has a line to each, and one owner decides some 100,000 commands a second."""
QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",  # what is disabled is reported as disabled otherwise
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers would run in a copy of the project, each with an environment of its own
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
    "RAY_enable_timeline": "0",
}
"""Set before Ray is first imported, where the program has said nothing else: no reports to anybody; and the records that Ray
keeps of every call cost the slowest calls half of their time."""
TOKEN: Final = "RAY_AUTH_TOKEN"
PROGRAM: Final = "owner on Ray"
"""How an owner's process is called where it has the ledger."""


def is_chosen(settings: Settings) -> bool:
    """Whether the owner is to be on Ray: ``host="ray"``, or ``"auto"`` where this process is on a cluster, or RAY_ADDRESS names
    one. A memory ledger is one process's."""
    if settings.host != "auto":
        return settings.host == "ray"
    return settings.ledger != "memory://" and (bool(os.environ.get("RAY_ADDRESS")) or _is_on_ray())


def _is_on_ray() -> bool:
    is_initialized: Callable[[], bool] | None = getattr(sys.modules.get("ray"), "is_initialized", None)
    return is_initialized is not None and is_initialized()


def post_for(settings: Settings) -> Post:
    """What the owners of a ledger are made from, for whoever looks after them. Raises as :func:`open_host` does."""
    join(settings.timeout_seconds)
    return post_of(with_settings(settings, ledger=_everywhere(settings.ledger)), owner_with(settings))


def open_host(settings: Settings, new_owner: Callable[..., Owner]) -> tuple[Settings, RayHost]:
    """The host, and the settings with which handles find the same ledger from any process of the cluster. Raises
    ``OwnerUnavailable``, ``LedgerCorrupt`` and ``InvalidRequest``."""
    if settings.ledger == "memory://":
        raise InvalidRequest("a memory ledger lives in one process: name a file or a database for host='ray'", "ledger")
    join(settings.timeout_seconds)
    settings = with_settings(settings, ledger=_everywhere(settings.ledger), host="ray")
    post, owners = post_of(settings, new_owner), owners_of(settings)
    host = RayHost(post, owners=owners, timeout_seconds=settings.timeout_seconds, is_caretaker=Caretaker(post.ledger))
    if _is_file(settings.ledger):
        _log.info("the ledger is one file, so one owner on Ray has all %d shards of it: %s", SHARDS, host.owner)
    return settings, host


def owner_with(settings: Settings) -> Callable[..., Owner]:
    """What makes an owner as the settings say."""
    return partial(Owner, lapse_after_us=settings.lapse_after_seconds * SECOND_US, on_lapse=settings.on_lapse)


def join(seconds: float) -> bool:
    """Be on a Ray cluster, quietly; False when this process was on one before. One that does not answer is given up after so
    long. Raises ``OwnerUnavailable``."""
    if importlib.util.find_spec("ray") is None:
        raise OwnerUnavailable(
            "Ray is not installed", "", "install agentbudget-runtime[ray], or open with host='local'"
        )
    if not _is_on_ray():
        prepare(os.environ)
    from agentbudget.runtime.on_ray import cluster as ray_cluster

    return ray_cluster.join(seconds)


def leave() -> None:
    """Be on no cluster: one that :func:`join` started ends, one that was there goes on."""
    from agentbudget.runtime.on_ray import cluster as ray_cluster

    ray_cluster.leave()


def prepare(environ: MutableMapping[str, str]) -> None:
    """What Ray reads from the environment, for a process that is not on a cluster yet."""
    for name, value in QUIET.items():
        environ.setdefault(name, value)
    if not environ.get("RAY_ADDRESS") and not _can_keep_a_token(environ):
        environ[TOKEN] = os.urandom(32).hex()  # of a cluster of our own, whose processes inherit it


def _can_keep_a_token(environ: MutableMapping[str, str]) -> bool:
    """Whether Ray has a token, needs none, or can write one to the home folder."""
    if environ.get(TOKEN) or environ.get("RAY_AUTH_TOKEN_PATH") or environ.get("RAY_AUTH_MODE", "token") != "token":
        return True
    kept = Path(environ.get("HOME") or os.path.expanduser("~")) / ".ray" / "auth_token"
    place = next((folder for folder in (kept, *kept.parents) if folder.exists()), None)
    return (
        place is not None
        and (place == kept or place.is_dir())
        and os.access(place, os.R_OK if place == kept else os.W_OK)
    )


def owners_of(settings: Settings) -> int:
    """How many owners share what nobody has yet. Raises ``InvalidRequest``."""
    if _is_file(settings.ledger):
        if settings.owners not in (None, 1):
            raise InvalidRequest(
                "a ledger in one file has one owner for all its customers: to have more, move it to PostgreSQL",
                "owners",
            )
        return 1
    from agentbudget.runtime.on_ray import cluster as ray_cluster

    return settings.owners or min(MAX_OWNERS, max(1, ray_cluster.cores() // 2 - 1))


def post_of(settings: Settings, new_owner: Callable[..., Owner]) -> Post:
    """What the owners of a ledger are made from."""
    from agentbudget.runtime.on_ray import cluster as ray_cluster

    open_store = partial(open_in_actor, settings.ledger, synchronous=settings.synchronous)
    is_file = _is_file(settings.ledger)
    is_here = not is_file or os.path.exists(SqliteFile.of_url(settings.ledger).path)
    return ray_cluster.Post(
        ledger_id(settings.ledger),
        open_store,
        new_owner,
        settings.owner_lifetime,
        node=ray_cluster.node_here() if is_file else "",
        may_make=is_here or not ray_cluster.is_worker(),
    )


def open_in_actor(url: str, *, synchronous: Synchronous) -> Store:
    """As an owner's actor opens it. Whoever meets its lock, a command without RAY_ADDRESS say, is told by the program's name what
    that is: by Ray it is default_worker.py."""
    sys.argv[:1] = [PROGRAM]
    return open_journal(url, synchronous=synchronous)


def _is_file(url: str) -> bool:
    return url.startswith("sqlite:")


def _everywhere(url: str) -> str:
    """The URL as it names the same ledger in every process of the machine."""
    if not _is_file(url):
        return url
    from agentbudget.runtime.on_ray import cluster as ray_cluster

    path = SqliteFile.of_url(url).path
    if ray_cluster.is_worker() and not url.startswith("sqlite:////"):
        raise InvalidRequest(
            f"{url!r} is relative, and Ray's workers have folders of their own: write sqlite:///{path} as the program that "
            "started Ray means it, or pass session.handle() to the task",
            "ledger",
        )
    return f"sqlite:///{path}"


# --- beside the ledger --------------------------------------------------------------------------------------------------------


def spool_base(url: str) -> str:
    """The path beside which this machine's processes keep their spools: the ledger's file where it is here, else the one that
    stands for it."""
    if _is_file(url) and os.path.exists(path := SqliteFile.of_url(url).path):
        return path
    return state_folder.spool_base(url)


class Caretaker:
    """Which process of this machine books what dead ones left in their spools: an owner on Ray has no spool, so one of the others
    does, for as long as it lives."""

    def __init__(self, ledger: str) -> None:
        self._path = f"{tempfile.gettempdir()}/agentbudget-{os.getuid()}-{ledger}.caretaker"
        self._file: IO[bytes] | None = None

    def __call__(self) -> bool:
        """Whether it is this one, now."""
        if self._file is None:
            try:
                file = os.fdopen(
                    os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "rb"
                )
            except OSError:
                return True  # each of them does, then: they share the work by the spools' own locks
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            self._file = file
        return True


class LateArchive:
    """An archive that is opened at its first use: a worker on another node of the cluster can hold and settle steps without the
    ledger's file, and needs it only to look at entries."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._archive: Any = None

    def _there(self) -> Archive:
        if self._archive is None:
            self._archive = open_archive(self._url)
        archive: Archive = self._archive
        return archive

    def customers(self) -> Iterator[str]:
        return self._there().customers()

    def entries(self, customer: str, *, after: int = 0) -> Iterator[Sealed]:
        return self._there().entries(customer, after=after)

    def load(self, customer: str) -> Loaded | None:
        return self._there().load(customer)

    def find(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sealed]:
        return self._there().find(keys)

    def denials(self, customer: str, *, limit: int = 100) -> list[DenialNote]:
        return self._there().denials(customer, limit=limit)

    def close(self) -> None:
        if self._archive is not None:
            self._archive.close()
