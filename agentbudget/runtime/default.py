"""``agentbudget.session(budget=5)``: the shortest use. One process-wide runtime, customer ``local``, a postpaid
plan."""

from __future__ import annotations

import os
import threading
import warnings
from typing import Final, Unpack

from agentbudget.account.commands import CreateCustomer
from agentbudget.catalog import Catalog
from agentbudget.runtime.runtime import Runtime
from agentbudget.runtime.session import Session
from agentbudget.runtime.session_terms import SessionArguments, terms_of
from agentbudget.runtime.settings import LEDGER_VARIABLE

CUSTOMER: Final = "local"
PLAN: Final = "local"


class _Default:
    """The runtime of this process, opened at first use. A forked child gets a new one of these."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runtime: Runtime | None = None
        self.has_said = False


_default = _Default()


def _forget() -> None:
    """In a forked child: the parent's runtime, and a lock that another thread may have held, stay behind."""
    global _default
    said, _default = _default.has_said, _Default()
    _default.has_said = said


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def session(**stated: Unpack[SessionArguments]) -> Session:
    """A session of customer ``local`` (made at first use, under the postpaid plan ``local``: one credit is one US
    dollar in the bundled catalog). Arguments as ``customer.session``. The ledger is AGENTBUDGET_LEDGER, else
    ``memory://``, said once.

    The first call in a process opens the ledger and loads the catalog, like an import; call it before the event loop
    starts, or open a ``Runtime`` yourself, where that matters."""
    runtime = default_runtime()
    link = runtime.link(CUSTOMER, CreateCustomer(_plan_holder(runtime.catalog).terms(PLAN)))
    return Session(link, terms_of(link, stated))


def default_runtime() -> Runtime:
    """The runtime behind :func:`session`; closed when the process ends."""
    default = _default
    with default.lock:
        if default.runtime is None:
            default.runtime = Runtime.open()
            if default.runtime.settings.ledger == "memory://" and not default.has_said:
                default.has_said = True
                warnings.warn(
                    "agentbudget keeps its ledger in memory, so it is gone when this process ends; set "
                    f"{LEDGER_VARIABLE} to sqlite:///budget.db, for instance, to keep it",
                    stacklevel=3,
                )
        return default.runtime


def close_default() -> None:
    """Close it now; the next :func:`session` opens it again (with ``memory://``: an empty ledger)."""
    default = _default
    with default.lock:
        runtime, default.runtime = default.runtime, None
    if runtime is not None:
        runtime.close()


def _plan_holder(catalog: Catalog) -> Catalog:
    """The catalog in force where it has the plan, else the bundled one."""
    return catalog if PLAN in catalog.plan_ids else Catalog.bundled()
