"""One session of a PostgreSQL server, on libpq itself (``psycopg.pq``), in which every wait has an end.

psycopg's own ``Connection`` waits for an answer for as long as the socket lives: a server that is paused, or a network that
swallows packets, would hold the owner for ever. Here each call has a deadline, and what was not answered by then is lost: the
session is closed, and the caller must assume that it does not know. It also costs a third less a commit, since parameters
travel in PostgreSQL's binary form as they are.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from psycopg import Error, pq

from agentbudget.ledger.postgres.values import Parameter, oid_of, packed, unpacked

BINARY: Final = 1
_COPY_CHUNK: Final = 256 * 1024
"""Bytes handed to libpq at once: it copies them, and a large batch need not be in memory three times."""

_ENDED: Final = ("08", "57P")
"""SQLSTATE classes after which the server has ended the session: connection exceptions, operator intervention."""
CANCELED: Final = "57014"
"""In class 57, but of one statement only."""


class Refused(Exception):
    """The server refused a statement. ``state``: its SQLSTATE; the message names tables, never rows."""

    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state = state


class Lost(Exception):
    """The session is gone, or gave no answer in time: whether what was sent took effect is not known. ``state``: the
    server's last word, if it said one."""

    def __init__(self, message: str, state: str = "") -> None:
        super().__init__(message)
        self.state = state


