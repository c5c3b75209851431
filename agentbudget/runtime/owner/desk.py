"""Where the letters of a mailbox are decided: everything that waits, in one transaction (``local_host.py`` has the thread)."""

from __future__ import annotations

import queue
import threading
import time
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from agentbudget.account.decision import Done
from agentbudget.errors import AgentBudgetError, OwnerUnavailable
from agentbudget.ledger.loading import fenced
from agentbudget.runtime.host import Beat, Beaten
from agentbudget.runtime.machine.wire import Publish, may_be_sent_again, may_have_been_carried_out
from agentbudget.runtime.owner.mailbox import OTHERS, SWEEP, Letter, Mailbox, Sheet, traces_of
from agentbudget.runtime.owner.owner import MAX_BATCH, Owner, Reply, Request, again
from agentbudget.runtime.owner.recalls import Recalls
from agentbudget.runtime.watching import handled

TICK_SECONDS: Final = 1.0
"""How often overdue holds and idle customers are looked at while a customer is loaded (DESIGN.md §4: heartbeat)."""
_FENCED: Final = fenced(1, "").what


class Fenced(Exception):
    """Another owner has taken the ledger over; this one's last transaction was refused whole."""

    def __init__(self, refusal: OwnerUnavailable) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def no_answer(answer: object) -> None:
    """For a letter that nobody waits for."""


def _is_no_sheet(letter: Letter) -> bool:
    return type(letter[1]) is not Sheet


