"""``python -m benchmarks.peers.child module:function [distribution]`` opens one alternative, and runs a block of it a line.

In: how many pairs, or ``finish``. Out: a line of JSON for each. What the library prints goes to stderr. Standard library only.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from typing import Any

from benchmarks.peers.adapters import Opened


def main(reference: str, distribution: str = "") -> None:
    """Answers until the input ends; the first answer says what was opened, or why it was not."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for answer in _answers(reference, distribution):
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()


def _answers(reference: str, distribution: str) -> Iterator[Any]:
    try:
        module, _, function = reference.partition(":")
        opened: Opened = getattr(import_module(module), function)()
        found = version(distribution) if distribution else ""
    except ModuleNotFoundError as error:
        yield {"missing": str(error)}  # no text of where: answers are recorded
        return
    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield {"version": found, "python": python, "note": opened.note}
    for line in sys.stdin:
        yield opened.finish() if line.strip() == "finish" else opened.block(int(line))


if __name__ == "__main__":
    main(*sys.argv[1:])
