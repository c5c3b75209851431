"""Sockets and what watches them are not for forked children: a child that kept a copy would keep a connection open after
both its ends have gone, and nobody would notice that the owner died.

A fork waits while something is being opened, so that nothing is open and not known here. Forks only: a program that is
started closes them by itself (they are not inheritable).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

_opening: Final = threading.Lock()
_ours: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def unforked(open: Callable[[], T]) -> T:
    """Open something while no fork is under way. Not reentrant."""
    with _opening:
        return open()


def not_for_children(open: Callable[[], T]) -> T:
    """Open something that has a ``close``; every child forked from now on begins by closing its copy."""
    with _opening:
        opened = open()
        _ours.add(opened)
        return opened


def _close_copies() -> None:
    """In a forked child, before anything else runs. Closing a copy takes nothing from the parent."""
    for opened in list(_ours):
        opened.close()
    _ours.clear()
    _opening.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_close_copies)
