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
from benchmarks.runaway.scenario import CREDIT
from benchmarks.runaway.world import Event

COLOURS: Final = {"baseline": "#8a8f98", "agentbudget": "#1f6feb", "peer": "#c2571a"}
MARKS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h", "d")
STEPS_OF: Final = ("none", "step_count", "post_hoc", "agentbudget_leased", "agentbudget_breaker")
HEALTHY: Final = ("healthy_long", "healthy_bursty")
TIMES: Final = (1, 1.25, 1.5, 2, 4)


def draw(rows: Sequence[Row], out: Path) -> list[Path]:
    """Every picture that the rows suffice for."""
    cells = _expressed({key: runs for key, runs in by_cell(rows).items() if _is_default(key)})
    made = [
        _overspend(cells, out / "overspend.png"),
        _frontier(cells, out / "frontier.png"),
        _session(out / "session.png"),
    ]
    survival = [row for row in rows if row.scenario in HEALTHY]
    return [*made, _survival(survival, out / "survival.png")] if survival else made


def _is_default(key: tuple[str, str, str]) -> bool:
    return key[1] == label(SCENARIOS[key[0]].grid[0])


def _expressed(cells: dict[tuple[str, str, str], list[Row]]) -> dict[tuple[str, str, str], list[Row]]:
    """Without the scenarios that one of the policies cannot express: means over different faults are no comparison."""
    by_policy: dict[str, set[str]] = {}
    for scenario, _, policy in cells:
        by_policy.setdefault(policy, set()).add(scenario)
    shared = set.intersection(*by_policy.values())
    return {key: runs for key, runs in cells.items() if key[0] in shared}


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
    axes.set_xlabel(
        "billed beyond the budget: a dot a fault that all of them can express, the bar their mean"
        " (the lab ends a run at 2400 %)"
    )
    axes.grid(axis="x", alpha=0.3)
    return _save(figure, path)


def _mean_over(cells: dict[tuple[str, str, str], list[Row]], policy: str) -> float:
    each = [sum(row.overspend_percent for row in runs) / len(runs) for runs in _faults(cells, policy).values()]
    return sum(each) / len(each)


def _frontier(cells: dict[tuple[str, str, str], list[Row]], path: Path) -> Path:
    """Right is dear, up is useful: the share of the useful work that is done without a policy, over the same faults."""
    figure, axes = plt.subplots(figsize=(9, 5))
    whole = {name: sum(row.useful for row in runs) for name, runs in _faults(cells, "none").items()}
    found: dict[tuple[float, float], list[str]] = {}
    for policy in _policies(cells):
        faults = {name: runs for name, runs in _faults(cells, policy).items() if whole.get(name)}
        if faults:
            each = [100 * sum(row.useful for row in runs) / whole[name] for name, runs in faults.items()]
            place = (round(_mean_over(cells, policy), 1), round(sum(each) / len(each)))
            found.setdefault(place, []).append(policy)
    for (over, share), policies in found.items():
        axes.plot([over], [share], markersize=10, linestyle="", label=_titles(policies), **_style(policies[0]))
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks([0, 1, 10, 100, 1000], ["0", "1 %", "10 %", "100 %", "1000 %"])
    axes.set_xlim(left=-0.1)
    shares = [share for _, share in found]
    axes.set_ylim(min(50, *shares) - 5, max(100, *shares) + 5)
    axes.set_xlabel("mean overspend over the faults that all of them can express")
    summaries = "\n(over 100 %: a stopped agent saves a summary)" if max(shares) > 100 else ""
    axes.set_ylabel(f"useful work, % of what an unstopped agent does{summaries}")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return _save(figure, path)


def _titles(policies: Sequence[str]) -> str:
    """The names of policies that do the same, in one label: a family's name once, two policies a line."""
    families: dict[str, list[str]] = {}
    for policy in policies:
        family, _, rest = POLICIES[policy].title.partition(", ")
        families.setdefault(family, []).append(rest)
    names = [f"{family}, {' + '.join(rests)}" if rests[0] else family for family, rests in families.items()]
    return "\n".join(", ".join(names[at : at + 2]) for at in range(0, len(names), 2))


