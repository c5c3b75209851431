"""The catalog file as pydantic models: what may be written, and the JSON schema that editors check it by.

Only shape and single values are judged here; what refers to something else is judged in ``crossref`` (so that one look
finds every fault), and ``compile`` turns the models into values. Imported only when a catalog is loaded.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    Tag,
    WithJsonSchema,
)

from agentbudget.amounts import MAX_NANO, NANO, to_nano
from agentbudget.amounts import Amount as AmountText
from agentbudget.catalog.terms import FeatureType, LimitMode, WalletMode, Window
from agentbudget.errors import AgentBudgetError


def _nano(value: AmountText) -> int:
    try:
        return to_nano(value)
    except AgentBudgetError as error:
        raise ValueError(f'{error}; write a number of credits, as "2.50"') from None


def _globs(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _markup(value: Any) -> str:
    """``"20%"`` and ``"1.2x"`` both as the exact multiplier ``"6/5"``; a bare number says neither and is refused, but
    0."""
    text = str(value).strip().replace(" ", "")
    try:
        if value == 0 and not isinstance(value, (bool, str)):
            return "1"
        if isinstance(value, str) and text.endswith("%"):
            return str(1 + _fraction(text[:-1]) / 100)
        if isinstance(value, str) and text.endswith("x"):
            return str(_fraction(text[:-1]))
    except (ValueError, ArithmeticError):
        pass
    raise ValueError('a markup is written "20%" (added to the provider\'s price) or "1.2x" (times it)')


def _fraction(text: str) -> Fraction:
    number = Decimal(text)
    if not number.is_finite() or number < 0 or number.adjusted() > 6 or len(number.as_tuple().digits) > 20:
        raise ValueError(text)
    return Fraction(number)


def _time_us(value: Any) -> int:
    """A date (its start, UTC) or a time (UTC where it names no zone), as UTC microseconds."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        raise ValueError("write a date as 2026-01-31 or a time as 2026-01-31T12:00:00Z")
    value = value if value.tzinfo else value.replace(tzinfo=UTC)
    seconds: timedelta = value - datetime(1970, 1, 1, tzinfo=UTC)
    return (seconds.days * 86_400 + seconds.seconds) * 1_000_000 + seconds.microseconds


_NUMBER = {"anyOf": [{"type": "string"}, {"type": "number", "minimum": 0}]}
Credits: TypeAlias = Annotated[
    int, BeforeValidator(_nano), WithJsonSchema({**_NUMBER, "description": 'credits, exact: "2.50"'})
]
Count: TypeAlias = Annotated[StrictInt, Field(ge=0, le=2**53 - 1)]
Positive: TypeAlias = Annotated[StrictInt, Field(ge=1, le=2**53 - 1)]
Glob: TypeAlias = Annotated[str, Field(min_length=1)]
Globs: TypeAlias = Annotated[
    list[Glob],
    Field(min_length=1),
    BeforeValidator(_globs),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
            ]
        }
    ),
]
Markup: TypeAlias = Annotated[
    str,
    BeforeValidator(_markup),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"const": 0}], "examples": ["20%", "1.2x"]}),
]
Time: TypeAlias = Annotated[
    int,
    BeforeValidator(_time_us),
    WithJsonSchema({"type": "string", "examples": ["2026-01-31", "2026-01-31T12:00:00Z"]}),
]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Section(BaseModel):
    """A part of the file: unknown keys are faults, not noise."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CreditSection(Section):
    """The price of one credit."""

    price: Credits = Field(
        default_factory=lambda: NANO, description="what one credit costs in `currency`, 1 if left out"
    )
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")


class FeatureSection(Section):
    type: FeatureType = "boolean"
    description: str = ""


class ScopeSection(Section):
    """What a grant or limit applies to: globs by dimension; a dimension left out means everything."""

    kinds: Globs | None = None
    models: Globs | None = None
    tools: Globs | None = None
    features: Globs | None = None
    workflows: Globs | None = None
    entities: Globs | None = None


class LimitSection(Section):
    """At most `amount` of `measure` per `window` at `entity` (`customer`, `team:eng`, or `user:*` for each user)."""

    entity: str = Field("customer", min_length=1)
    amount: Annotated[
        Decimal,
        BeforeValidator(lambda value: _amount(value)),
        WithJsonSchema({**_NUMBER, "description": "of the measure"}),
    ]
    measure: str = "credits"
    window: Window = "lifetime"
    mode: LimitMode = "hard"
    scope: ScopeSection | None = None


def _amount(value: Any) -> Decimal:
    """An exact amount of any measure: of credits (checked against its bound in ``crossref``), or a count of 63 bits."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NANO:
        return Decimal(value)
    return Decimal(_nano(value)).scaleb(-9).normalize()


class GrantSection(Section):
    id: Name
    amount: Credits
    every: Window | None = None
    rollover: Credits = 0
    label: str | None = None
    priority: Count = 50
    category: Literal["paid", "promo"] = "paid"
    scope: ScopeSection | None = None


class BreakerSection(Section):
    max_steps: Positive | None = None
    max_depth: Positive | None = None
    max_parallel: Positive | None = None
    repeat: tuple[Positive, Positive] | None = None
    max_rate: Credits | None = None
    max_step_cost: Credits | None = None
    max_seconds: Positive | None = None
    refusals_in_row: Positive | None = None
    error_burst: Positive | None = None


