"""Words about the tables that more than one module must say alike. The tables are made by each store's `schema`.

    event      what was accepted, with the description columns that `/logs` filters on
    body       its bytes, apart from the rows that are scanned; the checksum lies with the event
    delivery   one event owed to one route: the queue, and afterwards its history
    attempt    what was sent and what came back
    rejection  requests that were refused, the last 1,000 per source
    shape      what deliveries have in common that `/logs` filters on, each combination once; few, so that one index
               over (shape, id) serves every such filter and every combination of them (`shapes`)
    mention    entries of events that are about several
    seen       by what repeated requests are known, for as long as they may come
    known      what outlives restarts of routes and sources
    meta       the store's own number, how much has been pruned, and up to where repeats were moved

Ids are those of `relay.ids`: they grow with time, and a row's creation time is in its id. Times are milliseconds since
1970. But for `seen` there is no random key, and the queue is carried by partial indexes that hold only what is waiting.
"""

from __future__ import annotations

NAMES = frozenset({"meta", "event", "body", "delivery", "attempt", "rejection", "seen", "known", "shape", "mention"})

UNFINISHED_LANE = "lane IS NOT NULL AND (state = 'pending' OR state = 'held')"
"""What the index of lanes holds: queries must say it in these words to use it."""


def routes_with(state: str) -> str:
    """A recursive table `found` of the routes that have anything in a state that waits, and of NULL: one look into the
    index for each, however many deliveries it has. Not by `min`: for that PostgreSQL reads all of the index where it
    believes that hardly anything waits, as hardly anything did when it last looked at the table as a whole."""
    return f"""
        found(route) AS (
            SELECT (SELECT route FROM delivery WHERE state = '{state}' ORDER BY route LIMIT 1)
            UNION ALL
            SELECT (SELECT route FROM delivery WHERE state = '{state}' AND route > found.route ORDER BY route LIMIT 1)
            FROM found WHERE found.route IS NOT NULL
        )
    """  # noqa: S608 - our own words


ASIDE = "state = 'failed' OR state = 'cancelled' OR state = 'merged'"
"""What the index of those that were not delivered holds."""

PRUNED_UP_TO = "pruned_up_to"
"""In `meta`: the newest event that was pruned. Of older ones it is not known any more what came after them."""

REPEATS_MOVED = "repeats_moved"
"""In `meta`: how far it was seen to by what repeats are known that the clock was set back (`setback`)."""

PRUNED_DELIVERIES_UP_TO = "pruned_deliveries_up_to"
"""In `meta`: the newest delivery that was pruned. No newer one may be missing."""

MOST_SHAPES = 4096
"""Past these, deliveries have shape 0: names that senders make up (a title as an event's name) must not grow a table
that every search reads."""

REJECTIONS_KEPT = 1000
"""Of each source."""
