"""Events with their deliveries as they join the queue: plain ones in a few large calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relay.stores._sql import joining, repeats, rows
from relay.stores._sql.connection import Connection
from relay.stores._sql.deltas import Deltas
from relay.stores._sql.joining import Adding
from relay.stores._sql.rows import Row
from relay.stores._sql.shapes import Shapes
from relay.stores.sqlite.bulk import Statements, insert, pieces

# What is written in a batch alone, never in a command, which has to be undone alone, may undo all.
_insert_events = insert(
    "OR ROLLBACK INTO event",
    f"{rows.EVENT_COLUMNS}, shape",
    "type, event, environment, branch, locale, model, stage, action, changes, extra, matched",
)
_insert_bodies = insert("OR ROLLBACK INTO body", "event_id, content")
_insert_mentions = insert("OR IGNORE INTO mention", "entry_id, event_id")
_insert_deliveries = insert("OR ROLLBACK INTO delivery", rows.DELIVERY_COLUMNS, 'route, attempts, tries, "trigger"')
_insert_joined = insert("INTO delivery", rows.JOIN_COLUMNS)
_insert_fresh = insert("OR IGNORE INTO seen", "key, value, event_id, until")
_insert_seen = insert("OR REPLACE INTO seen", "key, value, event_id, until")
_KNOWN = Statements(
    lambda size: (
        "SELECT s.key, s.value, s.event_id FROM seen s JOIN event e ON e.id = s.event_id"  # noqa: S608
        f" WHERE s.key IN ({', '.join('?' * size)}) AND s.until > ?"
    )
)
_PRUNE = "DELETE FROM seen WHERE key IN (SELECT key FROM seen INDEXED BY seen_until WHERE until <= ? LIMIT ?)"
_FORGET_EVERY_MS = 1000


class Forgetting:
    """When to forget some of what can no longer be repeated: not in each transaction, yet faster than more is known."""

    __slots__ = ("_last", "_next", "_unasked")

    def __init__(self) -> None:
        self._unasked, self._last = self._next = 0, 0

    def begun(self) -> None:
        """A transaction: what one before it forgot and did not commit is still to be forgotten."""
        self._next = self._unasked, self._last

    def due(self, more: int, now: int) -> bool:
        """Whether it is time to, now that so many more are remembered. Asked once in a transaction."""
        unasked = self._unasked + more
        if unasked < repeats.PRUNED_AT_ONCE // 2 and 0 <= now - self._last < _FORGET_EVERY_MS:
            self._next = unasked, self._last
            return False
        self._next = 0, now
        return True

    def committed(self) -> None:
        """What the transaction forgot is forgotten."""
        self._unasked, self._last = self._next


class Joining(joining.Joining):
    """On SQLite: nobody else writes meanwhile."""

    def __init__(
        self,
        connection: Connection,
        waiting: Mapping[str, int],
        deltas: Deltas,
        shapes: Shapes,
        forgetting: Forgetting,
    ) -> None:
        super().__init__(connection, waiting, deltas, shapes)
        self._forgetting = forgetting

    def _write_events(self, adds: Sequence[Adding]) -> None:
        _insert_events(self._connection, self._events(adds))
        _insert_bodies(self._connection, joining.bodies(adds))
        _insert_mentions(self._connection, joining.mentions(adds))

    def _write_deliveries(self, table: Sequence[Row]) -> None:
        _insert_deliveries(self._connection, table)

    def _write_joined(self, row: Row, in_hand: bool) -> None:
        _insert_joined(self._connection, [row])

    def _known(self, adds: Sequence[Adding], now: int) -> dict[bytes, repeats.Seen] | None:
        first: dict[bytes, Row] = {}
        for add in adds:
            mark = add.mark
            assert mark is not None
            if mark.key not in first:
                first[mark.key] = repeats.row(mark, add.event[0], now)
        if self._forgetting.due(len(first), now):
            self._connection.execute(_PRUNE, (now, max(repeats.PRUNED_AT_ONCE, 2 * len(first))))
        # Mostly none is known, and nothing need be read. What is written here beside others that are known nobody finds
        # before its event is stored, and `_remember` writes it again.
        if _insert_fresh(self._connection, list(first.values())) == len(adds):
            return None
        found: dict[bytes, repeats.Seen] = {}
        keys = list(first)
        for size, start, number in pieces(len(keys)):
            bound = [*keys[start : start + number], *(0,) * (size - number), now]
            known = self._connection.execute(_KNOWN[size], bound).fetchall()
            found.update((key, repeats.Seen(value, event)) for key, value, event in known)
        return found

    def _remember(self, seen: Sequence[Row], now: int) -> None:
        _insert_seen(self._connection, seen)
