"""Who may write: one owner of all, or owners of shards; what a second process is told; and the fence, with the old owner
still writing (split brain)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from agentbudget.errors import OwnerUnavailable
from agentbudget.ledger import Batch, Sealed, verify_ledger
from agentbudget.ledger.postgres import statements
from agentbudget.ledger.postgres.journal import COPY_FROM, PostgresJournal
from agentbudget.ledger.shards import SHARDS, ShardedStore, shard_of
from agentbudget.testing import sample_chain
from tests.ledger.places import PostgresPlace
from tests.ledger.test_one_writer import in_a_forked_child, in_another_process

T = TypeVar("T")
ALL = range(SHARDS)
FENCED = "took the ledger over"


def owner_of(place: PostgresPlace, name: str, shards: Iterator[int] | range | list[int] = ALL) -> PostgresJournal:
    """An owner of shards beside others."""
    opened = place.open()
    opened.take(name, list(shards))
    return opened


def patiently(do: Callable[[], T]) -> T:
    """Ask again as a host does: on a busy machine the hung owner's end may come later than one call waits for it."""
    for _ in range(10):
        with contextlib.suppress(OwnerUnavailable):
            return do()
    return do()


def ids_in(shard: int, count: int = 1) -> list[str]:
    """Customers of a shard."""
    return [name for name in (f"c{n}" for n in range(10_000)) if shard_of(name) == shard][:count]


# --- a second process ---------------------------------------------------------------------------------------------------

OPENING = """
    import sys
    from agentbudget import OwnerUnavailable, Runtime
    try:
        Runtime.open(sys.argv[1])
    except OwnerUnavailable as error:
        print(error)
    """


def test_a_second_process_is_refused_and_told_who_writes_and_what_to_do(
    place: PostgresPlace, journal: PostgresJournal
) -> None:
    refused = in_another_process(OPENING, place.url)
    assert f"process {os.getpid()} on {os.uname().nodename[:20]}" in refused
    assert "since 20" in refused
    assert "read_only=True" in refused
    assert "host='ray'" in refused
    journal.commit(Batch(entries=sample_chain("acme", 1)))


def test_another_process_reads_while_this_one_writes(place: PostgresPlace, journal: PostgresJournal) -> None:
    journal.commit(Batch(entries=sample_chain("acme", 5)))
    reading = """
        import sys
        from agentbudget import Runtime
        with Runtime.open(sys.argv[1], read_only=True) as runtime:
            print(runtime.ledger.verify().entries)
        """
    assert in_another_process(reading, place.url) == "5"
    journal.commit(Batch(entries=sample_chain("zeta", 1)))


def test_a_killed_owner_stops_nobody(place: PostgresPlace) -> None:
    program = """
        import os, signal, sys
        from agentbudget.ledger import Batch, open_journal
        from agentbudget.testing import sample_chain
        journal = open_journal(sys.argv[1])
        journal.claim("doomed")
        journal.commit(Batch(entries=sample_chain("acme", 4)))
        os.kill(os.getpid(), signal.SIGKILL)
        """
    command = [sys.executable, "-c", textwrap.dedent(program), place.url]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    opened = place.open()
    assert opened.claim("next") == 2
    assert len(list(opened.entries("acme"))) == 4


def test_a_closed_owner_makes_room_at_once(place: PostgresPlace, journal: PostgresJournal) -> None:
    journal.close()
    assert place.open().claim("next") == 2


def test_a_forked_child_must_open_its_own_and_does_its_parent_no_harm(
    place: PostgresPlace, journal: PostgresJournal
) -> None:
    chain = sample_chain("acme", 3)
    journal.commit(Batch(entries=chain[:1]))
    for call in (lambda: journal.commit(Batch()), lambda: journal.claim("child"), lambda: journal.load("acme")):
        assert in_a_forked_child(call).startswith("OwnerUnavailable: this process was forked")
    assert in_a_forked_child(lambda: [one.seq for one in journal.entries("acme")]) == "[1]"
    assert in_a_forked_child(journal.close) == "None"
    journal.commit(Batch(entries=chain[1:]))
    assert list(journal.entries("acme")) == chain


def test_a_forked_child_that_lives_on_does_not_keep_the_ledger(place: PostgresPlace) -> None:
    """The server must notice the end of the parent although the child inherited its socket."""
    program = """
        import os, sys, time
        from agentbudget.ledger import open_journal
        journal = open_journal(sys.argv[1])
        journal.claim("the parent")
        if os.fork() == 0:
            os.close(1); os.close(2)
            time.sleep(20)
            os._exit(0)
        os._exit(0)
        """
    in_another_process(program, place.url)
    assert place.open().claim("next") == 2


# --- shards ---------------------------------------------------------------------------------------------------------------


def test_the_journal_is_a_sharded_store(journal: PostgresJournal) -> None:
    assert isinstance(journal, ShardedStore)


