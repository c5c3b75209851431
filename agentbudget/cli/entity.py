"""``agentbudget entity``: the customer's tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from agentbudget.cli.answer import Answer, answers
from agentbudget.cli.options import (
    CatalogOption,
    CustomerArgument,
    EntityArgument,
    JsonOption,
    LedgerOption,
    reader,
    writer,
)

if TYPE_CHECKING:
    from rich.tree import Tree

    from agentbudget.account.decision import EntityView

app = typer.Typer(name="entity", help="A customer's departments, teams, users and agents: put, list.")


@app.command("put")
@answers
def put(
    customer: CustomerArgument,
    entity: EntityArgument,
    parent: Annotated[str | None, typer.Option("--parent", help="Below which entity; without it the customer.")] = None,
    ledger: LedgerOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Create an entity below its parent, or move it there."""
    with writer(ledger, catalog) as runtime:
        entities = runtime.customer(customer).entities
        entities.put(entity, parent)
        return _answer(customer, entities.list())


@app.command("list")
@answers
def list_(customer: CustomerArgument, ledger: LedgerOption = None, as_json: JsonOption = False) -> Answer:
    """Show the tree."""
    with reader(ledger) as runtime:
        return _answer(customer, runtime.customer(customer).entities.list())


def _answer(customer: str, views: Sequence[EntityView]) -> Answer:
    from agentbudget.cli.data import to_data

    made = _tree(customer, views)
    return Answer({"customer": customer, "entities": to_data(views)}, lambda console: console.print(made))


def _tree(customer: str, views: Sequence[EntityView]) -> Tree:
    from rich.markup import escape
    from rich.tree import Tree

    from agentbudget.account.commands import ROOT

    root = Tree(f"[bold]{escape(customer)}[/] [dim](entity {ROOT})[/]")
    nodes = {ROOT: root}
    waiting = [view for view in views if view.id != ROOT]
    while waiting:  # parents first, whatever order they come in
        rest = []
        for view in waiting:
            branch = nodes.get(view.parent or ROOT)
            if branch is None:
                rest.append(view)
            else:
                nodes[view.id] = branch.add(escape(view.id) + (" [red]paused[/]" if view.paused else ""))
        if len(rest) == len(waiting):
            break
        waiting = rest
    return root
