"""What a customer's owner can be asked. Each command is a frozen value with everything decided outside already in it.

Conventions: amounts are nanocredits; times UTC microseconds; measures other than credits are whole units by name
(``tokens``, ``steps``, ``tool_calls``, ``seconds``, or a metered feature's id). ``keys_of`` names the idempotency keys the
owner looks up in the journal before it decides; ``request_hash`` is the hash of a command's *raw request* (law L4): what the
caller stated, never prices, estimates or generated ids.

Idempotency keys, all per customer:

    customer                 the creation
    grant:<key>              a grant, void, adjust or payment, by the caller's key (``void:``, ``adjust:``, ``payment:``)
    session:<id>             the opening of a session (also of each child of a fan-out)
    fund:<key>               funding, by the caller's key
    <step>                   the opening of a hold (or its tombstone)
    <step>#end               its only end: settled, released or lapsed (law L5 is this unique key)
    <step>#<n>               its n-th part: an extension, a partial settlement, the dispatch mark (``<step>#sent``)
    <step>#correction        the one correction that a late settlement may bring

A lease is a hold as well; its id (``lease:...``, as no step's may begin) stands where a step's does: ``<lease>#<seq>`` is its
``seq``-th renewal (the first opens it), ``<lease>#end`` its lapse, ``<lease>#correction`` what a late spool brought.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from agentbudget.account.administration import ROOT as ROOT
from agentbudget.account.administration import AdjustGrant as AdjustGrant
from agentbudget.account.administration import AssignPlan as AssignPlan
from agentbudget.account.administration import ClearReceivable as ClearReceivable
from agentbudget.account.administration import CreateCustomer as CreateCustomer
from agentbudget.account.administration import IssueGrant as IssueGrant
from agentbudget.account.administration import PutEntity as PutEntity
from agentbudget.account.administration import SetLimit as SetLimit
from agentbudget.account.administration import SetPaused as SetPaused
from agentbudget.account.administration import VoidGrant as VoidGrant
from agentbudget.catalog.terms import Breaker, LimitTerms

Kind: TypeAlias = Literal["llm", "tool", "retrieval", "embedding", "agent"]
OnUnknown: TypeAlias = Literal["charge", "release"]
OnDenied: TypeAlias = Literal["refuse", "stop", "abort"]
OnShort: TypeAlias = Literal["deny", "clamp"]


class OpenSession(Struct, frozen=True, tag="open_session"):
    """Open a session, or join the open one of that id. None states nothing: at creation it takes the default, at a join it is
    not compared; what is stated must equal what created it (KeyConflict). A closed id is refused (``session_closed``).

    ``parent`` carves ``budget`` out of that session: refused (``session_budget``) when it has no room. A child without a
    budget draws on its parent directly. A child's path is its parent's, plus its own entities.
    ``wind_down``: nanocredits of the budget kept for steps marked so.
    """

    session: str
    parent: str | None = None
    budget: int | None = None
    wind_down: int | None = None
    entities: tuple[str, ...] | None = None
    feature: str | None = None
    workflow: str | None = None
    breaker: Breaker | None = None
    on_unknown: OnUnknown | None = None
    on_denied: OnDenied | None = None
    ttl_us: int | None = None
    max_step_us: int | None = None


class FanOut(Struct, frozen=True, tag="fan_out"):
    """Open children of one parent in order, each carving its budget, as many as fit; fewer than ``at_least``: none (refused).

    Every child names the same parent and states a budget.
    """

    parent: str
    children: tuple[OpenSession, ...]
    at_least: int


class FundSession(Struct, frozen=True, tag="fund_session"):
    """Raise a session's budget by ``amount`` and end its latch. A child's parent must have the room (refused otherwise)."""

    session: str
    amount: int
    key: str | None = None


class CloseSession(Struct, frozen=True, tag="close_session"):
    """End a session and its children: no further hold; holds still open end by their steps or lapse. Again writes nothing."""

    session: str
    reason: str = "closed"


class Latch(Struct, frozen=True, tag="latch"):
    """Stop a session after a refusal (``on_denied`` stop/abort): every later step is refused until it is funded or resumed."""

    session: str
    reason: str


class Hold(Struct, frozen=True, gc=False, tag="hold"):
    """Hold ``amount`` and ``measures`` for one step, on every limit of the path and on grants in burn order, or refuse.

    ``model`` is set for kinds llm and embedding, ``tool`` for tool and retrieval. ``fingerprint`` (a hash of tool and
    arguments) feeds the breaker's repeat rule. ``dispatched`` says that the step runs as soon as this is answered.
    ``note_refusal`` False: this attempt is a probe, and a refusal of it does not count for the breaker.
    """

    step: str
    session: str
    kind: Kind
    amount: int
    measures: dict[str, int] = {}
    model: str | None = None
    tool: str | None = None
    provider: str | None = None
    feature: str | None = None
    wind_down: bool = False
    fingerprint: str | None = None
    dispatched: bool = True
    ttl_us: int = 60_000_000
    rate: str = ""
    estimate: str = ""
    catalog: str = ""
    stated: str = ""
    note_refusal: bool = True


class StepReport(Struct, frozen=True, gc=False, array_like=True):
    """One settled step of a lease: its measured cost (nanocredits), ``used`` in the order of the renewal's ``measures``, the
    ``tariff`` (index into the renewal's ``tariffs``) that priced it, the usage it was priced by, and when it ran (UTC
    microseconds of the holder)."""

    step: str
    amount: int
    used: tuple[int, ...] = ()
    tariff: int = 0
    usage: dict[str, int] = {}
    model: str | None = None
    opened_us: int = 0
    ended_us: int = 0


class Renew(Struct, frozen=True, gc=False, tag="renew"):
    """Everything a lease's holder ever says, in one message, applied in this order: report settled steps, give back, ask.

    ``seq`` numbers the messages of a lease from 1, which opens it; a message that changed nothing (a refusal and nothing
    reported) used no number. A gap is refused with the number expected. ``holder`` is the process; ``kind`` ...
    ``wind_down`` are the lease's key and the same in every message.

    ``overrun`` (and ``over`` by measure): what of the reported use the lease had not free, because open steps hold it; it is
    booked as an overrun's is (law L11). ``back``, ``back_measures``: given back, the last-burnt slice first. ``close``: give
    everything back and end the lease; no step of it is open.
    ``ask``: the step that is to run next, judged as a ``Hold`` of it would be; when it is allowed, up to ``times`` as much of
    each of its amounts is held (DESIGN.md §4, tranche), at least once. With ``ask.note_refusal`` False it is a top-up in
    the background: it recalls nothing and a refusal of it says and counts nothing.
    ``released``: steps that ended since the last message and cost nothing; they count as steps of the session, as they do
    without leases. ``ran``: steps of the session were allowed in this process since its last refusal (the breaker's refusals in
    a row end). ``heard``: it was made knowing of the recalls of this lease up to that number (``Renewed.told``), so it answers
    them; 0 of none.
    """

    lease: str
    seq: int
    session: str
    holder: str
    kind: Kind
    model: str | None = None
    tool: str | None = None
    feature: str | None = None
    wind_down: bool = False
    measures: tuple[str, ...] = ()
    steps: tuple[StepReport, ...] = ()
    tariffs: tuple[tuple[str, str], ...] = ()
    overrun: int = 0
    over: dict[str, int] = {}
    back: int = 0
    back_measures: dict[str, int] = {}
    close: bool = False
    ask: Hold | None = None
    times: int = 1
    ran: bool = False
    heard: int = 0
    released: int = 0


class SuspendLease(Struct, frozen=True, tag="suspend_lease"):
    """Note that a lease's holder is silent: what it has not reported stays held until its spool is replayed, or the lease
    lapses. Said by the owner itself. The next renewal ends the suspension."""

    lease: str


class LapseLease(Struct, frozen=True, tag="lapse_lease"):
    """End a lease whose holder never came back: ``charge`` books what is held as ``unknown``, else it is given back. Said by
    the owner itself."""

    lease: str
    charge: bool


class CorrectLease(Struct, frozen=True, tag="correct_lease"):
    """A spool that came after its lease had lapsed: every step of it that no renewal reported, booked in place of what the
    lapse booked, once (laws L4, L11). ``released``: steps that cost nothing, as in ``Renew``."""

    lease: str
    measures: tuple[str, ...] = ()
    steps: tuple[StepReport, ...] = ()
    tariffs: tuple[tuple[str, str], ...] = ()
    released: int = 0


class ExtendHold(Struct, frozen=True, gc=False, tag="extend_hold"):
    """Add to an open hold, judged like a new hold of the added amounts. ``part`` numbers it: same part, same answer."""

    step: str
    part: int
    amount: int
    measures: dict[str, int] = {}


class DispatchHold(Struct, frozen=True, gc=False, tag="dispatch_hold"):
    """Mark that the step's work has been sent: from now on, what is not known is not free."""

    step: str


