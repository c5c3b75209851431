"""Owners as they run in actors, in this process: what they are told is carried out at once, on the caller's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from agentbudget.account.commands import Command
from agentbudget.account.decision import Answer
from agentbudget.clock import Clock
from agentbudget.errors import AgentBudgetError
from agentbudget.ledger.store import Store, open_journal
from agentbudget.runtime.host import Beat
from agentbudget.runtime.machine import wire
from agentbudget.runtime.machine.answers import received
from agentbudget.runtime.on_ray import wire as ray_wire
from agentbudget.runtime.on_ray.actor import RayOwner


def owner_of(
    folder: Path,
    name: str = "owner-0",
    open_store: Callable[[], Store] | None = None,
    clock: Clock | None = None,
    cluster: str = "",
) -> RayOwner:
    opens = open_store or (lambda: open_journal(f"sqlite:///{folder}/budget.db"))
    return RayOwner(name, opens, clock=clock, cluster=cluster)


def say(
    owner: RayOwner,
    *commands: Command,
    customer: str = "acme",
    process: str = "p1",
    beat: Beat | None = None,
    living: Iterable[str] = (),
    gone: Iterable[str] = (),
    sweep: bool = False,
    leaving: bool = False,
    version: int = ray_wire.VERSION,
) -> ray_wire.FromOwner:
    """What the owner replies to a message."""
    packed = [(customer, wire.packed(command)) for command in commands]
    batch = wire.Batch(packed, beat, list(living), list(gone), None, sweep)
    return ray_wire.read_reply(owner.serve(ray_wire.encode(ray_wire.Said(version, process, batch, leaving))))


def answers(reply: ray_wire.FromOwner) -> list[Answer | AgentBudgetError]:
    assert isinstance(reply, ray_wire.Served)
    return [received(answer) for answer in reply.answers.answers]


def refusal(reply: ray_wire.FromOwner) -> AgentBudgetError:
    assert isinstance(reply, ray_wire.Refused)
    return ray_wire.why(reply)


def in_background(work: Callable[[], Any]) -> Callable[[], Any]:
    """Begin ``work``; the function gives what it returned."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()

    def wait() -> Any:
        thread.join(30)
        return found[0]

    return wait
