"""LiteLLM proxy's admission of a virtual key, best configured: fail_closed_budget_enforcement."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy(
    "peer_litellm_proxy_strict",
    "LiteLLM proxy 1.108.7, fail closed",
    "litellm_proxy:FailClosed",
    "litellm",
    can=frozenset({"change", "sessions"}),
)
