"""Pydantic AI's UsageLimits best configured: one usage for all runs, and the limit of cost alone."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy(
    "peer_pydantic_shared", "Pydantic AI 2.68.0, usage shared", "pydantic_ai_limits:Shared", "pydantic_ai"
)
