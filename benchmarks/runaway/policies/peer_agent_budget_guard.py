"""agent-budget-guard-py 0.4.0, as documented: ``record`` after each call."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy(
    "peer_agent_budget_guard",
    "agent-budget-guard-py 0.4.0, as documented",
    "agent_budget_guard:Recorded",
    "agent_budget_guard",
)
