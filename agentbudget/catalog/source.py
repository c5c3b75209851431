"""Reading a catalog text: TOML or YAML into plain data, and the line of each key where that is certain."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from agentbudget.errors import CatalogError

Format: TypeAlias = Literal["toml", "yaml"]
KeyPath: TypeAlias = tuple[str | int, ...]
Fault: TypeAlias = tuple[int | None, str, str]

MAX_TEXT: Final = 1_048_576
"""Longest catalog text in characters: hundreds of plans and thousands of rates, and a bound on what a mistake can
cost."""

MAX_DEPTH: Final = 32
"""Deepest nesting that is read: four times what the format needs."""


class Parsed(NamedTuple):
    """The plain data of a text, the line of each key path that is certain, and faults of the text itself."""

    data: Any
    lines: dict[KeyPath, int]
    faults: list[Fault]


def parse(text: str, format: Format, source: str) -> Parsed:
    """Read a text. Raises :class:`CatalogError` for what is no TOML or YAML; doubled YAML keys are among the faults."""
    if len(text) > MAX_TEXT:
        raise CatalogError(source, [(None, "(file)", f"is longer than {MAX_TEXT} characters: split it, or use globs")])
    return _toml(text, source) if format == "toml" else _yaml(text, source)


def path_text(path: Sequence[str | int]) -> str:
    """``("plans", "team", "grants", 0)`` as ``plans.team.grants[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "(file)"


def line_of(path: Sequence[str | int], lines: Mapping[KeyPath, int]) -> int | None:
    """The line of the key, or of the nearest one that holds it."""
    for length in range(len(path), 0, -1):
        line = lines.get(tuple(path[:length]))
        if line is not None:
            return line
    return None


def _toml(text: str, source: str) -> Parsed:
    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        message = str(error) or "is nested too deeply"
        at = re.search(r"at line (\d+)", message)
        raise CatalogError(source, [(int(at[1]) if at else None, "(file)", f"is not TOML: {message}")]) from None
    return Parsed(data, _toml_lines(text, data), [])


_HEADER: Final = re.compile(r"^\s*(\[\[?)([^\[\]#]+)\]\]?\s*(?:#.*)?$")
_KEY: Final = re.compile(
    r"^\s*((?:[A-Za-z0-9_-]+|\"[^\"\\]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"\\]*\"|'[^']*'))*)\s*="
)
_PART: Final = re.compile(r"[A-Za-z0-9_-]+|\"[^\"\\]*\"|'[^']*'")


def _toml_lines(text: str, data: Any) -> dict[KeyPath, int]:
    """Lines of table headers and of keys at the start of a line. A path is kept only if the parsed data has it, so what
    stands in a multi-line string cannot mislead, but at worst is missing."""
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    for number, line in _lines_outside_strings(text):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            table = _table_path(_parts(header[2]), counts, is_item=header[1] == "[[")
        elif not key:
            continue
        path = table if header else (*table, *_parts(key[1] if key else ""))
        if _has(data, path):
            lines.setdefault(path, number)
    return lines


def _lines_outside_strings(text: str) -> Iterator[tuple[int, str]]:
    closing = ""
    for number, line in enumerate(text.splitlines(), 1):
        if closing:
            closing = "" if closing in line else closing
            continue
        yield number, line
        opened = re.search(r"\"\"\"|'''", line.split("#")[0])
        if opened and opened[0] not in line[opened.end() :]:
            closing = opened[0]


def _parts(text: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in _PART.findall(text))


def _table_path(parts: KeyPath, counts: dict[KeyPath, int], *, is_item: bool) -> KeyPath:
    """A header's path with the index of each array of tables it passes through (its latest item)."""
    path: KeyPath = ()
    for position, part in enumerate(parts):
        path = (*path, part)
        if is_item and position == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _has(data: Any, path: KeyPath) -> bool:
    for part in path:
        if isinstance(data, dict):
            if part not in data:
                return False
        elif not (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            return False
        data = data[part]
    return True


def _yaml(text: str, source: str) -> Parsed:
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            lines, faults = _walk(root)
            data = {} if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise CatalogError(source, [(mark.line + 1 if mark else None, "(file)", f"is not YAML: {problem}")]) from None
    except (RecursionError, ValueError) as error:
        raise CatalogError(source, [(None, "(file)", f"is not YAML that can be read: {error}")]) from None
    return Parsed(data, lines, faults)


def _walk(root: Any) -> tuple[dict[KeyPath, int], list[Fault]]:
    """Lines of every key, and a fault for each key that stands twice in one mapping. Aliased parts are walked once."""
    lines: dict[KeyPath, int] = {}
    faults: list[Fault] = []
    seen: set[int] = set()
    waiting: list[tuple[Any, KeyPath]] = [(root, ())]
    while waiting:
        node, path = waiting.pop()
        if node is None or id(node) in seen or len(path) > MAX_DEPTH:
            continue
        seen.add(id(node))
        if node.id == "mapping":
            waiting += _mapping(node, path, lines, faults)
        elif node.id == "sequence":
            for index, item in enumerate(node.value):
                lines[(*path, index)] = item.start_mark.line + 1
                waiting.append((item, (*path, index)))
    return lines, faults


def _mapping(node: Any, path: KeyPath, lines: dict[KeyPath, int], faults: list[Fault]) -> list[tuple[Any, KeyPath]]:
    inner: list[tuple[Any, KeyPath]] = []
    here: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in here and name != "<<":
            faults.append((line, path_text((*path, name)), f"stands twice (first on line {here[name]}): keep one"))
        here.setdefault(name, line)
        lines.setdefault((*path, name), line)
        inner.append((value, (*path, name)))
    return inner
