"""Which failures prove, by themselves, that a step which was sent is not billed."""

from __future__ import annotations

import socket

import pytest

from agentbudget.runtime.steps.failures import proves_not_billed
from tests.runtime.support import StatusError


def named(name: str, *bases: type[Exception], module: str = "sdk", cause: BaseException | None = None) -> Exception:
    """An exception whose class has this name and module, as libraries that are not installed here raise them."""
    error = type(name, bases or (Exception,), {"__module__": module})("failed")
    error.__cause__ = cause
    assert isinstance(error, Exception)
    return error


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 499, 500, 503, 529])
def test_the_providers_own_refusal_is_not_billed(status: int) -> None:
    assert proves_not_billed(StatusError(status))


@pytest.mark.parametrize("status", [200, 302, 408, 501, 502, 504, 599, "429", None, True])
def test_any_other_status_proves_nothing(status: object) -> None:
    assert not proves_not_billed(StatusError(status))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        socket.gaierror(),
        named("ConnectError", module="httpx"),
        named("ConnectTimeout", module="httpx"),
        named("NewConnectionError", module="urllib3"),
        named("ClientConnectorDNSError", type("ClientConnectorError", (Exception,), {}), module="aiohttp"),
        named("EndpointConnectionError", module="botocore"),
        named("APIConnectionError", module="openai", cause=named("ConnectError", module="httpx")),
    ],
)
def test_a_connection_that_was_never_made_is_not_billed(error: Exception) -> None:
    assert proves_not_billed(error)


@pytest.mark.parametrize(
    "error",
    [
        None,
        ValueError("cannot parse"),
        TimeoutError(),
        ConnectionResetError(),
        BrokenPipeError(),
        KeyboardInterrupt(),
        GeneratorExit(),
        named("ReadTimeout", module="httpx"),
        named("RemoteProtocolError", module="httpx"),
        named("APIConnectionError", module="openai"),
        named("APIConnectionError", module="openai", cause=named("ReadError", module="httpx")),
        named("RuntimeError", cause=StatusError(429)),
    ],
)
def test_everything_else_proves_nothing(error: BaseException | None) -> None:
    assert not proves_not_billed(error)


def test_a_web_frameworks_status_is_about_our_own_client() -> None:
    error = type("HTTPException", (StatusError,), {"__module__": "fastapi.exceptions"})(422)
    assert not proves_not_billed(error)
