"""Is there a serial order? A checker of histories after Wing, Gong and Lowe, and a wallet as plain arithmetic.

A history is what clients saw: each call with the times at which it was sent and answered. It is linearizable when all
calls can be put in one order that keeps real time (a call answered before another was sent comes first) and in which the
model gives every answer that was given. The model shares no code with the account.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Answer = tuple[object, ...]


class Call(NamedTuple):
    """One call of one client. ``what``: grant, hold, settle, release or read."""

    sent_ns: int
    answered_ns: int
    what: str
    step: str
    amount: int
    answer: Answer


class Wallet(NamedTuple):
    """All that the answers depend on. ``holds``: open steps and what they hold; ``ends``: ended ones, how and at what."""

    free: int = 0
    used: int = 0
    holds: frozenset[tuple[str, int]] = frozenset()
    ends: frozenset[tuple[str, str, int]] = frozenset()

    @property
    def held(self) -> int:
        return sum(amount for _, amount in self.holds)


def step(wallet: Wallet, call: Call) -> tuple[Answer, Wallet]:
    """What the call is answered in this state, and the state after it."""
    match call.what:
        case "grant":
            return ("granted",), wallet._replace(free=wallet.free + call.amount)
        case "read":
            return ("balance", wallet.free, wallet.held, wallet.used), wallet
        case "hold":
            return _hold(wallet, call)
    return _end(wallet, call)


def _hold(wallet: Wallet, call: Call) -> tuple[Answer, Wallet]:
    if any(name == call.step for name, _, _ in wallet.ends):
        return ("resolved", "released"), wallet  # given back before it arrived
    if call.amount > wallet.free:
        return ("refused", wallet.free), wallet
    holds = wallet.holds | {(call.step, call.amount)}
    return ("held", call.amount), wallet._replace(free=wallet.free - call.amount, holds=holds)


def _end(wallet: Wallet, call: Call) -> tuple[Answer, Wallet]:
    """``settle`` at an amount of at most the hold, or ``release``; the first end stands, and its repetition is its answer."""
    how = "settled" if call.what == "settle" else "released"
    for name, ended, amount in wallet.ends:
        if name == call.step:
            same = ended == how and amount == call.amount
            return ((how, amount) if same else ("resolved", ended)), wallet
    held = next((amount for name, amount in wallet.holds if name == call.step), None)
    if held is None and how == "settled":
        return ("unknown",), wallet
    held = held or 0  # releasing what was never held leaves a tombstone
    after = wallet._replace(
        free=wallet.free + held - call.amount,
        used=wallet.used + call.amount,
        holds=wallet.holds - {(call.step, held)},
        ends=wallet.ends | {(call.step, how, call.amount)},
    )
    return (how, call.amount), after


def is_linearizable(history: Sequence[Call], start: Wallet) -> bool:
    """Search for the serial order, depth first; a (set of calls done, state) that failed once is not tried again."""
    calls = sorted(history)
    everything = (1 << len(calls)) - 1
    failed: set[tuple[int, Wallet]] = set()
    path = [(0, start, _next(calls, 0))]
    while path:
        done, wallet, candidates = path[-1]
        if done == everything:
            return True
        if not candidates:
            failed.add((done, wallet))
            path.pop()
            continue
        n = candidates.pop()
        answer, after = step(wallet, calls[n])
        there = done | 1 << n
        if answer == calls[n].answer and (there, after) not in failed:
            path.append((there, after, _next(calls, there)))
    return False


def _next(calls: Sequence[Call], done: int) -> list[int]:
    """Calls that may come next: sent before any other that is not done was answered. The one answered first is tried first."""
    first = (~done & (done + 1)).bit_length() - 1  # all before it are done
    open_calls: list[int] = []
    until = None
    for n in range(first, len(calls)):
        if until is not None and calls[n].sent_ns > until:
            break
        if not done >> n & 1:
            open_calls.append(n)
            until = calls[n].answered_ns if until is None else min(until, calls[n].answered_ns)
    fitting = [n for n in open_calls if until is None or calls[n].sent_ns <= until]
    return sorted(fitting, key=lambda n: -calls[n].answered_ns)
