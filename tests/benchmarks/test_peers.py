"""The peers' benchmark: whoever takes part does the whole task, and whoever is missing is named. Nothing is timed here."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import record
from benchmarks.peers import __main__ as command
from benchmarks.peers import environment
from benchmarks.peers.adapters import ACTUAL, HELD, Opened, pairs
from benchmarks.peers.turns import ALTERNATIVES, FLOOR, OURS, Alternative, Outcome, measure

HERE = "tests.benchmarks.test_peers"
PYTHON = Path(sys.executable)
FLOOR_ALONE = ALTERNATIVES[0]
DUMMY = Alternative("dummy", f"{HERE}:dummy", "msgspec", "a remark")


class Books:
    """A peer as small as one can be."""

    def __init__(self, forgotten: int = 0) -> None:
        self.booked, self._forgotten = 0, forgotten

    def settle(self, held: int, actual: int) -> None:
        assert held == HELD
        self.booked += actual - self._forgotten

    def opened(self) -> Opened:
        return Opened(pairs(lambda held: held, self.settle, HELD, ACTUAL), lambda: self.booked, "in a test")


def dummy() -> Opened:
    return Books().opened()


def forgetful() -> Opened:
    return Books(forgotten=ACTUAL // 10).opened()


def not_installed() -> Opened:
    import_module("agentbudget_no_such_peer")
    raise AssertionError("unreachable")


def broken() -> Opened:
    raise RuntimeError("its interface has changed")


def crashing() -> Opened:
    def settle(held: int, actual: int) -> None:
        raise RuntimeError("it gave up")

    return Opened(pairs(lambda held: held, settle, HELD, ACTUAL), lambda: 0)


def run(*alternatives: Alternative) -> Outcome:
    return measure(alternatives, PYTHON, pairs=25, block=10, warm_up=3)


def test_a_peer_runs_in_turns_with_the_floor() -> None:
    outcome = run(FLOOR_ALONE, DUMMY)
    assert [(one.label, one.unit, one.samples) for one in outcome.row.figures] == [
        (FLOOR, "us", 25),
        ("dummy", "us", 25),
    ]
    assert outcome.row.ratio(outcome.row[FLOOR]) == 1
    assert (outcome.missing, outcome.failed) == ([], [])
    assert outcome.peers["dummy"]["version"]
    assert outcome.peers["dummy"]["python"].endswith(sys.version.split()[0])


def test_a_missing_peer_is_named_and_the_others_run() -> None:
    outcome = run(FLOOR_ALONE, Alternative("gone", f"{HERE}:not_installed", "gone"), DUMMY)
    assert [one.label for one in outcome.row.figures] == [FLOOR, "dummy"]
    assert outcome.missing == ["gone: not measured, No module named 'agentbudget_no_such_peer'"]
    assert outcome.missing[0] in outcome.row.notes
    assert outcome.missing[0] in record.report([outcome.row])
    assert outcome.missing[0] in command.table(command.as_data(outcome))


@pytest.mark.parametrize(
    ("opens", "why"),
    [
        ("broken", "RuntimeError: its interface has changed"),
        ("crashing", "RuntimeError: it gave up"),
        ("forgetful", "another task"),
    ],
)
def test_a_peer_that_fails_or_does_another_task_is_named_and_has_no_figures(opens: str, why: str) -> None:
    outcome = run(FLOOR_ALONE, Alternative("odd", f"{HERE}:{opens}"))
    assert [one.label for one in outcome.row.figures] == [FLOOR]
    (told,) = outcome.failed
    assert told.startswith("odd: ")
    assert why in told


def test_the_table_has_a_line_and_both_ratios_for_each_alternative() -> None:
    ours = Alternative(OURS, f"{HERE}:dummy")
    text = command.table(command.as_data(run(FLOOR_ALONE, ours, DUMMY)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 5
    assert all(line.count("|") == 8 for line in lines)
    assert lines[2].startswith(f"| {FLOOR} |  | ")
    assert re.fullmatch(r"\| agentbudget: .* \| 1\.0 \|", lines[3])
    assert re.fullmatch(r"\| dummy \| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d.]+ \|", lines[4])
    assert re.search(r"^- dummy: .*, in a test, a remark$", text, re.MULTILINE)


def test_ours_and_the_floor_run_by_the_command_and_fewer_pairs_are_not_recorded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "ALTERNATIVES", ALTERNATIVES[:2])
    monkeypatch.setenv(environment.VARIABLE, sys.executable)
    assert command.main(["--quick", "--results", str(tmp_path / "none.json")]) == 0
    said = capsys.readouterr()
    assert f"| {OURS} |" in said.out
    assert "Not recorded: 100 pairs are fewer than 100,000" in said.err
    assert list(tmp_path.iterdir()) == []


def test_whole_runs_are_recorded_and_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "ALTERNATIVES", (FLOOR_ALONE, DUMMY))
    monkeypatch.setattr(command, "PAIRS", 20)
    monkeypatch.setenv(environment.VARIABLE, sys.executable)
    results = tmp_path / "peers.json"
    assert command.main(["--pairs", "20", "--results", str(results)]) == 0
    printed = capsys.readouterr().out
    recorded = record.load(results)["peers"]
    assert {figure["label"] for figure in recorded["figures"]} == {FLOOR, "dummy"}
    assert {"day", "commit", "machine", "peers"} <= set(recorded)
    assert command.table(recorded) in printed
    assert command.main(["--table", "--results", str(results)]) == 0
    assert capsys.readouterr().out.strip() == command.table(recorded)


def test_the_peers_interpreter_is_the_stated_one_or_the_installed_one_or_ours(tmp_path: Path) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    assert environment.interpreter(cache) == PYTHON
    where = environment.folder(cache)
    where.mkdir(parents=True)
    assert environment.interpreter(cache) == PYTHON  # half an installation is none
    (where / "complete").touch()
    assert environment.interpreter(cache) == where / "bin" / "python"
    assert environment.interpreter(cache | {environment.VARIABLE: sys.executable}) == PYTHON
    with pytest.raises(environment.NoInterpreter, match="no file is"):
        environment.interpreter({environment.VARIABLE: str(tmp_path / "none")})


def test_requirements_are_plain_names_with_versions_and_cover_each_peer() -> None:
    lines = [line for line in environment.REQUIREMENTS.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z-]+(\[[a-z]+\])?==[\d.]+", line) for line in lines)
    named = {re.split(r"[\[=]", line)[0] for line in lines}
    assert {one.distribution for one in ALTERNATIVES if one.distribution} <= named


def test_adapters_import_where_nothing_of_ours_is_installed() -> None:
    code = "import sys; import benchmarks.peers.child; print(*(sys.modules.keys() & {'msgspec', 'agentbudget', 'litellm'}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=record.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_readme_shows_the_recorded_table() -> None:
    recorded = record.load(command.RESULTS)["peers"]
    assert {figure["label"] for figure in recorded["figures"]} == {one.label for one in ALTERNATIVES}
    text = f"{record.START}\n{command.table(recorded)}\n{record.END}"
    assert text in command.README.read_text("utf-8"), "run: python -m benchmarks.peers --table --write"
