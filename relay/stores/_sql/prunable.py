"""What of a store is past its time: by which rule it goes. Each engine's `pruning` removes it.

An event goes when all its deliveries have ended and the last of them did so before the limit: what was merged into
another delivery ends with that one. Its deliveries and their attempts go with it. When all that are old enough are
gone, the bodies of those that stay and ended before another limit follow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Ask = Callable[[str, Sequence[Any]], Awaitable[list[Any]]]

LOOKED_AT = 1000  # events, at once


def kept(event: str, limit: str = "?2") -> str:
    """Of an event: whether something of it is unfinished, or ended after the limit."""
    return f"""
        EXISTS (
            SELECT 1 FROM delivery d INDEXED BY delivery_event
                LEFT JOIN delivery c ON c.id = d.merged_into
            WHERE d.event_id = {event} AND (
                coalesce(c.state, d.state) IN ('pending', 'held')
                OR coalesce(c.updated_at, d.updated_at) >= {limit}
            )
        )
    """  # noqa: S608 - our own words


# The next events after ?1, and events with bodies, older than ?3: what is kept, and the sizes of their bodies.
EVENTS = f"""
    SELECT these.id, {kept("these.id")} AS kept, these.size FROM (
        SELECT id, size FROM event WHERE id > ?1 AND id < ?3 ORDER BY id LIMIT ?4
    ) these ORDER BY these.id
"""  # noqa: S608
BODIES = f"""
    SELECT these.id, {kept("these.id")} AS kept, event.size FROM (
        SELECT event_id AS id FROM body WHERE event_id > ?1 AND event_id < ?3 ORDER BY event_id LIMIT ?4
    ) these JOIN event ON event.id = these.id ORDER BY these.id
"""  # noqa: S608
