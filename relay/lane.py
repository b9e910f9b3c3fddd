"""Which deliveries must wait for which: those of one lane go out one after another, in order of arrival. Pure.

A lane is what an order groups by. Under `entry` and `latest` it is one entry of one source, in one environment, branch
and locale; what is about no single entry shares a lane of its source. Under `route` the whole route is one lane. The
store keeps each lane's order: only the first of what is unfinished in a lane is ever claimed.
"""

from __future__ import annotations

from enum import StrEnum

import orjson

from relay.event import Event


class Order(StrEnum):
    """What a route keeps in order."""

    NONE = "none"
    ENTRY = "entry"
    LATEST = "latest"
    ROUTE = "route"


class Supersedes(StrEnum):
    """What of a lane a new delivery takes up: what it takes up is not sent any more."""

    NOTHING = "nothing"
    STAGE = "stage"
    """What waits and is about the same stage."""
    ALL = "all"


def lane(order: Order, event: Event) -> str | None:
    """The lane of an event's delivery; None where nothing must wait. Compared exactly, as the store does."""
    match order:
        case Order.NONE:
            return None
        case Order.ROUTE:
            return ""
    what = event.description
    entry_id = what.common.entry_id
    if entry_id is None or len(what.changes) > 1:
        return orjson.dumps([event.source]).decode()
    parts = [event.source, what.environment, what.branch, what.locale, what.common.model, entry_id]
    return orjson.dumps(parts).decode()


def supersedes(order: Order, event: Event) -> Supersedes:
    """What a new delivery of an event takes up of its lane. What is about several things takes up nothing."""
    common = event.description.common
    if order is not Order.LATEST or common.entry_id is None or len(event.description.changes) > 1:
        return Supersedes.NOTHING
    # After a delete nothing that was said before is of interest, whatever its stage.
    return Supersedes.ALL if common.action == "delete" else Supersedes.STAGE
