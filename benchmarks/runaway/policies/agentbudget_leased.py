"""agentbudget, leased: most steps are decided in the agent's process, on credits that the owner has set aside."""

from benchmarks.runaway.ours import OursPolicy

POLICY = OursPolicy("agentbudget_leased", "agentbudget, leased", lambda setting: {"mode": "leased"})
