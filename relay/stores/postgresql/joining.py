"""Events with their deliveries as they join the queue of several processes: plain ones in one statement.

A delivery is born in the hand of the process that took it in, unless much of its route waits already: that is read back
by whoever has room, so that a process leaves little behind when it dies, and others help with a backlog.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relay.delivery import Owed
from relay.ids import DeliveryId
from relay.stores._sql import joining, repeats, rows
from relay.stores._sql.deltas import Deltas
from relay.stores._sql.joining import Adding
from relay.stores._sql.rows import Row
from relay.stores._sql.shapes import Shapes
from relay.stores.postgresql.bulk import DELIVERY_TYPES, EVENT_TYPES, columns, types, unnest
from relay.stores.postgresql.connection import Session

IN_HAND = 512
"""Of a route with more than so many that wait, nothing more is born in anybody's hand."""

_BODY_TYPES = types("by")
_OWNED_TYPES = (*DELIVERY_TYPES, *types("b"))
_MENTION_TYPES = types("tb")
_SEEN_TYPES = types("yybb")
_ADD = f"""
    WITH e AS (
        INSERT INTO event ({rows.EVENT_COLUMNS}, shape) SELECT * FROM {unnest(EVENT_TYPES)}
    ), b AS (
        INSERT INTO body (event_id, content) SELECT * FROM {unnest(_BODY_TYPES, len(EVENT_TYPES) + 1)}
    )
    INSERT INTO delivery ({rows.DELIVERY_COLUMNS}, owner)
    SELECT * FROM {unnest(_OWNED_TYPES, len(EVENT_TYPES) + len(_BODY_TYPES) + 1)}
"""  # noqa: S608 - our own columns
_MENTION = f"INSERT INTO mention (entry_id, event_id) SELECT * FROM {unnest(_MENTION_TYPES)} ON CONFLICT DO NOTHING"  # noqa: S608
_JOINED = (
    f"INSERT INTO delivery ({rows.JOIN_COLUMNS}, owner)"  # noqa: S608
    f" VALUES ({', '.join('?' * (rows.JOIN_COLUMNS.count(',') + 2))})"
)
# Whoever comes second with a key waits here until the first one's transaction has ended, and has the row from then on.
_REMEMBER = f"""
    INSERT INTO seen AS s (key, value, event_id, until)
    SELECT * FROM {unnest(_SEEN_TYPES)} AS v(key, value, event_id, until) ORDER BY v.key
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, event_id = excluded.event_id, until = excluded.until
        WHERE s.value <> excluded.value OR s.until <= $5
    RETURNING key
"""  # noqa: S608
_REPLACE = f"""
    INSERT INTO seen (key, value, event_id, until) SELECT * FROM {unnest(_SEEN_TYPES)}
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, event_id = excluded.event_id, until = excluded.until
"""  # noqa: S608
# A statement of its own: what the one before waited for was committed after that had begun, and is not seen by it. An
# event that was pruned is none that could be repeated.
_KNOWN = """
    SELECT key, value, event_id FROM seen
    WHERE key = ANY($1) AND EXISTS (SELECT 1 FROM event WHERE event.id = seen.event_id)
"""


class Joining(joining.Joining):
    """On PostgreSQL: other processes write too. Who comes here holds the locks of what he looks at."""

    def __init__(
        self, session: Session, waiting: Mapping[str, int], deltas: Deltas, shapes: Shapes, process: int
    ) -> None:
        super().__init__(session, waiting, deltas, shapes)
        self._session = session
        self._process = process
        self._hands: dict[DeliveryId, bool] = {}
        self._written: tuple[Sequence[Row], Sequence[Row]] = ((), ())
        self._remembered: dict[bytes, Row] = {}

    def _write_events(self, adds: Sequence[Adding]) -> None:
        self._written = (self._events(adds), joining.bodies(adds))
        if mentions := joining.mentions(adds):
            self._session.bulk(_MENTION, columns(mentions, _MENTION_TYPES), [])

    def _write_deliveries(self, table: Sequence[Row]) -> None:
        events, bodies = self._written
        if not (events or table):
            return
        owned = [(*row, self._process if self._hands.get(row[0]) else None) for row in table]
        self._session.bulk(
            _ADD, [*columns(events, EVENT_TYPES), *columns(bodies, _BODY_TYPES), *columns(owned, _OWNED_TYPES)], []
        )
        if self._session.changed is not None:
            self._session.changed.update(row[0] for row in table)
            self._session.changed.update(row[0] for row in events if not row[rows.MATCHED])

    def _write_joined(self, row: Row, in_hand: bool) -> None:
        self._session.execute(_JOINED, (*row, self._process if in_hand else None))

    def _in_hand(self, owed: Owed) -> bool:
        number = owed.delivery.id
        found = self._hands.get(number)
        if found is None:
            found = super()._in_hand(owed) and self._count(owed.delivery.route) <= IN_HAND
            self._hands[number] = found
        return found

    def _known(self, adds: Sequence[Adding], now: int) -> dict[bytes, repeats.Seen]:
        first: dict[bytes, Row] = {}
        for add in adds:
            assert add.mark is not None
            first.setdefault(add.mark.key, repeats.row(add.mark, add.id, now))
        none_known = [(key,) for key in first]
        fresh = self._session.bulk(_REMEMBER, [*columns(list(first.values()), _SEEN_TYPES), now], none_known)
        self._remembered = {row[0]: first[row[0]] for row in fresh}
        others = [key for key in first if key not in self._remembered]
        if not others:
            return {}
        return {key: repeats.Seen(value, event) for key, value, event in self._session.bulk(_KNOWN, [others])}

    def _remember(self, seen: Sequence[Row], now: int) -> None:
        """What came second in one batch and says something else, and what was known of an event that was pruned; the
        others are there already."""
        later = [row for row in seen if self._remembered.get(row[0]) != row]
        if later:
            self._session.bulk(_REPLACE, columns(later, _SEEN_TYPES))
