"""What the tests of the integration share: models at round prices, and a look at the books."""

from __future__ import annotations

import asyncio
from typing import Any

from agentbudget_langchain import BudgetCallbackHandler, BudgetMiddleware, ScriptedChatModel
from langchain.agents import create_agent
from langchain_core.tools import BaseTool, tool

from agentbudget import Credits, Session

FOR_EVER = 3_600.0
MANY_WORDS = "word " * 400
FULL = Credits("0.01")  # what 1000 output tokens of ``counted`` hold, leaving the input aside
ASK = {"messages": [("user", "hi")]}
CALL = {"tool": "search", "args": {"query": "x"}}


@tool
def search(query: str) -> str:
    """Search (half a credit a call)."""
    return f"found {query}"


def config() -> Any:
    """A configuration with a handler of its own."""
    return {"callbacks": [BudgetCallbackHandler()]}


def flat(*replies: Any, **more: Any) -> ScriptedChatModel:
    """A model at one credit a call."""
    return ScriptedChatModel(**{"model": "flat", "replies": replies or ("ok",), "max_tokens": 10, **more})


def counted(**more: Any) -> ScriptedChatModel:
    """A model at 1 and 10 credits per million tokens in and out."""
    return ScriptedChatModel(**{"model": "counted", "max_tokens": 1000, **more})


def agent_of(model: Any, *tools: BaseTool, middleware: Any = None, **more: Any) -> Any:
    """An agent with the middleware, or with the given ones."""
    chosen = [BudgetMiddleware()] if middleware is None else middleware
    return create_agent(model, list(tools), middleware=chosen, **more)


def run(agent: Any, how: str, config: Any = None) -> Any:
    """Ask it, ``sync`` or ``async``."""
    return agent.invoke(ASK, config) if how == "sync" else asyncio.run(agent.ainvoke(ASK, config))


def books(session: Session) -> tuple[Credits, Credits]:
    """What the session spent, and what it holds."""
    status = session.status()
    return status.spent, status.held
