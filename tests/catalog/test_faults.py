"""A broken catalog shows every fault at once, each with its key path, and its line where that is certain."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbudget import Catalog, CatalogError
from agentbudget.catalog.source import Format

BROKEN_TOML = """\
[credit]
price = 0                                                   # 1  no price
colour = "red"                                              # 2  unknown key

[features]
tokens = { type = "metered" }                               # 3  name of a measure
seats = { type = "config" }
reports = { type = "number" }                               # 4  unknown type

[entity_types.user]
parent = "squad"                                            # 5  unknown parent type
auto = "yes"                                                # 6  not a boolean

[plans.team]
credit_line = 100                                           # 7  credit line of a prepaid plan
features = ["research", "seats"]                            # 8  unknown feature   9  config without a value
models = []                                                 # 10 empty globs

[[plans.team.grants]]
id = "monthly"
amount = "NaN"                                              # 11 not finite
rollover = 5                                                # 12 rollover without every

[[plans.team.grants]]
id = "monthly"                                              # 13 doubled id
amount = 5
scope = {}                                                  # 14 empty scope

[[plans.team.limits]]
entity = "robot:*"                                          # 15 unknown entity type
amount = 5
measure = "tokenz"                                          # 16 unknown measure

[[plans.team.limits]]
amount = -5                                                 # 17 negative
window = "fortnight"                                        # 18 unknown window

[[rates]]                                                   # 19 two forms
id = "double"
fixed = 1
per_call = 2

[[rates]]
id = "tiers"
per_second = { volume = [{ up_to = 5, price = 1 }] }        # 20 no bound  21 last tier has an end

[[ceilings]]
name = "nothing"                                            # 22 bounds nothing

[[overrides]]                                               # 23 ends before it begins
customer = "acme"
from = 2026-02-01
until = 2026-01-01
[[overrides.rates]]                                         # 24 unknown form  25 none known
per_minute = 3
"""

EXPECTED = {
    ("credit.price", 2, "more than 0"),
    ("credit.colour", 3, "no key of this place"),
    ("features.tokens", 6, "built-in measure"),
    ("features.reports.type", 8, "'boolean', 'config' or 'metered'"),
    ("entity_types.user.parent", 11, "no entity type"),
    ("entity_types.user.auto", 12, "boolean"),
    ("plans.team.credit_line", 15, "postpaid"),
    ("plans.team.features[0]", 16, "no feature"),
    ("plans.team.features[1]", 16, "its value"),
    ("plans.team.models", 17, "at least 1 item"),
    ("plans.team.grants[0].amount", 21, "not a finite number"),
    ("plans.team.grants[0].rollover", 22, "every"),
    ("plans.team.grants[1].id", 25, "twice"),
    ("plans.team.grants[1].scope", 27, "leave the scope out"),
    ("plans.team.limits[0].entity", 30, "no entity"),
    ("plans.team.limits[0].measure", 32, "no measure"),
    ("plans.team.limits[1].amount", 35, "negative"),
    ("plans.team.limits[1].window", 36, "must be"),
    ("rates[0]", 38, "exactly one"),
    ("rates[1].per_second", 45, "max_seconds"),
    ("rates[1].per_second.volume", 45, "no end"),
    ("ceilings[0]", 47, "bounds nothing"),
    ("overrides[0].until", 53, "not after"),
    ("overrides[0].rates[0].per_minute", 55, "no key"),
    ("overrides[0].rates[0]", 54, "it has none"),
}


def test_a_catalog_with_more_than_twenty_faults_names_each_with_its_path_and_line() -> None:
    with pytest.raises(CatalogError) as broken:
        Catalog.loads(BROKEN_TOML, source="broken.toml")
    found = {(path, line): what for line, path, what in broken.value.faults}
    assert set(found) == {(path, line) for path, line, _ in EXPECTED}
    for path, line, words in EXPECTED:
        assert words in found[path, line]
    assert str(broken.value).startswith("broken.toml: 25 faults\n")


BROKEN_YAML = """\
plans:
  team:
    wallet: prepaid
    credit_line: 5
    wallet: postpaid
  solo:
    limts: []
rates:
  - model: gpt-*
    cost_plus: 1.2
