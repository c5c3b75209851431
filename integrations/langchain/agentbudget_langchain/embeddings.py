"""``BudgetEmbeddings``: LangChain announces embeddings to nobody, so a wrapper holds each call of them.

They return vectors and no usage, so what was held is charged: the texts as the session estimates them (``estimate="exact"`` where
the tokenizer is known), or as ``tokens_of`` counts them. For OpenAI's, a guarded client (agentbudget-openai) is charged by the
provider's own count; guard the one or the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings

from agentbudget import Usage
from agentbudget_langchain.holding import session_for
from agentbudget_langchain.request import model_of

if TYPE_CHECKING:
    from agentbudget import Session

_NAMES = ("model", "model_name", "model_id", "azure_deployment", "deployment")


class BudgetEmbeddings(Embeddings):
    """``BudgetEmbeddings(OpenAIEmbeddings(model=...))``: the same embeddings, held before each call; ``BudgetDenied`` (or
    ``BudgetAbort``) before one that does not fit.

    session: whose budget pays; None means the current session at each call, and without one the call is refused
    (``no_session``).  model, provider: what the catalog prices (default: the model's name that the embeddings carry).
    tokens_of: counts the tokens of the texts of a call.  feature: what the plan must entitle (None: the session's).
    Whatever else the embeddings have is reached through it.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        session: Session | None = None,
        *,
        model: str | None = None,
        provider: str | None = None,
        tokens_of: Callable[[list[str]], int] | None = None,
        feature: str | None = None,
    ) -> None:
        self._inner, self._session, self._tokens_of = embeddings, session, tokens_of
        named = {name: getattr(embeddings, name, None) for name in _NAMES}
        self._what = {
            "model": model or model_of(named) or named["deployment"],
            "provider": provider,
            "feature": feature,
            "dispatched": True,
        }

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # not there yet: a copy or a pickle is being made
            raise AttributeError(name)
        return getattr(self._inner, name)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Hold, embed, settle."""
        with session_for(self._session).reserve("embedding", **self._asked(texts)) as step:
            vectors = self._inner.embed_documents(texts)
            step.settle(self._usage(texts))
            return vectors

    def embed_query(self, text: str) -> list[float]:
        """Hold, embed, settle."""
        with session_for(self._session).reserve("embedding", **self._asked([text])) as step:
            vector = self._inner.embed_query(text)
            step.settle(self._usage([text]))
            return vector

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Hold, embed, settle; awaited."""
        async with await session_for(self._session).areserve("embedding", **self._asked(texts)) as step:
            vectors = await self._inner.aembed_documents(texts)
            await step.asettle(self._usage(texts))
            return vectors

    async def aembed_query(self, text: str) -> list[float]:
        """Hold, embed, settle; awaited."""
        async with await session_for(self._session).areserve("embedding", **self._asked([text])) as step:
            vector = await self._inner.aembed_query(text)
            await step.asettle(self._usage([text]))
            return vector

    def _asked(self, texts: list[str]) -> Any:
        if self._tokens_of is not None:
            return {**self._what, "input_tokens": self._tokens_of(texts)}
        return {**self._what, "request": texts}

    def _usage(self, texts: list[str]) -> Usage | None:
        return None if self._tokens_of is None else Usage(input_tokens=self._tokens_of(texts))
