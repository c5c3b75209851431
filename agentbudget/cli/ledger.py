"""``agentbudget ledger``: prove it, copy it, move it, and check it against the account."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from agentbudget.cli.answer import Answer, answers
from agentbudget.cli.failures import DONE, INTEGRITY, UNAVAILABLE
from agentbudget.cli.options import CatalogOption, JsonOption, LedgerOption, archive, ledger_url, writer
from agentbudget.errors import InvalidRequest

if TYPE_CHECKING:
    from agentbudget.ledger.chain import Anchor

app = typer.Typer(name="ledger", help="The ledger: verify, reconcile, recover, export, import, migrate, move.")


@app.command("verify")
@answers
def verify(
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="PATH", help="An export kept elsewhere: shows a tail removed since."),
    ] = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Walk every customer's chain; the first entry that was edited, dropped, swapped or inserted is named."""
    from agentbudget.cli.data import to_data
    from agentbudget.cli.tables import count, table
    from agentbudget.ledger.chain import verify_ledger

    anchors = _anchors(against) if against is not None else None
    with archive(ledger) as opened:
        report = verify_ledger(opened, anchors)
    rows = [
        (one.customer, one.entries, one.head[:16], "ok" if one.fault is None else _said(one.fault))
        for one in report.reports
    ]
    verdict = "verified" if report.ok else f"DAMAGED: {len(report.faults)} of {count(len(rows), 'customer')}"
    title = f"{verdict}; {count(report.entries, 'entry')}"
    made = table(title, ("customer", "entries", "head", "chain"), rows, right=("entries",))
    data = {"ok": report.ok, "entries": report.entries, "customers": to_data(report.reports)}
    return Answer(data, lambda console: console.print(made), DONE if report.ok else INTEGRITY)


@app.command("reconcile")
@answers
def reconcile(ledger: LedgerOption = None, as_json: JsonOption = False) -> Answer:
    """Compare the account's balances with the sums of the entries. Ask while nothing is written."""
    from agentbudget.amounts import format_nano
    from agentbudget.cli.tables import count, table
    from agentbudget.runtime.auditing import reconcile_ledger

    with archive(ledger) as opened:
        customers = sum(1 for _ in opened.customers())
        differences = reconcile_ledger(opened)
    found = [
        {"customer": one.customer, "what": one.what, "grant": one.grant, "account": one.account,
         "ledger": format_nano(one.ledger), "found": format_nano(one.found)}
        for one in differences
    ]  # fmt: skip
    title = f"{count(len(found), 'difference')} in {count(customers, 'customer')}"
    columns = ("customer", "what", "grant", "account", "ledger", "found")
    made = table(title, columns, [tuple(one.values()) for one in found], right=("ledger", "found"))
    data = {"ok": not found, "customers": customers, "differences": found}
    return Answer(data, lambda console: console.print(made if found else title), INTEGRITY if found else DONE)


