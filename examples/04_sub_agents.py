"""Sub-agents cannot mint budget: a child's budget is carved out of its parent's, and all of a fan-out fits or none does.

pip install agentbudget-runtime
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from agentbudget import BudgetDenied, Runtime, Session


def say(what: str, session: Session) -> None:
    status = session.status()
    print(f"{what:<34} spent {status.spent}, left {status.remaining} of {status.budget}")


def research(child: Session) -> int:
    """A sub-agent: searches at 1 credit each until its own budget refuses. Runs on a thread of its own."""
    pages = 0
    with child:
        while True:
            try:
                with child.step("tool", name="search", amount=1, arguments=pages):
                    pages += 1
            except BudgetDenied:
                return pages


def main() -> None:
    with Runtime.open("memory://") as runtime:
        acme = runtime.customers.create("acme", plan="local")
        with acme.session(id="lead", budget=20, entities=["agent:lead"]) as lead:
            with lead.child(budget=5, entities=["agent:planner"]) as planner:  # on lead's path, and on its own
                with planner.step("tool", name="plan", amount=2):
                    pass
                say("the planner has a budget of its own:", planner)
                say("which the lead has carved out:", lead)
            say("the planner gave the rest back:", lead)

            workers = lead.fan_out(4, budget_each=3)  # four at once, or none
            say("four workers have 3 credits each:", lead)
            try:
                lead.fan_out(3, budget_each=3)
            except BudgetDenied as denied:
                print(f"three more do not fit: {denied}")
            some = lead.fan_out(3, budget_each=3, at_least=1)  # or as many as fit, if at least one does
            print(f"as many as fit: {len(some)}")

            with ThreadPoolExecutor() as threads:
                pages = list(threads.map(research, [*workers, *some]))
            print(f"pages of each worker: {pages}")
            say("at the end:", lead)
            assert lead.status().spent == 2 + sum(pages)
        assert runtime.ledger.verify().ok


if __name__ == "__main__":
    main()
