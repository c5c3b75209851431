"""Every law of the design has an index test here, and tests elsewhere that name it; a law that nobody names is not kept."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAWS = tuple(f"L{number}" for number in range(1, 13))
_NAMED = re.compile(r"(?<![A-Za-z0-9])L(\d{1,2})(?![0-9])")


def of_file(path: Path) -> Iterator[tuple[str, str]]:
    """(name, docstring) of every test function of a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name, ast.get_docstring(node) or ""


def laws_in(text: str) -> set[str]:
    """The laws that a name or a docstring names."""
    return {f"L{number}" for number in _NAMED.findall(text.replace("_", " "))}


def guards() -> dict[str, set[str]]:
    """Law -> the tests that name it in their name, their docstring, or (a file about one law) the file's docstring."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in (*sorted(ROOT.glob("tests/**/test_*.py")), *sorted(ROOT.glob("integrations/*/tests/**/test_*.py"))):
        whole = laws_in(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")
        for name, docstring in of_file(path):
            for law in whole | laws_in(name) | laws_in(docstring):
                found[law].add(f"{path.relative_to(ROOT).as_posix()}::{name}")
    return found


GUARDS = guards()


@pytest.mark.parametrize("law", LAWS)
def test_the_law_has_its_index_test(law: str) -> None:
    index = [name for name, _ in of_file(Path(__file__).with_name("test_laws.py"))]
    assert [name for name in index if name.startswith(f"test_{law}_")], f"test_laws.py has no test of {law}"


@pytest.mark.parametrize("law", [law for law in LAWS if law != "L10"])
def test_the_law_is_guarded_by_more_than_its_index_test(law: str) -> None:
    """L10 is billing's, which is built on top later: until then the ledger's side of it is the index test."""
    elsewhere = {test for test in GUARDS[law] if not test.startswith("tests/laws/")}
    assert elsewhere, f"no test outside tests/laws names {law}"


def test_no_test_names_a_law_that_does_not_exist() -> None:
    assert set(GUARDS) - set(LAWS) == set()


def test_a_law_in_a_name_and_in_a_sentence_is_found() -> None:
    assert laws_in("test_L1_L4_a_failure") == {"L1", "L4"}
    assert laws_in("L12, and (L3). Not XL5 nor L123") == {"L12", "L3"}
