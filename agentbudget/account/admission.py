"""May this step run? Every constraint, evaluated in one fixed order; the step is allowed when all of them allow (law L12).

Order: session state, pause, overdraft, feature, model, breaker, session budgets (innermost first), limits (root first), wallet.
Rows are cheap tuples; they become Constraints only when somebody will read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from agentbudget.account import breaker
from agentbudget.account.commands import Hold
from agentbudget.account.decision import Affordable, Constraint, Decision, Reason, describe, failing_first, quantity
from agentbudget.account.limits import Gate, LimitBook, applies
from agentbudget.account.matching import StepContext, matches_any
from agentbudget.account.sessions import Rooms
from agentbudget.account.state import Mark, SessionState, Slice, State
from agentbudget.account.wallet import Wallet
from agentbudget.account.windows import FOREVER_US
from agentbudget.amounts import MAX_NANO, Credits
from agentbudget.catalog.terms import Breaker, PlanTerms
from agentbudget.errors import check
from agentbudget.ledger.entry import OVERDRAFT, RECEIVABLE

Row = tuple[bool, Reason, str, str, int | None, int, int, int, str, str, int | None, str, int]
"""allowed, kind, entity, measure, limit, used, held, need, window, mode, resets_at, detail, id of the limit (0: none)."""
LEASED_STEPS = -1
"""In place of a limit's id: the row of the breaker's ``max_steps`` that only steps which leases hold make short."""
NO_BREAKER = Breaker()


class Request(Struct, gc=False):
    """A step to be judged, with where it stands. ``session`` None: outside any session (explain)."""

    hold: Hold
    context: StepContext
    path: tuple[str, ...]
    gates: tuple[Gate, ...]
    session: SessionState | None
    count_step: bool = True


class Admission(Struct, gc=False):
    """The verdict: rows as far as they were evaluated, and when all allow, what to hold where."""

    rows: list[Row]
    slices: list[Slice]
    marks: Sequence[Mark]
    allowed: bool
    trip: breaker.Trip | None = None


class Judge:
    """Evaluates steps against one customer's state; changes nothing."""

    def __init__(self, state: State, wallet: Wallet, limits: LimitBook, rooms: Rooms) -> None:
        self._state, self._wallet, self._limits, self._rooms = state, wallet, limits, rooms

    @property
    def _terms(self) -> PlanTerms:
        terms = self._state.terms
        check(terms is not None, "L6", "a customer without a plan")
        assert terms is not None
        return terms

    def judge(self, request: Request, now_us: int, *, counted_us: int | None = None) -> Admission:
        """Evaluate every constraint. ``counted_us``: when the hold was opened that this adds to, whose windows count it."""
        rows: list[Row] = []
        marks: list[Mark] = []
        self._state_rows(request, rows)
        self._entitlement_rows(request, rows)
        trip = self._breaker_row(request, rows, now_us)
        self._session_rows(request, rows)
        self._limit_rows(request, rows, marks, now_us if counted_us is None else counted_us)
        slices = self._wallet_rows(request, rows)
        return Admission(rows, slices, marks, all(row[0] for row in rows), trip)

    # -- the gates, in order --------------------------------------------------------------------------------------------

    def _state_rows(self, request: Request, rows: list[Row]) -> None:
        session = request.session
        if session is not None:
            if session.closed:
                rows.append(_flag("session_closed", f"session:{session.id}", "the session is closed"))
            for level in self._rooms.lineage(session):
                if level.stopped:
                    rows.append(
                        _flag("circuit_open", f"session:{level.id}", f"the session is stopped: {level.stopped}")
                    )
        if self._state.paused:
            for node in request.path:
                if node in self._state.paused:
                    reason = self._state.paused[node]
                    rows.append(_flag("paused", node, f"{node} is paused" + (f": {reason}" if reason else "")))
        debt = self._wallet.drawn(OVERDRAFT)
        if debt and request.hold.amount:
            detail = f"{describe('credits', debt)} of overdraft must be paid first"
            rows.append(
                (
                    False,
                    "overdraft",
                    "customer",
                    "credits",
                    0,
                    debt,
                    0,
                    request.hold.amount,
                    "",
                    "hard",
                    None,
                    detail,
                    0,
                )
            )

    def _entitlement_rows(self, request: Request, rows: list[Row]) -> None:
        terms, hold = self._terms, request.hold
        feature = request.context.feature
        if terms.features is not None and feature is not None:
            entitled = any(e.feature == feature and e.value is not False for e in terms.features)
            if not entitled:
                rows.append(_flag("feature_not_entitled", "customer", f"plan {terms.plan} has no feature {feature!r}"))
        if terms.models and hold.model is not None and not matches_any(terms.models, hold.model):
            rows.append(
                _flag("model_not_allowed", "customer", f"plan {terms.plan} does not allow model {hold.model!r}")
            )

    def rules(self, session: SessionState) -> Breaker:
        """The breaker of a session: its own, else the plan's."""
        if session.breaker is not None:
            return session.breaker
        terms = self._state.terms
        return NO_BREAKER if terms is None else terms.breaker

    def _breaker_row(self, request: Request, rows: list[Row], now_us: int) -> breaker.Trip | None:
        session = request.session
        if session is None:
            return None
        judge = breaker.trips if request.count_step else breaker.trips_more
        trip = judge(self.rules(session), session, request.hold, now_us)
        if trip is not None:
            row = _flag("circuit_open", f"session:{session.id}", f"breaker {trip.rule}: {trip.detail}")
            leased = trip.rule == "max_steps" and not trip.sticky
            rows.append((*row[:12], LEASED_STEPS) if leased else row)
        return trip

    def steps_left(self, session: SessionState) -> int | None:
        """How many more steps ``max_steps`` allows, those aside that leases hold; None without that rule."""
        most = self.rules(session).max_steps
        return None if most is None else most - (session.steps - session.rest_steps) - session.leased_steps

    def steps_row(self, session: SessionState) -> Row | None:
        """``max_steps`` as a row that allows, for those who wait for steps of it."""
        left = self.steps_left(session)
        if left is None or left <= 0:
            return None
        detail = "the breaker's steps are being asked for by others"
        return (
            True, "circuit_open", f"session:{session.id}", "steps", left, 0, 0, 1, "", "hard", None, detail, LEASED_STEPS,
        )  # fmt: skip

    def _session_rows(self, request: Request, rows: list[Row]) -> None:
        if request.session is None:
            return
        keep = not request.hold.wind_down
        for level, need in self._rooms.needs(request.session, request.hold.amount):
            if level.budget is not None:
                rows.append(budget_row(level, need, keep_wind_down=keep))

    def _limit_rows(self, request: Request, rows: list[Row], marks: list[Mark], now_us: int) -> None:
        hold = request.hold
        for limit, node in request.gates:
            if limit.scope is not None and not applies(limit, request.context):
                continue
            start_us, end_us = self._limits.window(limit.window, now_us)
            marks.append((limit.id, node, start_us))
            if limit.amount is None:
                continue
            need = hold.amount if limit.measure == "credits" else hold.measures.get(limit.measure, 0)
            counter = self._limits.peek(limit, node, start_us)
            fits = need <= 0 or limit.mode == "soft" or counter.used + counter.held + need <= limit.amount
            resets = None if end_us == FOREVER_US else end_us
            rows.append((
                fits, "limit", node, limit.measure, limit.amount, counter.used, counter.held, need,
                limit.window, limit.mode, resets, "", limit.id,
            ))  # fmt: skip

    def _wallet_rows(self, request: Request, rows: list[Row]) -> list[Slice]:
        need, terms = request.hold.amount, self._terms
        slices, missing = self._wallet.take(need, request.context)
        if terms.wallet == "postpaid" and terms.credit_line is None:
            fits = missing <= MAX_NANO - self._wallet.issued
            if missing and fits:
                slices.append((RECEIVABLE, missing))
            detail = "postpaid without a credit line: no bound but 64 bits of nanocredits in all"
            rows.append((fits, "insufficient_credits", "customer", "", None, 0, 0, 0, "", "hard", None, detail, 0))
            return slices
        line = 0
        if terms.wallet == "postpaid":
            line = max(0, (terms.credit_line or 0) - self._wallet.receivable_with_holds)
            if 0 < missing <= line:
                slices.append((RECEIVABLE, missing))
                missing = 0
        free = self._wallet.free(request.context) + line
        rows.append(
            (not missing, "insufficient_credits", "customer", "credits", free, 0, 0, need, "", "hard", None, "", 0)
        )
        return slices

    def slices(self, amount: int, context: StepContext) -> list[Slice]:
        """What an admitted amount is held of: credits in burn order, then the receivable."""
        slices, missing = self._wallet.take(amount, context)
        return [*slices, (RECEIVABLE, missing)] if missing else slices

    def wallet_room(self, context: StepContext) -> int:
        """The most that the wallet could hold for such steps."""
        terms, free = self._terms, self._wallet.free(context)
        if terms.wallet != "postpaid":
            return free
        if terms.credit_line is None:
            return free + MAX_NANO - self._wallet.issued
        return free + max(0, terms.credit_line - self._wallet.receivable_with_holds)

    # -- what a reader sees ---------------------------------------------------------------------------------------------

    def decision(self, request: Request, admission: Admission) -> Decision:
        """The public answer: all constraints, the binding reason, what would fit."""
        constraints = tuple(constraint(row) for row in admission.rows)
        binding = None if admission.allowed else failing_first(constraints)[0]
        affordable = Credits.of_nano(self._affordable(request, admission.rows))
        return Decision(
            allowed=admission.allowed,
            reason=None if binding is None else binding.kind,
            constraints=constraints,
            affordable=Affordable(affordable),
            need=Credits.of_nano(request.hold.amount),
            retry_at_us=None if binding is None else binding.resets_at_us,
            grants=tuple((grant, Credits.of_nano(n)) for grant, n in admission.slices) if admission.allowed else (),
            suggestions=() if binding is None else suggest(binding, affordable),
            session="" if request.session is None else request.session.id,
        )

    def _affordable(self, request: Request, rows: Iterable[Row]) -> int:
        amount = request.hold.amount
        rest = [  # what is not needed at a level is covered by the carve-out below it
            max(0, limit - used - held) + amount - need
            for _, _, _, measure, limit, used, held, need, _, mode, _, _, _ in rows
            if measure == "credits" and mode == "hard" and limit is not None
        ]
        if any(not row[0] and (row[4] is None or row[3] not in ("credits", "tokens")) for row in rows):
            return 0
        return min(rest, default=request.hold.amount)


