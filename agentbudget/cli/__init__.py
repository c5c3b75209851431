"""The command line. ``main`` is the console script ``agentbudget``; everything else is loaded by its first use."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code (``failures.py`` says which)."""
    from agentbudget.cli.app import run

    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
