"""LiteLLM's BudgetManager, best configured: the projected cost is compared."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy(
    "peer_litellm_manager_projecting", "LiteLLM 1.108.7 BudgetManager, projecting", "litellm_sdk:Projecting", "litellm"
)
