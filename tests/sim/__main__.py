"""``python -m tests.sim --seed N``: one run again, with its trace."""

from __future__ import annotations

import argparse
import traceback

from tests.sim.broken import Broken
from tests.sim.owning import CUSTOMER
from tests.sim.world import World


def main() -> int:
    """Play one seed, print what happened and what it came to."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--quiet", action="store_true", help="only what it came to")
    parser.add_argument("--about", default="", help="only lines that contain this")
    options = parser.parse_args()
    world = World(options.seed)
    on = [name for part in (world.faults, world.setting) for name, enabled in vars(part).items() if enabled]
    try:
        world.run()
        came_to = "green"
    except Exception as error:
        came_to = f"RED: {error}" if isinstance(error, Broken) else f"RED: {traceback.format_exc()}"
    if not options.quiet:
        for line in world.work.lines():
            if options.about in line:
                print(line)
    print("on:", ", ".join(on))
    print(", ".join(f"{count} {what}" for what, count in sorted(world.figures.items())))
    entries = world.node.store.entries[CUSTOMER]
    print(f"seed {options.seed}: {came_to}; {len(entries)} entries, the last {entries[-1].hash if entries else 'none'}")
    return came_to != "green"


if __name__ == "__main__":
    raise SystemExit(main())
