"""How deliveries come into a process's hand: leased in the writer's next transaction. Their bodies are read after."""

from __future__ import annotations

from collections.abc import Collection

from relay.ids import DeliveryId
from relay.immutable import immutable
from relay.stores._sql import rows
from relay.stores._sql.connection import Connection
from relay.stores._sql.deltas import Deltas
from relay.stores._sql.reader import EVENT_E
from relay.stores.postgresql.connection import Session
from relay.stores.postgresql.membership import Living

# Whose it may be: nobody's, this process's own that it has not in memory, a dead one's.
_FREE = "(owner IS NULL OR owner = ANY($7) OR (owner <= $8 AND owner <> ALL($9)))"

# The sum runs over what is leased: what would be too much to read stays where it is. The first one always goes.
LEASE = f"""
    WITH due AS MATERIALIZED (
        SELECT id, due, event_id, CASE open WHEN 0 THEN bytes ELSE 0 END AS bytes FROM delivery
        WHERE state = 'pending' AND blocked = 0 AND route = $1 AND retried = $2 AND due <= $3
            AND id <> ALL($4) AND {_FREE}
        ORDER BY due, id LIMIT $5 FOR UPDATE SKIP LOCKED
    ), fitting AS (
        SELECT id, size, sum(size) OVER (ORDER BY due, id) - size AS before
        FROM (
            SELECT due.id, due.due, greatest(event.size, due.bytes) AS size
            FROM due JOIN event ON event.id = due.event_id
        ) sized
    )
    UPDATE delivery SET owner = $10 WHERE id IN (SELECT id FROM fitting WHERE before = 0 OR before + size <= $6)
    RETURNING id
"""  # noqa: S608 - our own words
LEASED = f"""
    SELECT {rows.CLAIM_COLUMNS}, d."window", {EVENT_E}, b.content, sha256(b.content) = e.sha256
    FROM delivery d JOIN event e ON e.id = d.event_id LEFT JOIN body b ON b.event_id = e.id
    WHERE d.id = ANY($1) AND d.state = 'pending' AND d.blocked = 0 ORDER BY d.due, d.id
"""  # noqa: S608
_TAKE = """
    UPDATE delivery SET taken = CASE WHEN lane IS NULL THEN 0 ELSE 1 END, open = 0, owner = $3
    WHERE id = $1 AND state = 'pending' AND blocked = 0 AND due <= $2 AND (owner IS NULL OR owner = ANY($4))
        AND lane IS NOT DISTINCT FROM $5
"""


@immutable
class Lease:
    """A command: what is due of a route comes into this process's hand. Returns the ids."""

    route: str
    retried: bool
    now: int
    exclude: Collection[DeliveryId]
    limit: int
    most_bytes: int
    mine: tuple[int, ...]
    living: Living

    def __call__(self, connection: Connection, deltas: Deltas) -> list[int]:
        assert isinstance(connection, Session)
        values = [
            self.route, int(self.retried), self.now, list(self.exclude), self.limit, self.most_bytes,
            list(self.mine), self.living.upto, list(self.living.ids), self.mine[-1],
        ]  # fmt: skip
        return [row[0] for row in connection.bulk(LEASE, values)]


@immutable
class Take:
    """A command: begin with a delivery that is in this process's hand. Returns whether it may be sent: not where it was
    put into another lane meanwhile, which is not locked here."""

    delivery: DeliveryId
    lane: str | None
    now: int
    mine: tuple[int, ...]

    def __call__(self, connection: Connection, deltas: Deltas) -> bool:
        assert isinstance(connection, Session)
        values = [self.delivery, self.now, self.mine[-1], list(self.mine), self.lane]
        return connection.raw.execute(_TAKE, values).rowcount > 0
