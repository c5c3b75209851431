"""Metrics. Counters are kept here and read when somebody collects, so that a step costs a few additions; distributions
are the SDK's.

How many series there are is bounded, whatever comes: models and ids beyond a number are ``other``.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import CallbackOptions, Observation

from agentbudget.errors import InvalidRequest
from agentbudget.telemetry import names

if TYPE_CHECKING:
    from agentbudget.telemetry.seen import StepSeen

MAX_MODELS: Final = 100
"""Models named on metrics by one process: more than anybody calls on purpose."""
MAX_IDS: Final = 1_000
"""Customers, and sessions, named on metrics where that was allowed."""
OTHER: Final = "other"
NANO: Final = 1e9
SECONDS: Final = (0.000_005, 0.000_01, 0.000_025, 0.000_1, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
"""Bounds of durations: a leased step takes 10 us, a durable one a millisecond, an owner that is being replaced seconds."""
SHARES: Final = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.25, 2)
"""Bounds of charged / held; what is above 1 was beyond the hold."""
Series = tuple[str, ...]


class Tally:
    """What was counted of the steps of one series."""

    __slots__ = ("charged", "overrun", "returned", "steps")

    def __init__(self) -> None:
        self.steps = self.charged = self.overrun = self.returned = 0


class Meters:
    """The instruments of one meter provider. ``open``: the steps that hold something now; ``depths``: of the mailboxes here."""

    def __init__(self, provider: Any, version: str, metric_ids: frozenset[str], depths: Callable[[], int]) -> None:
        self._lock = threading.Lock()
        self.metric_ids = metric_ids
        self._ids = tuple(key for key in (names.CUSTOMER_ID, names.SESSION_ID) if key in metric_ids)
        self._known: dict[str, set[str]] = {key: set() for key in (names.REQUEST_MODEL, *self._ids)}
        self.open: dict[int, StepSeen] = {}
        self.depths = depths
        self._keys = (names.KIND, names.REQUEST_MODEL, *self._ids)
        self._tallies: dict[Series, Tally] = {}
        self._hits = self._misses = self._lapses = self._dropped = 0
        self._create(provider.get_meter(names.SCOPE, version))

    def _create(self, meter: Any) -> None:
        for name, observed in (
            (names.CREDITS_CHARGED, self._credits(lambda tally: tally.charged)),
            (names.CREDITS_RETURNED, self._credits(lambda tally: tally.returned)),
            (names.CREDITS_OVERRUN, self._credits(lambda tally: tally.overrun)),
            (names.STEPS_ENDED, self._steps), (names.LOOKUPS, self._lookups),
            (names.LAPSES, lambda options: self._number(self._lapses)),
            (names.DROPPED, lambda options: self._number(self._dropped)),
        ):  # fmt: skip
            meter.create_observable_counter(name, [observed], names.METRICS[name].unit)
        for name, observed in ((names.CREDITS_HELD, self._held), (names.HOLDS, self._holds)):
            meter.create_observable_up_down_counter(name, [observed], names.METRICS[name].unit)
        meter.create_observable_gauge(names.MAILBOX, [self._depth], names.METRICS[names.MAILBOX].unit)
        self._utilization = _histogram(meter, names.UTILIZATION, SHARES)
        self._decision = _histogram(meter, names.DECISION, SECONDS)
        self._commit = _histogram(meter, names.COMMIT, SECONDS)

    # --- counting -----------------------------------------------------------------------------------------------------------

    def count(self, seen: StepSeen, outcome: str, reason: str, charged: int, overrun: int, returned: int) -> None:
        """A step ended, or was corrected."""
        series = (*self._series(seen), outcome, reason)
        with self._lock:
            tally = self._tallies.get(series)
            if tally is None:
                tally = self._tallies[series] = Tally()
            tally.steps += 1
            tally.charged += charged
            tally.overrun += overrun
            tally.returned += returned
            if seen.is_leased and outcome != "corrected":
                if seen.decided_by == "lease":
                    self._hits += 1
                else:
                    self._misses += 1

    def measure(self, seen: StepSeen, charged: int | None, context: Any) -> None:
        """The distributions of a step; ``context`` makes the examples that point to its trace."""
        self._decision.record(
            seen.decided_ns / NANO, {names.KIND: seen.kind, names.DECIDED_BY: seen.decided_by}, context
        )
        if charged is not None and seen.held:
            model = self._bounded(names.REQUEST_MODEL, seen.model)
            attributes = {names.KIND: seen.kind, names.REQUEST_MODEL: model} if model else {names.KIND: seen.kind}
            self._utilization.record(charged / seen.held, attributes, context)

    def committed(self, took_ns: int, lapses: int) -> None:
        """An owner wrote a batch."""
        self._commit.record(took_ns / NANO)
        if lapses:
            with self._lock:
                self._lapses += lapses

    def drop(self) -> None:
        with self._lock:
            self._dropped += 1

    def _series(self, seen: StepSeen) -> Series:
        series: Series = (seen.kind, self._bounded(names.REQUEST_MODEL, seen.model))
        if self._ids:
            ids = {names.CUSTOMER_ID: seen.session.customer, names.SESSION_ID: seen.session.id}
            series = (*series, *(self._bounded(key, ids[key]) for key in self._ids))
        return series

    def _bounded(self, key: str, value: str | None) -> str:
        if not value:
            return ""
        known = self._known[key]
        if value in known:
            return value
        with self._lock:
            if len(known) >= (MAX_MODELS if key == names.REQUEST_MODEL else MAX_IDS):
                return OTHER
            known.add(value)
        return value

    # --- for who collects ---------------------------------------------------------------------------------------------------

    def _credits(self, part: Callable[[Tally], int]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """Nanocredits of each tally, summed over what ended how."""

        def observed(options: CallbackOptions) -> Iterable[Observation]:
            sums: dict[Series, int] = {}
            for series, tally in list(self._tallies.items()):
                if number := part(tally):
                    sums[series[:-2]] = sums.get(series[:-2], 0) + number
            return [Observation(nano / NANO, _named(self._keys, series)) for series, nano in sums.items()]

        return observed

    def _steps(self, options: CallbackOptions) -> Iterable[Observation]:
        keys = (*self._keys, names.OUTCOME, names.REASON)
        return [Observation(tally.steps, _named(keys, series)) for series, tally in list(self._tallies.items())]

    def _lookups(self, options: CallbackOptions) -> Iterable[Observation]:
        numbers = {"true": self._hits, "false": self._misses}
        return [Observation(number, {names.HIT: hit}) for hit, number in numbers.items() if number]

    @staticmethod
    def _number(number: int) -> Iterable[Observation]:
        return [Observation(number)] if number else []

    def _held(self, options: CallbackOptions) -> Iterable[Observation]:
        return self._by_kind(lambda seen: seen.held, NANO)

    def _holds(self, options: CallbackOptions) -> Iterable[Observation]:
        return self._by_kind(lambda seen: 1, 1)

    def _by_kind(self, number: Callable[[StepSeen], int], scale: float) -> Iterable[Observation]:
        sums = dict.fromkeys(("llm", "tool", "retrieval", "embedding", "agent"), 0)
        for seen in list(self.open.values()):
            sums[seen.kind] += number(seen)
        return [Observation(total if scale == 1 else total / scale, {names.KIND: kind}) for kind, total in sums.items()]

    def _depth(self, options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(self.depths())]


def _named(keys: Series, series: Series) -> dict[str, str]:
    """The attributes of a series, without those that are empty."""
    return {key: value for key, value in zip(keys, series, strict=True) if value}


def meters_of(provider: Any, version: str, metric_ids: frozenset[str], depths: Callable[[], int]) -> Meters:
    """The meters of a provider, which has one of each instrument. Raises ``InvalidRequest`` where it has them with other ids."""
    found = _by_provider.get(provider)
    if found is None:
        found = _by_provider[provider] = Meters(provider, version, metric_ids, depths)
    elif found.metric_ids != metric_ids:
        raise InvalidRequest("the metrics of this provider were begun with others", "metric_ids")
    return found


_by_provider: weakref.WeakKeyDictionary[Any, Meters] = weakref.WeakKeyDictionary()


def _histogram(meter: Any, name: str, bounds: tuple[float, ...]) -> Any:
    return meter.create_histogram(name, names.METRICS[name].unit, explicit_bucket_boundaries_advisory=bounds)
