"""A customer's state with the indexes that make it quick."""

from __future__ import annotations

from agentbudget.account.admission import Judge
from agentbudget.account.lanes import Lanes
from agentbudget.account.leases import Leases
from agentbudget.account.limits import LimitBook
from agentbudget.account.recall import Recalls
from agentbudget.account.sessions import Rooms
from agentbudget.account.state import Refusals, State
from agentbudget.account.wallet import Wallet


class Books:
    """Owned by one account. All but ``state``, ``refusals`` and the tickets of ``recalls`` can be built again from the state.

    ``next_close_us``: no session is over by its time to live before then."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.wallet = Wallet(state)
        self.limits = LimitBook(state)
        self.rooms = Rooms(state, self.limits)
        self.judge = Judge(state, self.wallet, self.limits, self.rooms)
        self.lanes = Lanes(state, self.wallet, self.limits, self.rooms, self.judge)
        self.leases = Leases(state, self.rooms)
        self.recalls = Recalls(state, self.wallet, self.limits, self.rooms, self.leases)
        self.refusals: dict[str, Refusals] = {}
        self.next_close_us = 0
