"""The tables, their versions, and how an older file becomes today's.

What the tables mean says `stores/_sql/tables`. Keys grow with time, so that tables and indexes are appended to, and
each index costs every event some microseconds: the queue is carried by partial ones that hold only what is waiting.
Foreign keys are named for the reader and for `PRAGMA foreign_key_check`, but not enforced at each insert: one writer
inserts an event and its deliveries in one transaction, in order. What a delivery was merged into may have been pruned
before it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from relay.ids import draw_store
from relay.store import Unusable
from relay.stores._sql import tables

APPLICATION_ID = 0x72656C79  # "rely", in the file's header: tells relay's files from other SQLite files

_SHAPE = (
    "json_array({delivery}.route, {event}.source, {event}.type, {event}.event, {event}.model, {event}.stage,"
    " {event}.action)"
)

_UNMATCHED_SHAPE = "json_array('', event.source, event.type, event.event, event.model, event.stage, event.action)"

Migration = Sequence[str]

# One entry per version, forward only; what is released is never edited. Entry n makes version n + 1 of version n.
MIGRATIONS: tuple[Migration, ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
        """
        CREATE TABLE event (
            id INTEGER PRIMARY KEY,
            source TEXT NOT NULL,
            type TEXT NOT NULL,
            event TEXT,
            received_at INTEGER NOT NULL,
            occurred_at INTEGER,
            environment TEXT,
            branch TEXT,
            locale TEXT,
            model TEXT,
            stage TEXT,
            action TEXT,
            entry_id TEXT,
            changes TEXT,               -- JSON; NULL when the one change is what the columns say
            extra TEXT,                 -- JSON; NULL when there is nothing
            headers TEXT NOT NULL,      -- JSON
            sha256 BLOB NOT NULL,
            size INTEGER NOT NULL,
            matched INTEGER NOT NULL    -- how many deliveries it was owed when it was accepted
        ) STRICT
        """,
        "CREATE INDEX event_unmatched ON event (id) WHERE matched = 0",
        "CREATE TABLE body (event_id INTEGER PRIMARY KEY REFERENCES event, content BLOB NOT NULL) STRICT",
        """
        CREATE TABLE delivery (
            id INTEGER PRIMARY KEY,
            event_id INTEGER NOT NULL REFERENCES event,
            route TEXT NOT NULL,
            state TEXT NOT NULL DEFAULT 'pending'
                -- spelt out: for IN, SQLite would build its list anew for every row, at 6 us each
                CHECK (state = 'pending' OR state = 'delivered' OR state = 'failed' OR state = 'held'
                    OR state = 'merged' OR state = 'cancelled'),
            held_reason TEXT CHECK (held_reason = 'removed' OR held_reason = 'disabled' OR held_reason = 'paused'),
            held_at INTEGER,            -- max_age stands still from here
            due INTEGER NOT NULL,
            first_due INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            tries INTEGER NOT NULL,
            "trigger" TEXT NOT NULL,    -- of the next attempt
            code INTEGER,               -- this and the next three are the last attempt's
            error_code TEXT,
            error_message TEXT,
            duration_ms INTEGER,
            merged_into INTEGER REFERENCES delivery,
            updated_at INTEGER NOT NULL,
            CHECK ((state = 'held') = (held_reason IS NOT NULL)),
            CHECK ((state = 'held') = (held_at IS NOT NULL))
        ) STRICT
        """,
        "CREATE INDEX delivery_pending ON delivery (route, due, id) WHERE state = 'pending'",
        "CREATE INDEX delivery_held ON delivery (route, held_reason) WHERE state = 'held'",
        "CREATE INDEX delivery_event ON delivery (event_id)",
        # Not WITHOUT ROWID: there a row past 1,000 bytes, as many are with their headers, takes a page of its own.
        """
        CREATE TABLE attempt (
            delivery_id INTEGER NOT NULL REFERENCES delivery,
            n INTEGER NOT NULL,
            "trigger" TEXT NOT NULL,
            started_at INTEGER NOT NULL,
            duration_ms INTEGER NOT NULL,
            method TEXT,                -- NULL when no request could be made
            url TEXT,
            request_headers TEXT,
            status INTEGER,             -- NULL when no response came
            response_headers TEXT,
            response_body BLOB,
            truncated INTEGER,
            error_code TEXT,
            error_message TEXT,
            PRIMARY KEY (delivery_id, n)
        ) STRICT
        """,
        """
        CREATE TABLE rejection (
            id INTEGER PRIMARY KEY,
            source TEXT NOT NULL,
            at INTEGER NOT NULL,
            status INTEGER NOT NULL,
            reason TEXT NOT NULL,
            client TEXT NOT NULL,
            headers TEXT NOT NULL
        ) STRICT
        """,
        "CREATE INDEX rejection_source ON rejection (source)",
    ),
    # 2: lanes, windows, repeats, and what is known of routes.
    (
        """
        CREATE TABLE delivery_2 (
            id INTEGER PRIMARY KEY,
            event_id INTEGER NOT NULL REFERENCES event,
            route TEXT NOT NULL,
            state TEXT NOT NULL DEFAULT 'pending'
                CHECK (state = 'pending' OR state = 'delivered' OR state = 'failed' OR state = 'held'
                    OR state = 'merged' OR state = 'cancelled'),
            held_reason TEXT CHECK (held_reason = 'removed' OR held_reason = 'disabled' OR held_reason = 'paused'
                OR held_reason = 'hand'),
            held_at INTEGER,
            due INTEGER NOT NULL,
            first_due INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            tries INTEGER NOT NULL,
            "trigger" TEXT NOT NULL,
            retried INTEGER NOT NULL DEFAULT 0,   -- 1: waits for another try, and leaves slots to first attempts
            lane TEXT,                            -- what keeps its order with others of the same; NULL: nothing
            blocked INTEGER NOT NULL DEFAULT 0,   -- 1: another one of its lane comes first
            taken INTEGER NOT NULL DEFAULT 0,     -- 1: under order latest, being sent: nothing may take it up
            "window" TEXT,                        -- of a carrier: what it collects
            open INTEGER NOT NULL DEFAULT 0,      -- 1: it still takes events
            events INTEGER NOT NULL DEFAULT 1,    -- of a carrier: how many it has
            bytes INTEGER NOT NULL DEFAULT 0,     -- of a carrier: their bodies
            code INTEGER,
            error_code TEXT,
            error_message TEXT,
            duration_ms INTEGER,
            merged_into INTEGER REFERENCES delivery,
            updated_at INTEGER NOT NULL,
            CHECK ((state = 'held') = (held_reason IS NOT NULL)),
            CHECK ((state = 'held') = (held_at IS NOT NULL)),
            CHECK ((state = 'merged') = (merged_into IS NOT NULL))
        ) STRICT
        """,
        """
        INSERT INTO delivery_2 (id, event_id, route, state, held_reason, held_at, due, first_due, attempts, tries,
            "trigger", retried, code, error_code, error_message, duration_ms, merged_into, updated_at)
        SELECT id, event_id, route, state, held_reason, held_at, due, first_due, attempts, tries,
            "trigger", "trigger" = 'retry', code, error_code, error_message, duration_ms, merged_into, updated_at
        FROM delivery
        """,
        "DROP TABLE delivery",
        "ALTER TABLE delivery_2 RENAME TO delivery",
        "CREATE INDEX delivery_pending ON delivery (route, blocked, retried, due, id) WHERE state = 'pending'",
        # Those that wait for others of their lane, or are first in theirs.
        f"CREATE INDEX delivery_lane ON delivery (route, lane, blocked, id) WHERE {tables.UNFINISHED_LANE}",
        "CREATE INDEX delivery_told ON delivery (route, lane, id) WHERE lane IS NOT NULL AND state = 'delivered'",
        'CREATE UNIQUE INDEX delivery_window ON delivery (route, "window") WHERE open = 1',
        "CREATE INDEX delivery_held ON delivery (route, held_reason) WHERE state = 'held'",
        "CREATE INDEX delivery_hand ON delivery (id) WHERE held_reason = 'hand'",
        "CREATE INDEX delivery_event ON delivery (event_id)",
        "CREATE INDEX delivery_merged ON delivery (merged_into) WHERE merged_into IS NOT NULL",
        "CREATE INDEX delivery_taken ON delivery (id) WHERE taken = 1",
        # Requests that may be repeated. Small, for it is emptied as windows end, so that random keys cost little.
        """
        CREATE TABLE seen (
            key BLOB PRIMARY KEY,
            value BLOB NOT NULL,
            event_id INTEGER NOT NULL REFERENCES event,
            until INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX seen_until ON seen (until)",
        """
        CREATE TABLE known (
            kind TEXT NOT NULL,         -- route, source, order
            name TEXT NOT NULL,
            data TEXT NOT NULL,         -- JSON
            PRIMARY KEY (kind, name)
        ) STRICT, WITHOUT ROWID
        """,
    ),
    # 3: what `/logs` filters on lies with the deliveries.
    (
        """
        CREATE TABLE shape (
            id INTEGER PRIMARY KEY,
            key TEXT NOT NULL UNIQUE,   -- all that follows, as a JSON array
            route TEXT NOT NULL,
            source TEXT NOT NULL,
            type TEXT NOT NULL,
            event TEXT,
            model TEXT,
            stage TEXT,
            action TEXT
        ) STRICT
        """,
        f"""
        INSERT INTO shape (key, route, source, type, event, model, stage, action)
        SELECT DISTINCT {_SHAPE.format(delivery="d", event="e")},
            d.route, e.source, e.type, e.event, e.model, e.stage, e.action
        FROM delivery d JOIN event e ON e.id = d.event_id LIMIT {tables.MOST_SHAPES}
        """,  # noqa: S608 - our own words
        "ALTER TABLE delivery ADD COLUMN shape INTEGER NOT NULL DEFAULT 0",  # 0: one of many others
        "ALTER TABLE delivery ADD COLUMN entry_id TEXT",
        f"""
        UPDATE delivery SET (shape, entry_id) = (
            SELECT coalesce(s.id, 0), e.entry_id FROM event e
            LEFT JOIN shape s ON s.key = {_SHAPE.format(delivery="delivery", event="e")}
            WHERE e.id = delivery.event_id
        )
        """,  # noqa: S608
        # Of events that no route wanted: they have no delivery that says it.
        "ALTER TABLE event ADD COLUMN shape INTEGER",
        f"""
        INSERT OR IGNORE INTO shape (key, route, source, type, event, model, stage, action)
        SELECT DISTINCT {_UNMATCHED_SHAPE}, '', source, type, event, model, stage, action
        FROM event WHERE matched = 0 LIMIT {tables.MOST_SHAPES}
        """,  # noqa: S608
        f"""
        UPDATE event SET shape = coalesce((SELECT id FROM shape WHERE key = {_UNMATCHED_SHAPE}), 0) WHERE matched = 0
        """,  # noqa: S608
        "DROP INDEX event_unmatched",
        "CREATE INDEX event_unmatched ON event (shape, id) WHERE matched = 0",
        "CREATE INDEX event_unmatched_id ON event (id) WHERE matched = 0",
        "CREATE INDEX delivery_shape ON delivery (shape, id)",
        "CREATE INDEX delivery_entry ON delivery (entry_id, id) WHERE entry_id IS NOT NULL",
        "CREATE INDEX delivery_code ON delivery (code, id) WHERE code IS NOT NULL",
        # Those that are rare among the finished ones.
        f"CREATE INDEX delivery_aside ON delivery (state, id) WHERE {tables.ASIDE}",
        "CREATE INDEX event_unmatched_entry ON event (entry_id, id) WHERE matched = 0",
        """
        CREATE TABLE mention (
            entry_id TEXT NOT NULL,
            event_id INTEGER NOT NULL REFERENCES event,
            PRIMARY KEY (entry_id, event_id)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX mention_event ON mention (event_id)",
        """
        INSERT OR IGNORE INTO mention (entry_id, event_id)
        SELECT change.value ->> 'entry_id', e.id FROM event e, json_each(e.changes) change
        WHERE e.changes IS NOT NULL AND e.entry_id IS NULL AND change.value ->> 'entry_id' IS NOT NULL
        """,
    ),
)

VERSION = len(MIGRATIONS)


def version(connection: sqlite3.Connection) -> int:
    """The schema's version in a file; 0 for one with nothing in it. Raises Unusable for any file not relay's."""
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    number: int = connection.execute("PRAGMA user_version").fetchone()[0]
    held = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not (application or number or held):
        return 0
    if application != APPLICATION_ID:
        raise Unusable("it is a SQLite file, but not one of relay's: name another file in store.url")
    if number > VERSION:
        raise Unusable(
            f"it was written by a newer relay (schema {number}, this relay knows up to {VERSION}): "
            "run that relay, or restore a backup from before the upgrade"
        )
    if number == VERSION and not held >= tables.NAMES:
        missing = ", ".join(sorted(tables.NAMES - held))
        raise Unusable(f"tables are missing ({missing}): restore a backup")
    return number


def create(connection: sqlite3.Connection) -> None:
    """All tables, in an empty file."""
    migrate(connection, 0)


def migrate(connection: sqlite3.Connection, held: int) -> None:
    """Bring a file from version `held` to the last one, each step in a transaction of its own."""
    # What is sorted meanwhile may be larger than memory.
    connection.execute("PRAGMA temp_store = FILE")
    try:
        _migrate(connection, held)
    finally:
        connection.execute("PRAGMA temp_store = MEMORY")


def _migrate(connection: sqlite3.Connection, held: int) -> None:
    for number, statements in enumerate(MIGRATIONS[held:], start=held + 1):
        ours = [f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {number}"]
        if number == 1:
            ours.append(f"INSERT INTO meta VALUES ('store', '{draw_store()}')")  # noqa: S608 - our own number
        with_transaction(connection, [*map(_said, statements), *ours])


def _said(statement: str) -> str:
    """A statement as this SQLite understands it: 3.37, which Ubuntu 22.04 has, has no `->>` yet."""
    if sqlite3.sqlite_version_info >= (3, 38):
        return statement
    return statement.replace("change.value ->> 'entry_id'", "json_extract(change.value, '$.entry_id')")


def with_transaction(connection: sqlite3.Connection, statements: Sequence[str]) -> None:
    """Run the statements wholly or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def store_number(connection: sqlite3.Connection) -> int:
    """The store's 59 bits of every ULID."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'store'").fetchone()
    if row is None:
        raise Unusable("the store's number is missing: restore a backup")
    return int(row[0])


def last_id(connection: sqlite3.Connection) -> int:
    """The highest id in the tables; 0 in an empty store."""
    row = connection.execute(
        "SELECT max((SELECT ifnull(max(id), 0) FROM event), (SELECT ifnull(max(id), 0) FROM delivery),"
        " (SELECT ifnull(max(id), 0) FROM rejection))"
    ).fetchone()
    return int(row[0])
