"""What waits, and what repeats are known by, where the clock was set back: what was set when it said more than it says
now is taken to have been set now, or earlier where it is known how far the clock went.

So each row tells by itself whether it is to be moved, and whoever has moved it leaves it as one that was set by the
clock as it is now, which is left as it is: it can be begun anew after a crash, and by each of several processes. Of
what repeats are known by only the event says when it came, which stays as it is: how far they were moved is kept beside
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from relay.clock import Clock, to_ms
from relay.delivery import HeldReason
from relay.immutable import immutable
from relay.stores._sql.connection import LOCK, Connection
from relay.stores._sql.deltas import Deltas
from relay.stores._sql.tables import REPEATS_MOVED

AT_ONCE = 500  # rows in one transaction

# In the order of their indexes. What is moved goes back in that of those that wait, where the walk has been.
_PENDING = """
    SELECT due, updated_at, blocked, retried, due, id FROM delivery WHERE state = 'pending' AND route = ?
        AND (blocked, retried, due, id) > (?, ?, ?, ?) ORDER BY blocked, retried, due, id LIMIT ?
"""
_HELD = """
    SELECT due, updated_at, id FROM delivery WHERE state = 'held' AND route = ? AND held_reason = ?
        AND id > ? ORDER BY id LIMIT ?
"""
_BY = "CASE WHEN updated_at - ?1 > ?3 THEN updated_at - ?1 ELSE ?3 END"
_MOVE = f"""
    UPDATE delivery SET "open" = 0, updated_at = updated_at - {_BY},
        due = CASE WHEN due > ?1 THEN due - {_BY} ELSE due END,
        first_due = CASE WHEN first_due > ?1 THEN first_due - {_BY} ELSE first_due END,
        held_at = CASE WHEN held_at > ?1 THEN held_at - {_BY} ELSE held_at END
    WHERE id = ?2 AND updated_at > ?1 AND state IN ('pending', 'held')
"""  # noqa: S608 - our own words

_BEGIN = "INSERT INTO meta (key, value) VALUES (?, '{}') ON CONFLICT (key) DO NOTHING"
_KNOWN = f"SELECT value FROM meta WHERE key = ? {LOCK}"  # noqa: S608
_SAVE = "UPDATE meta SET value = ? WHERE key = ?"
_KEYS = "SELECT key FROM seen WHERE key > ? ORDER BY key LIMIT ?"
# Of an event that is gone nothing is a repeat. One that was moved before came when it was.
_CAME = (
    "coalesce((SELECT CASE WHEN id <= ?3 AND received_at > ?4 THEN ?4 ELSE received_at END"
    " FROM event WHERE id = seen.event_id), 0)"
)
_MOVE_REPEATS = f"""
    UPDATE seen SET until = until - ({_CAME} - ?5)
    WHERE key > ?1 AND key <= ?2 AND event_id <= ?6 AND {_CAME} > ?5
"""  # noqa: S608 - our own words


@immutable
class Walk:
    """Some of what a route has waiting, in the order of an index."""

    query: str
    values: Sequence[str]
    first: tuple[int, ...]
    """What comes before all of it."""


def walks(route: str) -> list[Walk]:
    """All that waits of a route: what is pending, and what is held for each reason."""
    held = [Walk(_HELD, (route, reason.value), (-1,)) for reason in HeldReason]
    return [Walk(_PENDING, (route,), (-1, -1, -1, -1)), *held]


def set_back(
    connection: Connection, deltas: Deltas, walk: Walk, after: tuple[int, ...], clock: Clock, by: int
) -> tuple[int, tuple[int, ...] | None]:
    """Some of a walk, from there on, by so many milliseconds at least. How many are due earlier, and from where it goes
    on; None where it has ended."""
    rows = connection.execute(walk.query, (*walk.values, *after, AT_ONCE)).fetchall()
    now = to_ms(clock.now())
    ahead = [row for row in rows if row[1] > now]
    # In the order of their ids, as others lock them: see `settling`.
    connection.executemany(_MOVE, [(now, number, by) for number in sorted([row[-1] for row in ahead])])
    # What comes meanwhile lies at the end: it is not to be followed.
    return sum(row[0] > now for row in ahead), tuple(rows[-1][2:]) if len(rows) == AT_ONCE else None


def move_repeats(connection: Connection, deltas: Deltas, clock: Clock, upto: int) -> bool:
    """Some of what repeats of events up to this one are known by. Whether there may be more to do.

    One walk at a time, with which whoever comes goes on: `doing` says up to which event, what time it is for the walk,
    and the last key; `done` the same of the walk before."""
    connection.execute(_BEGIN, (REPEATS_MOVED,))
    known = orjson.loads(connection.execute(_KNOWN, (REPEATS_MOVED,)).fetchone()[0])
    done, doing = known.get("done", (0, 0)), known.get("doing")
    if doing is None:
        now = to_ms(clock.now())
        if done[0] >= upto and done[1] <= now:
            return False
        doing = (max(upto, done[0]), now, "")
    last, now, after = doing[0], doing[1], bytes.fromhex(doing[2])
    keys = [row[0] for row in connection.execute(_KEYS, (after, AT_ONCE)).fetchall()]
    if keys:
        connection.execute(_MOVE_REPEATS, (after, keys[-1], *done, now, last))
        known = {"done": done, "doing": (last, now, bytes(keys[-1]).hex())}
    else:
        known = {"done": (last, now)}
    connection.execute(_SAVE, (orjson.dumps(known).decode(), REPEATS_MOVED))
    return True
