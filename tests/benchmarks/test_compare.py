"""``python -m benchmarks compare``: what it says of samples whose truth is known, and of tiny repositories whose rows are
numbers. Nothing here is timed."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.compare import blocks, statistics
from benchmarks.compare import command as compare
from benchmarks.compare.blocks import Block, Measured
from benchmarks.compare.comparison import Turn, result
from benchmarks.compare.statistics import ALPHA, Change, Round, judge, sample

# --- the statistics --------------------------------------------------------------------------------------------------

Noise = Callable[[random.Random], float]
NOISES: dict[str, Noise] = {
    "normal": lambda chance: chance.gauss(0, 0.05),
    "heavy tails": lambda chance: 0.05 * chance.gauss(0, 1) / math.sqrt(chance.gammavariate(1.5, 2 / 3)),
    "some blocks much slower": lambda chance: (
        chance.gauss(0, 0.03) + (chance.random() < 0.1) * chance.uniform(0.3, 1.5)
    ),
    "two speeds": lambda chance: chance.gauss(0, 0.01) + (chance.random() < 0.4) * 0.2,
    "skewed": lambda chance: chance.expovariate(10),
}
COMPARISONS = 1_000


def rounds(
    many: int, noise: Callable[[], float], *, effect: float = 0, drift: float = 0, first: float = 0
) -> list[Round]:
    """Logarithms of costs in the order in which they are run. ``effect``: of head; ``drift``: of each block after the other;
    ``first``: of the first block of each round."""
    made = []
    for n in range(many):
        is_base = (True, False, False, True) if n % 2 == 0 else (False, True, True, False)
        logs = [noise() + drift * (4 * n + turn) + (first if turn == 0 else 0) for turn in range(4)]
        costs = [math.exp(log + (0 if base else effect)) for base, log in zip(is_base, logs, strict=True)]
        base, head = ([c for c, b in zip(costs, is_base, strict=True) if b is which] for which in (True, False))
        made.append(Round((base[0], base[1]), (head[0], head[1])))
    return made


@pytest.mark.parametrize("many", [8, 12])
@pytest.mark.parametrize("noise", NOISES)
def test_a_commit_compared_with_itself_is_named_in_at_most_5_of_100_comparisons(noise: str, many: int) -> None:
    chance = random.Random(1)
    named = alarmed = 0
    for _ in range(COMPARISONS):
        judged = judge([sample(rounds(many, lambda: NOISES[noise](chance), drift=0.01)) for _ in range(5)], smallest=0)
        named += any(one.change is not Change.UNSEEN for one in judged)
        alarmed += any(one.is_alarm for one in judged)
    assert named <= ALPHA * COMPARISONS
    assert alarmed <= ALPHA * COMPARISONS


@pytest.mark.parametrize(("noise", "least"), [("normal", 0.98), ("heavy tails", 0.9)])
def test_a_fifth_slower_is_found_among_30_figures_in_12_rounds(noise: str, least: float) -> None:
    chance, found = random.Random(2), 0
    for _ in range(200):
        samples = [sample(rounds(12, lambda: NOISES[noise](chance))) for _ in range(29)]
        samples.append(sample(rounds(12, lambda: NOISES[noise](chance), effect=math.log(1.2))))
        found += judge(samples)[-1].change is Change.WORSE
    assert found >= least * 200


def test_a_change_of_the_size_called_visible_is_mostly_found() -> None:
    """The size comes from one run's noise, and the change is looked for in another's."""
    chance, found = random.Random(3), 0
    for _ in range(400):
        (unchanged,) = judge([sample(rounds(12, lambda: chance.gauss(0, 0.1)))])
        (judged,) = judge([sample(rounds(12, lambda: chance.gauss(0, 0.1), effect=math.log(unchanged.visible)))])
        found += judged.change is Change.WORSE
    assert 0.65 * 400 <= found <= 0.95 * 400


def test_a_drift_of_the_machine_and_a_slow_first_block_are_no_change() -> None:
    drifting = sample(rounds(8, lambda: 0.0, drift=0.02, first=0.3))
    assert drifting.change == pytest.approx(0, abs=1e-12)
    assert drifting.control == pytest.approx(0, abs=1e-12)


def test_an_exact_figure_is_judged_by_its_size_alone() -> None:
    same, less, little = (sample(rounds(4, lambda: 0.0, effect=math.log(by))) for by in (1, 0.9, 1.04))
    assert [one.change for one in judge([same, less, little])] == [Change.UNSEEN, Change.BETTER, Change.UNSEEN]


def test_one_block_of_a_round_that_was_lost_to_others_does_not_hide_a_change() -> None:
    chance = random.Random(4)
    made = rounds(12, lambda: chance.gauss(0, 0.02), effect=math.log(1.2))
    made[5] = Round((made[5].base[0] * 30, made[5].base[1]), made[5].head)
    assert judge([sample(made)])[0].change is Change.WORSE


def test_too_few_rounds_say_nothing() -> None:
    with pytest.raises(ValueError, match="too few"):
        sample(rounds(3, lambda: 0.0))


@pytest.mark.parametrize(
    ("share", "freedom", "t"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 7, 2.36462), (0.95, 10, 1.81246), (0.995, 30, 2.75)],
)
def test_student_s_t_is_that_of_the_tables(share: float, freedom: int, t: float) -> None:
    assert statistics.quantile(share, freedom) == pytest.approx(t, rel=1e-5)
    assert statistics.cumulative(-t, freedom) == pytest.approx(1 - share, rel=1e-4)


def test_holm_s_correction_is_that_of_his_example() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_trimmed_mean_leaves_the_extremes_out() -> None:
    value, error = statistics.trimmed([1, 2, 3, 4, 100])
    assert value == 3
    assert error == pytest.approx(math.sqrt((1 + 0 + 1 + 1 + 1) / 4) / 0.6 / math.sqrt(5))


# --- figures ---------------------------------------------------------------------------------------------------------


def block(floor: str | None = None, **medians: float) -> Block:
    """Its units are in the labels' ends."""
    units = {"us": "us", "rate": "pairs/s", "count": ""}
    return Block([Measured(label, units[label.rpartition("_")[2]], n) for label, n in medians.items()], floor)


