"""LiteLLM's BudgetManager, as documented: the cost so far is compared before a completion."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy(
    "peer_litellm_manager", "LiteLLM 1.108.7 BudgetManager, as documented", "litellm_sdk:Manager", "litellm"
)
