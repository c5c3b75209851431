"""What is shipped: versions agree, pins are plain, the README's commands are whole, a namesake is refused."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

import agentbudget
from agentbudget._conflict import refuse_unrelated_distribution
from agentbudget.errors import InvalidRequest
from tests.scale import scale_from
from tests.tidy import rules

SET_UP = "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e '.[{extra}]'{integrations} && "
INTEGRATIONS = [path.parent.name for path in rules.ROOT.glob("integrations/*/pyproject.toml")]


def project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    return found


def command_of(readme: str, name: str) -> str:
    """The one command between ``<!-- name -->`` and ``<!-- /name -->``, without its fence."""
    found = re.findall(rf"<!-- {name} -->\n```\w*\n(.+)\n```\n<!-- /{name} -->", readme)
    assert len(found) == 1, f"README.md must hold one command, on one line, between the markers of {name}"
    return str(found[0])


def test_all_versions_agree() -> None:
    folders = [rules.ROOT, *(path.parent for path in rules.ROOT.glob("integrations/*/pyproject.toml"))]
    assert {project(folder)["version"] for folder in folders} == {agentbudget.__version__}
    assert f"## {agentbudget.__version__}" in (rules.ROOT / "CHANGELOG.md").read_text("utf-8")


def test_every_dependency_says_why() -> None:
    lines = (rules.ROOT / "pyproject.toml").read_text("utf-8").split("\ndependencies = [\n")[1].split("\n]")[0]
    blocks = re.split(r'^ +"[^"]+",\n?', lines, flags=re.MULTILINE)[:-1]
    assert len(blocks) == len(project(rules.ROOT)["dependencies"])
    assert all("Without it" in block for block in blocks)


def test_no_extra_asks_an_index_for_the_integration() -> None:
    text = str(project(rules.ROOT)["dependencies"]) + str(project(rules.ROOT)["optional-dependencies"])
    assert [name for name in INTEGRATIONS if f"agentbudget-{name.replace('_', '-')}" in text] == []


def test_constraints_are_plain_pins_of_every_dependency() -> None:
    lines = (rules.ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    pinned = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    named = {re.split(r"[\[><=]", need)[0].lower() for need in project(rules.ROOT)["dependencies"]}
    assert named - pinned == set()


@pytest.mark.parametrize(
    ("name", "extra", "integrations", "end"),
    [
        ("demo-command", "demo", ["langchain"], ".venv/bin/agentbudget demo"),
        ("test-command", "test", INTEGRATIONS, ".venv/bin/python -m pytest -n 2 --dist loadgroup"),
    ],
)
def test_the_readme_has_a_command_that_sets_up_by_itself(
    name: str, extra: str, integrations: list[str], end: str
) -> None:
    command = command_of((rules.ROOT / "README.md").read_text("utf-8"), name)
    installed = re.findall(r" -e integrations/(\w+)", command)
    assert sorted(installed) == sorted(integrations)
    named = "".join(f" -e integrations/{each}" for each in installed)
    assert command == SET_UP.format(extra=extra, integrations=named) + end


def test_ci_runs_the_command_of_the_readme() -> None:
    script = (rules.ROOT / ".ci" / "run").read_text("utf-8")
    function = re.search(r"^test_command\(\).*$", script, flags=re.MULTILINE)
    assert function is not None
    printed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{function.group()}\ntest_command"],
        cwd=rules.ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.strip() == command_of((rules.ROOT / "README.md").read_text("utf-8"), "test-command")


@pytest.mark.parametrize("metadata", ["agentbudget-0.4.0.dist-info", "agentbudget-0.4.0.egg-info"])
def test_a_start_beside_the_unrelated_distribution_is_refused(tmp_path: Path, metadata: str) -> None:
    (tmp_path / metadata).mkdir()
    with pytest.raises(InvalidRequest, match=r"Uninstall both with pip, then install 'agentbudget-runtime' alone"):
        refuse_unrelated_distribution([str(tmp_path / "gone"), str(tmp_path)])


def test_our_own_distributions_are_not_refused(tmp_path: Path) -> None:
    for name in ("agentbudget_runtime-0.1.0.dist-info", "agentbudget_langchain-0.1.0.dist-info", "agentbudget"):
        (tmp_path / name).mkdir()
    refuse_unrelated_distribution([str(tmp_path)])
    refuse_unrelated_distribution()


def test_an_unknown_scale_is_refused_by_name() -> None:
    assert scale_from({})(200) == 200
    assert scale_from({"AGENTBUDGET_TEST_SCALE": "night"})(200) == 2_000
    with pytest.raises(ValueError, match="use one of ci, night"):
        scale_from({"AGENTBUDGET_TEST_SCALE": "fast"})
