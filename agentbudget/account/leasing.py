"""What a lease's holder says, and what it is answered: steps reported, amounts given back, more asked for (DESIGN.md §4).

Laws kept here: L3 and L12 (what is added passes every constraint, as a hold would), L4 (messages are numbered: each has one
effect, a gap is refused), L11 (what steps really cost is booked, also beyond the lease).

An ask is judged as if the report before it were an entry of its own. It is none: so the report is folded first, as soon as it is
sure to be written, and the account folds only the rest afterwards (``Made.rest``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.account import events as e
from agentbudget.account.admission import Admission, Request, refusal
from agentbudget.account.apply import apply_first
from agentbudget.account.decide import Call, Decided, Made, amount_ok, event_of, lease_ok, name_ok
from agentbudget.account.decision import Decision, Recalling, Renewed
from agentbudget.account.holds import MAX_HOLDS, MAX_MEASURES, judged, refused_or_recalling
from agentbudget.account.lanes import request_of
from agentbudget.account.leases import lease_of
from agentbudget.account.reporting import Report, report_of
from agentbudget.account.state import HoldState, Mark, SessionState, Slice
from agentbudget.account.tranche import MAX_TIMES, multiple
from agentbudget.account.wallet import hold_postings, split
from agentbudget.account.windows import FOREVER_US
from agentbudget.catalog.terms import Breaker
from agentbudget.clock import SECOND_US
from agentbudget.errors import HoldResolved, InvalidRequest, OutOfOrder, check


class Outcome(Struct, frozen=True):
    """What became of an ask: what was added, or why not."""

    granted: int = 0
    slices: Sequence[Slice] = ()
    measures: dict[str, int] = {}
    marks: Sequence[Mark] = ()
    is_granted: bool = False
    refused: Decision | None = None
    recalling: Recalling | None = None
    made: Sequence[Made] = ()
    stale: bool = False


def renew(call: Call) -> Decided:
    command: c.Renew = call.command
    lease_ok(command.lease)
    hold = call.books.state.holds.get(command.lease)
    if (again := _again(call, hold)) is not None:
        return again, []
    _numbered(call, hold)
    _sound(command)
    if hold is None:
        return _open(call, command)
    _same(command, hold)
    report = report_of(call, command, hold)
    call.books.recalls.answered(hold, command.heard)
    if command.ran or command.steps:
        _refusals_end(call, command.session)
    if command.ask is None:
        return _reported(call, hold, report)
    return _asked(call, hold, report, command.ask)


# --- which message it is -------------------------------------------------------------------------------------------------


def _again(call: Call, hold: HoldState | None) -> Renewed | None:
    """The answer of a message that was applied before; another one under its number is out of order."""
    entry = call.hits.get(call.key or "")
    if entry is None:
        return None
    event = event_of(entry)
    assert isinstance(event, e.LeaseRenewed)
    if entry.request != call.request:
        return None  # its number is not due, which is said there
    added = {measure: units for measure, units in event.measures.items() if units}
    if hold is None:
        return Renewed(event.lease, event.seq, event.granted, added, policy=event.policy, is_open=False)
    session = call.books.state.sessions[hold.session]
    until_us = _until_us(call, hold.marks, hold.slices, session)
    outcome = Outcome(event.granted, (), added, stale=_is_stale(call, hold, until_us))
    answer = _answer(call, hold.step, lease_of(hold).seq, outcome, until_us, hold.measures, lease_of(hold).policy)
    return replace(answer, rules=_watched(call.books.judge.rules(session))) if event.seq == 1 else answer


def _numbered(call: Call, hold: HoldState | None) -> None:
    """Refuse any message but the next one of a lease that is open or new."""
    command: c.Renew = call.command
    if hold is not None:
        due = lease_of(hold).seq + 1
        if command.seq != due:
            raise OutOfOrder(command.lease, due)
        return
    ended = call.hits.get(f"{command.lease}#end")
    if ended is not None:
        raise HoldResolved(command.lease, "lapsed")
    if command.seq < 1:
        raise OutOfOrder(command.lease, 1)
    if command.seq > 1 or call.key in call.hits:
        raise InvalidRequest(f"there is no open lease {command.lease!r}; open another", "lease")


def _sound(command: c.Renew) -> None:
    """Refuse what no message may say."""
    hold = command.ask
    if command.close and hold is not None:
        raise InvalidRequest("a message that closes its lease asks for nothing", "ask")
    if hold is None:
        return
    if not 1 <= command.times <= MAX_TIMES:
        raise InvalidRequest(f"must be 1 to {MAX_TIMES}", "times")
    asked = (hold.session, hold.kind, hold.model, hold.tool, hold.feature, hold.wind_down)
    if asked != (command.session, command.kind, command.model, command.tool, command.feature, command.wind_down):
        raise InvalidRequest("the step that is asked for is not one that the lease is for", "ask")
    amount_ok(hold.amount, "ask.amount")
    if len(hold.measures) > MAX_MEASURES:
        raise InvalidRequest(f"a step counts at most {MAX_MEASURES} measures", "ask.measures")
    for measure, units in hold.measures.items():
        amount_ok(units, measure)


def _same(command: c.Renew, hold: HoldState) -> None:
    lease = lease_of(hold)
    said = (command.session, command.holder, command.kind, command.model, command.tool, command.feature)
    if said != (hold.session, lease.holder, hold.kind, hold.model, hold.tool, hold.feature) or (
        command.wind_down != lease.wind_down
    ):
        raise InvalidRequest(
            "every message of a lease names the same session, holder, kind, model, tool and feature", "lease"
        )


def _refusals_end(call: Call, session: str) -> None:
    refusals = call.books.refusals.get(session)
    if refusals is not None:
        refusals.in_row = 0


# --- what it reports and gives back ------------------------------------------------------------------------------------------


def _reported(call: Call, hold: HoldState, report: Report) -> Decided:
    """A message that asks for nothing."""
    event, session = report.event, call.books.state.sessions[hold.session]
    if event.closed:
        answer = Renewed(hold.step, event.seq, policy=lease_of(hold).policy, is_open=False)
        return _with_recall(call, answer, but=hold.step), [Made(event, report.postings, call.key)]
    seq = event.seq if report.says else event.seq - 1
    until_us = _until_us(call, hold.marks, _slices_after(hold, event), session)
    outcome = Outcome(stale=_is_stale(call, hold, until_us))
    answer = _answer(call, hold.step, seq, outcome, until_us, hold.measures, lease_of(hold).policy)
    return answer, [Made(event, report.postings, call.key)] if report.says else []


def _slices_after(hold: HoldState, event: e.LeaseRenewed) -> list[Slice]:
    within = event.amount - event.overrun
    _, rest = split(hold.slices, within)
    return split(rest, hold.amount - within - event.back)[0]


# --- what it asks for --------------------------------------------------------------------------------------------------------


def _open(call: Call, command: c.Renew) -> Decided:
    """The first message: it opens the lease when what it asks for is allowed."""
    books = call.books
    if (
        command.ask is None
        or any((command.steps, command.released, command.back, command.overrun))
        or any(command.back_measures.values())
    ):
        raise InvalidRequest("the first message of a lease asks for a step, and nothing else", "ask")
    name_ok(command.holder, "holder")
    if len(books.state.holds) >= MAX_HOLDS:
        raise InvalidRequest(f"a customer may have at most {MAX_HOLDS} open holds", "lease")
    session = books.rooms.get(command.session)
    if session is None:
        detail = f"there is no open session {command.session!r}"
        denial = refusal("session_closed", detail, need=command.ask.amount, session=command.session)
        return _not_open(call, Outcome(refused=denial)), []
    rules = books.judge.rules(session)
    if rules.max_parallel is not None or rules.max_rate is not None:
        return replace(_not_open(call, Outcome()), strict=True), []
    if command.ran:
        _refusals_end(call, session.id)
    outcome = _judge(call, command.ask, session, counted=_counts(rules))
    if not outcome.is_granted:
        return _not_open(call, outcome), list(outcome.made)
    context = request_of(books.rooms, command.ask, session).context
    event = e.LeaseRenewed(
        command.lease, session.id, 1, command.holder, granted=outcome.granted, slices=tuple(outcome.slices),
        measures=outcome.measures, kind=command.kind, model=command.model, tool=command.tool, feature=command.feature,
        workflow=context.workflow, wind_down=command.wind_down, path=context.path, marks=tuple(outcome.marks),
        policy=books.state.policy,
    )  # fmt: skip
    until_us = _until_us(call, outcome.marks, outcome.slices, session)
    answer = _answer(call, command.lease, 1, outcome, until_us, outcome.measures, books.state.policy)
    return replace(answer, rules=_watched(rules)), [Made(event, hold_postings(outcome.slices), call.key)]


def _watched(rules: Breaker) -> Breaker | None:
    """The breaker, when rules of it are patterns that each process watches by itself."""
    patterns = (rules.repeat, rules.error_burst, rules.max_step_cost)
    return rules if any(rule is not None for rule in patterns) else None


def _counts(rules: Breaker) -> tuple[str, ...]:
    return () if rules.max_steps is None else ("steps",)


def _not_open(call: Call, outcome: Outcome) -> Renewed:
    command: c.Renew = call.command
    answer = Renewed(
        command.lease, 0, policy=call.books.state.policy, refused=outcome.refused, recalling=outcome.recalling,
        is_open=False,
    )  # fmt: skip
    return _with_recall(call, answer)


def _asked(call: Call, hold: HoldState, report: Report, ask: c.Hold) -> Decided:
    """A message that asks for more: judged after what it reported was folded."""
    event, postings = report.event, report.postings
    if report.says:
        more, paid = apply_first(call.books, time_us=call.now_us, postings=postings, event=event)
        event, postings = replace(event, paid=paid), postings + more
    session = call.books.state.sessions[hold.session]
    until_us = _until_us(call, hold.marks, hold.slices, session)
    lease, is_stale = lease_of(hold), _is_stale(call, hold, until_us)
    if until_us <= call.now_us or lease.policy < call.books.state.policy:
        outcome = Outcome(stale=True)
    else:  # of a session that may not go on it is judged too: the refusal says why
        outcome = _judge(call, ask, session, counted=hold.measures, is_stale=is_stale)
        until_us = min(until_us, _until_us(call, (), outcome.slices, session))
    seq = event.seq if report.says or outcome.is_granted else event.seq - 1
    answer = _answer(call, hold.step, seq, outcome, until_us, hold.measures, lease.policy)
    made = list(outcome.made)
    if report.says or outcome.is_granted:
        rest = e.LeaseRenewed(hold.step, hold.session, event.seq, event.holder)
        if outcome.is_granted:
            check(tuple(outcome.marks) == hold.marks, "L12", f"lease {hold.step} is counted where its steps are not")
            given = {"granted": outcome.granted, "slices": tuple(outcome.slices), "measures": outcome.measures}
            event, rest = replace(event, **given), replace(rest, **given)
        added = hold_postings(outcome.slices)
        made.insert(0, Made(event, postings + added, call.key, Made(rest, added)))
    return answer, made


def _judge(
    call: Call, ask: c.Hold, session: SessionState, *, counted: Iterable[str], is_stale: bool = False
) -> Outcome:
    """The ask as a hold of it would be judged; allowed, as many times of it as its shares allow."""
    books, command = call.books, call.command
    if books.judge.steps_left(session) is not None and not ask.measures.get("steps"):
        ask = replace(ask, measures={**ask.measures, "steps": 1})
    request = request_of(books.rooms, ask, session)
    admission, wanted = judged(call, request, who=command.lease, lease=command.lease)
    if not admission.allowed:
        verdict, made = refused_or_recalling(call, request, admission, wanted)
        if isinstance(verdict, Recalling):
            return Outcome(recalling=verdict, made=made, stale=is_stale)
        return Outcome(refused=verdict, made=made, stale=is_stale)
    alone = not books.recalls.tickets or not books.recalls.is_crossed(wanted, call.now_us)
    books.recalls.leave(command.lease)
    _refusals_end(call, session.id)
    times = multiple(books, request, admission, times=command.times, holder=command.holder) if alone else 1
    return _granted(call, request, admission, times, counted)


def _granted(call: Call, request: Request, admission: Admission, times: int, counted: Iterable[str]) -> Outcome:
    """``times`` the step, of the measures that something on its path counts."""
    hold, amount = request.hold, request.hold.amount * times
    slices = call.books.judge.slices(amount, request.context)
    names = {*counted, *call.books.limits.measures(admission.marks)} - {"credits"}
    measures = {name: hold.measures.get(name, 0) * times for name in sorted(names)}
    return Outcome(amount, slices, measures, admission.marks, True)


# --- the answer --------------------------------------------------------------------------------------------------------------


def _is_stale(call: Call, hold: HoldState, until_us: int) -> bool:
    """Whether nothing may start on the lease any more: any answer to its holder says so, since what told it may be lost."""
    return until_us <= call.now_us or call.books.recalls.is_untrue(hold)


def _until_us(call: Call, marks: Iterable[Mark], slices: Iterable[Slice], session: SessionState) -> int:
    """When the lease ends: its first window, the first of the grants that it holds of, the time its session may run."""
    books = call.books
    until_us = books.limits.until_us(marks, call.now_us)
    for grant_id, _ in slices:
        grant = books.state.grants.get(grant_id)  # what is drawn beyond all grants is none, and never expires
        expires_us = None if grant is None else grant.expires_us
        if expires_us is not None:
            until_us = min(until_us, expires_us)
    seconds = books.judge.rules(session).max_seconds
    if seconds is not None:  # at that age exactly a step may still start
        until_us = min(until_us, max(session.opened_us, session.rest_us) + seconds * SECOND_US + 1)
    return until_us


def _answer(
    call: Call, lease: str, seq: int, outcome: Outcome, until_us: int, counted: Iterable[str], policy: int
) -> Renewed:
    lasts_us = 0 if outcome.stale else FOREVER_US if until_us >= FOREVER_US else max(0, until_us - call.now_us)
    answer = Renewed(
        lease, seq, outcome.granted, {name: units for name, units in outcome.measures.items() if units},
        tuple(sorted(counted)), lasts_us, policy, outcome.stale, outcome.refused, outcome.recalling,
    )  # fmt: skip
    return _with_recall(call, answer)


def _with_recall(call: Call, answer: Renewed, *, but: str = "") -> Renewed:
    """The answer, with what is asked back of its holder."""
    recalls = call.books.recalls
    recall = tuple(step for step in recalls.tell(call.command.holder) if step != but)
    return replace(answer, recall=recall, told=recalls.made) if recall else answer
