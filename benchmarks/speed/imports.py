"""Row ``import``: what ``import agentbudget`` costs a process, and the first step after it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Final

from benchmarks.record import ROOT
from benchmarks.speed.measure import Effort, Row, count, figures, taking_turns

MOST_MS: Final = 150
FLOOR: Final = "python -c pass"
IMPORT: Final = "import agentbudget"
_CODE: Final = {
    FLOOR: "pass",
    IMPORT: "import agentbudget",
    "every public name": "import agentbudget; [getattr(agentbudget, name) for name in agentbudget.__all__]",
    "first step, memory://": (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import agentbudget\n"
        "with agentbudget.session(budget=1) as session, session.step('tool', name='search', amount='0.1'): pass"
    ),
}
HEAVY: Final = ("ray", "sqlalchemy", "sqlmodel", "pydantic", "langchain_core", "genai_prices", "opentelemetry")


def import_time(effort: Effort) -> Row:
    """Milliseconds of whole processes, interleaved."""
    runs = {label: _running(code) for label, code in _CODE.items()}
    turns = taking_turns(runs, rounds=max(2, effort.rounds // 4), block=1)
    milliseconds = {label: [us / 1e3 for us in samples] for label, samples in turns.items()}
    loaded = _run("import agentbudget, sys; print(len(sys.modules), *sys.modules)").split()
    bare = _run("import sys; print(len(sys.modules))")
    heavy = [name for name in HEAVY if name in loaded]
    found = [
        *figures(milliseconds, "ms"),
        count("modules that it loads", int(loaded[0]) - int(bare), "modules"),
        count("of ray, ORM, LangChain, prices, telemetry", len(heavy), "modules"),
    ]
    row = Row("import", "a process that imports agentbudget and ends", found, floor=FLOOR)
    is_met = row[IMPORT].median < MOST_MS and not heavy
    return Row(row.name, row.what, found, f"< {MOST_MS} ms, without ray or ORM", is_met, FLOOR)


def _running(code: str) -> Callable[[], object]:
    return lambda: _run(code)


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
