"""A database looked at as a whole: what is in it, and whether what must always hold does hold.

On a connection of its own that cannot write, beside running relays or without one. The queries read whole tables and
may take as long as they take; each is a statement by itself, so that it sees one state, and the server's vacuum is held
up no longer than that.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import quote

import psycopg

from relay.clock import from_ms, to_ms
from relay.ids import EVENT, Ids, moment_ms
from relay.store import Unavailable, Unusable
from relay.stores._sql import tables
from relay.stores._sql.laws import AT_ONCE, CHECKSUMS, LAWS, OVERDUE, ROTTEN, UP_TO, Law
from relay.stores.postgresql import schema
from relay.stores.postgresql.connection import SCHEMA, connect, explain, parameters, place, refusal
from relay.stores.postgresql.dialect import translated
from relay.survey import CannotCopy, Fault, Figures, Overdue, Progress

_EXAMPLES = 5
_TABLES = sorted({*tables.NAMES, "process", "tally", "errand"})
_SETTINGS = (
    "SELECT set_config('default_transaction_read_only', 'on', false), set_config('statement_timeout', '0', false),"
    " set_config('plan_cache_mode', 'force_custom_plan', false)"
)
_INVALID = """
    SELECT 'index ' || c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ? AND NOT (i.indisvalid AND i.indisready)
    ORDER BY 1
"""
# Where the extension is installed, and who asks may use it.
_AMCHECK = """
    SELECT p.oid::regproc::text FROM pg_proc p JOIN pg_extension e ON e.extname = 'amcheck'
        JOIN pg_depend d ON d.objid = p.oid AND d.refobjid = e.oid AND d.deptype = 'e'
    WHERE p.proname = 'bt_index_check' AND p.pronargs > 1 AND has_function_privilege(p.oid, 'EXECUTE') LIMIT 1
"""
_INDEXES = """
    SELECT i.indexrelid, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am a ON a.oid = c.relam
    WHERE n.nspname = ? AND i.indisvalid AND a.amname = 'btree' ORDER BY c.relname
"""
# Rows that name others which are not there. What is merged is a law of its own, and what is known of repeats may
# outlive its event.
_LOOSE = (
    ("attempt", "SELECT a.delivery_id FROM attempt a LEFT JOIN delivery d ON d.id = a.delivery_id WHERE d.id IS NULL"),
    ("body", "SELECT b.event_id FROM body b LEFT JOIN event e ON e.id = b.event_id WHERE e.id IS NULL"),
    ("mention", "SELECT m.event_id FROM mention m LEFT JOIN event e ON e.id = m.event_id WHERE e.id IS NULL"),
    (
        "delivery without a shape",
        "SELECT d.id FROM delivery d LEFT JOIN shape s ON s.id = d.shape WHERE s.id IS NULL AND d.shape <> 0",
    ),
)
_TALLIES = "tallies"
_TALLIED = """
    SELECT coalesce(t.route, d.route) FROM (
        SELECT route, sum(pending) AS pending, sum(held) AS held FROM tally GROUP BY route
    ) t FULL JOIN (
        SELECT route, count(*) FILTER (WHERE state = 'pending') AS pending,
            count(*) FILTER (WHERE state = 'held') AS held
        FROM delivery WHERE state = 'pending' OR state = 'held' GROUP BY route
    ) d ON d.route = t.route
    WHERE (coalesce(t.pending, 0), coalesce(t.held, 0)) <> (coalesce(d.pending, 0), coalesce(d.held, 0))
    ORDER BY 1
