"""How often this process was forked from one that used agentbudget: what was begun before the fork is the parent's."""

from __future__ import annotations

import os

_count = 0


def generation() -> int:
    """The same for everything that one process begins; another in its forked children."""
    return _count


def _forked() -> None:
    global _count
    _count += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
