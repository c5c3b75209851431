"""agentbudget for the ``openai`` SDK: each HTTP attempt of a client that may be billed is held before it is sent, and settled by
what the reply states."""

from __future__ import annotations

from agentbudget_openai.guarding import account_retries, guard

__version__ = "0.1.0"

__all__ = ["__version__", "account_retries", "guard"]