def turns(base: Callable[[], Block], head: Callable[[], Block], many: int = 8) -> list[Turn]:
    return [Turn((base(), base()), (head(), head())) for _ in range(many)]


def test_noise_that_strikes_a_process_strikes_its_floor_too_and_cancels() -> None:
    chance = random.Random(5)

    def made(cost: float) -> Block:
        busy = math.exp(chance.gauss(0, 1))
        return block("floor_us", floor_us=busy, step_us=busy * cost, other_rate=1 / busy)

    found = result({"row": turns(lambda: made(10), lambda: made(12))})
    verdicts = {one.label: (one.word, one.floor) for one in found.figures}
    assert verdicts["step_us"] == ("slower", "floor_us")
    assert verdicts["floor_us"] == ("no difference seen", None)
    assert verdicts["other_rate"] == ("no difference seen", None)
    assert found.is_regression


def test_a_floor_that_moved_itself_hides_nothing() -> None:
    found = result(
        {
            "row": turns(
                lambda: block("floor_us", floor_us=1, step_us=10), lambda: block("floor_us", floor_us=1.3, step_us=13)
            )
        }
    )
    assert {one.label: (one.word, one.floor) for one in found.figures} == {
        "floor_us": ("slower", None),
        "step_us": ("slower", None),
    }