def _survival(rows: Sequence[Row], path: Path) -> Path:
    """Healthy sessions that are finished, against what they may spend. Policies that finish the same ones are one line."""
    names = [name for name in HEALTHY if any(row.scenario == name for row in rows)]
    figure, panels = plt.subplots(1, len(names), figsize=(6.5 * len(names), 4.5), sharey=True, squeeze=False)
    for axes, name in zip(panels[0], names, strict=True):
        shares = _finished([row for row in rows if row.scenario == name and "estimate=bound" in row.params])
        for number, (line, policies) in enumerate(sorted(shares.items(), key=lambda one: one[0], reverse=True)):
            xs, ys = zip(*line, strict=True)
            axes.plot(xs, ys, label=_titles(policies), linestyle=_DASHES[number % len(_DASHES)], **_style(policies[0]))
        axes.set_title(SCENARIOS[name].title, fontsize=10)
        axes.set_xlabel("budget, in times the session's true cost")
        axes.set_xscale("log")
        axes.set_xticks(TIMES, [f"{times:g}" for times in TIMES])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False, fontsize=9)
    panels[0][0].set_ylabel("sessions finished, %")
    panels[0][0].set_ylim(-3, 105)
    return _save(figure, path)


def _finished(rows: Sequence[Row]) -> dict[tuple[tuple[float, float], ...], list[str]]:
    """Curve of budget and share finished -> the policies that have it."""
    found: dict[str, dict[float, list[bool]]] = {}
    for row in rows:
        times = float(dict(part.split("=") for part in row.params.split(","))["times"])
        found.setdefault(row.policy, {}).setdefault(times, []).append(row.completed)
    curves: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for policy, by_times in found.items():
        curve = tuple((times, 100 * sum(done) / len(done)) for times, done in sorted(by_times.items()))
        curves.setdefault(curve, []).append(policy)
    return curves


def _session(path: Path) -> Path:
    """One run of the tool loop, played again: what has been billed after each step. All policies see the same agent, so there
    is one line, and a mark where each of them ends it."""
    scenario, seed = SCENARIOS["tool_loop"], 1
    figure, axes = plt.subplots(figsize=(9, 4.5))
    budget, right, top = 1.0, 0.1, 0.0
    for policy in STEPS_OF:
        played = play(scenario, scenario.grid[0], POLICIES[policy], seed)
        budget = played.row.budget / CREDIT
        xs, ys = _billed(played.events)
        if policy == "none":
            axes.step(xs, ys, where="post", color=COLOURS["baseline"], alpha=0.6, label="what the agent is billed")
            continue
        right, top = max(right, xs[-1]), max(top, ys[-1])
        words = f"{POLICIES[policy].title}: {100 * ys[-1] / budget:.0f} % of the budget"
        axes.plot(xs[-1:], ys[-1:], markersize=10, linestyle="", label=words, **_style(policy))
    axes.axhline(budget, color="#b3261e", linewidth=1)
    axes.annotate("budget", (1.25 * right, budget), xytext=(-48, 3), textcoords="offset points", color="#b3261e")
    axes.set_ylim(0, 1.25 * top)
    axes.set_xlim(0, 1.25 * right)
    axes.set_xlabel("minutes (virtual)")
    axes.set_ylabel("billed, credits")
    axes.set_title(f"{scenario.title}, seed {seed}: where each policy stops it", fontsize=10)
    axes.legend(loc="upper left", frameon=False)
    axes.grid(alpha=0.3)
    return _save(figure, path)


def _billed(events: Sequence[Event]) -> tuple[list[float], list[float]]:
    """Minutes, and credits billed by then."""
    xs, ys = [0.0], [0.0]
    for end_us, cost in sorted((event.end_us, event.cost) for event in events if event.ran):
        xs.append(end_us / 6e7)
        ys.append(ys[-1] + cost / CREDIT)
    return xs, ys


_DASHES: Final = ("-", "--", "-.", ":")
