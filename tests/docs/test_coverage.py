"""integrations/COVERAGE.md is complete: every statement once, each with a test that exists or a reason."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.tidy import rules

TABLE = rules.ROOT / "integrations" / "COVERAGE.md"
COUNTS = {"H1": 41, "H2": 10, "H3": 11, "H4": 11, "H5": 10, "H13": 9, "H15": 11, "P4": 24, "F": 33}
EXPECTED = [f"{part}-{n:02}" for part, count in COUNTS.items() for n in range(1, count + 1)]
ROW = re.compile(r"^\| (?P<id>[HFP]\d*-\d\d) \| (?P<fact>.+) \| (?P<answer>[^|]+) \|$", re.MULTILINE)


def rows() -> list[tuple[str, str]]:
    return [(row["id"], row["answer"].strip()) for row in ROW.finditer(TABLE.read_text(encoding="utf-8"))]


def path_of(place: str) -> Path:
    """``langchain/test_x`` is of the integration, ``tests/ray/test_x`` of the package."""
    folder, _, name = place.rpartition("/")
    if folder.startswith("tests/"):
        return rules.ROOT / folder / f"{name}.py"
    return rules.ROOT / "integrations" / folder / "tests" / f"{name}.py"


@cache
def named_in(path: Path) -> frozenset[str]:
    """The tests that a file defines, or imports (as those that run the suite of integrations)."""
    if not path.is_file():
        return frozenset()
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom) and node.module == "agentbudget.testing.integration_suite":
            names |= suite()
    return frozenset(name for name in names if name.startswith("test_"))


@cache
def suite() -> frozenset[str]:
    folder = rules.ROOT / "agentbudget" / "testing" / "integration_suite"
    return frozenset(name for path in folder.glob("*.py") for name in re.findall(r"def (test_\w+)", path.read_text()))


def is_answered(answer: str) -> bool:
    if answer.startswith("reason: "):
        return len(answer) > len("reason: ") + 20
    place, _, test = answer.partition("::")
    return test in named_in(path_of(place))


def test_every_statement_has_one_row_in_order() -> None:
    assert [id for id, _ in rows()] == EXPECTED


def test_every_row_has_a_test_that_exists_or_a_reason() -> None:
    assert [f"{id}: {answer}" for id, answer in rows() if not is_answered(answer)] == []


def test_a_row_without_an_answer_would_be_found() -> None:
    assert not is_answered("langchain/test_handler::test_that_is_not_there")
    assert not is_answered("langchain/test_nowhere::test_a_call_that_fits_is_held_made_and_settled")
    assert not is_answered("reason: because")
    assert not is_answered("open: integrations/openai")
    assert is_answered("langchain/test_handler::test_a_call_that_fits_is_held_made_and_settled")
