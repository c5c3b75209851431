"""agent-budget-guard-py 0.4.0, best configured: ``preflight`` before each call, ``record`` after it."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy(
    "peer_agent_budget_guard_asking",
    "agent-budget-guard-py 0.4.0, asked first",
    "agent_budget_guard:Asked",
    "agent_budget_guard",
)
