"""What is counted is exact, what is measured is bounded, and no id is on a metric unless somebody allowed it."""

from __future__ import annotations

import contextlib
import threading

import pytest

from agentbudget import BudgetDenied, InvalidRequest, Runtime, Usage, telemetry
from agentbudget.runtime.customer import Customer
from agentbudget.telemetry import meters, names, watcher
from agentbudget.testing import ManualClock, MemoryJournal
from tests.telemetry.watched import Seen


def test_charges_holds_and_outcomes_are_what_the_ledger_says(seen: Seen, acme: Customer) -> None:
    with acme.session(budget=50) as session:
        for _ in range(20):
            session.reserve("tool", name="search", amount=1).settle(amount="0.25")
        session.reserve("llm", model="m-1", request="hi", max_output_tokens=100).settle(Usage(output_tokens=500))
        session.reserve("tool", name="search", amount=1).release()
        open_one = session.reserve("tool", name="search", amount=3)
        with contextlib.suppress(BudgetDenied):
            session.reserve("tool", name="search", amount=100)
        assert seen.value(names.HOLDS, kind="tool") == 1
        assert seen.value(names.CREDITS_HELD, kind="tool") == 3
        open_one.settle(amount=4)
    spent = float(session.status().spent.nano) / 1e9
    assert seen.value(names.CREDITS_CHARGED) == pytest.approx(spent)
    assert seen.value(names.CREDITS_OVERRUN, kind="tool") == 1
    assert seen.value(names.CREDITS_OVERRUN, model="m-1") > 0
    assert seen.value(names.STEPS_ENDED, outcome="settled", kind="tool") == 21
    assert seen.value(names.STEPS_ENDED, outcome="released") == 1
    assert seen.value(names.STEPS_ENDED, outcome="denied", reason="session_budget") == 1
    assert seen.value(names.HOLDS) == seen.value(names.CREDITS_HELD) == 0
    hits, misses = (seen.value(names.LOOKUPS, hit=hit) for hit in ("true", "false"))
    assert hits + misses == 24
    assert hits > misses > 0


def test_a_correction_counts_the_difference(seen: Seen, acme: Customer) -> None:
    with acme.session(budget=50) as session:
        for truth in ("0.5", "3"):
            step = session.reserve("tool", name="search", amount=2, dispatched=True)
            step.fail(TimeoutError())
            step.settle(amount=truth)
    charged, returned = seen.value(names.CREDITS_CHARGED), seen.value(names.CREDITS_RETURNED)
    assert (charged, returned) == (5, 1.5)
    assert charged - returned == 3.5 == float(session.status().spent.nano) / 1e9
    assert seen.value(names.STEPS_ENDED, outcome="corrected") == 2


def test_distributions_have_what_was_decided_where_and_examples_that_point_to_the_trace(
    seen: Seen, acme: Customer
) -> None:
    with acme.session(budget=50) as session:
        for _ in range(3):
            session.reserve("tool", name="search", amount=2).settle(amount=1)
    points = {str(point.attributes[names.DECIDED_BY]): point for point in seen.metrics()[names.DECISION]}
    assert (points["owner"].count, points["lease"].count) == (1, 2)
    assert 0 < points["lease"].sum < points["owner"].sum + 10
    (utilization,) = seen.metrics()[names.UTILIZATION]
    assert (utilization.count, utilization.sum) == (3, 1.5)
    steps = {span.context.span_id for span in seen.spans(names.STEP) if span.context is not None}
    examples = [example for point in points.values() for example in point.exemplars]
    assert examples
    assert {example.span_id for example in examples} <= steps


def test_an_owner_measures_its_commits_and_counts_lapses(seen: Seen) -> None:
    clock = ManualClock()
    with Runtime.open(MemoryJournal(), clock=clock) as runtime:
        session = runtime.customers.create("acme").session(budget=50, mode="strict").open()
        step = session.reserve("tool", name="search", amount=2, dispatched=True)
        runtime.host.live.discard(step.id)
        clock.advance(seconds=120)
        runtime.sweep()
        (commits,) = seen.metrics()[names.COMMIT]
        assert commits.count >= 3
        assert seen.value(names.LAPSES) == 1
        step.settle(amount=1)
    assert seen.value(names.STEPS_ENDED) == 1