class Desk:
    """Where letters are decided: by the owner's thread in a loop, by another that has some when it finds nobody here.
    ``_turn`` is held by who decides; the owner's thread waits for it, nobody else does."""

    __slots__ = (
        "_error", "_is_closing", "_is_wanted", "_letters", "_mailbox", "_next_tick", "_open", "_over", "_owner",
        "_recalls", "_turn",
    )  # fmt: skip

    def __init__(self, mailbox: Mailbox, owner: Owner) -> None:
        self._mailbox, self._letters, self._owner = mailbox, mailbox.letters, owner
        self._next_tick = time.monotonic() + TICK_SECONDS
        self._is_closing, self._recalls = False, Recalls()
        self._over: Letter | None = None
        self._open: list[Letter] = []
        self._turn, self._is_wanted = threading.Lock(), False
        self._error: BaseException | None = None

    def serve(self) -> None:
        """Until the letter that closes has come; everything before it is answered. Raises the refusal when another
        owner has taken the ledger over, and whatever else ended the owner."""
        while not self._round():
            pass

    def attempt(self, letters: list[Letter]) -> bool:
        """Decide these letters now, on this thread; False, and nothing is done, while another thread decides or others
        waited before. Never raises: what ends the owner ends its own thread."""
        if self._is_wanted or not self._turn.acquire(blocking=False):
            return False
        try:
            if self._is_closing or self._error is not None or not self._letters.empty():
                return False
            had_customers = self._owner.has_customers
            self._settle(letters)
            if not had_customers:
                self._letters.put(("", SWEEP, no_answer))  # the owner's thread sleeps without a tick
        except BaseException:
            self._letters.put(("", SWEEP, no_answer))  # it finds the error
        finally:
            self._turn.release()
        return True

    def _round(self) -> bool:
        """One transaction and what else has come; whether it is time to close."""
        letters = self._gather()
        self._is_wanted = True
        with self._turn:
            self._is_wanted = False
            if self._error is not None:
                self._put_back(letters)
                raise self._error
            self._settle(letters)
            if time.monotonic() >= self._next_tick:
                self._tick()
            return self._is_closing and self._over is None

    def _settle(self, letters: list[Letter]) -> None:
        """Decide and answer, with the turn. What this raises has ended the owner."""
        letters.sort(key=_is_no_sheet)  # what is in one batch is concurrent, and commands of sheets need no checking
        self._open = letters[::-1]  # popped from its end, one by one, as they are answered
        try:
            self._answer(letters)
        except BaseException as error:
            self._error = error
            self._give_up(error)
            raise

    def _tick(self) -> None:
        self._next_tick = time.monotonic() + TICK_SECONDS
        try:
            self._owner.tick()
        except BaseException as error:
            self._error = error  # before anybody else has the turn
            raise

    def _put_back(self, letters: list[Letter]) -> None:
        """Nobody has begun with these; who gives the ledger up answers them."""
        for letter in (*letters, *([] if self._over is None else [self._over])):
            self._letters.put(letter)

    def _gather(self) -> list[Letter]:
        """Everything that waits, as far as one transaction takes it; blocks for the first letter, or until the next
        tick."""
        patience = max(self._next_tick - time.monotonic(), 0) if self._owner.has_customers else None
        letter, self._over = self._over, None
        batch: list[Letter] = []
        room = MAX_BATCH
        try:
            letter = letter if letter is not None else self._letters.get(timeout=patience)
            while True:
                what = letter[1]
                room -= len(what.requests) if type(what) is Sheet else 1
                if room < 0 and batch:
                    self._over = letter
                    return batch
                batch.append(letter)
                letter = self._letters.get_nowait()
        except queue.Empty:
            return batch

    def _answer(self, letters: list[Letter]) -> None:
        replies = iter(self._decide(letters))
        for _, what, done in letters:
            if type(what) is Sheet:
                answers = [next(replies) for _ in what.requests]
                beaten = self._other(what)
                self._open.pop()
                what.done(answers, beaten)
            else:
                answer = self._said(what) if type(what) in OTHERS else next(replies)
                self._open.pop()
                done(answer)

    def _decide(self, letters: list[Letter]) -> list[Reply]:
        requests: list[Request] = []
        checked = 0
        for customer, what, _ in letters:
            if type(what) is Sheet:
                requests += what.requests
                checked = len(requests)
            elif type(what) not in OTHERS:
                requests.append((customer, what))  # type: ignore[arg-type]
        if not requests:
            return []
        replies = handled(
            self._owner.name, requests, partial(traces_of, letters),
            partial(self._owner.handle, requests, checked=range(checked)),
        )  # fmt: skip
        first = replies[0]
        if isinstance(first, OwnerUnavailable) and first.what == _FENCED:
            raise Fenced(first)
        if self._recalls.are_in(requests, replies):
            self._tell()
        return replies

    def _said(self, what: Any) -> Any:
        """The answer to what is no command."""
        match what:
            case Beat():
                return self._beaten(what)
            case Publish():
                ordinal = self._mailbox.publish(what)
                self._tell()
                return ordinal
            case "sweep":
                self._owner.tick()
            case "close":
                self._is_closing = True
        return Done()

    def _other(self, sheet: Sheet) -> Beaten | AgentBudgetError | None:
        """What a frame says beside its commands."""
        if sheet.publish is not None:
            self._said(sheet.publish)
        if sheet.sweep:
            self._owner.tick()
        return self._beaten(sheet.beat) if sheet.beat is not None else None

    def _beaten(self, beat: Beat) -> Beaten | AgentBudgetError:
        """The owner's word, and the newest catalog for a process that has an older one."""
        try:
            beaten = self._owner.beat(beat)
        except OwnerUnavailable as error:
            return again(error)
        newest = self._mailbox.catalog
        document = newest.document if newest.ordinal > beat.catalog else b""
        return replace(beaten, catalog=newest.ordinal, document=document)

    def _tell(self) -> None:
        for callback in self._mailbox.on_nudge:
            callback()

    def _give_up(self, error: BaseException) -> None:
        """What was taken and not answered. A refused transaction did nothing; else nobody knows what was done: what may be
        said twice goes to the next owner, and another process learns by the end of its connection."""
        what = f"the owner died ({type(error).__name__}: {error})"
        why = OwnerUnavailable(what, self._mailbox.name, "send it again with the same key")
        for letter in reversed(self._open):
            if isinstance(error, Fenced):
                self._mailbox.refuse(letter, error.refusal)
            elif isinstance(letter[1], Sheet):
                continue
            elif may_be_sent_again(letter[1]):
                self._mailbox.refuse(letter, why)
            else:
                letter[2](may_have_been_carried_out(self._mailbox.name))
