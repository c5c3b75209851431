"""When the windows of limits and recurring grants start and end, in the customer's time zone.

Calendar windows turn at local wall time (a day may have 23 or 25 hours; a midnight that daylight saving skips is the moment
of the switch). Anchored windows count from the anchor: hours exactly, days and weeks in local time, months by calendar with
the anchor's day clamped to the month's end (Jan 31, Feb 28, Mar 31).
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from agentbudget.catalog.terms import Window

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
HOUR_US: Final = 3_600_000_000
FOREVER_US: Final = 2**62
"""Later than any time that is asked for: the end of a lifetime window."""

_MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}
_DAYS: Final = {"day": 1, "week": 7}


def bounds(window: Window, *, zone: str, anchor_us: int | None, now_us: int) -> tuple[int, int]:
    """Start and end (UTC microseconds, end exclusive) of the window that contains ``now_us``."""
    if window == "lifetime":
        return 0, FOREVER_US
    if anchor_us is None:
        return _calendar(window, _zone(zone), now_us)
    return _anchored(window, _zone(zone), anchor_us, now_us)


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _local(time_us: int, zone: ZoneInfo) -> datetime:
    return (EPOCH + time_us * MICROSECOND).astimezone(zone)


def _utc_us(local: datetime) -> int:
    return (local.astimezone(UTC) - EPOCH) // MICROSECOND


def _calendar(window: Window, zone: ZoneInfo, now_us: int) -> tuple[int, int]:
    local = _local(now_us, zone)
    if window == "hour":
        first = local.replace(minute=0, second=0, microsecond=0)
        start_us, next_us = _utc_us(first), _utc_us(first + timedelta(hours=1))
        if now_us >= start_us + HOUR_US:  # clocks went back by less than an hour: the rest until the next full one
            start_us += HOUR_US
        return start_us, min(start_us + HOUR_US, next_us) if next_us > start_us else start_us + HOUR_US
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if window in _DAYS:
        first = midnight - timedelta(days=midnight.weekday() if window == "week" else 0)
        return _utc_us(first), _utc_us(first + timedelta(days=_DAYS[window]))
    months = _MONTHS[window]
    first = midnight.replace(month=(midnight.month - 1) // months * months + 1, day=1)
    return _utc_us(first), _utc_us(_add_months(first, months, 1))


def _anchored(window: Window, zone: ZoneInfo, anchor_us: int, now_us: int) -> tuple[int, int]:
    if window == "hour":
        start_us = now_us - (now_us - anchor_us) % HOUR_US
        return start_us, start_us + HOUR_US
    anchor, now = _local(anchor_us, zone), _local(now_us, zone)
    if window in _DAYS:
        index = (now.date() - anchor.date()).days // _DAYS[window]
    else:
        index = ((now.year - anchor.year) * 12 + now.month - anchor.month) // _MONTHS[window]
    # The guess is off by at most one either way: the anchor's time of day, or its day of month, may not be reached yet.
    for candidate in (index + 1, index, index - 1):
        start_us = _nth(window, anchor, candidate)
        if start_us <= now_us:
            return start_us, _nth(window, anchor, candidate + 1)
    raise AssertionError("an anchored window has no start")  # pragma: no cover


def _nth(window: Window, anchor: datetime, index: int) -> int:
    if window in _DAYS:
        return _utc_us(anchor.replace(fold=0) + timedelta(days=index * _DAYS[window]))
    return _utc_us(_add_months(anchor.replace(fold=0), index * _MONTHS[window], anchor.day))


def _add_months(start: datetime, months: int, day: int) -> datetime:
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    return start.replace(year=year, month=month + 1, day=min(day, monthrange(year, month + 1)[1]))
