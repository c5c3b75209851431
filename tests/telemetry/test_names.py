"""One table of names: what README.md says, what names.py says and what really comes out are the same."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from agentbudget import BudgetDenied, Runtime, Usage
from agentbudget.runtime.customer import Customer
from agentbudget.telemetry import names
from agentbudget.testing import ManualClock, MemoryJournal
from tests.runtime.support import PREPAID
from tests.telemetry.watched import Seen, attributes_of
from tests.tidy import rules

README = rules.ROOT / "agentbudget" / "telemetry" / "README.md"
KINDS = {"counter": "Sum", "updowncounter": "Sum", "gauge": "Gauge", "histogram": "Histogram"}


def rows() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Of the table: the name, what it is, what it carries."""
    carried: tuple[str, ...] = ()
    for line in README.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`agentbudget."):
            if cells[3] != "the same":
                carried = tuple(re.sub(r"^\.", "agentbudget.", name) for name in re.findall(r"`([^`]+)`", cells[3]))
            yield cells[0].strip("`"), cells[2], carried


def test_the_table_is_what_the_code_says() -> None:
    said = {name: (what, carries) for name, what, carries in rows()}
    spans = {name: ("span", carries) for name, carries in names.SPANS.items()}
    events = {name: ("event", carries) for name, carries in names.EVENTS.items()}
    metrics = {name: (f"{m.instrument} {m.unit}", m.attributes) for name, m in names.METRICS.items()}
    assert said == spans | events | metrics
    text = README.read_text("utf-8")
    assert not [name for name in names.COST if f"`{name}`" not in text]


@pytest.fixture
def told(seen: Seen) -> Seen:
    """After every kind of thing has happened."""
    clock = ManualClock()
    with Runtime.open(MemoryJournal(), PREPAID, clock=clock) as runtime:
        acme = runtime.customers.create("acme", plan="prepaid")
        acme.wallet.grant(1_000)
        with acme.session(budget=100) as session:
            _everything(seen, session)
        strict = acme.session(budget=10, mode="strict").open()
        silent = strict.reserve("tool", name="search", amount=1, dispatched=True)
        runtime.host.live.discard(silent.id)
        clock.advance(seconds=120)
        runtime.sweep()
        _limited(acme)
    return seen


def _everything(seen: Seen, session: Any) -> None:
    for _ in range(2):
        with session.step("llm", name="planner", model="m-1", request="hi", max_output_tokens=10) as step:
            step.settle(Usage(input_tokens=5, output_tokens=900))
    late = session.reserve("llm", name="planner", model="m-1", request="hi", amount=2, dispatched=True)
    late.fail(TimeoutError())
    late.settle(amount="2.5")
    again = session.reserve("llm", model="m-1", request="hi", amount=2, dispatched=True)
    again.fail(TimeoutError())
    again.settle(amount=1)
    with seen.chat():
        session.reserve("llm", model="m-1", request="hi", max_output_tokens=10).settle(Usage(output_tokens=1))
    with contextlib.suppress(BudgetDenied):
        session.child(budget=1_000).open()


def _limited(acme: Customer) -> None:
    acme.entities.put("team:eng")
    acme.limits.set("team:eng", 3, window="month")
    with acme.session(budget=50, entities=["team:eng"]) as session, contextlib.suppress(BudgetDenied):
        session.reserve("llm", name="planner", model="m-1", amount=4, request="hi")


def test_every_span_and_event_comes_out_with_the_attributes_that_are_listed(told: Seen) -> None:
    found: dict[str, set[str]] = {}
    events: dict[str, set[str]] = {}
    for span in told.spans():
        if span.name != "theirs":
            found.setdefault(span.name, set()).update(attributes_of(span))
        for event in span.events:
            events.setdefault(event.name, set()).update(event.attributes or {})
    assert found == {name: set(carries) for name, carries in names.SPANS.items()}
    assert set(events) == set(names.EVENTS)
    assert set().union(*events.values()) == set(names.DENIAL)
    assert events[names.STEP_DENIED] == set(names.DENIAL)
    theirs = set(attributes_of(told.only("theirs"))) - {"gen_ai.operation.name"}
    assert set(names.COST) <= theirs <= {*names.SPANS[names.STEP], *names.COST}


def test_every_metric_comes_out_with_its_unit_and_attributes(told: Seen) -> None:
    units = told.units()
    silent = {names.DROPPED}
    assert set(units) == set(names.METRICS) - silent
    for name, (kind, unit) in units.items():
        assert (kind, unit) == (KINDS[names.METRICS[name].instrument], names.METRICS[name].unit), name
    for name, points in told.metrics().items():
        carried = {key for point in points for key in point.attributes}
        assert carried == set(names.METRICS[name].attributes), name
