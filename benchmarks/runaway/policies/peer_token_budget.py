"""token-budget-py 0.1.0: reserves the estimate in one pool, commits the cost."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy("peer_token_budget", "token-budget-py 0.1.0", "token_budget:Reserved", "token_budget")
