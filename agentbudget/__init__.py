"""agentbudget decides before every agent step whether it may spend: hold, run, settle, on a durable ledger.

The names below are the promised ones. Each is loaded at first use (PEP 562), so that ``import agentbudget`` costs
milliseconds and brings in neither an ORM nor an agent framework nor a price table.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentbudget.account.decision import Decision
    from agentbudget.amounts import USD, Credits
    from agentbudget.catalog.load import Catalog
    from agentbudget.catalog.terms import Breaker, Scope
    from agentbudget.catalog.usage import Usage
    from agentbudget.errors import (
        AgentBudgetError,
        BudgetAbort,
        BudgetDenied,
        CatalogError,
        HoldResolved,
        InvalidAmount,
        InvalidRequest,
        KeyConflict,
        LedgerCorrupt,
        OwnerUnavailable,
        find_denied,
    )
    from agentbudget.runtime.budgeted import budgeted
    from agentbudget.runtime.carriers import SessionHandle, carry
    from agentbudget.runtime.default import session
    from agentbudget.runtime.runtime import Runtime
    from agentbudget.runtime.session import Session
    from agentbudget.runtime.steps.current import current_session, current_step
    from agentbudget.runtime.steps.step import Step

__version__ = "0.1.0"

__all__ = [
    "USD",
    "AgentBudgetError",
    "Breaker",
    "BudgetAbort",
    "BudgetDenied",
    "Catalog",
    "CatalogError",
    "Credits",
    "Decision",
    "HoldResolved",
    "InvalidAmount",
    "InvalidRequest",
    "KeyConflict",
    "LedgerCorrupt",
    "OwnerUnavailable",
    "Runtime",
    "Scope",
    "Session",
    "SessionHandle",
    "Step",
    "Usage",
    "__version__",
    "budgeted",
    "carry",
    "current_session",
    "current_step",
    "find_denied",
    "session",
]

_NAMES_OF = {
    "account.decision": ("Decision",),
    "amounts": ("Credits", "USD"),
    "catalog.load": ("Catalog",),
    "catalog.terms": ("Breaker", "Scope"),
    "catalog.usage": ("Usage",),
    "errors": (
        "AgentBudgetError",
        "BudgetAbort",
        "BudgetDenied",
        "CatalogError",
        "HoldResolved",
        "InvalidAmount",
        "InvalidRequest",
        "KeyConflict",
        "LedgerCorrupt",
        "OwnerUnavailable",
        "find_denied",
    ),
    "runtime.budgeted": ("budgeted",),
    "runtime.carriers": ("SessionHandle", "carry"),
    "runtime.steps.current": ("current_session", "current_step"),
    "runtime.default": ("session",),
    "runtime.runtime": ("Runtime",),
    "runtime.session": ("Session",),
    "runtime.steps.step": ("Step",),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _NAMES_OF.items() for name in names}

if not TYPE_CHECKING:  # a type checker reads the imports above, and so still finds a misspelt name

    def __getattr__(name: str) -> object:
        module = _MODULE_OF.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(module), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
