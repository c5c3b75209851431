"""agentbudget, leased, with the rules of the bundled starter plan beside the budget: the same tool with the same arguments five
times in ten, ten failures in a row; and twice as many steps as healthy work of that budget takes."""

from agentbudget.catalog.terms import Breaker
from benchmarks.runaway.ours import OursPolicy

POLICY = OursPolicy(
    "agentbudget_breaker",
    "agentbudget, breaker",
    lambda setting: {
        "breaker": Breaker(max_steps=2 * setting.usual_steps, repeat=(5, 10), refusals_in_row=20, error_burst=10)
    },
)
