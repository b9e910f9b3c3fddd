"""Lanes in the tables: of what is unfinished in one, all but the first are `blocked`, and no claim finds them.

Whoever ends a delivery of a lane releases the lane, in the same transaction.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from relay.lane import Order, Supersedes
from relay.stores.sqlite import rows
from relay.stores.sqlite.schema import UNFINISHED_LANE

AT_ONCE = 500

_UNFINISHED = f"SELECT 1 FROM delivery WHERE route = ?1 AND lane = ?2 AND {UNFINISHED_LANE}"  # noqa: S608
_HAS_UNFINISHED = f"SELECT EXISTS ({_UNFINISHED})"
# Nobody may be let past the one that is being sent.
_RELEASE = f"""
    UPDATE delivery SET blocked = 0
    WHERE id = (SELECT min(id) FROM delivery WHERE route = ?1 AND lane = ?2 AND {UNFINISHED_LANE})
        AND NOT EXISTS ({_UNFINISHED} AND blocked = 0)
"""  # noqa: S608
_WAITING = f"""
    SELECT d.id, d.state FROM delivery d JOIN event e ON e.id = d.event_id
    WHERE d.route = ?1 AND d.lane = ?2 AND d.id IN
        (SELECT id FROM delivery WHERE route = ?1 AND lane = ?2 AND {UNFINISHED_LANE} AND taken = 0)
        AND (?3 OR e.stage IS ?4)
"""  # noqa: S608
_NEWER = f"""
    SELECT EXISTS (
        SELECT 1 FROM delivery d JOIN event e ON e.id = d.event_id
        WHERE d.id IN (
            SELECT id FROM delivery
                WHERE route = ?1 AND lane = ?2 AND lane IS NOT NULL AND state = 'delivered' AND id > ?3
            UNION ALL SELECT id FROM delivery WHERE route = ?1 AND lane = ?2 AND {UNFINISHED_LANE} AND id > ?3
        ) AND (e.action = 'delete' OR e.stage IS ?4)
    )
"""  # noqa: S608


def has_unfinished(connection: sqlite3.Connection, route: str, lane: str) -> bool:
    """Whether something of a lane is still to be sent."""
    return bool(connection.execute(_HAS_UNFINISHED, (route, lane)).fetchone()[0])


def release(connection: sqlite3.Connection, route: str, lane: str) -> bool:
    """Let the first unfinished one of a lane go on, where none does. Whether that changed anything."""
    return connection.execute(_RELEASE, (route, lane)).rowcount > 0


def waiting(
    connection: sqlite3.Connection, route: str, lane: str, supersedes: Supersedes, stage: str | None
) -> list[tuple[int, str]]:
    """Id and state of what a newer delivery of the lane takes up."""
    everything = supersedes is Supersedes.ALL
    return list(connection.execute(_WAITING, (route, lane, everything, stage)))


def newer(connection: sqlite3.Connection, route: str, lane: str, delivery: int, stage: str | None) -> bool:
    """Whether something newer of a lane, which makes a delivery out of date, was sent or is going to be."""
    return bool(connection.execute(_NEWER, (route, lane, delivery, stage)).fetchone()[0])


@dataclass(slots=True)
class Relane:
    """Puts what is unfinished of a route into the lanes of another order, some at a time. Returns how many."""

    route: str
    order: Order
    after: int = 0

    def __call__(self, connection: sqlite3.Connection, deltas: object) -> int:
        found = connection.execute(
            f"SELECT d.id, {rows.event_columns('e')} FROM delivery d JOIN event e ON e.id = d.event_id"  # noqa: S608
            " WHERE d.route = ? AND d.id > ? AND (d.state = 'pending' OR d.state = 'held') ORDER BY d.id LIMIT ?",
            (self.route, self.after, AT_ONCE),
        ).fetchall()
        changed = [(rows.lane_of(self.order, row[1:]), row[0]) for row in found]
        # First all stand back, then the first of each lane comes forward: an order that ends leaves none behind.
        connection.executemany("UPDATE delivery SET lane = ?1, blocked = ?1 IS NOT NULL WHERE id = ?2", changed)
        for lane in {lane for lane, _ in changed if lane is not None}:
            release(connection, self.route, lane)
        if found:
            self.after = found[-1][0]
        return len(found)
