"""Events with their deliveries as they join the queue: plain ones in a few large calls."""

from __future__ import annotations

from collections.abc import Sequence

from relay.stores._sql import joining, repeats, rows
from relay.stores._sql.joining import Adding
from relay.stores._sql.rows import Row
from relay.stores.sqlite.bulk import Insert, sizes, some

_insert_events = Insert("INTO event", f"{rows.EVENT_COLUMNS}, shape")
_insert_bodies = Insert("INTO body", "event_id, content")
_insert_mentions = Insert("OR IGNORE INTO mention", "entry_id, event_id")
_insert_deliveries = Insert("INTO delivery", rows.DELIVERY_COLUMNS)
_insert_joined = Insert("INTO delivery", rows.JOIN_COLUMNS)
_insert_seen = Insert("OR REPLACE INTO seen", "key, value, event_id, until")
_KNOWN = sizes(
    lambda size: (
        "SELECT s.key, s.value, s.event_id FROM seen s JOIN event e ON e.id = s.event_id"  # noqa: S608
        f" WHERE s.key IN ({', '.join('?' * size)}) AND s.until > ?"
    )
)
_PRUNE = "DELETE FROM seen WHERE key IN (SELECT key FROM seen INDEXED BY seen_until WHERE until <= ? LIMIT ?)"


class Joining(joining.Joining):
    """On SQLite: nobody else writes meanwhile."""

    def _write_events(self, events: Sequence[Row], bodies: Sequence[Row], mentions: Sequence[Row]) -> None:
        _insert_events(self._connection, events)
        _insert_bodies(self._connection, bodies)
        _insert_mentions(self._connection, mentions)

    def _write_deliveries(self, table: Sequence[Row]) -> None:
        _insert_deliveries(self._connection, table)

    def _write_joined(self, row: Row, in_hand: bool) -> None:
        _insert_joined(self._connection, [row])

    def _known(self, adds: Sequence[Adding], now: int) -> dict[bytes, repeats.Seen]:
        found: dict[bytes, repeats.Seen] = {}
        for size, keys in some([(add.mark.key,) for add in adds if add.mark is not None], (0,)):
            known = self._connection.execute(_KNOWN[size], [*keys, now]).fetchall()
            found.update((key, repeats.Seen(value, event)) for key, value, event in known)
        return found

    def _remember(self, seen: Sequence[Row], now: int) -> None:
        _insert_seen(self._connection, seen)
        self._connection.execute(_PRUNE, (now, repeats.PRUNED_AT_ONCE))
