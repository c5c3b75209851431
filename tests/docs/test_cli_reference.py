"""docs/cli.md is what the commands say, and every command says enough."""

from __future__ import annotations

from typing import Any

import pytest

from agentbudget.cli.reference import commands, reference
from tests.tidy import rules

COMMANDS = list(commands())
PROMISED = {
    "demo", "explain", "catalog check", "catalog show", "catalog schema", "customer create", "customer show",
    "customer list", "wallet grant", "wallet balance", "wallet void", "wallet statement", "entity put", "entity list",
    "limit set", "limit list", "limit remove", "session list", "session show", "ledger verify", "ledger export",
    "ledger import", "ledger reconcile", "ledger recover", "ledger migrate", "ledger move", "session pause",
    "session resume", "session fund", "session close", "customer pause", "customer resume", "owners status",
    "owners move", "owners drain",
}  # fmt: skip


def test_the_page_is_what_the_commands_say() -> None:
    written = (rules.ROOT / "docs" / "cli.md").read_text("utf-8")
    assert written == reference(), "run: python -m agentbudget.cli.reference > docs/cli.md"


def test_the_promised_commands_are_there_and_no_other() -> None:
    assert {name.removeprefix("agentbudget ") for name, _ in COMMANDS} == PROMISED


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_the_command_has_a_heading_help_and_json(name: str, command: Any) -> None:
    assert f"\n## {name}\n" in reference()
    assert command.help
    assert all(one.help for one in command.params if not one.hidden)
    assert "--json" in [option for one in command.params for option in one.opts]
