"""The simulation of owners and fleets: arithmetic that it must agree with, and the page that shows it."""

from __future__ import annotations

import pytest

from benchmarks import __main__ as command
from benchmarks import record
from benchmarks.scale.capacity import MOST_BUSY, MOST_STALLED, SHAPES, Shape, carried
from benchmarks.scale.constants import Constants, measured
from benchmarks.scale.simulate import Load, Simulation

QUICK = Constants(pair_us=10, message_us=100, step_us=2, commit_us=300, call_us=500, rows_per_second=30_000)


def test_a_light_load_is_decided_whole_and_busies_the_owner_as_the_arithmetic_says() -> None:
    outcome = Simulation(QUICK, Load(processes=4, leases=2, pace=1_000)).run(seconds=2)
    assert outcome.steps_per_second == pytest.approx(8_000, rel=0.02)
    assert outcome.stalled == pytest.approx(0, abs=0.001)
    least = outcome.messages_per_second * QUICK.message_us + outcome.steps_per_second * QUICK.step_us
    most = least + outcome.messages_per_second * QUICK.commit_us
    assert least * 0.9 <= outcome.busy * 1e6 <= most * 1.1


def test_a_slow_session_says_two_things_a_step() -> None:
    outcome = Simulation(QUICK, Load(processes=10, leases=20, pace=0.1)).run(warm_up=20, seconds=20)
    assert outcome.steps_per_second == pytest.approx(20, rel=0.1)
    assert outcome.messages_per_second == pytest.approx(40, rel=0.1)


def test_too_much_makes_leases_wait() -> None:
    outcome = Simulation(QUICK, Load(processes=800, leases=20, pace=20)).run(seconds=1)
    assert outcome.stalled > MOST_STALLED
    assert outcome.busy > MOST_BUSY


def test_a_slower_owner_carries_less() -> None:
    shape = Shape("tools", 4, 20)
    slow = Constants(**{name: getattr(QUICK, name) for name in QUICK.__struct_fields__} | {"message_us": 400})
    assert carried(QUICK, shape, seconds=0.5).processes > 1.5 * carried(slow, shape, seconds=0.5).processes


def test_a_row_that_was_never_run_is_named() -> None:
    with pytest.raises(SystemExit, match="--row lease"):
        measured({})


def test_the_page_shows_what_the_recorded_figures_give() -> None:
    recorded = record.load(command.RESULTS)
    page = command.SCALE.read_text("utf-8")
    constants = measured(recorded)
    assert f"at the owner {constants.message_us:.0f} us a message" in page, "run: python -m benchmarks scale --write"
    assert all(f"| {shape.name}, {shape.sessions} sessions a process |" in page for shape in SHAPES)
