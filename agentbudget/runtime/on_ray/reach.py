"""Whether somebody answers where a cluster is said to be: Ray itself goes on trying for minutes, and cannot be told to stop.

Asked without Ray, over a socket in which every wait has an end (law L8). The head of a cluster speaks HTTP/2 (gRPC) and says so
at once; a paused one, or another program at its port, does not.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Final

from agentbudget.errors import OwnerUnavailable

ADVICE: Final = (
    "RAY_ADDRESS is to name the head of a cluster that runs, as 10.0.0.1:6379, and RAY_AUTH_MODE and RAY_AUTH_TOKEN are to be "
    "the cluster's; or call ray.init() before, or open with host='local'"
)
_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""The preface of a client of HTTP/2 and its first frame, SETTINGS, empty (RFC 9113, 3.4)."""
_FRAME, _SETTINGS = 9, 4
"""Bytes of a frame's head, and the type in it with which a server begins."""
_PAUSE_SECONDS: Final = 0.1


def require_reachable(address: str, seconds: float) -> None:
    """Return when the head of a cluster answers at ``address`` (``host:port``, or ``ray://host:port``); anything else that Ray
    takes for an address is on this machine, and Ray looks for it itself. Tried for so long, since a head that is started again is
    away meanwhile; raises ``OwnerUnavailable`` then."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    deadline, why = time.monotonic() + seconds, "nothing was tried"
    while (left := deadline - time.monotonic()) > 0:
        try:
            return _greet(host.strip("[]"), int(port), left)
        except (OSError, OverflowError) as error:
            why = str(error) or type(error).__name__
        time.sleep(min(_PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))
    what = f"no Ray cluster has answered at {address} (RAY_ADDRESS) within {seconds:g} s: {why}"
    raise OwnerUnavailable(what, "", ADVICE)


def _greet(host: str, port: int, seconds: float) -> None:
    """Raises ``OSError`` when nobody is there, or nobody who speaks as a head does."""
    deadline = time.monotonic() + seconds
    with socket.create_connection((host, port), timeout=seconds) as there:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return  # it speaks only to those whom it knows
        there.sendall(_HELLO)
        answer = b""
        while len(answer) < _FRAME:
            there.settimeout(max(0.001, deadline - time.monotonic()))
            part = there.recv(_FRAME - len(answer))
            if not part:
                raise OSError("the connection was closed without a word")
            answer += part
    if answer[3] != _SETTINGS:
        raise OSError("what answers there is not the head of a Ray cluster")
