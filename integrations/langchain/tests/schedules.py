"""Random schedules: a few calls, streams, agents and graphs of LangChain and LangGraph, each of which may be refused, fail, be
left or cancelled, by a seed. The provider is in this process, and makes its bill by the fake's own words and prices."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final

from agentbudget_langchain import BudgetCallbackHandler, BudgetMiddleware
from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy, interrupt

from agentbudget import find_denied
from agentbudget.testing.provider import Reply, bill, pieces
from agentbudget.testing.provider.words import Answer, Asked, answer_to

FAILURES: Final = (400, 429, 500, 503)
MOST_OPERATIONS: Final = 6


class Refused(Exception):
    """As an SDK raises a provider's refusal."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status_code = status


class Till:
    """What the provider bills, in nanocredits."""

    def __init__(self) -> None:
        self.nano = self.calls = 0
        self._lock = threading.Lock()

    def add(self, nano: int, calls: int = 0) -> None:
        with self._lock:
            self.nano, self.calls = self.nano + nano, self.calls + calls


class Talker(BaseChatModel):
    """A model that does what ``plan`` says, one reply a call; without one it says a few words."""

    model: str = "counted"
    max_tokens: int | None = 60
    plan: Any = None
    till: Any = None

    @property
    def _llm_type(self) -> str:
        return "talker"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "max_tokens": self.max_tokens}

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(each) for each in tools], **kwargs)

    def _answer(self, messages: list[BaseMessage], kwargs: dict[str, Any], *, is_stream: bool) -> tuple[Reply, Answer]:
        try:
            reply = next(self.plan)
        except StopIteration:
            reply = Reply(text="some more words")
        said = sum(len(pieces(str(message.content))) for message in messages) + len(
            pieces(str(kwargs.get("tools", "")))
        )
        cap = kwargs.get("max_tokens", self.max_tokens)
        asked = Asked("chat", self.model, cap, is_stream, True, said + 1)
        if reply.status != 200:
            raise Refused(reply.status)
        answer = answer_to(asked, reply, next(_numbers))
        self.till.add(bill(self.model, asked.input_tokens, 0, answer.cached), 1)
        return reply, answer

    def _billed(self, tokens: int) -> None:
        self.till.add(0 if self.model.startswith("flat") else bill(self.model, 0, tokens))

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        reply, answer = self._answer(messages, kwargs, is_stream=False)
        self._billed(answer.output_tokens)
        if reply.breaks_after is not None:
            raise ConnectionResetError("after the work was done")
        return _result(answer)

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        reply, answer = self._answer(messages, kwargs, is_stream=False)
        self._billed(answer.output_tokens)
        if reply.breaks_after is not None:
            raise ConnectionResetError("after the work was done")
        await _wait(reply.stalls)
        return _result(answer)

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        reply, answer = self._answer(messages, kwargs, is_stream=True)
        for number, (tokens, chunk) in enumerate(_chunks(answer)):
            if number == reply.breaks_after:
                raise ConnectionResetError("in the middle")
            self._billed(tokens)
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        reply, answer = self._answer(messages, kwargs, is_stream=True)
        for number, (tokens, chunk) in enumerate(_chunks(answer)):
            if number == reply.breaks_after:
                raise ConnectionResetError("in the middle")
            await _wait(number == reply.stalls_after)
            self._billed(tokens)
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


_numbers = itertools.count()


async def _wait(for_ever: bool) -> None:
    await asyncio.sleep(0)
    if for_ever:
        await asyncio.Event().wait()


def _result(answer: Answer) -> ChatResult:
    calls = [tool_call(name=name, args={"question": "why"}, id=id) for id, name, _ in answer.tools]
    message = AIMessage(
        content=answer.text, tool_calls=calls, usage_metadata=_usage(answer),
        response_metadata={"model_name": answer.asked.model},
    )  # fmt: skip
    return ChatResult(generations=[ChatGeneration(message=message)])


def _usage(answer: Answer) -> Any:
    into, out = answer.asked.input_tokens, answer.output_tokens
    details = {
        "input_token_details": {"cache_read": answer.cached},
        "output_token_details": {"reasoning": answer.reasoning},
    }
    return {"input_tokens": into, "output_tokens": out, "total_tokens": into + out, **details}


def _chunks(answer: Answer) -> Iterator[tuple[int, ChatGenerationChunk]]:
    """Chunks, and the tokens that each is billed; the last one states the usage, if anything does."""
    if answer.reasoning:
        yield answer.reasoning, _chunk(content="")
    for piece in answer.pieces:
        yield 1, _chunk(content=piece)
    for index, (id, name, arguments) in enumerate(answer.tools):
        called = tool_call_chunk(name=name, args=arguments, id=id, index=index)
        yield answer.tool_tokens[index], _chunk(content="", tool_call_chunks=[called])
    usage = None if answer.usage == "never" else _usage(answer)
    yield 0, _chunk(content="", usage_metadata=usage, chunk_position="last")


def _chunk(**what: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(**what))


