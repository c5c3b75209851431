"""What came of a run, in one flat row: whole numbers and their plain quotients, the same on every machine."""

from __future__ import annotations

from time import perf_counter_ns, process_time_ns

from msgspec import Struct

from benchmarks.runaway.guard import Books, Policy
from benchmarks.runaway.inline import waiting_on
from benchmarks.runaway.scenario import Params, Scenario
from benchmarks.runaway.world import Event, Task, World


class Row(Struct, frozen=True):
    """Amounts in nanocredits. ``billed``: by the provider; ``booked``: by the policy, ``unknown`` of it for want of the true
    cost; ``held``: still set aside when everything was over. ``overspend``: billed beyond the budget (the wallet, where it is
    less); after a cut, beyond what was spent and under way at that moment.

    ``lag_steps``, ``lag``: useless steps, and what they cost, from the first of them to the first refusal (or to the end);
    ``waste``: what all useless steps cost. ``false_stop``: honest work within the budget, not finished. ``false_denials``:
    useful steps refused though their true cost fitted; ``affordable``: all steps refused so, and ``affordable_credits`` what
    they would have cost."""

    scenario: str
    params: str
    policy: str
    seed: int
    budget: int
    billed: int
    booked: int
    unknown: int
    held: int
    overspend: int
    overspend_percent: float
    steps: int
    refusals: int
    cuts: int
    useful: int
    useful_per_credit: float
    completed: bool
    stopped: bool
    stopped_at_us: int
    lag_steps: int
    lag: int
    waste: int
    false_stop: bool
    false_denials: int
    affordable: int
    affordable_credits: int
    difference: int
    is_booked_right: bool
    virtual_us: int


class Timing(Struct, frozen=True):
    """What took real time, and so differs from run to run: nanoseconds of the median and the slowest decision, and of it
    all; ``cpu_ns`` of the processor, what the run costs when nobody stops it included where that was asked for first."""

    scenario: str
    params: str
    policy: str
    seed: int
    decisions: int
    decision_ns: int
    slowest_ns: int
    run_ns: int
    cpu_ns: int


class Played(Struct, frozen=True):
    row: Row
    timing: Timing
    events: tuple[Event, ...]


def label(params: Params) -> str:
    """Parameters as a text that can stand in a file name."""
    return ",".join(f"{name}={params[name]}" for name in sorted(params))


_costs: dict[tuple[str, int], int] = {}


def true_cost(scenario: Scenario, params: Params, seed: int) -> int:
    """What the run costs when nobody stops it; kept, since it is the same for every policy and budget."""
    from benchmarks.runaway.policies.none import POLICY

    key = f"{scenario.name}/{_chance(params)}", seed
    if key not in _costs:
        _costs[key] = _world(scenario, params, seed, POLICY, 10**18)[0].billed
    return _costs[key]


def budget_of(scenario: Scenario, params: Params, seed: int) -> int:
    if scenario.budget is not None:
        return scenario.budget(params)
    return -(-true_cost(scenario, params, seed) * int(params["times"] * 100) // 100)


def play(scenario: Scenario, params: Params, policy: Policy, seed: int) -> Played:
    """One run."""
    begun_cpu_ns = process_time_ns()
    budget = budget_of(scenario, params, seed)
    begun_ns = perf_counter_ns()
    world, main, books = _world(scenario, params, seed, policy, budget)
    run_ns, cpu_ns = perf_counter_ns() - begun_ns, process_time_ns() - begun_cpu_ns
    name = label(params)
    took = sorted(world.decision_ns) or [0]
    timing = Timing(
        scenario.name, name, policy.name, seed, len(world.decision_ns), took[len(took) // 2], took[-1], run_ns, cpu_ns
    )
    events = world.events
    ran = [event for event in events if event.ran]
    refused = [event for event in events if not event.ran]
    stop = next((place for place, event in enumerate(events) if not event.ran or event.reason == "cut"), len(events))
    lag = [event for event in events[: stop + 1] if event.ran and event.waste]
    over = max(0, world.billed - world.allowed)
    useful = sum(event.done for event in ran)
    affordable = [event for event in refused if event.affordable]
    is_whole = main.answer is True
    row = Row(
        scenario=scenario.name, params=name, policy=policy.name, seed=seed, budget=world.allowed, billed=world.billed,
        booked=books.booked, unknown=books.unknown, held=books.held, overspend=over, overspend_percent=100 * over / world.allowed,
        steps=len(ran), refusals=len(refused), cuts=sum(event.reason == "cut" for event in ran), useful=useful,
        useful_per_credit=useful * 10**9 / world.billed if world.billed else 0.0, completed=is_whole, stopped=stop < len(events),
        stopped_at_us=events[stop].at_us if stop < len(events) else 0, lag_steps=len(lag), lag=sum(event.cost for event in lag),
        waste=sum(event.cost for event in ran if event.waste), false_stop=_is_false_stop(scenario, params, is_whole),
        false_denials=sum(event.useful > 0 for event in affordable), affordable=len(affordable),
        affordable_credits=sum(event.cost for event in affordable), difference=books.booked - world.billed,
        is_booked_right=world.billed <= books.booked <= world.billed + books.unknown, virtual_us=world.now_us - world.start_us,
    )  # fmt: skip
    return Played(row, timing, tuple(events))


def _is_false_stop(scenario: Scenario, params: Params, is_whole: bool) -> bool:
    return scenario.honest and params.get("times", 0) >= 1 and not is_whole


def _world(scenario: Scenario, params: Params, seed: int, policy: Policy, budget: int) -> tuple[World, Task, Books]:
    wallet = scenario.wallet(budget) if scenario.wallet is not None else None
    usual = max(4, min(budget, 10**12) // scenario.usual_step)
    key = f"{scenario.name}/{_chance(params)}/{seed}"
    world = World(policy, key, params, budget, usual, wallet)
    others = [(f"other{n}", budget, scenario.program) for n in range(1, scenario.sessions(params) + 1)]
    with waiting_on(world.clock):
        main, books = world.play(scenario.program, others)
    return world, main, books


def _chance(params: Params) -> str:
    """What the run's chance depends on: not on how much it may spend, so that budgets are compared on the same run."""
    return label({name: value for name, value in params.items() if name not in ("budget", "times")})
