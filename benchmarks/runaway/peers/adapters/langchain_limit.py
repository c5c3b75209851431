"""LangChain's ModelCallLimitMiddleware, and ToolCallLimitMiddleware beside it.

Their own hooks are called, ``before_model`` before a model call and ``after_model`` after its reply, with the state that a graph
would pass them, and what they answer is put into that state as a graph would; no graph is built. One caller's calls are one
run. A run that ``jump_to: end`` ended is over: whoever goes on invokes the agent again. A failed or cancelled call is tried again
within its run, which is as kind as can be; ``after_model`` sees neither. Money is nothing that these count."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class PerRun:
    """As documented for one invocation: ``run_limit``, half as many again as healthy work takes. Each sub-agent is an agent with
    a middleware of its own."""

    def __init__(self, budget: float, usual_calls: int) -> None:
        self.budget, self.usual_calls = budget, usual_calls
        middleware: Any = import_module("langchain.agents.middleware")
        messages: Any = import_module("langchain_core.messages")
        self.runtime = import_module("langgraph.runtime").Runtime()
        self.model, self.tool = self._limits(middleware, usual_calls * 3 // 2)
        self.reply = messages.AIMessage
        self.runs, self.kept, self.counted = dict[str, dict[str, Any]](), dict[str, Any](), set[int]()

    def _limits(self, middleware: Any, most: int) -> tuple[Any, Any]:
        return middleware.ModelCallLimitMiddleware(run_limit=most), None

    def before(self, step: dict[str, Any]) -> str:
        state = self.runs.setdefault(step["scope"], {"messages": [], **self.kept})
        if step["is_model"]:
            update = self.model.before_model(state, self.runtime)
        elif self.tool is not None:
            asked = {"name": "tool", "args": {}, "id": str(step["id"]), "type": "tool_call"}
            state["messages"] = [self.reply(content="", tool_calls=[asked])]
            update = self.tool.after_model(state, self.runtime)
        else:
            return ""
        return self._put(step["scope"], update)

    def _put(self, scope: str, update: dict[str, Any] | None) -> str:
        """What a graph does with a hook's answer: the state takes it; the checkpoint keeps what is of the thread."""
        update = dict(update or {})
        said, target = update.pop("messages", []), update.pop("jump_to", "")
        self.runs[scope].update(update)
        self._keep(update)
        if target:
            del self.runs[scope]
        return str(said[0].content) if said else ""

    def _keep(self, update: dict[str, Any]) -> None:
        """No checkpointer: the next run begins with nothing."""

    def after(self, step: dict[str, Any], told: dict[str, Any]) -> str:
        scope = step["scope"]
        if step["is_model"] and not told["failure"] and step["id"] not in self.counted and scope in self.runs:
            self.counted.add(step["id"])
            self._put(scope, self.model.after_model(self.runs[scope], self.runtime))
        return ""

    def dropped(self, step: dict[str, Any]) -> None:
        """``after_model`` does not run."""

    def child(self, budget: float | None) -> Any:
        return type(self)(self.budget, self.usual_calls)

    def ended(self) -> None:
        """Nothing is given back."""

    def books(self) -> tuple[float, float]:
        return 0.0, 0.0


class PerThread(PerRun):
    """Best configured: ``thread_limit`` of model calls and of tool calls with a checkpointer, so that a run after a refusal is
    refused too; a sub-agent's in proportion to its budget. It has a thread of its own all the same."""

    def _limits(self, middleware: Any, most: int) -> tuple[Any, Any]:
        model = middleware.ModelCallLimitMiddleware(thread_limit=most)
        return model, middleware.ToolCallLimitMiddleware(thread_limit=most)

    def _keep(self, update: dict[str, Any]) -> None:
        self.kept.update({name: count for name, count in update.items() if name.startswith("thread_")})

    def child(self, budget: float | None) -> Any:
        part = 1.0 if budget is None else min(1.0, budget / self.budget)
        return type(self)(self.budget * part, max(2, round(self.usual_calls * part)))