def test_each_unit_is_divided_by_its_own_floor_and_only_where_both_commits_name_it() -> None:
    def made(cost: float) -> Block:
        return Block(block(bare_us=1, step_us=cost, bare_rate=5, step_rate=1 / cost).figures, "bare_us", ["bare_rate"])

    found = result({"row": turns(lambda: made(10), lambda: made(10))})
    assert {one.label: one.floor for one in found.figures} == {
        "bare_us": None,
        "step_us": "bare_us",
        "bare_rate": None,
        "step_rate": "bare_rate",
    }
    found = result({"row": turns(lambda: made(10), lambda: Block(made(10).figures, "bare_us"))})
    assert {one.label: one.floor for one in found.figures if one.floor} == {"step_us": "bare_us"}


def test_more_is_better_for_a_rate() -> None:
    (one,) = result({"row": turns(lambda: block(a_rate=100), lambda: block(a_rate=80))}).figures
    assert one.word == "slower"
    (one,) = result({"row": turns(lambda: block(a_rate=100), lambda: block(a_rate=120))}).figures
    assert one.word == "faster"


def test_a_count_that_was_always_0_must_stay_0() -> None:
    zero, some = (lambda: block(lost_count=0)), (lambda: block(lost_count=3))
    broken = result({"row": turns(zero, some)})
    assert broken.is_regression
    assert broken.left_out[0].why == "always 0 in base, up to 3 in head"
    assert not result({"row": turns(zero, zero)}).is_regression
    assert not result({"row": turns(some, zero)}).is_regression


def test_a_figure_that_one_commit_lacks_is_named() -> None:
    found = result({"row": turns(lambda: block(a_us=1, b_us=2), lambda: block(a_us=1, c_us=2))})
    assert [one.label for one in found.figures] == ["a_us"]
    assert {(one.label, one.why) for one in found.left_out} == {
        ("b_us", "head has no such figure"),
        ("c_us", "base has no such figure"),
    }
    assert not found.is_regression


# --- from commits to an exit code ------------------------------------------------------------------------------------

