"""``agentbudget limit``: what an entity may spend in a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from agentbudget.cli.answer import Answer, answers
from agentbudget.cli.options import (
    CatalogOption,
    CustomerArgument,
    EntitiesOption,
    EntityArgument,
    FeaturesOption,
    JsonOption,
    KindsOption,
    LedgerOption,
    ModelsOption,
    ToolsOption,
    WorkflowsOption,
    reader,
    scope_of,
    writer,
)
from agentbudget.errors import InvalidRequest

if TYPE_CHECKING:
    from agentbudget.runtime.customer import Customer

app = typer.Typer(name="limit", help="Limits of departments, teams, users and agents: set, list, remove.")

WindowOption: TypeAlias = Annotated[
    str, typer.Option("--window", help="hour, day, week, month, quarter, year or lifetime.")
]
MeasureOption: TypeAlias = Annotated[
    str, typer.Option("--measure", help="credits, tokens, steps, tool_calls, seconds, or a metered feature.")
]


@app.command("set")
@answers
def set_(
    customer: CustomerArgument,
    entity: EntityArgument,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Credits, or whole units of the measure.")],
    window: WindowOption = "lifetime",
    measure: MeasureOption = "credits",
    mode: Annotated[str, typer.Option("--mode", help="hard refuses; soft only tells.")] = "hard",
    kinds: KindsOption = None,
    models: ModelsOption = None,
    tools: ToolsOption = None,
    features: FeaturesOption = None,
    workflows: WorkflowsOption = None,
    entities: EntitiesOption = None,
    ledger: LedgerOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Set a limit; it replaces the one of the same entity, measure, window and scope, and goes on counting."""
    units = amount if measure == "credits" else _whole(amount, measure)
    scope = scope_of(kinds, models, tools, features, workflows, entities)
    with writer(ledger, catalog) as runtime:
        one = runtime.customer(customer)
        one.limits.set(entity, units, window=window, measure=measure, mode=mode, scope=scope)  # type: ignore[arg-type]
        return _answer(one, entity)


@app.command("remove")
@answers
def remove(
    customer: CustomerArgument,
    entity: EntityArgument,
    window: WindowOption = "lifetime",
    measure: MeasureOption = "credits",
    kinds: KindsOption = None,
    models: ModelsOption = None,
    tools: ToolsOption = None,
    features: FeaturesOption = None,
    workflows: WorkflowsOption = None,
    entities: EntitiesOption = None,
    ledger: LedgerOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Take a limit away. It goes on counting, so setting it again does not start from nothing."""
    scope = scope_of(kinds, models, tools, features, workflows, entities)
    with writer(ledger, catalog) as runtime:
        one = runtime.customer(customer)
        one.limits.remove(entity, window=window, measure=measure, scope=scope)  # type: ignore[arg-type]
        return _answer(one, entity)


@app.command("list")
@answers
def list_(
    customer: CustomerArgument,
    entity: Annotated[str | None, typer.Option("--entity", help="Only those at this entity.")] = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Show limits with what is used and held in the current window, the plan's included."""
    with reader(ledger) as runtime:
        return _answer(runtime.customer(customer), entity)


def _whole(text: str, measure: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidRequest(f"{text!r} is no number of {measure}: give a whole number from 0", "amount") from None


def _answer(customer: Customer, entity: str | None) -> Answer:
    from agentbudget.cli.data import to_data
    from agentbudget.cli.tables import amount, table

    limits = customer.limits.list(entity)
    rows = [
        (one.entity, amount(one.limit, one.measure), one.window, one.mode, one.origin, one.used, one.held, one.scope,
         one.resets_at)
        for one in limits
    ]  # fmt: skip
    columns = ("entity", "at most", "per", "mode", "set by", "used", "held", "for", "resets at")
    made = table(f"limits of {customer.id}", columns, rows, right=("at most", "used", "held"))
    return Answer({"customer": customer.id, "limits": to_data(limits)}, lambda console: console.print(made))