class Stage:
    """Agents and graphs, made once: each schedule gives their models new plans."""

    def __init__(self) -> None:
        self.till = Till()
        self.outer, self.inner, self.left, self.right = (Talker(plan=iter(()), till=self.till) for _ in range(4))
        self.talkers = (self.outer, self.inner, self.left, self.right)
        sub = create_agent(self.inner, [], middleware=[BudgetMiddleware()])

        @tool
        def ask_model(question: str) -> str:
            """Asks a model."""
            return str(self.inner.invoke(question).content)

        @tool
        def ask_agent(question: str) -> str:
            """Asks an agent."""
            return str(sub.invoke({"messages": [("user", question)]})["messages"][-1].content)

        tools = [ask_model, ask_agent]
        self.by_middleware = create_agent(self.outer, tools, middleware=[BudgetMiddleware()])
        self.by_handler = create_agent(self.outer, tools)
        self.parallel = self._graph(("left", self.left), ("right", self.right))
        self.retrying = self._graph(("outer", self.outer), retries=True)
        self.asking = self._asking()

    def _graph(self, *nodes: tuple[str, Talker], retries: bool = False) -> Any:
        graph = StateGraph(MessagesState)
        policy = RetryPolicy(
            initial_interval=0.0, jitter=False, max_attempts=3, retry_on=(Refused, ConnectionResetError)
        )
        for name, model in nodes:
            graph.add_node(name, _node(model), retry_policy=policy if retries else None)
            graph.add_edge(START, name)
            graph.add_edge(name, END)
        return graph.compile()

    def _asking(self) -> Any:
        def ask(state: MessagesState) -> Any:
            before = self.outer.invoke(state["messages"])  # replayed at the resume: made, and billed, again
            interrupt("go on?")
            return {"messages": [before, self.outer.invoke("and then")]}

        graph = StateGraph(MessagesState)
        graph.add_node("ask", ask)
        graph.add_edge(START, "ask")
        return graph.compile(checkpointer=InMemorySaver())


