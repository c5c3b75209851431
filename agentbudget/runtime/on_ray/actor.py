"""An owner as a Ray actor: the calls that it takes, one at a time, and what it does by itself once a second.

The class knows nothing of Ray, so that it can be driven in a test. Ray's queue of a synchronous actor is the mailbox: each
process has one call under way, which carries everything that waited in it, and is answered after one commit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from agentbudget import telemetry
from agentbudget.account.commands import Command
from agentbudget.clock import SECOND_US, Clock, SystemClock
from agentbudget.errors import AgentBudgetError, InvalidRequest, InvariantBroken, OwnerUnavailable
from agentbudget.ledger.store import Store
from agentbudget.runtime import watching
from agentbudget.runtime.host import Beat, Beaten
from agentbudget.runtime.machine import wire
from agentbudget.runtime.machine.answers import SentNothing, to_send
from agentbudget.runtime.on_ray import wire as ray_wire
from agentbudget.runtime.on_ray.shards import Replaced, Shards
from agentbudget.runtime.owner.living import Living
from agentbudget.runtime.owner.mailbox import NO_CATALOG, Mailbox
from agentbudget.runtime.owner.owner import Owner, Reply, Request
from agentbudget.runtime.owner.recalls import Recalls

_log = logging.getLogger("agentbudget")

TICK_SECONDS: Final = 1.0
SILENT_US: Final = 10 * SECOND_US
"""A process that has said nothing for so long is gone, and so are its steps; it says something every second."""
IDLE_US: Final = 30 * SECOND_US
"""An owner that serves no process gives the ledger up after so long, so that a program without Ray can open it."""
GRACE_SECONDS: Final = 3.0
"""After a start every step counts as worked on for so long: each process says within a second on which it works."""
LISTEN_SECONDS: Final = 10.0
"""How long a call waits for news. All that wait are told at once: when one returns, the next finds the news at once."""
STATUS_SECONDS: Final = 1.0
REPLACED_STATUS: Final = 70
"""Exit status of a process whose shards a newer incarnation has taken."""


class RayOwner:
    """``name``: of this owner of the ledger. ``open_store`` opens the ledger to write it; ``new_owner`` makes the owner, as
    for ``LocalHost``. ``cluster``: a name for the Ray cluster. Nothing is opened before the first call, so that whoever makes it
    is told what is wrong."""

    def __init__(
        self,
        name: str,
        open_store: Callable[[], Store],
        new_owner: Callable[..., Owner] = Owner,
        clock: Clock | None = None,
        cluster: str = "",
    ) -> None:
        telemetry.start()
        self._clock = clock or SystemClock()
        self._new_shards = partial(Shards, name, cluster, open_store, self._clock)
        self._new_owner = new_owner
        self._lock, self._news_lock = threading.Lock(), threading.Condition()
        self._begin()
        threading.Thread(target=self._tick_on, name="agentbudget-tick", daemon=True).start()

    def _begin(self) -> None:
        """Know of nobody and have nothing."""
        self._living, self._recalls = Living(), Recalls()
        self._living.took_over(GRACE_SECONDS)
        self._mailbox = Mailbox(self._living, NO_CATALOG)  # for its catalog only: Ray keeps the letters
        self._shards = self._new_shards(partial(self._new_owner, live=self._living))
        self._news, self._served = 0, 0
        self._heard: dict[str, int] = {}
        self._busy_us = self._clock.monotonic_us()
        self._is_over, self._other_cluster = False, ""

    # --- calls ----------------------------------------------------------------------------------------------------------------

    def serve(self, message: bytes) -> bytes:
        """What a process says, decided and durable: a message of ``wire.py`` each way."""
        with self._lock:
            return ray_wire.encode(self._reply(message))

    def listen(self, owner: str, news: int) -> tuple[str, int]:
        """Wait for news beyond what the caller has heard from that incarnation."""
        deadline = time.monotonic() + LISTEN_SECONDS
        with self._news_lock:
            while owner == self._shards.full_name and self._news <= news and time.monotonic() < deadline:
                self._news_lock.wait(deadline - time.monotonic())
            return self._shards.full_name, self._news

    def status(self) -> dict[str, Any]:
        """How it is, for people and for moving shards; answered within a second even while it is busy."""
        found = {
            "name": self._shards.name, "owner": self._shards.full_name, "served": self._served, "pid": os.getpid(),
            "busy": True, "processes": len(self._heard),
        }  # fmt: skip
        if self._lock.acquire(timeout=STATUS_SECONDS):
            try:
                owner = self._shards.owner
                found |= {
                    "busy": False, "open": owner is not None, "held": sorted(self._shards.held),
                    "is_sharded": self._shards.is_sharded,
                }  # fmt: skip
            finally:
                self._lock.release()
        return found

    def owners(self) -> dict[int, str]:
        """By shard, who has it as the ledger says. Raises what opening the ledger raises."""
        with self._lock:
            return self._shards.owners()

    def take(self, shards: Sequence[int]) -> list[int]:
        """Take shards from whoever has them; what is held then."""
        with self._lock:
            self._shards.open()
            self._shards.take(shards)
            return sorted(self._shards.held)

    def let_go(self, shards: Sequence[int]) -> list[int]:
        """Put the customers of shards away; what is held then. Who takes them next is said by ``take`` of another."""
        with self._lock:
            self._shards.open()
            self._shards.let_go(shards)
            return sorted(self._shards.held)

    def leave(self) -> None:
        """Write snapshots, give the ledger up and forget everybody. The next call begins anew."""
        with self._lock:
            self._close()
            self._begin()

    # --- one message -----------------------------------------------------------------------------------------------------------

    def _reply(self, message: bytes) -> ray_wire.FromOwner:
        if self._is_over or self._other_cluster:
            return ray_wire.refused(self._replaced())
        said = ray_wire.read_said(message, self._shards.full_name)
        if isinstance(said, AgentBudgetError):
            return ray_wire.refused(said)
        self._hear(said)
        try:
            return self._carry_out(said.batch)
        except Replaced as replaced:
            self._give_way(replaced)
            return ray_wire.refused(self._replaced())
        except AgentBudgetError as error:
            return ray_wire.refused(error)
        except Exception as error:  # opening: a driver's error, a disk's
            _log.exception("the owner %s cannot serve", self._shards.full_name)
            what = f"the owner failed ({type(error).__name__}: {error})"
            return ray_wire.refused(OwnerUnavailable(what, self._shards.full_name, "send it again with the same key"))

    def _hear(self, said: ray_wire.Said) -> None:
        self._busy_us = self._clock.monotonic_us()
        if said.leaving:
            self._living.leave(said.process)
            self._heard.pop(said.process, None)
            return
        self._heard[said.process] = self._busy_us
        if said.batch.living or said.batch.gone:
            self._living.change(said.process, said.batch.living, said.batch.gone)

    def _carry_out(self, batch: wire.Batch) -> ray_wire.Served:
        self._shards.open()
        moved: dict[int, str] = {}
        found = [(customer, wire.unpacked(data)) for customer, data in batch.commands]
        requests: list[Request] = [(name, what) for name, what in found if not isinstance(what, InvalidRequest)]
        traces = [
            trace for trace, (_, what) in zip(batch.traces, found, strict=False) if not isinstance(what, InvalidRequest)
        ]
        handle = partial(self._shards.handle, requests, moved)
        replies = watching.handled(self._shards.full_name, requests, lambda: traces, handle) if requests else []
        self._served += len(requests)
        self._note_recalls(requests, replies)
        beaten = self._other(batch, moved)
        came = iter(replies)
        answers = [what if isinstance(what, InvalidRequest) else next(came) for _, what in found]
        unheard = to_send(beaten) if isinstance(beaten, AgentBudgetError) else None
        told = wire.Answers(
            [_sent(answer) for answer in answers],
            None if isinstance(beaten, AgentBudgetError) else beaten,
            self._mailbox.catalog.ordinal,
            unheard,
        )
        return ray_wire.Served(self._shards.full_name, self._news, list(moved.items()), told)

    def _note_recalls(self, requests: list[Request], replies: Sequence[Reply | None]) -> None:
        answered: list[tuple[tuple[str, Command], Reply]] = [
            (request, reply) for request, reply in zip(requests, replies, strict=True) if reply is not None
        ]
        if self._recalls.are_in([request for request, _ in answered], [reply for _, reply in answered]):
            self._tell()

    def _other(self, batch: wire.Batch, moved: dict[int, str]) -> Beaten | AgentBudgetError | None:
        """What a message says beside its commands."""
        if batch.publish is not None:
            self._mailbox.publish(batch.publish)
            self._tell()
        if batch.sweep:
            self._shards.open().tick()
        return self._beaten(batch.beat, moved) if batch.beat is not None else None

    def _beaten(self, beat: Beat, moved: dict[int, str]) -> Beaten | AgentBudgetError:
        beaten = self._shards.beat(beat, moved)
        if isinstance(beaten, AgentBudgetError):
            return beaten
        newest = self._mailbox.catalog
        document = newest.document if newest.ordinal > beat.catalog else b""
        return msgspec.structs.replace(beaten, catalog=newest.ordinal, document=document)

    def _tell(self) -> None:
        with self._news_lock:
            self._news += 1
            self._news_lock.notify_all()

    def _give_way(self, replaced: Replaced) -> None:
        """This process ends: its successor has the name. Not where that is on another cluster: what Ray starts here in its place
        would take everything back, and so would theirs, without end."""
        self._is_over, self._other_cluster = not replaced.cluster, replaced.cluster
        if replaced.cluster:
            _log.error("%s", self._replaced())
            self._close()

    def _replaced(self) -> OwnerUnavailable:
        name = self._shards.full_name
        if not self._other_cluster:
            return OwnerUnavailable(
                "a newer incarnation of this owner has its shards", name, "send it again with the same key"
            )
        return OwnerUnavailable(
            f"another Ray cluster ({self._other_cluster}) has taken this ledger over, and one cluster may own it", name,
            "end its programs there, then run `agentbudget owners drain` for this owner here; or give each cluster a ledger "
            "of its own",
        )  # fmt: skip

    # --- by itself --------------------------------------------------------------------------------------------------------------

    def _tick_on(self) -> None:
        while not self._is_over:
            time.sleep(TICK_SECONDS)
            try:
                with self._lock:
                    self._tick()
            except Exception:
                _log.exception("the owner %s met a bug; it goes on", self._shards.full_name)
        os._exit(REPLACED_STATUS)  # whoever talks to this process would wait for nothing

    def _tick(self) -> None:
        now_us = self._clock.monotonic_us()
        for process in [process for process, at_us in self._heard.items() if now_us - at_us > SILENT_US]:
            self._living.leave(process)
            del self._heard[process]
        owner = self._shards.owner
        if owner is not None and not self._heard and now_us - self._busy_us > IDLE_US:
            return self._close()
        if owner is not None and owner.has_customers:
            owner.tick()

    def _close(self) -> None:
        with contextlib.suppress(
            AgentBudgetError
        ):  # snapshots only save reading, and the ledger is given up all the same
            self._shards.close()


def _sent(answer: Reply | None) -> Any:
    """An answer as it travels; a bug in one must not keep the others from theirs."""
    if answer is None:
        return SentNothing()
    try:
        return to_send(answer)
    except Exception as error:
        _log.exception("an answer could not be written")
        return to_send(InvariantBroken("L4", f"an answer could not be written ({type(error).__name__})"))
