"""Every error the package raises, as a tree.

    AgentBudgetError
      BudgetDenied          a step was refused; carries the Decision
      KeyConflict           the same key was used before with other inputs
      HoldResolved          the hold already ended, and in another way than asked
      OwnerUnavailable      no answer from the owner of the ledger: nothing ran, retry with the same key
      LedgerCorrupt         the ledger's bytes do not say what they must; names the customer and the entry
      CatalogError          faults of a catalog, all of them at once
      InvalidAmount         a value that is no amount of credits (also a ValueError)
      InvalidRequest        a request that can never be right: unknown name, wrong state, out of bounds (also a ValueError)
      InvariantBroken       a bug: a law did not hold; the owner dies and replays

    BudgetAbort(BaseException)   the same refusal, chosen by on_denied="abort", passing every ``except Exception``

Data travels as attributes, never in the text. Constructors take positional, all-optional arguments, so that errors pickle
through Ray and mix into the stop exceptions of frameworks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentbudget.account.decision import Decision


class AgentBudgetError(Exception):
    """Base of everything raised on purpose here."""


def _denied_message(decision: Any) -> str:
    return str(decision) if decision is not None else "the step was refused by the budget"


class BudgetDenied(AgentBudgetError):
    """The step may not run. ``decision`` says which constraint binds, what is left, when it resets and what would fit."""

    def __init__(self, decision: Decision | str | None = None, *rest: object) -> None:
        super().__init__(decision, *rest)
        self.decision = None if isinstance(decision, str) else decision

    def __str__(self) -> str:
        return self.args[0] if isinstance(self.args[0], str) else _denied_message(self.decision)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self)!r})"  # frameworks show it to models and logs: the words, not the books
        )


class BudgetAbort(BaseException):
    """A refusal that no ``except Exception`` swallows: raised instead of BudgetDenied when ``on_denied="abort"``."""

    def __init__(self, decision: Decision | str | None = None, *rest: object) -> None:
        super().__init__(decision, *rest)
        self.decision = None if isinstance(decision, str) else decision

    def __str__(self) -> str:
        return self.args[0] if isinstance(self.args[0], str) else _denied_message(self.decision)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self)!r})"  # frameworks show it to models and logs: the words, not the books
        )


class KeyConflict(AgentBudgetError):
    """A key (a name, an id) that already has an answer was used again with other inputs."""

    def __init__(self, key: str = "", what: str = "", *rest: object) -> None:
        super().__init__(key, what, *rest)
        self.key, self.what = key, what

    def __str__(self) -> str:
        return f"{self.key!r} was used before with other inputs ({self.what}): use the same inputs, or another key"


class HoldResolved(AgentBudgetError):
    """The hold has already ended (``state``: settled, released or lapsed); what it answered then stands."""

    def __init__(self, hold: str = "", state: str = "", *rest: object) -> None:
        super().__init__(hold, state, *rest)
        self.hold, self.state = hold, state

    def __str__(self) -> str:
        return f"hold {self.hold} is already {self.state}; a hold ends once, so nothing was changed"


class OwnerUnavailable(AgentBudgetError):
    """The owner of the ledger did not answer, so the step must not run. ``owner`` names it, ``advice`` says what to do."""

    def __init__(self, what: str = "", owner: str = "", advice: str = "", *rest: object) -> None:
        super().__init__(what, owner, advice, *rest)
        self.what, self.owner, self.advice = what, owner, advice

    def __str__(self) -> str:
        owner = f" (owner: {self.owner})" if self.owner else ""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.what or 'the ledger gave no answer'}{owner}{advice}"


class LedgerCorrupt(AgentBudgetError):
    """The ledger does not verify. ``customer`` and ``seq`` name the first entry that is wrong, ``what`` says how."""

    def __init__(self, what: str = "", customer: str = "", seq: int | None = None, *rest: object) -> None:
        super().__init__(what, customer, seq, *rest)
        self.what, self.customer, self.seq = what, customer, seq

    def __str__(self) -> str:
        where = f" at customer {self.customer!r}" + (f" entry {self.seq}" if self.seq is not None else "")
        return f"the ledger is damaged{where if self.customer else ''}: {self.what}; nothing was written"


class CatalogError(AgentBudgetError):
    """Every fault of a catalog at once: ``faults`` is a list of (line or None, key path, what is wrong)."""

    def __init__(self, source: str = "", faults: Sequence[tuple[int | None, str, str]] = (), *rest: object) -> None:
        super().__init__(source, tuple(faults), *rest)
        self.source, self.faults = source, tuple(faults)

    def __str__(self) -> str:
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
        lines = [f"  {f'line {line}, ' if line is not None else ''}{path}: {what}" for line, path, what in self.faults]
        return "\n".join([f"{self.source or 'catalog'}: {count}", *lines])


_AMOUNT_FAULTS = {
    "not_a_number": "is not a number",
    "not_finite": "is not a finite number",
    "negative": "is negative",
    "too_fine": "is finer than one nanocredit (9 decimals); round it first",
    "too_large": "is more than 64 bits of nanocredits (about 9.2 billion credits)",
}


class InvalidAmount(AgentBudgetError, ValueError):
    """A value that is no amount of credits; ``fault`` is not_a_number, not_finite, negative, too_fine or too_large."""

    def __init__(self, value: str = "", fault: str = "", *rest: object) -> None:
        super().__init__(value, fault, *rest)
        self.value, self.fault = value, fault

    def __str__(self) -> str:
        return f"{self.value} {_AMOUNT_FAULTS.get(self.fault, 'is no amount of credits')}"


class InvalidRequest(AgentBudgetError, ValueError):
    """A request that cannot be right whatever the balance: an unknown name, a wrong state, a bound passed."""

    def __init__(self, what: str = "", field: str = "", *rest: object) -> None:
        super().__init__(what, field, *rest)
        self.what, self.field = what, field

    def __str__(self) -> str:
        return f"{self.field}: {self.what}" if self.field else self.what


class OutOfOrder(AgentBudgetError):
    """A lease's message does not carry the number that is due: it was not applied; send it again as number ``expected``."""

    def __init__(self, lease: str = "", expected: int = 0, *rest: object) -> None:
        super().__init__(lease, expected, *rest)
        self.lease, self.expected = lease, expected

    def __str__(self) -> str:
        return f"lease {self.lease!r}: message {self.expected} is due"


class InvariantBroken(AgentBudgetError):
    """A law did not hold. This is a bug of agentbudget: the owner discards its state and reads the ledger again."""

    def __init__(self, law: str = "", what: str = "", *rest: object) -> None:
        super().__init__(law, what, *rest)
        self.law, self.what = law, what

    def __str__(self) -> str:
        return f"law {self.law} does not hold: {self.what}. This is a bug: please report it with this message"


def check(condition: bool, law: str, what: str = "") -> None:
    """Keep an invariant on in production (STYLE: not ``assert``); raises :class:`InvariantBroken`."""
    if not condition:
        raise InvariantBroken(law, what)


def find_denied(exc: BaseException | None) -> BudgetDenied | BudgetAbort | None:
    """The denial inside an exception, through causes, contexts, exception groups and RayTaskError, or None."""
    seen: set[int] = set()
    waiting: list[Any] = [exc]
    while waiting:
        error = waiting.pop()
        if not isinstance(error, BaseException) or id(error) in seen:
            continue
        seen.add(id(error))
        if isinstance(error, (BudgetDenied, BudgetAbort)):
            return error
        waiting += [error.__context__, error.__cause__, getattr(error, "cause", None)]
        waiting += getattr(error, "exceptions", ())
    return None
