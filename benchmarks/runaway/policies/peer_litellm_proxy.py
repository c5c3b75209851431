"""LiteLLM proxy's admission of a virtual key, as documented."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy(
    "peer_litellm_proxy",
    "LiteLLM proxy 1.108.7, as documented",
    "litellm_proxy:Proxy",
    "litellm",
    can=frozenset({"change", "sessions"}),
)