class EntityTypeSection(Section):
    """A kind of entity. With `auto` it is created at first use, under `parent`, with `limits`."""

    auto: StrictBool = False
    parent: str = "customer"
    limits: list[LimitSection] = []


class MeteredSection(Section):
    """A metered feature in a plan: at most `limit` of it per `window`."""

    limit: Count
    window: Window = "month"
    mode: LimitMode = "hard"


def _value_tag(value: Any) -> str:
    if isinstance(value, (dict, MeteredSection)):
        return "<metered>"
    return "<bool>" if isinstance(value, bool) else "<int>" if isinstance(value, int) else "<text>"


FeatureValue: TypeAlias = Annotated[
    Annotated[StrictBool, Tag("<bool>")]
    | Annotated[StrictInt, Tag("<int>")]
    | Annotated[str, Tag("<text>")]
    | Annotated[MeteredSection, Tag("<metered>")],
    Discriminator(_value_tag),
]
FeatureValues: TypeAlias = Annotated[
    Annotated[list[str], Tag("<list>")] | Annotated[dict[str, FeatureValue], Tag("<table>")],
    Discriminator(lambda value: "<table>" if isinstance(value, dict) else "<list>"),
]


class PlanSection(Section):
    wallet: WalletMode = "prepaid"
    credit_line: Credits | None = None
    features: FeatureValues | None = Field(None, description="left out: every feature")
    models: Globs | None = Field(None, description="allowed models; left out: every model")
    grants: list[GrantSection] = []
    limits: list[LimitSection] = []
    breaker: BreakerSection = BreakerSection()
    cycle: Literal["calendar", "anchored"] = "calendar"


class TierSection(Section):
    """Up to `up_to` units (left out in the last tier) each costs `price`."""

    up_to: Positive | None = None
    price: Credits


class TieredSection(Section):
    """Exactly one of: graduated (each unit pays the tier it falls in), volume (all units pay the tier of the whole)."""

    graduated: Annotated[list[TierSection], Field(min_length=1)] | None = None
    volume: Annotated[list[TierSection], Field(min_length=1)] | None = None


Price: TypeAlias = Annotated[
    Annotated[Credits, Tag("<amount>")] | Annotated[TieredSection, Tag("<tiers>")],
    Discriminator(lambda value: "<tiers>" if isinstance(value, (dict, TieredSection)) else "<amount>"),
]
"""Tags in angle brackets keep one reading per value, and so one fault per mistake; they never reach a key path."""


class TokensSection(Section):
    """Credits per million tokens. A class left out costs what it is part of: cache and audio as input, reasoning as
    output.

    Volume tiers are context tiers: the tier of the whole input prices every token of the class. Graduated tiers count
    the class's own tokens, and are for input and output alone.
    """

    input: Price = 0
    cache_read: Price | None = None
    cache_write: Price | None = None
    cache_write_1h: Price | None = None
    output: Price = 0
    reasoning: Price | None = None


class RateSection(Section):
    """Prices the steps that every written glob matches. Exactly one pricing form."""

    id: Name | None = None
    kind: Globs | None = None
    model: Globs | None = None
    tool: Globs | None = None
    provider: Globs | None = None
    feature: Globs | None = None
    tokens: TokensSection | None = None
    per_call: Price | None = None
    per_second: Price | None = None
    per_document: Price | None = None
    fixed: Credits | None = None
    cost_plus: Markup | None = None
    max_seconds: Positive | None = Field(
        None, description="with per_second: what a hold covers where a step states no bound"
    )
    max_documents: Positive | None = Field(
        None, description="with per_document: what a hold covers where a step states no bound"
    )


class PriceCeilingSection(Section):
    """Credits per million tokens, for models that nothing prices."""

    input: Credits
    output: Credits


class CeilingSection(Section):
    """Written bounds for what the price table leaves open; the first that covers the model and states the value
    counts."""

    name: Name
    models: Globs | None = None
    max_output_tokens: Positive | None = None
    context_window: Positive | None = None
    max_seconds: Positive | None = Field(None, description="of audio, for models priced by its duration")
    max_documents: Positive | None = Field(None, description="pages, for models priced by page")
    server_tools: Credits | None = Field(None, description="what the provider's own tools may cost in one call")
    price: PriceCeilingSection | None = None


class OverrideSection(Section):
    """Rates that come first for one customer, from `from` (included) until `until` (not included)."""

    customer: str = Field(min_length=1)
    from_: Time | None = Field(None, alias="from")
    until: Time | None = None
    rates: Annotated[list[RateSection], Field(min_length=1)]


class CatalogFile(Section):
    """The whole file."""

    credit: CreditSection = CreditSection()
    features: dict[Name, FeatureSection] = {}
    entity_types: dict[Name, EntityTypeSection] = {}
    plans: dict[Name, PlanSection] = {}
    rates: list[RateSection] = []
    ceilings: list[CeilingSection] = []
    overrides: list[OverrideSection] = []


def catalog_schema() -> dict[str, Any]:
    """The JSON schema of a catalog file, for editors."""
    schema = CatalogFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "agentbudget catalog"}
