"""Windows turn in the customer's zone: every instant lies in exactly one, whatever clocks and calendars do (L3)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentbudget.account.windows import FOREVER_US, bounds
from agentbudget.catalog.terms import WINDOWS, Window
from tests.account.desk import HOUR, MINUTE

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe",
    "America/Havana", "Pacific/Apia", "Africa/Casablanca",
)  # fmt: skip
TURNING: tuple[Window, ...] = tuple(window for window in WINDOWS if window != "lifetime")
YEARS = 366 * 24 * HOUR

zones = st.sampled_from(ZONES)
windows = st.sampled_from(TURNING)
times = st.integers(0, 80 * YEARS)
anchors = st.one_of(st.none(), st.integers(0, 60 * YEARS))


def us(text: str, zone: str = "UTC", *, fold: int = 0) -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return (local.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def wall(time_us: int, zone: str) -> str:
    return (
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us))
        .astimezone(ZoneInfo(zone))
        .isoformat(timespec="minutes")
    )


@given(windows, zones, anchors, times)
@example("hour", "Australia/Lord_Howe", None, us("2026-04-04T15:15"))  # the half hour that happens twice
@example("day", "Pacific/Apia", None, us("2011-12-30T09:59"))  # the day before the one that never was
def test_an_instant_lies_in_its_window_and_the_next_begins_where_it_ends(
    window: Window, zone: str, anchor_us: int | None, now_us: int
) -> None:
    start_us, end_us = bounds(window, zone=zone, anchor_us=anchor_us, now_us=now_us)
    assert start_us <= now_us < end_us
    for other_us in (start_us, end_us - 1, (start_us + end_us) // 2):
        assert bounds(window, zone=zone, anchor_us=anchor_us, now_us=other_us) == (start_us, end_us)
    assert bounds(window, zone=zone, anchor_us=anchor_us, now_us=end_us)[0] == end_us


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("window", TURNING)
def test_windows_tile_a_year_of_clock_changes(window: Window, zone: str) -> None:
    now_us, last_us = us("2026-03-01T00:00"), us("2026-11-10T00:00")
    previous_end = bounds(window, zone=zone, anchor_us=None, now_us=now_us)[1]
    while previous_end < last_us:
        start_us, end_us = bounds(window, zone=zone, anchor_us=None, now_us=previous_end)
        assert start_us == previous_end < end_us
        previous_end = end_us


@given(zones, times, st.sampled_from(("day", "week", "month", "quarter", "year")))
def test_a_calendar_window_starts_on_its_first_local_day(zone: str, now_us: int, window: Window) -> None:
    start_us, _ = bounds(window, zone=zone, anchor_us=None, now_us=now_us)
    local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=start_us)).astimezone(ZoneInfo(zone))
    before = local.astimezone(UTC) - timedelta(microseconds=1)
    assert before.astimezone(ZoneInfo(zone)).date() <= local.date()
    assert window != "week" or local.weekday() == 0
    assert window not in ("month", "quarter", "year") or local.day == 1
    assert window != "quarter" or local.month in (1, 4, 7, 10)
    assert window != "year" or local.month == 1


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23), ("Europe/Berlin", "2026-10-25", 25), ("America/New_York", "2026-03-08", 23),
        ("America/New_York", "2026-11-01", 25), ("Asia/Kolkata", "2026-03-29", 24), ("America/Sao_Paulo", "2018-11-04", 23),
        ("America/Sao_Paulo", "2018-02-17", 25), ("America/Havana", "2026-11-01", 25), ("Pacific/Apia", "2011-12-29", 24),
    ],
)  # fmt: skip
def test_a_day_has_the_hours_its_zone_gives_it(zone: str, day: str, hours: int) -> None:
    start_us, end_us = bounds("day", zone=zone, anchor_us=None, now_us=us(f"{day}T12:00", zone))
    assert end_us - start_us == hours * HOUR
    assert wall(start_us, zone).startswith(day)


def test_a_midnight_that_the_clocks_skip_is_the_moment_of_the_switch() -> None:
    start_us, _ = bounds("day", zone="America/Sao_Paulo", anchor_us=None, now_us=us("2018-11-04T12:00"))
    assert wall(start_us, "America/Sao_Paulo") == "2018-11-04T01:00-02:00"
    assert wall(start_us - MINUTE, "America/Sao_Paulo") == "2018-11-03T23:59-03:00"


def test_hours_in_half_hour_zones_turn_at_their_own_full_hours() -> None:
    start_us, end_us = bounds(
        "hour", zone="Asia/Kolkata", anchor_us=None, now_us=us("2026-05-01T10:45", "Asia/Kolkata")
    )
    assert wall(start_us, "Asia/Kolkata") == "2026-05-01T10:00+05:30"
    assert end_us - start_us == HOUR


@pytest.mark.parametrize(
    ("switch", "lengths"),
    [("2026-04-05T00:30", [60, 60, 30, 60]), ("2026-10-04T01:00", [60, 30, 60, 60])],
    ids=["back by half an hour", "forward by half an hour"],
)
def test_lord_howe_moves_by_half_an_hour_and_no_hour_is_counted_twice(switch: str, lengths: list[int]) -> None:
    zone, now_us = "Australia/Lord_Howe", us(switch, "Australia/Lord_Howe")
    found = []
    for _ in lengths:
        start_us, end_us = bounds("hour", zone=zone, anchor_us=None, now_us=now_us)
        found.append((end_us - start_us) // MINUTE)
        now_us = end_us
    assert found == lengths


def test_the_hour_that_happens_twice_is_two_windows() -> None:
    first, second = us("2026-10-25T02:30", "Europe/Berlin"), us("2026-10-25T02:30", "Europe/Berlin", fold=1)
    windows = [bounds("hour", zone="Europe/Berlin", anchor_us=None, now_us=now_us) for now_us in (first, second)]
    assert windows[0][1] == windows[1][0]


def test_a_leap_february_has_its_29_days() -> None:
    for year, days in ((2024, 29), (2026, 28), (2100, 28), (2000, 29)):
        start_us, end_us = bounds("month", zone="UTC", anchor_us=None, now_us=us(f"{year}-02-10T00:00"))
        assert end_us - start_us == days * 24 * HOUR


@pytest.mark.parametrize(
    ("window", "anchor", "starts"),
    [
        ("month", "2026-01-31T10:00", ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]),
        ("month", "2024-01-30T10:00", ["2024-01-30", "2024-02-29", "2024-03-30", "2024-04-30"]),
        ("year", "2024-02-29T10:00", ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]),
        ("quarter", "2025-11-30T10:00", ["2025-11-30", "2026-02-28", "2026-05-30", "2026-08-30"]),
        ("week", "2026-01-07T10:00", ["2026-01-07", "2026-01-14", "2026-01-21"]),
    ],
)  # fmt: skip
def test_an_anchored_cycle_keeps_its_day_and_clamps_to_the_month(
    window: Window, anchor: str, starts: list[str]
) -> None:
    anchor_us = now_us = us(anchor)
    found = [now_us]
    for _ in starts[1:]:
        now_us = bounds(window, zone="UTC", anchor_us=anchor_us, now_us=now_us)[1]
        found.append(now_us)
    assert [wall(one, "UTC")[:10] for one in found] == starts
    assert all(wall(one, "UTC")[11:16] == "10:00" for one in found)


def test_an_anchored_day_keeps_its_local_time_over_a_clock_change() -> None:
    anchor_us = us("2026-03-20T09:00", "Europe/Berlin")
    starts = [anchor_us]
    for _ in range(15):
        starts.append(bounds("day", zone="Europe/Berlin", anchor_us=anchor_us, now_us=starts[-1])[1])
    assert {wall(start, "Europe/Berlin")[11:16] for start in starts} == {"09:00"}
    assert {(b - a) // HOUR for a, b in pairwise(starts)} == {23, 24}


def test_an_anchor_in_the_future_still_tiles_the_time_before_it() -> None:
    anchor_us, now_us = us("2027-05-31T10:00"), us("2026-02-28T09:59")
    start_us, end_us = bounds("month", zone="UTC", anchor_us=anchor_us, now_us=now_us)
    assert (wall(start_us, "UTC")[:10], wall(end_us, "UTC")[:16]) == ("2026-01-31", "2026-02-28T10:00")


def test_a_lifetime_has_one_window() -> None:
    assert bounds("lifetime", zone="UTC", anchor_us=None, now_us=us("2026-01-01T00:00")) == (0, FOREVER_US)
