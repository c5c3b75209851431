"""cendor-tokenguard, as documented: it raises after the call that passed the budget."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy("peer_tokenguard", "cendor-tokenguard 1.8.0, as documented", "tokenguard:Raising", "tokenguard")
