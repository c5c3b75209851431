"""Lives with leases: what holders say between the commands of ``life.py``. A word is a few small numbers; what it means is worked
out when it is said, from what is open then, so that most of it is plausible."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st
from msgspec.structs import replace

from agentbudget.account import commands as c
from agentbudget.account.decision import Recalling, Renewed
from agentbudget.errors import AgentBudgetError
from tests.account.desk import Desk, hold
from tests.account.life import SESSIONS, _session, commands, live, waits

VERBS = ("open",) * 5 + ("report",) * 6 + ("ask",) * 5 + ("back",) * 2 + ("close", "again", "again", "tell", "suspend", "lapse",
         "correct", "unknown", "unknown", "late", "late")  # fmt: skip
HOLDERS = ("p1", "p2")


class Word(NamedTuple):
    """``which`` lease or session, and two small numbers that the verb makes amounts of."""

    verb: str
    which: int
    a: int
    b: int


words = st.builds(Word, st.sampled_from(VERBS), st.integers(0, 5), st.integers(0, 9), st.integers(0, 9))
moments = st.tuples(waits, st.one_of(words, words, commands))
lease_lives = st.lists(moments, min_size=20, max_size=50)


class Holders:
    """Everybody who holds leases at a desk; ``reached`` counts what came of what was said."""

    def __init__(self, desk: Desk, reached: dict[str, int] | None = None) -> None:
        self.desk = desk
        self.reached = {} if reached is None else reached
        self.said: list[c.Renew] = []
        self.steps: dict[str, int] = {}
        self.unknown: list[str] = []
        self.lapsed: list[str] = []

    def live(self, moment: tuple[int, Any]) -> object:
        """Let time pass, and the word be said or the command be given; the answer, or the error as a value."""
        wait_us, what = moment
        if not isinstance(what, Word):
            return live(self.desk, moment)
        self.desk.wait(wait_us)
        command = self.command(what)
        if command is None:
            return self.desk.account.recalled(HOLDERS[what.a % 2])
        answer = self.desk.answer(command)
        self._remember(command, answer)
        self._count(what.verb, answer)
        return answer

    def command(self, word: Word) -> c.Command | None:
        leases = [view for view in self.desk.read("holds") if view.holder]
        lease = leases[word.which % len(leases)].step if leases else ""
        match word.verb:
            case "open":
                return self._opening(word)
            case "again" if self.said:
                again = self.said[-1 - word.a % len(self.said)]
                return again if word.b % 3 else replace(again, seq=again.seq + 2)
            case "tell":
                return None
            case "correct" if self.lapsed:
                late = self.lapsed[word.which % len(self.lapsed)]
                return c.CorrectLease(late, ("steps",), self._reports(late, word.a % 3, word.b))
            case "late" if self.unknown:
                return c.SettleHold(self.unknown[word.which % len(self.unknown)], word.b, stated=str(word.b))
            case "suspend" if leases:
                return c.SuspendLease(lease)
            case "lapse" if leases:
                return c.LapseLease(lease, word.a % 2 == 0)
            case "unknown" if leases:
                return c.SettleHold(self._step(lease), word.b, {"steps": 1}, outcome="unknown", lease=lease)
        return self._renewal(lease, word) if leases else self._opening(word)

    def _opening(self, word: Word) -> c.Renew:
        name = f"lease:L{len(self.steps)}"
        session = _session(self.desk, SESSIONS[word.which % len(SESSIONS)])
        return self._asking(c.Renew(name, 1, session, HOLDERS[word.a % 2], "llm", "gpt-5"), word)

    def _asking(self, renew: c.Renew, word: Word) -> c.Renew:
        units = ({"steps": 1}, {"steps": 1, "tokens": 2}, {})[word.which % 3]
        feature = renew.feature
        ask = hold("next", renew.session, word.b, measures=units, feature=feature, note_refusal=word.a != 9)
        return replace(renew, ask=ask, times=1 + word.a, ran=word.a == 4)

    def _renewal(self, lease: str, word: Word) -> c.Renew:
        state = self.desk.account._books.state.holds[lease]
        assert state.lease is not None
        renew = c.Renew(
            lease,
            state.lease.seq + 1,
            state.session,
            state.lease.holder,
            state.kind,
            state.model,
            state.tool,
            state.feature,
            heard=self.desk.account.told if word.a % 2 else 0,
        )
        left, measures = state.amount, dict(state.measures)
        if word.verb == "report" or word.b % 3 == 0:
            steps = self._reports(lease, 1 + word.a % 2, word.b)
            total, units = sum(one.amount for one in steps), len(steps)
            within = min(total, left * (word.a % 3) // 2)
            over = {"steps": max(0, units - measures.get("steps", 0))}
            renew = replace(renew, measures=("steps",), steps=steps, overrun=total - within, over=over)
            left -= within
            if "steps" in measures:
                measures["steps"] -= units - over["steps"]
        if word.verb == "close":
            return replace(renew, close=True, released=word.a % 2)
        if word.verb == "back" or word.b % 4 == 0:
            units_back = {name: held * (word.b % 3) // 2 for name, held in measures.items()}
            renew = replace(renew, back=left * (word.a % 3) // 2, back_measures=units_back)
        return self._asking(renew, word) if word.verb == "ask" else renew

    def _reports(self, lease: str, count: int, amount: int) -> tuple[c.StepReport, ...]:
        return tuple(c.StepReport(self._step(lease), amount + n, (1,)) for n in range(count))

    def _step(self, lease: str) -> str:
        self.steps[lease] = self.steps.get(lease, 0) + 1
        return f"{lease}.{self.steps[lease]}"

    def _remember(self, command: c.Command, answer: object) -> None:
        if isinstance(answer, AgentBudgetError):
            return
        match command:
            case c.Renew():
                self.said.append(command)
                self.steps.setdefault(command.lease, 0)
            case c.LapseLease(lease=lease):
                self.lapsed.append(lease)
            case c.SettleHold(step=step, outcome="unknown"):
                self.unknown.append(step)

    def _count(self, verb: str, answer: object) -> None:
        what = type(answer).__name__
        if isinstance(answer, Renewed):
            said = {
                "granted": answer.amount, "stale": answer.stale, "refused": answer.refused, "recalling": answer.recalling,
                "closed": not answer.is_open and answer.seq, "asked back": answer.recall, "strict": answer.strict,
            }  # fmt: skip
            for name, is_so in said.items():
                if is_so:
                    self.reached[f"{verb}: {name}"] = self.reached.get(f"{verb}: {name}", 0) + 1
        elif isinstance(answer, Recalling):
            what = "recalling"
        self.reached[f"{verb}: {what}"] = self.reached.get(f"{verb}: {what}", 0) + 1
