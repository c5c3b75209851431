"""The machine: any sequence of commands, restarts, crashes and clock moves, sent to the owner and to the oracle alike.

``reached`` counts what the examples saw, so that a suite that never went somewhere fails (facts: T16).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import ClassVar

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from agentbudget.account import commands as ask
from agentbudget.account.decision import Held
from agentbudget.catalog.terms import PlanTerms
from agentbudget.runtime.owner.owner import Owner
from tests.model import universe
from tests.model.driver import Store
from tests.model.oracle_facts import StepFact
from tests.model.oracle_world import World
from tests.model.pair import Pair


class AccountMachine(RuleBasedStateMachine):
    """One customer's life. Subclasses name the journal; ``reached`` is shared by all examples of a run."""

    new_journal: ClassVar[Callable[[], Store]]
    owner_type: ClassVar[type[Owner]] = Owner
    reached: ClassVar[Counter[str]] = Counter()
    names: ClassVar[count[int]] = count()
    pair: Pair | None = None

    @initialize(
        plans=st.fixed_dictionaries(universe.plans), zone=st.sampled_from(universe.ZONES),
        cycle=st.sampled_from(universe.CYCLES), credits=st.sampled_from((9, 25, 60)),
        lasts=st.sampled_from((None, universe.HOUR)),
        budget=st.sampled_from((None, 15, 40)), on_lapse=st.sampled_from(("charge", "release")),
    )  # fmt: skip
    def create(
        self, plans: dict[str, PlanTerms], zone: str, cycle: str, credits: int, lasts: int | None, budget: int | None,
        on_lapse: str,
    ) -> None:  # fmt: skip
        self.cycle, self.numbers = cycle, count()
        name, journal, start = f"c{next(self.names)}", type(self).new_journal(), universe.START_US
        self.pair = Pair(journal, name, start_us=start, owner=self.owner_type, reached=self.reached, on_lapse=on_lapse)
        self.send = self.pair.send
        anchor = None if cycle == "calendar" else universe.START_US - 57 * universe.DAY * universe.SECOND_US
        self.send(ask.CreateCustomer(plans[cycle], zone, anchor))
        for entity, parent in (("team:eng", ask.ROOT), ("user:ana", "team:eng"), ("user:bob", ask.ROOT)):
            self.send(ask.PutEntity(entity, parent))
        end = None if lasts is None else universe.START_US + lasts * universe.SECOND_US
        self.send(ask.IssueGrant("first", credits, expires_us=end, key="welcome"))
        forever = universe.FOREVER_US
        self.send(ask.OpenSession("s0", None, budget, entities=("user:ana",), ttl_us=forever, max_step_us=forever))

    # --- sending ---

    @property
    def world(self) -> World:
        return self.pair.world

    def name(self, letter: str) -> str:
        return f"{letter}{next(self.numbers)}"

    def step(self, which: int, *, ended: bool | None = False) -> StepFact | None:
        """One of the latest steps."""
        steps = [step for step in self.world.single_steps() if ended is None or (step.end is not None) == ended]
        return steps[-1 - which % len(steps)] if steps else None

    def session(self, which: int) -> str:
        sessions = list(self.world.sessions)
        return sessions[which % len(sessions)]

    def has_open(self) -> bool:
        return self.step(0) is not None

    def has_ended(self) -> bool:
        return self.step(0, ended=True) is not None

    # --- the wallet ---

    @rule(grant=universe.grants, keyed=st.booleans())
    def issue(self, grant: ask.IssueGrant, keyed: bool) -> None:
        name = self.name("g")
        start, end = grant.effective_us, grant.expires_us
        end = end if end is None or start is None or start < end else start + end
        self.send(
            replace(
                grant,
                grant=name,
                key=name if keyed else None,
                effective_us=None if start is None else self.pair.now + start * 1_000_000,
                expires_us=None if end is None else self.pair.now + end * 1_000_000,
            )
        )

    @rule(
        do=st.sampled_from(("void", "adjust", "adjust", "pay")), which=universe.some,
        amount=st.sampled_from((-9, -2, 3, 12)), everything=st.booleans(), keyed=st.booleans(),
    )  # fmt: skip
    def change_wallet(self, do: str, which: int, amount: int, everything: bool, keyed: bool) -> None:
        grants = list(self.world.grants)
        grant, key = grants[which % len(grants)], self.name("k") if keyed else None
        if do == "adjust":
            self.send(ask.AdjustGrant(grant, amount, key=key))
        elif do == "void":
            self.send(ask.VoidGrant(grant, None if everything else abs(amount), key=key))
        elif self.world.owed():
            self.send(ask.ClearReceivable(self.world.owed() if everything else abs(amount), key=key))

    # --- plan, tree, limits ---

    @rule(plans=st.fixed_dictionaries(universe.plans))
    def assign_plan(self, plans: dict[str, PlanTerms]) -> None:
        self.send(ask.AssignPlan(plans[self.cycle]))

    @rule(limit=universe.limits, which=universe.some, again=st.booleans())
    def set_limit(self, limit: ask.SetLimit, which: int, again: bool) -> None:
        mine = [one for one in self.world.limits if one.origin == "admin"]
        if again and mine:
            one = mine[which % len(mine)]
            limit = ask.SetLimit(one.entity, limit.amount, one.measure, one.window, limit.mode, one.scope)
        self.send(limit)

    @rule(
        do=st.sampled_from(("resume", "put", "pause", "fund", "fund keyed", "latch", "close")), which=universe.some,
        pause=universe.pauses, entity=st.sampled_from(universe.ENTITIES), parent=st.sampled_from(universe.PARENTS),
        amount=st.integers(1, 15),
    )  # fmt: skip
    def govern(self, do: str, which: int, pause: ask.SetPaused, entity: str, parent: str, amount: int) -> None:
        session = self.session(which)
        match do:
            case "put":
                self.send(ask.PutEntity(entity, parent))
            case "pause":
                self.send(pause)
            case "latch":
                self.send(ask.Latch(session, "limit"))
            case "close" if len(self.world.sessions) > 1:
                self.send(ask.CloseSession(session))
            case "fund" | "fund keyed":
                self.send(ask.FundSession(session, amount, key=None if do == "fund" else self.name("u")))
            case _:
                self.resume_everything()

    def resume_everything(self) -> None:
        for entity in sorted(self.world.paused):
            session = entity.removeprefix("session:")
            if session == entity or not self.world.sessions[session].closed:
                self.send(ask.SetPaused(entity, False))
        for session in [one.id for one in self.world.sessions.values() if not one.closed]:
            self.send(ask.SetPaused(f"session:{session}", False))

    # --- sessions ---

    @rule(opening=universe.openings, which=universe.some, join=st.sampled_from((False, False, True)))
    def open(self, opening: ask.OpenSession, which: int, join: bool) -> None:
        if join:
            opened = self.world.sessions[self.session(which)].opened
            opening = replace(opened, entities=None, feature=None)
        self.send(opening)

    @rule(
        which=universe.some, opening=universe.openings, budget=st.sampled_from((None, 3, 8, 30)),
        size=st.integers(0, 3), at_least=st.integers(1, 3),
    )  # fmt: skip
    def open_children(self, which: int, opening: ask.OpenSession, budget: int | None, size: int, at_least: int) -> None:
        """One child as any session opens, or several in a fan-out, which all state the same budget."""
        parent, stem = self.session(which), self.name("c")
        if self.world.depth(parent) >= universe.MAX_DEPTH:
            return
        child = replace(opening, session=f"{parent}.{stem}", parent=parent, budget=budget, wind_down=None)
        if size == 0 or budget is None:
            self.send(child)
        else:
            children = tuple(replace(child, session=f"{parent}.{stem}.{n}") for n in range(size))
            self.send(ask.FanOut(parent, children, min(at_least, size)))

    # --- steps ---

    @rule(which=universe.some, holds=st.lists(universe.holds, min_size=1, max_size=3))
    def hold(self, which: int, holds: list[ask.Hold]) -> None:
        for hold in holds:
            self.send(replace(hold, session=self.session(which), step=self.name("h")))

    @rule(
        which=universe.some, hold=universe.holds, cost=st.integers(0, 30), measures=universe.measures,
        seconds=st.sampled_from((0, 0, universe.HOUR)),
    )  # fmt: skip
    def spend(self, which: int, hold: ask.Hold, cost: int, measures: dict[str, int], seconds: int) -> None:
        """A whole step: explained, held, settled at once or later, below or above its hold."""
        hold = replace(hold, session=self.session(which), step=self.name("h"))
        answer = self.pair.explained(hold)
        self.pair.driver.clock.advance(seconds)
        if isinstance(answer, Held):
            self.send(ask.SettleHold(hold.step, cost, measures))

    @precondition(has_open)
    @rule(
        do=st.sampled_from(("extend", "part", "part", "dispatch")), which=universe.some, amount=universe.amounts,
        measures=universe.measures,
    )  # fmt: skip
    def work_on(self, do: str, which: int, amount: int, measures: dict[str, int]) -> None:
        step = self.step(which)
        match do:
            case "extend":
                self.send(ask.ExtendHold(step.id, next(self.numbers), amount, measures))
            case "part":
                part = amount if amount > 10 else min(amount, step.held)
                self.send(ask.SettleHold(step.id, part, measures, part=next(self.numbers)))
            case _:
                self.send(ask.DispatchHold(step.id))

    @precondition(has_open)
    @rule(
        which=universe.some, share=st.sampled_from((0, 1, 2, 2, 3)), extra=st.sampled_from((0, 0, 3, 25)),
        measures=universe.measures, outcome=st.sampled_from(("settled", "settled", "unknown")),
        error=st.sampled_from((None, None, "timeout")),
    )  # fmt: skip
    def settle(
        self, which: int, share: int, extra: int, measures: dict[str, int], outcome: str, error: str | None
    ) -> None:
        """Below, at, and above what is held."""
        step = self.step(which)
        self.send(ask.SettleHold(step.id, step.held * share // 2 + extra, measures, outcome=outcome, error=error))

    @rule(which=universe.some, do=st.sampled_from(("lapse", "lapse", "release", "too early")), hold=universe.holds)
    def give_up(self, which: int, do: str, hold: ask.Hold) -> None:
        """A holder releases, or is gone, or releases before its hold has arrived."""
        open_one = self.step(which)
        step = self.name("h") if do == "too early" or open_one is None else open_one.id
        if step in self.world.steps:
            self.send(ask.ReleaseHold(step) if do == "release" else ask.LapseHold(step))
        elif do == "too early":
            self.send(ask.ReleaseHold(step))
            self.send(replace(hold, session=self.session(which), step=step))

    @precondition(has_ended)
    @rule(which=universe.some, amount=universe.amounts, measures=universe.measures, release=universe.some)
    def come_late(self, which: int, amount: int, measures: dict[str, int], release: int) -> None:
        """The holder of a step that has ended, lapsed mostly, tells what it cost."""
        ended = [step for step in self.world.single_steps() if step.end is not None]
        lapsed = [s for s in ended if s.end.state in ("unknown", "lapsed")]
        step = lapsed[-1 - which % len(lapsed)].id if lapsed and which < 6 else self.step(which, ended=True).id
        self.send(ask.ReleaseHold(step) if not release else ask.SettleHold(step, amount, measures))

    # --- again, and the same key with other inputs ---

    @rule(which=st.integers(0, 30), other=st.booleans())
    def again(self, which: int, other: bool) -> None:
        command = self.pair.log[-1 - which % len(self.pair.log)]
        if self.means_something(command):
            self.send(self.other_inputs(command) if other else command)

    def means_something(self, command: ask.Command) -> bool:
        """Whether a message speaks of this owner's recalls, if of any. Its numbers are beyond those of the owner before it, but
        for recalls in the same microsecond, which only this clock has."""
        return not isinstance(command, ask.Renew) or not command.heard or command.heard in self.world.queue.meanings

    def other_inputs(self, command: ask.Command) -> ask.Command:
        """The same key, asking for something else."""
        match command:
            case ask.Hold():
                return replace(command, stated=command.stated + "x")
            case ask.Renew():
                return replace(command, back=command.back + 1)
            case ask.CorrectLease():
                return replace(command, steps=command.steps[1:])
            case ask.IssueGrant() | ask.AdjustGrant() | ask.FundSession() | ask.SettleHold() | ask.ExtendHold():
                return replace(command, amount=command.amount + 1)
            case _:
                return command

    # --- time, restarts, crashes ---

    @rule(seconds=universe.passing, back=st.sampled_from((False, False, False, True)))
    def time_passes(self, seconds: int, back: bool) -> None:
        """Forward; or the clock is set back, which time as the owner sees it must not follow."""
        clock = self.pair.driver.clock
        if back:
            clock.set_us(clock.now_us() - seconds * 1_000_000)
            self.reached["clock went back"] += 1
        else:
            clock.advance(seconds)

    @rule(
        do=st.sampled_from(("snapshot", "restart", "lost before", "lost after", "holders die")), which=universe.some,
        hold=universe.holds,
    )  # fmt: skip
    def go_wrong(self, do: str, which: int, hold: ask.Hold) -> None:
        hold = replace(hold, session=self.session(which), step=self.name("h"))
        match do:
            case "snapshot" | "restart":
                self.pair.restart(snapshot=do == "snapshot")
            case "holders die":
                self.pair.holders_die()
            case _:
                self.pair.lose_the_answer(hold, committed=do == "lost after")

    # --- what holds after every step, and at the end ---

    @invariant()
    def views_agree(self) -> None:
        if self.pair is not None:
            self.pair.check()

    def teardown(self) -> None:
        if self.pair is not None:
            note("The commands were:\n" + "\n".join(f"    {command!r}" for command in self.pair.log))
            self.pair.check_ledger()