def budget_row(level: SessionState, need: int, *, keep_wind_down: bool) -> Row:
    """A session's budget as a constraint: the share kept for winding down is not there for other steps."""
    assert level.budget is not None
    limit = level.budget - (level.wind_down if keep_wind_down else 0)
    used = level.spent
    held = level.consumption - used
    fits = need <= 0 or level.consumption + need <= limit
    return (fits, "session_budget", f"session:{level.id}", "credits", limit, used, held, need, "", "hard", None, "", 0)


def _flag(kind: Reason, entity: str, detail: str) -> Row:
    return (False, kind, entity, "", None, 0, 0, 0, "", "hard", None, detail, 0)


def constraint(row: Row) -> Constraint:
    """A row as people read it."""
    allowed, kind, entity, measure, limit, used, held, need, window, mode, resets_at_us, detail, _ = row
    if limit is None:
        return Constraint(kind, entity, allowed, detail=detail)
    return Constraint(
        kind, entity, allowed, measure, quantity(measure, limit), quantity(measure, used), quantity(measure, held),
        quantity(measure, limit - used - held), quantity(measure, need), window, mode, resets_at_us, detail,
    )  # fmt: skip


def suggest(binding: Constraint, affordable: Credits) -> tuple[str, ...]:
    """What would unblock the step, in words."""
    enough = bool(affordable) and binding.measure == "credits"
    fits = (f"a step of at most {affordable} credits would fit now",) if enough else ()
    match binding.kind:
        case "session_budget":
            return (*fits, f"fund {binding.entity} to go on")
        case "insufficient_credits":
            return (*fits, "grant credits to the wallet")
        case "overdraft":
            return ("grant credits: they pay the overdraft first",)
        case "limit":
            wait = ("wait for the next " + binding.window,) if binding.resets_at_us is not None else ()
            return (*fits, f"raise the limit of {binding.entity}", *wait)
        case "circuit_open":
            return (f"resume or fund {binding.entity} once the cause is understood",)
        case "paused":
            return (f"resume {binding.entity}",)
        case "feature_not_entitled" | "model_not_allowed":
            return ("assign a plan that includes it, or use another",)
        case "session_closed":
            return ("open another session",)
        case _:
            return ()


def refusal(
    reason: Reason,
    detail: str,
    *,
    need: int = 0,
    entity: str = "customer",
    session: str = "",
    suggestions: tuple[str, ...] = (),
) -> Decision:
    """A refusal that no amount decided."""
    return Decision(
        allowed=False, reason=reason, constraints=(Constraint(reason, entity, False, detail=detail),),
        need=Credits.of_nano(need), detail=detail, session=session, suggestions=suggestions,
    )  # fmt: skip
