"""agentbudget behind the lab's protocol: the library as it is used, sessions and steps, in virtual time (``inline.py``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from agentbudget import BudgetDenied, Credits, Session, Usage
from agentbudget.account.expand import step_lines
from agentbudget.clock import SECOND_US
from agentbudget.runtime.customer import Customer
from agentbudget.runtime.steps.ends import HELD
from benchmarks.runaway.guard import Books, Guard, Setting
from benchmarks.runaway.inline import Inline
from benchmarks.runaway.provider import Served
from benchmarks.runaway.steps import RUN, Report, Step, Tool, Verdict

CUSTOMER: Final = "acme"
SESSION: Final = "main"
MOST: Final = 10**18
"""A limit that binds nobody until it is lowered: a thousand million credits, in nanocredits."""
MINUTE_US: Final = 60 * SECOND_US


class TooMany(Exception):
    """The provider's own refusal, as its SDK raises it."""

    status_code = 429


class Lost(Exception):
    """No answer came after the request was sent."""


class OursRun:
    """A customer on the bundled plan, whose sessions are opened with ``stated``."""

    def __init__(self, setting: Setting, stated: dict[str, Any]) -> None:
        self.setting, self.stated = setting, stated
        self.inline = Inline(setting.clock)
        self.runtime = self.inline.process()
        acme = self.runtime.customers.create(CUSTOMER, plan="local")
        most = MOST if setting.wallet is None else setting.wallet
        acme.limits.set(
            "customer", Credits.of_nano(most), window="lifetime"
        )  # before anything is spent: limits count from then on

    def root(self) -> Guard:
        return self.session(SESSION, self.setting.budget)

    def session(self, name: str, budget: int) -> Guard:
        return OursGuard(self, self._open(name, budget))

    def _open(self, name: str, budget: int | None) -> Session:
        stated = self.stated | ({} if budget is None else {"budget": Credits.of_nano(budget)})
        return self.runtime.customer(CUSTOMER).session(id=name, **stated).open()

    def until(self, now_us: int) -> None:
        self.inline.until(now_us)

    def change(self, what: str, amount: int, guard: Guard) -> Guard:
        assert isinstance(guard, OursGuard)
        match what:
            case "fund":
                guard.session.fund(Credits.of_nano(amount))
            case "cut":  # a session's budget is only ever raised, so the administrator lowers the limit above it
                self.runtime.customer(CUSTOMER).limits.set("customer", Credits.of_nano(amount), window="lifetime")
            case "owner":
                self.inline.host.restart()
            case "worker":
                self.inline.kill(self.runtime)
                self.runtime = self.inline.process()
                return OursGuard(self, self.runtime.customer(CUSTOMER).session(id=guard.session.id).open())
        return guard

    def close(self) -> Books:
        """What the ledger says when everything is over, and what nobody ended has lapsed."""
        acme = self.runtime.customer(CUSTOMER)
        for minutes in (1, 61, 25 * 60):
            self.runtime.settle_up()
            for holder in self.inline.host.holders:
                holder.run_errands()
            if acme.holds():
                self.inline.leap(minutes * MINUTE_US)
        self.runtime.settle_up()
        held = sum(hold.amount.nano for hold in acme.holds())
        booked, unknown = _booked(acme)
        self.runtime.close()
        return Books(booked, unknown, held)


