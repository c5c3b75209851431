"""Departments, teams and users under one customer: every level has limits, and a step must pass all of them.

pip install agentbudget-runtime
"""

from __future__ import annotations

from agentbudget import BudgetDenied, Decision, Runtime
from agentbudget.runtime.customer import Customer


def set_up(acme: Customer) -> None:
    """The tree, and what its administrators allow in a window."""
    acme.entities.put("department:product")
    acme.entities.put("team:search", parent="department:product")
    acme.entities.put("user:ana", parent="team:search")
    acme.entities.put("user:bo", parent="team:search")
    acme.limits.set("customer", 500, window="month")
    acme.limits.set("department:product", 100, window="week")
    acme.limits.set("team:search", 12, window="day")
    acme.limits.set("user:*", 5, window="hour", measure="tool_calls")  # for each user, in calls instead of credits
    acme.limits.set("user:bo", 1, window="day", mode="soft")  # only tells


def show(decision: Decision) -> None:
    """Level by level: what is allowed, what is left, and who binds."""
    for one in (one for one in decision.constraints if one.kind == "limit"):
        mark = "ok  " if one.allowed else "BINDS" if one == decision.binding else "no"
        print(f"  {mark:<5} {one.entity:<20} {one.remaining} of {one.limit} {one.measure} left this {one.window}")


def work(acme: Customer, user: str) -> int:
    """Reports at 3 credits each, until one is refused."""
    done = 0
    with acme.session(budget=50, entities=[user]) as session:
        while True:
            try:
                with session.step("tool", name="report", amount=3, arguments=done):
                    done += 1
            except BudgetDenied as denied:
                print(f"{user} after {done} reports: {denied}")
                return done


def main() -> None:
    with Runtime.open("memory://") as runtime:
        acme = runtime.customers.create("acme", plan="local")  # postpaid: only limits bind
        set_up(acme)
        assert work(acme, "user:ana") == 4  # the team's 12 credits a day bind, not her own 5 calls an hour
        assert work(acme, "user:bo") == 0  # and they are gone for her colleague too
        print("what a report of Bo's would be answered now:")
        show(acme.explain("user:bo", kind="tool", name="report", amount=3))
        acme.limits.set("team:search", 30, window="day")  # an administrator raises it; what is used goes on counting
        print("after the administrator raised the team's limit:")
        show(acme.explain("user:bo", kind="tool", name="report", amount=3))


if __name__ == "__main__":
    main()
