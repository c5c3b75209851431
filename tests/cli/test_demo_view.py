"""The live table of the demonstration: it never grows beyond the screen while it lives, and is whole at the end."""

from __future__ import annotations

import io

from rich.console import Console

from agentbudget import Credits
from agentbudget.cli.demo_run import Row
from agentbudget.cli.demo_view import Live

HEIGHT = 20
UP = "\x1b[1A"
"""One line up: what a terminal is sent for each line that is drawn over."""


def live(steps: int) -> str:
    """What a terminal of 20 lines is sent for so many steps."""
    sent = io.StringIO()
    screen = Console(file=sent, force_terminal=True, width=100, height=HEIGHT, highlight=False)
    table = Live(screen, "gpt-5-mini", Credits("0.05"))
    with table:
        for number in range(1, steps + 1):
            row = Row(number, "llm", "gpt-5-mini", Credits("0.002"))
            table.started(row)
            table.finished(Row(number, "llm", "gpt-5-mini", Credits("0.002"), Credits("0.001"), Credits("0.04")))
            table._live.refresh()
    return sent.getvalue()


def test_all_steps_are_there_at_the_end() -> None:
    last = live(60).rpartition(UP)[2]
    assert [line.split()[0] for line in last.splitlines() if "gpt-5-mini  " in line] == [str(n) for n in range(1, 61)]


def test_what_is_drawn_over_is_never_taller_than_the_screen() -> None:
    frames = live(60).split("A LangChain agent")
    assert max(frame.count(UP) for frame in frames) < HEIGHT


def test_a_running_step_shows_what_it_holds() -> None:
    sent = io.StringIO()
    table = Live(Console(file=sent, force_terminal=True, width=100, height=HEIGHT), "gpt-5-mini", Credits("0.05"))
    with table:
        table.started(Row(1, "llm", "gpt-5-mini", Credits("0.002")))
    assert "0.002000" in sent.getvalue()
    assert "..." in sent.getvalue()
