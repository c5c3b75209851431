"""Runs in the peer's own interpreter, isolated (``python -I child.py FILE:CLASS``): a question a line in, an answer a line out,
as JSON.

Standard library and the peer only; nothing of this project, whose import name one of the peers has too. What a peer raises
after a call is told to the agent at its next question, once: there it meets the exception."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

ADAPTERS = Path(__file__).with_name("adapters")


def adapter(reference: str) -> Any:
    """The class of ``FILE:CLASS``. Loaded by its path: a file of ``adapters`` may have its library's name."""
    stem, _, name = reference.partition(":")
    _load("peer_calls", ADAPTERS.with_name("calls.py"))
    return getattr(_load(f"peer_{stem}", ADAPTERS / f"{stem}.py"), name)


def _load(name: str, path: Path) -> Any:
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Desk:
    """The guards of one run, by the name of their agent.

    A peer is opened with its budget in dollars and the model calls that healthy work of that budget takes. ``before`` answers
    why a step is refused, or nothing; ``after`` what was raised; ``books`` what it says was spent, and what it still holds. Who
    can is also asked to ``share`` a wallet, to open a ``session`` of it, to ``change`` its budget."""

    def __init__(self, peer: Any) -> None:
        self.peer, self.guards, self.raised = peer, dict[str, Any](), dict[str, str]()

    def answer(self, said: dict[str, Any]) -> Any:
        name = said.get("name", "main")
        match said["ask"]:
            case "open":
                self.guards, self.raised = {"main": self.peer(said["budget"], said["usual_calls"])}, {}
                if said["wallet"] is not None:
                    self.guards["main"].share(said["wallet"])
            case "session":
                self.guards[name] = self.guards["main"].session(said["budget"])
            case "before":
                return self.raised.pop(name, "") or self.guards[name].before(said["step"])
            case "after":
                raised = self.guards[name].after(said["step"], said["told"])
                self.raised |= {name: raised} if raised else {}
            case "dropped":
                self.guards[name].dropped(said["step"])
            case "child":
                child = self.guards[name].child(said["budget"])
                if child is not None:
                    self.guards[said["child"]] = child
                return child is not None
            case "change":
                self.guards[name].change(said["what"], said["amount"])
            case "ended":
                self.guards[name].ended()
            case "close":
                return self.guards["main"].books()
        return None


def main(reference: str) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    desk = Desk(adapter(reference))
    for line in sys.stdin:
        answers.write(f"{json.dumps(desk.answer(json.loads(line)))}\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
