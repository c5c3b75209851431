"""What the next process on the machine does with a dead one's records: the real ``replay``, which may be killed too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentbudget.account.commands import Command, Renew
from agentbudget.clock import SECOND_US
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.runtime.spool.format import Begun, Facts, Identity
from agentbudget.runtime.spool.reading import LeaseRecords
from agentbudget.runtime.spool.replay import replay
from tests.sim.broken import must
from tests.sim.network import named
from tests.sim.owning import CUSTOMER
from tests.sim.trails import Died, Left

if TYPE_CHECKING:
    from tests.sim.world import World


class Replays:
    """Spools of the dead that wait to be told. Each is told at one moment: what else happens comes between two attempts."""

    def __init__(self, world: World) -> None:
        self._world, self._work = world, world.work
        self.waiting: list[Left] = []
        self._notes: dict[str, list[Renew]] = {}

    def found(self, holder: str) -> None:
        """Somebody looks into a dead holder's spool."""
        for left in [left for left in self.waiting if left.holder == holder]:
            self._tell(left)

    def _tell(self, left: Left) -> None:
        notes = self._notes.setdefault(left.lease, [])
        self._work.note("replay", left, notes)
        try:
            replayed = replay(_records(left, notes), left.holder, self._ask, notes.append, trusted=True)
        except OwnerUnavailable:
            self._again(left)
        except Died:
            self._work.saw("died while replaying")
            self._again(left)
        else:
            self._work.note("replay", replayed)
            self._work.saw("replayed")
            self._work.reached["replayed as unknown"] += replayed.unknown
            must(not replayed.left, "L1", f"{left.lease} is left: {replayed.left}")
            self.waiting.remove(left)

    def _again(self, left: Left) -> None:
        self._work.after(self._work.between(SECOND_US // 5, 3 * SECOND_US), lambda: self._tell(left))

    def _ask(self, customer: str, command: Command) -> Any:
        work, faults = self._work, self._world.faults
        if faults.holders_die and work.happens(0.12):
            raise Died
        self._world.network.asked_at.setdefault(named(command), self._world.audit.read)
        lost = faults.drop and work.happens(0.15)
        if lost and work.happens(0.5):
            raise OwnerUnavailable("lost", "sim")
        answer = self._world.node.at_once(command)
        if lost:
            raise OwnerUnavailable("its answer was lost", "sim")
        if isinstance(answer, AgentBudgetError):
            raise answer
        return answer


def _records(left: Left, notes: list[Renew]) -> LeaseRecords:
    sent = () if left.sent is None else (left.sent,)
    steps = tuple(
        Begun(n, one.amount, dict(one.measures), one.opened_us, one.dispatched) for n, one in left.open.items()
    )
    identity = Identity(1, CUSTOMER, left.lease, left.session, *left.key, left.on_unknown)  # type: ignore[arg-type]
    return LeaseRecords(
        identity, (*sent, *notes), tuple(left.reports), steps, Facts(left.names, left.tariffs), left.seq, True,
        left.released,
    )  # fmt: skip
