"""Which providers are used: those that :func:`use` or ``export`` gave, else what the application has set globally, else none.

This module imports nothing of OpenTelemetry until somebody in the process has.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import weakref
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final, Protocol

from agentbudget.errors import InvalidRequest
from agentbudget.telemetry import names

if TYPE_CHECKING:
    from agentbudget.telemetry.watcher import Watch

_log = logging.getLogger("agentbudget")

ENDPOINT_VARIABLE: Final = "AGENTBUDGET_OTLP"
METRIC_IDS_VARIABLE: Final = "AGENTBUDGET_METRIC_IDS"
METRIC_IDS: Final = {"customer": names.CUSTOMER_ID, "session": names.SESSION_ID}


class HasMailbox(Protocol):
    """A host whose mailbox has a depth: commands that wait for the owner."""

    @property
    def depth(self) -> int: ...


class _State:
    """What this process has: the watch that was given, and the one made of the global ``providers``."""

    def __init__(self) -> None:
        self.given: Watch | None = None
        self.found: Watch | None = None
        self.providers: tuple[Any, ...] = ()
        self.has_read_environment = False
        self.lock = threading.Lock()
        self.hosts: weakref.WeakSet[HasMailbox] = weakref.WeakSet()


_state = _State()


def watch() -> Watch | None:
    """Who watches now; None costs less than a microsecond."""
    if _state.given is not None:
        return _state.given
    return None if "opentelemetry" not in sys.modules else _of_globals()


def use(
    *, tracer_provider: Any = None, meter_provider: Any = None, logger_provider: Any = None,
    metric_ids: Collection[str] = (),
) -> None:  # fmt: skip
    """Use these providers for the sessions that are opened from now on, whatever is set globally. None: not this signal.

    ``metric_ids``: of ``customer`` and ``session`` what may be on metrics too, for who has few of them; each is a series of its
    own. Raises ``InvalidRequest`` for another name."""
    _state.given = _new(tracer_provider, meter_provider, logger_provider, metric_ids)


def stop() -> None:
    """Forget what :func:`use` or ``export`` gave, after writing what waits."""
    given, _state.given = _state.given, None
    if given is not None:
        given.farewell()


def flush(seconds: float = 2.0) -> bool:
    """Wait until everything that happened is with the providers; they have a ``force_flush`` of their own for the rest."""
    return all(one.flush(seconds) for one in (_state.given, _state.found) if one is not None)


def start() -> None:
    """Export where AGENTBUDGET_OTLP says so; once in a process, when its first ledger is opened."""
    if _state.has_read_environment or _state.given is not None or not os.environ.get(ENDPOINT_VARIABLE):
        return
    _state.has_read_environment = True
    from agentbudget.telemetry.otlp import export

    try:
        export(os.environ[ENDPOINT_VARIABLE])
    except Exception as error:  # what cannot be told about must still be decided
        _log.warning("%s is set, and nothing is exported: %s", ENDPOINT_VARIABLE, error)


def register(host: object) -> None:
    """Count the commands that wait at this host, as long as it lives."""
    if hasattr(host, "depth"):
        _state.hosts.add(host)


def depths() -> int:
    """Commands that wait for owners in this process."""
    return sum(host.depth for host in list(_state.hosts))


def named_ids(metric_ids: Collection[str]) -> frozenset[str]:
    """The attributes of these names."""
    unknown = sorted(set(metric_ids) - METRIC_IDS.keys())
    if unknown:
        raise InvalidRequest(f"{', '.join(unknown)}: on metrics may be {' and '.join(METRIC_IDS)}", "metric_ids")
    return frozenset(METRIC_IDS[name] for name in metric_ids)


def ids_by_environment() -> tuple[str, ...]:
    return tuple(filter(None, os.environ.get(METRIC_IDS_VARIABLE, "").replace(" ", "").split(",")))


def _new(tracers: Any, meters: Any, loggers: Any, metric_ids: Collection[str]) -> Watch:
    from agentbudget.telemetry.watcher import Watch

    made = Watch(tracers, meters, loggers, metric_ids=named_ids(metric_ids), depths=depths)
    _watches.add(made)
    atexit.register(_farewell, weakref.ref(made))  # registered after the providers' own, it runs before them
    return made


def _of_globals() -> Watch | None:
    """What the application has set, made into a watch once."""
    from opentelemetry import _logs, metrics, trace

    found = (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider())
    if all(map(_is_no_provider, found)):
        return None
    if _state.found is None or any(a is not b for a, b in zip(found, _state.providers, strict=True)):
        from agentbudget.telemetry.watcher import is_disabled

        if is_disabled():
            return None
        with _state.lock:
            tracers, meters, loggers = (None if _is_no_provider(provider) else provider for provider in found)
            _state.found, _state.providers = _new(tracers, meters, loggers, ids_by_environment()), found
    return _state.found


def _is_no_provider(provider: object) -> bool:
    """Whether it is one of the API's own, which stand where none was set."""
    return type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics", "opentelemetry._logs"))


_watches: weakref.WeakSet[Watch] = weakref.WeakSet()


def _farewell(reference: weakref.ref[Watch]) -> None:
    one = reference()
    if one is not None:
        one.farewell()


def _forked() -> None:
    _state.lock = threading.Lock()
    for one in list(_watches):
        one.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
