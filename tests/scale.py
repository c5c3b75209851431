"""How much a test does: ``ci`` (the default, every change) or ``night`` (``AGENTBUDGET_TEST_SCALE=night``).

The number that an issue or law promises is the one at ``ci``; the night only adds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

_FACTORS = {"ci": 1, "night": 10}  # ten times CI's work takes about two hours on 2 cores: a night, with room


@dataclass(frozen=True, slots=True)
class Scale:
    """``scale(200)`` is 200 in CI and 2,000 at night; ``scale.pick(ci=.., night=..)`` where a multiple is no use."""

    name: str
    factor: int

    def __call__(self, count: int) -> int:
        return count * self.factor

    def pick(self, *, ci: int, night: int) -> int:
        return night if self.name == "night" else ci


def scale_from(environ: Mapping[str, str]) -> Scale:
    """The scale the environment asks for; an unknown one is an error, not a silent default."""
    name = environ.get("AGENTBUDGET_TEST_SCALE") or "ci"
    if name not in _FACTORS:
        raise ValueError(f"AGENTBUDGET_TEST_SCALE is {name!r}: use one of {', '.join(_FACTORS)}, or leave it unset")
    return Scale(name, _FACTORS[name])


SCALE = scale_from(os.environ)
