"""Lanes in the tables: of what is unfinished in one, all but the first are `blocked`, and no claim finds them.

Whoever ends a delivery of a lane releases the lane, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import orjson

from relay.event import Change
from relay.immutable import immutable
from relay.lane import Order
from relay.stores._sql import rows
from relay.stores._sql.connection import Connection
from relay.stores._sql.deltas import Deltas, shift
from relay.stores._sql.tables import UNFINISHED_LANE

AT_ONCE = 500

Begun = Callable[[Connection, Collection[int]], Collection[int]]
"""Says which of some deliveries are being sent, or may be about to be by another process."""

_UNFINISHED = f"FROM delivery WHERE route = ?1 AND lane = ?2 AND {UNFINISHED_LANE}"
_HAS_UNFINISHED = f"SELECT EXISTS (SELECT 1 {_UNFINISHED})"
# Not by `min`: see `tables.routes_with`.
_FIRST_BLOCKED = f"(SELECT id {_UNFINISHED} AND blocked = 1 ORDER BY id LIMIT 1)"
# Nobody may be let past the one that is being sent. Two looks into the index, however many wait.
_NONE_GOES_ON = f"NOT EXISTS (SELECT 1 {_UNFINISHED} AND blocked = 0)"
_RELEASE = f"""
    UPDATE delivery SET blocked = 0 WHERE id = {_FIRST_BLOCKED} AND {_NONE_GOES_ON}
"""  # noqa: S608
_ADMIT = f"UPDATE delivery SET blocked = 0 WHERE id = ?3 AND {_NONE_GOES_ON}"  # noqa: S608
# Of what goes on, that which came after something that waits, and has not begun; or was asked for anew and is held.
_AHEAD = f"""
    SELECT id {_UNFINISHED} AND blocked = 0 AND taken = 0 AND state IN ('held', ?3)
        AND (attempts = 0 OR (?3 = 'held' AND retried = 0))
        AND id > {_FIRST_BLOCKED}
"""
_UNFINISHED_OF = f"""
    SELECT d.id, d.lane, d.blocked, {rows.event_columns("e")} FROM delivery d JOIN event e ON e.id = d.event_id
    WHERE d.id IN (SELECT value FROM json_each(?1)) AND +d.route = ?2 AND +d.state IN ('pending', 'held')
    ORDER BY d.id
"""  # noqa: S608
# A window is about all its events, whatever its carrier says.
_WAITING = f"""
    SELECT d.id, d.state, d.event_id, e.stage, e.action FROM delivery d JOIN event e ON e.id = d.event_id
    WHERE d.id IN (SELECT id {_UNFINISHED} AND taken = 0 AND "window" IS NULL)
    ORDER BY d.id
"""  # noqa: S608
# What is newer is told by the events: an old one may be replayed. No delivery is older than its event.
_NEWER = f"""
    SELECT EXISTS (
        SELECT 1 FROM delivery d JOIN event e ON e.id = d.event_id
        WHERE d.id IN (
            SELECT id FROM delivery
                WHERE route = ?1 AND lane = ?2 AND lane IS NOT NULL AND state = 'delivered' AND id > ?3
            UNION ALL SELECT id {_UNFINISHED} AND id > ?3
        ) AND d.event_id > ?3 AND (?5 IS 'delete' OR e.action = 'delete' OR e.stage IS ?4)
    )
"""  # noqa: S608
# What waits goes out in its order, and is merged where nothing of it is left to say. What is being sent, or was, has
# been said: nothing older may follow it.
_OUTDATING = f"""
    SELECT d.id FROM delivery d JOIN event e ON e.id = d.event_id
    WHERE d.id IN (
        SELECT id FROM delivery
            WHERE route = ?1 AND lane = ?2 AND lane IS NOT NULL AND state = 'delivered' AND id > ?3
        UNION ALL SELECT id {_UNFINISHED} AND id > ?3
    ) AND d.event_id > ?3 AND d."window" IS NULL
        AND (e.action = 'delete' OR e.stage IS ?4 OR (?5 IS 'delete' AND (d.state = 'delivered' OR d.taken = 1)))
    ORDER BY d.event_id DESC, d.id DESC LIMIT 1