class SettleHold(Struct, frozen=True, gc=False, tag="settle_hold"):
    """Book what a step cost. ``part`` None ends the hold: the rest is given back, the last-burnt slice first; what is beyond the
    hold burns free eligible credits, then becomes overdraft (prepaid) or receivable (postpaid). ``part`` n books a part and
    keeps the hold (a part may not pass what is held).

    ``measures`` states what was used; a measure not stated counts as held. ``outcome`` ``unknown`` says that the amount is a
    policy's, not a measurement, and at most what is held: a later settlement then corrects it, once.
    After a lapse this is that late settlement and books the difference.
    ``lease``: the step ran on that lease and its outcome is ``unknown``: what it may cost leaves the lease as a hold of its own
    that has ended, so that its true cost still corrects it.
    """

    step: str
    amount: int
    measures: dict[str, int] = {}
    part: int | None = None
    outcome: Literal["settled", "unknown"] = "settled"
    usage: dict[str, int] = {}
    model: str | None = None
    error: str | None = None
    rate: str = ""
    catalog: str = ""
    stated: str = ""
    lease: str | None = None


class ReleaseHold(Struct, frozen=True, gc=False, tag="release_hold"):
    """Give a whole hold back; nothing was spent. For a key not seen yet it leaves a tombstone: a hold of that key that arrives
    later is answered ``released`` and holds nothing."""

    step: str
    error: str | None = None


