"""One worker of ``agentbudget demo --workers``: a process with a few runaway sub-agents on the shared ledger; with ``--ray`` an
actor, which is handed its session.

It is killed at any moment and must not mind: what its steps cost is in its spool before ``settle`` returns. Every step that it
saw settled it also writes down in a file of its own, with which the demonstration compares the ledger afterwards.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from agentbudget.errors import BudgetDenied, OwnerUnavailable

if TYPE_CHECKING:
    from agentbudget.amounts import Credits
    from agentbudget.runtime.carriers import SessionHandle
    from agentbudget.runtime.machine.host import MachineHost
    from agentbudget.runtime.runtime import Runtime
    from agentbudget.runtime.session import Session
    from agentbudget.runtime.steps.step import Step

SUB_AGENTS: Final = 3
REPORT_SECONDS: Final = 0.2
TRIES: Final = 5
"""Refusals in a row, with nothing that would fit, after which a sub-agent gives up."""
PATIENCE: Final = 10_000
"""Refusals in a row that a session's breaker allows: the sub-agents give up by themselves."""
BREATH_SECONDS: Final = 0.05
HURRY_SECONDS: Final = 6.0
"""After so long the scripted model answers four times as fast: the demonstration ends in time on a slow machine too."""
INPUT: Final = (500, 4_000)
OUTPUT: Final = (200, 2_000)
"""Tokens of a call, at least and at most; how long the reply is shows when it is there."""


class Spec(Struct, frozen=True):
    """What the parent tells a worker. ``budget``: nanocredits of its session; ``log``: where it writes what it settled;
    ``drains``: whether what no model call fits into is spent too, to the last nanocredit."""

    ledger: str
    customer: str
    session: str
    budget: int
    model: str
    seed: int
    latency: float
    log: str
    drains: bool = False


class Report(Struct, frozen=True):
    """What a worker tells the parent, a few times a second. ``spent``: nanocredits. ``pid``: where the parent cannot know."""

    holder: str
    owns: bool
    steps: int
    spent: int
    refused: int
    state: str
    pid: int = 0


class Tally:
    """What the sub-agents of this process did, and the file that says so."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.steps = self.spent = self.refused = self.waiting = 0

    def settled(self, step: str, nano: int) -> None:
        os.write(self._file, f"{step} {nano}\n".encode())
        with self._lock:
            self.steps += 1
            self.spent += nano

    def refusal(self) -> None:
        with self._lock:
            self.refused += 1

    def waits(self, change: int) -> None:
        """A sub-agent begins (1) or ends (-1) to wait for an owner that does not answer."""
        with self._lock:
            self.waiting += change


class SubAgent(threading.Thread):
    """Calls its model again and again, with inputs and replies of random size, until nothing fits any more."""

    def __init__(self, handle: SessionHandle, runtime: Runtime, spec: Spec, number: int, tally: Tally) -> None:
        super().__init__(name=f"sub-agent-{number}", daemon=True)
        self._handle, self._runtime, self._spec, self._tally = handle, runtime, spec, tally
        self._dice = random.Random(spec.seed * 100 + number)
        self._fits: int | None = None
        self._rest: Credits | None = None

    def run(self) -> None:
        in_vain, started = 0, time.monotonic()
        with self._handle.join(self._runtime) as session:
            while in_vain < TRIES:
                step = self._reserve(session)
                if step is None:
                    in_vain = 0 if self._fits or self._rest else in_vain + 1
                    time.sleep(BREATH_SECONDS)
                    continue
                in_vain = 0
                hurries = time.monotonic() - started > HURRY_SECONDS
                time.sleep(self._spec.latency / 4 if hurries else self._spec.latency)
                self._settle(step)

    def _reserve(self, session: Session) -> Step | None:
        """The next step, or None when it was refused; ``_fits`` (or ``_rest``) is then what would have fitted."""
        rest, cap, tokens = self._rest, self._fits, INPUT[0]
        if cap is None:
            cap, tokens = self._dice.randint(*OUTPUT), self._dice.randint(*INPUT)
        self._fits = self._rest = None
        while True:
            try:
                if rest is not None:
                    return session.reserve("tool", name="search", amount=rest, dispatched=True)
                return session.reserve(
                    "llm", model=self._spec.model, input_tokens=tokens, max_output_tokens=cap, dispatched=True
                )
            except BudgetDenied as denied:
                self._refused(denied)
                return None
            except OwnerUnavailable:
                self._wait()

    def _refused(self, denied: BudgetDenied) -> None:
        self._tally.refusal()
        if denied.decision is None:
            return
        affordable = denied.decision.affordable
        self._fits = min(affordable.max_output_tokens or 0, OUTPUT[1]) or None
        if self._spec.drains and self._fits is None and affordable.amount:
            self._rest = affordable.amount

    def _settle(self, step: Step) -> None:
        """The reply is there, shorter than its cap. Nothing is told before the ledger (or the spool) has it."""
        from agentbudget.catalog import Usage

        cap, usage = step.max_output_tokens, None  # None: a tool costs what it was said to cost
        if cap is not None:
            tokens = self._dice.randint(INPUT[0] // 2, INPUT[0])
            usage = Usage(input_tokens=tokens, output_tokens=self._dice.randint(1, cap))
        while True:
            try:
                self._tally.settled(step.id, step.settle(usage).charged.nano)
                return
            except OwnerUnavailable:
                self._wait()

    def _wait(self) -> None:
        self._tally.waits(1)
        time.sleep(BREATH_SECONDS)
        self._tally.waits(-1)


def work(spec: Spec) -> None:
    """Open the ledger, as its owner or through it, and let the sub-agents run until nothing fits any more."""
    from agentbudget.catalog import Catalog
    from agentbudget.runtime.runtime import Runtime

    tally = Tally(spec.log)
    with Runtime.open(spec.ledger, Catalog.bundled()) as runtime:
        run_away(open_session(runtime, spec), runtime, spec, tally, partial(_report, runtime, tally))


def open_session(runtime: Runtime, spec: Spec) -> Session:
    """The worker's session; nothing in it but what is left in the wallet stops its sub-agents."""
    from agentbudget.amounts import Credits
    from agentbudget.catalog.terms import Breaker

    budget, rules = Credits.of_nano(spec.budget), Breaker(refusals_in_row=PATIENCE)
    return runtime.customer(spec.customer).session(id=spec.session, budget=budget, breaker=rules)


