"""What transactions change of what `/logs` shows, for those who follow it.

While somebody follows, triggers of the writing connection note which rows a transaction touches, whoever touches them
and why; after the commit the rows are read as they are now. While nobody does, there are no triggers, and nothing of
this costs anything.
"""

from __future__ import annotations

import contextlib
import sqlite3

from relay.stores._sql import rows
from relay.stores._sql.changes import MOST, Changed

# Not OR IGNORE: what the statement says that fires a trigger, such as OR ROLLBACK, holds in the trigger as well.
_NOTE = "INSERT INTO changed SELECT new.id WHERE NOT EXISTS (SELECT 1 FROM changed WHERE id = new.id)"
_CHANGING = "UPDATE OF state, due, attempts, error_code, merged_into"
_FOLLOW = (
    "CREATE TEMP TABLE changed (id INTEGER PRIMARY KEY)",  # ids are unique over all kinds
    f"CREATE TEMP TRIGGER tell_born AFTER INSERT ON main.delivery BEGIN {_NOTE}; END",
    f"CREATE TEMP TRIGGER tell_changed AFTER {_CHANGING} ON main.delivery BEGIN {_NOTE}; END",
    f"CREATE TEMP TRIGGER tell_unmatched AFTER INSERT ON main.event WHEN new.matched = 0 BEGIN {_NOTE}; END",
    f"CREATE TEMP TRIGGER tell_rejected AFTER INSERT ON main.rejection BEGIN {_NOTE}; END",
)
_UNFOLLOW = (
    "DROP TRIGGER IF EXISTS temp.tell_born",
    "DROP TRIGGER IF EXISTS temp.tell_changed",
    "DROP TRIGGER IF EXISTS temp.tell_unmatched",
    "DROP TRIGGER IF EXISTS temp.tell_rejected",
    "DROP TABLE IF EXISTS temp.changed",
)
# Of an event of several changes, the entries that it is about: filters ask for them.
_ENTRIES = (
    "CASE WHEN e.changes IS NULL THEN NULL"
    " ELSE (SELECT json_group_array(entry_id) FROM mention WHERE event_id = e.id) END"
)
_DELIVERIES = (
    f"SELECT {rows.ITEM_COLUMNS}, {_ENTRIES} FROM temp.changed c CROSS JOIN delivery d ON d.id = c.id"  # noqa: S608
    f" JOIN event e ON e.id = d.event_id ORDER BY d.id LIMIT {MOST}"
)
_UNMATCHED = (
    f"SELECT {rows.UNMATCHED_COLUMNS}, {_ENTRIES} FROM temp.changed c CROSS JOIN event e ON e.id = c.id"  # noqa: S608
    f" ORDER BY e.id LIMIT {MOST}"
)
_REJECTED = (
    f"SELECT {rows.REJECTED_COLUMNS} FROM rejection WHERE id IN (SELECT id FROM temp.changed)"  # noqa: S608
    f" ORDER BY id LIMIT {MOST}"
)


def follow(connection: sqlite3.Connection) -> None:
    """From now on changes are noted."""
    unfollow(connection)
    for statement in _FOLLOW:
        connection.execute(statement)


def unfollow(connection: sqlite3.Connection) -> None:
    """No longer."""
    for statement in _UNFOLLOW:
        connection.execute(statement)


def collect(connection: sqlite3.Connection) -> Changed:
    """What was noted since the last time. Never fails: what it is about is committed, whoever hears of it or not."""
    try:
        if connection.execute("SELECT 1 FROM temp.changed LIMIT 1").fetchone() is None:
            return Changed()
        deliveries, unmatched, rejected = (
            connection.execute(query).fetchall() for query in (_DELIVERIES, _UNMATCHED, _REJECTED)
        )
        changed = Changed(deliveries, unmatched, rejected)
        connection.execute("DELETE FROM temp.changed")
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):  # what cannot be read is not to be tried for ever
            connection.execute("DELETE FROM temp.changed")
        return Changed(more=True)
    return changed
