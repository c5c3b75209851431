"""What pages state about the program, and what the program has: both as plain values, compared by the tests."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from agentbudget.cli.reference import commands
from tests.docs import pages
from tests.tidy import rules

_SPAN = re.compile(r"`([^`\n]+)`")
_FENCES = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_VARIABLE = re.compile(r"\bAGENTBUDGET_[A-Z_]+\b")
_TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


def spans(page: Path) -> list[str]:
    """What the page has in backticks, outside of its blocks."""
    return _SPAN.findall(_FENCES.sub("", page.read_text("utf-8")))


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the table whose first heading begins so, row by row."""
    found: list[list[str]] = []
    is_inside = False
    for line in page.read_text("utf-8").splitlines():
        if line.startswith(f"| {heading}"):
            is_inside = True
        elif not line.startswith("|"):
            is_inside = False
        elif is_inside and not line.startswith("|---"):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def ticked(cell: str) -> list[str]:
    return _SPAN.findall(cell)


# --- commands ----------------------------------------------------------------------------------------------------------------


def lines(page: Path) -> list[list[str]]:
    """Every command line of ours that the page shows, word by word: in backticks, in blocks, and in YAML."""
    text = page.read_text("utf-8")
    blocks = "\n".join(_FENCES.findall(text)).splitlines()
    shown = [*spans(page), *(line.strip().removeprefix("$ ") for line in blocks)]
    found = [shlex.split(one) for one in shown if one.startswith("agentbudget ")]
    return [*found, *(command for document in documents(page) for command in _commands_in(document))]


def documents(page: Path) -> list[Any]:
    """The YAML of the page; raises ``yaml.YAMLError``."""
    return [document for block in pages.blocks(page, "yaml") for document in yaml.safe_load_all(block)]


def _commands_in(document: Any) -> Iterator[list[str]]:
    match document:
        case {"command": ["agentbudget", *_] as words}:
            yield words
        case dict():
            for value in document.values():
                yield from _commands_in(value)
        case list():
            for value in document:
                yield from _commands_in(value)


def command_fault(words: list[str]) -> str:
    """Why this is no command line of ours; empty where it is one. It is parsed as typer would, and not carried out."""
    known = dict(commands())
    name = next((" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in known), "")
    if not name:
        return f"{' '.join(words)}: there is no such command"
    try:
        known[name].make_context(name, words[len(name.split()) :])
    except Exception as error:  # whatever the parser refuses it with
        return f"{' '.join(words)}: {getattr(error, 'message', error)}"
    return ""


# --- names -------------------------------------------------------------------------------------------------------------------


def variables(text: str) -> set[str]:
    return set(_VARIABLE.findall(text))


def trees() -> Iterator[tuple[Path, ast.Module]]:
    """Every module of the package."""
    for path in rules.files(".py", under="agentbudget"):
        yield path, ast.parse(path.read_text("utf-8"))


def texts() -> set[str]:
    """Every string of the package's code."""
    return {
        node.value
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def keys_of(tree: ast.Module) -> Iterator[str]:
    """The keys of every dictionary that the module writes down."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            yield from (key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def constants() -> dict[str, set[float]]:
    """Every number that a module of the package names, by its name: several modules may have one."""
    found: dict[str, set[float]] = {}
    for _, tree in trees():
        names: dict[str, object] = {"SECOND_US": 1_000_000}
        for node in tree.body:
            match node:
                case (
                    ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                    | ast.Assign(targets=[ast.Name(id=name)], value=value)
                ) if (number := _number(value, names)) is not None:
                    names[name] = number
                    found.setdefault(name, set()).add(number)
    return found


def _number(value: ast.expr, names: dict[str, object]) -> float | None:
    """Of an expression of numbers and names of numbers, as constants are; None of anything else."""
    parts = (ast.Constant, ast.BinOp, ast.Name, ast.operator, ast.expr_context)
    if not all(isinstance(node, parts) for node in ast.walk(value)):
        return None
    if not {node.id for node in ast.walk(value) if isinstance(node, ast.Name)} <= names.keys():
        return None
    result = eval(compile(ast.Expression(value), "constant", "eval"), {"__builtins__": {}}, names)
    return result if type(result) in (int, float) else None


def missing_tests(text: str, root: Path = rules.ROOT) -> list[str]:
    """Tests that the text names as ``path::function`` and that are not there."""
    missing = []
    for path, name in _TEST.findall(text):
        file = root / path
        tree = ast.parse(file.read_text("utf-8")) if file.is_file() else ast.Module([], [])
        if name not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{path}::{name}")
    return missing
