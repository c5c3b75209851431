"""Every command answers people and programs, from the ledger alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from agentbudget import Runtime, Usage
from agentbudget.catalog import catalog_schema
from tests.cli.support import ask, text


def is_time(value: str) -> bool:
    return datetime.fromisoformat(value).tzinfo is not None


def test_a_customer_is_created_shown_and_listed(ledger: str) -> None:
    shown = ask("customer", "show", "acme", ledger=ledger)
    assert (shown["id"], shown["plan"], shown["wallet"], shown["time_zone"]) == ("acme", "starter", "prepaid", "UTC")
    assert is_time(shown["created_at"])
    assert ask("customer", "create", "acme", "--plan", "starter", ledger=ledger) == shown
    ask("customer", "create", "bolt", "--time-zone", "Europe/Berlin", ledger=ledger)
    listed = ask("customer", "list", ledger=ledger)["customers"]
    assert [(one["id"], one["time_zone"]) for one in listed] == [("acme", "UTC"), ("bolt", "Europe/Berlin")]
    assert "2 customers" in text("customer", "list", ledger=ledger)


def test_a_grant_is_issued_once_for_a_key_and_amounts_are_strings_of_credits(ledger: str) -> None:
    grant = ("wallet", "grant", "acme", "12.000000001", "--key", "may", "--label", "bonus", "--priority", "3")
    grant = (*grant, "--expires-at", "2030-01-01T02:00:00+02:00", "--for-model", "gpt-5*", "--for-kind", "llm")
    first = ask(*grant, ledger=ledger)["grant"]
    assert (first["id"], first["issued"], first["priority"], first["label"]) == ("may", "12.000000001", 3, "bonus")
    assert first["expires_at"] == "2030-01-01T00:00:00+00:00"
    assert ask(*grant, ledger=ledger)["grant"] == first
    found = ask("wallet", "balance", "acme", ledger=ledger)
    assert (found["customer"], found["available"], found["held"]) == ("acme", "17.000000001", "0")
    assert [one["id"] for one in found["grants"]] == ["may", "plan:trial"]  # burn order
    assert "17.000000001" in text("wallet", "balance", "acme", ledger=ledger)


def test_what_is_free_of_a_grant_is_voided(ledger: str) -> None:
    assert ask("wallet", "void", "acme", "plan:trial", "--amount", "2", ledger=ledger)["grant"]["available"] == "3"
    voided = ask("wallet", "void", "acme", "plan:trial", "--reason", "left", ledger=ledger)["grant"]
    assert (voided["available"], voided["voided"]) == ("0", "5")
    assert "voided" in text("wallet", "void", "acme", "plan:trial", "--amount", "0", ledger=ledger, code=0)


def test_a_statement_says_what_each_entry_moved(ledger: str) -> None:
    ask("wallet", "grant", "acme", "10", "--key", "pilot", ledger=ledger)
    lines = ask("wallet", "statement", "acme", ledger=ledger)["lines"]
    assert [(line["kind"], line["issued"], line["available"]) for line in lines] == [
        ("grant_issued", "5", "5"),
        ("grant_issued", "10", "10"),
    ]
    assert all(is_time(line["at"]) for line in lines)
    assert "+10" in text("wallet", "statement", "acme", ledger=ledger)
    tomorrow = ("--since", datetime(2999, 1, 1, tzinfo=UTC).isoformat())
    assert ask("wallet", "statement", "acme", *tomorrow, ledger=ledger)["lines"] == []


def test_entities_form_a_tree(ledger: str) -> None:
    ask("entity", "put", "acme", "team:eng", ledger=ledger)
    put = ask("entity", "put", "acme", "user:ana", "--parent", "team:eng", ledger=ledger)
    assert put == ask("entity", "list", "acme", ledger=ledger)
    assert {one["id"]: one["parent"] for one in put["entities"]} == {
        "customer": None,
        "team:eng": "customer",
        "user:ana": "team:eng",
    }
    lines = text("entity", "list", "acme", ledger=ledger).splitlines()
    assert lines[0].startswith("acme")
    assert lines[1].endswith("team:eng")
    assert lines[2].endswith("user:ana")
    assert lines[1].index("team:eng") < lines[2].index("user:ana")


def test_limits_are_set_replaced_and_removed(ledger: str) -> None:
    ask("entity", "put", "acme", "user:ana", ledger=ledger)
    ask("limit", "set", "acme", "user:ana", "3", "--window", "month", ledger=ledger)
    calls = ("limit", "set", "acme", "user:ana", "100", "--measure", "tool_calls", "--window", "day", "--mode", "soft")
    ask(*calls, "--for-tool", "search*", ledger=ledger)
    limits = ask("limit", "set", "acme", "user:ana", "2.5", "--window", "month", ledger=ledger)["limits"]
    own = {(one["measure"], one["window"]): one for one in limits if one["origin"] == "admin"}
    assert own["credits", "month"]["limit"] == "2.5"
    assert own["tool_calls", "day"]["limit"] == 100  # whole units, not credits
    assert own["tool_calls", "day"]["mode"] == "soft"
    assert is_time(own["credits", "month"]["resets_at"])
    assert "2.5 credits" in text("limit", "list", "acme", "--entity", "user:ana", ledger=ledger)
    left = ask("limit", "remove", "acme", "user:ana", "--window", "month", ledger=ledger)["limits"]
    assert [one["limit"] for one in left if one["measure"] == "credits" and one["origin"] == "admin"] in ([], [None])


def test_explain_names_every_level_and_marks_the_binding_one(ledger: str) -> None:
    ask("entity", "put", "acme", "team:eng", ledger=ledger)
    ask("entity", "put", "acme", "user:ana", "--parent", "team:eng", ledger=ledger)
    ask("limit", "set", "acme", "team:eng", "1", "--window", "day", ledger=ledger)
    step = ("explain", "acme", "user:ana", "--kind", "tool", "--name", "search", "--amount")
    allowed = ask(*step, "0.5", ledger=ledger)
    assert allowed["allowed"]
    assert allowed["grants"] == [{"grant": "plan:trial", "amount": "0.5"}]
    refused = ask(*step, "1.5", ledger=ledger, code=1)
    assert (refused["reason"], refused["binding"]["entity"]) == ("limit", "team:eng")
    assert (refused["need"], refused["affordable"]["amount"]) == ("1.5", "1")
    assert {"team:eng", "user:ana", "customer"} <= {one["entity"] for one in refused["constraints"]}
    lines = text(*step, "1.5", ledger=ledger, code=1).splitlines()
    assert [line.split()[0] for line in lines if "REFUSES, binds" in line] == ["team:eng"]
    assert sum("allows" in line for line in lines) == len(refused["constraints"]) - 1


def test_explain_says_which_output_would_fit(ledger: str) -> None:
    call = ("explain", "acme", "--model", "gpt-5-mini", "--input-tokens", "1000000", "--max-output-tokens", "2400000")
    ask("limit", "set", "acme", "customer", "1", ledger=ledger)
    refused = ask(*call, ledger=ledger, code=1)
    fits = refused["affordable"]["max_output_tokens"]
    assert fits > 0
    assert f"{fits} output tokens" in text(*call, ledger=ledger, code=1)
    again = (*call[:-1], str(fits))
    assert ask(*again, ledger=ledger)["allowed"]


def test_a_session_is_listed_shown_and_explained(ledger: str) -> None:
    with Runtime.open(ledger) as runtime:
        acme = runtime.customer("acme")
        with acme.session(id="run-1", budget="0.01", entities=["user:ana"]) as session:
            with session.step("llm", model="gpt-5-mini", input_tokens=100, max_output_tokens=1_000) as step:
                step.settle(Usage(input_tokens=100, output_tokens=500))
            spent = str(session.status().spent)
    (listed,) = ask("session", "list", "acme", ledger=ledger)["sessions"]
    shown = ask("session", "show", "acme", "run-1", ledger=ledger)
    assert (listed["id"], shown["spent"], shown["steps"], shown["refusals"]) == ("run-1", spent, 1, [])
    assert spent in text("session", "show", "acme", "run-1", ledger=ledger)
    assert "run-1" in text("session", "list", "acme", ledger=ledger)
    call = ("explain", "acme", "--session", "run-1", "--model", "gpt-5-mini", "--input-tokens", "100")
    refused = ask(*call, "--max-output-tokens", "100000", ledger=ledger, code=1)
    assert (refused["reason"], refused["binding"]["remaining"]) == ("session_budget", shown["remaining"])
    assert ask(*call, "--max-output-tokens", "100", ledger=ledger)["allowed"]


def test_an_export_is_imported_with_the_same_heads_and_a_second_time_changes_nothing(
    ledger: str, tmp_path: Path
) -> None:
    out, copy = tmp_path / "out.jsonl", f"sqlite:///{tmp_path}/copy.db"
    exported = ask("ledger", "export", str(out), ledger=ledger)
    assert ask("ledger", "import", str(out), ledger=copy)["imported"] == exported["entries"]
    again = ask("ledger", "import", str(out), ledger=copy)
    assert (again["imported"], again["skipped"]) == (0, exported["entries"])
    assert again["heads"] == exported["heads"]
    assert ask("customer", "show", "acme", ledger=copy) == ask("customer", "show", "acme", ledger=ledger)
    assert ask("ledger", "verify", "--against", str(out), ledger=copy)["ok"]
    assert ask("ledger", "reconcile", ledger=copy) == {"ok": True, "customers": 1, "differences": []}


def test_an_export_never_replaces_a_file_and_leaves_none_when_it_fails(ledger: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    assert ask("ledger", "export", str(out), ledger=ledger, code=2)["error"]["field"] == "path"
    assert out.read_text() == "mine"
    assert ask("ledger", "export", str(tmp_path / "no" / "out"), ledger=ledger, code=2)["error"]["field"] == "path"


def test_L7_an_export_kept_elsewhere_shows_a_removed_tail(ledger: str, tmp_path: Path) -> None:
    older, out = tmp_path / "older.jsonl", tmp_path / "out.jsonl"
    ask("ledger", "export", str(older), ledger=ledger)
    ask("wallet", "grant", "acme", "1", "--key", "more", ledger=ledger)
    ask("ledger", "export", str(out), ledger=ledger)
    cut = f"sqlite:///{tmp_path}/cut.db"
    ask("ledger", "import", str(older), ledger=cut)
    assert ask("ledger", "verify", ledger=cut)["ok"]
    report = ask("ledger", "verify", "--against", str(out), ledger=cut, code=4)
    assert report["customers"][0]["fault"]["how"] == "tail_removed"


def test_the_catalog_is_shown_with_amounts_in_credits(ledger: str) -> None:
    shown = ask("catalog", "show")
    starter = next(plan for plan in shown["plans"] if plan["plan"] == "starter")
    assert starter["grants"][0]["amount"] == "5"
    assert starter["limits"][0] | {"scope": None} == {
        "entity": "user:*", "amount": "2", "measure": "credits", "window": "day", "mode": "hard", "scope": None,
    }  # fmt: skip
    assert ask("catalog", "check")["version"] == shown["version"]
    assert "starter" in text("catalog", "show")


def test_the_schema_of_the_catalog_is_printed() -> None:
    assert json.loads(text("catalog", "schema")) == catalog_schema()


def test_every_fault_of_a_catalog_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text("[credit]\nprice = -1\n[plans.team]\nwallet = 'barter'\n")
    error = ask("catalog", "check", str(path), code=2)["error"]
    assert error["type"] == "CatalogError"
    assert {fault[1] for fault in error["faults"]} >= {"credit.price", "plans.team.wallet"}
    told = text("catalog", "check", str(path), code=2)
    assert "credit.price" in told
    assert "plans.team.wallet" in told


def test_bad_words_are_refused_by_name(ledger: str) -> None:
    def field(*arguments: str) -> str:
        return str(ask(*arguments, ledger=ledger, code=2)["error"]["field"])

    assert field("wallet", "grant", "acme", "1", "--category", "gift") == "category"
    assert field("wallet", "grant", "acme", "1", "--expires-at", "2030-01-01") == "expires_at"
    assert field("wallet", "statement", "acme", "--since", "yesterday") == "since"
    assert field("limit", "set", "acme", "customer", "1.5", "--measure", "steps") == "amount"
    assert field("explain", "acme", "--kind", "lunch") == "kind"
    assert field("customer", "show", "nobody") == "customer"
    assert field("wallet", "statement", "nobody") == "customer"
    assert field("session", "show", "acme", "nothing") == "session"
    assert ask("wallet", "grant", "acme", "NaN", ledger=ledger, code=2)["error"]["fault"] == "not_finite"


def test_data_is_printed_as_it_is_and_never_as_markup(ledger: str) -> None:
    ask("wallet", "grant", "acme", "1", "--label", "[red]x[/] [/", "--key", "m", ledger=ledger)
    assert "[red]x[/] [/" in text("wallet", "balance", "acme", ledger=ledger)
