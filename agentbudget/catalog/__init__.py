"""Plans, features, rates and estimates: what a step may cost, and what it cost. See README.md in this folder.

Each name is loaded at first use (PEP 562): the account needs only ``terms``, and pydantic and the price table wait for
the first catalog and the first price.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentbudget.catalog.estimate import Estimate, Estimator, estimate_input
    from agentbudget.catalog.load import Catalog, Feature
    from agentbudget.catalog.model import catalog_schema
    from agentbudget.catalog.quotes import Charge, PriceRequest, Quote, UnknownPrice
    from agentbudget.catalog.usage import Usage

__all__ = [
    "Catalog",
    "Charge",
    "Estimate",
    "Estimator",
    "Feature",
    "PriceRequest",
    "Quote",
    "UnknownPrice",
    "Usage",
    "catalog_schema",
    "estimate_input",
]

_NAMES_OF = {
    "estimate": ("Estimate", "Estimator", "estimate_input"),
    "load": ("Catalog", "Feature"),
    "model": ("catalog_schema",),
    "quotes": ("Charge", "PriceRequest", "Quote", "UnknownPrice"),
    "usage": ("Usage",),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _NAMES_OF.items() for name in names}

if not TYPE_CHECKING:  # a type checker reads the imports above, and so still finds a misspelt name

    def __getattr__(name: str) -> object:
        module = _MODULE_OF.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(module), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
