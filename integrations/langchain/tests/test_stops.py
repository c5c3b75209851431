"""``BudgetMiddleware(on_refused=...)``: a refusal raises, ends the agent with a message, or asks a human."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agentbudget_langchain import BudgetMiddleware, attach
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from agentbudget import Breaker, BudgetAbort, BudgetDenied, Credits, InvalidRequest
from agentbudget.runtime.customer import Customer
from integrations.langchain.tests.support import ASK, CALL, agent_of, books, flat, run, search

both_ways = pytest.mark.parametrize("how", ["sync", "async"])


def stopping(model: Any, *tools: Any, **more: Any) -> Any:
    return agent_of(model, *tools, middleware=[BudgetMiddleware(on_refused="end")], **more)


def asking(model: Any, *tools: Any, **more: Any) -> Any:
    middleware = [BudgetMiddleware(on_refused="ask")]
    return agent_of(model, *tools, middleware=middleware, checkpointer=InMemorySaver(), **more)


def approve(paused: Any, amount: Any = None) -> Any:
    """The answer that approves what an agent stopped for; with an amount of its own."""
    answer = paused["__interrupt__"][0].value["approve"]
    return answer if amount is None else {**answer, "amount": amount}


def resume(agent: Any, answer: Any, how: str = "sync") -> Any:
    command = Command(resume=answer)
    return agent.invoke(command, THREAD) if how == "sync" else asyncio.run(agent.ainvoke(command, THREAD))


THREAD: Any = {"configurable": {"thread_id": "1"}}


# --- end ---------------------------------------------------------------------------------------------------------


@both_ways
def test_a_refused_model_call_ends_the_agent_with_a_message_that_says_what_would_unblock_it(
    customer: Customer, how: str
) -> None:
    model = flat(CALL, "done")
    with customer.session(budget="1.7") as session:
        last = run(stopping(model, search), how)["messages"][-1]
        assert books(session) == (Credits("1.5"), 0)
        assert session.status().denials == 1
    assert isinstance(last, AIMessage)
    assert "session_budget" in last.text
    facts = last.response_metadata["agentbudget_refused"]
    assert (facts["reason"], facts["need"], facts["affordable"]) == ("session_budget", "1", "0.2")
    assert facts["suggestions"]
    assert all(said in last.text for said in facts["suggestions"])
    assert len(model.received) == 1


@both_ways
def test_a_refused_tool_is_answered_and_the_agent_ends_before_the_next_model_call(customer: Customer, how: str) -> None:
    model = flat(CALL, "done")
    with customer.session(budget="1.2") as session:
        messages = run(stopping(model, search), how)["messages"]
        assert books(session) == (1, 0)
    assert isinstance(messages[-2], ToolMessage)
    assert (messages[-2].status, messages[-2].tool_call_id) == ("error", messages[1].tool_calls[0]["id"])
    assert messages[-1].text.startswith("Stopped by the budget: refused (session_budget)")
    assert len(model.received) == 1


def test_of_parallel_tools_those_that_fit_run_before_the_agent_ends(customer: Customer) -> None:
    calls = [{"name": "search", "args": {"query": str(n)}, "id": str(n)} for n in range(5)]
    with customer.session(budget="2.2") as session:
        messages = stopping(flat(AIMessage(content="", tool_calls=calls)), search).invoke(ASK)["messages"]
        assert books(session) == (2, 0)
    states = [message.status for message in messages if isinstance(message, ToolMessage)]
    assert (states.count("success"), states.count("error")) == (2, 3)
    assert messages[-1].text.startswith("Stopped by the budget")


def test_an_agent_that_would_try_for_a_structured_reply_for_ever_ends(customer: Customer) -> None:
    """Without a jump the loop goes on until there is a structured reply."""

    class Answer(BaseModel):
        text: str

    model = flat()
    with customer.session(budget="0.5"):
        state = stopping(model, response_format=Answer).invoke(ASK)
    assert model.received == []
    assert state["messages"][-1].text.startswith("Stopped by the budget")


def test_the_next_turn_goes_on_where_the_budget_stopped_it(customer: Customer) -> None:
    agent = stopping(flat(CALL, "done"), search, checkpointer=InMemorySaver())
    with customer.session(budget="1.2") as session:
        assert agent.invoke(ASK, THREAD)["messages"][-1].text.startswith("Stopped")
        session.fund(5)
        assert agent.invoke(ASK, THREAD)["messages"][-1].text == "done"


def test_other_middleware_still_runs_when_the_budget_ends_the_agent(customer: Customer) -> None:
    seen: list[str] = []

    class Watch(AgentMiddleware[Any, Any, Any]):
        def after_model(self, state: Any, runtime: Any) -> None:
            seen.append(state["messages"][-1].text[:7])

        def after_agent(self, state: Any, runtime: Any) -> None:
            seen.append("after")

    with customer.session(budget="0.5"):
        agent_of(flat(), middleware=[Watch(), BudgetMiddleware(on_refused="end")]).invoke(ASK)
    assert seen == ["Stopped", "after"]


def test_a_sub_agent_that_raises_ends_the_agent_above(customer: Customer) -> None:
    inner = agent_of(flat(CALL, "found"), search, middleware=[])

    @tool("search")
    def ask(query: str) -> str:
        """Ask the other agent."""
        return str(inner.invoke(ASK)["messages"][-1].content)

    with customer.session(budget="2.8") as session:
        messages = stopping(flat(CALL, "done"), ask).invoke(ASK)["messages"]
        assert books(session) == (Credits("2.5"), 0)  # model, the tool around, the sub-agent's model
    assert messages[-1].text.startswith("Stopped by the budget")


@pytest.mark.parametrize("on_refused", ["end", "ask"])
def test_an_abort_and_a_missing_session_are_never_turned_into_a_message(customer: Customer, on_refused: Any) -> None:
    agent = agent_of(flat(), middleware=[BudgetMiddleware(on_refused=on_refused)])
    with pytest.raises(BudgetDenied, match="no_session"):
        agent.invoke(ASK)
    with customer.session(budget="0.5", on_denied="abort"), pytest.raises(BudgetAbort):
        agent.invoke(ASK)


def test_a_misspelt_choice_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="on_refused"):
        BudgetMiddleware(on_refused="stop")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="on_refused"), attach(on_refused="end"):  # type: ignore[arg-type]
        pass


# --- ask a human -------------------------------------------------------------------------------------------------


@both_ways
def test_a_refused_step_asks_a_human_and_goes_on_when_it_is_approved(customer: Customer, how: str) -> None:
    model = flat(CALL, "done")
    agent = asking(model, search)
    with customer.session(budget="1.2") as session:
        paused = run(agent, how, THREAD)
        asked = paused["__interrupt__"][0].value
        assert (asked["kind"], asked["reason"], asked["amount"]) == ("agentbudget_approval", "session_budget", "0.3")
        assert asked["message"].startswith("refused (session_budget)")
        assert books(session) == (1, 0)
        again = resume(agent, asked["approve"], how)  # the tool ran; the next model call is short too
        assert (asked["session"], again["__interrupt__"][0].value["amount"]) == (session.id, "1")
        assert books(session) == (Credits("1.5"), 0)
        assert resume(agent, approve(again, 3), how)["messages"][-1].text == "done"
        assert books(session) == (Credits("2.5"), 0)
        assert session.status().budget == Credits("4.5")
    assert len(model.received) == 2


@pytest.mark.parametrize("amount", [2, "2", 2.0])
def test_an_approval_may_give_more_than_is_short(customer: Customer, amount: Any) -> None:
    agent = asking(flat())
    with customer.session(budget="0.5") as session:
        assert resume(agent, approve(agent.invoke(ASK, THREAD), amount))["messages"][-1].text == "ok"
        assert session.status().budget == Credits("2.5")


@pytest.mark.parametrize("answer", [False, {"approve": False}, {"approve": False, "amount": 5}])
def test_a_declined_step_ends_the_agent_and_funds_nothing(customer: Customer, answer: Any) -> None:
    model = flat()
    agent = asking(model)
    with customer.session(budget="0.5") as session:
        agent.invoke(ASK, THREAD)
        assert resume(agent, answer)["messages"][-1].text.startswith("Stopped by the budget")
        assert session.status().budget == Credits("0.5")
    assert model.received == []


ANOTHER = {"approve": "another session.0", "amount": "5"}


@pytest.mark.parametrize("answer", [True, 5, "yes", ["yes"], {"amount": 5}, {"approve": True, "amount": 5}, ANOTHER])
def test_an_answer_that_names_no_question_funds_nothing_and_is_asked_for_again(customer: Customer, answer: Any) -> None:
    agent = asking(flat())
    with customer.session(budget="0.5") as session:
        agent.invoke(ASK, THREAD)
        again = resume(agent, answer)
        assert "did not count" in again["__interrupt__"][0].value["note"]
        assert session.status().budget == Credits("0.5")
        assert resume(agent, approve(again))["messages"][-1].text == "ok"


@pytest.mark.parametrize("amount", [0, -1, "lots", True, [1]])
def test_an_amount_that_is_none_is_asked_for_again(customer: Customer, amount: Any) -> None:
    agent = asking(flat())
    with customer.session(budget="0.5") as session:
        again = resume(agent, approve(agent.invoke(ASK, THREAD), amount))
        assert "did not count" in again["__interrupt__"][0].value["note"]
        assert session.status().budget == Credits("0.5")
        assert resume(agent, approve(again))["messages"][-1].text == "ok"


def test_too_small_an_approval_is_booked_and_asked_again_for_the_rest(customer: Customer) -> None:
    agent = asking(flat())
    with customer.session(budget="0.5") as session:
        again = resume(agent, approve(agent.invoke(ASK, THREAD), "0.2"))
        assert again["__interrupt__"][0].value["amount"] == "0.3"
        assert resume(agent, approve(again))["messages"][-1].text == "ok"
        assert session.status().budget == 1


def test_an_approval_ends_a_stop(customer: Customer) -> None:
    agent = asking(flat())
    with customer.session(budget="0.5", on_denied="stop") as session:
        assert resume(agent, approve(agent.invoke(ASK, THREAD)))["messages"][-1].text == "ok"
        assert session.status().state == "open"


@both_ways
def test_an_approval_closes_an_open_circuit_of_a_session_without_a_budget(customer: Customer, how: str) -> None:
    """Once: the circuit opens again at the next step too many."""
    model = flat()
    agent = asking(model)
    with customer.session(breaker=Breaker(max_steps=1)) as session:
        run(agent, how, THREAD)
        paused = run(agent, how, THREAD)
        asked = paused["__interrupt__"][0].value
        assert (asked["reason"], asked["amount"]) == ("circuit_open", None)
        assert (books(session), len(model.received), session.status().state) == ((1, 0), 1, "stopped")
        done = resume(agent, approve(paused), how)
        assert ("__interrupt__" in done, done["messages"][-1].text) == (False, "ok")
        assert (books(session), len(model.received)) == ((2, 0), 2)
        assert (session.status().state, session.status().budget) == ("open", None)
        again = run(agent, how, THREAD)["__interrupt__"][0].value
        assert (again["reason"], len(model.received)) == ("circuit_open", 2)
        assert again["approve"] != asked["approve"]


@pytest.mark.parametrize("answer", ["declined", "funded"])
def test_an_open_circuit_stays_open_unless_it_is_approved_without_an_amount(customer: Customer, answer: str) -> None:
    model = flat()
    agent = asking(model)
    with customer.session(breaker=Breaker(max_steps=1)) as session:
        agent.invoke(ASK, THREAD)
        paused = agent.invoke(ASK, THREAD)
        after = resume(agent, False if answer == "declined" else approve(paused, 3))
        if answer == "declined":
            assert after["messages"][-1].text.startswith("Stopped by the budget")
        else:
            assert "would not help" in after["__interrupt__"][0].value["note"]
        assert (session.status().state, session.status().budget, len(model.received)) == ("stopped", None, 1)


def test_a_limit_above_the_session_is_lifted_first_and_then_approved(customer: Customer) -> None:
    customer.limits.set("customer", "0.5", window="month")
    agent = asking(flat())
    with customer.session(budget=5) as session:
        paused = agent.invoke(ASK, THREAD)
        asked = paused["__interrupt__"][0].value
        assert (asked["reason"], asked["amount"]) == ("limit", None)
        again = resume(agent, approve(paused, 3))
        assert "would not help" in again["__interrupt__"][0].value["note"]
        customer.limits.set("customer", 5, window="month")
        assert resume(agent, approve(again))["messages"][-1].text == "ok"
        assert session.status().budget == 5


def test_a_child_that_is_short_is_funded_with_its_parent(customer: Customer) -> None:
    """L12."""
    agent = asking(flat())
    with customer.session(budget="0.7") as session, session.child(budget="0.5") as child:
        assert resume(agent, approve(agent.invoke(ASK, THREAD), 1))["messages"][-1].text == "ok"
        assert (child.status().budget, books(child), books(session)) == (Credits("1.5"), (1, 0), (1, 0))


def test_parallel_steps_are_approved_one_by_one(customer: Customer) -> None:
    """Credits are the session's, so whichever step asks next may take them; the others ask again."""
    calls = [{"name": "search", "args": {"query": str(n)}, "id": str(n)} for n in range(3)]
    agent = asking(flat(AIMessage(content="", tool_calls=calls), "done"), search)
    with customer.session(budget="1.1") as session:
        state, most = agent.invoke(ASK, THREAD), 0
        for _ in range(20):
            if not (asked := state.get("__interrupt__")):
                break
            most = max(most, len(asked))
            state = resume(agent, {asked[0].id: asked[0].value["approve"]})
        assert (most, state["messages"][-1].text) == (3, "done")
        assert [m.status for m in state["messages"] if isinstance(m, ToolMessage)] == ["success"] * 3
        assert books(session) == (Credits("3.5"), 0)
        assert session.status().budget >= Credits("3.5")


