"""Administrators, finance and operators: what they change while steps run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentbudget.account import commands as ask
from agentbudget.account.decision import Decision, Opened, Recalling
from agentbudget.catalog.terms import Breaker, LimitTerms, PlanTerms
from agentbudget.clock import SECOND_US
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from tests.sim.broken import must

if TYPE_CHECKING:
    from tests.sim.world import World

ENTITIES = ("user:ana", "user:bob")
TEAMS = ("team:eng", "team:ops")


class Administrator:
    """Says one thing after another, each until it is answered."""

    def __init__(self, world: World) -> None:
        self.world, self.work, self.chance = world, world.work, world.work.chance
        self.paused: list[str] = []

    def say(self, command: ask.Command, done: Callable[[Any], None] | None = None) -> None:
        """Send it until it is answered; ``done`` gets the answer."""

        def heard(answer: Any) -> None:
            if isinstance(answer, OwnerUnavailable):
                self.work.after(SECOND_US // 5, lambda: self.say(command, done))
            elif isinstance(answer, Recalling):
                self.work.saw("administrator told to wait")
                self.work.after(SECOND_US // 10, lambda: self.say(command, done))
            else:
                must(
                    not isinstance(answer, AgentBudgetError) or done is not None,
                    "L4",
                    command,
                    "was answered",
                    repr(answer),
                )
                if done is not None:
                    done(answer)

        self.work.note("admin", "sends", command)
        self.world.network.send(command, "admin", heard)

    # --- the start ---

    def found(self) -> list[ask.Command]:
        """What there is before anything runs."""
        setting = self.world.setting
        start: list[ask.Command] = [ask.CreateCustomer(self.plan())]
        start += [ask.PutEntity(team) for team in TEAMS]
        start += [ask.PutEntity("user:ana", "team:eng"), ask.PutEntity("user:bob", "team:ops")]
        start += [self.grant(soon=False) for _ in range(self.work.between(1, 2))]
        if setting.limits:
            start += [self.limit() for _ in range(self.work.between(1, 3))]
        return [*start, *(self.opening() for _ in range(self.work.between(1, 3)))]

    def plan(self) -> PlanTerms:
        setting, chance = self.world.setting, self.chance
        limits = [LimitTerms("customer", chance.choice((60, 150, 600)), window="hour")] if setting.windows else []
        if setting.measures:
            limits.append(LimitTerms("user:*", chance.choice((40, 400)), measure="tokens"))
        breaker = Breaker(max_steps=chance.choice((30, 80))) if setting.breaker and chance.random() < 0.5 else Breaker()
        wallet, line = ("postpaid", chance.choice((None, 50))) if setting.postpaid else ("prepaid", None)
        version = f"c{self.work.between(1, 9)}"
        return PlanTerms("team", version, wallet, line, limits=tuple(limits), breaker=breaker)  # type: ignore[arg-type]

    def opening(self, parent: str | None = None) -> ask.OpenSession:
        setting, chance = self.world.setting, self.chance
        session, scarce = self.work.new_id(), setting.scarce
        self.world.on_unknown[session] = chance.choice(("charge", "charge", "release"))
        rules = (
            Breaker(max_steps=25),
            Breaker(max_parallel=3),
            Breaker(error_burst=2),
            Breaker(max_seconds=4),
            Breaker(max_step_cost=5),
        )
        return ask.OpenSession(
            session, parent, budget=chance.choice((None, 40, 200) if scarce else (None, 500, 5_000)),
            entities=(chance.choice(ENTITIES),) if parent is None or chance.random() < 0.2 else (),
            breaker=chance.choice(rules) if setting.breaker and chance.random() < 0.4 else None,
            on_unknown=self.world.on_unknown[session],  # type: ignore[arg-type]
            wind_down=0,
        )  # fmt: skip

    # --- meanwhile ---

    def busy(self) -> None:
        """Something is changed every now and then."""
        if self.world.is_closing:
            return
        self.work.after(self.work.between(SECOND_US // 2, 6 * SECOND_US), self.busy)
        does = [what for what, enabled in self._choices() if enabled]
        self.chance.choice(does)()

    def _choices(self) -> list[tuple[Callable[[], None], bool]]:
        setting = self.world.setting
        return [
            (lambda: self.say(self.grant(soon=True), self._answered), True),
            (lambda: self.say(self.limit(), self._answered), setting.limits),
            (self.pause, setting.pauses),
            (lambda: self.say(ask.AssignPlan(self.plan()), self._answered), setting.plans),
            (self.move, setting.moves),
            (self.child, setting.children),
            (self.close_one, setting.closing),
            (self.fund, setting.scarce),
        ]

    def _answered(self, answer: Any) -> None:
        self.work.note("admin", "hears", answer)

    def grant(self, *, soon: bool) -> ask.IssueGrant:
        setting, chance = self.world.setting, self.chance
        now_us, key = self.work.clock.now_us(), self.work.new_id()
        expires_us = effective_us = None
        if setting.expiry and soon:
            effective_us = chance.choice((None, now_us + self.work.between(1, 10) * SECOND_US))
        if setting.expiry:
            expires_us = chance.choice((None, now_us + self.work.between(11, 30) * SECOND_US))
        amount = self.work.between(8, 90) if setting.scarce else self.work.between(200, 3_000)
        return ask.IssueGrant(
            f"g-{key}",
            amount,
            priority=chance.choice((0, 50)),
            effective_us=effective_us,
            expires_us=expires_us,
            key=key,
        )

    def limit(self) -> ask.SetLimit:
        setting, chance = self.world.setting, self.chance
        measure = chance.choice(("credits", "tokens", "steps")) if setting.measures else "credits"
        return ask.SetLimit(
            chance.choice(("customer", *TEAMS, "user:ana", "user:*", "session:*")), chance.choice((None, 0, 20, 90, 400, 4_000)),
            measure, "hour" if setting.windows and chance.random() < 0.5 else "lifetime", chance.choice(("hard", "hard", "soft")),
        )  # fmt: skip

    def pause(self) -> None:
        if self.paused:
            return self.resume()
        session = self.chance.choice(list(self.world.on_unknown))
        entity = self.chance.choice(("customer", "team:eng", "user:ana", f"session:{session}"))
        self.paused.append(entity)
        self.say(ask.SetPaused(entity, True), self._answered)

    def resume(self) -> None:
        if self.paused:
            self.say(ask.SetPaused(self.paused.pop(), False), self._answered)

    def move(self) -> None:
        self.say(ask.PutEntity(self.chance.choice(ENTITIES), self.chance.choice(TEAMS)), self._answered)

    def child(self) -> None:
        """A sub-agent with a budget carved from its parent's, in some process."""
        parent = self.chance.choice(list(self.world.on_unknown))
        command = self.opening(parent)

        def opened(answer: Any) -> None:
            self._answered(answer)
            if isinstance(answer, Opened):
                self.work.saw("child opened")
                self.world.join(command.session)
            elif isinstance(answer, Decision):
                self.work.saw("child refused")

        self.say(command, opened)

    def close_one(self) -> None:
        self.work.saw("session closed under its steps")
        self.say(ask.CloseSession(self.chance.choice(list(self.world.on_unknown))), self._answered)

    def fund(self) -> None:
        session = self.chance.choice(list(self.world.on_unknown))
        self.say(ask.FundSession(session, self.work.between(10, 60), key=self.work.new_id()), self._answered)
