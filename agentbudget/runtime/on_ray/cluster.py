"""Everything that this package asks of Ray: a cluster to be on, and actors that are found by name. Nothing else imports it.

Ray restarts an actor that died and carries out again what it had not answered, in any order, as often as it likes; it does not
keep two of one name from running at once, and a kill takes effect some time after it was asked for. So every command has a key
(law L4), the database's epoch says which of two counts (law L9), and whoever kills waits until the actor is gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Literal

import ray
from msgspec import Struct
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agentbudget.errors import OwnerUnavailable
from agentbudget.runtime.on_ray.actor import RayOwner
from agentbudget.runtime.on_ray.reach import ADVICE, require_reachable
from agentbudget.runtime.owner.owner import Owner

NAMESPACE: Final = "agentbudget"
"""Of the owners' names: an anonymous namespace, Ray's default, is another one in each driver."""
ASKING_SECONDS: Final = 30.0
"""How long an owner may take to answer what people ask of it: it may be reading a large ledger."""
DYING_SECONDS: Final = 10.0
"""How long a killed actor may take to be gone."""
READY_SECONDS: Final = 5.0
"""How long a seat waits to see that its actor runs."""
MOST_STARTS: Final = 3
"""How often an actor is looked for or made that is gone before it answers."""
Lifetime = Literal["detached", "driver"]


class Gone(Exception):
    """No answer will come from this actor: ``why``. It may be there again at the next try, unless it has gone ``for_good``."""

    def __init__(
        self, what: str, owner: str, advice: str = "send it again with the same key", *, for_good: bool = False
    ) -> None:
        super().__init__(what)
        self.why, self.for_good = OwnerUnavailable(what, owner, advice), for_good


class Post(Struct, frozen=True):
    """What an owner is made from, on whichever node. ``ledger``: a name for it that tells nothing of where it is. ``node``: the
    only one that can open it, or empty. ``may_make``: False where making it would open another ledger than the one meant."""

    ledger: str
    open_store: Callable[[], Any]
    new_owner: Callable[..., Owner]
    lifetime: Lifetime = "detached"
    node: str = ""
    may_make: bool = True


def join(seconds: float) -> bool:
    """Be on a cluster: the one that this process is on, or that RAY_ADDRESS names, else a new one on this machine, which ends
    with this process. False when the process was on one before. Raises ``OwnerUnavailable``, after so long when nobody answers
    at RAY_ADDRESS."""
    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    try:
        if address := os.environ.get("RAY_ADDRESS"):
            require_reachable(address, seconds)
            ray.init(**quiet)
        else:
            ray.init(include_dashboard=False, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError, RayError) as error:
        what = f"there is no Ray cluster to be on ({type(error).__name__}: {error})"
        raise OwnerUnavailable(what, "", ADVICE) from error
    return True


def leave() -> None:
    """Be on no cluster: one that :func:`join` started ends, one that was there goes on."""
    ray.shutdown()


def is_worker() -> bool:
    """Whether this process was started by Ray to run tasks: its working folder is not the one the program was started in."""
    return bool(ray.get_runtime_context().worker.mode == ray.WORKER_MODE)


def node_here() -> str:
    return str(ray.get_runtime_context().get_node_id())


def name_here() -> str:
    """A name for the cluster that no other has, which tells nothing of it."""
    return hashlib.sha256(str(ray.get_runtime_context().get_session_name()).encode()).hexdigest()[:8]


def cores() -> int:
    """Of the cluster, as far as Ray gives them to tasks."""
    resources: Any = ray.cluster_resources
    return int(resources().get("CPU", 1))


def names(ledger: str) -> list[str]:
    """The owners of a ledger that are there, in order."""
    prefix = f"{ledger}/"
    found = ray.util.list_named_actors(all_namespaces=True)
    return sorted(
        actor["name"].removeprefix(prefix)
        for actor in found
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(prefix)
    )


@lru_cache(maxsize=1)
def _actor_class() -> Any:
    """``listen`` and ``status`` have threads of their own, so that they neither wait for the mailbox nor keep it waiting."""
    remote: Any = ray.remote
    return remote(num_cpus=0, concurrency_groups={"listen": 1, "status": 1})(RayOwner)


class Seat:
    """One owner's place on the cluster; its actor is found, or made, at the first use and after it has gone."""

    def __init__(self, name: str, post: Post) -> None:
        self.name, self._post = name, post
        self._actor: Any = None

    # --- the calls of a line: one at a time ------------------------------------------------------------------------------------

    def send(self, message: bytes) -> Any:
        """Begin to say something. Raises ``Gone``."""
        with _Asking(self):
            return self._there().serve.remote(message)

    def wait(self, answer: Any, seconds: float) -> bytes | None:
        """The reply, or None when it takes longer. Raises ``Gone``."""
        with _Asking(self):
            try:
                reply: bytes = ray.get(answer, timeout=seconds)
            except GetTimeoutError:
                return None
            return reply

    def listen(self, owner: str, news: int, done: Callable[[object], None]) -> None:
        """Wait for news without waiting here: ``done`` is called once, from a thread of Ray's, perhaps before this returns, with
        (owner, news) or with None. It must not wait for anything."""
        with _Asking(self):
            answer = self._there().listen.options(concurrency_group="listen", max_task_retries=0).remote(owner, news)
            answer.future().add_done_callback(lambda future: done(None if future.exception() else future.result()))

    def leave(self, message: bytes) -> None:
        """Say a last thing, if somebody is there to hear it: nobody is made for that. Raises ``Gone``."""
        if self._actor is not None:
            with _Asking(self):
                self._actor.serve.remote(message)

    # --- for people -------------------------------------------------------------------------------------------------------------

    def ask(self, method: str, *arguments: object, seconds: float = ASKING_SECONDS) -> Any:
        """Call a method and wait. Raises ``OwnerUnavailable``, and what the method raises, as itself."""
        try:
            with _Asking(self, raises=True):
                call = getattr(self._there(), method)
                call = call.options(concurrency_group="status") if method == "status" else call
                return ray.get(call.remote(*arguments), timeout=seconds)
        except Gone as gone:
            raise gone.why from None

    def kill(self) -> None:
        """End the actor for good, and wait until it is gone; another process that still asks for it may have it made again by
        then. Raises ``OwnerUnavailable`` when it does not go."""
        actor: Any = None
        with contextlib.suppress(Gone), _Asking(self):  # gone before: that is what was wanted
            actor = self._there()
            ray.kill(actor, no_restart=True)
        deadline = time.monotonic() + DYING_SECONDS
        while actor is not None and self._named() == actor:
            if time.monotonic() > deadline:
                raise OwnerUnavailable(
                    f"it was killed {DYING_SECONDS:g} s ago and is still there", self.name, "look at its node"
                )
            time.sleep(0.02)
        self._actor = None

    def crash(self) -> None:
        """Have its process end at once, as a crash does: Ray starts it again. Raises ``Gone``."""
        with _Asking(self):
            ray.kill(self._there(), no_restart=False)

    # --- the actor --------------------------------------------------------------------------------------------------------------

    def _there(self) -> Any:
        if self._actor is None:
            self._actor = self._made() if self._post.may_make else self._found()
        return self._actor

    def _named(self) -> Any:
        """The actor that has the name now, or None."""
        try:
            return ray.get_actor(f"{self._post.ledger}/{self.name}", namespace=NAMESPACE)
        except ValueError:
            return None

    def _found(self) -> Any:
        if (actor := self._named()) is None:
            what = "no owner of this ledger is running, and its file is not on this node"
            raise Gone(what, self.name, "open it on its node first")
        return actor

    def _made(self) -> Any:
        post = self._post
        where = NodeAffinitySchedulingStrategy(post.node, soft=False) if post.node else "DEFAULT"
        options = _actor_class().options(
            name=f"{post.ledger}/{self.name}", namespace=NAMESPACE, get_if_exists=True, scheduling_strategy=where,
            lifetime="detached" if post.lifetime == "detached" else None, max_restarts=-1, max_task_retries=-1,
            enable_task_events=False,
        )  # fmt: skip
        arguments = self.name, post.open_store, post.new_owner
        for _ in range(MOST_STARTS - 1):
            actor = options.remote(*arguments, cluster=name_here())
            try:  # one that was found may be about to go: a kill takes effect later, and then it is made again
                ray.get(actor.__ray_ready__.remote(), timeout=READY_SECONDS)
            except ActorDiedError:
                continue
            except GetTimeoutError:
                pass  # it takes its time: whoever asks waits as long as they may
            return actor
        return options.remote(*arguments, cluster=name_here())

    def forget(self) -> None:
        """The actor is gone: look for it again at the next use."""
        self._actor = None


