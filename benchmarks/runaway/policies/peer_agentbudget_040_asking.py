"""The unrelated agentbudget 0.4.0 of the package index, best configured: ``would_exceed`` before each call."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy(
    "peer_agentbudget_040_asking", "agentbudget 0.4.0, asked first", "agentbudget_040:Asked", "agentbudget_040"
)
