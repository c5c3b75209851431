"""Values as plain data for ``--json``: amounts are decimal strings of credits, times ISO 8601 with zone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from msgspec import Struct

from agentbudget.account.decision import Decision
from agentbudget.amounts import Credits
from agentbudget.runtime.views import at

_AGES = {"age_us"}
"""Microseconds that are a length of time, not a moment."""


def to_data(value: Any) -> Any:
    """A value of the public API as JSON has it; a field ``resets_at_us`` or ``opened_us`` becomes ``resets_at``,
    ``opened_at``."""
    if isinstance(value, Decision):
        return decision_data(value)
    if isinstance(value, Struct):
        return dict(_field(name, getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, Mapping):
        return {str(key): to_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_data(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Credits | Decimal) else value


def decision_data(decision: Decision) -> dict[str, Any]:
    """A decision with its binding constraint and its text."""
    data = {name: getattr(decision, name) for name in decision.__struct_fields__}
    data["grants"] = [{"grant": grant, "amount": amount} for grant, amount in decision.grants]
    data["binding"], data["text"] = decision.binding, str(decision)
    return dict(_field(name, value) for name, value in data.items())


def _field(name: str, value: Any) -> tuple[str, Any]:
    if not name.endswith("_us") or name in _AGES:
        return name, to_data(value)
    return name.removesuffix("_us").removesuffix("_at") + "_at", to_data(at(value))
