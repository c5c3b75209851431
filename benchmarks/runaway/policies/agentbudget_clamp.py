"""agentbudget, leased, and a call that does not fit gets the output cap that does (``on_short="clamp"``)."""

from benchmarks.runaway.ours import OursPolicy

POLICY = OursPolicy("agentbudget_clamp", "agentbudget, clamp", lambda setting: {"on_short": "clamp"})
