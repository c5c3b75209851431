"""What refers to something else in a catalog, or contradicts it: judged on the plain data, so that a file with wrong
values still shows every wrong reference in the same look. Anything of an unexpected shape is passed over here: pydantic
names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any, Final, TypeAlias

from agentbudget.amounts import to_nano
from agentbudget.catalog.quotes import KINDS
from agentbudget.catalog.source import KeyPath
from agentbudget.catalog.terms import MEASURES
from agentbudget.errors import AgentBudgetError

FORMS: Final = ("tokens", "per_call", "per_second", "per_document", "fixed", "cost_plus")
_BUILT_IN_TYPES: Final = ("session",)
_SCOPE: Final = ("kinds", "models", "tools", "features", "workflows", "entities")

Found: TypeAlias = Iterator[tuple[KeyPath, str]]


def crossref_faults(data: Any) -> Found:
    """Every (key path, what is wrong)."""
    catalog = _table(data)
    yield from _credit(catalog)
    yield from _features(catalog)
    yield from _entity_types(catalog)
    for name, plan in _table(catalog.get("plans")).items():
        yield from _plan(("plans", name), _table(plan), catalog)
    yield from _rates(catalog)
    yield from _ceilings(catalog)


def _credit(catalog: Mapping[str, Any]) -> Found:
    credit = _table(catalog.get("credit"))
    if _number(credit.get("price", 1)) == 0:
        yield ("credit", "price"), "must be more than 0"
    if credit.get("currency", "USD") == "USD":
        return
    for path, rate in _every_rate(catalog):
        if "cost_plus" in rate:
            yield (*path, "cost_plus"), "needs a credit priced in USD, the currency of the provider price table"


def _features(catalog: Mapping[str, Any]) -> Found:
    for name in _table(catalog.get("features")):
        if name in MEASURES:
            yield ("features", name), "is the name of a built-in measure: choose another"


def _entity_types(catalog: Mapping[str, Any]) -> Found:
    types = _table(catalog.get("entity_types"))
    for name, section in types.items():
        path: KeyPath = ("entity_types", name)
        if name in ("customer", *_BUILT_IN_TYPES):
            yield path, "is built in: choose another name"
        yield from _parent(path, name, _table(section), types)
        yield from _limits((*path, "limits"), _table(section).get("limits"), catalog)


def _parent(path: KeyPath, name: str, section: Mapping[str, Any], types: Mapping[str, Any]) -> Found:
    parent = section.get("parent", "customer")
    if not isinstance(parent, str) or parent == "customer":
        return
    kind, _, entity = parent.partition(":")
    if kind not in types:
        yield (*path, "parent"), f"{kind!r} is no entity type of this catalog; it knows {_names(['customer', *types])}"
    elif not entity and section.get("auto") is True:
        yield (*path, "parent"), f"an auto type needs one parent: 'customer', or an entity such as '{kind}:default'"
    elif name in _ancestors(name, types):
        yield (*path, "parent"), "is below itself: a tree has no cycles"


def _ancestors(name: str, types: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    while name in types and len(found) <= len(types):
        parent = _table(types[name]).get("parent", "customer")
        name = parent.partition(":")[0] if isinstance(parent, str) else ""
        found.append(name)
    return found


def _plan(path: KeyPath, plan: Mapping[str, Any], catalog: Mapping[str, Any]) -> Found:
    if plan.get("credit_line") is not None and plan.get("wallet", "prepaid") == "prepaid":
        yield (*path, "credit_line"), 'bounds what a postpaid plan may owe: set wallet = "postpaid" or leave it out'
    yield from _plan_features((*path, "features"), plan.get("features"), _table(catalog.get("features")))
    yield from _repeated(((*path, "grants", i, "id"), g.get("id")) for i, g in _items(plan.get("grants")))
    for index, grant in _items(plan.get("grants")):
        yield from _grant((*path, "grants", index), grant)
    yield from _limits((*path, "limits"), plan.get("limits"), catalog)
    repeat = _table(plan.get("breaker")).get("repeat")
    if isinstance(repeat, list) and len(repeat) == 2 and all(type(n) is int for n in repeat) and repeat[0] > repeat[1]:
        yield (
            (*path, "breaker", "repeat"),
            f"{repeat[0]} times cannot happen within {repeat[1]} steps: write [times, within]",
        )


def _plan_features(path: KeyPath, stated: Any, known: Mapping[str, Any]) -> Found:
    named = [name for name in stated if isinstance(name, str)] if isinstance(stated, (list, dict)) else []
    if isinstance(stated, list):
        yield from _repeated(((*path, index), name) for index, name in enumerate(stated))
    for index, name in enumerate(named):
        at: KeyPath = (*path, index) if isinstance(stated, list) else (*path, name)
        if name not in known:
            yield at, f"{name!r} is no feature of this catalog; it knows {_names(known)}"
            continue
        kind = _table(known[name]).get("type", "boolean")
        what = _value_fault(kind, True if isinstance(stated, list) else stated[name])
        if what:
            yield at, what


def _value_fault(kind: Any, value: Any) -> str:
    if kind == "boolean" and not isinstance(value, bool):
        return "is a boolean feature: write true or false"
    if kind == "config" and (value is True or isinstance(value, dict)):
        return "is a config feature: write its value, as a number or a text"
    if kind == "metered" and not (isinstance(value, (bool, dict))):
        return 'is a metered feature: write true, or a limit as { limit = 1000, window = "month" }'
    return ""


def _grant(path: KeyPath, grant: Mapping[str, Any]) -> Found:
    if _number(grant.get("rollover", 0)) and grant.get("every") is None:
        yield (*path, "rollover"), 'needs a grant that comes again: set every = "month", or leave it out'
    yield from _scope((*path, "scope"), grant.get("scope"))


def _limits(path: KeyPath, limits: Any, catalog: Mapping[str, Any]) -> Found:
    seen: dict[str, int] = {}
    for index, limit in _items(limits):
        at: KeyPath = (*path, index)
        yield from _limit(at, limit, catalog)
        same = repr(
            [limit.get("entity", "customer"), limit.get("measure", "credits"), limit.get("window"), limit.get("scope")]
        )
        if same in seen:
            yield at, f"limits the same as {seen[same]} in this list (entity, measure, window and scope): keep one"
        seen.setdefault(same, index)


def _limit(path: KeyPath, limit: Mapping[str, Any], catalog: Mapping[str, Any]) -> Found:
    measure, entity = limit.get("measure", "credits"), limit.get("entity", "customer")
    metered = [name for name, f in _table(catalog.get("features")).items() if _table(f).get("type") == "metered"]
    if isinstance(measure, str) and measure not in MEASURES and measure not in metered:
        yield (*path, "measure"), f"{measure!r} is no measure; use one of {_names([*MEASURES, *metered])}"
    kind = entity.partition(":")[0] if isinstance(entity, str) else "customer"
    types = ["customer", *_BUILT_IN_TYPES, *_table(catalog.get("entity_types"))]
    if kind not in types or (kind != "customer" and entity in (kind, f"{kind}:")):
        yield (
            (*path, "entity"),
            f"{entity!r} is no entity: write 'customer', a name as 'team:eng', or 'user:*' for each user",
        )
    amount = limit.get("amount")
    nano = _number(amount)
    if measure == "credits" and nano is None and type(amount) is int and amount > 0:
        yield (*path, "amount"), "is more than 64 bits of nanocredits (about 9.2 billion credits)"
    if measure != "credits" and nano is not None and nano % 1_000_000_000:
        yield (*path, "amount"), f"{measure} are counted whole: write a whole number"
    yield from _scope((*path, "scope"), limit.get("scope"))


def _scope(path: KeyPath, scope: Any) -> Found:
    if isinstance(scope, dict) and not scope:
        yield path, f"covers nothing in particular: name globs for one of {_names(_SCOPE)}, or leave the scope out"
    kinds = _table(scope).get("kinds")
    if kinds is not None:
        yield from _kinds((*path, "kinds"), kinds)


def _kinds(path: KeyPath, globs: Any) -> Found:
    for glob in [globs] if isinstance(globs, str) else globs if isinstance(globs, list) else []:
        if isinstance(glob, str) and glob and not any(fnmatchcase(kind, glob) for kind in KINDS):
            yield path, f"{glob!r} matches no kind of step; the kinds are {_names(KINDS)}"


def _rates(catalog: Mapping[str, Any]) -> Found:
    rates = list(_every_rate(catalog))
    yield from _repeated(((*path, "id"), rate.get("id")) for path, rate in rates)
    for path, rate in rates:
        yield from _rate(path, rate)
    for index, override in _items(catalog.get("overrides")):
        first, last = str(override.get("from", "")), str(override.get("until", "9999"))
        if first and last <= first:
            yield ("overrides", index, "until"), f"is not after from ({first}): the rates would never apply"


def _rate(path: KeyPath, rate: Mapping[str, Any]) -> Found:
    forms = [form for form in FORMS if rate.get(form) is not None]
    if len(forms) != 1:
        has = f"it has {_names(forms)}" if forms else "it has none"
        yield path, f"needs exactly one pricing form of {_names(FORMS)}; {has}"
    for form, bound in (("per_second", "max_seconds"), ("per_document", "max_documents")):
        if (form in rate) != (bound in rate):
            missing = f"needs {bound}, what a hold covers where a step states no bound" if form in rate else ""
            yield (*path, form if form in rate else bound), missing or f"goes with {form} only"
    if "kind" in rate:
        yield from _kinds((*path, "kind"), rate["kind"])
    for form in FORMS[1:4]:
        yield from _tiers((*path, form), rate.get(form))
    yield from _tokens((*path, "tokens"), _table(rate.get("tokens")))


def _tokens(path: KeyPath, tokens: Mapping[str, Any]) -> Found:
    for name, price in tokens.items():
        yield from _tiers((*path, name), price)
    graduated = [name for name, price in tokens.items() if "graduated" in _table(price)]
    others = [name for name, price in tokens.items() if name not in ("input", "output") or "volume" in _table(price)]
    if graduated and others:
        yield (
            (*path, graduated[0]),
            f"graduated tiers are for input and output alone; {_names(others)} cannot stand beside them",
        )


def _tiers(path: KeyPath, price: Any) -> Found:
    if not isinstance(price, dict):
        return
    kinds = [kind for kind in ("graduated", "volume") if price.get(kind) is not None]
    if len(kinds) != 1:
        yield path, "needs exactly one of graduated and volume, each a list of { up_to, price }"
    for kind in kinds:
        tiers = [tier for _, tier in _items(price[kind])]
        ends = [tier.get("up_to") for tier in tiers]
        if ends and ends[-1] is not None:
            yield (*path, kind), "the last tier has no end: leave up_to out of it"
        numbers = [end for end in ends[:-1] if type(end) is int]
        if len(numbers) < len(ends) - 1 or numbers != sorted(set(numbers)):
            yield (*path, kind), "tiers need an up_to each but the last, growing from tier to tier"


def _ceilings(catalog: Mapping[str, Any]) -> Found:
    yield from _repeated((("ceilings", i, "name"), c.get("name")) for i, c in _items(catalog.get("ceilings")))
    for index, ceiling in _items(catalog.get("ceilings")):
        if not set(ceiling) - {"name", "models"}:
            yield ("ceilings", index), "bounds nothing: state max_output_tokens, context_window, server_tools or price"


def _every_rate(catalog: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    plain = ((("rates", index), rate) for index, rate in _items(catalog.get("rates")))
    overridden = (
        (("overrides", index, "rates", inner), rate)
        for index, override in _items(catalog.get("overrides"))
        for inner, rate in _items(override.get("rates"))
    )
    yield from chain(plain, overridden)


def _repeated(named: Iterable[tuple[KeyPath, Any]]) -> Found:
    first: dict[str, KeyPath] = {}
    for path, name in named:
        if isinstance(name, str) and name in first:
            yield path, f"{name!r} stands twice: ids are unique"
        elif isinstance(name, str):
            first[name] = path


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[tuple[int, Mapping[str, Any]]]:
    return [(i, item) for i, item in enumerate(value) if isinstance(item, dict)] if isinstance(value, list) else []


def _number(value: Any) -> int | None:
    try:
        return to_nano(value)
    except AgentBudgetError:
        return None


def _names(names: Iterable[str]) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed) if listed else "none"
