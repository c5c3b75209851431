"""One budget for a whole LangGraph thread: turn two joins the session of turn one, also in another process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Unpack

import agentbudget
from agentbudget import InvalidRequest, Session

if TYPE_CHECKING:
    from agentbudget.runtime.customer import Customer
    from agentbudget.runtime.session_terms import SessionArguments

THREAD_TTL: Final = timedelta(days=30)
"""A conversation is taken up again after weeks, and must then neither be refused nor find a fresh budget."""

_LONGEST: Final = 120
"""Characters of a thread's id that are kept as they are; a session's id has room for 150."""


def thread_session(
    config: Mapping[str, Any] | str, customer: Customer | None = None, **stated: Unpack[SessionArguments]
) -> Session:
    """The session of a thread: opened in its first turn, joined in every later one, by any process of the ledger.

    config: what the graph is invoked with, of which ``configurable.thread_id`` counts; or that id.  customer: who pays
    (None: as ``agentbudget.session``).  stated: what a session takes, but its ``id``; ``ttl`` is 30 days. The budget is
    the whole thread's; stated again it must be the first turn's (``KeyConflict``), whatever it was funded with since.
    ``with thread_session(...) as session:`` leaves it open at the end of the turn; ``session.close()`` ends it.

    The thread's id chooses among the sessions of this customer, so take it from where you take who is asking."""
    if "id" in stated:
        raise InvalidRequest("is the thread's; leave it out", "id")
    named: SessionArguments = {"ttl": THREAD_TTL, **stated, "id": session_id(config)}
    return agentbudget.session(**named) if customer is None else customer.session(**named)


def session_id(config: Mapping[str, Any] | str) -> str:
    """The id of a thread's session. Raises ``InvalidRequest`` where the configuration names no thread."""
    thread = config if isinstance(config, str) else (config.get("configurable") or {}).get("thread_id")
    if thread is None or thread == "":
        raise InvalidRequest("names no thread: give configurable.thread_id", "config")
    name = str(thread)
    if len(name) > _LONGEST or not name.isprintable():
        name = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"thread:{name}"


def retry_unless_refused(error: Exception) -> bool:
    """For ``RetryPolicy(retry_on=...)``: what LangGraph retries by itself, but no refusal. Trying a refused node again
    costs nothing, changes nothing, and takes its time."""
    from langgraph.types import RetryPolicy

    usual = RetryPolicy().retry_on
    assert callable(usual)
    return agentbudget.find_denied(error) is None and bool(usual(error))