def run_away(session: Session, runtime: Runtime, spec: Spec, tally: Tally, tell: Callable[[str], None]) -> None:
    """Sub-agents in children of the session, until nothing fits any more; ``tell`` is told how it goes. Closes the session."""
    from agentbudget.amounts import Credits
    from agentbudget.catalog.terms import Breaker

    each, rules = Credits.of_nano(spec.budget // SUB_AGENTS), Breaker(refusals_in_row=PATIENCE)
    try:
        children = session.fan_out(SUB_AGENTS, each, breaker=rules)
    except BudgetDenied:  # it came when nothing was left
        tally.refusal()
        children = []
    agents = [SubAgent(child.handle(), runtime, spec, number, tally) for number, child in enumerate(children)]
    for agent in agents:
        agent.start()
    while any(agent.is_alive() for agent in agents):
        tell("waiting" if tally.waiting else "working")
        time.sleep(REPORT_SECONDS)
    session.close()
    tell("done")


class RayWorker:
    """The same as an actor: the session of the handle, on the owners of the cluster."""

    def __init__(self, handle: SessionHandle, spec: Spec) -> None:
        self._handle, self._spec, self._tally, self._state = handle, spec, Tally(spec.log), "starting"
        self._error: BaseException | None = None
        threading.Thread(target=self._work, name="worker", daemon=True).start()

    def report(self) -> Report:
        """How it goes. Raises what ended the work."""
        if self._error is not None:
            raise self._error
        tally = self._tally
        return Report("", False, tally.steps, tally.spent, tally.refused, self._state, os.getpid())

    def _work(self) -> None:
        from agentbudget.catalog import Catalog
        from agentbudget.runtime.runtime import Runtime

        try:
            with (
                Runtime.open(self._spec.ledger, Catalog.bundled(), host="ray") as runtime,
                self._handle.join(runtime) as session,
            ):
                run_away(session, runtime, self._spec, self._tally, self._is_now)
            self._state = "done"
        except BaseException as error:  # of a thread: whoever asks next is told
            self._error = error

    def _is_now(self, state: str) -> None:
        if state != "done":  # it is when the ledger is closed, and has everything
            self._state = state


def _report(runtime: Runtime, tally: Tally, state: str) -> None:
    host: MachineHost = runtime.host  # type: ignore[assignment]  # of a ledger file
    holder = "" if runtime.holder is None else runtime.holder.id
    said = Report(holder, host.is_owner, tally.steps, tally.spent, tally.refused, state)
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    """Standard input ends when the demonstration does, however it ends."""
    while os.read(sys.stdin.fileno(), 64):  # unbuffered: Python may end while this waits
        pass
    os._exit(1)


def main() -> None:
    """Run the worker that the first argument describes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(msgspec.json.decode(sys.argv[1], type=Spec))


if __name__ == "__main__":
    main()