def _node(model: Talker) -> Any:
    from langchain_core.runnables import RunnableLambda

    def call(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def acall(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return RunnableLambda(call, acall)


class Schedule:
    """The operations of one seed, on one stage."""

    def __init__(self, seed: int, stage: Stage) -> None:
        self.chance, self.stage, self.done = random.Random(seed), stage, list[str]()
        for talker in stage.talkers:
            talker.model = self.chance.choice(("counted", "counted", "flat"))
            talker.max_tokens = self.chance.choice((20, 60))

    def session_terms(self) -> dict[str, Any]:
        chance = self.chance
        return {
            "budget": chance.choice((None, 50, "2.0005", "0.002", "0.0002")),
            "mode": chance.choice(("leased", "leased", "strict")),
            "on_denied": chance.choice(("refuse", "refuse", "stop")),
        }

    def run(self) -> None:
        """Inside the session that pays."""
        for _ in range(self.chance.randrange(1, MOST_OPERATIONS + 1)):
            operation = self.chance.choice(OPERATIONS)
            self.done.append(operation.__name__)
            try:
                operation(self)
            except (Refused, ConnectionResetError, asyncio.CancelledError):
                continue
            except Exception as error:
                if find_denied(error) is None:
                    raise

    # --- what they are made of --------------------------------------------------------------------------------------------

    def reply(self, **how: Any) -> Reply:
        chance = self.chance
        usual: dict[str, Any] = {
            "text": "word " * chance.randrange(1, 30), "cached_tokens": chance.choice((0, 0, 1)),
            "reasoning_tokens": chance.choice((0, 0, 5)), "usage": chance.choice(("once", "once", "once", "never")),
        }  # fmt: skip
        return Reply(**{**usual, **how})

    def mishap(self) -> Reply:
        """A refusal, a failure after the work was done, or none."""
        draw = self.chance.random()
        if draw < 0.3:
            return Reply(status=self.chance.choice(FAILURES))
        return self.reply(breaks_after=self.chance.randrange(6)) if draw < 0.5 else self.reply()

    def talker(self, *replies: Reply) -> Talker:
        talker = self.stage.outer
        talker.plan = iter(replies)
        return talker

    @property
    def config(self) -> dict[str, Any]:
        return {"callbacks": [BudgetCallbackHandler() for _ in range(self.chance.choice((1, 1, 2)))]}

    def either(self, now: Callable[[], Any], later: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Blocking or awaited."""
        return now() if self.chance.random() < 0.5 else asyncio.run(later())


# --- the operations -----------------------------------------------------------------------------------------------------------


def whole(s: Schedule) -> None:
    model = s.talker(s.mishap())
    s.either(lambda: model.invoke("hi", s.config), lambda: model.ainvoke("hi", s.config))


def streamed(s: Schedule) -> None:
    model = s.talker(s.mishap())
    s.either(lambda: list(model.stream("hi", s.config)), lambda: _all(model.astream("hi", s.config)))


async def _all(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


def left(s: Schedule) -> None:
    """A stream that is closed, dropped, or never begun."""
    model, most = s.talker(s.reply(usage="once")), s.chance.randrange(4)

    async def later() -> None:
        stream = model.astream("hi", s.config)
        for _ in range(most):
            await anext(stream, None)
        await stream.aclose()

    def now() -> None:
        stream = model.stream("hi", s.config)
        for _ in range(most):
            next(stream, None)
        if s.chance.random() < 0.5:
            stream.close()
        del stream
        gc.collect()

    s.either(now, later)


def cancelled(s: Schedule) -> None:
    """Of a task, with a call or a stream under way."""
    is_stream = s.chance.random() < 0.5
    model = s.talker(s.reply(stalls=True, stalls_after=s.chance.randrange(1, 4), text="word " * 20))

    async def later() -> None:
        calls = s.stage.till.calls
        task = asyncio.ensure_future(
            _all(model.astream("hi", s.config)) if is_stream else model.ainvoke("hi", s.config)
        )
        while s.stage.till.calls == calls and not task.done():
            await asyncio.sleep(0)
        for _ in range(s.chance.randrange(4)):
            await asyncio.sleep(0)
        task.cancel()
        await task

    asyncio.run(later())


def retried(s: Schedule) -> None:
    model = s.talker(s.mishap(), s.mishap(), s.reply())
    again = model.with_retry(
        retry_if_exception_type=(Refused, ConnectionResetError), wait_exponential_jitter=False, stop_after_attempt=3
    )
    s.either(lambda: again.invoke("hi", s.config), lambda: again.ainvoke("hi", s.config))


def fallen_back(s: Schedule) -> None:
    s.stage.inner.plan = iter((s.mishap(),))
    model = s.talker(s.mishap()).with_fallbacks([s.stage.inner])
    s.either(lambda: model.invoke("hi", s.config), lambda: model.ainvoke("hi", s.config))


def batched(s: Schedule) -> None:
    model = s.talker(*(s.mishap() for _ in range(3)))
    keeps = {"return_exceptions": s.chance.random() < 0.5}
    s.either(
        lambda: model.batch(["a", "b", "c"], s.config, **keeps),
        lambda: model.abatch(["a", "b", "c"], s.config, **keeps),
    )


def generated(s: Schedule) -> None:
    """Several prompts in one call: LangChain reports the failure of one only."""
    model, prompts = s.talker(*(s.mishap() for _ in range(3))), [[("user", text)] for text in "abc"]
    messages = [model._convert_input(prompt).to_messages() for prompt in prompts]
    s.either(
        lambda: model.generate(messages, callbacks=s.config["callbacks"]),
        lambda: model.agenerate(messages, callbacks=s.config["callbacks"]),
    )


def nested(s: Schedule) -> None:
    """An agent whose tool calls a model, or another agent."""
    tool_name = s.chance.choice(("ask_model", "ask_agent"))
    s.talker(s.reply(text="", reasoning_tokens=0, tools=((tool_name, {"question": "why"}),)), s.mishap())
    s.stage.outer.max_tokens = 60
    s.stage.inner.plan = iter((s.mishap(),))
    if s.chance.random() < 0.5:
        agent, config = s.stage.by_middleware, None
    else:
        agent, config = s.stage.by_handler, s.config
    asked: Any = {"messages": [("user", "find out")]}
    s.either(lambda: agent.invoke(asked, config), lambda: agent.ainvoke(asked, config))


def side_by_side(s: Schedule) -> None:
    """Parallel nodes, of which one may fail: then LangGraph cancels the other and tells nobody."""
    fails = s.chance.random() < 0.4
    s.stage.left.plan = iter((Reply(status=500) if fails else s.mishap(),))
    s.stage.right.plan = iter((s.reply(stalls=True),)) if fails else iter((s.mishap(),))
    asked: Any = {"messages": [("user", "both")]}
    run = s.stage.parallel.ainvoke(asked, s.config)
    if fails:
        asyncio.run(run)
        return
    run.close()
    s.either(lambda: s.stage.parallel.invoke(asked, s.config), lambda: s.stage.parallel.ainvoke(asked, s.config))


def retried_by_the_graph(s: Schedule) -> None:
    s.talker(s.mishap(), s.mishap(), s.reply())
    asked: Any = {"messages": [("user", "again")]}
    s.either(lambda: s.stage.retrying.invoke(asked, s.config), lambda: s.stage.retrying.ainvoke(asked, s.config))


def interrupted(s: Schedule) -> None:
    """And resumed, perhaps: the node runs again from its top."""
    s.talker(s.mishap(), s.mishap(), s.mishap())
    config: Any = {**s.config, "configurable": {"thread_id": str(next(_numbers))}}
    s.stage.asking.invoke({"messages": [("user", "go")]}, config)
    if s.chance.random() < 0.8:
        s.stage.asking.invoke(Command(resume="yes"), {**config, **s.config})


OPERATIONS: Final = (
    whole, streamed, left, cancelled, retried, fallen_back, batched, generated, nested, side_by_side,
    retried_by_the_graph, interrupted,
)  # fmt: skip
