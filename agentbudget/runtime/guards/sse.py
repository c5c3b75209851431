"""Server-sent events out of bytes as they arrive: what each says, and the very bytes, which are passed on unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

_BLANK_LINE: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class Event(Struct, frozen=True):
    """``data``: its JSON, else its text; None where it says nothing (a comment, a ping)."""

    raw: bytes
    data: Any = None


class Splitter:
    """Cuts a body into events, wherever its chunks end. What is left at its end comes from :meth:`rest`."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that are whole with this chunk."""
        kept, start = self._kept + chunk, 0
        for blank in _BLANK_LINE.finditer(kept):
            raw = kept[start : blank.end()]
            start = blank.end()
            yield Event(raw, _data_of(raw))
        self._kept = kept[start:]

    def rest(self) -> Iterator[Event]:
        """What came after the last blank line."""
        kept, self._kept = self._kept, b""
        if kept:
            yield Event(kept, _data_of(kept))


def _data_of(raw: bytes) -> Any:
    lines = [line[5:].removeprefix(b" ") for line in _LINE_END.split(raw) if line.startswith(b"data:")]
    text = b"\n".join(lines)
    if not text:
        return None
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text.decode("utf-8", "replace")
