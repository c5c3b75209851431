"""Spans, metrics and events of what the runtime decides. See README.md.

``export`` sends them by OTLP; ``use`` takes providers; without either, whatever providers the application sets globally are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentbudget.telemetry.active import flush, register, start, stop, use, watch

if TYPE_CHECKING:
    from agentbudget.telemetry.otlp import Export, export

__all__ = ["Export", "export", "flush", "register", "start", "stop", "use", "watch"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in ("Export", "export"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from agentbudget.telemetry import otlp

        return getattr(otlp, name)
