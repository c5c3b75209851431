"""What an agent does, one value an action, and what it is told. Scenarios yield these; policies see ``Step`` and ``Report``."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from benchmarks.runaway.provider import Prompt, Served, worst

Program: TypeAlias = Generator[Any, Any, Any]
"""An agent: yields actions and is sent what came of them. Returns True when it did what it was asked to do."""
Failure = Literal["", "refused", "lost", "cancelled"]
"""refused: the provider's own no before any work (429). lost: it worked and billed, and its answer never came (a timeout after it
was sent). cancelled: the caller's task was cancelled while it ran; no callback of its framework fires."""


class Call(Struct, frozen=True):
    """A model call. ``writes``: tokens that the model would write if nobody stopped it, ``reasoning`` of them hidden. ``cap``:
    the cap in the request. ``takes_us``: how long the whole reply takes. ``useful``: units of work that its whole reply
    completes; ``serves``: it completes none, and one needs it. ``estimate``: what a caller knows of the input beforehand
    (bound: bytes; exact: the provider's own count); ``states_cap`` False: the caller sends no cap, and reckons with ``cap`` as
    what a reply usually has. ``leaves_after``: a stream's consumer goes away after so many tokens. ``reports``: how often
    usage is reported (0: never). ``cached_prefix``: of an earlier prompt, in tokens."""

    model: str
    prompt: Prompt
    writes: int
    cap: int
    takes_us: int
    useful: int = 0
    reasoning: int = 0
    estimate: Literal["bound", "exact"] = "bound"
    states_cap: bool = True
    stream: bool = False
    leaves_after: int | None = None
    reports: int = 1
    failure: Failure = ""
    cached_prefix: int = 0
    wind_down: bool = False
    serves: bool = False

    @property
    def is_waste(self) -> bool:
        return not (self.useful or self.serves)


class Tool(Struct, frozen=True):
    """A tool call at a fixed price in nanocredits."""

    name: str
    arguments: str
    price: int
    takes_us: int
    useful: int = 0
    failure: Failure = ""
    wind_down: bool = False
    serves: bool = False

    @property
    def is_waste(self) -> bool:
        return not (self.useful or self.serves)


class Pause(Struct, frozen=True):
    """Nothing happens for so long."""

    microseconds: int


class Spawn(Struct, frozen=True):
    """Start a sub-agent with a budget in nanocredits (None: the parent's); answers ``Task``, or None when it was refused.
    ``thread``: no sub-agent, but another thread of the same one."""

    program: Callable[[Any], Program]
    budget: int | None = None
    thread: bool = False


class Join(Struct, frozen=True):
    """Wait until these tasks are over; answers what each returned."""

    tasks: tuple[Any, ...]


class Change(Struct, frozen=True):
    """An administrator's or a fault's doing. fund, cut: ``amount`` nanocredits more, or the budget from now on. worker: the
    process dies and another one goes on with the session. owner: the budget's keeper dies and another one takes over."""

    what: Literal["fund", "cut", "worker", "owner"]
    amount: int = 0


class Step(Struct):
    """A step that asks to run. ``input``: tokens that a caller reckons with. ``estimate``: nanocredits that it may cost by
    that and by its cap; every policy is given the same. ``scope``: the path of the agent that asks."""

    id: int
    scope: str
    action: Call | Tool
    input: int
    estimate: int
    at_us: int

    @property
    def is_model(self) -> bool:
        return isinstance(self.action, Call)


class Verdict(Struct, frozen=True):
    """``cap``: the output cap that the request gets, where the policy lowers it."""

    allowed: bool
    reason: str = ""
    cap: int | None = None


RUN = Verdict(True)


class Report(Struct, frozen=True):
    """What the caller learns when a step is over. ``served`` None: no usage came. ``streamed``: tokens that the caller saw."""

    served: Served | None
    cost: int | None
    streamed: int = 0
    failure: Failure = ""


class Reply(Struct, frozen=True):
    """What the agent is told. ``refused``: by the policy, with its reason."""

    refused: str = ""
    failure: Failure = ""
    tokens: int = 0

    @property
    def ok(self) -> bool:
        return not self.refused and not self.failure


def reckoned(action: Call | Tool) -> tuple[int, int]:
    """Input tokens and nanocredits that a caller reckons with before the step."""
    if isinstance(action, Tool):
        return 0, action.price
    known = action.prompt.tokens if action.estimate == "exact" else action.prompt.bytes
    return known, worst(action.model, known, action.cap)
