"""``agentbudget.session(budget=5)``: the shortest use."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator

import pytest

import agentbudget
from agentbudget import BudgetDenied, Credits
from agentbudget.runtime import default


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No runtime of this process before and after."""
    monkeypatch.delenv("AGENTBUDGET_LEDGER", raising=False)
    monkeypatch.delenv("AGENTBUDGET_CATALOG", raising=False)
    default.close_default()
    default._default.has_said = False
    yield
    default.close_default()


@pytest.mark.filterwarnings("ignore:agentbudget keeps its ledger in memory")
def test_it_needs_no_customer_wallet_or_catalog() -> None:
    with agentbudget.session(budget=5) as session:
        assert agentbudget.current_session() is session
        session.reserve("tool", name="search", amount="0.5").settle()
        with pytest.raises(BudgetDenied):
            session.reserve("tool", name="search", amount=5)
    assert default.default_runtime().customer("local").wallet.balance().receivable == Credits("0.5")


@pytest.mark.filterwarnings("ignore:agentbudget keeps its ledger in memory")
def test_it_works_with_async_with() -> None:
    async def run() -> object:
        async with agentbudget.session(budget=5) as session:
            return (await session.astatus()).remaining

    assert asyncio.run(run()) == 5


def test_it_says_once_that_memory_forgets() -> None:
    with pytest.warns(UserWarning, match="AGENTBUDGET_LEDGER"):
        agentbudget.session(budget=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agentbudget.session(budget=5)


def test_the_ledger_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """L1: it is still there for the next process."""
    monkeypatch.setenv("AGENTBUDGET_LEDGER", f"sqlite:///{tmp_path}/budget.db")
    for spent in (0, 2):
        with agentbudget.session(budget=5, id="run-7") as session:
            assert session.status().spent == spent
            session.reserve("tool", name="search", amount=2).settle()
        default.close_default()


@pytest.mark.filterwarnings("ignore:agentbudget keeps its ledger in memory")
def test_threads_that_start_at_once_share_one_runtime() -> None:
    barrier, seen = threading.Barrier(8), set()

    def work() -> None:
        barrier.wait()
        with agentbudget.session(budget=1):
            seen.add(id(default.default_runtime()))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_opens_one_of_its_own() -> None:
    script = """
        import os, warnings
        warnings.simplefilter("ignore")
        import agentbudget
        with agentbudget.session(budget=5) as session:
            session.reserve("tool", name="search", amount=2).settle()
            child = os.fork()
            if child == 0:
                with agentbudget.session(budget=5) as own:
                    own.reserve("tool", name="search", amount=1).settle()
                    os._exit(0 if own.status().spent == 1 else 1)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert (code, session.status().spent) == (0, 2)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


def test_a_process_that_ends_with_an_open_session_gives_the_ledger_up(tmp_path: object) -> None:
    script = f"""
        import os
        os.environ["AGENTBUDGET_LEDGER"] = "sqlite:///{tmp_path}/budget.db"
        import agentbudget
        step = agentbudget.session(budget=5).open().reserve("tool", name="search", amount=1, dispatched=True)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
    assert not os.path.exists(f"{tmp_path}/budget.db.owner")


def test_importing_the_runtime_brings_in_nothing_heavy() -> None:
    script = """
        import sys
        import agentbudget.runtime.runtime, agentbudget.runtime.default
        heavy = {"sqlalchemy", "sqlmodel", "pydantic", "genai_prices", "ray", "langchain_core", "opentelemetry"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
