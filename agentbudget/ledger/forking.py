"""Objects that hear of a fork: a child must not touch what its parent is connected to."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable


def in_forked_child(call: Callable[[], None]) -> None:
    """Call a method first thing in every child forked from now on, for as long as its object lives."""
    method = weakref.WeakMethod(call)

    def call_if_alive() -> None:
        alive = method()
        if alive is not None:
            alive()

    os.register_at_fork(after_in_child=call_if_alive)
