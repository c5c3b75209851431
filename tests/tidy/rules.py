"""The rules that no linter knows, each a function from source to faults (``path:line: what is wrong``).

They take text and return text: test_rules.py shows each of them a bad sample, test_tidy.py shows them the tree.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MAX_FUNCTION_LINES = 50
MAX_FILE_LINES = 400
MAX_EXAMPLE_LINES = 60
MAX_README_LINES = 60
MAX_ROOT_README_LINES = 150

NOT_OURS = {"build", "dist", "node_modules", "venv", "__pycache__"}
"""Folders of tools; those that start with a dot or end with .egg-info are left out too, except .ci."""

IMPURE_MODULES = {
    "asyncio",
    "concurrent",
    "ctypes",
    "http",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "queue",
    "random",
    "secrets",
    "select",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib",
    "uuid",
    "warnings",
    "sqlalchemy",
    "sqlmodel",
    "alembic",
    "pydantic",
}
IMPURE_CALLS = {"open", "print", "input", "eval", "exec"}
UNREPEATABLE_CALLS = {"hash", "id"}
"""Other answers in each process, so a replay would differ."""
CLOCK_METHODS = {"now", "utcnow", "today", "now_us", "monotonic_us"}


def files(*suffixes: str, under: str = ".", root: Path = ROOT) -> list[Path]:
    """Every file of ours below ``under`` with one of the suffixes, in a stable order."""
    return [path for path in _walk(root / under) if not suffixes or path.suffix in suffixes]


def _walk(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in NOT_OURS and (path.name == ".ci" or not path.name.startswith(".")):
                yield from _walk(path)
        elif not path.is_symlink():
            yield path


def packages(root: Path = ROOT) -> list[Path]:
    """Our import packages: agentbudget, and one in each integration."""
    found = [root / "agentbudget", *sorted(root.glob("integrations/*/agentbudget_*"))]
    return [path for path in found if path.is_dir()]


def name_of(path: Path, root: Path = ROOT) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


# --- the core: integers only, and nothing but values ----------------------------------------------------------------


def float_faults(source: str, name: str, allowed: Iterable[str] = ()) -> list[str]:
    """No float literal, no ``float(...)``, no ``/``: money is integers. ``path / "name"`` is no division of numbers."""
    lines, permitted = source.splitlines(), set(allowed)
    return [
        f"{name}:{line}: {what}: money is integers (use // and Decimal-free nanocredits)"
        for line, what in _floats(ast.parse(source))
        if lines[line - 1].strip() not in permitted
    ]


def _floats(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=float() | complex()):
                yield node.lineno, f"float literal {node.value!r}"
            case ast.Call(func=ast.Name(id="float")):
                yield node.lineno, "float(...)"
            case ast.BinOp(op=ast.Div()) if not (_is_text(node.left) or _is_text(node.right)):
                yield node.lineno, "true division"
            case ast.AugAssign(op=ast.Div()) if not _is_text(node.value):
                yield node.lineno, "true division"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def purity_faults(source: str, name: str) -> list[str]:
    """No clock, chance, logging, I/O, await or module state: the same entries give the same state, anywhere."""
    return [f"{name}:{line}: {what}: account/ is pure" for line, what in _impurities(ast.parse(source))]


def _impurities(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((node.lineno, f"import {a.name}") for a in node.names if _top(a.name) in IMPURE_MODULES)
            case ast.ImportFrom(module=str(module), level=0) if _top(module) in IMPURE_MODULES:
                yield node.lineno, f"import of {module}"
            case ast.ImportFrom(module="agentbudget.clock", names=names) if not all(a.name.isupper() for a in names):
                yield node.lineno, "import of a clock (its constants are fine)"
            case ast.Await() | ast.AsyncFunctionDef() | ast.AsyncFor() | ast.AsyncWith():
                yield node.lineno, "async code"
            case ast.Global():
                yield node.lineno, "a global statement"
            case ast.Call(func=ast.Name(id=called)) if called in IMPURE_CALLS | UNREPEATABLE_CALLS:
                yield node.lineno, f"{called}(...)"
            case ast.Call(func=ast.Attribute(attr=method)) if method in CLOCK_METHODS:
                yield node.lineno, f".{method}(...) reads a clock"


def _top(module: str) -> str:
    return module.partition(".")[0]


# --- shape -----------------------------------------------------------------------------------------------------------


def length_faults(source: str, name: str) -> list[str]:
    """Files and functions that nobody can hold in mind."""
    lines = len(source.splitlines())
    faults = [f"{name}:1: {lines} lines, at most {MAX_FILE_LINES}: split it"] if lines > MAX_FILE_LINES else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                faults.append(f"{name}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}")
    return faults


def docstring_faults(source: str, name: str) -> list[str]:
    """A module says what it is for; a file without code needs nothing."""
    tree = ast.parse(source)
    return [] if not tree.body or ast.get_docstring(tree) else [f"{name}:1: no docstring: say what the module is for"]


def swallow_faults(source: str, name: str) -> list[str]:
    """A handler that catches everything and does nothing hides a bug."""
    return [
        f"{name}:{node.lineno}: swallows every error: name the error, or say what happened"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ExceptHandler) and _catches_all(node.type) and _does_nothing(node.body)
    ]


def _catches_all(caught: ast.expr | None) -> bool:
    return caught is None or (isinstance(caught, ast.Name) and caught.id in {"Exception", "BaseException"})


def _does_nothing(body: list[ast.stmt]) -> bool:
    return all(
        isinstance(s, ast.Pass | ast.Continue) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        for s in body
    )


def unfinished_faults(source: str, name: str) -> list[str]:
    """Work that is not there: a stub that raises, in place of the thing or of leaving it out."""
    return [
        f"{name}:{node.lineno}: NotImplementedError: build it, or leave it out"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and node.id == "NotImplementedError"
    ]


# --- text of any kind ------------------------------------------------------------------------------------------------

_REMINDER = re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X]|HAC[K])\b")
_PLACE = re.compile(r"(?<![\w.<])/(?:work|opt|root|Users)/\w|(?<![\w.<])/home/[a-z]")
_INDEX = re.compile(
    r"pypi\.(?:org|python)|python[h]osted|--(?:extra-)?index-url|--find[-]links|--trusted[-]host", re.IGNORECASE
)


def text_faults(text: str, name: str) -> list[str]:
    """No reminders (they belong in an issue), no path of somebody's machine, no address of a package index."""
    rules = ((_REMINDER, "a reminder: do it, or file it"), (_PLACE, "a local path"), (_INDEX, "a package index"))
    return [
        f"{name}:{number}: {what}: {found.group()}"
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, what in rules
        if (found := pattern.search(line))
    ]


