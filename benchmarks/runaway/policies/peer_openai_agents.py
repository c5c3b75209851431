"""OpenAI Agents' max_turns: a maximum of turns a run, as documented."""

from benchmarks.runaway.peers.policy import PeerPolicy

POLICY = PeerPolicy(
    "peer_openai_agents", "OpenAI Agents 0.24.0 max_turns", "openai_agents_turns:MaxTurns", "openai_agents"
)
