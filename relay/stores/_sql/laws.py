"""What must always hold in a store on SQL, and the queries for what breaks it. They read whole tables."""

from __future__ import annotations

from typing import NamedTuple

from relay.ids import DELIVERY, EVENT
from relay.stores._sql import tables


class Law(NamedTuple):
    """What must hold, and the query for the ids of what breaks it."""

    name: str
    broken: str
    prefix: str
    sql: str


_NEWEST = (1 << 63) - 1  # of all ids that there can be
# A carrier may be pruned before what was merged into it: something else of that event may have ended later. One that is
# newer than all that was pruned was not. Where an older relay has pruned and none since, nobody knows how far.
_PRUNED_UP_TO = f"""
    coalesce(
        (SELECT CAST(value AS BIGINT) FROM meta WHERE key = '{tables.PRUNED_DELIVERIES_UP_TO}'),
        (SELECT {_NEWEST} FROM meta WHERE key = '{tables.PRUNED_UP_TO}'),
        0
    )
"""  # noqa: S608 - our own words
LAWS = (
    Law(
        "conservation",
        "events whose deliveries are not as many as they were owed",
        EVENT,
        "SELECT e.id FROM event e LEFT JOIN (SELECT event_id, count(*) AS found FROM delivery GROUP BY event_id) d"
        " ON d.event_id = e.id WHERE e.matched <> coalesce(d.found, 0)",
    ),
    Law(
        "events",
        "deliveries whose event is not there",
        DELIVERY,
        "SELECT d.id FROM delivery d WHERE NOT EXISTS (SELECT 1 FROM event e WHERE e.id = d.event_id)",
    ),
    Law(
        "merged",
        "merged deliveries whose carrier is not there",
        DELIVERY,
        "SELECT d.id FROM delivery d WHERE d.merged_into IS NOT NULL"  # noqa: S608 - our own words
        " AND NOT EXISTS (SELECT 1 FROM delivery c WHERE c.id = d.merged_into)"
        f" AND d.merged_into > {_PRUNED_UP_TO}",
    ),
    Law(
        "carriers",
        "deliveries merged into themselves or into merged ones",
        DELIVERY,
        "SELECT d.id FROM delivery d JOIN delivery c ON c.id = d.merged_into WHERE c.merged_into IS NOT NULL",
    ),
    Law(
        "bodies",
        "deliveries that wait or are held, and whose event's body is gone",
        DELIVERY,
        # What was forgotten has no headers either, and what a person retries may have been finished, and its body
        # removed, before: these fail by themselves.
        " UNION ALL ".join(
            "SELECT d.id FROM delivery d JOIN event e ON e.id = d.event_id"  # noqa: S608 - our own words
            f" WHERE d.state = '{state}' AND d.\"trigger\" <> 'manual' AND e.headers <> '[]'"
            " AND NOT EXISTS (SELECT 1 FROM body b WHERE b.event_id = d.event_id)"
            for state in ("pending", "held")
        ),
    ),
    Law(
        "windows",
        "open windows that have no due time, or whose carrier neither waits nor is held",
        DELIVERY,
        "SELECT id FROM delivery WHERE open = 1"
        " AND (due <= 0 OR \"window\" IS NULL OR state NOT IN ('pending', 'held'))",
    ),
    Law(
        "lanes",
        "lanes in which every delivery waits for another one",
        DELIVERY,
        "SELECT min(id) FROM delivery INDEXED BY delivery_lane"  # noqa: S608
        f" WHERE {tables.UNFINISHED_LANE} GROUP BY route, lane HAVING min(blocked) = 1",
    ),
)
CHECKSUMS = "checksums"
AT_ONCE = 200  # bodies that one statement reads
UP_TO = "SELECT max(event_id) FROM (SELECT event_id FROM body WHERE event_id > ? ORDER BY event_id LIMIT ?) found"
ROTTEN = """
    SELECT e.id FROM body b JOIN event e ON e.id = b.event_id
    WHERE b.event_id > ? AND b.event_id <= ? AND sha256(b.content) <> e.sha256
"""
OVERDUE = """
    SELECT route, count(*), min(due) FROM delivery INDEXED BY delivery_pending
    WHERE state = 'pending' AND blocked = 0 AND due < ? GROUP BY route
"""
