"""What a ledger must say about what was heard. Arithmetic of its own over the entries' bodies; it knows no account."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from agentbudget import Runtime
from agentbudget.ledger import Archive
from agentbudget.ledger.entry import Entry, decode
from tests.crash.setting import CUSTOMERS, THREADS

Fact = tuple[str, str, int]
"""Customer, key of the entry, nanocredits."""


class Witness:
    """Reads a ledger cycle by cycle. ``facts``: everything that any process was answered."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.figures: Counter[str] = Counter()
        self._nano: dict[tuple[str, str], int] = {}
        self._holds: dict[tuple[str, str], dict[str, Any]] = {}
        self._ends: dict[tuple[str, str], dict[str, Any]] = {}
        self._policy: dict[tuple[str, str], str] = {}
        self._charged: Counter[str] = Counter()
        self._read: dict[str, int] = {}
        self.newest_us = 0

    def check_facts(self, archive: Archive, heard: list[list[Any]]) -> None:
        """L1, L4: every fact of this cycle is there with its amount, and little that nobody heard of is."""
        new = {(customer, key) for customer in CUSTOMERS for key in self._read_on(archive, customer)}
        facts = [(customer, key, nano) for customer, key, nano in heard]
        assert len({fact[:2] for fact in facts}) == len(facts)
        lost = [fact for fact in facts if self._nano.get(fact[:2]) != fact[2]]
        assert lost == [], "acknowledged facts were lost or changed"
        unheard = new - {fact[:2] for fact in facts} - {(customer, "customer") for customer in CUSTOMERS}
        assert len(unheard) <= THREADS, f"each thread waits for one answer, yet nobody heard of {unheard}"
        self.facts += facts
        self.figures.update(acknowledged=len(facts), unheard=len(unheard))

    def check_again(self) -> None:
        """Every fact of every cycle."""
        assert [fact for fact in self.facts if self._nano.get(fact[:2]) != fact[2]] == []

    def check_lapses(self, runtime: Runtime) -> None:
        """L5: after its ttl no hold of a dead process is open, and each ended by its session's policy, once.

        A last transaction that reached the log, but not its index in shared memory, is seen only after the next writer has
        recovered the log. Nobody was answered, so its ends are as good as any that nobody heard of.
        """
        surfaced = 0
        for customer in CUSTOMERS:
            assert runtime.customer(customer).link.read("holds") == ()
            open_before = {step for step in self._holds if step[0] == customer} - set(self._ends)
            self._read_on(runtime.archive, customer)
            for step in open_before:
                if self._ends[step].get("cause") != "silent":
                    surfaced += 1
                else:
                    self._check_lapse(step, self._ends[step])
        assert set(self._ends) == set(self._holds)
        assert surfaced <= THREADS, "each thread waits for one answer"
        self.figures["unheard"] += surfaced

    def _check_lapse(self, step: tuple[str, str], end: dict[str, Any]) -> None:
        hold = self._holds[step]
        charged = hold["dispatched"] and self._policy[step[0], hold["session"]] == "charge"
        due = ("unknown", hold["amount"]) if charged else ("lapsed", 0)
        assert (end["state"], end["amount"]) == due, f"{step}: {hold} ended as {end}"
        self.figures["lapsed charged" if charged else "lapsed free"] += 1

    def check_books(self, runtime: Runtime) -> None:
        """L2, L6, L7: the chain, both folds, the identity of each grant, and what the entries' bodies sum to."""
        assert runtime.ledger.verify().ok
        assert runtime.ledger.reconcile() == []
        for customer in CUSTOMERS:
            balance = runtime.customer(customer).wallet.balance()
            assert balance.held.nano == 0
            for grant in balance.grants:
                parts = (grant.available, grant.held, grant.consumed, grant.expired, grant.voided)
                assert grant.issued.nano == sum(part.nano for part in parts)
            assert balance.consumed.nano == self._charged[customer]

    # --- reading on ---------------------------------------------------------------------------------------------------

    def _read_on(self, archive: Archive, customer: str) -> list[str]:
        """Take in the entries since the last look; the keys among them that holders asked for."""
        keys = []
        for sealed in archive.entries(customer, after=self._read.get(customer, 0)):
            entry = decode(sealed.record)
            body = msgspec.json.decode(entry.body)
            self._read[customer] = entry.seq
            self.newest_us = max(self.newest_us, entry.time_us)
            self._take(customer, entry, body)
            if entry.key is not None:
                assert (customer, entry.key) not in self._nano, f"{entry.key} has two entries"
                self._nano[customer, entry.key] = _nano_of(entry, body)
                if body.get("cause") != "silent":
                    keys.append(entry.key)
        return keys

    def _take(self, customer: str, entry: Entry, body: dict[str, Any]) -> None:
        match entry.kind:
            case "session_opened":
                self._policy[customer, body["session"]] = body["on_unknown"]
            case "hold_opened":
                assert (customer, body["step"]) not in self._holds
                self._holds[customer, body["step"]] = body
            case "hold_settled":
                self._charged[customer] += body["amount"]
                if body.get("part") is None:
                    assert (customer, body["step"]) not in self._ends
                    self._ends[customer, body["step"]] = body
                else:
                    self._holds[customer, body["step"]]["amount"] -= body["amount"]


def _nano_of(entry: Entry, body: dict[str, Any]) -> int:
    """The amount that the answer of this entry stated."""
    if entry.kind == "session_opened":
        return int(body["budget"])
    if entry.kind == "hold_settled":
        return int(sum(nano for _, nano in body.get("before", ())) + body["amount"])
    return int(body.get("amount", 0))
