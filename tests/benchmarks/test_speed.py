"""The benchmarks run, and the README shows what they recorded. How fast is theirs to say: nothing is timed here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import record
from benchmarks.speed import ROWS
from benchmarks.speed.measure import Figure, Row, figure
from benchmarks.speed.owner import rate


@pytest.mark.parametrize("name", sorted(ROWS))
def test_the_row_runs(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if name in ("ray", "ray-drain", "customers"):
        pytest.importorskip("ray")
    assert command.main(["speed", "--quick", "--json", "--row", name, "--results", str(tmp_path / "none.json")]) in (
        0,
        1,
    )
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == name
    assert row["figures"]
    assert row["target"]
    assert all(figure["median"] >= figure["least"] for figure in row["figures"])
    assert list(tmp_path.iterdir()) == []


def test_L3_the_race_admits_exactly_what_fits_and_the_baseline_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    """The one row whose figures are counts, so that they can be asserted."""
    assert command.main(["speed", "--quick", "--json", "--row", "race"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    counts = {figure["label"]: figure["median"] for figure in row["figures"]}
    assert {number for label, number in counts.items() if "handler" in label or "middleware" in label} == {20}
    assert all(number > 20 for label, number in counts.items() if "check then record" in label)


def test_the_readme_shows_the_recorded_table_and_a_command_for_each_row() -> None:
    text = command.README.read_text("utf-8")
    recorded = record.load(command.RESULTS)
    assert f"{record.START}\n{record.table(recorded)}\n{record.END}" in text, "run: python -m benchmarks table --write"
    for name in ROWS:
        assert f"python -m benchmarks speed --row {name}`" in text
        assert name in recorded or f"`{name}`" in text.partition("Not recorded yet: ")[2]
    assert len(text.splitlines()) <= 150


def test_figures_are_the_least_the_median_and_the_99th_percentile() -> None:
    assert figure("x", "us", [3, 1, 2]) == Figure("x", "us", 1, 2, 3, 3)
    assert figure("x", "us", range(1, 201)).p99 == 199


def test_a_ratio_is_to_the_floor_and_only_in_its_unit() -> None:
    slow, fast, other = (
        Figure(label, unit, m, m, m, 1) for label, unit, m in (("slow", "us", 6), ("fast", "us", 2), ("n", "", 9))
    )
    row = Row("name", "what", [slow, fast, other], floor="fast")
    assert (row.ratio(slow), row.ratio(fast), row.ratio(other)) == (3, 1, None)


def test_a_figure_s_ratio_is_to_the_floor_of_its_own_unit() -> None:
    made = [
        Figure(label, unit, m, m, m, 1)
        for label, unit, m in (("a", "us", 2), ("b", "us", 6), ("c", "MB", 5), ("d", "MB", 10))
    ]
    row = Row("name", "what", made, floor="a", floors=["c"])
    assert [row.ratio(one) for one in made] == [1, 3, 1, 2]


def test_a_caller_that_fails_is_no_step() -> None:
    def step() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        rate(step, callers=2, steps=1)
