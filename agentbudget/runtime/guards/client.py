"""Guarding a client of an SDK of the family that openai and anthropic belong to: every request passes one method, ``request``,
and every attempt's failure comes out of it as a status error or a connection error.

The client's class becomes one of ours below its own, so it stays what it was for ``isinstance`` and for whoever holds it, and
its copies are guarded as it is. What is used of the SDK beside its public names: ``_should_retry``, ``_sleep_for_retry``,
``_idempotency_key`` and the request's options, which are the same in all its versions.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from agentbudget.errors import InvalidRequest
from agentbudget.runtime.guards.api import Api, Body, Call
from agentbudget.runtime.guards.attempts import Guard, calling, later, now, payer
from agentbudget.runtime.guards.bodies import awatch, watch

if TYPE_CHECKING:
    from agentbudget.catalog import Usage
    from agentbudget.runtime.session import Session
    from agentbudget.runtime.steps.step import Step

C = TypeVar("C")
_RETRY_COUNT: Final = "x-stainless-retry-count"
_classes: dict[type, type] = {}
_classing = threading.Lock()


def guard_client(client: C, guard: Guard) -> C:
    """Guard this client, and every copy that is made of it. Again: nothing; a guard of every call replaces one of what is sent in
    steps. Raises ``InvalidRequest`` for a client that is guarded in another way."""
    before: Guard | None = getattr(client, "_agentbudget", None)
    if before is not None and before != guard and not (before.in_steps or guard.in_steps):
        raise InvalidRequest("the client is guarded in another way already: guard a client of its own", "client")
    if before is None:
        client.__class__ = _guarded_class(type(client))
    if before is None or before.in_steps:
        client._agentbudget = guard  # type: ignore[attr-defined]
    return client


def _guarded_class(cls: Any) -> type:
    with _classing:
        if cls not in _classes:
            is_async = inspect.iscoroutinefunction(cls.request)
            body = {"request": _arequest if is_async else _request, "copy": _copy, "with_options": _copy}
            names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
            _classes[cls] = type(cls.__name__, (cls,), {**body, **names, "_agentbudget_base": cls})
        return _classes[cls]


def _copy(self: Any, *args: Any, **kwargs: Any) -> Any:
    made = self._agentbudget_base.copy(self, *args, **kwargs)
    made._agentbudget = self._agentbudget
    return made


def _request(self: Any, cast_to: Any, options: Any, **how: Any) -> Any:
    call, path, body = _call_of(self, options)
    paying = None if call is None else payer(self._agentbudget, call)
    if call is None or paying is None:
        return self._agentbudget_base.request(self, cast_to, options, **how)
    return now(calling(self._agentbudget, call, path, body, Requests(self, cast_to, options, how), *paying))


async def _arequest(self: Any, cast_to: Any, options: Any, **how: Any) -> Any:
    call, path, body = _call_of(self, options)
    paying = None if call is None else payer(self._agentbudget, call)
    if call is None or paying is None:
        return await self._agentbudget_base.request(self, cast_to, options, **how)
    return await later(
        calling(self._agentbudget, call, path, body, AsyncRequests(self, cast_to, options, how), *paying)
    )


def _call_of(client: Any, options: Any) -> tuple[Call | None, str, Body]:
    """What a request asks for, its path, and its body as the SDK would merge it."""
    if options.method.lower() != "post":
        return None, "", {}
    path, body = urlsplit(str(options.url)).path, options.json_data
    if isinstance(body, Mapping) or (body is None and options.extra_json):
        merged = {**(body or {}), **(options.extra_json or {})}
        body = {name: value for name, value in merged.items() if type(value).__name__ not in ("Omit", "NotGiven")}
    return client._agentbudget.api.call_of(path, body), path, body if isinstance(body, Mapping) else {}


class Requests:
    """One request of a blocking client, as often as it is sent."""

    def __init__(self, client: Any, cast_to: Any, options: Any, how: dict[str, Any]) -> None:
        self._client, self._cast_to, self._how = client, cast_to, how
        self._options = options = options.model_copy()
        self.retries: int = options.get_max_retries(client.max_retries)
        if options.idempotency_key is None:
            options.idempotency_key = client._idempotency_key()  # one for all attempts, as the SDK has it
        self._parser = options.post_parser if callable(options.post_parser) else None
        self._parsed: list[Any] = []

    def reserve(self, session: Session, call: Call, feature: str | None) -> Any:
        return session.reserve(call.kind, **_what(call, feature))

    def send(self, body: Body, taken: int) -> Any:
        sent = self._client._agentbudget_base.request(
            self._client, self._cast_to, self._attempt(body, taken), **self._how
        )
        return self._counted(sent, taken)

    def pause(self, taken: int, error: BaseException) -> Any:
        return self._client._sleep_for_retry(**self._waiting(taken, error))

    def end(self, step: Step, error: BaseException | None, usage: Usage | None) -> Any:
        return step.fail(error) if error is not None and usage is None else step.settle(usage)

    def watch(self, response: Any, step: Step, api: Api, request: Any) -> None:
        watch(response, step, api, request)

    def parsed(self) -> Any:
        return self._parsed[-1] if self._parsed else None

    def is_tried_again(self, error: BaseException) -> bool:
        names = {cls.__name__ for cls in type(error).__mro__}
        if "APIStatusError" in names:
            return bool(self._client._should_retry(error.response))  # type: ignore[attr-defined]
        return "APIConnectionError" in names

    def _attempt(self, body: Body, taken: int) -> Any:
        """The options of one attempt, which the SDK does not try again by itself."""
        options, self._parsed = self._options.model_copy(), []
        options.max_retries = 0
        if body:
            options.json_data, options.extra_json = dict(body), None
        if taken:
            given = options.headers if isinstance(options.headers, Mapping) else {}
            options.headers = {**given, _RETRY_COUNT: str(taken)}
        if self._parser is not None:
            options.post_parser = self._parse
        return options

    def _parse(self, reply: Any) -> Any:
        """The caller's parser may refuse a reply that was paid for."""
        self._parsed.append(reply)
        return self._parser(reply)  # type: ignore[misc]

    def _counted(self, reply: Any, taken: int) -> Any:
        if taken and hasattr(reply, "retries_taken"):
            reply.retries_taken = taken
        return reply

    def _waiting(self, taken: int, error: BaseException) -> dict[str, Any]:
        response = getattr(error, "response", None)
        return {"retries_taken": taken, "max_retries": self.retries, "options": self._options, "response": response}


class AsyncRequests(Requests):
    """The same of an awaiting client."""

    def reserve(self, session: Session, call: Call, feature: str | None) -> Any:
        return session.areserve(call.kind, **_what(call, feature))

    async def send(self, body: Body, taken: int) -> Any:
        base = self._client._agentbudget_base
        return self._counted(
            await base.request(self._client, self._cast_to, self._attempt(body, taken), **self._how), taken
        )

    def end(self, step: Step, error: BaseException | None, usage: Usage | None) -> Any:
        return step.afail(error) if error is not None and usage is None else step.asettle(usage)

    def watch(self, response: Any, step: Step, api: Api, request: Any) -> None:
        awatch(response, step, api, request)


def _what(call: Call, feature: str | None) -> Any:
    """The arguments of ``reserve``."""
    return {
        "model": call.model, "name": call.name, "provider": call.provider, "request": call.request, "feature": feature,
        "max_output_tokens": call.cap, "cap_enforced": call.cap_name is not None, "quantity": call.quantity,
        "server_tools": call.server_tools, "dispatched": True,
    }  # fmt: skip
