"""A good catalog: its version, its plans, its schema, its immutability."""

from __future__ import annotations

import pickle
import tomllib
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

from agentbudget import USD, Breaker, Catalog, InvalidAmount, InvalidRequest, Scope
from agentbudget.catalog import catalog_schema
from agentbudget.catalog.terms import EntitlementTerms, EntityTypeTerms, GrantTerms, LimitTerms

BUNDLED = resources.files("agentbudget.catalog").joinpath("bundled.toml").read_text(encoding="utf-8")

FULL = """
credit = { price = "0.01" }
features.research = {}
features.seats = { type = "config" }
features.reports = { type = "metered" }
entity_types.team = { auto = true, limits = [{ entity = "team:*", amount = "2.5", window = "day" }] }
entity_types.user = { parent = "team" }

[plans.team]
wallet = "postpaid"
credit_line = 100
cycle = "anchored"
models = "gpt-*"
features = { research = true, seats = 5, reports = { limit = 20, window = "week" } }
breaker = { repeat = [3, 9], max_rate = "0.5", max_steps = 7 }
grants = [
  { id = "monthly", amount = 500, every = "month", rollover = 100, label = "x", priority = 0, category = "promo" },
  { id = "once", amount = "0.000000001", scope = { models = ["a*", "b"], entities = "user:*" } },
]
limits = [
  { amount = 5, window = "month" },
  { entity = "user:*", amount = 9000000000000, measure = "tokens", mode = "soft", scope = { kinds = "llm" } },
]
"""


def test_a_plan_is_compiled_whole() -> None:
    catalog = Catalog.loads(FULL)
    terms = catalog.terms("team")
    assert (terms.plan, terms.catalog, terms.wallet, terms.cycle) == ("team", catalog.version, "postpaid", "anchored")
    assert terms.credit_line == 100 * 10**9
    assert terms.models == ("gpt-*",)
    assert terms.features == (
        EntitlementTerms("research", "boolean"),
        EntitlementTerms("seats", "config", 5),
        EntitlementTerms("reports", "metered"),
    )
    assert terms.grants == (
        GrantTerms("monthly", 500 * 10**9, "month", 100 * 10**9, "x", 0, "promo"),
        GrantTerms("once", 1, scope=Scope(models=("a*", "b"), entities=("user:*",))),
    )
    assert terms.limits == (
        LimitTerms("customer", 5 * 10**9, window="month"),
        LimitTerms("user:*", 9 * 10**12, "tokens", mode="soft", scope=Scope(kinds=("llm",))),
        LimitTerms("customer", 20, "reports", window="week"),
    )
    assert terms.breaker == Breaker(repeat=(3, 9), max_rate=5 * 10**8, max_steps=7)
    assert terms.entity_types == (
        EntityTypeTerms("team", True, limits=(LimitTerms("team:*", 25 * 10**8, window="day"),)),
        EntityTypeTerms("user", parent="team"),
    )


def test_a_boolean_feature_set_to_false_is_not_entitled_and_no_features_at_all_means_every_one() -> None:
    catalog = Catalog.loads("features.f = {}\nplans.a.features = { f = false }\nplans.b = {}")
    assert catalog.terms("a").features == ()
    assert catalog.terms("b").features is None


def test_an_unknown_plan_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="local, starter, team"):
        Catalog.bundled().terms("gold")


def test_the_same_content_has_one_version_in_toml_and_yaml_and_in_any_order(tmp_path: Path) -> None:
    data = tomllib.loads(FULL)
    backwards = {name: data[name] for name in reversed(data)}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(backwards, sort_keys=False))
    (tmp_path / "c.toml").write_text(FULL.replace('"2.5"', "2.50").replace("amount = 500,", 'amount = "500.0",'))
    versions = {Catalog.load(tmp_path / name).version for name in ("c.yaml", "c.toml")}
    assert versions == {Catalog.loads(FULL).version}


def test_a_default_written_out_does_not_change_the_version() -> None:
    plain = Catalog.loads("plans.a = {}")
    written = 'credit = { price = 1, currency = "USD" }\nplans.a = { wallet = "prepaid", grants = [] }\nrates = []'
    assert Catalog.loads(written) == plain


@pytest.mark.parametrize("change", [("500", "501"), ('"gpt-*"', '"gpt-5*"'), ('"0.01"', '"0.02"'), ("= 7", "= 8")])
def test_any_change_of_content_changes_the_version(change: tuple[str, str]) -> None:
    assert Catalog.loads(FULL.replace(*change)).version != Catalog.loads(FULL).version


def test_the_order_of_rates_is_content() -> None:
    a, b = "[[rates]]\nid = 'a'\nfixed = 1\n", "[[rates]]\nid = 'b'\nfixed = 2\n"
    assert Catalog.loads(a + b) != Catalog.loads(b + a)


@pytest.mark.parametrize("text", [BUNDLED, FULL])
def test_the_schema_accepts_what_loads(text: str) -> None:
    jsonschema.validate(tomllib.loads(text), catalog_schema())


@pytest.mark.parametrize("text", ["plnas = {}", "plans.a.wallet = 'free'", "rates = [{ fixed = true }]"])
def test_the_schema_refuses_what_does_not(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(text), catalog_schema())


def test_in_the_bundled_catalog_one_credit_is_one_dollar_and_local_needs_no_wallet() -> None:
    catalog = Catalog.bundled()
    local = catalog.terms("local")
    assert catalog.usd(USD("5")) == 5 * 10**9
    assert (local.wallet, local.credit_line, local.features, local.models) == ("postpaid", None, None, ())
    assert local.breaker == Breaker(refusals_in_row=20)
    assert {kind.type for kind in local.entity_types if kind.auto and kind.parent == "customer"} >= {"user", "agent"}


def test_dollars_become_credits_at_the_price_of_a_credit_half_to_even() -> None:
    assert Catalog.loads("credit.price = '0.01'").usd(USD(1)) == 100 * 10**9
    assert Catalog.loads("credit.price = 3").usd(USD(2)) == 666_666_667
    assert Catalog.loads("credit.price = 2").usd(USD("0.000000001")) == 0
    with pytest.raises(InvalidRequest, match="EUR"):
        Catalog.loads('credit.currency = "EUR"').usd(USD(1))
    with pytest.raises(InvalidAmount):
        Catalog.loads("credit.price = '0.000001'").usd(USD(10**9))


def test_a_catalog_is_immutable_and_travels_by_pickle() -> None:
    catalog = Catalog.bundled()
    with pytest.raises(AttributeError):
        catalog.version = "x"
    with pytest.raises(TypeError):
        catalog.features["x"] = None  # type: ignore[index]
    copy = pickle.loads(pickle.dumps(catalog))
    assert (copy, copy.terms("team")) == (catalog, catalog.terms("team"))


def test_the_example_of_the_readme_loads() -> None:
    readme = resources.files("agentbudget.catalog").joinpath("README.md").read_text(encoding="utf-8")
    assert Catalog.loads(readme.split("```toml\n")[1].split("```")[0]).plan_ids == ("team",)
