"""The host of a read-only runtime: answers reads by folding the archive, and refuses everything that would write.

It needs no owner and takes no lock, so the command line reads beside whoever writes. What it answers is as of the
newest entry, plus what time alone has brought since."""

from __future__ import annotations

from collections.abc import Callable

from agentbudget.account.commands import Command, Explain, Read
from agentbudget.account.decision import Answer
from agentbudget.clock import Clock
from agentbudget.errors import AgentBudgetError, InvalidRequest, OwnerUnavailable
from agentbudget.ledger.journal import Archive
from agentbudget.runtime.host import Beat, Beaten, OnAnswer, no_answer_within
from agentbudget.runtime.owner.folding import account_of


class ReadHost:
    """See :class:`agentbudget.runtime.host.Host`."""

    timeout_seconds = 30.0

    def __init__(self, archive: Archive, clock: Clock) -> None:
        self._archive, self._clock = archive, clock
        self.live: set[str] = set()

    @property
    def owner(self) -> str:
        """A reader asks no owner."""
        return ""

    def ask(self, customer: str, command: Command, timeout_seconds: float | None = None) -> Answer:
        if not isinstance(command, Read | Explain):
            raise InvalidRequest(
                f"this runtime is read-only, so {type(command).__name__} is refused: open the ledger without read_only",
                "read_only",
            )
        outcome = account_of(self._archive, customer).handle(command, now_us=self._clock.now_us(), hits={})
        if outcome.error is not None:
            raise outcome.error
        assert outcome.answer is not None  # an outcome has one of the two
        return outcome.answer

    @property
    def is_owner(self) -> bool:
        """A reader writes nothing."""
        return False

    def late(self, seconds: float) -> OwnerUnavailable:
        """It answers at once, so this is never raised."""
        return no_answer_within(seconds)

    def submit(self, customer: str, command: Command, done: OnAnswer) -> None:
        try:
            done(self.ask(customer, command))
        except AgentBudgetError as error:
            done(error)

    def beat(self, beat: Beat) -> Beaten:
        """A reader holds nothing that could be asked back."""
        return Beaten()

    def on_nudge(self, callback: Callable[[], None]) -> None:
        """Nothing is asked of a reader."""

    def publish_catalog(self, document: bytes) -> int:
        """A reader's catalog is its own."""
        return 0

    def sweep(self) -> None:
        """Nothing is overdue for a reader."""

    def close(self) -> None:
        """Nothing to give up: the archive belongs to the runtime."""
