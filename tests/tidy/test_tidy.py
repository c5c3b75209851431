"""The tree keeps the rules of rules.py. New files are found by walking; nothing needs to be listed here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tidy import rules

INTEGER_ONLY = ("agentbudget/account", "agentbudget/ledger", "agentbudget/billing")
ALLOWED_FLOATS: dict[str, tuple[str, ...]] = {}
"""Lines of the integer-only folders that may use a float, by path, each stripped: never one that touches money."""

TEXT = (".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".html", ".css", ".sh", ".cfg", ".mako", ".sql", "")


def report(faults: list[str]) -> None:
    assert not faults, "\n" + "\n".join(faults)


def sources_of_packages() -> list[Path]:
    return [path for package in rules.packages() for path in rules.files(".py", under=rules.name_of(package))]


def over(paths: list[Path], rule: Callable[[str, str], list[str]]) -> list[str]:
    return [fault for path in paths for fault in rule(path.read_text("utf-8"), rules.name_of(path))]


def test_money_is_integers_where_it_is_counted() -> None:
    faults = []
    for path in (path for folder in INTEGER_ONLY for path in rules.files(".py", under=folder)):
        name = rules.name_of(path)
        faults += rules.float_faults(path.read_text("utf-8"), name, ALLOWED_FLOATS.get(name, ()))
    report(faults)


def test_every_allowed_float_is_still_there() -> None:
    lines = {name: (rules.ROOT / name).read_text("utf-8") for name in ALLOWED_FLOATS}
    report(
        [f"{name}: {line}" for name, allowed in ALLOWED_FLOATS.items() for line in allowed if line not in lines[name]]
    )


def test_the_account_reads_no_clock_and_does_no_io() -> None:
    report(over(rules.files(".py", under="agentbudget/account"), rules.purity_faults))


@pytest.mark.parametrize(
    "rule", [rules.length_faults, rules.docstring_faults, rules.swallow_faults, rules.unfinished_faults]
)
def test_the_packages_keep(rule: Callable[[str, str], list[str]]) -> None:
    paths = sources_of_packages()
    assert paths, "no source found: the walk looks in the wrong place"
    report(over(paths, rule))


def test_no_file_holds_a_reminder_a_local_path_or_a_package_index() -> None:
    paths = [path for path in rules.files(*TEXT) if path.name != "LICENSE"]
    assert len(paths) > 10
    report(over(paths, rules.text_faults))


def test_readmes_are_there_and_short() -> None:
    report(rules.readme_faults())


def test_every_folder_of_code_is_a_package() -> None:
    report([fault for package in rules.packages() for fault in rules.package_faults(package)])


def test_examples_are_short() -> None:
    report(over(rules.files(".py", under="examples"), lambda t, n: rules.size_faults(t, n, rules.MAX_EXAMPLE_LINES)))