def size_faults(text: str, name: str, most: int) -> list[str]:
    lines = len(text.splitlines())
    return [f"{name}:1: {lines} lines, at most {most}"] if lines > most else []


def readme_faults(root: Path = ROOT) -> list[str]:
    """The root README stays readable in one sitting; each subpackage and each integration has a short one."""
    faults = _one_readme(root, root, MAX_ROOT_README_LINES)
    for folder in sorted((root / "agentbudget").iterdir()):
        if folder.is_dir() and any(folder.glob("*.py")):
            faults += _one_readme(folder, root, MAX_README_LINES)
    for project in sorted(root.glob("integrations/*/pyproject.toml")):
        faults += _one_readme(project.parent, root, MAX_ROOT_README_LINES)
    return faults


def package_faults(package: Path, root: Path = ROOT) -> list[str]:
    """Every folder of code is a regular package: the import contracts do not see into one that is not."""
    folders = sorted({path.parent for path in files(".py", under=name_of(package, root), root=root)})
    return [
        f"{name_of(folder, root)}/__init__.py:1: missing"
        for folder in folders
        if folder.name != "versions" and not (folder / "__init__.py").is_file()  # alembic loads those scripts by path
    ]


def _one_readme(folder: Path, root: Path, most: int) -> list[str]:
    path = folder / "README.md"
    name = name_of(path, root)
    return size_faults(path.read_text("utf-8"), name, most) if path.is_file() else [f"{name}:1: missing"]
