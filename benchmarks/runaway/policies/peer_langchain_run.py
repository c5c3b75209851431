"""LangChain's ModelCallLimitMiddleware as documented: a maximum of model calls a run."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy("peer_langchain_run", "LangChain 1.5.0 call limit a run", "langchain_limit:PerRun", "langchain")
