"""A law that did not hold in a run."""

from __future__ import annotations


class Broken(AssertionError):
    """``law`` is one of DESIGN.md §3, or ``until`` for a holder that starts what it must not."""

    def __init__(self, law: str, what: str) -> None:
        super().__init__(f"{law}: {what}")
        self.law = law


def must(holds: bool, law: str, *what: object) -> None:
    """The law holds here, or the run is red."""
    if not holds:
        raise Broken(law, " ".join(str(one) for one in what))
