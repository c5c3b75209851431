"""One customer's account with what its owner keeps beside it: the time, the entries so far, and the index of their keys.

Every command sent through a desk is also checked: the entries balance (L2), no key is written twice (L4), and a command that
wrote nothing left the state as it was, to the byte (purity).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from agentbudget.account import commands as c
from agentbudget.account.account import Account
from agentbudget.account.decision import (
    Answer,
    BalanceView,
    Decision,
    GrantView,
    Held,
    HoldView,
    LimitView,
    Opened,
    SessionView,
    Settled,
)
from agentbudget.catalog.terms import PlanTerms
from agentbudget.errors import AgentBudgetError
from agentbudget.ledger.entry import Draft, Entry, decode, genesis, seal

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND
START = 1_767_225_600 * SECOND
"""2026-01-01T00:00:00Z, a Thursday."""

PREPAID = PlanTerms("team", "v1")
POSTPAID = PlanTerms("team", "v1", wallet="postpaid")


class Desk:
    """``desk.hold("h1", "s", 5)`` sends one command now; a refusal is an answer, an error is raised."""

    def __init__(
        self, terms: PlanTerms | None = PREPAID, *, zone: str = "UTC", anchor_us: int | None = None, now_us: int = START
    ) -> None:
        self.account, self.now_us = Account("acme"), now_us
        self.entries: list[Entry] = []
        self.index: dict[str, Entry] = {}
        self._head = genesis("acme")
        if terms is not None:
            self.send(c.CreateCustomer(terms, zone, anchor_us))

    # -- sending --------------------------------------------------------------------------------------------------------

    def send(self, command: c.Command) -> Any:
        """The answer; an error is raised, after the same checks."""
        before = self.account.snapshot()
        hits = {key: self.index[key] for key in c.keys_of(command) if key in self.index}
        outcome = self.account.handle(command, now_us=self.now_us, hits=hits)
        for draft in outcome.drafts:
            self._record(draft)
        if not outcome.drafts:
            assert self.account.snapshot() == before, f"{command} wrote nothing but changed the state"
        if outcome.error is not None:
            raise outcome.error
        return outcome.answer

    def answer(self, command: c.Command) -> Answer | AgentBudgetError:
        """The answer, or the error as a value."""
        try:
            answer: Answer = self.send(command)
        except AgentBudgetError as error:
            return error
        return answer

    def _record(self, draft: Draft) -> None:
        sums: Counter[str] = Counter()
        for posting in draft.postings:
            sums[posting.grant] += posting.amount
        assert not any(sums.values()), f"L2: entry {draft} does not balance"
        assert draft.key is None or draft.key not in self.index, f"L4: key {draft.key} is written twice"
        sealed = seal(draft, self._head)
        self._head, entry = sealed.hash, decode(sealed.record)
        self.entries.append(entry)
        if entry.key is not None:
            self.index[entry.key] = entry

    def wait(self, microseconds: int) -> None:
        self.now_us += microseconds

    def folded(self) -> Account:
        """The account that the entries alone give."""
        account = Account("acme")
        for entry in self.entries:
            account.replay(entry)
        return account

    # -- the usual commands -----------------------------------------------------------------------------------------------

    def grant(self, grant: str, amount: int, **rest: Any) -> None:
        self.send(c.IssueGrant(grant, amount, **rest))

    def open(self, session: str, **rest: Any) -> Opened | Decision:
        opened: Opened | Decision = self.send(c.OpenSession(session, **rest))
        return opened

    def hold(self, step: str, session: str, amount: int, **rest: Any) -> Held | Decision:
        answer: Held | Decision = self.send(hold(step, session, amount, **rest))
        return answer

    def settle(self, step: str, amount: int, **rest: Any) -> Settled:
        answer: Settled = self.send(c.SettleHold(step, amount, **rest))
        return answer

    def release(self, step: str) -> Settled:
        answer: Settled = self.send(c.ReleaseHold(step))
        return answer

    def lapse(self, step: str) -> Settled:
        answer: Settled = self.send(c.LapseHold(step))
        return answer

    def spend(self, step: str, session: str, amount: int, **rest: Any) -> None:
        """Hold and settle the same amount."""
        assert isinstance(self.hold(step, session, amount, **rest), Held)
        self.settle(step, amount)

    def limit(self, entity: str, amount: int | None, **rest: Any) -> None:
        self.send(c.SetLimit(entity, amount, **rest))

    def pause(self, entity: str, paused: bool = True) -> None:
        self.send(c.SetPaused(entity, paused))

    # -- looking ----------------------------------------------------------------------------------------------------------

    def read(self, what: Any, only: str = "") -> Any:
        return self.send(c.Read(what, only))

    @property
    def balance(self) -> BalanceView:
        view: BalanceView = self.read("balance")
        return view

    def grant_view(self, grant: str) -> GrantView:
        return next(view for view in self.balance.grants if view.id == grant)

    def free(self) -> dict[str, int]:
        """What is available by grant."""
        return {view.id: view.available for view in self.balance.grants}

    def session(self, session: str) -> SessionView:
        view: SessionView = self.read("session", session)
        return view

    def limits(self, only: str = "") -> tuple[LimitView, ...]:
        views: tuple[LimitView, ...] = self.read("limits", only)
        return views

    def counted(self, entity: str) -> tuple[int, int]:
        """Used and held of the one limit at an entity."""
        (view,) = self.limits(entity)
        return view.used, view.held

    def open_holds(self) -> list[str]:
        views: tuple[HoldView, ...] = self.read("holds")
        return [view.step for view in views]


def hold(step: str, session: str, amount: int, **rest: Any) -> c.Hold:
    """A model step; ``kind``, ``tool`` and the rest can be said."""
    kind = rest.pop("kind", "llm")
    if kind in ("llm", "embedding"):
        rest.setdefault("model", "gpt-5")
    rest.setdefault("stated", str(amount))
    return c.Hold(step, session, kind, amount, rest.pop("measures", {"steps": 1}), **rest)


def allowed(answer: object) -> bool:
    """True when a hold was made."""
    return isinstance(answer, Held)


def reason(answer: object) -> str | None:
    """Why it was refused."""
    assert isinstance(answer, Decision), f"{answer!r} is no refusal"
    assert not answer.allowed
    return answer.reason


def failing(answer: object) -> list[tuple[str, str]]:
    """Every constraint that refused: (kind, entity)."""
    assert isinstance(answer, Decision)
    return [(one.kind, one.entity) for one in answer.constraints if not one.allowed]
