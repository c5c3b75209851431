"""After a step was sent: does its failure prove that nothing was, or will be, billed?

Only two kinds of exception prove it, by themselves: the provider's own answer "no", and a connection that was never
made. Everything else (parsing errors, cancellation, timeouts, disconnects, abandoned streams) follows ``on_unknown``.
"""

from __future__ import annotations

from typing import Final

_REFUSED_BY_PROVIDER: Final = frozenset(range(400, 500)) - {408} | {500, 503, 529}
"""4xx: the request was refused unread. 408: the provider gave up while working, so it may bill. 500, 503, 529
(overloaded): failed before an answer, not billed by OpenAI, Anthropic or Google. 502 and 504 come from gateways and say
nothing of the work."""

_WEB_FRAMEWORKS: Final = frozenset(
    {"aiohttp", "django", "fastapi", "falcon", "flask", "sanic", "starlette", "werkzeug"}
)
"""Their errors carry ``status_code`` too, but state what our side will answer to its own client, often after a paid
reply."""

_NEVER_CONNECTED: Final = frozenset(
    {
        "ConnectionRefusedError",  # the system: nobody listens there
        "gaierror",  # socket: the name has no address
        "ConnectError",  # httpx, httpcore: no connection
        "ConnectTimeout",  # httpx, httpcore, requests: no connection in time
        "NewConnectionError",  # urllib3: no connection
        "ConnectTimeoutError",  # urllib3, botocore: no connection in time
        "ClientConnectorError",  # aiohttp: no connection (a subclass for DNS)
        "EndpointConnectionError",  # botocore: no connection
    }
)
_WRAPS_ANY_CONNECTION_ERROR: Final = frozenset({"APIConnectionError"})
"""openai and anthropic raise this for broken reads as well, so only its cause tells."""


def proves_not_billed(error: BaseException | None) -> bool:
    """Whether this exception itself is a provider's refusal or a connection that was never made."""
    if error is None:
        return False
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & _NEVER_CONNECTED:
        return True
    if names & _WRAPS_ANY_CONNECTION_ERROR:
        return error.__cause__ is not None and proves_not_billed(error.__cause__)
    status = getattr(error, "status_code", None)
    if type(status) is not int or type(error).__module__.partition(".")[0] in _WEB_FRAMEWORKS:
        return False
    return status in _REFUSED_BY_PROVIDER
