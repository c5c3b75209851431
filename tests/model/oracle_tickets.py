"""Shortage: what lacks only amounts that leases hold is not refused yet; who asked first is served first (DESIGN.md §4)."""

from __future__ import annotations

from dataclasses import dataclass

from tests.model.oracle_facts import PATIENCE_US, Recalled, Refused, Ticket
from tests.model.oracle_levels import Level
from tests.model.oracle_world import World

AMOUNTS = frozenset({"session_budget", "limit", "insufficient_credits"})


@dataclass
class Shortage:
    """Judges one asker against the queue. ``top_up``: it gets nothing where anybody waits."""

    world: World
    who: str
    now: int
    top_up: bool = False

    def refuses(self, reasons: frozenset[str], levels: list[Level]) -> Refused | None:
        """What refuses it, the turn of others among that. Nobody waits for it, and nothing is asked back."""
        behind = [level.reason for level in levels if not level.short and self._is_behind(level)]
        return Refused(reasons.union(behind)) if reasons or behind else None

    def served(self) -> None:
        """It has got what it waited for."""
        self.world.sights += ["recall answered"] if self.who in self.world.queue.tickets else []
        self._leave()

    def judge(self, reasons: frozenset[str], levels: list[Level]) -> Refused | Recalled | None:
        """None: it may be taken. Refused, or not yet, as long as leases may give back what lacks, or others come first."""
        behind = [level for level in levels if not level.short and self._is_behind(level)]
        if not reasons and not behind:
            self.served()
            return None
        every = reasons | {level.reason for level in behind}
        short = [level for level in levels if level.short]
        if not self._amounts_only(reasons, short) or not all(self._awake(level.leases) for level in short):
            self._leave()
            return Refused(every)
        return self._wait(every, short, behind)

    def is_crossed(self, levels: list[Level]) -> bool:
        """Whether anybody else waits for anything that it needs."""
        return any(level.where in ticket.needs for level in levels for ticket in self._others())

    def _others(self) -> list[Ticket]:
        return [
            ticket for who, ticket in self.world.queue.tickets.items() if who != self.who and ticket.waits(self.now)
        ]

    def _is_behind(self, level: Level) -> bool:
        mine = self.world.queue.tickets.get(self.who)
        first = [t for t in self._others() if self.top_up or mine is None or t.number < mine.number]
        ahead = sum(ticket.needs.get(level.where, 0) for ticket in first)
        return ahead > 0 and (self.top_up or level.need + ahead > level.remaining)

    def _amounts_only(self, reasons: frozenset[str], short: list[Level]) -> bool:
        if "circuit_open" in reasons and not any(level.reason == "circuit_open" for level in short):
            return False
        return reasons <= AMOUNTS | {"circuit_open"}

    def _awake(self, leases: frozenset[str]) -> frozenset[str]:
        """Leases that may still answer: those whose holder is not known to be silent."""
        return frozenset(one for one in leases if self.world.steps[one].lease.suspended_us is None)

    def _wait(self, every: frozenset[str], short: list[Level], behind: list[Level]) -> Refused | Recalled:
        queue = self.world.queue
        needs = {level.where: level.need for level in (*short, *behind)}
        leases = {lease for level in (*short, *behind) for lease in self._awake(level.leases)}
        ticket = queue.tickets.get(self.who)
        if ticket is None:
            queue.issued += 1
            silent = dict.fromkeys(leases, queue.next())
            ticket = queue.tickets[self.who] = Ticket(queue.issued, self.now, self.now, needs, silent)
            self.world.sights += ["queued"] if not short else []
        elif short and self._is_over(ticket, needs):
            self.world.sights.append("recall timed out" if ticket.silent else "recall refused")
            self._leave()
            return Refused(every)
        elif needs.keys() - ticket.needs.keys():
            ticket.silent |= dict.fromkeys(leases, queue.next())
        ticket.needs, ticket.asked_us = needs, self.now
        return Recalled(every, frozenset(ticket.silent))

    def _is_over(self, ticket: Ticket, needs: dict[tuple[object, ...], int]) -> bool:
        answered = not ticket.silent and needs.keys() <= ticket.needs.keys()
        return answered or self.now - ticket.since_us >= PATIENCE_US

    def _leave(self) -> None:
        self.world.queue.tickets.pop(self.who, None)
