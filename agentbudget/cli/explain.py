"""``agentbudget explain``: what a step would be answered, level by level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentbudget.cli.answer import Answer, answers
from agentbudget.cli.failures import DONE, REFUSED
from agentbudget.cli.options import CatalogOption, CustomerArgument, JsonOption, LedgerOption, reader
from agentbudget.errors import InvalidRequest

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from agentbudget.account.decision import Constraint, Decision
    from agentbudget.runtime.customer import Customer

_KINDS = ("llm", "tool", "retrieval", "embedding", "agent")


def add_to(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command("explain")(explain)


@answers
def explain(
    customer: CustomerArgument,
    entities: Annotated[
        list[str] | None, typer.Argument(metavar="ENTITY...", help="Who the step is for, as user:ana agent:scout.")
    ] = None,
    kind: Annotated[str, typer.Option("--kind", help="llm, tool, retrieval, embedding or agent.")] = "llm",
    model: Annotated[str | None, typer.Option("--model", help="Of a model step, as gpt-5-mini.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the tool, retriever or agent.")] = None,
    input_tokens: Annotated[
        int | None, typer.Option("--input-tokens", help="At most; without it the model's context window counts.")
    ] = None,
    max_output_tokens: Annotated[int | None, typer.Option("--max-output-tokens", help="The step's output cap.")] = None,
    amount: Annotated[str | None, typer.Option("--amount", help="Credits, instead of the catalog's price.")] = None,
    feature: Annotated[str | None, typer.Option("--feature", help="What the plan must entitle.")] = None,
    workflow: Annotated[str | None, typer.Option("--workflow", help="For scopes of grants and limits.")] = None,
    session: Annotated[
        str | None, typer.Option("--session", help="Ask as a step of this session, whose entities then count.")
    ] = None,
    ledger: LedgerOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Ask whether a step may run, and show every constraint; the binding one is marked. Nothing is held."""
    if kind not in _KINDS:
        raise InvalidRequest(f"{kind!r} is none of {', '.join(_KINDS)}", "kind")
    what: dict[str, Any] = {
        "model": model, "name": name, "input_tokens": input_tokens, "max_output_tokens": max_output_tokens,
        "amount": amount, "feature": feature,
    }  # fmt: skip
    with reader(ledger, catalog) as runtime:
        one = runtime.customer(customer)
        if session is not None:
            decision = _in_session(one, session, {"kind": kind, **what})
        else:
            decision = one.explain(entities or (), kind=kind, workflow=workflow, **what)  # type: ignore[arg-type]
    return _answer(customer, decision)


def _in_session(customer: Customer, session: str, what: dict[str, Any]) -> Decision:
    """The same judge, asked for a step of an open session: its budget and its entities count."""
    from agentbudget.account.commands import Explain
    from agentbudget.catalog import UnknownPrice
    from agentbudget.runtime.steps import reserving
    from agentbudget.runtime.steps.asking import Ask, Caps, hold_of

    status, ask = customer.sessions.get(session), Ask(**what)
    try:
        priced = reserving.priced(customer.link, ask, Caps(), status.workflow, status.feature)
    except UnknownPrice as error:
        return reserving.unknown_price(error, session)
    answer: Any = customer.link.ask(Explain(hold_of(ask, priced, step="explain", session=session, ttl_us=0)))
    decision: Decision = reserving.with_output(answer, priced)
    return decision


def _answer(customer: str, decision: Decision) -> Answer:
    from agentbudget.cli.data import to_data

    def show(console: Console) -> None:
        for line in lines_of(decision):
            console.print(line, markup=False)
        if decision.constraints:
            console.print(constraints_table(decision))

    data = {"customer": customer, **to_data(decision)}
    return Answer(data, show, DONE if decision.allowed else REFUSED)


def lines_of(decision: Decision) -> list[str]:
    """The verdict, what would fit, and what to do, a line each."""
    from agentbudget.runtime.views import at

    lines = [str(decision) if decision.allowed else str(decision).split("; ")[0]]
    lines.append(f"needs {decision.need} credits")
    if decision.allowed and decision.grants:
        lines.append("would burn " + ", ".join(f"{amount} of {grant}" for grant, amount in decision.grants))
    if not decision.allowed:
        tokens = decision.affordable.max_output_tokens
        fits = f"{decision.affordable.amount} credits" + (f", or {tokens} output tokens of this call" if tokens else "")
        lines.append(f"would fit: {fits}")
        lines += [f"try: {suggestion}" for suggestion in decision.suggestions]
    retry = at(decision.retry_at_us)
    return lines + ([f"again at {retry.isoformat(timespec='seconds')}"] if retry is not None else [])


def constraints_table(decision: Decision, *, with_resets: bool = True) -> RenderableType:
    """Every constraint that was evaluated, in order; the binding one is marked."""
    from agentbudget.cli.tables import table
    from agentbudget.runtime.views import at

    binding = decision.binding
    columns = ["level", "at most", "used", "held", "left", "needs", "verdict"]
    rows: list[list[Any]] = [
        [_name(one), _limit(one), one.used, one.held, one.remaining, one.need, _verdict(one, binding)]
        for one in decision.constraints
    ]
    if with_resets:
        columns.append("resets at")
        rows = [[*row, at(one.resets_at_us)] for row, one in zip(rows, decision.constraints, strict=True)]
    marked = decision.constraints.index(binding) if binding is not None else -1
    return table("", columns, rows, right=("at most", "used", "held", "left", "needs"), marked=marked)


def _name(one: Constraint) -> str:
    said = {"session_budget": "budget", "insufficient_credits": "wallet", "limit": "limit"}.get(one.kind, one.kind)
    return f"{one.entity} {said.replace('_', ' ')}"


def _limit(one: Constraint) -> str:
    if one.limit is None:
        return one.detail
    per = f" per {one.window}" if one.window not in ("", "lifetime") else ""
    unit = f" {one.measure}" if one.measure != "credits" else ""
    return f"{one.limit}{unit}{per}" + (" (soft)" if one.mode == "soft" else "")


def _verdict(one: Constraint, binding: Constraint | None) -> str:
    return "allows" if one.allowed else "REFUSES, binds" if one is binding else "refuses"
