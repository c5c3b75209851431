"""Figures that a test run publishes in its closing lines, also from the workers of a parallel run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

Record = Callable[[str, object], None]
_PREFIX = "figures of "


def publish(record_property: Record, what: str, figures: Mapping[str, object]) -> None:
    """Show these figures at the end of the run, under this name."""
    record_property(_PREFIX + what, ", ".join(f"{value} {name}" for name, value in figures.items()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each published set of figures."""
    properties = [
        found for report in terminalreporter.getreports("passed") for found in getattr(report, "user_properties", ())
    ]
    lines = [f"{name.removeprefix(_PREFIX)}: {value}" for name, value in properties if name.startswith(_PREFIX)]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)