"""


class Survey:
    """See relay.survey.Surveyor for what each verb promises."""

    def __init__(self, url: str) -> None:
        self._url = url
        try:
            self._connection = connect(url, "survey", first=True)
        except psycopg.Error as error:
            raise refusal(f"{place(url)}: {explain(error)}", error) from error
        try:
            with self._reading():
                self._connection.execute(_SETTINGS)
                version = schema.version(self._connection)
                if version == 0:
                    raise Unusable(f"{place(url)}: there is no store of relay's in it yet")
                if version < schema.VERSION:
                    raise Unusable(f"{place(url)}: it was written by an older relay (schema {version}): start this one")
                self._ids = Ids(schema.store_number(self._connection))
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def figures(self, progress: Progress) -> Figures:
        total = len(_TABLES) + 1
        rows: dict[str, int] = {}
        for table in _TABLES:
            progress(len(rows), total)
            [[rows[table]]] = self._all(f"SELECT count(*) FROM {table}")  # noqa: S608 - our own tables
        progress(len(_TABLES), total)
        routes: dict[str, dict[str, int]] = {}
        for route, state, number in self._all("SELECT route, state, count(*) FROM delivery GROUP BY route, state"):
            routes.setdefault(route, {})[state] = number
        progress(total, total)
        [[oldest, newest]] = self._all("SELECT min(id), max(id) FROM event")
        [[size]] = self._all("SELECT pg_database_size(current_database())")
        return Figures(
            schema=schema.VERSION,
            rows=rows,
            routes=routes,
            size_bytes=size,
            # Of the server's log and disk nothing is known.
            log_bytes=None,
            unused_bytes=None,
            free_bytes=None,
            oldest=_moment(oldest),
            newest=_moment(newest),
            location=place(self._url),
        )

    def newest(self) -> datetime | None:
        with self._reading():
            return _moment(schema.last_id(self._connection) or None)

    def space(self) -> None:
        return None  # of the server's disk nothing is known

    def faults(self, thorough: bool, progress: Progress) -> list[Fault]:
        steps: list[Callable[[], Fault | None]] = [lambda: self._damage(thorough), self._loose_ends, self._tallied]
        steps += [lambda law=law: self._broken(law) for law in LAWS]  # type: ignore[misc]
        bodies = self._all("SELECT count(*) FROM body")[0][0] if thorough else 0
        total = len(steps) + -(-bodies // AT_ONCE)
        found: list[Fault | None] = []
        for number, step in enumerate(steps):
            progress(number, total)
            found.append(step())
        if thorough:
            found.append(self._rotten(lambda done: progress(min(total, len(steps) + done), total)))
        progress(total, total)
        return [fault for fault in found if fault is not None]

    @staticmethod
    def laws(thorough: bool) -> Sequence[str]:
        known = ("integrity", "references", _TALLIES, *(law.name for law in LAWS))
        return (*known, CHECKSUMS) if thorough else known

    def overdue(self, before: datetime) -> Mapping[str, Overdue]:
        return {route: Overdue(number, from_ms(due)) for route, number, due in self._all(OVERDUE, (to_ms(before),))}

    def states(self, kind: str) -> Mapping[str, Mapping[str, Any]]:
        found = self._all("SELECT name, data FROM known WHERE kind = ?", (kind,))
        return {name: json.loads(data) for name, data in found}

    def copy(self, to: Path, now: datetime, progress: Progress, *, replace: bool = False) -> NoReturn:
        said = parameters(self._url)
        user, host = quote(str(said.get("user", "")), safe=""), str(said.get("host") or "localhost")
        port = "" if "," in host else f":{said.get('port') or '5432'}"
        name = quote(str(said.get("dbname") or said.get("user") or ""), safe="")
        source = f"postgresql://{user}@{host}{port}/{name}" if user else f"postgresql://{host}{port}/{name}"
        command = ["pg_dump", "--format=custom", f"--schema={SCHEMA}", f"--file={to}", source]
        raise CannotCopy(
            "PostgreSQL is backed up with its own tools, also while relays run on it, as in"
            f" '{shlex.join(command)}'; it asks for the password, or takes it from PGPASSWORD or .pgpass"
        )

    # -- what is broken ----------------------------------------------------------------------------------------------

    def _damage(self, thorough: bool) -> Fault | None:
        """Indexes that the server itself does not use; and where amcheck may be used, all of them against their
        tables."""
        said = [row[0] for row in self._all(_INVALID, (SCHEMA,))]
        check = self._all(_AMCHECK) if thorough else []
        if check:
            for number, name in self._all(_INDEXES, (SCHEMA,)):
                try:
                    self._connection.execute(
                        f"SELECT {check[0][0]}(index => $1::oid::regclass, heapallindexed => true)", [number]
                    )
                except psycopg.errors.InsufficientPrivilege:
                    break
                except (psycopg.errors.IndexCorrupted, psycopg.errors.DataCorrupted) as error:
                    said.append(f"index {name}: {error.diag.message_primary}")
                except psycopg.Error as error:
                    raise Unavailable(explain(error)) from error
        return self._fault("integrity", "damaged pages or indexes", said)

    def _loose_ends(self) -> Fault | None:
        loose = [f"{table} {number}" for table, sql in _LOOSE for (number,) in self._all(sql)]
        return self._fault("references", "rows that name others which are not there", loose)

    def _tallied(self) -> Fault | None:
        routes = [row[0] for row in self._all(_TALLIED)]
        return self._fault(_TALLIES, "routes of which not as many wait, or are held, as was counted", routes)

    def _broken(self, law: Law) -> Fault | None:
        found = [row[0] for row in self._all(law.sql)]
        return self._fault(law.name, law.broken, [self._ids.text(law.prefix, number) for number in found])

    def _rotten(self, moved: Callable[[int], None]) -> Fault | None:
        """Bodies that are not what was accepted. All are read, some at once."""
        found: list[int] = []
        after = done = 0
        while (upto := self._all(UP_TO, (after, AT_ONCE))[0][0]) is not None:
            found += [row[0] for row in self._all(ROTTEN, (after, upto))]
            after, done = upto, done + 1
            moved(done)
        texts = [self._ids.text(EVENT, number) for number in found]
        return self._fault(CHECKSUMS, "events whose body does not fit its checksum", texts)

    @staticmethod
    def _fault(law: str, broken: str, found: Sequence[str]) -> Fault | None:
        return Fault(law, broken, len(found), tuple(found[:_EXAMPLES])) if found else None

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._reading():
            return self._connection.execute(translated(sql), values or None).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise Unavailable(explain(error)) from error


def _moment(number: int | None) -> datetime | None:
    return None if number is None else from_ms(moment_ms(number))
