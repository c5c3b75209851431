"""``python integrations/opentelemetry/draw.py docs/trace.svg`` runs examples/05_telemetry.py and draws the trace that it gets."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LEFT, RIGHT, ROW, TOP, INDENT = 330, 560, 26, 64, 16
"""Pixels: of the names, of the bars, of a row, above the first, of a level."""
COLOURS = {"agentbudget.session": "#4c6ef5", "agentbudget.step": "#12b886", "agentbudget.owner": "#868e96"}
DENIED, LATE = "#e03131", "#f08c00"
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#212529}.quiet{fill:#868e96;font-size:12px}"
    "@media(prefers-color-scheme:dark){text{fill:#f1f3f5}.quiet{fill:#adb5bd}.back{fill:#1a1b1e}.odd{fill:#25262b}}"
)


def in_order(spans: Sequence[Any], parent: int | None = None, depth: int = 0) -> Iterator[tuple[int, Any]]:
    """Each span with its depth, parents first, in the order in which they began."""
    for span in sorted(spans, key=lambda span: span.start_time):
        if (span.parent.span_id if span.parent else None) == parent:
            yield depth, span
            yield from in_order(spans, span.context.span_id, depth + 1)


def svg(spans: Sequence[Any]) -> str:
    """The trace as a picture."""
    rows = list(in_order(spans))
    begin, end = min(span.start_time for span in spans), max(span.end_time for span in spans)
    width, height = LEFT + RIGHT + 40, TOP + ROW * len(rows) + 16
    drawn = [_row(place, depth, span, begin, end) for place, (depth, span) in enumerate(rows)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>A trace of an agent's session with its budget</title><style>{STYLE}</style>"
        f'<rect class="back" width="{width}" height="{height}" rx="8" fill="#ffffff"/>'
        f'<text x="16" y="28" font-weight="600">One session of an agent, as its spans say it</text>'
        f'<text class="quiet" x="{LEFT}" y="50">0 ms</text>'
        f'<text class="quiet" x="{LEFT + RIGHT}" y="50" text-anchor="end">{(end - begin) / 1e6:.1f} ms</text>'
    )
    return "\n".join([head, *drawn, "</svg>"]) + "\n"


def _row(place: int, depth: int, span: Any, begin: int, end: int) -> str:
    y = TOP + place * ROW
    x = LEFT + RIGHT * (span.start_time - begin) / (end - begin)
    wide = max(3, RIGHT * (span.end_time - span.start_time) / (end - begin))
    words = _words(span)
    is_left = x + wide + 8 * len(words) < LEFT + RIGHT + 24
    anchor = f'x="{x + wide + 6:.1f}"' if is_left else f'x="{x - 6:.1f}" text-anchor="end"'
    if not is_left and x - 8 * len(words) < LEFT:  # neither side has room: on the bar
        anchor = f'x="{x + 6:.1f}" style="fill:#ffffff"'
    shade = (
        ""
        if place % 2
        else f'<rect class="odd" x="8" y="{y}" width="{LEFT + RIGHT + 24}" height="{ROW}" fill="#f8f9fa"/>'
    )
    return (
        f'{shade}<text x="{16 + depth * INDENT}" y="{y + 18}">{escape(_name(span))}</text>'
        f'<rect x="{x:.1f}" y="{y + 6}" width="{wide:.1f}" height="14" rx="3" fill="{_colour(span)}"/>'
        f'<text class="quiet" {anchor} y="{y + 18}">{escape(words)}</text>'
    )


def _name(span: Any) -> str:
    found = span.attributes
    of = (
        found.get("agentbudget.owner.command")
        or found.get("agentbudget.step.model")
        or found.get("agentbudget.step.name")
    )
    return f"{span.name} {of}" if of else span.name


def _words(span: Any) -> str:
    found = span.attributes
    if span.name == "agentbudget.owner":
        return str(found["agentbudget.owner.answer"])
    if (reason := found.get("agentbudget.denial.reason")) is not None:
        (event,) = span.events
        left = event.attributes["agentbudget.constraint.remaining"]
        return f"denied: {reason}, {left:.4g} left, needs {event.attributes['agentbudget.constraint.need']:.4g}"
    linked = ", linked to its step" if span.links else ""
    return f"{found['agentbudget.outcome']} {found['agentbudget.charged']:.4g} credits{linked}"


def _colour(span: Any) -> str:
    if span.attributes.get("agentbudget.outcome") == "denied":
        return DENIED
    return COLOURS.get(span.name, LATE)


if __name__ == "__main__":
    example = runpy.run_path(str(ROOT / "examples" / "05_telemetry.py"))
    example["main"]()  # the first time prices are loaded, which takes longer than everything else
    Path(sys.argv[1]).write_text(svg(example["main"]()), "utf-8")
