"""What travels is what was said: every command, every answer, every error; and bytes that are nothing are told so."""

from __future__ import annotations

import random
from typing import get_args

import msgspec
import pytest

from agentbudget.account import decision
from agentbudget.account.commands import Command, Hold
from agentbudget.account.decision import Answer
from agentbudget.errors import AgentBudgetError, CatalogError, InvalidRequest
from agentbudget.runtime.host import Beat, Beaten
from agentbudget.runtime.machine import answers as wire_answers
from agentbudget.runtime.machine import wire
from tests.sockets.samples import ANSWERS, COMMANDS
from tests.sockets.support import hold


def test_the_samples_are_all_there_is() -> None:
    assert {type(command) for command in COMMANDS} == set(get_args(Command))
    kinds = {type(answer) for answer in ANSWERS} - {tuple} | {type(a[0]) for a in ANSWERS if type(a) is tuple and a}
    wanted = {get_args(kind)[0] if get_args(kind) else kind for kind in get_args(Answer)}
    assert wanted <= kinds
    assert {type(a) for a in ANSWERS if isinstance(a, AgentBudgetError)} == set(wire_answers._ERRORS.values())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_a_command_arrives_as_it_was_said(command: Command) -> None:
    sent = wire.read_of_process(wire.framed(wire.Batch([("acme", wire.packed(command))]))[wire.HEADER :])
    assert isinstance(sent, wire.Batch)
    assert [(customer, wire.unpacked(data)) for customer, data in sent.commands] == [("acme", command)]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
def test_an_answer_arrives_as_it_was_given(answer: Answer | AgentBudgetError) -> None:
    sent = wire.framed(
        wire.Answers([wire_answers.to_send(answer)], Beaten({"acme": ("l",)}, 3, b"doc", {"acme": 9}), 3)
    )
    read = wire.read_of_owner(sent[wire.HEADER :])
    assert isinstance(read, wire.Answers)
    [back] = [wire_answers.received(one) for one in read.answers]
    assert type(back) is type(answer)
    if isinstance(answer, AgentBudgetError):
        assert (str(back), back.args) == (str(answer), answer.args)  # type: ignore[union-attr]
    else:
        assert back == answer
    assert read.beaten == Beaten({"acme": ("l",)}, 3, b"doc", {"acme": 9})


@pytest.mark.parametrize(
    ("kind", "twin"),
    [
        (decision.Constraint, wire_answers.SentConstraint),
        (decision.Decision, wire_answers.SentDecision),
        (decision.Recalling, wire_answers.SentRecalling),
        (decision.Renewed, wire_answers.SentRenewed),
        (decision.Opened, wire_answers.SentOpened),
    ],
)
def test_a_twin_has_the_fields_of_what_it_stands_for(kind: type[msgspec.Struct], twin: type[msgspec.Struct]) -> None:
    """A field that is added to an answer must travel too."""
    assert twin.__struct_fields__ == kind.__struct_fields__


def test_an_error_of_another_kind_keeps_its_words() -> None:
    back = wire_answers.received(wire_answers.to_send(CatalogError("file", [(3, "plans", "what")])))
    assert type(back) is AgentBudgetError
    assert "plans" in str(back)


def test_a_value_of_the_wrong_type_is_named_on_either_side() -> None:
    wrong = Hold("a", "s", "tool", "5")  # type: ignore[arg-type]
    found = wire.unpacked(wire.packed(wrong))
    assert isinstance(found, InvalidRequest)
    assert found.field == "amount"
    with pytest.raises(InvalidRequest):
        wire.packed(Hold("a", "s", "tool", 2**70))


def test_garbage_is_garbage_whatever_it_is() -> None:
    good = wire.framed(wire.Batch([("acme", wire.packed(hold("a")))], Beat("h"), ["a"], ["b"]))[wire.HEADER :]
    chance = random.Random(4)
    samples = [b"", b"\xc1", b"\x91" * 5_000, good[:-1], chance.randbytes(300)]
    samples += [bytes(chance.choice((byte, chance.randrange(256))) for byte in good) for _ in range(300)]
    for sample in samples:
        for read in (wire.read_of_process, wire.read_of_owner):
            try:
                read(sample)
            except wire.Garbage:
                continue
            assert read is wire.read_of_process  # a change may leave another message whole


def test_more_commands_than_a_frame_takes_are_no_frame() -> None:
    many = [("acme", b"")] * (wire.MAX_COMMANDS + 1)
    with pytest.raises(wire.Garbage):
        wire.read_of_process(wire.framed(wire.Batch(many))[wire.HEADER :])
