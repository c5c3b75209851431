"""What the holder of a lease says, written short: ``renew("L", 1, ask=step(10), times=8)``. One kind of step, a model's."""

from __future__ import annotations

from typing import Any

from agentbudget.account import commands as c
from agentbudget.account.decision import Renewed
from tests.account.desk import Desk, hold

NEVER = 2**62


def step(amount: int, session: str = "s", **rest: Any) -> c.Hold:
    """The step that is to run next."""
    return hold("next", session, amount, **rest)


def renew(lease: str, seq: int, session: str = "s", holder: str = "p1", **rest: Any) -> c.Renew:
    """A message of the lease; its key is that of ``step``, or of what it asks for."""
    ask = rest.get("ask")
    key = ("llm", "gpt-5", None, None) if ask is None else (ask.kind, ask.model, ask.tool, ask.feature)
    kind, model, tool, feature = rest.pop("key", key)
    return c.Renew(lease, seq, session, holder, kind, model, tool, feature, **rest)


def spent(lease: str, *amounts: int, first: int = 1) -> dict[str, Any]:
    """Steps settled at these amounts, one of the measure steps each."""
    steps = tuple(c.StepReport(f"{lease}.{first + n}", amount, (1,)) for n, amount in enumerate(amounts))
    return {"measures": ("steps",), "steps": steps}


def opened(
    desk: Desk, lease: str, amount: int, times: int = 1, session: str = "s", holder: str = "p1", **rest: Any
) -> Renewed:
    """Open a lease for steps of ``amount``; the test fails when it is refused."""
    wind_down = rest.get("wind_down", False)
    answer = desk.send(
        renew(lease, 1, session, holder, ask=step(amount, session, **rest), times=times, wind_down=wind_down)
    )
    assert isinstance(answer, Renewed)
    assert answer.is_open, answer
    return answer


def held_by(desk: Desk, lease: str) -> int:
    """What the lease holds (nanocredits); the view's word."""
    return next(view.amount for view in desk.read("holds") if view.step == lease)
