"""Four pictures of a results folder. Needs matplotlib (the extra ``bench``); nothing else of the lab does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.runaway.catalogue import POLICIES, SCENARIOS
from benchmarks.runaway.measures import Row, label, play
from benchmarks.runaway.results import by_cell

COLOURS: Final = {"baseline": "#8a8f98", "agentbudget": "#1f6feb", "peer": "#c2571a"}
MARKS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h", "d")
TOP: Final = 5
"""Budgets that the picture of one session is high."""
STEPS_OF: Final = ("none", "step_count", "post_hoc", "agentbudget_leased", "agentbudget_breaker")


def draw(rows: Sequence[Row], out: Path) -> list[Path]:
    """Every picture that the rows suffice for."""
    cells = {key: runs for key, runs in by_cell(rows).items() if _is_default(key)}
    made = [
        _overspend(cells, out / "overspend.png"),
        _frontier(cells, out / "frontier.png"),
        _session(out / "session.png"),
    ]
    survival = [row for row in rows if row.scenario == "healthy_long" and "estimate=bound" in row.params]
    return [*made, _survival(survival, out / "survival.png")] if survival else made


def _is_default(key: tuple[str, str, str]) -> bool:
    return key[1] == label(SCENARIOS[key[0]].grid[0])


def _style(policy: str) -> dict[str, Any]:
    return {"color": COLOURS[POLICIES[policy].family], "marker": MARKS[list(POLICIES).index(policy) % len(MARKS)]}


def _faults(cells: dict[tuple[str, str, str], list[Row]], policy: str) -> dict[str, list[Row]]:
    """Scenario -> runs, of those in which something goes wrong."""
    return {key[0]: runs for key, runs in cells.items() if key[2] == policy and not SCENARIOS[key[0]].honest}


def _policies(cells: dict[tuple[str, str, str], list[Row]]) -> list[str]:
    return [policy for policy in POLICIES if any(key[2] == policy for key in cells)]


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=130, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return path


def _overspend(cells: dict[tuple[str, str, str], list[Row]], path: Path) -> Path:
    """A dot a scenario, the mean of its runs; a bar at the mean of the dots."""
    policies = sorted(_policies(cells), key=lambda name: (_mean_over(cells, name), name))
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(policies) + 1.4))
    for place, policy in enumerate(policies):
        dots = [sum(row.overspend_percent for row in runs) / len(runs) for runs in _faults(cells, policy).values()]
        colour = COLOURS[POLICIES[policy].family]
        axes.plot(dots, [place] * len(dots), "o", color=colour, alpha=0.5, markersize=6)
        axes.plot([sum(dots) / len(dots)], [place], "|", color="black", markersize=18, markeredgewidth=2)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(left=-0.1)
    axes.set_xticks([0, 1, 10, 100, 1000], ["0", "1 %", "10 %", "100 %", "1000 %"])
    axes.set_yticks(range(len(policies)), [POLICIES[policy].title for policy in policies])
    axes.set_xlabel("billed beyond the budget: a dot a scenario, the bar their mean (the lab ends a run at 2400 %)")
    axes.grid(axis="x", alpha=0.3)
    return _save(figure, path)


def _mean_over(cells: dict[tuple[str, str, str], list[Row]], policy: str) -> float:
    each = [sum(row.overspend_percent for row in runs) / len(runs) for runs in _faults(cells, policy).values()]
    return sum(each) / len(each)


def _frontier(cells: dict[tuple[str, str, str], list[Row]], path: Path) -> Path:
    """Right is dear, up is useful: the share of the useful work that is done without a policy, over all faults."""
    figure, axes = plt.subplots(figsize=(8, 5))
    whole = {name: sum(row.useful for row in runs) for name, runs in _faults(cells, "none").items()}
    for policy in _policies(cells):
        faults = {name: runs for name, runs in _faults(cells, policy).items() if whole.get(name)}
        if not faults:
            continue
        share = sum(100 * sum(row.useful for row in runs) / whole[name] for name, runs in faults.items()) / len(faults)
        axes.plot(
            [_mean_over(cells, policy)],
            [share],
            markersize=10,
            linestyle="",
            label=POLICIES[policy].title,
            **_style(policy),
        )
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks([0, 1, 10, 100, 1000], ["0", "1 %", "10 %", "100 %", "1000 %"])
    axes.set_xlim(left=-0.1)
    axes.set_ylim(0, 105)
    axes.set_xlabel("mean overspend over all faults")
    axes.set_ylabel("useful work done, % of what an unstopped agent does")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return _save(figure, path)


def _survival(rows: Sequence[Row], path: Path) -> Path:
    """Healthy sessions that are finished, against what they may spend."""
    figure, axes = plt.subplots(figsize=(8, 4.5))
    found: dict[str, dict[float, list[bool]]] = {}
    for row in rows:
        times = float(dict(part.split("=") for part in row.params.split(","))["times"])
        found.setdefault(row.policy, {}).setdefault(times, []).append(row.completed)
    for policy, by_times in found.items():
        ordered = sorted(by_times)
        shares = [100 * sum(by_times[times]) / len(by_times[times]) for times in ordered]
        axes.plot(ordered, shares, label=POLICIES[policy].title, alpha=0.8, **_style(policy))
    axes.set_xlabel("budget, in times the session's true cost")
    axes.set_ylabel("healthy long sessions finished, %")
    axes.set_xticks([1, 1.25, 1.5, 2, 4], ["1", "1.25", "1.5", "2", "4"])
    axes.set_ylim(-3, 105)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return _save(figure, path)


def _session(path: Path) -> Path:
    """One run of the tool loop, played again: what has been billed after each step."""
    scenario, seed = SCENARIOS["tool_loop"], 1
    figure, axes = plt.subplots(figsize=(8, 4.5))
    budget, right = 1.0, 0.1
    for policy in STEPS_OF:
        played = play(scenario, scenario.grid[0], POLICIES[policy], seed)
        budget = played.row.budget / 1e9
        ends = sorted((event.end_us, event.cost) for event in played.events if event.ran)
        total, xs, ys = 0, [0.0], [0.0]
        for end_us, cost in ends:
            total += cost
            xs.append(end_us / 6e7)
            ys.append(total / 1e9)
        right = max(right, next((x for x, y in zip(xs, ys, strict=True) if y > TOP * budget), 0.0))
        colour = COLOURS[POLICIES[policy].family]
        axes.step(xs, ys, where="post", label=POLICIES[policy].title, color=colour, linestyle=_LINES[policy])
        axes.plot(xs[-1:], ys[-1:], "x" if policy != "none" else "", color=colour)
    axes.axhline(budget, color="#b3261e", linewidth=1)
    axes.annotate("budget", (0, budget), xytext=(2, 3), textcoords="offset points", color="#b3261e")
    axes.set_ylim(0, TOP * budget)
    axes.set_xlim(0, right)
    axes.set_xlabel("minutes (virtual)")
    axes.set_ylabel("billed, credits")
    axes.set_title(f"{scenario.title}, seed {seed}; a cross where the agent was stopped", fontsize=10)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))
    return _save(figure, path)


_LINES: Final = {
    "none": ":", "step_count": "--", "post_hoc": "-.", "agentbudget_leased": "-", "agentbudget_breaker": "--",
}  # fmt: skip
