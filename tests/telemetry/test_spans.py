"""Session > step > owner; attributes on the framework's span, never a second one; links; denials with what binds."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan

import agentbudget
from agentbudget import BudgetDenied, Credits, OwnerUnavailable, Runtime, Session, Usage, telemetry
from agentbudget.runtime.customer import Customer
from agentbudget.telemetry import names
from tests.telemetry.watched import Seen, attributes_of, parent_id, span_id

SECRET = "the prompt nobody may see"


def call(session: Session, text: str = "hello") -> None:
    with session.step("llm", model="m-1", request=text, max_output_tokens=10) as step:
        step.settle(Usage(input_tokens=5, output_tokens=3))


def test_a_session_holds_its_steps_and_a_step_what_its_owner_did(seen: Seen, acme: Customer) -> None:
    with acme.session(budget=50, mode="strict") as session:
        call(session)
    whole, step = seen.only(names.SESSION), seen.only(names.STEP)
    assert parent_id(whole) is None
    assert parent_id(step) == span_id(whole)
    owners = [span for span in seen.spans(names.OWNER) if parent_id(span) == span_id(step)]
    assert {attributes_of(span)[names.COMMAND] for span in owners} >= {"Hold", "SettleHold"}
    opened = [span for span in seen.spans(names.OWNER) if attributes_of(span)[names.COMMAND] == "OpenSession"]
    assert [parent_id(span) for span in opened] == [span_id(whole)]
    found = attributes_of(step)
    assert found[names.CUSTOMER_ID] == "acme"
    assert found[names.SESSION_ID] == session.id == attributes_of(whole)[names.SESSION_ID]
    assert (found[names.KIND], found[names.MODEL], found[names.OUTCOME]) == ("llm", "m-1", "settled")
    assert found[names.CHARGED] == pytest.approx(0.011)
    assert found[names.HELD] > found[names.CHARGED]
    assert attributes_of(whole)[names.CHARGED] == pytest.approx(0.011)
    assert attributes_of(whole)[names.STEPS] == 1


def test_a_leased_step_that_nobody_was_asked_for_is_a_span_without_owner(seen: Seen, acme: Customer) -> None:
    with acme.session(budget=50) as session:
        call(session)
        call(session)
    first, second = seen.spans(names.STEP)
    assert [attributes_of(span)[names.DECIDED_BY] for span in (first, second)] == ["owner", "lease"]
    of_steps = {parent_id(span) for span in seen.spans(names.OWNER)}
    assert span_id(first) in of_steps
    assert span_id(second) not in of_steps


def test_what_runs_in_the_body_is_below_the_step_and_the_session_below_what_is_around_it(
    seen: Seen, acme: Customer
) -> None:
    with seen.tracer.start_as_current_span("request") as request, acme.session(budget=50) as session:
        with session.step("tool", name="search", amount=1), seen.tracer.start_as_current_span("GET /"):
            pass
        with seen.tracer.start_as_current_span("between"):
            pass
    whole, step = seen.only(names.SESSION), seen.only(names.STEP)
    assert parent_id(whole) == request.get_span_context().span_id
    assert parent_id(seen.only("GET /")) == span_id(step)
    assert parent_id(seen.only("between")) == span_id(whole)
    assert not trace.get_current_span().get_span_context().is_valid


def test_awaited_bodies_nest_as_blocking_ones_do(seen: Seen, acme: Customer) -> None:
    async def one(session: Session, name: str) -> None:
        async with session.step("tool", name=name, amount=1):
            await asyncio.sleep(0)
            with seen.tracer.start_as_current_span(f"in {name}"):
                await asyncio.sleep(0)

    async def both() -> None:
        async with acme.session(budget=50) as session:
            await asyncio.gather(*(one(session, name) for name in ("a", "b")))

    asyncio.run(both())
    steps = {attributes_of(span)[names.NAME]: span_id(span) for span in seen.spans(names.STEP)}
    assert {name: parent_id(seen.only(f"in {name}")) for name in steps} == steps


def test_a_step_outside_of_its_sessions_trace_is_linked_to_it(seen: Seen, acme: Customer) -> None:
    session = acme.session(budget=50).open()
    with seen.tracer.start_as_current_span("request") as request:
        session.reserve("tool", name="search", amount=1).settle()
    session.reserve("tool", name="search", amount=1).settle()
    session.close()
    whole = seen.only(names.SESSION)
    within, without = seen.spans(names.STEP)
    assert parent_id(within) == request.get_span_context().span_id
    assert [link.context.span_id for link in within.links] == [span_id(whole)]
    assert parent_id(without) == span_id(whole)
    assert list(without.links) == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("llm", {"gen_ai.operation.name": "chat"}),
        ("llm", {"openinference.span.kind": "LLM"}),
        ("tool", {"gen_ai.operation.name": "execute_tool"}),
        ("agent", {"gen_ai.operation.name": "invoke_agent"}),
    ],
)
def test_a_frameworks_own_span_gets_the_attributes_and_there_is_no_second_one(
    seen: Seen, acme: Customer, kind: Any, said: dict[str, str]
) -> None:
    with acme.session(budget=50) as session, seen.tracer.start_as_current_span("theirs", attributes=said):
        session.reserve(kind, name="search", model="m-1", request="hi", amount=2).settle(amount=1)
    theirs = attributes_of(seen.only("theirs"))
    assert seen.spans(names.STEP) == []
    assert (theirs[names.HELD], theirs[names.CHARGED], theirs[names.OUTCOME]) == (2, 1, "settled")
    assert theirs[names.SESSION_ID] == session.id
    assert not set(names.COST) & set(theirs)  # a stated price is no cost of a model's


def test_a_frameworks_span_gets_what_the_call_costs_where_the_catalog_says_it(seen: Seen) -> None:
    with (
        Runtime.open("memory://") as bundled,
        bundled.customers.create("acme").session(budget=5) as session,
        seen.chat(),
    ):
        step = session.reserve("llm", model="gpt-5-mini", request="hi", max_output_tokens=100)
        charged = step.settle(Usage(input_tokens=10, output_tokens=20)).charged
    found = attributes_of(seen.only("theirs"))
    assert found[names.COST_AMOUNT] == pytest.approx(float(Credits(charged).nano) / 1e9)
    assert (found[names.COST_CURRENCY], found[names.COST_SOURCE]) == ("USD", "local")


@pytest.mark.parametrize("said", [{}, {"gen_ai.operation.name": "invoke_agent"}, {"http.route": "/chat"}])
def test_a_span_that_is_about_something_else_stays_as_it_is(seen: Seen, acme: Customer, said: dict[str, str]) -> None:
    with acme.session(budget=50) as session, seen.tracer.start_as_current_span("theirs", attributes=said):
        session.reserve("llm", model="m-1", request="hi", amount=1).settle()
    assert attributes_of(seen.only("theirs")) == said
    step = seen.only(names.STEP)
    assert parent_id(step) == span_id(seen.only("theirs"))
    assert not [key for key in attributes_of(step) if not key.startswith("agentbudget.")]


def test_two_steps_below_one_framework_span_do_not_overwrite_each_other(seen: Seen, acme: Customer) -> None:
    """A retry inside one call of a model."""
    with acme.session(budget=50) as session, seen.chat():
        first = session.reserve("llm", model="m-1", request="hi", amount=2)
        first.fail(ConnectionRefusedError())
        session.reserve("llm", model="m-1", request="hi", amount=3).settle()
    assert attributes_of(seen.only("theirs"))[names.STEP_ID] == first.id
    assert attributes_of(seen.only(names.STEP))[names.CHARGED] == 3


def test_a_step_that_outlives_the_frameworks_span_has_its_own_below_it(seen: Seen, acme: Customer) -> None:
    with acme.session(budget=50) as session:
        with seen.chat():
            step = session.reserve("llm", model="m-1", request="hi", amount=2)
        step.settle()
    assert parent_id(seen.only(names.STEP)) == span_id(seen.only("theirs"))


def test_a_refusal_is_an_event_and_a_log_record_with_the_binding_constraint(seen: Seen, acme: Customer) -> None:
    acme.entities.put("team:eng")
    acme.limits.set("team:eng", 3, window="month")
    with acme.session(budget=50, entities=["team:eng"]) as session:
        with pytest.raises(BudgetDenied):
            session.reserve("tool", name="search", amount=4)
        with pytest.raises(BudgetDenied):
            session.reserve("llm", model="nobody-knows-this", request=SECRET)
    limited, unknown = seen.spans(names.STEP)
    assert [attributes_of(span)[names.REASON] for span in (limited, unknown)] == ["limit", "unknown_price"]
    (event,) = limited.events
    found = dict(event.attributes or {})
    assert event.name == names.STEP_DENIED
    assert found[names.CONSTRAINT_ENTITY] == "team:eng"
    assert (found[names.CONSTRAINT_LIMIT], found[names.CONSTRAINT_REMAINING], found[names.CONSTRAINT_NEED]) == (3, 3, 4)
    assert (found[names.CONSTRAINT_MEASURE], found[names.CONSTRAINT_WINDOW]) == ("credits", "month")
    assert found[names.AFFORDABLE] == 3
    assert names.RETRY_AT in found
    first, second = seen.logs()
    assert (first.event_name, dict(first.attributes)) == (names.STEP_DENIED, found)
    assert (first.trace_id, first.span_id) == (limited.context.trace_id, span_id(limited))
    assert second.attributes[names.REASON] == "unknown_price"


def test_a_refusal_goes_on_the_frameworks_span_too(seen: Seen, acme: Customer) -> None:
    with acme.session(budget=1) as session, contextlib.suppress(BudgetDenied), seen.chat():
        session.reserve("llm", model="m-1", request="hi", amount=2)
    theirs = seen.only("theirs")
    assert seen.spans(names.STEP) == []
    assert attributes_of(theirs)[names.OUTCOME] == "denied"
    assert [event.name for event in theirs.events if event.name != "exception"] == [names.STEP_DENIED]


def test_a_session_that_may_not_be_opened_says_why(seen: Seen, acme: Customer) -> None:
    with acme.session(budget=10) as session, pytest.raises(BudgetDenied):
        session.child(budget=20).open()
    child, _ = seen.spans(names.SESSION)
    assert attributes_of(child)[names.OUTCOME] == "denied"
    (event,) = child.events
    assert event.name == names.SESSION_DENIED
    assert dict(event.attributes or {})[names.REASON] == "session_budget"


def test_children_of_a_session_and_of_a_fan_out_are_below_it(seen: Seen, acme: Customer) -> None:
    with acme.session(budget=10) as session:
        with session.child(budget=1) as child:
            child.reserve("tool", name="search", amount="0.5").settle()
        for worker in session.fan_out(2, budget_each=1):
            with worker:
                worker.reserve("tool", name="search", amount="0.5").settle()
    *below, whole = seen.spans(names.SESSION)
    assert {parent_id(span) for span in below} == {span_id(whole)}
    assert len(below) == 3
    assert sorted(parent_id(span) or 0 for span in seen.spans(names.STEP)) == sorted(span_id(span) for span in below)


def test_L11_a_late_settlement_is_a_span_of_its_own_linked_to_the_step(seen: Seen, acme: Customer) -> None:
    with acme.session(budget=50) as session:
        step = session.reserve("tool", name="search", amount=2, dispatched=True)
        step.fail(TimeoutError())
        with seen.tracer.start_as_current_span("the next morning") as morning:
            step.settle(amount="0.5")
            step.settle(amount="0.5")
    first, late = seen.only(names.STEP), seen.only(names.LATE)
    assert (attributes_of(first)[names.OUTCOME], attributes_of(first)[names.CHARGED]) == ("unknown", 2)
    assert (attributes_of(late)[names.OUTCOME], attributes_of(late)[names.CHARGED]) == ("corrected", 0.5)
    assert [link.context.span_id for link in late.links] == [span_id(first)]
    assert parent_id(late) == morning.get_span_context().span_id


@pytest.mark.parametrize("mode", ["leased", "strict"])
def test_every_end_of_a_step_is_one_span(seen: Seen, acme: Customer, mode: Any) -> None:
    with acme.session(budget=50, mode=mode) as session:
        for end in ("settle", "release", "fail", "forget"):
            step = session.reserve("tool", name=end, amount=2, dispatched=True)
            if end != "forget":
                getattr(step, end)()
                getattr(step, end)()
            del step
            gc.collect()
        with contextlib.suppress(KeyError), session.step("tool", name="raise", amount=2):
            raise KeyError
        with session.step("tool", name="body", amount=2):
            pass
        with session.step("llm", name="stream", model="m-1", request="hi", max_output_tokens=5) as step:
            for _ in step.wrap(["a", "b"], lambda item: None):
                break
    found = {attributes_of(span)[names.NAME]: attributes_of(span)[names.OUTCOME] for span in seen.spans(names.STEP)}
    assert len(seen.spans(names.STEP)) == len(found) == 7
    assert found == {
        "settle": "settled", "release": "released", "fail": "unknown", "forget": "unknown", "raise": "unknown",
        "body": "settled", "stream": "unknown",
    }  # fmt: skip
    assert seen.value(names.HOLDS) == seen.value(names.CREDITS_HELD) == 0


def test_a_session_that_is_forgotten_is_told_of_and_keeps_no_memory(seen: Seen, acme: Customer) -> None:
    watch = telemetry.watch()
    assert watch is not None
    for _ in range(5):
        acme.session(budget=5).open().reserve("tool", name="search", amount=1).settle()
    while len(watch.sessions):  # a collection does nothing while another thread's is under way
        gc.collect()
    assert [attributes_of(span)[names.OUTCOME] for span in seen.spans(names.SESSION)] == ["left"] * 5
    assert {parent_id(span) for span in seen.spans(names.STEP)} == {span_id(span) for span in seen.spans(names.SESSION)}


def test_a_named_session_that_is_left_ends_its_span_and_begins_another_when_it_is_entered_again(
    seen: Seen, acme: Customer
) -> None:
    session = acme.session(id="thread-7", budget=5)
    for _ in range(2):
        with session, session.step("tool", name="search", amount=1):
            pass
    first, second = seen.spans(names.SESSION)
    assert [attributes_of(span)[names.SESSION_ID] for span in (first, second)] == ["thread-7"] * 2
    assert [parent_id(span) for span in seen.spans(names.STEP)] == [span_id(first), span_id(second)]


def test_a_step_that_nobody_answered_for_says_so(seen: Seen, runtime: Runtime, acme: Customer) -> None:
    session = acme.session(budget=50, mode="strict").open()
    runtime.host.close()
    with pytest.raises(OwnerUnavailable):
        session.reserve("tool", name="search", amount=1)
    assert attributes_of(seen.only(names.STEP))[names.OUTCOME] == "unavailable"


def test_nothing_that_a_caller_wrote_is_told_but_names(seen: Seen, acme: Customer) -> None:
    """Prompts, arguments, wordings of errors and keys stay where they are."""
    with acme.session(budget=50, breaker=agentbudget.Breaker(repeat=(2, 60))) as session:
        call(session, SECRET)
        session.reserve("tool", name="search", amount=1, arguments={"q": SECRET}).fail(ValueError(SECRET))
        session.reserve("tool", name="search", amount=1, key=SECRET).settle()
        with contextlib.suppress(BudgetDenied):
            session.reserve("llm", model="m-1", request=SECRET * 10_000)
    told = [
        str((span.name, dict(span.attributes or {}), [dict(e.attributes or {}) for e in span.events]))
        for span in seen.spans()
    ]
    told += [str(dict(record.attributes)) for record in seen.logs()] + [str(seen.metrics())]
    assert len(told) > 8
    assert not [text for text in told if SECRET in text]
    assert any(str(attributes_of(span).get(names.STEP_ID, "")).startswith("key:") for span in seen.spans(names.STEP))


def test_what_is_not_sampled_is_not_written_and_metrics_count_it(seen: Seen, acme: Customer) -> None:
    unsampled = trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(0))
    with trace.use_span(NonRecordingSpan(unsampled)), acme.session(budget=50) as session:
        call(session)
    assert seen.spans() == []
    assert seen.value(names.STEPS_ENDED, outcome="settled") == 1


def test_without_a_provider_nothing_is_watched(acme: Customer) -> None:
    assert telemetry.watch() is None
    with acme.session(budget=50) as session:
        assert session.seen is None
        assert session.reserve("tool", name="search", amount=1)._seen is None
