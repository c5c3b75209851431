"""What no honest holder of a lease says, and what it says in every message."""

from __future__ import annotations

from collections.abc import Iterator

from agentbudget.account import commands as ask
from agentbudget.errors import InvalidRequest
from tests.model.oracle_facts import StepFact


def plausible(command: ask.Renew, lease: StepFact | None) -> None:
    """Refuse what cannot be true of the lease; nothing is changed by it."""
    for what in (*_malformed(command), *_mistaken(command, lease)):
        raise InvalidRequest(what)


def _malformed(command: ask.Renew) -> Iterator[str]:
    hold = command.ask
    numbers = [command.overrun, command.back, command.released, *command.over.values(), *command.back_measures.values()]
    numbers += [number for step in command.steps for number in (step.amount, *step.used)]
    if min(numbers, default=0) < 0:
        yield "negative"
    if command.overrun > sum(step.amount for step in command.steps):
        yield "more beyond than used"
    if any(len(step.used) > len(command.measures) for step in command.steps):
        yield "unmeasured"
    if any(step.step.rpartition(".")[0] != command.lease for step in command.steps):
        yield "not its steps"
    if command.close and hold is not None:
        yield "closes and asks"
    if hold is not None and (key_of(hold), hold.session) != (key_of(command), command.session):
        yield "asks for another"
    if hold is not None and command.times < 1:
        yield "no times"


def _mistaken(command: ask.Renew, lease: StepFact | None) -> Iterator[str]:
    if lease is None:
        if (
            command.ask is None
            or command.steps
            or command.released
            or command.back
            or any(command.back_measures.values())
        ):
            yield "opens otherwise than by asking"
        return
    if (lease.lease.key, lease.lease.holder, lease.session) != (key_of(command), command.holder, command.session):
        yield "another's lease"
    if sum(step.amount for step in command.steps) - command.overrun + command.back > lease.held:
        yield "more than is held"
    used = used_by(command)
    if any(units and measure not in lease.lease.counted for measure, units in command.back_measures.items()):
        yield "gives back what it does not hold"
    for measure in lease.lease.counted:
        out = used.get(measure, 0) - command.over.get(measure, 0)
        if out < 0 or out + command.back_measures.get(measure, 0) > lease.held_measures.get(measure, 0):
            yield "more measures than are held"


def key_of(command: ask.Renew | ask.Hold) -> tuple[object, ...]:
    """What all steps of a lease have in common."""
    return command.kind, command.model, command.tool, command.feature, command.wind_down


def used_by(command: ask.Renew | ask.CorrectLease) -> dict[str, int]:
    """What the steps used of each measure."""
    return {
        name: sum(sum(step.used[at : at + 1]) for step in command.steps) for at, name in enumerate(command.measures)
    }