def test_owners_of_different_shards_write_side_by_side(place: PostgresPlace) -> None:
    one, other = owner_of(place, "one", [3, 5]), owner_of(place, "other", [4])
    for journal, shards in ((one, (3, 5)), (other, (4,))):
        journal.commit(Batch(entries=[entry for shard in shards for entry in sample_chain(ids_in(shard)[0], 2)]))
        journal.commit(Batch())
    assert one.owners() == {3: "one", 4: "other", 5: "one"}
    assert verify_ledger(one).entries == 6


def test_nobody_is_alone_beside_owners_of_shards_and_they_do_not_join_one_who_is(place: PostgresPlace) -> None:
    part = owner_of(place, "part", [1])
    with pytest.raises(OwnerUnavailable, match="open for writing in another place"):
        place.open().claim("all of it")
    part.close()
    place.open().claim("all of it")
    with pytest.raises(OwnerUnavailable, match="open for writing in another place"):
        owner_of(place, "part", [1])


def test_a_shard_is_taken_only_as_it_was_seen_so_that_of_two_who_look_at_once_one_gets_it(place: PostgresPlace) -> None:
    journals = [owner_of(place, f"owner {n}", []) for n in range(4)]
    owner_of(place, "somebody", [7])
    seen, taken = {7: "somebody"}, dict[int, list[int]]()
    barrier = threading.Barrier(len(journals))

    def take(number: int) -> None:
        barrier.wait()
        taken[number] = sorted(journals[number].take(f"owner {number}", [7, 9], seen))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(len(journals))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken.values()) == [[], [], [], [7, 9]]
    winner = next(number for number, shards in taken.items() if shards)
    assert journals[0].owners() == {7: f"owner {winner}", 9: f"owner {winner}"}
    journals[winner].commit(Batch())


def test_a_shard_that_was_not_taken_cannot_be_written(place: PostgresPlace) -> None:
    journal = owner_of(place, "one", [3])
    for shards in ((4,), (3, 4)):
        entries = [entry for shard in shards for entry in sample_chain(ids_in(shard)[0], 1)]
        with pytest.raises(OwnerUnavailable, match="never became the owner"):
            journal.commit(Batch(entries=entries))
    assert list(journal.customers()) == []


def test_a_batch_is_refused_whole_when_one_of_its_shards_is_anothers(place: PostgresPlace) -> None:
    one, other = owner_of(place, "one", [3, 5]), owner_of(place, "other", [])
    other.take("other", [5])
    three, five = sample_chain(ids_in(3)[0], 1), sample_chain(ids_in(5)[0], 1)
    with pytest.raises(OwnerUnavailable, match=FENCED) as refused:
        one.commit(Batch(entries=three + five))
    assert refused.value.owner == "other"
    assert list(one.customers()) == []
    with pytest.raises(OwnerUnavailable, match=FENCED):
        one.commit(Batch())
    one.give_up([5])
    one.commit(Batch())
    one.commit(Batch(entries=three))
    other.commit(Batch(entries=five))


def test_a_lost_session_comes_back_with_the_shards_that_are_still_its(place: PostgresPlace) -> None:
    one, other = owner_of(place, "one", [3, 5]), owner_of(place, "other", [4])
    other.take("other", [5])
    assert one._line is not None
    place.server.sql(f"SELECT pg_terminate_backend({one._line.backend}, 5000)")
    one.commit(Batch(entries=sample_chain(ids_in(3)[0], 1)))
    with pytest.raises(OwnerUnavailable, match=FENCED):
        one.commit(Batch(entries=sample_chain(ids_in(5)[0], 1)))


def test_a_whole_owner_whose_session_was_ended_and_whose_place_is_taken_is_fenced(
    place: PostgresPlace, journal: PostgresJournal
) -> None:
    rival = place.rival()
    rival.claim("the rival")
    for batch in (Batch(), Batch(entries=sample_chain("acme", 1))):
        with pytest.raises(OwnerUnavailable, match=FENCED) as refused:
            journal.commit(batch)
        assert refused.value.owner == "the rival"


# --- split brain ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, COPY_FROM])
def test_split_brain_the_old_owners_next_commit_is_refused(place: PostgresPlace, size: int) -> None:
    old, new = owner_of(place, "old"), owner_of(place, "new", [])
    chain = sample_chain("acme", size + 1)
    old.commit(Batch(entries=chain[:1]))
    new.take("new", ALL)
    with pytest.raises(OwnerUnavailable, match=FENCED) as refused:
        old.commit(Batch(entries=chain[1:]))
    assert refused.value.owner == "new"
    assert list(new.entries("acme")) == chain[:1]
    new.commit(Batch(entries=chain[1:]))
    assert list(new.entries("acme")) == chain


