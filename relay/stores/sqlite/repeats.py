"""Repeated requests: which of the events that are about to be stored have been stored before."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from relay.delivery import Mark
from relay.stores.sqlite.rows import Row
from relay.stores.sqlite.transaction import SIZES, Insert, flat, some

_PRUNED_AT_ONCE = 256

_KNOWN = {
    size: "SELECT s.key, s.value, s.event_id FROM seen s JOIN event e ON e.id = s.event_id"  # noqa: S608 - only places
    f" WHERE s.key IN ({', '.join('?' * size)}) AND s.until > ?"
    for size in SIZES
}
_remember = Insert("OR REPLACE INTO seen", "key, value, event_id, until")

LIVE = frozenset({"pending", "held", "merged", "delivered"})
"""States that show that an event is taken care of: its repeat is not sent again."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a key: the last event that was stored for it."""

    value: bytes
    event: int


def known(connection: sqlite3.Connection, keys: Sequence[bytes], now: int) -> dict[bytes, Seen]:
    """What may be repeated of these keys. An event that was pruned meanwhile is none that could be."""
    found: dict[bytes, Seen] = {}
    for piece in some([(key,) for key in keys]):
        rows = connection.execute(_KNOWN[len(piece)], (*flat(piece), now)).fetchall()
        found.update((key, Seen(value, event)) for key, value, event in rows)
    return found


def remember(connection: sqlite3.Connection, seen: Sequence[Row]) -> None:
    """Rows of key, value, event and end. A newer event takes the place of an older one with its key."""
    _remember(connection, seen)


def row(mark: Mark, event: int, now: int) -> Row:
    """A row of `seen`."""
    return mark.key, mark.value, event, now + round(mark.window.total_seconds() * 1000)


def prune(connection: sqlite3.Connection, now: int) -> None:
    """Forget some of what can no longer be repeated."""
    connection.execute(
        "DELETE FROM seen WHERE key IN (SELECT key FROM seen INDEXED BY seen_until WHERE until <= ? LIMIT ?)",
        (now, _PRUNED_AT_ONCE),
    )