class Line:
    """A session. One thread at a time; after :class:`Lost` it is closed."""

    __slots__ = ("__weakref__", "_connection", "_pid", "_poll", "_prepared", "_seconds", "backend")

    def __init__(self, connection: pq.abc.PGconn, seconds: int) -> None:
        self._connection, self._seconds, self._pid = connection, seconds, os.getpid()
        self._prepared: dict[str, bytes] = {}
        self._poll = select.poll()
        self.backend = connection.backend_pid
        """The server's process for this session."""

    @classmethod
    def connect(cls, conninfo: str, *, connect_seconds: int, seconds: int) -> Line:
        """Open a session within ``connect_seconds`` (names are looked up before that); each later call ends within
        ``seconds``. Raises :class:`Lost` with what the server or the network said."""
        deadline = time.monotonic() + connect_seconds
        try:
            connection = pq.PGconn.connect_start(conninfo.encode())
        except Error as error:
            raise Lost(str(error)) from None
        try:
            _finish_connecting(connection, deadline, connect_seconds)
            connection.nonblocking = 1
            return cls(connection, seconds)
        except BaseException:
            connection.finish()
            raise

    @property
    def is_open(self) -> bool:
        return self._connection.status == pq.ConnStatus.OK

    def is_alive(self) -> bool:
        """Whether nobody has ended the session while it was idle, as far as is known here. Costs no message."""
        if self.is_open:
            self._poll.register(self._connection.socket, select.POLLIN)
        while self.is_open and self._poll.poll(0):
            try:
                self._connection.consume_input()  # the server's last word, then the end
                self._connection.is_busy()
            except Error as error:
                self._lost(str(error))
        return self.is_open

    @property
    def is_in_transaction(self) -> bool:
        return self._connection.transaction_status != pq.TransactionStatus.IDLE

    def setting(self, name: str) -> str:
        """What the server reports by itself, as ``server_encoding``."""
        said = self._connection.parameter_status(name.encode())
        return said.decode() if said is not None else ""

    def run(self, statement: str, parameters: Sequence[Parameter] = ()) -> list[tuple[Any, ...]]:
        """Run one statement, prepared at its first use; ``$1`` ... mark parameters. Its rows, in Python's types."""
        deadline = time.monotonic() + self._seconds
        try:
            name = self._prepared.get(statement) or self._prepare(statement, parameters, deadline)
            values = [packed(value) for value in parameters]
            self._connection.send_query_prepared(name, values, [BINARY] * len(values), BINARY)
            return unpacked(self._results(deadline)[-1])
        except Error as error:
            raise self._lost(str(error)) from None

    def script(self, text: str) -> list[tuple[Any, ...]]:
        """Run statements without parameters in one message; the rows of the last, as text."""
        deadline = time.monotonic() + self._seconds
        try:
            self._connection.send_query(text.encode())
            return unpacked(self._results(deadline)[-1])
        except Error as error:
            raise self._lost(str(error)) from None

    def copy(self, statement: str, chunks: Iterable[bytes]) -> None:
        """Run ``COPY ... FROM STDIN`` with this data."""
        deadline = time.monotonic() + self._seconds
        connection = self._connection
        try:
            connection.send_query(statement.encode())
            self._results(deadline)
            for chunk in chunks:
                for start in range(0, len(chunk), _COPY_CHUNK):
                    while connection.put_copy_data(chunk[start : start + _COPY_CHUNK]) == 0:
                        self._flush(deadline)
            while connection.put_copy_end() == 0:
                self._flush(deadline)
            self._results(deadline)
        except Error as error:
            raise self._lost(str(error)) from None

    def close(self) -> None:
        """End the session; in a forked child only its copy of the socket, which is the parent's."""
        if os.getpid() == self._pid:
            self._connection.finish()
        else:
            self.leave_to_parent()

    def leave_to_parent(self) -> None:
        """In a forked child: close this process's copy of the socket and say nothing on it, so that the server notices when
        the parent has gone. The driver itself does not touch a connection of another process."""
        if self._pid > 0 and self._connection.status == pq.ConnStatus.OK:
            os.close(self._connection.socket)
        self._pid = -1

    def _prepare(self, statement: str, parameters: Sequence[Parameter], deadline: float) -> bytes:
        name = b"ab%d" % len(self._prepared)
        self._connection.send_prepare(name, statement.encode(), [oid_of(value) for value in parameters])
        self._results(deadline)
        self._prepared[statement] = name
        return name

    def _results(self, deadline: float) -> list[pq.abc.PGresult]:
        """Every result of what was sent. Raises :class:`Refused` for the first error, when all have come."""
        connection, found = self._connection, list[pq.abc.PGresult]()
        self._flush(deadline)
        while True:
            while connection.is_busy():
                self._wait(select.POLLIN, deadline)
                connection.consume_input()
            result = connection.get_result()
            if result is None:
                break
            found.append(result)
            if result.status == pq.ExecStatus.COPY_IN:
                return found
        for result in found:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                self._refuse(result)
        if not found:
            raise self._lost("the server closed the connection")
        return found

    def _refuse(self, result: pq.abc.PGresult) -> None:
        state = _field(result, pq.DiagnosticField.SQLSTATE)
        message = _field(result, pq.DiagnosticField.MESSAGE_PRIMARY)
        if not state:  # libpq's own: the connection broke
            raise self._lost(result.error_message.decode(errors="replace").strip())
        if state.startswith(_ENDED) and state != CANCELED:
            raise self._lost(message, state)
        raise Refused(state, message)

    def _flush(self, deadline: float) -> None:
        connection = self._connection
        while connection.flush():
            if self._wait(select.POLLIN | select.POLLOUT, deadline) & select.POLLIN:
                connection.consume_input()

    def _wait(self, what: int, deadline: float) -> int:
        left = deadline - time.monotonic()
        self._poll.register(self._connection.socket, what)
        ready = self._poll.poll(left * 1_000) if left > 0 else []
        if not ready:
            raise self._lost(f"no answer within {self._seconds} s")
        return ready[0][1]

    def _lost(self, message: str, state: str = "") -> Lost:
        self._connection.finish()
        return Lost(_first_line(message), state)


def pause(milliseconds: int) -> None:
    """Wait so long before the next try."""
    select.poll().poll(milliseconds)


def _finish_connecting(connection: pq.abc.PGconn, deadline: float, seconds: int) -> None:
    while True:
        status = connection.connect_poll()
        if status == pq.PollingStatus.OK:
            return
        if status == pq.PollingStatus.FAILED:
            raise Lost(_first_line(connection.error_message.decode(errors="replace")))
        events = select.POLLIN if status == pq.PollingStatus.READING else select.POLLOUT
        poll = select.poll()
        poll.register(connection.socket, events)  # another socket for each address that is tried
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1_000):
            raise Lost(f"no connection within {seconds} s")


def _field(result: pq.abc.PGresult, field: pq.DiagnosticField) -> str:
    return (result.error_field(field) or b"").decode(errors="replace")


def _first_line(message: str) -> str:
    """libpq explains itself over several lines; the first says what happened."""
    return message.strip().partition("\n")[0]
