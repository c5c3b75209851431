"""Every scenario and every policy: whatever file lies in the two folders."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Final

from benchmarks.runaway.guard import Policy
from benchmarks.runaway.scenario import Scenario

HERE: Final = Path(__file__).parent


def _found(folder: str, name: str) -> dict[str, Any]:
    names = sorted(path.stem for path in (HERE / folder).glob("*.py") if not path.stem.startswith("_"))
    return {stem: getattr(import_module(f"benchmarks.runaway.{folder}.{stem}"), name) for stem in names}


SCENARIOS: Final[dict[str, Scenario]] = _found("scenarios", "SCENARIO")
POLICIES: Final[dict[str, Policy]] = _found("policies", "POLICY")
