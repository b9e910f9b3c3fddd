"""What of a store is past its time: by which rule it goes, and how much that is. Each engine's `pruning` removes it.

An event goes when all its deliveries have ended and the last of them did so before the limit: what was merged into
another delivery ends with that one. Its deliveries and their attempts go with it. When all that are old enough are
gone, the bodies of those that stay and ended before another limit follow.

What goes first may change what goes later: what was merged into a delivery that is gone ended when it was merged. For
events that makes no difference. What is merged into something that waits is merged before that ends; what is merged
into something that was delivered before (a replay under `order: latest`) is of an older event, and older events go
first. For bodies it does, since all events go before them: who counts bodies has to know which events will be gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from relay.clock import to_ms
from relay.store import Pruned
from relay.stores._sql import rows, tables

Ask = Callable[[str, Sequence[Any]], Awaitable[list[Any]]]

LOOKED_AT = 1000  # events, at once


def kept(event: str, limit: str = "?2", delivery: str = "d", carrier: str = "c", there: str = "TRUE") -> str:
    """Of an event: whether something of it is unfinished, or ended after the limit; where carriers count only if they
    are `there`."""
    return f"""
        EXISTS (
            SELECT 1 FROM delivery {delivery} INDEXED BY delivery_event
                LEFT JOIN delivery {carrier} ON {carrier}.id = {delivery}.merged_into AND {there}
            WHERE {delivery}.event_id = {event} AND (
                coalesce({carrier}.state, {delivery}.state) IN ('pending', 'held')
                OR coalesce({carrier}.updated_at, {delivery}.updated_at) >= {limit}
            )
        )
    """  # noqa: S608 - our own words


def _bodies(kept: str) -> str:
    return f"""
        SELECT these.id, {kept} AS kept, event.size FROM (
            SELECT event_id AS id FROM body WHERE event_id > ?1 AND event_id < ?3 ORDER BY event_id LIMIT ?4
        ) these JOIN event ON event.id = these.id ORDER BY these.id
    """  # noqa: S608


def _goes(event: str) -> str:
    """Whether an event itself is past its time."""
    return f"({event} < ?6 AND NOT {kept(event, '?5', 'beside', 'over')})"


# The next events after ?1, and events with bodies, older than ?3: what is kept, and the sizes of their bodies.
EVENTS = f"""
    SELECT these.id, {kept("these.id")} AS kept, these.size FROM (
        SELECT id, size FROM event WHERE id > ?1 AND id < ?3 ORDER BY id LIMIT ?4
    ) these ORDER BY these.id
"""  # noqa: S608
BODIES = _bodies(kept("these.id"))

# The same, counted.
_EVENTS_THAT_GO = f"""
    WITH found AS MATERIALIZED ({EVENTS})
    SELECT max(id), count(*) FILTER (WHERE NOT kept), coalesce(sum(
        CASE WHEN kept THEN 0 ELSE (SELECT count(*) FROM delivery WHERE delivery.event_id = found.id) END
    ), 0) FROM found
"""  # noqa: S608
_BODIES_THAT_GO = f"""
    WITH found AS MATERIALIZED ({_bodies(kept("these.id", there=f"NOT {_goes('c.event_id')}"))})
    SELECT max(id), count(*) FILTER (WHERE NOT kept AND NOT {_goes("found.id")}) FROM found
"""  # noqa: S608


SO_FAR = (
    f"INSERT INTO meta (key, value) SELECT '{tables.PRUNED_DELIVERIES_UP_TO}', ? FROM meta"  # noqa: S608
    f" WHERE key = '{tables.PRUNED_UP_TO}' ON CONFLICT (key) DO NOTHING"
)
"""An older relay did not write down which deliveries it had pruned: none that was newer than this."""


async def count(
    ask: Ask, now: datetime, retention: timedelta, bodies: timedelta, told: Callable[[Pruned], None] | None = None
) -> Pruned:
    """See LogReader.prunable. In short queries, between which others ask."""
    total, last = Pruned(), 0
    limit = (to_ms(now - retention), rows.first_id(now - retention))
    while last is not None:
        [(last, events, deliveries)] = await ask(_EVENTS_THAT_GO, (last, *limit, LOOKED_AT))
        total = total.plus(Pruned(events=events, deliveries=int(deliveries)))
        if told is not None:
            told(total)
    last = 0 if bodies < retention else None
    earlier = (to_ms(now - bodies), rows.first_id(now - bodies))
    while last is not None:
        [(last, number)] = await ask(_BODIES_THAT_GO, (last, *earlier, LOOKED_AT, *limit))
        total = total.plus(Pruned(bodies=number))
        if told is not None:
            told(total)
    return total
