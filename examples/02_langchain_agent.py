"""A LangChain agent falls into a tool loop; its budget stops it before the call that does not fit. Runs offline.

pip install agentbudget-runtime 'agentbudget-langchain[middleware]'
"""

from __future__ import annotations

from agentbudget_langchain import BudgetMiddleware, ScriptedChatModel
from langchain.agents import create_agent
from langchain_core.tools import tool

import agentbudget
from agentbudget import BudgetDenied


@tool
def search(query: str) -> str:
    """Search the web."""
    return f"Nothing useful about {query}. " * 100


def main() -> None:
    # A scripted model that always wants another search; put ChatOpenAI(model="gpt-5") here for a real one.
    model = ScriptedChatModel(model="gpt-5", replies=[{"tool": "search", "args": {"query": "the answer"}}])
    agent = create_agent(model, [search], middleware=[BudgetMiddleware()])

    with agentbudget.session(budget="0.25") as session:  # dollars; each reply may have 4096 tokens at most
        try:
            agent.invoke({"messages": [("user", "What is the answer?")]}, {"recursion_limit": 500})
        except BudgetDenied as denied:
            print("stopped:", denied)
        status = session.status()
        print(
            f"the model answered {len(model.received)} times; spent {status.spent}, held {status.held}, left {status.remaining}"
        )
        assert status.held == 0
        assert status.spent <= agentbudget.Credits("0.25")


if __name__ == "__main__":
    main()
