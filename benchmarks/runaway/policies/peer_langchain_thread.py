"""LangChain's ModelCallLimitMiddleware best configured: a maximum of model and of tool calls a thread."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy(
    "peer_langchain_thread", "LangChain 1.5.0 call limits a thread", "langchain_limit:PerThread", "langchain"
)