class LapseHold(Struct, frozen=True, tag="lapse_hold"):
    """End a hold whose holder is gone: dispatched and ``on_unknown`` charge books what is held as ``unknown``; otherwise it is
    given back. Said by the owner itself, never by a holder."""

    step: str
    cause: Literal["silent", "max_seconds", "session_closed"] = "silent"


class Explain(Struct, frozen=True, tag="explain"):
    """What ``Hold`` would answer for a step of a session, or of ``entities`` outside any session. Nothing is held or counted."""

    hold: Hold
    entities: tuple[str, ...] = ()
    workflow: str | None = None


class Read(Struct, frozen=True, tag="read"):
    """A view of the account as of this command."""

    what: Literal["customer", "balance", "grants", "entities", "limits", "sessions", "session", "holds"]
    id: str = ""


Command: TypeAlias = (
    CreateCustomer | AssignPlan | IssueGrant | VoidGrant | AdjustGrant | ClearReceivable | PutEntity | SetLimit | SetPaused
    | OpenSession | FanOut | FundSession | CloseSession | Latch | Hold | ExtendHold | DispatchHold | SettleHold | ReleaseHold
    | LapseHold | Renew | SuspendLease | LapseLease | CorrectLease | Explain | Read
)  # fmt: skip

LimitSet: TypeAlias = tuple[LimitTerms, ...]

LEASE_PREFIX: Final = "lease:"
"""Every lease's id begins so, and no key of a caller's own may: both are keys of the same index."""


