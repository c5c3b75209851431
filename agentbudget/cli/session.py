"""``agentbudget session``: agent runs that are not over."""

from __future__ import annotations

from typing import Annotated

import typer

from agentbudget.cli.answer import Answer, answers
from agentbudget.cli.options import CustomerArgument, JsonOption, LedgerOption, reader

app = typer.Typer(name="session", help="Sessions that are not over: list, show.")


@app.command("list")
@answers
def list_(customer: CustomerArgument, ledger: LedgerOption = None, as_json: JsonOption = False) -> Answer:
    """List the sessions that are open, or that still have open steps."""
    from agentbudget.cli.data import to_data
    from agentbudget.cli.tables import table

    with reader(ledger) as runtime:
        found = runtime.customer(customer).sessions.list()
    rows = [(s.id, s.state, s.budget, s.spent, s.held, s.remaining, s.steps, s.opened_at) for s in found]
    columns = ("session", "state", "budget", "spent", "held", "remaining", "steps", "opened at")
    made = table(f"sessions of {customer}, credits", columns, rows, right=columns[2:7])
    data = [{name: value for name, value in to_data(one).items() if name != "denials"} for one in found]
    return Answer({"customer": customer, "sessions": data}, lambda console: console.print(made))


@app.command("show")
@answers
def show(
    customer: CustomerArgument,
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")],
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Show one session: its budget, what it has spent, holds and has left, and its newest refusals."""
    from agentbudget.cli.data import to_data
    from agentbudget.cli.tables import pairs, table
    from agentbudget.runtime.views import at

    with reader(ledger) as runtime:
        one = runtime.customer(customer)
        data = to_data(one.sessions.get(session))
        notes = [note for note in one.denials() if note.session == session]
    del data["denials"]  # counted by the owner while it runs; what was written down follows
    made = [pairs(f"session {session}", [(name.replace("_", " "), value) for name, value in data.items()][1:])]
    if notes:
        rows = [(at(note.time_us), note.reason, note.entity, note.kind, note.name, note.count) for note in notes]
        columns = ("at", "reason", "entity", "kind", "model or tool", "times")
        made.append(table("refusals, newest first", columns, rows, right=("times",)))
    return Answer({"customer": customer, **data, "refusals": to_data(notes)}, lambda console: console.print(*made))
