"""The tables, their versions, and how an older schema becomes today's, while relays may run on it.

The columns mean what `stores/_sql/tables` says, as in SQLite. Beside them there are:

    process    the relays that live: who has not said so for longer than its lease is dead, and its row is removed
    tally      how many deliveries are pending and held, by route; each relay counts in rows of its own
    errand     what one of them does for all, and until when

A delivery's `owner` is the relay that has it in hand. It is no reference: an owner without a row in `process` is dead.
Text is compared byte by byte (COLLATE "C"), so that ids and beginnings are found by the indexes.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from relay.ids import draw_store
from relay.store import Unusable
from relay.stores._sql import tables
from relay.stores.postgresql.connection import SCHEMA, Connection

LOCK = 0x72656C79  # "rely"
"""Of the advisory lock of who makes or changes the tables."""

_STATES = "'pending', 'delivered', 'failed', 'held', 'merged', 'cancelled'"

# One entry per version, forward only; what is released is never edited.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        'CREATE TABLE meta (key TEXT COLLATE "C" PRIMARY KEY, value TEXT NOT NULL)',
        """
        CREATE TABLE event (
            id BIGINT PRIMARY KEY,
            source TEXT COLLATE "C" NOT NULL,
            type TEXT COLLATE "C" NOT NULL,
            event TEXT COLLATE "C",
            received_at BIGINT NOT NULL,
            occurred_at BIGINT,
            environment TEXT COLLATE "C",
            branch TEXT COLLATE "C",
            locale TEXT COLLATE "C",
            model TEXT COLLATE "C",
            stage TEXT COLLATE "C",
            action TEXT COLLATE "C",
            entry_id TEXT COLLATE "C",
            changes TEXT,               -- JSON; NULL when the one change is what the columns say
            extra TEXT,                 -- JSON; NULL when there is nothing
            headers TEXT NOT NULL,      -- JSON
            sha256 BYTEA NOT NULL,
            size BIGINT NOT NULL,
            matched BIGINT NOT NULL,
            shape BIGINT                -- of events that no route wanted
        )
        """,
        "CREATE TABLE body (event_id BIGINT PRIMARY KEY, content BYTEA NOT NULL)",
        # What was sent once is read once: nothing is gained by packing it.
        "ALTER TABLE body ALTER COLUMN content SET STORAGE EXTERNAL",
        f"""
        CREATE TABLE delivery (
            id BIGINT PRIMARY KEY,
            event_id BIGINT NOT NULL,
            route TEXT COLLATE "C" NOT NULL,
            state TEXT COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (state IN ({_STATES})),
            held_reason TEXT COLLATE "C" CHECK (held_reason IN ('removed', 'disabled', 'paused', 'hand')),
            held_at BIGINT,
            due BIGINT NOT NULL,
            first_due BIGINT NOT NULL,
            attempts BIGINT NOT NULL,
            tries BIGINT NOT NULL,
            "trigger" TEXT COLLATE "C" NOT NULL,
            retried INTEGER NOT NULL DEFAULT 0,
            lane TEXT COLLATE "C",
            blocked INTEGER NOT NULL DEFAULT 0,
            taken INTEGER NOT NULL DEFAULT 0,
            "window" TEXT COLLATE "C",
            open INTEGER NOT NULL DEFAULT 0,
            events BIGINT NOT NULL DEFAULT 1,
            bytes BIGINT NOT NULL DEFAULT 0,
            code BIGINT,
            error_code TEXT COLLATE "C",
            error_message TEXT,
            duration_ms BIGINT,
            merged_into BIGINT,
            updated_at BIGINT NOT NULL,
            shape BIGINT NOT NULL DEFAULT 0,
            entry_id TEXT COLLATE "C",
            owner BIGINT,               -- the process that has it in hand
            CHECK ((state = 'held') = (held_reason IS NOT NULL)),
            CHECK ((state = 'held') = (held_at IS NOT NULL)),
            CHECK ((state = 'merged') = (merged_into IS NOT NULL))
        )
        """,
        "CREATE INDEX delivery_pending ON delivery (route, blocked, retried, due, id) WHERE state = 'pending'",
        f"CREATE INDEX delivery_lane ON delivery (route, lane, blocked, id) WHERE {tables.UNFINISHED_LANE}",
        "CREATE INDEX delivery_told ON delivery (route, lane, id) WHERE lane IS NOT NULL AND state = 'delivered'",
        'CREATE UNIQUE INDEX delivery_window ON delivery (route, "window") WHERE open = 1',
        "CREATE INDEX delivery_held ON delivery (route, held_reason, id) WHERE state = 'held'",
        "CREATE INDEX delivery_hand ON delivery (id) WHERE held_reason = 'hand'",
        "CREATE INDEX delivery_event ON delivery (event_id)",
        "CREATE INDEX delivery_taken ON delivery (owner) WHERE taken = 1",
        "CREATE INDEX delivery_merged ON delivery (merged_into) WHERE merged_into IS NOT NULL",
        "CREATE INDEX delivery_shape ON delivery (shape, id)",
        "CREATE INDEX delivery_entry ON delivery (entry_id, id) WHERE entry_id IS NOT NULL",
        "CREATE INDEX delivery_code ON delivery (code, id) WHERE code IS NOT NULL",
        f"CREATE INDEX delivery_aside ON delivery (state, id) WHERE {tables.ASIDE}",
        # Rows of `delivery` change a few times and then never: their dead versions must not wait for a fifth of the
        # table to be dead.
        "ALTER TABLE delivery SET (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02)",
        "CREATE INDEX event_unmatched ON event (shape, id) WHERE matched = 0",
        "CREATE INDEX event_unmatched_id ON event (id) WHERE matched = 0",
        "CREATE INDEX event_unmatched_entry ON event (entry_id, id) WHERE matched = 0",
        """
        CREATE TABLE attempt (
            delivery_id BIGINT NOT NULL,
            n BIGINT NOT NULL,
            "trigger" TEXT COLLATE "C" NOT NULL,
            started_at BIGINT NOT NULL,
            duration_ms BIGINT NOT NULL,
            method TEXT,
            url TEXT,
            request_headers TEXT,
            status BIGINT,
            response_headers TEXT,
            response_body BYTEA,
            truncated INTEGER,
            error_code TEXT,
            error_message TEXT,
            PRIMARY KEY (delivery_id, n)
        )
        """,
        """
        CREATE TABLE rejection (
            id BIGINT PRIMARY KEY,
            source TEXT COLLATE "C" NOT NULL,
            at BIGINT NOT NULL,
            status BIGINT NOT NULL,
            reason TEXT NOT NULL,
            client TEXT NOT NULL,
            headers TEXT NOT NULL
        )
        """,
        "CREATE INDEX rejection_source ON rejection (source, id)",
        """
        CREATE TABLE seen (
            key BYTEA PRIMARY KEY,
            value BYTEA NOT NULL,
            event_id BIGINT NOT NULL,
            until BIGINT NOT NULL
        )
        """,
        "CREATE INDEX seen_until ON seen (until)",
        "CREATE INDEX seen_event ON seen (event_id)",
        """
        CREATE TABLE known (
            kind TEXT COLLATE "C" NOT NULL,
            name TEXT COLLATE "C" NOT NULL,
            data TEXT NOT NULL,
            writer BIGINT NOT NULL DEFAULT 0,    -- the process that wrote it last,
            at BIGINT NOT NULL DEFAULT 0,        -- when, by the database's clock
            PRIMARY KEY (kind, name)
        )
        """,
        """
        CREATE TABLE shape (
            id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
            key TEXT COLLATE "C" NOT NULL UNIQUE,
            route TEXT COLLATE "C" NOT NULL,
            source TEXT COLLATE "C" NOT NULL,
            type TEXT COLLATE "C" NOT NULL,
            event TEXT COLLATE "C",
            model TEXT COLLATE "C",
            stage TEXT COLLATE "C",
            action TEXT COLLATE "C"
        )
        """,
        """
        CREATE TABLE mention (
            entry_id TEXT COLLATE "C" NOT NULL,
            event_id BIGINT NOT NULL,
            PRIMARY KEY (entry_id, event_id)
        )
        """,
        "CREATE INDEX mention_event ON mention (event_id)",
        """
        CREATE TABLE process (
            id BIGINT PRIMARY KEY,
            slot INTEGER NOT NULL UNIQUE,
            name TEXT NOT NULL,
            version TEXT NOT NULL,
            started_at BIGINT NOT NULL,
            expires TIMESTAMPTZ NOT NULL,
            routes TEXT NOT NULL DEFAULT '[]',   -- JSON: those that it sends for, or keeps paused or disabled
            following BOOLEAN NOT NULL DEFAULT FALSE,
            stale BIGINT NOT NULL DEFAULT 0      -- results that came too late to be recorded
        )
        """,
        """
        CREATE TABLE tally (
            route TEXT COLLATE "C" NOT NULL,
            slot INTEGER NOT NULL,
            pending BIGINT NOT NULL,
            held BIGINT NOT NULL,
            PRIMARY KEY (route, slot)
        ) WITH (fillfactor = 50)
        """,
        """
        CREATE TABLE errand (
            name TEXT COLLATE "C" PRIMARY KEY,
            owner BIGINT NOT NULL,
            until TIMESTAMPTZ NOT NULL
        )
        """,
    ),
    # JSON: of its routes those that it keeps disabled.
    ("ALTER TABLE process ADD COLUMN disabled TEXT NOT NULL DEFAULT '[]'",),
)

VERSION = len(MIGRATIONS)


def version(connection: Connection) -> int:
    """The schema's version in a database; 0 where there is none. Raises Unusable where it is not relay's, or newer."""
    there = connection.execute("SELECT to_regclass($1) IS NOT NULL", [f"{SCHEMA}.meta"]).fetchone()
    if there is None or not there[0]:
        held = connection.execute(
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1",
            [SCHEMA],
        ).fetchone()
        if held is not None and held[0]:
            raise Unusable(f"it has a schema '{SCHEMA}' that is not relay's: name another database in store.url")
        return 0
    found = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    if found is None:
        raise Unusable(f"it has a schema '{SCHEMA}' that is not relay's: name another database in store.url")
    number = int(found[0])
    if number > VERSION:
        raise Unusable(
            f"it was written by a newer relay (schema {number}, this relay knows up to {VERSION}): run that relay"
        )
    return number


def migrate(connection: Connection, on_migrate: Callable[[int, int], None] | None = None) -> None:
    """Bring a database up to today's version, or make the tables. Where several relays start at once, one does it and
    the others wait."""
    patience = connection.execute("SELECT current_setting('statement_timeout')").fetchone()
    connection.execute("SET statement_timeout = 0")  # also while another one is at it
    connection.execute("SELECT pg_advisory_lock($1)", [LOCK])
    try:
        held = version(connection)
        if held == VERSION:
            return
        if held and on_migrate is not None:
            on_migrate(held, VERSION)
        for number, statements in enumerate(MIGRATIONS[held:], start=held + 1):
            with connection.transaction():
                if number == 1:
                    _make_schema(connection)
                else:  # what waits for long for a dump that has read a table stops all who come after it
                    connection.execute("SET LOCAL lock_timeout = '2s'")
                for statement in statements:
                    connection.execute(statement)
                if number == 1:
                    made = [("store", str(draw_store())), ("members", "0"), ("schema", "1")]
                    for row in made:
                        connection.execute("INSERT INTO meta VALUES ($1, $2)", row)
                connection.execute("UPDATE meta SET value = $1 WHERE key = 'schema'", [str(number)])
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock($1)", [LOCK])
            connection.execute("SELECT set_config('statement_timeout', $1, false)", patience)


def _make_schema(connection: Connection) -> None:
    # Where somebody has made it for this user, who may make none: IF NOT EXISTS asks for that right first.
    if connection.execute("SELECT to_regnamespace($1) IS NOT NULL", [SCHEMA]).fetchone() == (True,):
        return
    try:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    except psycopg.errors.InsufficientPrivilege:
        raise Unusable(
            f"this user may not create a schema: 'CREATE SCHEMA {SCHEMA} AUTHORIZATION' this user, or grant CREATE on"
            " the database"
        ) from None


def store_number(connection: Connection) -> int:
    """The store's 59 bits of every ULID."""
    found = connection.execute("SELECT value FROM meta WHERE key = 'store'").fetchone()
    if found is None:
        raise Unusable("the store's number is missing")
    return int(found[0])


LAST_ID = (
    "SELECT greatest((SELECT max(id) FROM event), (SELECT max(id) FROM delivery), (SELECT max(id) FROM rejection))"
)


def last_id(connection: Connection) -> int:
    """The highest id in the tables; 0 in an empty store."""
    found = connection.execute(LAST_ID).fetchone()
    return 0 if found is None or found[0] is None else int(found[0])
