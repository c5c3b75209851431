"""``BudgetEmbeddings``: an agent's hooks do not see its embeddings, so a wrapper of their model holds each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic_ai.embeddings import EmbeddingModel, EmbeddingResult, EmbeddingSettings, WrapperEmbeddingModel
from pydantic_ai.embeddings.result import EmbedInputType

from agentbudget.runtime.steps.current import session_for
from agentbudget_pydantic_ai.clients import account_client
from agentbudget_pydantic_ai.reply import stated, told
from agentbudget_pydantic_ai.request import provider_of

if TYPE_CHECKING:
    from agentbudget import Session


class BudgetEmbeddings(WrapperEmbeddingModel):
    """``Embedder(BudgetEmbeddings("openai:text-embedding-3-small"))``: the same model; each call is held before it is made,
    refused by ``BudgetDenied`` where it does not fit, and settled by what the reply states.

    wrapped: the model, or its name.  session: whose budget pays; None means the current session at each call, and without one
    the call is refused (``no_session``).  name, provider: what the catalog prices (default: those of the model).  feature: what
    the plan must entitle. A model that is guarded already is not guarded twice.
    """

    def __init__(
        self,
        wrapped: EmbeddingModel | str,
        session: Session | None = None,
        *,
        name: str | None = None,
        provider: str | None = None,
        feature: str | None = None,
    ) -> None:
        while isinstance(wrapped, BudgetEmbeddings):
            wrapped = wrapped.wrapped
        super().__init__(wrapped)
        self._session, self._name, self._served_by, self._feature = session, name, provider, feature

    async def embed(
        self, inputs: str | Sequence[str], *, input_type: EmbedInputType, settings: EmbeddingSettings | None = None
    ) -> EmbeddingResult:
        """Hold, embed, settle."""
        account_client(self.wrapped)
        step = await session_for(self._session).areserve(
            "embedding",
            model=self._name or self.wrapped.model_name,
            provider=self._served_by or provider_of(self.wrapped.system),
            request=inputs if isinstance(inputs, str) else list(inputs),
            feature=self._feature,
            dispatched=True,
        )
        async with step:
            try:
                result = await self.wrapped.embed(inputs, input_type=input_type, settings=settings)
            except Exception as error:
                await step.afail(told(error))
                raise
            await step.asettle(stated(result.usage, result.model_name))
            return result