def test_split_brain_a_takeover_waits_for_the_commit_that_is_under_way_and_then_sees_it(
    place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old owner's statement has passed the fence and is held up behind it. Could it end after the takeover, the new owner
    would go on from an older state than the ledger's."""
    monkeypatch.setattr(statements, "BEGIN_CLAIM", statements.BEGIN_CLAIM.replace("'1s'", "'60s'"))
    old, new = owner_of(place, "old"), owner_of(place, "new", [])
    first, second = sample_chain("acme", 2)
    old.commit(Batch(entries=[first]))
    with place.server.connect(place.database) as other:
        other.autocommit = False
        other.execute(
            "INSERT INTO agentbudget.entries VALUES ('acme', 2, 0, NULL, '', '')"
        )  # undecided: is seq 2 taken?
        committing = threading.Thread(target=old.commit, args=(Batch(entries=[second]),))
        taking = threading.Thread(target=new.take, args=("new", ALL))
        for number, thread in enumerate((committing, taking), 1):
            thread.start()
            wait_until_blocked(place, number, thread)
        other.rollback()
    committing.join()
    taking.join()
    assert list(new.entries("acme")) == [first, second]
    with pytest.raises(OwnerUnavailable, match=FENCED):
        old.commit(Batch(entries=sample_chain("acme", 1, after=second)))


def wait_until_blocked(place: PostgresPlace, number: int, thread: threading.Thread) -> None:
    """Until so many sessions of the database wait for a lock, the last of them this thread's."""
    waiting = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{place.database}' AND wait_event_type = 'Lock'"
    while place.server.sql(waiting)[0][0] < number:
        assert thread.is_alive(), "it waited for nobody"


def test_L3_L7_split_brain_two_owners_that_go_on_writing_never_fork_an_entry(place: PostgresPlace) -> None:
    """They take the shards from each other while the other is writing the same customers as fast as it can; each batch that was
    acknowledged is in the chain, none twice, and the chains verify."""
    customers, takes_each = [f"c{n}" for n in range(6)], 15
    acknowledged: list[list[Sealed]] = [[], []]
    refusals: list[OwnerUnavailable] = []
    is_over = [threading.Event(), threading.Event()]

    def write_until_refused(number: int, journal: PostgresJournal) -> OwnerUnavailable:
        heads = {name: next(iter(list(journal.entries(name))[-1:]), None) for name in customers}
        while not is_over[1 - number].is_set():
            batch = [sample_chain(name, 1, after=head)[0] for name, head in heads.items()]
            try:
                journal.commit(Batch(entries=batch))
            except OwnerUnavailable as refusal:
                return refusal
            heads.update((one.customer, one) for one in batch)
            acknowledged[number] += batch
        return OwnerUnavailable("the other is fenced for good")

    def fight(number: int, journal: PostgresJournal) -> None:
        for turn in range(takes_each):
            enough = len(acknowledged[1 - number]) + 3 * len(customers)
            while (number or turn) and len(acknowledged[1 - number]) < enough and not is_over[1 - number].is_set():
                time.sleep(0.001)  # the other is in full flight when its shards are taken
            journal.take(f"owner {number}", ALL)
            refusals.append(write_until_refused(number, journal))
        is_over[number].set()

    threads = [threading.Thread(target=fight, args=(number, place.open())) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("fenced" in refusal.what for refusal in refusals), refusals
    archive = place.open()
    assert verify_ledger(archive).ok
    written = {(one.customer, one.seq): one for name in archive.customers() for one in archive.entries(name)}
    both = acknowledged[0] + acknowledged[1]
    assert len({(one.customer, one.seq) for one in both}) == len(both) <= len(written)
    assert all(written[one.customer, one.seq] == one for one in both)
    assert acknowledged[0]
    assert acknowledged[1]
    epochs = place.server.sql(
        "SELECT customer, array_agg(epoch ORDER BY seq) FROM agentbudget.entries GROUP BY 1", place.database
    )
    assert all(list(found) == sorted(found) for _, found in epochs)  # no entry of an older owner behind one of a newer


HANGS_IN_A_COPY = """
    import sys, time
    from agentbudget.ledger import open_journal
    from agentbudget.ledger.postgres import journal as module
    journal = open_journal(sys.argv[1])
    journal.take("old", range(64))
    journal._line.script("BEGIN")
    journal._line.run(module.sql.FENCE, module._pairs(journal._epochs))
    journal._line._connection.send_query(module.sql.COPY_ENTRIES.encode())
    print("hangs", flush=True)
    time.sleep(60)
    """


def test_an_owner_that_hangs_in_the_middle_of_a_transaction_does_not_keep_its_shards(place: PostgresPlace) -> None:
    """It has the owners' rows locked, and its machine still acknowledges packets."""
    command = [sys.executable, "-c", textwrap.dedent(HANGS_IN_A_COPY), place.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as hung:
        assert hung.stdout is not None
        assert hung.stdout.readline() == "hangs\n"
        hung.send_signal(signal.SIGSTOP)
        try:
            new = patiently(lambda: owner_of(place, "new"))
            new.commit(Batch(entries=sample_chain("acme", 1)))
        finally:
            hung.kill()
