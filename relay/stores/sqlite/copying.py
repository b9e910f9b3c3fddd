"""Backups: a consistent copy of a file in use, which says of itself that it is one.

The mark is a row of `meta`. The relay that opens a marked file holds everything until a person has looked, for the copy
does not know what was sent after it was made.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from relay.clock import rfc3339
from relay.store import Unusable
from relay.stores._sql.connection import Connection
from relay.stores._sql.deltas import Deltas
from relay.stores.sqlite import opening
from relay.survey import CannotCopy, Progress

MARK = "backup"
_AT_ONCE = 4096  # pages between two looks at how far it is
_SPARE = 8 << 20


def keep(source: Path, version: int, now: datetime) -> str:
    """Copy a store beside it before it is brought up to date from `version`: there is no other way back to the relay
    that wrote it. What came of that, for the operator: a disk without room for both must not keep events out. Raises
    Unusable for a damaged one."""
    to = source.with_name(f"{source.name}.schema-{version}")
    try:
        # What follows may need as much again.
        copy(source, to, now, lambda done, total: None, replace=True, spare=source.stat().st_size + _SPARE)
    except CannotCopy as error:
        return f"the store was brought up to date from schema {version} without a copy of what it was: {error}"
    return (
        f"the store was brought up to date from schema {version}; as it was before, it is kept in {to}:"
        " remove that when there is no going back to the relay that wrote it"
    )


def copy(source: Path, to: Path, now: datetime, progress: Progress, *, replace: bool, spare: int = _SPARE) -> int:
    """Copy a store; the size of the copy. Raises CannotCopy, or Unusable for a damaged one, and then nothing stands at
    `to` that was not there. `spare` is how much must be left on the disk."""
    to = to.absolute()
    if to.exists() and (to.samefile(source) or not to.is_file()):
        raise CannotCopy(f"{to} is the store itself, or no file: name another one")
    if to.exists() and not replace:
        raise CannotCopy(f"{to} is there already: name another file, or say --force")
    if not to.parent.is_dir():
        raise CannotCopy(f"the directory {to.parent} does not exist: create it")
    part = to.with_name(f"{to.name}.part")
    try:
        _room(source, to.parent, spare)
        _remove(part)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600))
        try:
            _copied(source, part, now, progress)
            if to.exists() and not replace:
                raise CannotCopy(f"{to} has come into being meanwhile: name another file, or say --force")
            part.rename(to)
            opening.sync(to.parent)
        except BaseException:
            _remove(part)
            raise
        return to.stat().st_size
    except OSError as error:
        raise CannotCopy(f"{to} cannot be written: {error.strerror}") from None
    except sqlite3.Error as error:
        if opening.is_damage(error):
            raise opening.refusal(source, error, "copy") from error
        raise CannotCopy(f"{source} cannot be copied to {to}: {error}") from None


def _copied(source: Path, part: Path, now: datetime, progress: Progress) -> None:
    with closing(opening.connect_to_look(source)) as reading, closing(sqlite3.connect(part)) as writing:
        # One transaction for all of it: otherwise the copy would begin anew at each commit of the running relay.
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM meta").fetchone()
        reading.backup(writing, pages=_AT_ONCE, progress=lambda status, left, total: progress(total - left, total))
        writing.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, without a log beside it
        with writing:
            writing.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (MARK, rfc3339(now)))
        [said] = writing.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise Unusable(f"cannot copy the store {source}: it is damaged ({said}): restore a backup")
    opening.sync(part)


def _room(source: Path, folder: Path, spare: int) -> None:
    needed = source.stat().st_size + spare
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise CannotCopy(f"{folder} has {free >> 20} MiB left, and the copy needs {needed >> 20} MiB: make room")


def _remove(part: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        part.with_name(part.name + suffix).unlink(missing_ok=True)


def unmark(connection: Connection, deltas: Deltas) -> None:
    """The file is a store like any other from now on: a command of the writer."""
    connection.execute("DELETE FROM meta WHERE key = ?", (MARK,))
