"""agentbudget for LangChain: hold credits before every model call, tool and retrieval, and settle what they really
cost.

``BudgetMiddleware`` (langchain v1 ``create_agent``) is the whole: it also writes output caps into requests.
``BudgetCallbackHandler`` needs only langchain-core and covers everything that has callbacks.
``attach`` puts that handler on every run of a block, without touching the agent.
``BudgetEmbeddings`` holds embeddings, which have no callbacks.
``account_retries`` accounts what the SDK below a model makes again out of sight.
``ScriptedChatModel`` is a model for tests and demonstrations that needs no network.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentbudget_langchain.attaching import attach
    from agentbudget_langchain.clients import account_retries
    from agentbudget_langchain.embeddings import BudgetEmbeddings
    from agentbudget_langchain.handler import BudgetCallbackHandler
    from agentbudget_langchain.middleware import BudgetMiddleware
    from agentbudget_langchain.scripted import ScriptedChatModel
    from agentbudget_langchain.threads import retry_unless_refused, thread_session

__version__ = "0.1.0"

__all__ = [
    "BudgetCallbackHandler",
    "BudgetEmbeddings",
    "BudgetMiddleware",
    "ScriptedChatModel",
    "__version__",
    "account_retries",
    "attach",
    "retry_unless_refused",
    "thread_session",
]

_MODULE_OF = {
    "BudgetCallbackHandler": "handler",
    "BudgetEmbeddings": "embeddings",
    "BudgetMiddleware": "middleware",
    "ScriptedChatModel": "scripted",
    "account_retries": "clients",
    "attach": "attaching",
    "retry_unless_refused": "threads",
    "thread_session": "threads",
}

if not TYPE_CHECKING:  # a type checker reads the imports above, and so still finds a misspelt name

    def __getattr__(name: str) -> object:
        module = _MODULE_OF.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
