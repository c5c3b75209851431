"""Each rule of rules.py finds what it is for, and leaves the look-alike alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tidy import rules

HOME = "/" + "work/notes"
SCHEME = "https:" + "//"
INDEX = "py" + "pi.org"
REMINDER = "TO" + "DO"


@pytest.mark.parametrize("code", ["x = 0.5", "x = 1e9", "x = float(y)", "x = a / b", "x /= 2", "x = 2j"])
def test_a_float_is_found(code: str) -> None:
    assert len(rules.float_faults(code, "m.py")) == 1


@pytest.mark.parametrize("code", ["x = 5", "x = a // b", "x = folder / 'a.db'", "x = folder / f'{a}.db'", "x = '0.5'"])
def test_an_integer_or_a_path_is_no_float(code: str) -> None:
    assert rules.float_faults(code, "m.py") == []


def test_a_listed_line_may_use_a_float() -> None:
    code = "def f():\n    wait_s = 0.5\n    price = 0.5\n"
    assert [fault[:6] for fault in rules.float_faults(code, "m.py", ["wait_s = 0.5"])] == ["m.py:3"]


@pytest.mark.parametrize(
    "code",
    [
        "import time",
        "import os.path",
        "from random import choice",
        "from asyncio import sleep",
        "def f():\n    import logging",
        "async def f(): ...",
        "def f():\n    global state",
        "datetime.now(tz)",
        "date.today()",
        "clock.now_us()",
        "from agentbudget.clock import SECOND_US, SystemClock",
        "print(1)",
        "hash('a')",
    ],
)
def test_an_impure_line_is_found(code: str) -> None:
    assert len(rules.purity_faults(code, "m.py")) == 1


@pytest.mark.parametrize(
    "code", ["from agentbudget.clock import SECOND_US", "import msgspec", "at.hash()", "from . import time"]
)
def test_a_pure_line_is_left_alone(code: str) -> None:
    assert rules.purity_faults(code, "m.py") == []


def test_a_long_function_and_a_long_file_are_found() -> None:
    fits = "def f():\n" + "    x = 1\n" * (rules.MAX_FUNCTION_LINES - 1)
    assert rules.length_faults(fits, "m.py") == []
    assert "f has 51 lines" in rules.length_faults(fits + "    x = 1\n", "m.py")[0]
    assert "401 lines" in rules.length_faults("x = 1\n" * 401, "m.py")[0]


def test_a_module_without_a_docstring_is_found() -> None:
    assert rules.docstring_faults("x = 1", "m.py")
    assert not rules.docstring_faults('"""Why."""\nx = 1', "m.py")
    assert not rules.docstring_faults("", "__init__.py")


@pytest.mark.parametrize("caught", ["except:", "except Exception:", "except BaseException as e:"])
def test_a_swallowed_error_is_found(caught: str) -> None:
    assert rules.swallow_faults(f"try:\n    f()\n{caught}\n    pass", "m.py")
    assert not rules.swallow_faults(f"try:\n    f()\n{caught}\n    g()", "m.py")


def test_a_named_error_may_be_ignored() -> None:
    assert not rules.swallow_faults("try:\n    f()\nexcept OSError:\n    pass", "m.py")


def test_a_stub_is_found() -> None:
    assert rules.unfinished_faults("def f():\n    raise NotImplementedError('later')", "m.py")
    assert not rules.unfinished_faults("def f():\n    return NotImplemented", "m.py")


@pytest.mark.parametrize(
    "line", [f"# {REMINDER}: later", f"path = '{HOME}'", f"pip install -i {SCHEME}{INDEX}/simple x"]
)
def test_a_line_that_does_not_belong_is_found(line: str) -> None:
    assert len(rules.text_faults(f"fine\n{line}\n", "m.md")) == 1


@pytest.mark.parametrize(
    "line", ["a framework/for/agents", "https://example.org/homes/x", "work/notes", "todos are fine"]
)
def test_a_line_that_only_looks_alike_is_left_alone(line: str) -> None:
    assert rules.text_faults(line, "m.md") == []


def test_a_missing_and_a_long_readme_are_found(tmp_path: Path) -> None:
    for folder in ("agentbudget/short", "agentbudget/long", "agentbudget/none", "agentbudget/data"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("short", "long", "none"):
        (tmp_path / "agentbudget" / folder / "__init__.py").touch()
    (tmp_path / "README.md").write_text("fine\n")
    (tmp_path / "agentbudget/short/README.md").write_text("fine\n" * 60)
    (tmp_path / "agentbudget/long/README.md").write_text("long\n" * 61)
    assert rules.readme_faults(tmp_path) == [
        "agentbudget/long/README.md:1: 61 lines, at most 60",
        "agentbudget/none/README.md:1: missing",
    ]


def test_a_folder_of_code_that_is_no_package_is_found(tmp_path: Path) -> None:
    for name in ("p/__init__.py", "p/a/x.py", "p/b/__init__.py", "p/b/versions/r1.py", "p/static/style.css"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert rules.package_faults(tmp_path / "p", tmp_path) == ["p/a/__init__.py:1: missing"]


def test_the_walk_finds_code_and_leaves_tools_alone(tmp_path: Path) -> None:
    for name in ("a/b.py", ".venv/c.py", "a/__pycache__/d.py", ".ci/run", "build/e.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [rules.name_of(path, tmp_path) for path in rules.files(root=tmp_path)] == [".ci/run", "a/b.py"]
