"""The catalog: loaded whole or not at all, immutable, shared freely between threads, known by the hash of its
content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from agentbudget.amounts import MAX_NANO, NANO, USD
from agentbudget.catalog.cards import half_even
from agentbudget.catalog.pricing import Plain, PlainKey, Pricer
from agentbudget.catalog.quotes import Charge, PriceRequest, Quote
from agentbudget.catalog.source import Fault, Format, KeyPath, line_of, parse, path_text
from agentbudget.catalog.terms import FeatureType, PlanTerms
from agentbudget.catalog.usage import Usage
from agentbudget.errors import CatalogError, InvalidAmount, InvalidRequest

if TYPE_CHECKING:
    from agentbudget.catalog.model import CatalogFile

_FORMATS: Final[Mapping[str, Format]] = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}


class Feature(Struct, frozen=True):
    """Something a plan may entitle: ``boolean`` (may be used), ``config`` (carries a value), ``metered`` (is
    counted)."""

    id: str
    type: FeatureType
    description: str = ""


class Catalog:
    """Plans, features and rates of one version. Make one with :meth:`load`, :meth:`loads` or :meth:`bundled`."""

    __slots__ = (
        "_nano_per_unit",
        "_pricer",
        "_terms",
        "currency",
        "features",
        "format",
        "plan_ids",
        "source",
        "text",
        "version",
    )

    version: str
    """``cat_`` and 16 hex digits of the SHA-256 of the content: equal content has one version, in TOML or in YAML."""
    currency: str
    features: Mapping[str, Feature]
    plan_ids: tuple[str, ...]
    text: str
    format: Format
    source: str
    _nano_per_unit: Fraction
    _pricer: Pricer
    _terms: Mapping[str, PlanTerms]

    def __init__(self, file: CatalogFile, *, text: str, format: Format, source: str) -> None:
        from agentbudget.catalog import compile

        version = content_version(file)
        nano_per_unit = Fraction(NANO * NANO, file.credit.price)
        pricer = Pricer(
            nano_per_unit=nano_per_unit,
            currency=file.credit.currency,
            rates=compile.rates(file),
            overrides=compile.overrides(file),
            ceilings=compile.ceilings(file),
        )
        values = {
            "version": version,
            "currency": file.credit.currency,
            "features": MappingProxyType({n: Feature(n, f.type, f.description) for n, f in file.features.items()}),
            "plan_ids": tuple(sorted(file.plans)),
            "text": text,
            "format": format,
            "source": source,
            "_nano_per_unit": nano_per_unit,
            "_pricer": pricer,
            "_terms": {name: compile.plan_terms(file, name, version) for name in file.plans},
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def load(cls, path: str | Path) -> Catalog:
        """Load a ``.toml``, ``.yaml`` or ``.yml`` file. Raises :class:`CatalogError` with every fault at once."""
        path = Path(path)
        format = _FORMATS.get(path.suffix.lower())
        if format is None:
            raise CatalogError(str(path), [(None, "(file)", "has no known suffix: name it .toml, .yaml or .yml")])
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CatalogError(str(path), [(None, "(file)", f"cannot be read: {error}")]) from None
        return cls.loads(text, format=format, source=str(path))

    @classmethod
    def loads(cls, text: str, *, format: Format = "toml", source: str = "catalog") -> Catalog:
        """Load a text. Raises :class:`CatalogError` with every fault at once: line where certain, key path, what is
        wrong."""
        return cls(read_catalog(text, format, source), text=text, format=format, source=source)

    @staticmethod
    def bundled() -> Catalog:
        """The catalog that comes with the package: one credit is one US dollar, provider prices at cost, plan
        ``local``."""
        return _bundled()

    def terms(self, plan_id: str) -> PlanTerms:
        """What the plan promises. Raises :class:`InvalidRequest` naming the known plans."""
        terms = self._terms.get(plan_id)
        if terms is None:
            known = ", ".join(self.plan_ids) or "none"
            raise InvalidRequest(f"{plan_id!r} is no plan of catalog {self.version}; it knows {known}", "plan")
        return terms

    def money_of(self, nano: int) -> tuple[float, str]:
        """What so many nanocredits are worth, to be shown: an amount of a currency, as exact as a float is."""
        return float(nano / self._nano_per_unit), self.currency

    def usd(self, amount: USD) -> int:
        """Nanocredits that so many US dollars buy, half to even. Raises :class:`InvalidRequest` if credits are priced
        otherwise."""
        if self.currency != "USD":
            raise InvalidRequest(
                f"credits of this catalog are priced in {self.currency}: state credits, not USD", "amount"
            )
        exact = Fraction(amount.amount) * self._nano_per_unit
        nano = half_even(exact.numerator, exact.denominator)
        if nano > MAX_NANO:
            raise InvalidAmount(repr(amount), "too_large")
        return nano

    def quote(self, request: PriceRequest) -> Quote:
        """The most the step can cost, to be held before it runs: nanocredits, rounded up, at the dearest class that may
        apply.

        Raises :class:`UnknownPrice` for a model that nothing prices, :class:`InvalidAmount` beyond 64 bits.
        """
        return self._pricer.quote(request)

    def charge(self, request: PriceRequest, usage: Usage) -> Charge:
        """What the step cost: nanocredits, half to even, by the model served where that has a price.

        Raises :class:`UnknownPrice` where nothing prices the model and the usage states no cost.
        """
        return self._pricer.charge(request, usage)

    def plain(self, key: PlainKey) -> Plain | None:
        """See :meth:`Pricer.plain`."""
        return self._pricer.plain(key)

    def context_window(self, request: PriceRequest) -> int:
        """Tokens of the model's context window: the price table's, else the named ceiling's. Give it to
        ``estimate_input``."""
        return self._pricer.window(request)

    def window_of(self, model: str | None, provider: str | None = None) -> int:
        """:meth:`context_window` by name."""
        return self._pricer.window_of(model, provider)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Catalog is immutable: load another one instead of setting {name}")

    def __repr__(self) -> str:
        return f"<Catalog {self.version} of {self.source}: {len(self.plan_ids)} plans>"

    def __eq__(self, other: object) -> bool:
        return self.version == other.version if isinstance(other, Catalog) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.version)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reload, (self.text, self.format, self.source)


def read_catalog(text: str, format: Format, source: str) -> CatalogFile:
    """Parse and judge a catalog text. Raises :class:`CatalogError` with every fault, in the order of the file."""
    from pydantic import ValidationError

    from agentbudget.catalog.crossref import crossref_faults
    from agentbudget.catalog.model import CatalogFile

    data, lines, faults = parse(text, format, source)
    found = {path_text(path): (path, what) for path, what in crossref_faults(data)}
    file = None
    try:
        file = CatalogFile.model_validate(data)
    except ValidationError as error:
        found |= {path_text(path): (path, what) for path, what in map(_plain, error.errors(include_url=False))}
    every: list[Fault] = [*faults, *((line_of(path, lines), text, what) for text, (path, what) in found.items())]
    if every or file is None:
        raise CatalogError(source, sorted(every, key=lambda fault: (fault[0] or 0, fault[1])))
    return file


def content_version(file: CatalogFile) -> str:
    """The version of a content: what is written, not how (format, order of keys, spelling of amounts, defaults)."""
    content = file.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if file.credit.price == NANO:
        content.get("credit", {}).pop("price", None)
    content = {name: section for name, section in content.items() if section}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"cat_{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"


def _plain(error: Any) -> tuple[KeyPath, str]:
    """A pydantic error as (key path, plain words). Parts of its path that no file has (union tags) are left out."""
    path = tuple(
        part for part in error["loc"] if not (isinstance(part, str) and part.startswith(("<", "[key]", "function-")))
    )
    if error["type"] == "extra_forbidden":
        return path, f"is no key of this place{_suggestion(str(path[-1]))}"
    if error["type"] == "missing":
        return path, "is missing"
    if error["type"] in ("dict_type", "model_type", "model_attributes_type"):
        return path, "must be a table of keys"
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    return path, message[:1].lower() + message[1:]


def _suggestion(name: str) -> str:
    from difflib import get_close_matches

    from agentbudget.catalog import model

    sections = [value for value in vars(model).values() if isinstance(value, type) and issubclass(value, model.Section)]
    known = {field.alias or key for section in sections for key, field in section.model_fields.items()}
    near = get_close_matches(name, known - {name}, n=1)
    return f"; did you mean {near[0]!r}?" if near else ": take it out (or move it to where it belongs)"


@cache
def _bundled() -> Catalog:
    text = resources.files("agentbudget.catalog").joinpath("bundled.toml").read_text(encoding="utf-8")
    return Catalog.loads(text, source="bundled catalog")


def _reload(text: str, format: Format, source: str) -> Catalog:
    return Catalog.loads(text, format=format, source=source)
