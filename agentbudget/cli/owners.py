"""``agentbudget owners``: the Ray actors that own a ledger's customers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentbudget.cli.answer import Answer, answers
from agentbudget.cli.options import JsonOption, LedgerOption, ledger_url

if TYPE_CHECKING:
    from agentbudget.runtime.on_ray.owners import Owners

app = typer.Typer(
    name="owners", help="Owners on Ray: status, move, drain. The cluster is the one that RAY_ADDRESS names."
)

OwnerOption = Annotated[str, typer.Option("--to", metavar="OWNER", help="The owner that takes them, as owner-1.")]


@app.command("status")
@answers
def status(ledger: LedgerOption = None, as_json: JsonOption = False) -> Answer:
    """Show the owners of a ledger: where each runs, how many of the 64 shards it has, and how many processes it serves."""
    return _answer(_owners(ledger))


@app.command("move")
@answers
def move(
    to: OwnerOption,
    shard: Annotated[
        list[int] | None, typer.Option("--shard", metavar="N", help="A shard, 0 to 63; may be repeated.")
    ] = None,
    customer: Annotated[
        list[str] | None,
        typer.Option("--customer", metavar="CUSTOMER", help="The shard that this customer is in; may be repeated."),
    ] = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Move shards to another owner, while they are in use; it is started where it is not there. Sessions go on: what is asked in
    between is answered by one of the two."""
    from agentbudget.errors import InvalidRequest
    from agentbudget.ledger.shards import shard_of

    shards = {*(shard or ()), *(shard_of(one) for one in customer or ())}
    if not shards:
        raise InvalidRequest("name what to move: --shard 7, or --customer acme", "shard")
    owners = _owners(ledger)
    owners.move(shards, to)
    return _answer(owners)


@app.command("drain")
@answers
def drain(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="As owner-1.")],
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Give an owner's shards to the others and end it, before its node goes. The only owner gives the ledger up, and starts again
    when a process of the cluster asks for it."""
    owners = _owners(ledger)
    owners.drain(owner)
    return _answer(owners)


def _owners(ledger: str | None) -> Owners:
    from agentbudget.runtime.on_ray.owners import Owners
    from agentbudget.runtime.settings import settings_from

    return Owners.of(settings_from(ledger=ledger_url(ledger)))


def _answer(owners: Owners) -> Answer:
    from agentbudget.cli.tables import table

    found = owners.status()
    data: list[dict[str, Any]] = [
        {
            "name": one["name"], "process": one["owner"], "shards": one["shards"], "processes": one["processes"],
            "commands": one["served"], "busy": one["busy"],
        }
        for one in found
    ]  # fmt: skip
    columns = ("owner", "shards", "processes served", "commands", "busy", "where")
    rows = [(d["name"], d["shards"], d["processes"], d["commands"], d["busy"], d["process"]) for d in data]
    made = table("owners", columns, rows, right=columns[1:4])
    return Answer({"owners": data}, lambda console: console.print(made))