"""  # noqa: S608


def has_unfinished(connection: Connection, route: str, lane: str) -> bool:
    """Whether something of a lane is still to be sent."""
    return bool(connection.execute(_HAS_UNFINISHED, (route, lane)).fetchone()[0])


def release(connection: Connection, route: str, lane: str) -> bool:
    """Let the first unfinished one of a lane go on, where none does. Whether that changed anything."""
    return connection.execute(_RELEASE, (route, lane)).rowcount > 0


@immutable
class Waiting:
    """A delivery that has not begun, and what its event says."""

    id: int
    state: str
    event: int
    what: Change


def waiting(connection: Connection, route: str, lane: str) -> list[Waiting]:
    """What of a lane may still be merged, oldest first."""
    found = connection.execute(_WAITING, (route, lane))
    return [
        Waiting(number, state, event, Change(stage=stage, action=action))
        for number, state, event, stage, action in found
    ]


def newer(connection: Connection, route: str, lane: str | None, event: int, what: Change) -> bool:
    """Whether something of a lane that outdates an event was sent or is going to be. After a delete nothing older is of
    interest, nor is an older delete after anything newer."""
    return bool(connection.execute(_NEWER, (route, lane, event, what.stage, what.action)).fetchone()[0])


def outdating(connection: Connection, route: str, lane: str, event: int, what: Change) -> int | None:
    """The delivery with which nothing is left to say of an older event, if there is one."""
    found = connection.execute(_OUTDATING, (route, lane, event, what.stage, what.action)).fetchone()
    return None if found is None else int(found[0])


def merge(connection: Connection, older: Waiting, into: int, route: str, now: int, deltas: Deltas) -> None:
    """A delivery becomes part of another one, with all that became part of it before."""
    connection.execute(
        "UPDATE delivery SET state = 'merged', merged_into = ?1, held_reason = NULL, held_at = NULL,"
        " blocked = 0, updated_at = ?2 WHERE id = ?3",
        (into, now, older.id),
    )
    connection.execute("UPDATE delivery SET merged_into = ? WHERE merged_into = ?", (into, older.id))
    pending = older.state == "pending"
    shift(deltas, route, -int(pending), -int(not pending))


def collapse(connection: Connection, route: str, lane: str | None, now: int, deltas: Deltas) -> None:
    """Under `order: latest`: merge what of a lane is out of date into what is newer, then let the next one go."""
    if lane is None or len(orjson.loads(lane or "[]")) < 2:
        return  # a lane of a source: its events are about nothing in common
    for each in waiting(connection, route, lane):
        into = outdating(connection, route, lane, each.event, each.what)
        if into is not None and into != each.id:
            merge(connection, each, into, route, now, deltas)
    release(connection, route, lane)


@immutable
class Relane:
    """Puts some deliveries of a route, oldest first, into the lanes of another order, while nothing of it is begun."""

    route: str
    order: Order
    deliveries: Sequence[int]
    now: int
    begun: Begun

    def __call__(self, connection: Connection, deltas: Deltas) -> None:
        found = connection.execute(_UNFINISHED_OF, (orjson.dumps(self.deliveries).decode(), self.route))
        changed = []
        for number, old, blocked, *event in found:
            lane = rows.lane_of(self.order, event)
            if lane != old:
                changed.append((number, lane, bool(blocked)))
        enter(connection, self.route, changed)
        for lane in {lane for _, lane, _ in changed if lane is not None}:
            # Since the order came newer ones may have joined the lane. They had not to wait for what was not in it yet.
            let_oldest(connection, self.route, lane, self.begun)
            if self.order is Order.LATEST:
                collapse(connection, self.route, lane, self.now, deltas)


def let_oldest(connection: Connection, route: str, lane: str, begun: Begun, *, held: bool = False) -> None:
    """Let the oldest one of a lane go on, where only something newer does that has not begun; and is held, if `held`:
    what is pending may be taken to be sent at any moment, unless nothing of its route is begun."""
    pending = "held" if held else "pending"
    ahead = {number for (number,) in connection.execute(_AHEAD, (route, lane, pending))}
    ahead.difference_update(begun(connection, ahead) if ahead else ())
    if ahead:
        connection.executemany("UPDATE delivery SET blocked = 1 WHERE id = ?", [(number,) for number in ahead])
        release(connection, route, lane)


def enter(connection: Connection, route: str, changed: Sequence[tuple[int, str | None, bool]]) -> None:
    """Put deliveries of a route, oldest first, into lanes: their ids, the lanes, and whether they had to wait before.

    Each goes after the one that the lane lets go on already. Where there is none it is the first that had not to wait:
    it may be under way.
    """
    connection.executemany(
        "UPDATE delivery SET lane = ?2, blocked = CASE WHEN ?2 IS NULL THEN 0 ELSE 1 END WHERE id = ?1",
        [each[:2] for each in changed],
    )
    connection.executemany(
        _ADMIT, [(route, lane, number) for number, lane, blocked in changed if lane is not None and not blocked]
    )
    for lane in {lane for _, lane, _ in changed if lane is not None}:
        release(connection, route, lane)
