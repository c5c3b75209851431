"""Calls that go on at the provider after their reply (OpenAI's ``background``): charged at once as an unknown outcome, and
corrected by what the poll that brings the result states.

A poll costs nothing. It is known by the id of the response that it continues. One of a job that another process began is held
like any call, and given back until it brings the result, which is then charged here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pydantic_ai.messages import ModelMessage, ModelResponse

from agentbudget_pydantic_ai.reply import usage_of

if TYPE_CHECKING:
    from agentbudget import Step

MAX_JOBS: Final = 1_024
"""Jobs whose charge can still be corrected; a program that leaves its jobs must not fill the memory."""

_jobs: Final[OrderedDict[str, Step]] = OrderedDict()
_lock: Final = threading.Lock()


def continued_by(messages: Sequence[ModelMessage]) -> str | None:
    """The id of the suspended response that a request goes on with."""
    last = messages[-1] if messages else None
    return last.provider_response_id if isinstance(last, ModelResponse) and last.state == "suspended" else None


def is_running(reply: ModelResponse) -> bool:
    """Whether the provider still works on it. A reply that is suspended with its cost stated (Anthropic's ``pause_turn``) is
    whole: what continues it is another call."""
    if reply.state != "suspended" or not reply.provider_response_id:
        return False
    return bool((reply.provider_details or {}).get("background")) or not reply.usage.has_values()


def find(id: str | None) -> Step | None:
    """The step of a job whose charge is a guess; None of one that another process began."""
    with _lock:
        return None if id is None else _jobs.get(id)


async def guessed(step: Step, reply: ModelResponse) -> None:
    """Charge a call that goes on as one of unknown outcome, and keep it for the poll that brings its result."""
    await step.afail(None)
    if step.state != "unknown":
        return  # the session's policy gives such calls back: what its result costs is charged with the poll
    with _lock:
        _jobs[str(reply.provider_response_id)] = step
        while len(_jobs) > MAX_JOBS:
            _jobs.popitem(last=False)


async def polled(step: Step, reply: ModelResponse) -> None:
    """Book what the job cost, now that its result says so. One that failed, or whose result was left, stays as it was charged."""
    if reply.state == "suspended":
        return
    with _lock:
        _jobs.pop(str(reply.provider_response_id), None)
    usage = usage_of(reply)
    if reply.state == "complete" and usage is not None:
        await step.asettle(usage)
