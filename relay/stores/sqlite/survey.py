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
from typing import Any, Self

from relay.clock import from_ms, to_ms
from relay.ids import EVENT, Ids, moment_ms
from relay.space import Space, space
from relay.store import Unavailable
from relay.stores._sql import tables
from relay.stores._sql.laws import AT_ONCE, CHECKSUMS, LAWS, OVERDUE, ROTTEN, UP_TO, Law
from relay.stores.sqlite import copying, opening, schema
from relay.survey import Fault, Figures, Overdue, Progress

_EXAMPLES = 5


class Survey:
    """See relay.survey.Surveyor for what each verb promises."""

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
            free_bytes=space(self._path).free,
            oldest=_moment(oldest),
            newest=_moment(newest),
            location=str(self._path),
        )

    def newest(self) -> datetime | None:
        with self._reading():
            return _moment(schema.last_id(self._connection) or None)

    def space(self) -> Space:
        return space(self._path)

    def faults(self, thorough: bool, progress: Progress) -> list[Fault]:
        steps: list[Callable[[], Fault | None]] = [lambda: self._damage(thorough), self._loose_ends]
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
        known = ("integrity", "references", *(law.name for law in LAWS))
        return (*known, CHECKSUMS) if thorough else known

    def overdue(self, before: datetime) -> Mapping[str, Overdue]:
        return {route: Overdue(number, from_ms(due)) for route, number, due in self._all(OVERDUE, (to_ms(before),))}

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

    def _broken(self, law: Law) -> Fault | None:
        found = [row[0] for row in self._all(law.sql)]
        examples = tuple(self._ids.text(law.prefix, number) for number in found[:_EXAMPLES])
        return Fault(law.name, law.broken, len(found), examples) if found else None

    def _rotten(self, moved: Callable[[int], None]) -> Fault | None:
        """Bodies that are not what was accepted. All are read, some at once: the writer's log is not held up."""
        found: list[int] = []
        after = done = 0
        while (upto := self._all(UP_TO, (after, AT_ONCE))[0][0]) is not None:
            found += [row[0] for row in self._all(ROTTEN, (after, upto))]
            after, done = upto, done + 1
            moved(done)
        examples = tuple(self._ids.text(EVENT, number) for number in found[:_EXAMPLES])
        broken = "events whose body does not fit its checksum"
        return Fault(CHECKSUMS, broken, len(found), examples) if found else None

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