MEASURE = """
from msgspec import Struct
class Effort(Struct):
    rounds: int
    many: int
    entries: int
class Figure(Struct):
    label: str
    unit: str
    median: float
class Row(Struct):
    figures: list[Figure]
    floor: str | None = None
"""
ROWS = """
import os, random, threading
from pathlib import Path
import agentbudget
from benchmarks.speed.measure import Figure, Row
def work(effort):
    busy, own = random.uniform(1, 4), random.uniform(1, 1.01)
    return Row([Figure("floor", "us", busy), Figure("step", "us", busy * own * agentbudget.COST)], "floor")
def waits(effort):
    Path(os.environ["FIFO"]).write_text(str(os.getpid()))
    threading.Event().wait()
ROWS = {"work": work, "waits": waits}
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits, slow after quick; the work trees' folder is ``tmp_path/temporary``."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(compare.blocks.tempfile, "tempdir", str(tmp_path / "temporary"))
    folder = tmp_path / "repository"
    for path, text in {
        "agentbudget/__init__.py": "COST = 10\n",
        "benchmarks/__init__.py": "",
        "benchmarks/speed/__init__.py": ROWS,
        "benchmarks/speed/measure.py": MEASURE,
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    git(folder, "init", "--quiet")
    commit(folder, "quick")
    (folder / "agentbudget/__init__.py").write_text("COST = 12\n", "utf-8")
    commit(folder, "slow")
    return folder


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.com")
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def commit(folder: Path, tag: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", tag)
    git(folder, "tag", tag)


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """However a comparison ended: no work tree, no folder, and the working tree as it was."""
    yield
    if "repository" in request.fixturenames:
        assert list((tmp_path / "temporary").iterdir()) == []
        assert len(git(tmp_path / "repository", "worktree", "list").splitlines()) == 1


def run(repository: Path, *arguments: str) -> int:
    options = command.parser().parse_args(["compare", "--rounds", "4", "--row", "work", *arguments])
    return compare.run(options, repository=repository)


def test_a_slower_commit_is_named_and_ends_with_1(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(repository, "quick", "slow", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    words = {one["label"]: one["word"] for one in said["figures"]}
    assert words == {"floor": "no difference seen", "step": "slower"}
    assert said["is_regression"] is True
    assert said["base"]["id"] == git(repository, "rev-parse", "quick")


def test_a_faster_commit_ends_with_0(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(repository, "slow", "quick") == 0
    assert "2 figures: 0 worse, 1 better" in capsys.readouterr().out


def test_the_working_tree_is_the_head_and_says_what_it_could_have_seen(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(repository, "slow") == 0
    assert "no difference seen; " in capsys.readouterr().out


def test_uncommitted_changes_are_compared_only_when_asked_for(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "agentbudget/__init__.py").write_text("from agentbudget.new import COST\n", "utf-8")
    (repository / "agentbudget/new.py").write_text("COST = 20\n", "utf-8")
    before = git(repository, "status", "--porcelain")
    assert run(repository, "slow") == 2
    assert "--dirty" in capsys.readouterr().err
    assert run(repository, "slow", "--dirty") == 1
    assert "with uncommitted changes" in capsys.readouterr().out
    assert git(repository, "status", "--porcelain") == before


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere", "slow"], "no commit is called 'nowhere'"),
        (["quick", "nowhere"], "no commit is called 'nowhere'"),
        (["quick", "slow", "--row", "no-such-row"], "no row is called 'no-such-row': work, waits"),
        (["quick", "slow", "--rounds", "5"], "an even number"),
        (["quick", "slow", "--rounds", "2"], "4 at least"),
        (["quick", "slow", "--dirty"], "name no HEAD"),
    ],
)
def test_what_cannot_be_compared_ends_with_2(
    repository: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    assert run(repository, *arguments) == 2
    assert why in capsys.readouterr().err


def test_a_row_that_one_commit_lacks_is_named_and_left_out(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "benchmarks/speed/__init__.py").write_text(ROWS + "ROWS['more'] = work\n", "utf-8")
    commit(repository, "more")
    assert run(repository, "slow", "more", "--row", "more") == 0
    said = capsys.readouterr().out
    assert "more: base has no such row" in said
    assert "2 figures: 0 worse" in said
    assert "The rows' own code (benchmarks/speed) is not the same in both" in said


def test_a_row_that_breaks_is_a_regression_and_says_why(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "agentbudget/__init__.py").write_text("", "utf-8")
    commit(repository, "broken")
    assert run(repository, "slow", "broken") == 1
    assert "work: it fails in head: AttributeError" in capsys.readouterr().out
    assert run(repository, "broken", "slow") == 2
    assert "nothing is left to compare: work: it fails in base: AttributeError" in capsys.readouterr().err


def test_a_row_measures_its_own_commit_and_no_other(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(repository / "agentbudget")
    commit(repository, "without")
    assert run(repository, "without", "slow") == 2
    assert "is not this commit's" in capsys.readouterr().err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_comparison_leaves_no_tree_and_no_process(
    repository: Path, tmp_path: Path, how: signal.Signals
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code = (
        "import signal, sys; from pathlib import Path\n"
        "from benchmarks.__main__ import parser; from benchmarks.compare import command\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it, and what they start
        "sys.exit(command.run(parser().parse_args(sys.argv[2:]), repository=Path(sys.argv[1])))"
    )
    waiting = subprocess.Popen(
        [sys.executable, "-c", code, str(repository), "compare", "quick", "slow", "--row", "waits"],
        cwd=compare.ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary"), "FIFO": str(fifo)},
        stderr=subprocess.PIPE,
        text=True,
    )
    row = int(fifo.read_text("utf-8"))  # it runs
    waiting.send_signal(how)
    assert "both work trees are gone" in waiting.communicate()[1]
    assert waiting.returncode == compare.INTERRUPTED
    with pytest.raises(ProcessLookupError):
        os.kill(row, 0)


def test_the_default_rows_exist(repository: Path) -> None:
    assert set(compare.DEFAULT) <= set(command.ROWS)
    assert blocks.EFFORT > blocks.BRIEF
