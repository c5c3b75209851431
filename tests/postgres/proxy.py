"""A TCP proxy between a journal and its server that cuts connections around COMMIT: before the server got it, or after, when
the answer is on its way."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

Cut: TypeAlias = Literal["before", "after"]
_CHUNK: Final = 65_536


class Proxy:
    """Listens on ``port`` and passes everything on to the server. ``is_commit``: whether what a client sends ends a
    transaction that writes; ``cut_next`` says how the next such message fares."""

    def __init__(self, server_port: int, is_commit: Callable[[bytes], bool]) -> None:
        self._server, self._is_commit = ("127.0.0.1", server_port), is_commit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._next: Cut | None = None
        self._is_blackhole = False
        self.waits_for_answer = True
        """Whether a cut "after" waits until the server has answered, so that the transaction is over."""
        self.cuts = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_next(self, how: Cut) -> None:
        self._next = how

    def swallow(self, *, everything: bool = True) -> None:
        """Pass nothing on any more, and say nothing: a network that swallows packets. Or be as before."""
        self._is_blackhole = everything

    def close(self) -> None:
        self._listener.close()
        for pair in self._pairs:
            _close(*pair)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._server)
                except OSError:
                    client.close()
                    continue
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pairs.append((client, server))
                threading.Thread(target=self._pass, args=(client, server), daemon=True).start()

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                ready, _, _ = select.select([client, server], [], [], 0.05)
                if self._is_blackhole:
                    threading.Event().wait(0.05)
                    continue
                for end in ready:
                    data = end.recv(_CHUNK)
                    if not data or (end is client and self._is_cut(data, server)):
                        return _close(client, server)
                    (server if end is client else client).sendall(data)
        _close(client, server)

    def _is_cut(self, data: bytes, server: socket.socket) -> bool:
        """Cut here, if it is time: with what the client sent lost, or with the answer lost, once there is one."""
        if self._next is None or not self._is_commit(data):
            return False
        how, self._next = self._next, None
        self.cuts += 1
        if how == "after":
            server.sendall(data)
            if self.waits_for_answer:
                select.select([server], [], [], 10)
        return True


def _close(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.close()
