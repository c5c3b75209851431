"""agentbudget, leased, with a fifth of the budget kept for steps that wind down: the summary of an agent that is refused."""

from benchmarks.runaway.ours import OursPolicy

POLICY = OursPolicy("agentbudget_wind_down", "agentbudget, wind-down", lambda setting: {"wind_down": "0.2"})
