"""A file looked at as a whole: what is in it, and whether what must always hold does hold.

On a connection of its own that cannot write, beside a running relay or without one. The queries read whole tables and
may take as long as they take; each is a statement by itself, so that it sees one state of the file and the writer's log
is held up no longer than that.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from relay.clock import from_ms, to_ms
from relay.ids import DELIVERY, EVENT, Ids, moment_ms
from relay.store import Fault, Figures, Overdue, Progress, Unavailable
from relay.stores._sql import tables
from relay.stores.sqlite import copying, opening, schema
from relay.stores.sqlite.reader import free_bytes

_EXAMPLES = 5


class _Law(NamedTuple):
    """What must hold, and the query for the ids of what breaks it."""

    name: str
    broken: str
    prefix: str
    sql: str


# What was pruned is older than anything finished that is still here, unless something of the same event keeps it: a
# delivery that is said to be merged into one newer than that lost it otherwise.
_PRUNED_BEFORE = """
    SELECT d.id FROM delivery d WHERE d.state IN ('delivered', 'failed', 'cancelled') AND NOT EXISTS
        (SELECT 1 FROM delivery o WHERE o.event_id = d.event_id AND o.state IN ('pending', 'held'))
    ORDER BY d.id LIMIT 1
"""
_LAWS = (
    _Law(
        "conservation",
        "events whose deliveries are not as many as they were owed",
        EVENT,
        "SELECT e.id FROM event e LEFT JOIN (SELECT event_id, count(*) AS found FROM delivery GROUP BY event_id) d"
        " ON d.event_id = e.id WHERE e.matched <> ifnull(d.found, 0)",
    ),
    _Law(
        "events",
        "deliveries whose event is not there",
        DELIVERY,
        "SELECT d.id FROM delivery d WHERE NOT EXISTS (SELECT 1 FROM event e WHERE e.id = d.event_id)",
    ),
    _Law(
        "merged",
        "merged deliveries whose carrier is not there",
        DELIVERY,
        "SELECT d.id FROM delivery d WHERE d.merged_into IS NOT NULL"  # noqa: S608 - our own words
        " AND NOT EXISTS (SELECT 1 FROM delivery c WHERE c.id = d.merged_into)"
        f" AND d.merged_into > ifnull(({_PRUNED_BEFORE}), 0)",
    ),
    _Law(
        "carriers",
        "deliveries merged into themselves or into merged ones",
        DELIVERY,
        "SELECT d.id FROM delivery d JOIN delivery c ON c.id = d.merged_into WHERE c.merged_into IS NOT NULL",
    ),
    _Law(
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
    _Law(
        "windows",
        "open windows that have no due time, or whose carrier neither waits nor is held",
        DELIVERY,
        "SELECT id FROM delivery WHERE open = 1"
        " AND (due <= 0 OR \"window\" IS NULL OR state NOT IN ('pending', 'held'))",
    ),
    _Law(
        "lanes",
        "lanes in which every delivery waits for another one",
        DELIVERY,
        "SELECT min(id) FROM delivery INDEXED BY delivery_lane"  # noqa: S608
        f" WHERE {tables.UNFINISHED_LANE} GROUP BY route, lane HAVING min(blocked) = 1",
    ),
)
_CHECKSUMS = "checksums"
_AT_ONCE = 200  # bodies that one statement reads
_UP_TO = "SELECT max(event_id) FROM (SELECT event_id FROM body WHERE event_id > ? ORDER BY event_id LIMIT ?)"
_ROTTEN = """
    SELECT e.id FROM body b JOIN event e ON e.id = b.event_id
    WHERE b.event_id > ? AND b.event_id <= ? AND sha256(b.content) <> e.sha256
"""
_OVERDUE = """
    SELECT route, count(*), min(due) FROM delivery INDEXED BY delivery_pending
    WHERE state = 'pending' AND blocked = 0 AND due < ? GROUP BY route
