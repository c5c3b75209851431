"""Commands in a fixed order, with fixed keys: run twice, they give the same entries byte for byte."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from agentbudget.account.commands import (
    Command,
    CreateCustomer,
    ExtendHold,
    FundSession,
    Hold,
    IssueGrant,
    OpenSession,
    ReleaseHold,
    SettleHold,
)
from agentbudget.account.decision import Done, Opened
from tests.crash.setting import CATALOG

CUSTOMER: Final = "acme"


def hold(step: str, amount: int, session: str = "run") -> Hold:
    return Hold(step, session, "tool", amount, {"steps": 1}, tool="search")


SCRIPT: Final[tuple[Command, ...]] = (
    CreateCustomer(CATALOG.terms("prepaid")),
    IssueGrant("welcome", 1_000, key="welcome"),
    OpenSession("run", budget=900),
    hold("a", 100),
    SettleHold("a", 40, part=1),
    ExtendHold("a", 2, 30),
    SettleHold("a", 70),
    hold("b", 50),
    ReleaseHold("b"),
    OpenSession("child", parent="run", budget=200),
    hold("c", 60, "child"),
    SettleHold("c", 90),
    FundSession("run", 500, key="more"),
)


def many_commands(count: int, chance: random.Random) -> Iterator[Command]:
    """A customer's life in ``count`` commands, each of which writes an entry of its own."""
    yield CreateCustomer(CATALOG.terms("prepaid"))
    yield IssueGrant("g", 10**12, key="g")
    yield OpenSession("run", budget=10**9)
    ready = [
        IssueGrant("g2", 5, key="g2"),
        OpenSession("child", parent="run", budget=50),
        FundSession("run", 7, key="f"),
    ]
    left = count - 3
    for n in range(left):
        yield ready.pop() if ready else _next(ready, f"s{n}", chance)


def _next(ready: list[Command], step: str, chance: random.Random) -> Command:
    """A new hold; how it will go on is put into ``ready``, the last command first."""
    amount = chance.randint(1, 1_000)
    part = chance.randint(0, amount)
    match chance.randrange(4):
        case 0:
            ready.append(SettleHold(step, chance.randint(0, 2 * amount)))
        case 1:
            ready.append(ReleaseHold(step))
        case 2:
            ready.extend((SettleHold(step, amount - part), SettleHold(step, part, part=1)))
        case _:
            ready.extend((SettleHold(step, amount), ExtendHold(step, 1, part)))
    return hold(step, amount)


def same(reply: object) -> str:
    """An answer as told; a later one may say, and only that, that the thing was there already (``joined``, not ``changed``)."""
    if isinstance(reply, Done):
        return repr(replace(reply, changed=False))
    return repr(replace(reply, joined=True) if isinstance(reply, Opened) else reply)
