"""Any sequence of commands: the owner, over memory and over SQLite, answers as the oracle does (laws L1 to L7, L11, L12)."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from agentbudget.ledger.memory import MemoryJournal
from agentbudget.ledger.sql import SqlJournal
from tests.model.lease_machine import LeaseMachine
from tests.model.reached import REQUIRED
from tests.scale import SCALE

_STEPS = 50
_ROUND, _MORE_ROUNDS = 200, 15
"""The rarest sights come about once in 100 examples, and often together; a run that misses one goes on looking for a while."""
_ORACLE_MAY_IMPORT = {
    "agentbudget.catalog.terms", "agentbudget.account.commands", "agentbudget.account.decision", "agentbudget.account",
    "agentbudget.amounts", "agentbudget.errors", "msgspec",
}  # fmt: skip
"""Values of the contract, and the library that they are made with."""


class InMemory(LeaseMachine):
    """Each example has a journal of its own."""

    new_journal = MemoryJournal
    reached: ClassVar[Counter[str]] = Counter()


def _unseen() -> list[str]:
    return [what for what in REQUIRED if not InMemory.reached[what]]


def _settings(examples: int) -> settings:
    checks = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
    return settings(
        max_examples=examples, stateful_step_count=_STEPS, deadline=None, suppress_health_check=checks, print_blob=True,
        phases=(Phase.reuse, Phase.generate, Phase.shrink),
    )  # fmt: skip


def test_the_owner_over_memory_answers_as_the_oracle_does_wherever_the_examples_go() -> None:
    InMemory.reached.clear()
    run_state_machine_as_test(InMemory, settings=_settings(SCALE.pick(ci=1_000, night=17_000)))
    for _ in range(_MORE_ROUNDS):
        if _unseen():
            run_state_machine_as_test(InMemory, settings=_settings(_ROUND))
    assert not _unseen(), f"no example ever saw: {_unseen()}"


def test_the_owner_over_sqlite_answers_as_the_oracle_does(tmp_path: Path) -> None:
    """One file holds the customers of all examples, as it would be."""
    # NORMAL loses nothing here, because no machine loses power; the crash tests use FULL.
    journal = SqlJournal.open(f"sqlite:///{tmp_path}/model.db", synchronous="NORMAL")

    class InSqlite(LeaseMachine):
        new_journal = staticmethod(lambda: journal)
        reached: ClassVar[Counter[str]] = Counter()

    try:
        run_state_machine_as_test(InSqlite, settings=_settings(SCALE.pick(ci=1_000, night=3_000)))
    finally:
        journal.close()
    assert InSqlite.reached["snapshot used"], "no example ever started from a snapshot"


def test_the_oracle_shares_no_code_with_the_core() -> None:
    """What it imports of ours are the contract's values: an oracle that calls the core agrees with it always."""
    files = sorted(Path(__file__).parent.glob("oracle*.py"))
    assert files, "there is no oracle"
    for file in files:
        for name in _imported(file):
            ours = name.split(".")[0] in ("agentbudget", "tests", "msgspec")
            allowed = name in _ORACLE_MAY_IMPORT or name.startswith(("tests.model.oracle", "msgspec."))
            assert allowed or not ours, f"{file.name} imports {name}"


def _imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            if node.module == "agentbudget.account":
                names |= {f"agentbudget.account.{alias.name}" for alias in node.names}
    return names