"""


class Survey:
    """See relay.store.Surveyor for what each verb promises."""

    def __init__(self, path: Path) -> None:
        self._path = opening.place(path)
        self._ids: Ids = opening.ids_of(self._path)
        self._connection = opening.connect_to_look(self._path)
        self._connection.create_function("sha256", 1, lambda content: sha256(content).digest(), deterministic=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def figures(self, progress: Progress) -> Figures:
        names = sorted(tables.NAMES)
        total = len(names) + 1
        rows: dict[str, int] = {}
        for table in names:
            progress(len(rows), total)
            [[rows[table]]] = self._all(f"SELECT count(*) FROM {table}")  # noqa: S608 - our own tables
        progress(len(names), total)
        routes: dict[str, dict[str, int]] = {}
        for route, state, number in self._all("SELECT route, state, count(*) FROM delivery GROUP BY route, state"):
            routes.setdefault(route, {})[state] = number
        progress(total, total)
        [[oldest, newest]] = self._all("SELECT min(id), max(id) FROM event")
        return Figures(
            schema=self._pragma("user_version"),
            rows=rows,
            routes=routes,
            size_bytes=_size(self._path),
            log_bytes=_size(self._path.with_name(self._path.name + "-wal")),
            unused_bytes=self._pragma("freelist_count") * self._pragma("page_size"),
            free_bytes=free_bytes(self._path),
            oldest=_moment(oldest),
            newest=_moment(newest),
            location=str(self._path),
        )

    def newest(self) -> datetime | None:
        with self._reading():
            return _moment(schema.last_id(self._connection) or None)

    def free_bytes(self) -> int:
        return free_bytes(self._path)

    def faults(self, thorough: bool, progress: Progress) -> list[Fault]:
        steps: list[Callable[[], Fault | None]] = [lambda: self._damage(thorough), self._loose_ends]
        steps += [lambda law=law: self._broken(law) for law in _LAWS]  # type: ignore[misc]
        bodies = self._all("SELECT count(*) FROM body")[0][0] if thorough else 0
        total = len(steps) + -(-bodies // _AT_ONCE)
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
        known = ("integrity", "references", *(law.name for law in _LAWS))
        return (*known, _CHECKSUMS) if thorough else known

    def overdue(self, before: datetime) -> Mapping[str, Overdue]:
        return {route: Overdue(number, from_ms(due)) for route, number, due in self._all(_OVERDUE, (to_ms(before),))}

    def states(self, kind: str) -> Mapping[str, Mapping[str, Any]]:
        found = self._all("SELECT name, data FROM known WHERE kind = ?", (kind,))
        return {name: json.loads(data) for name, data in found}

    def copy(self, to: Path, now: datetime, progress: Progress, *, replace: bool = False) -> int:
        return copying.copy(self._path, to, now, progress, replace=replace)

    # -- what is broken ----------------------------------------------------------------------------------------------

    def _damage(self, thorough: bool) -> Fault | None:
        check = "integrity_check" if thorough else "quick_check"
        said = [row[0] for row in self._all(f"PRAGMA {check}({_EXAMPLES})")]
        return None if said == ["ok"] else Fault("integrity", "damaged pages or indexes", len(said), tuple(said))

    def _loose_ends(self) -> Fault | None:
        """Rows that name others which are not there: attempts without a delivery, bodies without an event. What is
        merged is a law of its own, and what is known of repeats may outlive its event."""
        loose = [
            f"{table} {row}"
            for table, row, parent, _ in self._all("PRAGMA foreign_key_check")
            if table != "seen" and not (table == parent == "delivery")
        ]
        return (
            Fault("references", "rows that name others which are not there", len(loose), tuple(loose[:_EXAMPLES]))
            if loose
            else None
        )

    def _broken(self, law: _Law) -> Fault | None:
        found = [row[0] for row in self._all(law.sql)]
        examples = tuple(self._ids.text(law.prefix, number) for number in found[:_EXAMPLES])
        return Fault(law.name, law.broken, len(found), examples) if found else None

    def _rotten(self, moved: Callable[[int], None]) -> Fault | None:
        """Bodies that are not what was accepted. All are read, some at once: the writer's log is not held up."""
        found: list[int] = []
        after = done = 0
        while (upto := self._all(_UP_TO, (after, _AT_ONCE))[0][0]) is not None:
            found += [row[0] for row in self._all(_ROTTEN, (after, upto))]
            after, done = upto, done + 1
            moved(done)
        examples = tuple(self._ids.text(EVENT, number) for number in found[:_EXAMPLES])
        broken = "events whose body does not fit its checksum"
        return Fault(_CHECKSUMS, broken, len(found), examples) if found else None

    def _pragma(self, name: str) -> int:
        [[number]] = self._all(f"PRAGMA {name}")
        return int(number)

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._reading(), closing(self._connection.execute(sql, values)) as cursor:
            return cursor.fetchall()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if opening.is_damage(error):
                raise opening.refusal(self._path, error, "read") from error
            raise Unavailable(f"the database cannot be read: {error}") from error


def _moment(number: int | None) -> datetime | None:
    return None if number is None else from_ms(moment_ms(number))


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
