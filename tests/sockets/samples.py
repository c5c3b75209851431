"""One of every command and of every kind of answer."""

from __future__ import annotations

from typing import Final

from agentbudget import errors
from agentbudget.account import commands as c
from agentbudget.account import decision as d
from agentbudget.amounts import Credits
from agentbudget.catalog.terms import Breaker
from agentbudget.errors import AgentBudgetError
from tests.sockets.support import PREPAID, hold

COMMANDS: Final[tuple[c.Command, ...]] = (
    c.CreateCustomer(PREPAID),
    c.AssignPlan(PREPAID),
    c.IssueGrant("g", 5),
    c.VoidGrant("g"),
    c.AdjustGrant("g", -1),
    c.ClearReceivable(1),
    c.PutEntity("team:a"),
    c.SetLimit("team:a", 5),
    c.SetPaused("customer", True),
    c.OpenSession("s", entities=("user:a",), breaker=Breaker()),
    c.FanOut("s", (c.OpenSession("t"),), 1),
    c.FundSession("s", 1),
    c.CloseSession("s"),
    c.Latch("s", "limit"),
    hold("a"),
    c.ExtendHold("a", 1, 5, {"tokens": 3}),
    c.DispatchHold("a"),
    c.SettleHold("a", 3, usage={"input_tokens": 1}),
    c.ReleaseHold("a"),
    c.LapseHold("a"),
    c.Renew("l", 1, "s", "h", "tool", steps=(c.StepReport("l.1", 3, (1,)),), measures=("steps",), ask=hold("l")),
    c.SuspendLease("l"),
    c.LapseLease("l", True),
    c.CorrectLease("l", ("steps",), (c.StepReport("l.1", 3, (1,)),)),
    c.Explain(hold("a")),
    c.Read("balance"),
)

REFUSAL: Final = d.Decision(
    False,
    "limit",
    (
        d.Constraint(
            "session_budget", "session:s", False, "credits", *(Credits(n) for n in (5, 4, 1, 0, 1)), "lifetime"
        ),
        d.Constraint("limit", "customer", False, "steps", 5, 5, 0, 0, 1, "day", "hard", 1_800_000_000_000_000),
        d.Constraint("paused", "team:a", True, detail="not paused"),
    ),
    d.Affordable(Credits("0.5"), 7),
    Credits("-1.25"),
    1_800_000_000_000_000,
    (("g", Credits(3)),),
    ("wait",),
    "detail",
    "s",
    4,
)
_SESSION: Final = d.SessionView("s", "open", 5, 1, 1, 3, 2, 0, None, ("user:a",), None, None, ("t",), 7)
ANSWERS: Final[tuple[d.Answer | AgentBudgetError, ...]] = (
    d.Held("a", 5, {"steps": 1}, (("g", 5),)),
    d.Settled("a", "corrected", 5, 1, 1),
    d.Renewed("l", 3, 5, {"steps": 1}, ("steps",), 2**62, 4, recall=("l",), rules=Breaker(), told=9),
    d.Renewed("l", 3, refused=REFUSAL, recalling=d.Recalling(3, REFUSAL, ("m", "n"))),
    d.Recalling(3, REFUSAL, ("m",)),
    d.Done(False, "x"),
    d.Opened(("s", "t"), True),
    d.Opened(("s",), refused=REFUSAL),
    REFUSAL,
    d.Decision(True),
    _SESSION,
    d.CustomerView("acme", "p", "v", "prepaid", "UTC", False, 7, 9),
    d.BalanceView(
        9, 1, 1, 1, 1, 1, 1, 1, 1, (d.GrantView("g", None, "paid", 50, "active", 9, 1, 1, 1, 1, 1, 0, None, 7),)
    ),
    (),
    (_SESSION, _SESSION),
    (d.GrantView("g", "x", "promo", 50, "used", 9, 0, 1, 1, 1, 1, 0, 8, 7),),
    (d.EntityView("team:a", None, False),),
    (d.LimitView("team:a", "credits", "day", "hard", "admin", None, 3, 1, 7, "tool:x"),),
    (d.HoldView("a", "s", "tool", "search", 5, 1, 7, True, "h", 9),),
    AgentBudgetError("said"),
    errors.KeyConflict("key", "what"),
    errors.HoldResolved("a", "settled"),
    errors.OwnerUnavailable("what", "owner", "advice"),
    errors.LedgerCorrupt("what", "acme", 3),
    errors.InvalidAmount("x", "negative"),
    errors.InvalidRequest("what", "field"),
    errors.OutOfOrder("l", 4),
    errors.InvariantBroken("L2", "what"),
)
