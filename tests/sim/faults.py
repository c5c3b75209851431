"""Which faults a seed plays with: a random subset (swarm), so that some runs are calm enough to show what hides behind others."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields


@dataclass
class Faults:
    """What may go wrong in a run. ``delay``: messages take up to seconds; ``ghost``: some arrive after their sender had given
    them up; ``skip``: a holder sends a number that is not due; ``stutter``: the store fails in any call."""

    drop: bool = False
    duplicate: bool = False
    reorder: bool = False
    delay: bool = False
    ghost: bool = False
    skip: bool = False
    cut_off: bool = False
    holders_die: bool = False
    torn: bool = False
    full_spool: bool = False
    suspend: bool = False
    long_dead: bool = False
    owner_dies: bool = False
    commit_lost: bool = False
    commit_unknown: bool = False
    stutter: bool = False
    zombie: bool = False
    impatient: bool = False

    def heal(self) -> None:
        """From now on everything works."""
        for one in fields(self):
            setattr(self, one.name, False)


@dataclass
class Setting:
    """What a run is about, beside its faults."""

    lapse_charges: bool = True
    postpaid: bool = False
    windows: bool = False
    expiry: bool = False
    limits: bool = False
    pauses: bool = False
    plans: bool = False
    moves: bool = False
    children: bool = False
    closing: bool = False
    strict: bool = False
    measures: bool = False
    breaker: bool = False
    scarce: bool = False
    long_steps: bool = False
    overruns: bool = False


def swarm(chance: random.Random) -> tuple[Faults, Setting]:
    """Each on or off by chance; in one run of eight nothing goes wrong."""
    how = chance.random()
    faults = Faults(*(chance.random() < 0.4 and how > 0.125 for _ in fields(Faults)))
    setting = Setting(*(chance.random() < 0.5 for _ in fields(Setting)))
    faults.holders_die = faults.holders_die or faults.long_dead
    setting.overruns = setting.overruns or setting.scarce
    return faults, setting
