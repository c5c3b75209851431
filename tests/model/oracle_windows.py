"""Where windows start and end, found by walking local wall-clock times: neither fast nor clever, so that it errs differently.

A window's starts are wall-clock times of the customer's zone, turned into instants; an instant belongs to the last window
that has started. (A wall time that a clock change skips starts with the skip; one that it repeats starts the first time.)
"""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_HOUR_US = 3_600_000_000
_SPANS = {"day": timedelta(days=1), "week": timedelta(weeks=1)}


def moment(us: int) -> datetime:
    """The instant of a time in microseconds."""
    return _EPOCH + timedelta(microseconds=us)


def micros(when: datetime) -> int:
    """The time in microseconds of an instant."""
    return (when - _EPOCH) // timedelta(microseconds=1)


def window_of(name: str, us: int, *, zone: str, anchor_us: int | None = None) -> tuple[int | None, int | None]:
    """(start, end) of the window of ``us``; (None, None) for a lifetime. With ``anchor_us`` windows are anchored."""
    if name == "lifetime":
        return None, None
    place = ZoneInfo(zone)
    if name == "hour":
        return _hour(us, place, anchor_us)
    origin = _origin(name, us, place) if anchor_us is None else _wall(anchor_us, place)
    near = _steps_between(name, origin, _wall(us, place))
    starts = [_instant(_start(name, origin, count), place) for count in range(near - 4, near + 6)]
    return max(start for start in starts if start <= us), min(start for start in starts if start > us)


def _hour(us: int, place: ZoneInfo, anchor_us: int | None) -> tuple[int, int]:
    """An hour always lasts an hour: the one that a clock change repeats is two windows."""
    wall = _wall(us, place)
    since = wall - wall.replace(minute=0, second=0, microsecond=0)
    past = since // timedelta(microseconds=1) if anchor_us is None else (us - anchor_us) % _HOUR_US
    return us - past, us - past + _HOUR_US


def _origin(name: str, us: int, place: ZoneInfo) -> datetime:
    midnight = _wall(us, place).replace(hour=0, minute=0, second=0, microsecond=0)
    match name:
        case "week":
            return midnight - timedelta(days=midnight.weekday())
        case "month":
            return midnight.replace(day=1)
        case "quarter" | "year":
            return midnight.replace(month=1, day=1)
        case _:
            return midnight


def _steps_between(name: str, origin: datetime, wall: datetime) -> int:
    if name in _SPANS:
        return (wall - origin) // _SPANS[name]
    return ((wall.year - origin.year) * 12 + wall.month - origin.month) // _MONTHS[name]


def _start(name: str, origin: datetime, count: int) -> datetime:
    if name in _SPANS:
        return origin + count * _SPANS[name]
    year, month = divmod(origin.year * 12 + origin.month - 1 + count * _MONTHS[name], 12)
    day = min(origin.day, calendar.monthrange(year, month + 1)[1])
    return origin.replace(year=year, month=month + 1, day=day)


def _wall(us: int, place: ZoneInfo) -> datetime:
    return moment(us).astimezone(place).replace(tzinfo=None, fold=0)


def _instant(wall: datetime, place: ZoneInfo) -> int:
    return micros(wall.replace(tzinfo=place).astimezone(UTC))
