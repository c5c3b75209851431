"""``agentbudget customer``: who pays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from agentbudget.cli.answer import Answer, answers
from agentbudget.cli.options import CatalogOption, CustomerArgument, JsonOption, LedgerOption, reader, writer

if TYPE_CHECKING:
    from agentbudget.account.decision import CustomerView

app = typer.Typer(name="customer", help="Customers: create, show, list, pause, resume.")

EntityOption: TypeAlias = Annotated[
    str | None, typer.Option("--entity", help="Only below this entity, as team:eng; without it the whole customer.")
]


@app.command("create")
@answers
def create(
    customer: CustomerArgument,
    plan: Annotated[str, typer.Option("--plan", help="A plan of the catalog.")] = "local",
    time_zone: Annotated[str, typer.Option("--time-zone", help="Where its windows turn, as Europe/Berlin.")] = "UTC",
    ledger: LedgerOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Create a customer under a plan; the ledger is made if it is not there. Again: the existing one."""
    with writer(ledger, catalog, create=True) as runtime:
        view = runtime.customers.create(customer, plan, time_zone=time_zone).info()
    return _answer(view)


@app.command("show")
@answers
def show(
    customer: CustomerArgument,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Show a customer's plan, time zone and number of entries."""
    with reader(ledger) as runtime:
        return _answer(runtime.customer(customer).info())


@app.command("list")
@answers
def list_(ledger: LedgerOption = None, as_json: JsonOption = False) -> Answer:
    """List every customer of the ledger."""
    from agentbudget.cli.data import to_data
    from agentbudget.cli.tables import count, table

    with reader(ledger) as runtime:
        views = [runtime.customer(one).info() for one in runtime.customers.list()]
    rows = [(view.id, view.plan, view.wallet, view.time_zone, view.paused, view.entries) for view in views]
    columns = ("customer", "plan", "wallet", "time zone", "paused", "entries")
    made = table(count(len(rows), "customer"), columns, rows, right=("entries",))
    return Answer({"customers": to_data(views)}, lambda console: console.print(made))


@app.command("pause")
@answers
def pause(
    customer: CustomerArgument,
    entity: EntityOption = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept in the ledger.")] = "",
    ledger: LedgerOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Refuse every step of a customer, or below one of its entities, until it is resumed, in whatever process they run."""
    with writer(ledger, catalog) as runtime:
        one = runtime.customer(customer)
        one.pause(entity, reason)
        return _answer(one.info())


@app.command("resume")
@answers
def resume(
    customer: CustomerArgument,
    entity: EntityOption = None,
    ledger: LedgerOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """End a pause of a customer, or of one of its entities."""
    with writer(ledger, catalog) as runtime:
        one = runtime.customer(customer)
        one.resume(entity)
        return _answer(one.info())


def _answer(view: CustomerView) -> Answer:
    from agentbudget.cli.data import to_data
    from agentbudget.cli.tables import pairs

    data = to_data(view)
    made = pairs(f"customer {view.id}", [(name.replace("_", " "), value) for name, value in data.items()][1:])
    return Answer(data, lambda console: console.print(made))
