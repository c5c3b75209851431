"""An owner that has a caller in its own process, who goes on whatever the cluster thinks of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentbudget.account.commands import Command, SettleHold
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.ledger.store import Store
from agentbudget.runtime.on_ray import wire as ray_wire
from agentbudget.runtime.on_ray.actor import RayOwner
from agentbudget.runtime.owner.owner import Owner
from tests.ray.seats import answers, refusal, say
from tests.sockets.support import START, hold

COST = 7
REPLACED = "newer incarnation"
PACE_SECONDS = 0.005
"""Between two steps: the owner has others to serve."""


class RestlessOwner(RayOwner):
    """Holds and settles steps of its own until it is refused, or told to stop by a file. ``folder``: where each incarnation
    writes what it asks and what it was answered."""

    def __init__(
        self, name: str, open_store: Callable[[], Store], new_owner: Callable[..., Owner], folder: str
    ) -> None:
        super().__init__(name, open_store, new_owner)
        threading.Thread(target=self._spend, args=(Diary(Path(folder), os.getpid()),), daemon=True).start()

    def _spend(self, diary: Diary) -> None:
        for command in START:
            self._ask(command)
        n = 0
        while not diary.is_to_stop:
            step = f"own-{os.getpid()}-{n}"
            for command in (hold(step), SettleHold(step, COST)):
                diary.asks(step)
                why = self._ask(command)
                if why is not None:
                    return diary.ends(str(why))
                diary.was_answered(step)
            n += 1
            diary.pause()
        diary.ends("stopped")

    def _ask(self, command: Command) -> AgentBudgetError | None:
        """Why it was not carried out. Asks again, as everybody may, where only the connection to the database was lost."""
        while True:
            reply = say(self, command, process=f"own-{os.getpid()}", living=[])
            answer: Any = refusal(reply) if isinstance(reply, ray_wire.Refused) else answers(reply)[0]
            if not isinstance(answer, OwnerUnavailable) or REPLACED in answer.what:
                return answer if isinstance(answer, AgentBudgetError) else None
            time.sleep(PACE_SECONDS)


class Diary:
    """What an incarnation has asked and heard, in files that the test reads."""

    def __init__(self, folder: Path, pid: int) -> None:
        self._folder, self._path, self._over = folder, folder / f"{pid}.diary", folder / f"{pid}.over"
        self._never = threading.Event()

    @property
    def is_to_stop(self) -> bool:
        return (self._folder / "stop").exists()

    def pause(self) -> None:
        self._never.wait(PACE_SECONDS)

    def asks(self, step: str) -> None:
        self._write(f"asks {step}")

    def was_answered(self, step: str) -> None:
        self._write(f"heard {step}")

    def ends(self, why: str) -> None:
        part = self._over.with_suffix(".part")
        part.write_text(why)
        part.rename(self._over)

    def _write(self, line: str) -> None:
        with open(self._path, "a") as file:
            file.write(f"{line}\n")

    # --- the test's side ------------------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return self._over.exists()

    @property
    def why(self) -> str:
        return self._over.read_text()

    def heard(self) -> dict[str, int]:
        """How many of the two commands of each step were answered."""
        steps: dict[str, int] = {}
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                what, step = line.split()
                steps[step] = steps.get(step, 0) + (what == "heard")
        return steps
