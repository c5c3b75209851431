"""Every scenario and every policy: whatever file lies in the two folders."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Final

from benchmarks.runaway.guard import Policy
from benchmarks.runaway.peers.policy import PeerPolicy
from benchmarks.runaway.scenario import Scenario

HERE: Final = Path(__file__).parent


def _found(folder: str, name: str) -> dict[str, Any]:
    names = sorted(path.stem for path in (HERE / folder).glob("*.py") if not path.stem.startswith("_"))
    return {stem: getattr(import_module(f"benchmarks.runaway.{folder}.{stem}"), name) for stem in names}


SCENARIOS: Final[dict[str, Scenario]] = _found("scenarios", "SCENARIO")
POLICIES: Final[dict[str, Policy]] = _found("policies", "POLICY")


def own() -> list[str]:
    """Policies that need no environment of their own: what is played when nobody says which."""
    return [name for name, policy in POLICIES.items() if policy.family != "peer"]


def peers() -> list[PeerPolicy]:
    """The libraries of the package index."""
    return [policy for policy in POLICIES.values() if isinstance(policy, PeerPolicy)]
