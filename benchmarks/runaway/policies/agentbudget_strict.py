"""agentbudget, strict: every step is durable at the owner before it runs."""

from benchmarks.runaway.ours import OursPolicy

POLICY = OursPolicy("agentbudget_strict", "agentbudget, strict", lambda setting: {"mode": "strict"})