def test_the_depth_of_the_mailbox_is_what_waits_there(seen: Seen, runtime: Runtime) -> None:
    """The owner is kept busy; what is asked meanwhile waits."""
    host = runtime.host
    holding, going_on = threading.Event(), threading.Event()

    def hold(answer: object) -> None:
        holding.set()
        going_on.wait(20)

    runtime.customers.create("acme", plan="prepaid")
    from agentbudget.account.commands import Read

    host.submit("acme", Read("customer"), hold)
    assert holding.wait(20)
    answered = [threading.Event() for _ in range(5)]
    for event in answered:
        host.submit("acme", Read("customer"), lambda answer, event=event: event.set())  # type: ignore[misc]
    assert seen.value(names.MAILBOX) >= 5
    going_on.set()
    assert all(event.wait(20) for event in answered)
    assert seen.value(names.MAILBOX) == 0


def test_no_id_is_on_any_metric(seen: Seen, acme: Customer) -> None:
    with acme.session(id="the-session", budget=50) as session:
        step = session.reserve("tool", name="some-tool", amount=1)
        step.settle()
    told = str(seen.metrics())
    assert "some-tool" not in told  # tools are named by models too
    points = [point for found in seen.metrics().values() for point in found]
    on_metrics = " ".join(str(dict(point.attributes)) for point in points)
    assert not [word for word in ("acme", "the-session", step.id) if word in on_metrics]


def test_ids_are_on_metrics_where_that_was_allowed_and_their_number_is_bounded(
    acme: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meters, "MAX_IDS", 3)
    seen = Seen(["customer", "session"])
    for n in range(5):
        with acme.session(id=f"s-{n}", budget=5) as session:
            session.reserve("tool", name="search", amount=1).settle()
    points = seen.metrics()[names.CREDITS_CHARGED]
    assert {point.attributes[names.CUSTOMER_ID] for point in points} == {"acme"}
    found = {str(point.attributes[names.SESSION_ID]): point.value for point in points}
    assert found == {"s-0": 1, "s-1": 1, "s-2": 1, "other": 2}
    with pytest.raises(InvalidRequest, match="on metrics may be"):
        telemetry.use(metric_ids=["step"])


def test_models_on_metrics_are_bounded(seen: Seen, acme: Customer) -> None:
    with acme.session(budget=500) as session:
        for n in range(meters.MAX_MODELS + 30):
            session.reserve("llm", model=f"made-up-{n}", request="hi", amount="0.1").settle()
    by_model = {str(p.attributes[names.REQUEST_MODEL]): p.value for p in seen.metrics()[names.STEPS_ENDED]}
    assert len(by_model) == meters.MAX_MODELS + 1
    assert by_model[meters.OTHER] == 30
    assert sum(by_model.values()) == meters.MAX_MODELS + 30


def test_distributions_of_a_flood_are_a_sample_and_counters_count_it_all(seen: Seen, acme: Customer) -> None:
    times = 20 * watcher.MOST_MEASURED
    with acme.session(budget=500) as session:
        for _ in range(times):
            session.reserve("tool", name="search", amount="0.01").settle()
    assert seen.value(names.STEPS_ENDED, outcome="settled") == times
    measured = sum(point.count for point in seen.metrics()[names.DECISION])
    assert 0 < measured <= times


def test_threads_count_together(seen: Seen, acme: Customer) -> None:
    with acme.session(budget=500) as session:

        def work() -> None:
            for _ in range(50):
                session.reserve("tool", name="search", amount="0.01").settle()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen.value(names.STEPS_ENDED, outcome="settled") == 400
    assert seen.value(names.CREDITS_CHARGED) == pytest.approx(4)
    assert seen.value(names.HOLDS) == 0