class Remote:
    """An object of ``kind`` in a process of its own on this node, which takes no core from others. ``kind`` is importable."""

    def __init__(self, kind: type, *arguments: object) -> None:
        remote: Any = ray.remote
        where = NodeAffinitySchedulingStrategy(node_here(), soft=False)
        self._actor = remote(kind).options(num_cpus=0, scheduling_strategy=where).remote(*arguments)
        self._asked: Any = None

    def hear(self, method: str, seconds: float) -> Any:
        """What ``method`` answers, or None when that takes longer: the next call then waits for the same answer. Raises
        ``OwnerUnavailable`` when the process is gone or the method failed."""
        if self._asked is None:
            self._asked = getattr(self._actor, method).remote()
        try:
            answer = ray.get(self._asked, timeout=seconds)
        except GetTimeoutError:
            return None
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            raise OwnerUnavailable(f"a process on Ray failed ({_first_line(cause)})", "", "try again") from error
        self._asked = None
        return answer

    def end(self) -> None:
        """End the process."""
        ray.kill(self._actor)


class _Asking:
    """What Ray's errors mean, whatever was asked of it. ``raises``: errors of the actor's own method pass as themselves."""

    def __init__(self, seat: Seat, *, raises: bool = False) -> None:
        self._seat, self._raises = seat, raises

    def __enter__(self) -> None:
        if not ray.is_initialized():  # any call would start a new cluster by itself
            raise Gone(
                "Ray was shut down in this process", self._seat.name, "call ray.init(), then open the Runtime again"
            )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        cause = getattr(error, "cause", None)
        if self._raises and isinstance(cause, Exception):  # RayTaskError: the method's own
            raise cause from None
        if isinstance(error, GetTimeoutError):
            raise Gone("the owner took too long to answer", self._seat.name) from None
        if isinstance(error, RayError | ConnectionError):
            for_good = not isinstance(error, ActorUnavailableError)
            if for_good:
                self._seat.forget()
            what = f"the owner's actor gave no answer ({_first_line(error)})"
            raise Gone(what, self._seat.name, for_good=for_good) from None


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
