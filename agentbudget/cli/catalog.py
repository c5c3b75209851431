"""``agentbudget catalog``: what steps cost, and what plans promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentbudget.cli.answer import Answer, answers, print_json
from agentbudget.cli.options import CatalogOption, JsonOption

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agentbudget.catalog import Catalog
    from agentbudget.catalog.terms import LimitTerms, PlanTerms

app = typer.Typer(name="catalog", help="The catalog of plans, features and prices: check, show, schema.")


@app.command("check")
@answers
def check(
    path: Annotated[
        str | None, typer.Argument(metavar="PATH", help="The file; without it --catalog, else the bundled one.")
    ] = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Judge a catalog: every fault at once, with its line and key path."""
    found = _load(path or catalog)
    said = f"{found.source}: no faults; version {found.version}, {len(found.plan_ids)} plans"
    data = {"source": found.source, "version": found.version, "plans": list(found.plan_ids), "faults": []}
    return Answer(data, lambda console: console.print(said, markup=False))


@app.command("show")
@answers
def show(catalog: CatalogOption = None, as_json: JsonOption = False) -> Answer:
    """Show the plans with their grants and limits, and the features."""
    from agentbudget.cli.data import to_data

    found = _load(catalog)
    data = {
        "source": found.source,
        "version": found.version,
        "currency": found.currency,
        "plans": [_plan(found.terms(plan)) for plan in found.plan_ids],
        "features": [to_data(feature) for feature in found.features.values()],
    }
    tables = (_plans(found), _limits(found), _features(found))
    return Answer(data, lambda console: console.print(*tables))


@app.command("schema")
@answers
def schema(as_json: JsonOption = False) -> None:
    """Print the JSON schema of the format, for editors."""
    from agentbudget.catalog import catalog_schema

    print_json(catalog_schema())


def _load(path: str | None) -> Catalog:
    from agentbudget.catalog import Catalog

    return Catalog.load(path) if path else Catalog.bundled()


def _plan(terms: PlanTerms) -> dict[str, Any]:
    """A plan as data. Terms keep nanocredits; every output states decimal credits."""
    from agentbudget.cli.data import to_data

    rules = to_data(terms.breaker)
    return {
        **to_data(terms),
        "credit_line": _credits(terms.credit_line),
        "grants": [
            {**to_data(one), "amount": _credits(one.amount), "rollover": _credits(one.rollover)} for one in terms.grants
        ],
        "limits": [_limit(one) for one in terms.limits],
        "entity_types": [
            {**to_data(one), "limits": [_limit(limit) for limit in one.limits]} for one in terms.entity_types
        ],
        "breaker": {**rules, **{name: _credits(rules[name]) for name in ("max_rate", "max_step_cost")}},
    }


def _limit(terms: LimitTerms) -> dict[str, Any]:
    from agentbudget.cli.data import to_data

    amount = _credits(terms.amount) if terms.measure == "credits" else terms.amount
    return {**to_data(terms), "amount": amount}


def _credits(nano: int | None) -> str | None:
    from agentbudget.amounts import format_nano

    return None if nano is None else format_nano(nano)


def _plans(catalog: Catalog) -> RenderableType:
    from agentbudget.amounts import format_nano
    from agentbudget.cli.tables import table

    rows = []
    for plan in catalog.plan_ids:
        terms = catalog.terms(plan)
        grants = [f"{format_nano(one.amount)}{f' per {one.every}' if one.every else ''}" for one in terms.grants]
        features = "all" if terms.features is None else [one.feature for one in terms.features]
        rows.append((plan, terms.wallet, grants, features, terms.models or "all"))
    title = f"{catalog.source}, version {catalog.version}, credits in {catalog.currency}"
    return table(title, ("plan", "wallet", "grants", "features", "models"), rows)


def _limits(catalog: Catalog) -> RenderableType:
    from agentbudget.account.decision import describe
    from agentbudget.cli.tables import table

    rows = [
        (plan, one.entity, describe(one.measure, one.amount), one.window, one.mode)
        for plan in catalog.plan_ids
        for one in catalog.terms(plan).limits
    ]
    return table("limits", ("plan", "entity", "at most", "per", "mode"), rows, right=("at most",))


def _features(catalog: Catalog) -> RenderableType:
    from agentbudget.cli.tables import table

    rows = [(one.id, one.type, one.description) for one in catalog.features.values()]
    return table("features", ("feature", "type", "description"), rows)
