"""A set-up moves over: all of a SQLite store into a PostgreSQL that holds nothing, while no relay runs on either.

All of it is one transaction: what is interrupted leaves nothing behind, and nobody sees half a store. It holds the lock
of those who make the tables, so that a relay that is started meanwhile waits. Rows go as they are, with their ids and
the store's number: every id that anybody knows stays valid. Of each row that is read a checksum is kept, and in the end
PostgreSQL is asked for the same of what it has stored: the row as JSON, as both sides write it alike, with the SHA-256
of what is bytes; 64 bits of the SHA-256 of that, summed up over the table.

Three things cannot stay as they are. PostgreSQL keeps no NUL in text (see `connection.Text`); what would then be the
same twice becomes one. It writes the key of a shape in its own way. And nothing is in anybody's hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import psycopg

from relay.clock import SystemClock
from relay.immutable import immutable
from relay.store import Unavailable, Unusable
from relay.stores._sql import shapes
from relay.stores.postgresql import schema
from relay.stores.postgresql.connection import SCHEMA, Connection, connect, explain, place
from relay.stores.sqlite import copying, opening
from relay.stores.sqlite.lock import lock
from relay.survey import CannotCopy, Progress

ORDER = ("meta", "known", "shape", "event", "mention", "body", "delivery", "attempt", "rejection", "seen")
"""Of the tables. A shape comes before what has it."""

_OURS = ("members", "schema")  # of `meta`: what a SQLite store does not have
_INSTEAD = {("delivery", "taken"): "0", ("shape", "key"): "CAST(id AS TEXT)"}
_UNCHECKED = {("shape", "key")}
_NUL, _PICTURE = "\0", "\u2400"
_NUL_IN_JSON = rb"\u0000"
_TOLD_EVERY = 1000  # rows

_KEYS = (
    "UPDATE shape SET key = json_build_array(route, source, type, event, model, stage, action)::text",
    "SELECT setval(pg_get_serial_sequence('shape', 'id'), greatest((SELECT max(id) FROM shape), 1))",
)
_TALLY = """
    INSERT INTO tally (route, slot, pending, held)
    SELECT route, 0, count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'held')
    FROM delivery WHERE state IN ('pending', 'held') GROUP BY route
"""
_COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped
"""
_INDEXES = """
    SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i
    WHERE i.indrelid = $1::regclass AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = i.indexrelid)
    ORDER BY 1
"""
_CHECK = """
    SELECT count(*), coalesce(sum(('x' || left(encode(digest, 'hex'), 16))::bit(64)::bigint), 0)
    FROM (SELECT sha256(convert_to(row_to_json(t)::text, 'UTF8')) AS digest FROM (SELECT {} FROM {} {}) t) d
"""
_WHO_LOCKS = """
    SELECT DISTINCT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.objid = $1 AND l.granted AND a.datname = current_database()
"""
_WAIT = 10.0  # seconds for one that was interrupted to be rolled back, before we say that it is in the way


@immutable
class Table:
    """One table, of which both sides have the same."""

    name: str
    rows: int
    checksum: str


@immutable
class Copied:
    """What is on PostgreSQL now."""

    source: str
    target: str
    """Without user and password."""
    tables: Sequence[Table]
    bad_bodies: int
    """Bodies that are not what was accepted: they were so in the source, and relay says so when it comes to them."""


