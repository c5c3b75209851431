"""cendor-tokenguard, best configured: it compares the estimate before the call."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy("peer_tokenguard_block", "cendor-tokenguard 1.8.0, blocking", "tokenguard:Blocking", "tokenguard")
