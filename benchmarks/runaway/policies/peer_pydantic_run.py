"""Pydantic AI's UsageLimits as documented: a limit of cost a run, and fifty requests by default."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy(
    "peer_pydantic_run", "Pydantic AI 2.68.0, as documented", "pydantic_ai_limits:PerRun", "pydantic_ai"
)