def copy(source: Path, url: str, progress: Progress) -> Copied:
    """Copy the store in the file `source` to `url`, `postgresql://…`, and check what came there. The source stays as
    it is.

    Raises Locked where a relay runs on the source; Unusable where it is older or damaged, or the database is not to be
    used; CannotCopy where it is missing, or the database holds something; Unavailable where the database, or the file,
    cannot be used now. Then nothing has been changed.
    """
    if not source.exists():
        raise CannotCopy(f"there is no store at {source.resolve()}")
    path = opening.place(source)
    where = place(url)
    held = asyncio.run(lock(path, SystemClock(), 0.0))
    try:
        opening.ids_of(path)
        with _reading(path) as reading, _writing(url, where) as writing:
            _make(writing, where)
            move = _Move(reading, writing, progress)
            tables = move.run()
        return Copied(str(path), where, tables, move.bad_bodies)
    finally:
        held.release()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The source as it is at one moment, and whole."""
    with closing(opening.connect_to_look(path)) as connection:
        try:
            connection.execute("BEGIN")
            [said] = connection.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise Unusable(f"cannot copy the store {path}: it is damaged ({said}): restore a backup")
            if connection.execute("SELECT 1 FROM meta WHERE key = ?", (copying.MARK,)).fetchone():
                raise Unusable(
                    f"cannot copy the store {path}: it is a backup, which does not know what was sent after it was"
                    " made: start relay on it, look at what is held, and 'relay resume --all'"
                )
            yield connection
        except sqlite3.Error as error:
            raise opening.refusal(path, error, "copy") from error


@contextlib.contextmanager
def _writing(url: str, where: str) -> Iterator[Connection]:
    """The target, within the transaction."""
    try:
        with connect(url, "copy", first=True) as connection:
            # A process that was killed must not be in the way of the next try for long.
            with contextlib.suppress(psycopg.Error):  # before PostgreSQL 14, and where it does not run on Linux
                connection.execute("SET client_connection_check_interval = '2s'")
            for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
                connection.execute(f"SET {setting} = 0")
            with connection.transaction():
                yield connection
    except psycopg.OperationalError as error:
        raise Unavailable(f"cannot copy to {where}: {explain(error)}") from error
    except psycopg.Error as error:
        raise Unusable(f"cannot copy to {where}: {explain(error)}") from error


def _make(connection: Connection, where: str) -> None:
    """The tables, with nothing in them. Raises Unusable and CannotCopy."""
    until = time.monotonic() + _WAIT
    while connection.execute("SELECT pg_try_advisory_xact_lock($1)", [schema.LOCK]).fetchone() != (True,):
        if time.monotonic() > until:
            found = connection.execute(_WHO_LOCKS, [schema.LOCK]).fetchall()
            who = ", ".join(name for [name] in found) or "somebody"
            raise CannotCopy(f"cannot copy to {where}: {who} is making its tables: wait for it, or stop it")
        time.sleep(0.1)
    try:
        if schema.version(connection):
            _look_for_anything(connection, where)
        schema.migrate(connection)
    except Unusable as error:
        raise Unusable(f"cannot copy to {where}: {error}") from None


def _look_for_anything(connection: Connection, where: str) -> None:
    found = connection.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = $1::regnamespace", [SCHEMA]
    )
    tables = sorted((name for [name] in found if name != "meta"), key=lambda name: (name != "process", name))
    _refuse_rows(connection, tables, where)  # nobody is kept waiting by a lock who has something in them
    connection.execute("SET LOCAL lock_timeout = '10s'")
    connection.execute(f"LOCK TABLE {', '.join(tables)}")
    _refuse_rows(connection, tables, where)
    # What is written by COPY in the transaction that emptied a table needs no VACUUM.
    connection.execute(f"TRUNCATE {', '.join(tables)}")


def _refuse_rows(connection: Connection, tables: Sequence[str], where: str) -> None:
    for table in tables:
        if connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():  # noqa: S608 - its own names
            what = "relays run on it" if table == "process" else f"it holds a store already (there are rows in {table})"
            raise CannotCopy(
                f"cannot copy to {where}: {what}: name another database, or 'DROP SCHEMA {SCHEMA} CASCADE'"
                " if nobody needs it"
            )


class _Move:
    """One copying."""

    def __init__(self, source: sqlite3.Connection, target: Connection, progress: Progress) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._total = self._done = 0
        self._met: dict[tuple[Any, ...], int] = {}
        self._shapes: dict[int, int] = {}
        """Numbers that are not needed any more, and which stands in their place."""
        self.bad_bodies = 0

    def run(self) -> list[Table]:
        counts = {table: self._count(table) for table in ORDER}
        self._total = 3 * sum(counts.values())  # each row is copied, put into indexes, and checked
        made = [self._copy(table, counts[table]) for table in ORDER]
        for statement in (*_KEYS, _TALLY, *(f"ANALYZE {table}" for table in (*ORDER, "tally"))):
            self._target.execute(statement)
        return [self._checked(each, counts[each.name]) for each in made]

    def _count(self, table: str) -> int:
        [number] = self._source.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - as all that follow
        return int(number)

    def _tell(self, rows: int) -> None:
        self._done += rows
        self._progress(self._done, self._total)

    def _copy(self, table: str, count: int) -> _Read:
        columns = [str(row[1]) for row in self._source.execute(f"PRAGMA table_info({table})")]
        types: dict[str, str] = dict(self._target.execute(_COLUMNS, [table]).fetchall())
        made = _Read(table, columns, [types[column] for column in columns])
        if table == "meta":
            self._target.execute("DELETE FROM meta WHERE key <> ALL($1)", [list(_OURS)])
        indexes = self._target.execute(_INDEXES, [table]).fetchall()
        for name, _ in indexes:  # sorted once in the end: faster than kept in order meanwhile
            self._target.execute(f"DROP INDEX {name}")
        frozen = "" if table == "meta" else ", FREEZE"
        to = f"COPY {table} ({_names(columns)}) FROM STDIN (FORMAT BINARY{frozen})"
        before = self._done
        with self._target.cursor() as writing, writing.copy(to) as copying:
            copying.set_types(made.types)
            for row in self._rows(made):
                copying.write_row(row)
                if not made.rows % _TOLD_EVERY:
                    self._tell(_TOLD_EVERY)
        self._tell(before + count - self._done)
        for _, definition in indexes:
            self._target.execute(definition)
        self._tell(count)
        return made

    def _rows(self, made: _Read) -> Iterator[Sequence[Any]]:
        """The rows of a table as PostgreSQL takes them."""
        table = made.name
        said = ", ".join(_INSTEAD.get((table, column), f't."{column}"') for column in made.columns)
        if table == "body":
            said += ", (SELECT sha256 FROM event WHERE id = t.event_id)"
        shape = made.columns.index("shape") if "shape" in made.columns else None
        with closing(self._source.cursor()) as reading:
            for found in reading.execute(f"SELECT {said} FROM {table} t"):  # noqa: S608
                row: Sequence[Any] = found
                if table == "body":
                    *row, digest = found
                    self.bad_bodies += digest is not None and sha256(row[1]).digest() != digest
                if self._shapes and shape is not None:
                    row = (*row[:shape], self._shapes.get(row[shape], row[shape]), *row[shape + 1 :])
                text = made.text(row)
                if _NUL_IN_JSON in text:
                    kept = self._without_nul(made, row)
                    if kept is None:
                        made.joined += 1
                        continue
                    row, text = kept, made.text(kept)
                made.add(text)
                yield row

    def _without_nul(self, made: _Read, row: Sequence[Any]) -> Sequence[Any] | None:
        """The row as PostgreSQL can keep it; None where that is there already. Lanes and windows are JSON: they have no
        NUL, and stay apart."""
        was = dict(zip(made.columns, row, strict=True))
        now = {
            column: value.replace(_NUL, _PICTURE) if isinstance(value, str) else value for column, value in was.items()
        }
        if was == now:
            return row
        match made.name:
            case "mention" if self._other("event_id", "mention", now, ("entry_id", "event_id")) is not None:
                return None
            case "shape" if (number := self._other("id", "shape", now, shapes.COLUMNS)) is not None:
                self._shapes[row[0]] = number
                return None
        return list(now.values())

    def _other(self, number: str, table: str, row: dict[str, Any], key: Sequence[str]) -> int | None:
        """What has the same key, and was or will be copied."""
        values = tuple(row[column] for column in key)
        same = " AND ".join(f'"{column}" IS ?' for column in key)
        found = self._source.execute(f"SELECT {number} FROM {table} WHERE {same}", values).fetchone()  # noqa: S608
        if found is not None:
            return int(found[0])
        if (table, *values) in self._met:
            return self._met[table, *values]
        self._met[table, *values] = int(row[number])
        return None

    def _checked(self, made: _Read, count: int) -> Table:
        """Ask PostgreSQL for the same. Raises CannotCopy where it has something else."""
        checked = [
            f"encode(sha256({_names([column])}), 'hex') AS {_names([column])}" if kind == "bytea" else _names([column])
            for column, kind in zip(made.columns, made.types, strict=True)
            if (made.name, column) not in _UNCHECKED
        ]
        ours = f"WHERE key <> ALL('{{{', '.join(_OURS)}}}')" if made.name == "meta" else ""
        found = self._target.execute(_CHECK.format(", ".join(checked), made.name, ours)).fetchone()
        rows, checksum = (0, 0) if found is None else (int(found[0]), int(found[1]))
        self._tell(count)
        if (count - made.joined, made.rows, made.checksum) != (rows, rows, checksum):
            raise CannotCopy(
                f"what came to the table {made.name} is not what was sent: {rows} rows with the checksum"
                f" {_hex(checksum)} instead of {count - made.joined} with {_hex(made.checksum)}: nothing was copied"
            )
        return Table(made.name, rows, _hex(checksum))


class _Read:
    """What was read of a table."""

    def __init__(self, name: str, columns: Sequence[str], types: Sequence[str]) -> None:
        self.name = name
        self.columns = columns
        self.types = types
        self.rows = self.checksum = 0
        self.joined = 0
        """Rows that are the same as another one, for PostgreSQL."""
        self._bytes = [number for number, kind in enumerate(types) if kind == "bytea"]
        self._unchecked = [column for column in columns if (name, column) in _UNCHECKED]

    def text(self, row: Sequence[Any]) -> bytes:
        """As `row_to_json` writes it."""
        shown = list(row)
        for number in self._bytes:
            if shown[number] is not None:
                shown[number] = sha256(shown[number]).hexdigest()
        named = dict(zip(self.columns, shown, strict=True))
        for column in self._unchecked:
            del named[column]
        return orjson.dumps(named)

    def add(self, text: bytes) -> None:
        self.rows += 1
        self.checksum += int.from_bytes(sha256(text).digest()[:8], "big", signed=True)


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _hex(checksum: int) -> str:
    return f"{checksum % (1 << 64):016x}"
