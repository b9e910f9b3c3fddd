"""Many rows with one statement: each column goes as one array, so that it is the same however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relay.stores._sql.rows import Row


def types(words: str) -> tuple[str, ...]:
    """The types of columns, by their first letters: big numbers, small numbers, text, bytes."""
    return tuple(
        {"b": "bigint", "i": "integer", "t": "text", "y": "bytea"}[letter] for letter in words if letter != " "
    )


EVENT_TYPES = types("bttt bbttt tttttt tybb b")
"""Of `EVENT_COLUMNS` and the shape."""
DELIVERY_TYPES = types("bbtbt bbbb tb")
"""Of `DELIVERY_COLUMNS`."""
ATTEMPT_TYPES = types("b btbb ttt btyi tt")
"""Of a delivery's id and `ATTEMPT_COLUMNS`."""
REJECTION_TYPES = types("btbbttt")
"""Of `REJECTION_COLUMNS`."""


def unnest(types: Sequence[str], first: int = 1) -> str:
    """Rows of such columns, out of the arrays at `$first` and after it."""
    return f"unnest({', '.join(f'${first + place}::{kind}[]' for place, kind in enumerate(types))})"


def columns(table: Sequence[Row], width: int) -> list[list[Any]]:
    """The values of rows, column by column."""
    return [list(column) for column in zip(*table, strict=True)] if table else [[] for _ in range(width)]
