"""Many rows with one statement: each column goes as one array, so that it is the same however many there are.

Arrays are written here, in PostgreSQL's binary form: psycopg asks each value of a list how it is to be written, which
costs seven times as much (docs/decisions/postgresql.md). The form is that of `array_send` in PostgreSQL's arrayfuncs.c:
dimensions, whether there are NULLs, the type, the length, the first index, then each value after its length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, ClassVar

from psycopg.adapt import AdaptersMap, Buffer, Dumper
from psycopg.pq import Format

from relay.stores._sql.rows import Row

_HEAD = Struct(">iiiii").pack
_EMPTY = Struct(">iii").pack
_LENGTH = Struct(">i").pack
_BIG = Struct(">q").pack
_NULL = b"\xff\xff\xff\xff"


class Array:
    """One column, written."""

    __slots__ = ("data",)
    kind: ClassVar[str]
    element: ClassVar[int]
    """The type's oid, see pg_type.dat."""
    array: ClassVar[int]

    def __init__(self, values: Sequence[Any]) -> None:
        if values:
            nulls = None in values
            head = _HEAD(1, nulls, self.element, len(values), 1)
            self.data = head + self.written(values, nulls)
        else:
            self.data = _EMPTY(0, 0, self.element)

    def written(self, values: Sequence[Any], nulls: bool) -> bytes:
        """The values, each after its length."""
        parts: list[bytes] = []
        plain = self.plain
        for value in values:
            if value is None:
                parts.append(_NULL)
            else:
                said = plain(value)
                parts.append(_LENGTH(len(said)))
                parts.append(said)
        return b"".join(parts)

    @staticmethod
    def plain(value: Any) -> bytes:
        """A value without its length."""
        return bytes(value)


@lru_cache(maxsize=1024)
def _together(letter: str, number: int) -> Callable[..., bytes]:
    return Struct(">" + f"i{letter}" * number).pack


class _Numbers(Array):
    __slots__ = ()
    letter: ClassVar[str]
    size: ClassVar[int]

    def written(self, values: Sequence[Any], nulls: bool) -> bytes:
        if nulls:
            return super().written(values, nulls)
        both = [self.size] * (2 * len(values))
        both[1::2] = values
        return _together(self.letter, len(values))(*both)


class Bigint(_Numbers):
    """Of eight bytes."""

    __slots__ = ()
    kind, element, array, letter, size = "bigint", 20, 1016, "q", 8

    @staticmethod
    def plain(value: int) -> bytes:
        return _BIG(value)


class Integer(_Numbers):
    """Of four bytes."""

    __slots__ = ()
    kind, element, array, letter, size = "integer", 23, 1007, "i", 4

    @staticmethod
    def plain(value: int) -> bytes:
        return _LENGTH(value)


class Words(Array):
    """Text; see `connection.Text` for NUL."""

    __slots__ = ()
    kind, element, array = "text", 25, 1009

    @staticmethod
    def plain(value: str) -> bytes:
        said = value.encode()
        return said if b"\0" not in said else said.replace(b"\0", "\u2400".encode())


class Bytes(Array):
    """What is kept as it came."""

    __slots__ = ()
    kind, element, array = "bytea", 17, 1001


Types = tuple[type[Array], ...]


def types(words: str) -> Types:
    """The types of columns, by their first letters: big numbers, integers, text, bytes."""
    return tuple({"b": Bigint, "i": Integer, "t": Words, "y": Bytes}[letter] for letter in words if letter != " ")


EVENT_TYPES = types("bttt bbttt tttttt tybb b")
"""Of `EVENT_COLUMNS` and the shape."""
DELIVERY_TYPES = types("bbtbt bbbb tb")
"""Of `DELIVERY_COLUMNS`."""
ATTEMPT_TYPES = types("b btbb ttt btyi tt")
"""Of a delivery's id and `ATTEMPT_COLUMNS`."""
REJECTION_TYPES = types("btbbttt")
"""Of `REJECTION_COLUMNS`."""


def unnest(types: Types, first: int = 1) -> str:
    """Rows of such columns, out of the arrays at `$first` and after it."""
    return f"unnest({', '.join(f'${first + place}::{kind.kind}[]' for place, kind in enumerate(types))})"


def columns(table: Sequence[Row], types: Types) -> list[Array]:
    """The values of rows, column by column."""
    if not table:
        return [kind(()) for kind in types]
    return [kind(column) for kind, column in zip(types, zip(*table, strict=True), strict=True)]


def register(adapters: AdaptersMap) -> None:
    """Have arrays sent as they are."""
    for kind in (Bigint, Integer, Words, Bytes):
        adapters.register_dumper(kind, _dumper(kind))


def _dumper(kind: type[Array]) -> type[Dumper]:
    class Written(Dumper):
        format = Format.BINARY
        oid = kind.array

        def dump(self, obj: Array) -> Buffer:
            return obj.data

    return Written
