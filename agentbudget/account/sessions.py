"""Sessions as budgets that nest: what a step or a carve-out needs at each session above it, and what flows up after it.

consumption(S) = own holds and spending + for each child the larger of its carve-out (while open) and its consumption.
A child's step therefore draws on its carve-out at the parent and is counted there once; only what passes the carve-out (an
overrun, or a child without a budget) needs room at the parent too.
"""

from __future__ import annotations

from collections.abc import Iterator

from agentbudget.account.limits import Gate, LimitBook
from agentbudget.account.state import SessionState, State

MAX_DEPTH = 16
"""Deepest entity path and deepest session nesting: a chain is walked at every step, and honest trees are flatter."""


class Rooms:
    """The sessions of one customer's state and their paths."""

    def __init__(self, state: State, limits: LimitBook) -> None:
        self._state = state
        self._limits = limits
        self._paths: dict[str, tuple[str, ...]] = {}
        self._gates: dict[str, tuple[int, tuple[Gate, ...]]] = {}

    def get(self, session_id: str) -> SessionState | None:
        return self._state.sessions.get(session_id)

    def nearest(self, path: tuple[str, ...]) -> SessionState | None:
        """The innermost session of a path that is still known."""
        for node in reversed(path):
            if node.startswith("session:") and (session := self.get(node.removeprefix("session:"))) is not None:
                return session
        return None

    def lineage(self, session: SessionState) -> Iterator[SessionState]:
        """The session and its ancestors, innermost first."""
        yield session
        while session.parent is not None:
            session = self._state.sessions[session.parent]
            yield session

    def path(self, session: SessionState) -> tuple[str, ...]:
        """The nodes a step of the session passes: the tree from the root down, then the sessions from the outermost in."""
        known = self._paths.get(session.id)
        if known is None:
            chain = list(self.lineage(session))[::-1]
            nodes = tree_path(self._state, [entity for s in chain for entity in s.entities])
            known = self._paths[session.id] = (*nodes, *(f"session:{s.id}" for s in chain))
        return known

    def gates(self, session: SessionState) -> tuple[Gate, ...]:
        """The limits a step of the session meets."""
        known = self._gates.get(session.id)
        if known is None or known[0] != self._limits.version:
            known = self._gates[session.id] = (self._limits.version, self._limits.gates(self.path(session)))
        return known[1]

    def forget_paths(self) -> None:
        """The tree has changed."""
        self._paths.clear()
        self._gates.clear()

    def needs(self, session: SessionState, units: int) -> Iterator[tuple[SessionState, int]]:
        """Each session that must have room for ``units`` more here, with how much it needs, innermost first."""
        for level in self.lineage(session):
            yield level, units
            before, after = level.consumption, level.consumption + units
            units = max(level.carve, after) - max(level.carve, before)
            if units <= 0:
                return

    def add(self, session: SessionState, *, consumption: int, spent: int, held: int) -> None:
        """Let a change of the session's consumption, spending and holds flow up."""
        level = session
        while True:
            before = level.consumption
            level.consumption = after = before + consumption
            level.spent += spent
            level.held += held
            parent = None if level.parent is None else self._state.sessions.get(level.parent)
            if parent is None:
                return
            consumption = max(level.carve, after) - max(level.carve, before)
            level = parent

    def reshape(self, session: SessionState, *, budget: int | None = None, closed: bool | None = None) -> None:
        """Change the budget or close; the parent's consumption follows the carve-out."""
        before = max(session.carve, session.consumption)
        session.budget = session.budget if budget is None else budget
        session.closed = session.closed if closed is None else closed
        change = max(session.carve, session.consumption) - before
        parent = None if session.parent is None else self.get(session.parent)
        if change and parent is not None:
            self.add(parent, consumption=change, spent=0, held=0)

    def descendants(self, session: SessionState) -> list[str]:
        """Open sessions below and including this one, children first."""
        below = [d for child in session.children for d in self._below(child)]
        return [*below, session.id]

    def _below(self, session_id: str) -> list[str]:
        child = self.get(session_id)
        return [] if child is None or child.closed else self.descendants(child)

    def forget_if_over(self, session: SessionState) -> None:
        """Drop a closed session that nothing can change any more; its id stays in the journal's index."""
        while session.closed and not session.open_holds and not session.children:
            del self._state.sessions[session.id]
            self._paths.pop(session.id, None)
            self._gates.pop(session.id, None)
            self._limits.forget(f"session:{session.id}")
            parent = None if session.parent is None else self.get(session.parent)
            if parent is None:
                return
            parent.children.remove(session.id)
            session = parent


def tree_path(state: State, entities: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """The root, then every entity with its ancestors above it, each once."""
    nodes: dict[str, None] = {"customer": None}
    for entity in entities:
        chain = [entity]
        while (parent := state.parents.get(chain[-1])) is not None and parent != "customer":
            chain.append(parent)
        nodes.update(dict.fromkeys(reversed(chain)))
    return tuple(nodes)
