"""``ScriptedChatModel``: a chat model whose replies are written down. For tests, examples and demonstrations; no
network.

It behaves like a real one where a budget can tell: it counts what it is sent and says (about four bytes a token), it
obeys an output cap, it streams, it takes time, and it states its usage and the model that served.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr

Reply: TypeAlias = str | AIMessage | Mapping[str, Any] | BaseException
"""Text; a whole message; a tool call ``{"tool": name, "args": {...}}``; or an error to raise once the request was
received."""

BYTES_PER_TOKEN = 4
"""English prose and JSON lie between 2 and 5 bytes a token; four is the customary round figure."""

WORDS_PER_CHUNK = 4
"""How much a streamed chunk carries."""


class ScriptedChatModel(BaseChatModel):
    """A chat model that says ``replies`` one after the other; the last repeats for ever, as a runaway agent does.

    replies: a sequence of :data:`Reply`, or a function of the messages. model, provider: what it calls itself, and so
    what the catalog prices. latency: seconds before each reply. max_tokens: its own output cap; a cap in the call wins.
    reasoning_tokens: hidden output counted into each reply. on_call: called with the messages when a request is
    received.

    ``received`` holds the messages of every request that reached the model, ``caps`` the output cap that each carried.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, populate_by_name=True)

    replies: Sequence[Any] | Callable[[list[BaseMessage]], Any] = ("ok",)
    model: str = "gpt-5-mini"
    provider: str = "openai"
    latency: float = 0.0
    max_tokens: int | None = None
    reasoning_tokens: int = 0
    on_call: Callable[[list[BaseMessage]], None] | None = Field(default=None, exclude=True)

    _received: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _caps: list[int | None] = PrivateAttr(default_factory=list)
    _turns: Any = PrivateAttr(default_factory=itertools.count)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @property
    def received(self) -> list[list[BaseMessage]]:
        """The messages of every request that reached the model, in order."""
        return self._received

    @property
    def caps(self) -> list[int | None]:
        """The output cap in force for every request that reached the model."""
        return self._caps

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "max_tokens": self.max_tokens}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {**super()._get_ls_params(stop=stop, **kwargs), "ls_provider": self.provider}

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools as providers see them: their size counts as input."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        turn = self._receive(messages, kwargs)
        if self.latency:
            time.sleep(self.latency)
        return ChatResult(generations=[ChatGeneration(message=self._reply(turn, messages, kwargs))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        turn = self._receive(messages, kwargs)
        if self.latency:
            await asyncio.sleep(self.latency)
        return ChatResult(generations=[ChatGeneration(message=self._reply(turn, messages, kwargs))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        turn = self._receive(messages, kwargs)
        if self.latency:
            time.sleep(self.latency)
        for chunk in _chunks(self._reply(turn, messages, kwargs)):
            if run_manager is not None:
                run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        turn = self._receive(messages, kwargs)
        if self.latency:
            await asyncio.sleep(self.latency)
        for chunk in _chunks(self._reply(turn, messages, kwargs)):
            if run_manager is not None:
                await run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
            yield chunk

    def _receive(self, messages: list[BaseMessage], kwargs: Mapping[str, Any]) -> int:
        """Note a request that reached the model: from here on it would be paid for."""
        with self._lock:
            turn: int = next(self._turns)
            self._received.append(list(messages))
            self._caps.append(_cap(kwargs, self.max_tokens))
        if self.on_call is not None:
            self.on_call(messages)
        return turn

    def _reply(self, turn: int, messages: list[BaseMessage], kwargs: Mapping[str, Any]) -> AIMessage:
        said = self.replies(messages) if callable(self.replies) else self.replies[min(turn, len(self.replies) - 1)]
        if isinstance(said, BaseException):
            raise said
        message = _message(said, turn)
        if message.usage_metadata is None:
            message = self._stated(message, messages, kwargs)
        metadata = {
            "model_name": self.model,
            "model_provider": self.provider,
            "finish_reason": "stop",
            **message.response_metadata,
        }
        return message.model_copy(update={"response_metadata": metadata})

    def _stated(self, message: AIMessage, messages: list[BaseMessage], kwargs: Mapping[str, Any]) -> AIMessage:
        """The message with its usage; cut at the output cap, which hidden reasoning uses up first."""
        cap = _cap(kwargs, self.max_tokens)
        wanted = self.reasoning_tokens + tokens_of(message)
        said = wanted if cap is None else min(wanted, cap)
        if said < wanted and isinstance(message.content, str):
            visible = max(0, said - self.reasoning_tokens)
            message = message.model_copy(
                update={
                    "content": message.content[: visible * BYTES_PER_TOKEN],
                    "response_metadata": {"finish_reason": "length"},
                }
            )
        into = sum(tokens_of(m) for m in messages) + len(json.dumps(kwargs.get("tools") or "")) // BYTES_PER_TOKEN
        reasoning = min(self.reasoning_tokens, said)
        usage = UsageMetadata(
            input_tokens=into,
            output_tokens=said,
            total_tokens=into + said,
            output_token_details={"reasoning": reasoning},
        )
        return message.model_copy(update={"usage_metadata": usage})


def tokens_of(message: BaseMessage) -> int:
    """About four UTF-8 bytes a token, content and tool calls, and four tokens for the message itself."""
    said = message.content if isinstance(message.content, str) else json.dumps(message.content)
    calls = getattr(message, "tool_calls", None)
    called = json.dumps([{"name": c["name"], "args": c["args"]} for c in calls]) if calls else ""
    return 4 + (len(said.encode()) + len(called.encode()) + BYTES_PER_TOKEN - 1) // BYTES_PER_TOKEN


def _message(said: Reply, turn: int) -> AIMessage:
    if isinstance(said, AIMessage):
        return said
    if isinstance(said, Mapping):
        call = {"name": said["tool"], "args": dict(said.get("args", {})), "id": said.get("id", f"call_{turn}")}
        return AIMessage(content=said.get("content", ""), tool_calls=[call])
    return AIMessage(content=str(said))


def _cap(kwargs: Mapping[str, Any], own: int | None) -> int | None:
    stated = [kwargs[name] for name in ("max_completion_tokens", "max_tokens", "max_output_tokens") if kwargs.get(name)]
    return stated[0] if stated else own


def _chunks(message: AIMessage) -> Iterator[ChatGenerationChunk]:
    """The reply in chunks; usage comes with the last one, as providers send it."""
    words = str(message.content).split(" ")
    pieces = [" ".join(words[at : at + WORDS_PER_CHUNK]) for at in range(0, len(words), WORDS_PER_CHUNK)]
    spaced = [piece if at == len(pieces) - 1 else f"{piece} " for at, piece in enumerate(pieces)]
    for piece in spaced:
        yield ChatGenerationChunk(message=AIMessageChunk(content=piece, id=message.id))
    calls = [
        tool_call_chunk(name=c["name"], args=json.dumps(c["args"]), id=c["id"], index=at)
        for at, c in enumerate(message.tool_calls)
    ]
    last = AIMessageChunk(
        content="",
        id=message.id,
        tool_call_chunks=calls,
        usage_metadata=message.usage_metadata,
        response_metadata=message.response_metadata,
        chunk_position="last",
    )
    yield ChatGenerationChunk(message=last)