@app.command("recover")
@answers
def recover(
    orderly_shutdown: Annotated[
        bool,
        typer.Option(
            "--orderly-shutdown",
            help="The machine was shut down in order before its last start: older files are whole.",
        ),
    ] = False,
    ledger: LedgerOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Book what killed processes of this machine had not reported, also what was set aside before. It happens by itself; this
    says what is left, and why."""
    from agentbudget.cli.data import to_data
    from agentbudget.cli.tables import pairs

    with writer(ledger, catalog) as runtime:
        done = runtime.ledger.recover(orderly_shutdown=orderly_shutdown)
    left = [*(f"{name}: {why}" for name, why in zip(done.waiting, done.why_waiting, strict=True)), *done.words]
    counts = ("spools", "leases", "reported", "unknown", "corrected")
    shown = [(name, getattr(done, name)) for name in counts] + [("waiting", done.waiting), ("set aside", done.damaged)]
    made = pairs("spools of dead processes", [*shown, *(("why", why) for why in left)])
    code = INTEGRITY if done.damaged else UNAVAILABLE if done.waiting else DONE
    data = {"ok": code == DONE, **{name: to_data(value) for name, value in to_data(done).items()}}
    return Answer(data, lambda console: console.print(made), code)


@app.command("export")
@answers
def export(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A new file; - is standard output.")] = "-",
    customer: Annotated[list[str] | None, typer.Option("--customer", help="Only this one; may be repeated.")] = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> Answer | None:
    """Write every entry as JSON Lines that keep the chain. The last line has each customer's head: keep it elsewhere."""
    from agentbudget.cli.tables import count
    from agentbudget.ledger.transfer import export_lines

    last = b""
    with archive(ledger) as opened, _new_file(path) as file:
        for last in export_lines(opened, customer or None):
            file.write(last)
    if path == "-":
        return None
    trailer: dict[str, Any] = msgspec.json.decode(last)
    said = f"{count(trailer['entries'], 'entry')} of {count(len(trailer['heads']), 'customer')} written to {path}"
    return Answer({"path": path, **_heads(trailer)}, lambda console: console.print(said, markup=False))


@app.command("import")
@answers
def import_(
    path: Annotated[str, typer.Argument(metavar="PATH", help="An export; - is standard input.")],
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Import an export. Nothing is written before all of it is proven; what is there already is skipped."""
    from agentbudget.cli.tables import count
    from agentbudget.ledger.store import open_journal
    from agentbudget.ledger.transfer import import_lines

    with _opened(path) as lines:
        journal = open_journal(ledger_url(ledger))
        try:
            journal.claim(f"agentbudget ledger import, process {os.getpid()}")
            report = import_lines(lines, journal)
        finally:
            journal.close()
    said = f"{count(report.imported, 'entry')} imported, {report.skipped} here already"
    heads = {name: {"seq": anchor.seq, "hash": anchor.hash} for name, anchor in report.heads.items()}
    data = {"imported": report.imported, "skipped": report.skipped, "heads": heads}
    return Answer(data, lambda console: console.print(said, markup=False))


@app.command("migrate")
@answers
def migrate(ledger: LedgerOption = None, as_json: JsonOption = False) -> Answer:
    """Make the ledger, or bring it to the schema of this version, as a user who may; opening it for writing does the same."""
    from agentbudget.ledger.store import migrate as migrate_ledger

    before, now = migrate_ledger(ledger_url(ledger))
    said = f"schema {now}, as before" if before == now else f"schema {now} (before: {before or 'none'})"
    return Answer({"before": before, "now": now}, lambda console: console.print(said, markup=False))


@app.command("move")
@answers
def move(
    to: Annotated[str, typer.Argument(metavar="TO", help="Where to, as postgresql+psycopg://user@host/database.")],
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Copy a ledger into another database, with the same records and hashes, and verify the copy. Nobody may have it open
    for writing. The old one stays as it is: keep it as a backup, and point AGENTBUDGET_LEDGER at the new one."""
    from agentbudget.cli.tables import count
    from agentbudget.ledger.store import open_journal
    from agentbudget.ledger.transfer import move_entries

    _finish_reports(ledger)
    with closing(open_journal(ledger_url(ledger))) as source, closing(open_journal(ledger_url(to))) as target:
        for journal in (source, target):
            journal.claim(f"agentbudget ledger move, process {os.getpid()}")
        report = move_entries(source, target)
    said = (
        f"{count(report.imported, 'entry')} moved and verified, {report.skipped} there already; use the new ledger now"
    )
    heads = {name: {"seq": anchor.seq, "hash": anchor.hash} for name, anchor in report.heads.items()}
    data = {"imported": report.imported, "skipped": report.skipped, "heads": heads}
    return Answer(data, lambda console: console.print(said, markup=False))


def _finish_reports(ledger: str | None) -> None:
    """Book what dead processes left in their spools: these stand beside the old ledger, and belong into what is moved."""
    with writer(ledger) as runtime:
        done = runtime.ledger.recover()
    left = [*done.waiting, *done.damaged]
    if left:
        what = f"killed processes left {', '.join(left)}, which cannot be booked whole"
        raise InvalidRequest(f"{what}: see `agentbudget ledger recover`, and move these files away to go on", "ledger")


def _said(fault: Any) -> str:
    return f"entry {fault.seq} {fault.how}: {fault.what}"


def _heads(trailer: dict[str, Any]) -> dict[str, Any]:
    heads = {name: {"seq": seq, "hash": hash} for name, (seq, hash) in trailer["heads"].items()}
    return {"entries": trailer["entries"], "heads": heads}


def _anchors(path: str) -> dict[str, Anchor]:
    """The heads in the last line of an export."""
    from agentbudget.ledger.transfer import Trailer

    with _opened(path) as lines:
        last = deque(lines, maxlen=1)
    try:
        return msgspec.json.decode(last.pop() if last else b"", type=Trailer).heads
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidRequest(f"{path} does not end as an export does: give a whole one", "against") from None


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}", "path") from None


@contextmanager
def _new_file(path: str) -> Iterator[IO[bytes]]:
    """A file that appears under its name when it is whole; an existing one is never overwritten."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = Path(f"{path}.part")
    if Path(path).exists():
        raise InvalidRequest(f"{path} exists already: name a new file", "path")
    try:
        with part.open("wb") as file:
            yield file
        part.rename(path)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written ({error.strerror})", "path") from None
    finally:
        part.unlink(missing_ok=True)
