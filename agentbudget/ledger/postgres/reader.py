"""Reading PostgreSQL, from many threads over one session that is replaced when it breaks."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from typing import Any

from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger.forking import in_forked_child
from agentbudget.ledger.postgres.database import RECONNECT_SECONDS, PostgresDatabase
from agentbudget.ledger.postgres.line import Line, Lost, Refused
from agentbudget.ledger.postgres.schema import require_head
from agentbudget.ledger.postgres.values import Parameter


class PostgresReader:
    """Opened at first use, again after a failure, and again in a forked child. See ``sql.Rows``."""

    __slots__ = ("__weakref__", "_closed", "_database", "_line", "_mutex", "_pid")

    def __init__(self, database: PostgresDatabase) -> None:
        self._database, self._pid, self._closed = database, os.getpid(), False
        self._line: Line | None = None
        self._mutex = threading.Lock()
        in_forked_child(self._leave_to_parent)

    def rows(self, statement: str, parameters: Sequence[Parameter] = ()) -> list[tuple[Any, ...]]:
        """All rows of one statement (``?`` or ``$1`` marks a parameter), as its own short transaction. A session that was
        lost is replaced and the statement sent again, once: reading twice does no harm."""
        with self._mutex:
            try:
                had_line = self._line is not None
                try:
                    return self._usable().run(_numbered(statement), parameters)
                except Lost:
                    self._line = None
                    if not had_line:
                        raise
                    return self._usable().run(_numbered(statement), parameters)
            except (Lost, Refused) as error:
                if isinstance(error, Lost):
                    self._line = None
                raise self._database.failure(error) from None

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            if self._line is not None:
                self._line.close()
                self._line = None

    def _usable(self) -> Line:
        if self._closed:
            raise OwnerUnavailable(f"the ledger {self._database.name} is closed", "", "open it again")
        if self._line is None:
            line = self._database.line_within(RECONNECT_SECONDS, writes=False)
            try:
                require_head(line, self._database.name)
            except BaseException:
                line.close()
                raise
            self._line = line
        return self._line

    def _leave_to_parent(self) -> None:
        if self._line is not None:
            self._line.leave_to_parent()
        self._line, self._pid, self._mutex = None, os.getpid(), threading.Lock()


@lru_cache(maxsize=64)
def _numbered(statement: str) -> str:
    """A statement of ``ledger/statements.py`` as PostgreSQL has it: parameters are numbered."""
    first, *rest = statement.split("?")
    return first + "".join(f"${number}{text}" for number, text in zip(count(1), rest, strict=False))
