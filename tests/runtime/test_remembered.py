"""Steps that come again are priced from what is remembered of them: that must be what the catalog quotes, to the nanocredit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget import Runtime, Session, Usage
from agentbudget.amounts import USD
from agentbudget.runtime.steps.asking import Ask, lease_key, price

WHAT = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["gpt-5-mini", "gpt-5", "gemini-2.5-pro", "claude-sonnet-4-5", "nobody-knows", None]),
        "request": st.sampled_from(
            [
                {"messages": [{"role": "user", "content": "hi"}]},
                {"messages": [{"role": "user", "content": "long " * 90_000}]},
                {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]},
                {"messages": [], "tools": [{"type": "function", "function": {"name": "f"}}]},
                "a text",
                None,
            ]
        ),
    },
    optional={
        "max_output_tokens": st.sampled_from([0, 1, 100, 10**9, None]),
        "cap_enforced": st.booleans(),
        "quantity": st.sampled_from([1, 2]),
        "server_tools": st.booleans(),
        "provider": st.sampled_from([None, "openai"]),
        "input_tokens": st.sampled_from([0, 17, 300_000, None]),
        "dispatched": st.booleans(),
        "seconds": st.sampled_from([None, 3]),
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def session() -> Any:
    with Runtime.open("memory://") as runtime, runtime.customers.create("acme", plan="local").session() as session:
        yield session


@given(kind=st.sampled_from(["llm", "embedding"]), what=WHAT)
def test_what_is_remembered_of_a_step_holds_and_charges_what_the_catalog_says(
    session: Session, kind: Any, what: Any
) -> None:
    known = session.link.remembered.find(session, kind, what)
    if known is None:
        return
    ask, cost, key = known
    asked = Ask(kind=kind, **what)
    full = price(asked, session.link.catalog, session.caps, customer="acme", workflow=None, now_us=0)
    assert (cost.amount, cost.measures, cost.cap, cost.estimate, cost.rate) == (
        full.amount, full.measures, full.cap, full.estimate, full.rate,
    )  # fmt: skip
    assert key == lease_key(asked)
    assert (ask.request, ask.input_tokens) == (None, None)  # nothing of what was sent is kept
    for usage in (
        Usage(input_tokens=9, output_tokens=5, cache_read_tokens=4),
        Usage(input_tokens=1, model="gpt-5-mini"),
    ):
        assert cost.charge(usage) == full.charge(usage)
    assert cost.quote == full.quote


def test_the_usual_model_call_is_remembered_also_with_a_feature_stated(session: Session) -> None:
    what: Any = {"model": "gpt-5-mini", "request": {"messages": []}, "max_output_tokens": 5, "feature": None}
    assert session.link.remembered.find(session, "llm", what) is not None
    stated: Any = {"name": "search", "amount": USD("0.01"), "feature": None}
    assert session.link.remembered.find(session, "tool", stated) is not None


@pytest.mark.parametrize(
    "what", [{"model": "gpt-5-mini", "nonsense": 1}, {"model": "gpt-5-mini", "max_output_tokens": []}]
)
def test_a_step_that_is_stated_wrongly_is_refused_as_ever(session: Session, what: Any) -> None:
    assert session.link.remembered.find(session, "llm", what) is None
    with pytest.raises(Exception, match=r"nonsense|max_output_tokens|count"):
        session.reserve("llm", **what)
