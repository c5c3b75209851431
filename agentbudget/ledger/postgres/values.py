"""Values in PostgreSQL's binary form: parameters, results, and rows for COPY.

Text and bytes travel as they are, so a record's bytes are the same on both sides; nothing is quoted or escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from struct import Struct
from typing import Any, Final, TypeAlias

from psycopg import pq

from agentbudget.ledger.entry import Sealed
from agentbudget.ledger.shards import shard_of

INT8: Final = 20
INT4: Final = 23
TEXT: Final = 25
BYTEA: Final = 17


class Array:
    """A one-dimensional array: ``oid`` of its elements (INT8, TEXT or BYTEA), ``items`` without None except in text."""

    __slots__ = ("items", "oid")

    def __init__(self, oid: int, items: Sequence[Any]) -> None:
        self.oid, self.items = oid, items


Parameter: TypeAlias = str | int | bytes | Array | None

_ARRAY_OF: Final = {INT8: 1016, TEXT: 1009, BYTEA: 1001}
_LENGTH: Final = Struct(">i")
_EIGHT: Final = Struct(">q")
_HEAD: Final = Struct(">iiIii")
"""Of an array: dimensions, whether there are nulls, the elements' type, how many there are, the first one's number."""
_ITEM_OF_EIGHT: Final = Struct(">iq")
_NULL: Final = _LENGTH.pack(-1)

COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END: Final = b"\xff\xff"
_ROW: Final = Struct(">hi")
_MIDDLE: Final = Struct(">iqiqi")


def oid_of(value: Parameter) -> int:
    """The type that the server is told; 0 lets it find out."""
    match value:
        case Array():
            return _ARRAY_OF[value.oid]
        case str():
            return TEXT
        case int():
            return INT8
        case bytes():
            return BYTEA
        case None:
            return 0


def packed(value: Parameter) -> bytes | None:
    """A parameter as it is sent."""
    match value:
        case str():
            return value.encode()
        case int():
            return _EIGHT.pack(value)
        case Array():
            return _packed_array(value)
        case _:
            return value


def _packed_array(array: Array) -> bytes:
    items = array.items
    head = _HEAD.pack(1, 1, array.oid, len(items), 1) if items else _HEAD.pack(0, 0, array.oid, 0, 0)[:12]
    if array.oid == INT8:
        pack = _ITEM_OF_EIGHT.pack
        return head + b"".join([pack(8, item) for item in items])
    length = _LENGTH.pack
    if array.oid == TEXT:
        items = [None if item is None else item.encode() for item in items]
    return head + b"".join([_NULL if item is None else length(len(item)) + item for item in items])


def copied(entries: Iterable[Sealed], epochs: Mapping[int, int]) -> bytes:
    """Entries, with the epoch of each one's shard, as the data of ``statements.COPY_ENTRIES``."""
    row, middle, length = _ROW.pack, _MIDDLE.pack, _LENGTH.pack
    parts = [COPY_HEAD]
    add = parts.extend
    for entry in entries:
        epoch = epochs[shard_of(entry.customer)]
        customer, record, hash = entry.customer.encode(), entry.record, entry.hash.encode()
        if entry.key is None:
            between = middle(8, entry.seq, 8, epoch, -1)
        else:
            key = entry.key.encode()
            between = middle(8, entry.seq, 8, epoch, len(key)) + key
        add((row(6, len(customer)), customer, between, length(len(record)), record, length(len(hash)), hash))
    parts.append(COPY_END)
    return b"".join(parts)


def unpacked(result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
    """The rows of a result, in Python's types."""
    rows, columns = result.ntuples, result.nfields
    if not rows:
        return []
    value = result.get_value
    convert = [_converter(result.ftype(column), result.fformat(column)) for column in range(columns)]
    by_column = [
        [None if (raw := value(row, column)) is None else to(raw) for row in range(rows)]
        for column, to in enumerate(convert)
    ]
    return list(zip(*by_column, strict=True))


def _converter(oid: int, form: int) -> Callable[[bytes], Any]:
    if not form or oid in (TEXT, 19, 1043, 705):  # text, name, varchar, unknown
        return _text
    return _CONVERT.get(oid, bytes)


def _text(raw: bytes) -> str:
    return raw.decode()


def _integer(raw: bytes) -> int:
    return int.from_bytes(raw, "big", signed=True)


def _truth(raw: bytes) -> bool:
    return raw == b"\x01"


_CONVERT: Final[dict[int, Callable[[bytes], Any]]] = {INT8: _integer, INT4: _integer, 21: _integer, 16: _truth}