def test_a_node_that_is_replayed_funds_each_approval_once(customer: Customer) -> None:
    """L4: two calls in one node; every resume replays the node, and hands out the answers of before again."""
    model, paused = flat(max_tokens=5), []

    def node(state: dict[str, Any]) -> dict[str, Any]:
        model.invoke("one")
        model.invoke("two")
        if not paused:
            paused.append(1)
            raise ConnectionError("the process dies after both")
        return {}

    graph: Any = StateGraph(dict)
    graph.add_node("work", node)
    graph.add_edge(START, "work")
    compiled = graph.compile(checkpointer=InMemorySaver())
    with customer.session(budget=1) as session, attach(session, on_refused="ask"):
        first = compiled.invoke({"x": 1}, THREAD)
        assert books(session) == (1, 0)
        second = compiled.invoke(Command(resume=approve(first, 1)), THREAD)  # the first call is made again: new spend
        assert (books(session), session.status().budget) == ((2, 0), 2)
        with pytest.raises(ConnectionError):
            compiled.invoke(Command(resume=approve(second, 2)), THREAD)
        assert (books(session), session.status().budget) == ((4, 0), 4)
        compiled.invoke(None, THREAD)  # LangGraph hands out both answers again, the last one twice
        assert (books(session), session.status().budget) == ((4, 0), 4)
        [asked] = compiled.get_state(THREAD).interrupts
        compiled.invoke(Command(resume={**asked.value["approve"], "amount": 2}), THREAD)
        assert (books(session), session.status().budget, compiled.get_state(THREAD).next) == ((6, 0), 6, ())


def test_a_callback_handler_asks_inside_of_graphs_and_raises_outside(customer: Customer) -> None:
    @tool("search")
    def ask(query: str) -> str:
        """Ask a human, then a model."""
        word = interrupt("may I?")
        return str(word) + str(flat(max_tokens=5).invoke("hi").content)

    agent = agent_of(flat(CALL, "done"), ask, middleware=[], checkpointer=InMemorySaver())
    with customer.session(budget="2.5") as session, attach(session, on_refused="ask"):
        agent.invoke(ASK, THREAD)
        resume(agent, "yes ")
        assert books(session) == (Credits("2.5"), 0)
        paused = agent.get_state(THREAD).interrupts
        assert paused[0].value["kind"] == "agentbudget_approval"
        assert resume(agent, paused[0].value["approve"])["messages"][-1].text == "done"
        with pytest.raises(BudgetDenied):
            flat().invoke("hi")
