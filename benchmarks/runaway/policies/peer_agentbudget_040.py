"""The unrelated agentbudget 0.4.0 of the package index, as its README uses it: costs are tracked after the call."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy(
    "peer_agentbudget_040", "agentbudget 0.4.0, as documented", "agentbudget_040:Tracked", "agentbudget_040"
)
