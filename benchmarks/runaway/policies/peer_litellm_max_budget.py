"""LiteLLM's SDK with litellm.max_budget, as documented."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy("peer_litellm_max_budget", "LiteLLM 1.108.7 max_budget", "litellm_sdk:MaxBudget", "litellm")
