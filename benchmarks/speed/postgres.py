"""Rows ``postgres``, ``postgres-commit`` and ``postgres-callers``: the journal on PostgreSQL against the driver's own ways of
writing the same rows into the same table. The server is the tests' own, with every commit synced to disk."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import psycopg

from agentbudget.clock import SystemClock
from agentbudget.ledger.entry import Sealed
from agentbudget.ledger.journal import Batch
from agentbudget.ledger.postgres.journal import PostgresJournal
from agentbudget.runtime.owner.local_host import LocalHost
from benchmarks.speed.measure import Effort, Row, elapsed_us, figures, taking_turns
from benchmarks.speed.owner import CALLERS, group_commit, group_commit_row, ledgers, rows_of_a_step
from benchmarks.speed.reading import Life
from tests.postgres.server import PostgresServer

BATCH: Final = 1_000
LEAST_SHARE: Final = 0.6
MOST_RATIO: Final = 1.5
COPY: Final = "raw COPY of the same rows"
JOURNAL: Final = "journal, by COPY"
BARE: Final = "a bare INSERT, committed"

_COLUMNS: Final = "(customer, seq, epoch, key, record, hash)"
_INSERT: Final = f"INSERT INTO entries {_COLUMNS} VALUES (%s, %s, %s, %s, %s, %s)"
_TYPES: Final = ["text", "int8", "int8", "text", "bytea", "text"]

Write = Callable[[Sequence[Sealed]], None]


@contextmanager
def opened() -> Iterator[tuple[PostgresJournal, psycopg.Connection[Any]]]:
    """A claimed journal, and a connection of the driver's to the same tables."""
    with PostgresServer(is_synced=True) as server:
        name = server.new_database()
        journal = PostgresJournal.open(server.url(name))
        journal.claim("benchmark")
        with server.connect(name) as connection:
            connection.execute("SET search_path = agentbudget")
            connection.prepare_threshold = 0
            yield journal, connection
        journal.close()


def many_rows(effort: Effort) -> Row:
    """Rows a second in batches of a thousand, each batch a transaction."""
    with opened() as (journal, connection):
        runs: dict[str, Write] = {
            COPY: lambda entries: _copy(connection, entries),
            JOURNAL: lambda entries: journal.commit(Batch(entries=entries)),
            "journal, by arrays": lambda entries: _by_arrays(journal, entries),
            "executemany of the same rows": lambda entries: _executemany(connection, entries),
        }
        lives = {label: Life(f"customer-{n}").entries() for n, label in enumerate(runs)}
        rates: dict[str, list[float]] = {label: [] for label in runs}
        for _ in range(effort.rounds // 2 + 1):
            for label, run in runs.items():
                entries = list(itertools.islice(lives[label], BATCH))
                rates[label].append(BATCH / elapsed_us(partial(run, entries)) * 1e6)
    found = figures({label: samples[1:] for label, samples in rates.items()}, "rows/s")
    what = f"entries of {BATCH} a transaction into PostgreSQL, synced; the fence and both unique indexes included"
    row = Row("postgres", what, found, f">= {LEAST_SHARE} x raw COPY", floor=COPY)
    share = row.ratio(row[JOURNAL]) or 0
    return Row(row.name, row.what, found, row.target, share >= LEAST_SHARE, COPY)


def one_row(effort: Effort) -> Row:
    """One entry a commit, one after the other."""
    with opened() as (journal, connection):
        lives = [Life(f"customer-{n}").entries() for n in range(3)]

        def in_a_transaction() -> None:
            with connection.transaction():
                connection.execute(_INSERT, _row(next(lives[1])))

        found = taking_turns(
            {
                BARE: lambda: connection.execute(_INSERT, _row(next(lives[0]))),
                "BEGIN, INSERT, COMMIT": in_a_transaction,
                "journal.commit": lambda: journal.commit(Batch(entries=[next(lives[2])])),
                "journal.commit of nothing: the epoch": lambda: journal.commit(Batch()),
            },
            rounds=effort.rounds,
            block=20,
            warm_up=20,
        )
    what = "one entry a commit into PostgreSQL, synced, one caller"
    row = Row("postgres-commit", what, figures(found), f"<= {MOST_RATIO} x a bare INSERT", floor=BARE)
    ratio = row.ratio(row["journal.commit"]) or 0
    return Row(row.name, row.what, row.figures, row.target, ratio <= MOST_RATIO, BARE)


def many_callers(effort: Effort) -> Row:
    """Group commit: steps a second of one caller, and of 64 on the same customer."""
    with PostgresServer(is_synced=True) as server, ledgers() as url:
        bare = _BareSteps(server, rows_of_a_step(url("rows")))
        host = LocalHost(PostgresJournal.open(server.url(server.new_database())), SystemClock())
        found = group_commit(host, bare.steps, effort)
        host.close()
        bare.close()
    what = (
        f"durable steps a second (hold + settle) on PostgreSQL, synced: {CALLERS} threads on one customer against one"
    )
    return group_commit_row("postgres-callers", what, found)


class _BareSteps:
    """The floor: the rows of steps on the driver's connection, in a database of their own."""

    def __init__(self, server: PostgresServer, rows: tuple[Sealed, Sealed]) -> None:
        name = server.new_database()
        PostgresJournal.open(server.url(name)).close()
        self._connection = server.connect(name)
        self._connection.execute("SET search_path = agentbudget")
        self._connection.prepare_threshold = 0
        self._rows, self._seq = rows, itertools.count(1)

    def steps(self, many: int) -> None:
        """So many at once: all holds in one transaction, then all settlements."""
        for row in self._rows:
            entries = [
                ("acme", seq, 1, f"step-{seq}", row.record, row.hash) for seq in itertools.islice(self._seq, many)
            ]
            with self._connection.transaction():
                self._connection.cursor().executemany(_INSERT, entries)

    def close(self) -> None:
        self._connection.close()


def _row(entry: Sealed) -> tuple[Any, ...]:
    return entry.customer, entry.seq, 1, entry.key, entry.record, entry.hash


def _copy(connection: psycopg.Connection[Any], entries: Sequence[Sealed]) -> None:
    with (
        connection.transaction(),
        connection.cursor().copy(f"COPY entries {_COLUMNS} FROM STDIN (FORMAT BINARY)".encode()) as copy,
    ):
        copy.set_types(_TYPES)
        for entry in entries:
            copy.write_row(_row(entry))


def _executemany(connection: psycopg.Connection[Any], entries: Sequence[Sealed]) -> None:
    with connection.transaction():
        connection.cursor().executemany(_INSERT, [_row(entry) for entry in entries])


def _by_arrays(journal: PostgresJournal, entries: Sequence[Sealed]) -> None:
    """The way of smaller batches."""
    line = journal._usable()
    journal._append(line, Batch(entries=entries), "entries")
