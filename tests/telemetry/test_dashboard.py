"""The dashboard and the alert rules name what is emitted, as Prometheus names it, with labels that it carries."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import generate_latest

from agentbudget import Runtime, telemetry
from agentbudget.telemetry import names
from tests.runtime.support import PREPAID
from tests.tidy import rules

FOLDER = rules.ROOT / "integrations" / "opentelemetry"
SUFFIXES = {"counter": ("_total",), "updowncounter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SERVICE_LABELS = {"job", "instance", "le"}


def prometheus_names() -> dict[str, str]:
    """Name of a series -> the metric that it is of."""
    found = {}
    for name, metric in names.METRICS.items():
        base = name.replace(".", "_") + ("_seconds" if metric.unit == "s" else "")
        found |= {base + suffix: name for suffix in SUFFIXES[metric.instrument]}
    return found


def labels_of(metric: str) -> set[str]:
    return {key.replace(".", "_") for key in names.METRICS[metric].attributes} | SERVICE_LABELS


def expressions() -> Iterator[tuple[str, str]]:
    """Everything that is asked of Prometheus, with where."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text("utf-8"))["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


ALL = list(expressions())


@pytest.mark.parametrize(("where", "expression"), ALL, ids=[where for where, _ in ALL])
def test_an_expression_asks_for_what_is_emitted(where: str, expression: str) -> None:
    known = prometheus_names()
    selectors = re.findall(r"\b(agentbudget_\w+|gen_ai_\w+)(\{[^}]*\})?(?=[\[){ ]|$)", _without_grouping(expression))
    asked = {name for name, _ in selectors}
    assert asked
    assert asked <= known.keys(), asked - known.keys()
    carried = set[str]().union(*(labels_of(known[name]) for name in asked))
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    assert grouped <= carried
    for name, braces in selectors:
        assert set(re.findall(r'(\w+)=~?"', braces)) <= labels_of(known[name])
    assert expression.count("(") == expression.count(")")


def _without_grouping(expression: str) -> str:
    return re.sub(r"by \([^)]*\)", "", expression)


def test_every_metric_is_on_the_dashboard_and_every_outcome_in_an_alert_exists() -> None:
    known = prometheus_names()
    text = (FOLDER / "dashboard.json").read_text("utf-8")
    shown = {known[name] for name in re.findall(r"\bagentbudget_\w+", text) if name in known}
    assert shown == set(names.METRICS)
    outcomes = re.findall(r'agentbudget_outcome=~?"([^"]+)"', (FOLDER / "alerts.yaml").read_text("utf-8"))
    readme = (rules.ROOT / "agentbudget" / "telemetry" / "README.md").read_text("utf-8")
    (row,) = [line for line in readme.splitlines() if line.startswith(f"| `{names.STEPS_ENDED}`")]
    assert {one for found in outcomes for one in found.split("|")} <= set(re.findall(r"\w+", row.split("|")[2]))


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    covered = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(covered) == len(set(covered))
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"datasource", "job"}


def test_an_alert_says_what_to_do() -> None:
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text("utf-8"))["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("critical", "warning", "info")
            assert set(rule["annotations"]) == {"summary", "description"}


def test_the_names_are_those_of_a_real_exporter(tmp_path: Path) -> None:
    """OpenTelemetry's own for Prometheus, scraped after some work."""
    reader = PrometheusMetricReader()
    meters = MeterProvider(metric_readers=[reader])
    telemetry.use(meter_provider=meters)
    with Runtime.open("memory://", PREPAID) as runtime:
        acme = runtime.customers.create("acme", plan="prepaid")
        acme.wallet.grant(10)
        with acme.session(budget=5) as session:
            session.reserve("tool", name="search", amount=1, dispatched=True).settle(amount=2)
            step: Any = session.reserve("tool", name="search", amount=1, dispatched=True)
            step.fail(TimeoutError())
            step.settle(amount="0.5")
    assert telemetry.flush(20)
    text = generate_latest().decode()
    meters.shutdown()
    scraped = set(re.findall(r"^(agentbudget_\w+)(?:\{| )", text, re.MULTILINE))
    never_here = {"agentbudget_lapses_total", "agentbudget_telemetry_dropped_total"}
    assert scraped == prometheus_names().keys() - never_here
