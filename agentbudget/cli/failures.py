"""What ends a command, as an exit code and one line: the only place that maps the error tree to codes."""

from __future__ import annotations

from typing import Any, Final

from agentbudget.errors import (
    AgentBudgetError,
    BudgetAbort,
    BudgetDenied,
    CatalogError,
    HoldResolved,
    InvalidAmount,
    InvalidRequest,
    InvariantBroken,
    KeyConflict,
    LedgerCorrupt,
    OutOfOrder,
    OwnerUnavailable,
)

DONE: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
UNAVAILABLE: Final = 3
INTEGRITY: Final = 4
BUG: Final = 70
"""EX_SOFTWARE of sysexits.h: an error that nobody foresaw must not look like a refusal (Python's own code would be 1)."""
INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""
UNREAD: Final = 141
"""128 + SIGPIPE: nobody read the answer, so it is neither done nor refused."""

CODES: Final = {
    DONE: "done",
    REFUSED: "refused: the budget, or something that was stated before, says no",
    USAGE: "usage: the command, an amount, a name or a catalog is wrong",
    UNAVAILABLE: "unavailable: no answer from the ledger (its owner is silent, it is not there, the disk is full)",
    INTEGRITY: "integrity: the ledger does not verify or reconcile, or what a dead process left is not whole",
}


class MissingExtra(AgentBudgetError):
    """A command needs a package that is not installed. ``what`` names it, ``advice`` how to get it."""

    def __init__(self, what: str = "", advice: str = "", *rest: object) -> None:
        super().__init__(what, advice, *rest)
        self.what, self.advice = what, advice

    def __str__(self) -> str:
        return f"{self.what}: {self.advice}"


_CODE_OF: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (BudgetDenied, REFUSED),
    (BudgetAbort, REFUSED),
    (KeyConflict, REFUSED),
    (HoldResolved, REFUSED),
    (CatalogError, USAGE),
    (InvalidAmount, USAGE),
    (InvalidRequest, USAGE),
    (OwnerUnavailable, UNAVAILABLE),
    (MissingExtra, UNAVAILABLE),
    (LedgerCorrupt, INTEGRITY),
    (OutOfOrder, INTEGRITY),
    (InvariantBroken, INTEGRITY),
    (AgentBudgetError, USAGE),  # of the catalog: UnknownPrice
)


def code_of(error: BaseException) -> int:
    """The exit code of an error of ours: of the first class in the table that it is one of."""
    return next((code for kind, code in _CODE_OF if isinstance(error, kind)), BUG)


def data_of(error: BaseException) -> dict[str, Any]:
    """The error as data: its type, message and exit code, and what it carries (owner, customer, seq, faults ...)."""
    from agentbudget.cli.data import to_data

    carried = {name: to_data(value) for name, value in vars(error).items() if not name.startswith("_")}
    return {"error": {**carried, "type": type(error).__name__, "message": str(error), "exit_code": code_of(error)}}