def key_of(command: Command) -> str | None:
    """The idempotency key under which the command's entry is written, or None when it has none."""
    find = _KEYS.get(type(command))
    return None if find is None else find(command)


def _named(prefix: str) -> Callable[[Any], str | None]:
    return lambda command: None if command.key is None else f"{prefix}:{command.key}"


def _end(command: Any) -> str:
    return f"{command.step}#end"


_KEYS: Final[dict[type, Callable[[Any], str | None]]] = {
    CreateCustomer: lambda command: "customer",
    IssueGrant: _named("grant"),
    VoidGrant: _named("void"),
    AdjustGrant: _named("adjust"),
    ClearReceivable: _named("payment"),
    FundSession: _named("fund"),
    OpenSession: lambda command: f"session:{command.session}",
    Hold: lambda command: command.step,
    ExtendHold: lambda command: f"{command.step}#{command.part}",
    DispatchHold: lambda command: f"{command.step}#sent",
    SettleHold: lambda command: _end(command) if command.part is None else f"{command.step}#{command.part}",
    ReleaseHold: _end,
    LapseHold: _end,
    Renew: lambda command: f"{command.lease}#{command.seq}",
    LapseLease: lambda command: f"{command.lease}#end",
    CorrectLease: lambda command: f"{command.lease}#correction",
}


def keys_of(command: Command) -> tuple[str, ...]:
    """Every key that the owner must look up before it can decide the command."""
    match command:
        case SettleHold(step=step, part=None, lease=str(lease)):
            return (step, f"{step}#end", f"{step}#correction", f"{lease}#end")
        case SettleHold(step=step, part=None) | ReleaseHold(step=step) | LapseHold(step=step):
            return (step, f"{step}#end", f"{step}#correction")
        case SettleHold(step=step, part=part) | ExtendHold(step=step, part=part):
            return (f"{step}#{part}", f"{step}#end")
        case DispatchHold(step=step):
            return (f"{step}#sent", f"{step}#end")
        case Renew(lease=lease, seq=seq):
            return (f"{lease}#{seq}", f"{lease}#end")
        case LapseLease(lease=lease) | CorrectLease(lease=lease):
            return (f"{lease}#end", f"{lease}#correction")
        case FanOut(children=children):
            return tuple(f"session:{child.session}" for child in children)
        case _:
            key = key_of(command)
            return () if key is None else (key,)


_encode = msgspec.json.Encoder(order="sorted").encode


def request_hash(command: Command) -> str:
    """Hash (32 hex digits of SHA-256) of the command's raw request. Equal requests hash equal whatever prices, estimates,
    catalog versions or generated ids say meanwhile."""
    raw = _raw(command)
    return _hash_of(raw) if isinstance(raw, tuple) else hashlib.sha256(_encode(raw)).hexdigest()[:32]


@lru_cache(maxsize=1_024)
def _hash_of(raw: tuple[str | int | None, ...]) -> str:
    """Of a step, whose tuple holds only strings, integers and None: their repr is exact. It is on the way of every step, and
    the steps of a session say the same again and again."""
    return hashlib.sha256(repr(raw).encode()).hexdigest()[:32]


def _raw(command: Command) -> object:
    """What the caller stated: tuples of strings, integers and None for steps, anything encodable otherwise."""
    if isinstance(command, Hold):
        return ("hold", command.session, command.kind, command.model, command.tool, command.feature, command.stated)
    if isinstance(command, SettleHold):
        return ("settle_hold", command.part, command.outcome, command.stated or command.amount)
    if isinstance(command, ReleaseHold):
        return ("release_hold",)
    if isinstance(command, CreateCustomer):
        return ("create_customer", command.terms.plan, command.time_zone)
    if isinstance(command, IssueGrant):
        return [
            "grant", command.amount, command.label, command.priority, command.effective_us, command.expires_us,
            command.category, command.scope,
        ]  # fmt: skip
    return command