"""


def test_yaml_faults_carry_lines_and_a_doubled_key_is_one_of_them() -> None:
    with pytest.raises(CatalogError) as broken:
        Catalog.loads(BROKEN_YAML, format="yaml")
    found = [(line, path) for line, path, _ in broken.value.faults]
    assert found == [(5, "plans.team.wallet"), (7, "plans.solo.limts"), (10, "rates[0].cost_plus")]
    assert "did you mean 'limits'?" in str(broken.value)
    assert '"20%"' in str(broken.value)


@pytest.mark.parametrize(
    ("text", "format", "line"),
    [
        ("a = 1\nb = = 2\n", "toml", 2),
        ("a: 1\nb: [\n", "yaml", 3),
        ("a = 1\na = 2\n", "toml", 2),
        ("a: \t- x: y\n", "yaml", 1),
    ],
)
def test_a_text_that_is_no_toml_or_yaml_names_the_line(text: str, format: Format, line: int) -> None:
    with pytest.raises(CatalogError) as broken:
        Catalog.loads(text, format=format)
    assert [fault[:2] for fault in broken.value.faults] == [(line, "(file)")]


@pytest.mark.parametrize("text", ["- a\n- b\n", "just a text\n", "5\n"])
def test_a_yaml_that_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(CatalogError, match="table of keys"):
        Catalog.loads(text, format="yaml")


@pytest.mark.parametrize(
    ("text", "format"), [("[" * 5000, "yaml"), ("a = " + "[" * 5000, "toml"), ("a: " * 600000, "yaml")]
)
def test_a_hostile_text_is_refused_and_no_more(text: str, format: Format) -> None:
    with pytest.raises(CatalogError):
        Catalog.loads(text, format=format)


def test_yaml_builds_no_objects() -> None:
    with pytest.raises(CatalogError):
        Catalog.loads("credit: !!python/object/apply:os.getcwd []\n", format="yaml")


def test_a_missing_a_misnamed_and_an_unreadable_file_are_catalog_errors(tmp_path: Path) -> None:
    (tmp_path / "catalog.toml").write_bytes(b"\xff\xfe\x00")
    for name, words in [("none.toml", "cannot be read"), ("catalog.toml", "cannot be read"), ("a.json", "suffix")]:
        with pytest.raises(CatalogError, match=words):
            Catalog.load(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ('entity_types.a.parent = "a"', "entity_types.a.parent", "cycles"),
        (
            'entity_types.team = {}\nentity_types.user = {auto = true, parent = "team"}',
            "entity_types.user.parent",
            "auto",
        ),
        ("entity_types.session = {}", "entity_types.session", "built in"),
        ('plans.a.limits = [{measure = "tokens", amount = 1.5}]', "plans.a.limits[0].amount", "whole"),
        ("plans.a.limits = [{amount = 1}, {amount = 2}]", "plans.a.limits[1]", "the same as 0"),
        ("plans.a.limits = [{amount = 99999999999999}]", "plans.a.limits[0].amount", "64 bits"),
        ("plans.a.breaker.repeat = [9, 5]", "plans.a.breaker.repeat", "cannot happen"),
        ('credit.currency = "EUR"\nrates = [{cost_plus = "0%"}]', "rates[0].cost_plus", "USD"),
        ("rates = [{fixed = 1, max_seconds = 5}]", "rates[0].max_seconds", "per_second only"),
        ('rates = [{fixed = 1, kind = "llms"}]', "rates[0].kind", "no kind"),
        ('rates = [{fixed = 1, id = "a"}, {fixed = 1, id = "a"}]', "rates[1].id", "twice"),
        ("rates = [{per_call = {}}]", "rates[0].per_call", "exactly one"),
        ("rates = [{per_call = {volume = [{price = 1}, {price = 2}]}}]", "rates[0].per_call.volume", "growing"),
        (
            "rates = [{tokens = {cache_read = 1, input = {graduated = [{price = 1}]}}}]",
            "rates[0].tokens.input",
            "alone",
        ),
        ('features.f = {type = "metered"}\nplans.a.features = {f = 5}', "plans.a.features.f", "limit"),
        ("plans.'a b' = {}", "plans.a b", "pattern"),
    ],
)
def test_a_contradiction_is_named(text: str, path: str, words: str) -> None:
    with pytest.raises(CatalogError) as broken:
        Catalog.loads(text)
    assert [fault[1] for fault in broken.value.faults] == [path]
    assert words in broken.value.faults[0][2]


def test_a_line_in_a_multi_line_string_is_not_taken_for_a_key() -> None:
    text = 'features.f.description = """\n[plans.a]\nwallet = 5\n"""\n[plans.a]\nwallet = "free"\n'
    with pytest.raises(CatalogError) as broken:
        Catalog.loads(text)
    assert [fault[:2] for fault in broken.value.faults] == [(6, "plans.a.wallet")]