class OursGuard:
    """A session of it."""

    def __init__(self, run: OursRun, session: Session, *, is_child: bool = False) -> None:
        self._run, self.session, self._is_child = run, session, is_child
        self._steps: dict[int, Any] = {}
        self._streams: dict[int, _Stream] = {}

    def before(self, step: Step) -> Verdict:
        action = step.action
        try:
            held = self._reserve(step)
        except BudgetDenied as denied:
            return Verdict(False, (denied.decision.reason if denied.decision else None) or "refused")
        self._steps[step.id] = held
        if isinstance(action, Tool):
            return RUN
        if action.stream:
            self._streams[step.id] = _Stream(held)
        cap = held.max_output_tokens
        return Verdict(True, cap=cap) if cap is not None and cap < action.cap else RUN

    def _reserve(self, step: Step) -> Any:
        action = step.action
        if isinstance(action, Tool):
            return self.session.reserve(
                "tool", name=action.name, amount=Credits.of_nano(action.price), arguments=action.arguments, dispatched=True,
                wind_down=action.wind_down,
            )  # fmt: skip
        return self.session.reserve(
            "llm", model=action.model, input_tokens=step.input, max_output_tokens=action.cap, dispatched=True,
            wind_down=action.wind_down,
        )  # fmt: skip

    def chunk(self, step: Step, tokens: int) -> bool:
        self._streams[step.id].came(tokens)
        return True

    def after(self, step: Step, report: Report) -> None:
        held, stream = self._steps[step.id], self._streams.pop(step.id, None)
        if report.failure == "refused":
            held.fail(TooMany())
        elif report.failure == "lost":
            held.fail(Lost())
        elif stream is not None:
            stream.end(report)
        elif isinstance(step.action, Tool):
            held.settle(amount=Credits.of_nano(report.cost or 0))
        else:
            held.settle(None if report.served is None else usage_of(report.served))

    def dropped(self, step: Step) -> None:
        """The step is forgotten with the frame that had it."""
        del self._steps[step.id]

    def child(self, name: str, budget: int | None) -> Guard | None:
        stated: Any = {} if budget is None else {"budget": Credits.of_nano(budget)}
        try:
            child = self.session.child(id=name, **stated).open()
        except BudgetDenied:
            return None
        return OursGuard(self._run, child, is_child=True)

    def ended(self) -> None:
        """A sub-agent gives back what it did not use."""
        if self._is_child:
            self.session.close()


class _Stream:
    """A reply's stream through ``Step.wrap``, fed as it comes."""

    def __init__(self, held: Any) -> None:
        self._next: Served | int = 0
        self._came, self._ended, self._held = 0, False, held
        self._items = held.wrap(self._feed(), lambda item: usage_of(item) if isinstance(item, Served) else None)

    def _feed(self) -> Iterator[Served | int]:
        while not self._ended:
            yield self._next

    def came(self, tokens: int) -> None:
        """A chunk; what a caller may count of it is its tokens."""
        self._held.count(tokens - self._came - 1)  # the item itself counts as one
        self._next, self._came = tokens, tokens
        next(self._items)

    def end(self, report: Report) -> None:
        if report.failure:
            self._items.close()
        elif report.served is not None:
            self._next = report.served
            next(self._items)
            self._items.close()
        else:
            self._ended = True
            for _ in self._items:
                raise AssertionError("the stream is over")


def usage_of(served: Served) -> Usage:
    """What the provider reports."""
    return Usage(
        input_tokens=served.input, cache_read_tokens=served.cached, output_tokens=served.output,
        reasoning_tokens=served.reasoning,
    )  # fmt: skip


def _booked(acme: Customer) -> tuple[int, int]:
    """Nanocredits in the ledger, and those of them that stand for a cost nobody knew: charged by a policy, or a model step's
    hold booked for lack of a usage."""
    booked, unknown = 0, dict[str, int]()
    for entry in acme.ledger.entries():
        for line in step_lines(entry):
            booked += line.amount
            if line.state == "unknown" or (line.state == "settled" and line.rate == HELD[0] and not line.usage):
                unknown[line.step] = line.amount
            elif line.state == "corrected":
                unknown.pop(line.step, None)
    return booked, sum(unknown.values())


class OursPolicy:
    """agentbudget with a session opened as ``stated`` says."""

    family = "agentbudget"
    cannot: frozenset[str] = frozenset()

    def __init__(self, name: str, title: str, stated: Callable[[Setting], dict[str, Any]]) -> None:
        self.name, self.title, self._stated = name, title, stated

    def open(self, setting: Setting) -> OursRun:
        return OursRun(setting, self._stated(setting))
