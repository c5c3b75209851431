"""``agentbudget demo``: runaway agents, stopped before they overspend. Sets itself up, uses no network."""

from __future__ import annotations

import importlib.util
import io
import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from agentbudget.cli.answer import answers, console, print_json
from agentbudget.cli.failures import INTEGRITY, MissingExtra
from agentbudget.cli.options import JsonOption
from agentbudget.errors import InvalidRequest

if TYPE_CHECKING:
    from rich.console import Console

    from agentbudget.amounts import Credits
    from agentbudget.cli.demo_run import Facts, Watcher

LATENCY_SECONDS: Final = 0.1
"""What the scripted model takes for a reply when somebody watches: enough to follow, the whole stays far below 10 s."""
BUDGET: Final = "0.05"
"""Of the session, where none is stated."""
RAY_SECONDS: Final = 30
"""How long a cluster named by RAY_ADDRESS may take to answer."""
_WIDTH: Final = 100
"""Columns of the picture: what most terminals have, and what a page can show."""


def add_to(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command("demo")(demo)


@answers
def demo(
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="CREDITS",
            help="Of the session; a credit is a US dollar. Without it 0.05, or with --workers a wallet for some seconds.",
        ),
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Whose price counts; the replies are scripted.")] = "gpt-5-mini",
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="PATH", help="Keep the ledger in this new file, to look at.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", help="N processes (1 to 32) on one wallet, some of them killed."),
    ] = None,
    on_ray: Annotated[
        bool,
        typer.Option("--ray", help="The workers (4 unless stated) are actors on Ray; the ledger's owner is killed."),
    ] = False,
    svg: Annotated[str | None, typer.Option("--svg", metavar="PATH", hidden=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """Watch a LangChain agent fall into a loop and be refused before the step that does not fit.

    Then the same agent without a budget, the wallet, and the ledger verified. With --workers instead: processes of runaway
    agents spend one prepaid wallet, some are killed, and the ledger is proven right. With --ray they are actors on a Ray
    cluster (that of RAY_ADDRESS, else one for as long as this takes), and drain the wallet while the actor that owns it is
    killed. Takes seconds, and no network.
    """
    path = None if keep is None else _new_file(keep)
    _require_price(model)
    if on_ray or workers is not None:
        return _fleet(workers, model, budget, path, keep, on_ray=on_ray, as_json=as_json)
    return _agent(model, _budget(budget or BUDGET), path, keep, svg, as_json=as_json)


def _agent(model: str, stated: Credits, path: Path | None, keep: str | None, svg: str | None, *, as_json: bool) -> None:
    from agentbudget.cli.data import to_data
    from agentbudget.cli.demo_view import Lines, Live, Silent, print_report, save_picture

    if as_json:
        print_json(to_data(_run(path, model, stated, Silent(), latency=0)))
        return
    screen = console() if console().is_terminal else console(width=_WIDTH)
    with screen.status("Loading LangChain"):  # shown on a terminal only
        _agents()
    watcher = Live(screen, model, stated) if screen.is_terminal else Lines(screen, model, stated)
    with watcher:
        facts = _run(path, model, stated, watcher, latency=LATENCY_SECONDS if screen.is_terminal else 0)
    print_report(screen, facts, kept=keep)
    if svg is not None:
        save_picture(facts, Path(svg), width=_WIDTH)


def _fleet(
    stated: int | None,
    model: str,
    budget: str | None,
    path: Path | None,
    keep: str | None,
    *,
    on_ray: bool,
    as_json: bool,
) -> None:
    """Processes instead of one agent. Raises ``typer.Exit`` with the code of integrity failures when the proof fails."""
    from agentbudget.cli import fleet, fleet_ray, fleet_view
    from agentbudget.cli.data import to_data

    workers = fleet_ray.WORKERS if stated is None else stated
    if not 1 <= workers <= fleet.MAX_WORKERS:
        raise InvalidRequest(f"{workers} is no number of workers: give 1 to {fleet.MAX_WORKERS}", "workers")
    wallet = _budget(budget) if budget else fleet.wallet_for(workers, model)
    screen = console() if console().is_terminal else console(width=_WIDTH)
    watcher = fleet_view.SilentFleet()
    if not as_json:
        head = (fleet_view.ray_headline if on_ray else fleet_view.fleet_headline)(workers, wallet)
        is_live = screen.is_terminal
        watcher = fleet_view.FleetLive(screen, head) if is_live else fleet_view.FleetLines(screen, head, wallet)
    run = fleet_ray.run_on_ray if on_ray else fleet.run_fleet
    with _on_ray(screen, as_json=as_json) if on_ray else nullcontext(), watcher:
        facts = run(path, workers, model, wallet, watcher)
    if as_json:
        print_json(to_data(facts))
    else:
        fleet_view.print_fleet_report(screen, facts, kept=keep)
    if not facts.is_sound:
        raise typer.Exit(INTEGRITY)


@contextmanager
def _on_ray(screen: Console, *, as_json: bool) -> Iterator[None]:
    """On a Ray cluster meanwhile. Ray prints on standard output, in the middle of ours, which calls it repeats because an actor
    was killed, and has no option that says no; what fails for good is raised. Raises ``MissingExtra``, and
    ``OwnerUnavailable`` when the cluster cannot be joined."""
    from agentbudget.runtime.on_ray import opening

    if importlib.util.find_spec("ray") is None:
        raise MissingExtra("the demo runs on Ray, which is not installed", "pip install 'agentbudget-runtime[ray]'")
    screen.file = sys.stdout
    with redirect_stdout(io.StringIO()), _hushed(logging.getLogger("ray._private.authentication")):  # that it is on
        with nullcontext() if as_json else screen.status("Starting Ray"):  # shown on a terminal only
            has_joined = opening.join(RAY_SECONDS)
        try:
            yield
        finally:
            if has_joined:
                opening.leave()


@contextmanager
def _hushed(logger: logging.Logger) -> Iterator[None]:
    """Errors only, meanwhile."""
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _run(path: Path | None, model: str, budget: Credits, watcher: Watcher, *, latency: float) -> Facts:
    """Everything that the demonstration does, on a ledger at ``path`` (None: one that is gone afterwards)."""
    from agentbudget.catalog import Catalog
    from agentbudget.cli import demo_run as run
    from agentbudget.runtime.runtime import Runtime

    agents, catalog = _agents(), Catalog.bundled()
    with tempfile.TemporaryDirectory() as folder, agents.without_tracing():
        url = f"sqlite:///{path or Path(folder) / 'demo.db'}"
        with Runtime.open(url, catalog, host="local") as runtime:
            acme = run.prepare(runtime)
            session = run.open_session(acme, budget)
            with session:
                guarded = run.Guarded(acme, session, watcher)
                agent = agents.Agent(model, guarded=True, latency=latency, on_call=lambda _: guarded.look())
                refusal = guarded.run(agent)
                retries = guarded.retry(agent)
                status = session.status()
            unguarded = run.run_unguarded(agents.Agent(model, guarded=False, latency=0), catalog, model, budget)
            return run.Facts(
                customer=acme.id, plan=run.PLAN, session=session.id, model=model, budget=budget, spent=status.spent,
                left=budget - status.spent - status.held, steps=tuple(guarded.rows), refusal=refusal, retries=retries,
                unguarded=unguarded, wallet=acme.wallet.balance(),
                ledger=run.prove(runtime, acme, None if path is None else url),
            )  # fmt: skip


def _agents() -> Any:
    """The module with the agent; raises :class:`MissingExtra` where LangChain is not installed."""
    try:
        from agentbudget.cli import demo_agent
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {
            "langchain",
            "langchain_core",
            "langgraph",
            "agentbudget_langchain",
        }:
            raise
        raise MissingExtra(
            f"the demo drives a LangChain agent, and {error.name} is not installed",
            "pip install 'agentbudget-runtime[demo]' agentbudget-langchain; "
            "in a checkout: pip install -e '.[demo]' -e integrations/langchain",
        ) from None
    return demo_agent


def _require_price(model: str) -> None:
    """A model without a price is refused here, with the catalog line to add, before anything is drawn."""
    from agentbudget.catalog import Catalog, PriceRequest

    Catalog.bundled().quote(PriceRequest(kind="llm", model=model))


def _budget(text: str) -> Credits:
    from agentbudget.amounts import Credits, to_nano

    nano = to_nano(text)
    if not nano:
        raise InvalidRequest("give more than 0 credits, as 0.05", "budget")
    return Credits.of_nano(nano)


def _new_file(keep: str) -> Path:
    path = Path(keep)
    if path.exists():
        raise InvalidRequest(
            f"{keep} exists already, and the demo begins with an empty ledger: name a new file", "keep"
        )
    return path
