"""No 200 before the fdatasync that covers it: each system call of a run of its own, as strace saw it."""

from __future__ import annotations

from bench.place import Goal, Place, Skipped, Table
from bench.process import needs
from tests.faults import test_sync_before_answer as sync


async def traced(place: Place) -> Table:
    """A thousand requests by eight connections."""
    needs("strace")
    if not sync.can_trace():
        raise Skipped("needs the right to trace")
    answered, unsynced = await sync.seen(place.folder)
    table = Table("Synced before it is answered")
    table.rows = [
        {"what": "answered with 200", "requests": len(answered)},
        {"what": "before its sync", "requests": len(unsynced)},
    ]
    table.goals = [
        Goal("requests that were answered", len(answered), sync.REQUESTS),
        Goal("requests answered before the sync that covers them", len(unsynced), 0, at_least=False),
    ]
    return table
