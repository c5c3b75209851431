"""Many processes drain one wallet, some are killed, and every nanocredit is accounted for."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from agentbudget import Credits
from agentbudget.account.commands import OnUnknown, Read
from agentbudget.account.decision import BalanceView
from tests.leases.processes import Crew, Life
from tests.leases.spending import (
    CREDIT,
    CUSTOMER,
    Heard,
    Spender,
    books,
    books_beside,
    found,
    in_threads,
    is_owner,
    is_sound,
    lines_of,
    open_ledger,
    step_of,
)
from tests.scale import Scale
from tests.summary import Record, publish

PROCESSES, THREADS = 8, 4
USERS = ("user:ana", "user:bo")


def drain(path: Path, seed: int, is_doomed: bool, life: Life) -> None:
    """A worker: even threads share the crew's session, odd ones have one of their own, until the wallet is empty."""
    runtime = open_ledger(path)
    acme = runtime.customer(CUSTOMER)
    life.say("opened")

    def work(n: int) -> None:
        chance = random.Random(f"{seed}.{n}")
        policy: OnUnknown = "charge" if chance.random() < 0.5 else "release"
        spender = Spender(life, chance, policy)
        if is_doomed:
            session = acme.session(id=f"crew-{policy}", on_unknown=policy)
            for _ in range(10):
                spender.leave_open(session, chance.randint(1, CREDIT // 10))
        if n % 2 == 0:
            name = f"crew-{policy}"
            life.say("done", spender.drain(acme.session(id=name, on_unknown=policy), 5 * CREDIT))
            return
        users = list(USERS)
        why = "limit"
        while why != "insufficient_credits" and users:
            user = chance.choice(users)
            with acme.session(budget=chance.randint(1, 20), entities=user, on_unknown=policy) as session:
                why = spender.drain(session, 5 * CREDIT)
            assert why in ("limit", "session_budget", "insufficient_credits"), why
            if why == "limit":
                users.remove(user)
        life.say("done", why)

    in_threads(THREADS, work)
    runtime.close()


def keep(path: Path, life: Life) -> None:
    """Own the ledger, and do nothing else."""
    runtime = open_ledger(path)
    life.say(is_owner(runtime))
    life.wait()
    runtime.close()


@pytest.mark.timeout(1_800)
def test_L1_L2_L4_processes_drain_a_wallet_to_the_nanocredit_while_some_of_them_are_killed(
    tmp_path: Path, scale: Scale, record_property: Record
) -> None:
    """L1, L2, L4, L5: two workers and the owner are killed in the middle; what the workers were told is booked once."""
    granted, seed = scale.pick(ci=600, night=6_000) * CREDIT + 7, random.randrange(2**32)
    found(tmp_path, granted, limits=dict.fromkeys(USERS, granted // 5))
    heard = Heard()
    with Crew() as crew:
        owner = crew.start(partial(keep, tmp_path))
        assert owner.hear() is True
        for n in range(PROCESSES):
            crew.start(partial(drain, tmp_path, seed + n, n < 2))
        workers = crew.lives[1:]
        for part, victim in enumerate((workers[0], owner, workers[1]), 1):
            crew.hear_until(partial(_has_spent, crew, heard, granted * part // 5))
            victim.kill()
            books_now = books_beside(tmp_path)
            assert books_now.consumed + books_now.held + books_now.available == granted
            if victim is not owner:
                crew.start(partial(drain, tmp_path, seed + 100 + part, False))
        crew.hear_until(lambda: False)
        for life in crew.lives:
            if life.status is None:
                life.finish()
        for life in crew.lives:
            heard.take(life.said)
    assert Counter(what for what in heard.others if what == "opened")["opened"] == PROCESSES + 2
    with open_ledger(tmp_path) as runtime:
        acme = runtime.customer(CUSTOMER)
        after = books(acme)
        assert (after.suspended, after.held, after.leased) == (0, 0, 0)
        assert (after.consumed, after.available) == (granted, 0)  # a replacement spends what the dead had leased
        lines = lines_of(acme)
        assert sum(line.amount for some in lines.values() for line in some) == after.consumed
        figures = heard.check(lines, unheard=2 * THREADS)
        for limit in acme.limits.list():
            assert isinstance(limit.limit, Credits)
            assert isinstance(limit.used, Credits)
            assert limit.used <= limit.limit
        for status in acme.sessions.list():
            assert status.budget is None or status.spent <= status.budget
        assert is_sound(runtime)
    publish(record_property, "drain", {**figures, "kills": 3, "seed": seed})


def _has_spent(crew: Crew, heard: Heard, nano: int) -> bool:
    for life in crew.lives:
        heard.take(life.said)
        life.said.clear()
    return sum(cost for _, cost in heard.ended.values()) >= nano


def sit_on(path: Path, credits: int, life: Life) -> None:
    """Lease much, use little of it, and stay responsive."""
    runtime = open_ledger(path)
    session = runtime.customer(CUSTOMER).session(id="idle").open()
    step_of(session, credits * CREDIT).settle(amount=Credits(1))
    view = runtime.host.ask(CUSTOMER, Read("balance"))  # as the owner has it: nothing is given back for the question
    assert isinstance(view, BalanceView)
    life.say("idle", view.leased)
    life.wait()
    runtime.close()


def ask_for(path: Path, nano: int, life: Life) -> None:
    runtime = open_ledger(path)
    session = runtime.customer(CUSTOMER).session(id="needy").open()
    life.say("settled", step_of(session, nano).settle().charged.nano)
    runtime.close()


def test_a_step_gets_what_an_idle_process_has_leased(tmp_path: Path) -> None:
    """Nothing is refused while what responsive processes hold idle could cover it."""
    found(tmp_path, 100 * CREDIT)
    with Crew() as crew:
        idle = crew.start(partial(sit_on, tmp_path, 60))
        assert idle.hear() == ["idle", 60 * CREDIT]
        needy = crew.start(partial(ask_for, tmp_path, 99 * CREDIT))
        assert needy.hear() == ["settled", 99 * CREDIT]
        needy.finish()
        idle.tell("go")
        idle.finish()
    with open_ledger(tmp_path) as runtime:
        after = books(runtime.customer(CUSTOMER))
        assert (after.consumed, after.available, after.held) == (100 * CREDIT, 0, 0)
        assert is_sound(runtime)


def test_a_step_gets_what_another_runtime_of_its_process_has_leased(tmp_path: Path) -> None:
    """The second one is a client of the first, with leases of its own."""
    found(tmp_path, 10 * CREDIT)
    with open_ledger(tmp_path) as runtime, open_ledger(tmp_path) as other:
        assert (is_owner(runtime), is_owner(other)) == (True, False)
        step_of(other.customer(CUSTOMER).session().open(), CREDIT).settle()
        assert step_of(runtime.customer(CUSTOMER).session().open(), 9 * CREDIT).hold == 9
