"""The report: one page that needs nothing else, pictures, and a headline table that is what the results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.runaway import report, results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lab")
    ask = ["runaway", "--seeds", "2", "--workers", "1", "--out", str(out)]
    for scenario in ("tool_loop", "healthy_long", "healthy_bursty", "race"):
        ask += ["--scenario", scenario]
    for policy in report.SHOWN:
        ask += ["--policy", policy]
    assert command.main(ask) == 0
    return out


def test_the_page_stands_alone_and_names_every_cell(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    assert command.main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == len(report.CAPTIONS) == len(list(folder.glob("*.png")))
    assert "http" not in page.replace("https://", "http").split("<h2>Scenarios")[0]
    for row in results.load(folder):
        assert f"<td>{row.params}</td><td>{row.policy}</td>" in page


def test_the_headline_is_put_between_the_markers_and_shows_what_we_lose(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- runaway -->\nold\n<!-- /runaway -->\nafter\n", "utf-8")
    assert command.main(["report", str(folder), "--readme", str(readme), "--keep", str(tmp_path / "kept")]) == 0
    text = readme.read_text("utf-8")
    assert text.startswith("before\n<!-- runaway -->\n| billed beyond the budget: mean (most) of 2 seeds")
    assert (tmp_path / "kept" / "summary.csv").read_bytes() == (folder / "summary.csv").read_bytes()
    assert text.endswith("<!-- /runaway -->\nafter\n")
    assert "old" not in text
    race = next(line for line in text.splitlines() if line.startswith("| Check-then-act race |"))
    assert race.endswith("| 0 |")
    assert "**stopped wrongly**" in text


def test_the_notebook_reads_the_results(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells, in order, as a kernel runs them."""
    monkeypatch.setenv("RESULTS", str(folder))
    notebook = json.loads((command.HERE.parent / "examples" / "06_runaway_results.ipynb").read_text("utf-8"))
    space: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), cell["id"], "exec"), space)
    said = capsys.readouterr().out
    assert said.startswith(f"{len(results.load(folder))} runs of 4 scenarios")
    assert "of 22 stopped" in said


def test_a_folder_without_results_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["report", str(tmp_path)]) == 2
    assert "no results" in capsys.readouterr().err
