"""``agentbudget session``: agent runs that are not over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentbudget.cli.answer import Answer, answers
from agentbudget.cli.options import (
    CatalogOption,
    CustomerArgument,
    JsonOption,
    KeyOption,
    LedgerOption,
    SessionArgument,
    reader,
    writer,
)
from agentbudget.errors import InvalidRequest

if TYPE_CHECKING:
    from agentbudget.amounts import Credits
    from agentbudget.runtime.customer import Customer
    from agentbudget.runtime.views import OpenHold

app = typer.Typer(name="session", help="Sessions that are not over: list, show, pause, resume, fund, close.")


@app.command("list")
@answers
def list_(customer: CustomerArgument, ledger: LedgerOption = None, as_json: JsonOption = False) -> Answer:
    """List the sessions that are open, or that still have open steps, with what processes have leased of them."""
    from agentbudget.cli.data import to_data
    from agentbudget.cli.tables import table

    with reader(ledger) as runtime:
        one = runtime.customer(customer)
        found, leases = one.sessions.list(), _leases(one)
    rows, data = [], []
    for s in found:
        own = _leased(leases, s.id)
        rows.append((s.id, s.state, s.budget, s.spent, s.held, *own.values(), s.remaining, s.steps, s.opened_at))
        known = {name: value for name, value in to_data(s).items() if name != "denials"}
        data.append({**known, **to_data(own)})
    columns = ("session", "state", "budget", "spent", "held", "leased", "suspended", "remaining", "steps", "opened at")
    made = table(f"sessions of {customer}, credits", columns, rows, right=columns[2:9])
    return Answer({"customer": customer, "sessions": data}, lambda console: console.print(made))


@app.command("show")
@answers
def show(
    customer: CustomerArgument, session: SessionArgument, ledger: LedgerOption = None, as_json: JsonOption = False
) -> Answer:
    """Show one session: its budget, what it has spent, holds and has left, who leases of it, and its newest refusals."""
    with reader(ledger) as runtime:
        return _answer(runtime.customer(customer), session)


@app.command("pause")
@answers
def pause(
    customer: CustomerArgument,
    session: SessionArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept in the ledger.")] = "",
    ledger: LedgerOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Refuse every step of a session and its children until it is resumed, in whatever process they run."""
    with writer(ledger, catalog) as runtime:
        one = _with_session(runtime.customer(customer), session)
        one.pause(f"session:{session}", reason)
        return _answer(one, session)


@app.command("resume")
@answers
def resume(
    customer: CustomerArgument,
    session: SessionArgument,
    ledger: LedgerOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """End a session's pause, its stop, and an open circuit."""
    with writer(ledger, catalog) as runtime:
        one = _with_session(runtime.customer(customer), session)
        one.resume(f"session:{session}")
        return _answer(one, session)


@app.command("fund")
@answers
def fund(
    customer: CustomerArgument,
    session: SessionArgument,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Credits to add to its budget, as 5 or 0.50.")],
    key: KeyOption = None,
    ledger: LedgerOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Raise a session's budget, and end a stop. A child's parent must have the room."""
    from agentbudget.account.commands import FundSession
    from agentbudget.account.decision import Decision
    from agentbudget.errors import BudgetDenied

    with writer(ledger, catalog) as runtime:
        one = _with_session(runtime.customer(customer), session)
        answer: Any = one.link.ask(FundSession(session, one.link.nano(amount), key))
        if isinstance(answer, Decision):
            raise BudgetDenied(answer)
        return _answer(one, session)


@app.command("close")
@answers
def close(
    customer: CustomerArgument,
    session: SessionArgument,
    ledger: LedgerOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """End a session and its children: no further step of it runs. Steps that are open still settle."""
    with writer(ledger, catalog) as runtime:
        one = _with_session(runtime.customer(customer), session)
        last = one.sessions.get(session)
        one.sessions.close(session)
        return _answer(one, session, last=last)


def _with_session(customer: Customer, session: str) -> Customer:
    """The customer; raises :class:`InvalidRequest` by name when it has no session of that id that is not over."""
    customer.sessions.get(session)
    return customer


def _answer(customer: Customer, session: str, *, last: Any = None) -> Answer:
    """A session now. ``last``: how it was before it was closed, for when nothing of it is left to look at."""
    from agentbudget.cli.data import to_data
    from agentbudget.cli.tables import pairs, table
    from agentbudget.runtime.views import at

    data = _status(customer, session, last)
    leases = _leases(customer, session)
    own = {**data, **to_data(_leased(leases, session))}
    notes = [note for note in customer.denials() if note.session == session]
    made = [pairs(f"session {session}", [(name.replace("_", " "), value) for name, value in own.items()][1:])]
    if leases:
        holders = [
            (one.holder, one.kind, one.name, one.amount, _counted(one), one.opened_at, one.suspended_at)
            for one in leases
        ]
        columns = ("leased by", "kind", "model or tool", "held", "and", "since", "silent since")
        made.append(table("leases", columns, holders, right=("held",)))
    if notes:
        refused = [(at(note.time_us), note.reason, note.entity, note.kind, note.name, note.count) for note in notes]
        names = ("at", "reason", "entity", "kind", "model or tool", "times")
        made.append(table("refusals, newest first", names, refused, right=("times",)))
    told = {"leases": [_lease_data(one) for one in leases], "refusals": to_data(notes)}
    return Answer({"customer": customer.id, **own, **told}, lambda console: console.print(*made))


def _status(customer: Customer, session: str, last: Any) -> dict[str, Any]:
    from agentbudget.cli.data import to_data

    try:
        data = to_data(customer.sessions.get(session))
    except InvalidRequest:  # closed, with nothing of it open: its owner has put it away
        if last is None:
            raise
        data = {**to_data(last), "state": "closed"}
    del data["denials"]  # counted by the owner while it runs; what was written down follows
    return dict(data)


def _leases(customer: Customer, session: str = "") -> list[OpenHold]:
    """The open holds (of a session) that are leases: their steps are decided in the process that holds them."""
    return [one for one in customer.holds(session) if one.holder]


def _leased(leases: list[OpenHold], session: str) -> dict[str, Credits]:
    """Of a session, its children's not counted: what is leased, and of that what holders have that went silent."""
    from agentbudget.amounts import Credits

    own = [one for one in leases if one.session == session]
    silent = [one for one in own if one.suspended_at is not None]
    return {
        name: sum((one.amount for one in some), Credits(0)) for name, some in (("leased", own), ("suspended", silent))
    }


def _counted(lease: OpenHold) -> str:
    return ", ".join(f"{units} {measure}" for measure, units in lease.measures.items())


def _lease_data(lease: OpenHold) -> dict[str, Any]:
    from agentbudget.cli.data import to_data

    names = ("id", "holder", "kind", "name", "amount", "measures", "opened_at", "suspended_at")
    return {name: to_data(getattr(lease, name)) for name in names}
