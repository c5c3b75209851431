"""The lab's side of a peer: its environment, its process, and the protocol over a pipe."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path
from typing import Any, Final

from benchmarks.runaway.guard import Books, Guard, Setting
from benchmarks.runaway.provider import worst
from benchmarks.runaway.steps import RUN, Call, Report, Step, Verdict

CHILD: Final = Path(__file__).with_name("child.py")
PINS: Final[dict[str, list[str]]] = tomllib.loads(Path(__file__).with_name("pins.toml").read_text("utf-8"))
"""What each environment holds, every package with its version: what pip resolved for CPython 3.11."""
NANO: Final = 10**9


class PeerPolicy:
    """A library of the package index. ``adapter``: ``FILE:CLASS`` in ``adapters``; ``environment``: which of ``pins.toml``;
    ``can``: what its API has a way to express; ``cannot``: what not, so that such cells are left out."""

    family = "peer"

    def __init__(
        self, name: str, title: str, adapter: str, environment: str, *, can: frozenset[str] = frozenset()
    ) -> None:
        self.name, self.title, self.adapter, self.environment = name, title, adapter, environment
        self.cannot = frozenset({"change", "crash", "sessions"}) - can
        self.requirements = tuple(PINS[environment])
        self._process: subprocess.Popen[str] | None = None

    @property
    def folder(self) -> Path:
        """Its environment: in the user's cache, else in the folder for temporary files; another one for other versions."""
        wanted = f"{self.requirements} {sys.version_info[:2]}"
        stated, home = os.environ.get("XDG_CACHE_HOME"), os.environ.get("HOME")
        base = Path(stated) if stated else Path(home, ".cache") if home else Path(tempfile.gettempdir())
        return base / "agentbudget" / f"lab-{self.environment}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"

    @property
    def is_installed(self) -> bool:
        return (self.folder / "complete").exists()

    def install(self) -> None:
        """Raises subprocess.CalledProcessError when pip cannot."""
        if self.is_installed:
            return
        venv.EnvBuilder(with_pip=True, clear=True).create(self.folder)
        pip = [str(self.folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, *self.requirements], check=True)
        (self.folder / "complete").touch()  # only now: half an installation is none

    def open(self, setting: Setting) -> PeerRun:
        wallet = _dollars(setting.wallet)
        self.ask(ask="open", budget=setting.budget / NANO, usual_calls=setting.usual_steps // 2, wallet=wallet)
        return PeerRun(self, setting)

    def ask(self, **said: Any) -> Any:
        """One question to its process, which is started at the first."""
        if self._process is None:
            command = [str(self.folder / "bin" / "python"), "-I", str(CHILD), self.adapter]
            self._process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(said)}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: its process ended with {self._process.wait()}; what it said is above")
        return json.loads(line)

    def end(self) -> None:
        """Its process ends with its input."""
        process, self._process = self._process, None
        if process is not None:
            process.communicate()


class PeerRun:
    """A run in its process."""

    def __init__(self, policy: PeerPolicy, setting: Setting) -> None:
        self.policy, self._setting = policy, setting

    def root(self) -> Guard:
        return PeerGuard(self.policy, "main")

    def session(self, name: str, budget: int) -> Guard:
        self.policy.ask(ask="session", name=name, budget=budget / NANO)
        return PeerGuard(self.policy, name)

    def until(self, now_us: int) -> None:
        left_us = now_us - self._setting.clock.now_us()
        if left_us > 0:
            self._setting.clock.advance(microseconds=left_us)

    def change(self, what: str, amount: int, guard: Guard) -> Guard:
        assert isinstance(guard, PeerGuard)
        self.policy.ask(ask="change", name=guard.name, what=what, amount=amount / NANO)
        return guard

    def close(self) -> Books:
        booked, held = self.policy.ask(ask="close")
        return Books(round(booked * NANO), 0, round(held * NANO))


class PeerGuard:
    """An agent's guard there."""

    def __init__(self, policy: PeerPolicy, name: str) -> None:
        self._policy, self.name = policy, name

    def _ask(self, ask: str, **said: Any) -> Any:
        return self._policy.ask(ask=ask, name=self.name, **said)

    def before(self, step: Step) -> Verdict:
        reason = self._ask("before", step=_plain(step))
        return Verdict(False, reason) if reason else RUN

    def chunk(self, step: Step, tokens: int) -> bool:
        return True

    def after(self, step: Step, report: Report) -> None:
        told = {"cost": _dollars(report.cost), "failure": report.failure, "counted": _dollars(_counted(step, report))}
        self._ask("after", step=_plain(step), told=told)

    def dropped(self, step: Step) -> None:
        self._ask("dropped", step=_plain(step))

    def child(self, name: str, budget: int | None) -> Guard | None:
        is_there = self._ask("child", child=name, budget=None if budget is None else budget / NANO)
        return PeerGuard(self._policy, name) if is_there else None

    def ended(self) -> None:
        self._ask("ended")


def _plain(step: Step) -> dict[str, Any]:
    """``input_cost``: by the provider's own count of the input, for a library that asks for it beforehand."""
    told: dict[str, Any] = {
        "id": step.id, "scope": step.scope, "estimate": step.estimate / NANO, "is_model": step.is_model, "is_stream": False,
        "input_cost": 0.0,
    }  # fmt: skip
    if isinstance(step.action, Call):
        counted = worst(step.action.model, step.action.prompt.tokens, 0)
        return told | {"is_stream": step.action.stream, "input_cost": counted / NANO}
    return told


def _counted(step: Step, report: Report) -> int | None:
    """What a library makes of a reply without usage that counts its tokens itself: the provider's own counts, at full price."""
    if not isinstance(step.action, Call) or not report.streamed or report.cost is not None:
        return report.cost
    return worst(step.action.model, step.action.prompt.tokens, report.streamed)


def _dollars(nano: int | None) -> float | None:
    return None if nano is None else nano / NANO
