"""SQLite's loop: make the first call fail, then the second, ... until all succeed; before and after it took effect.

The client below does what every owner must: after any failure it trusts nothing it remembers, loads again, and repeats
the command with the same key.
"""

from __future__ import annotations

import itertools

import pytest

from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger import Batch, Draft, Sealed, genesis, seal, verify
from agentbudget.testing import MemoryJournal, MemoryStore, SampleBody, sample_chain

COMMANDS = 6


def run_command(journal: MemoryJournal, key: str) -> Sealed:
    """Append one entry for a key, unless the key has its entry already."""
    known = journal.find([("acme", key)])
    if known:
        return known["acme", key]
    loaded = journal.load("acme")
    last = list(loaded.entries)[-1] if loaded is not None else None
    seq, prev = (last.seq + 1, last.hash) if last is not None else (1, genesis("acme"))
    entry = seal(Draft("acme", seq, seq, "command", (), SampleBody(), key=key), prev)
    journal.commit(Batch(entries=[entry]))
    return entry


def run_all(store: MemoryStore, *, fail_at: int, after: bool) -> tuple[list[Sealed], int]:
    """Run every command to its answer, restarting after each failure; the answers, and the calls of the first
    journal."""
    journal = first = MemoryJournal(store)
    first.fail_at(fail_at, after=after)
    answers: list[Sealed] = []
    claimed = False
    while len(answers) < COMMANDS:
        try:
            if not claimed:
                journal.claim("the test")
                claimed = True
            answers.append(run_command(journal, f"command-{len(answers)}"))
        except OwnerUnavailable:
            journal, claimed = MemoryJournal(store), False
    return answers, first.calls


@pytest.mark.parametrize("after", [False, True])
def test_L1_L4_a_failure_at_any_call_loses_and_doubles_nothing(after: bool) -> None:
    for n in itertools.count(1):
        store = MemoryStore()
        answers, calls = run_all(store, fail_at=n, after=after)
        assert [(entry.seq, entry.key) for entry in answers] == [(i + 1, f"command-{i}") for i in range(COMMANDS)]
        assert store.entries["acme"] == answers
        if calls < n:
            break  # the whole run needed fewer calls than n: every one of them has failed once
    assert n > 2 * COMMANDS


def test_a_planted_failure_says_which_it_was() -> None:
    journal = MemoryJournal()
    journal.claim("the test")
    journal.fail_at(2, after=True)
    journal.commit(Batch(entries=sample_chain("acme", 1)))
    with pytest.raises(OwnerUnavailable, match="after the call took effect"):
        journal.commit(Batch(entries=sample_chain("acme", 2)[1:]))
    report = verify(journal.entries("acme"))
    assert (report.ok, report.entries) == (True, 2)
