"""FACTS.md is complete: every fact once, each with a test that exists or a reason."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
EXPECTED = [
    *(f"H1-{n:02}" for n in range(1, 42)),
    *(f"H2-{n:02}" for n in range(1, 11)),
    *(f"P4-{n:02}" for n in range(1, 25)),
]
ROW = re.compile(r"^\| (?P<id>[HP]\d-\d\d) \| (?P<fact>.+) \| (?P<answer>[^|]+) \|$", re.MULTILINE)


def rows() -> list[tuple[str, str]]:
    return [(row["id"], row["answer"].strip()) for row in ROW.finditer((HERE / "FACTS.md").read_text(encoding="utf-8"))]


def known_tests() -> set[str]:
    found = set()
    for path in HERE.glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(f"{path.stem}::{node.name}")
    return found


def test_every_fact_is_listed_once_in_order() -> None:
    assert [id for id, _ in rows()] == EXPECTED


def test_every_fact_has_a_test_that_exists_or_a_reason() -> None:
    known = known_tests()
    missing = [
        f"{id}: {answer}" for id, answer in rows() if answer not in known and not re.match(r"reason: \w.{20,}", answer)
    ]
    assert missing == []
