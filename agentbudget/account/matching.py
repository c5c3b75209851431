"""Which steps a scope covers: shell globs by dimension, every non-empty dimension must match."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NamedTuple

from agentbudget.catalog.terms import Scope


class StepContext(NamedTuple):
    """What scopes look at: hashable, so that answers are remembered."""

    kind: str
    model: str | None
    tool: str | None
    feature: str | None
    workflow: str | None
    path: tuple[str, ...]


@lru_cache(maxsize=4096)
def covers(scope: Scope | None, context: StepContext) -> bool:
    """True when the scope covers the step; no scope covers everything."""
    if scope is None:
        return True
    return (
        _one(scope.kinds, context.kind)
        and _one(scope.models, context.model)
        and _one(scope.tools, context.tool)
        and _one(scope.features, context.feature)
        and _one(scope.workflows, context.workflow)
        and (not scope.entities or any(_one(scope.entities, node) for node in context.path))
    )


def _one(globs: tuple[str, ...], value: str | None) -> bool:
    return not globs or (value is not None and matches_any(globs, value))


@lru_cache(maxsize=4096)
def matches_any(globs: tuple[str, ...], value: str) -> bool:
    """True when one of the globs matches the value (case matters)."""
    return any(fnmatchcase(value, glob) for glob in globs)
