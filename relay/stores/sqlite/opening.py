"""Opening a file: whose is it, is it whole, which version; and making a new one."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from relay.ids import Ids
from relay.immutable import immutable
from relay.store import Counts, Unavailable, Unusable
from relay.stores._sql import results
from relay.stores.sqlite import schema
from relay.stores.sqlite.connection import BUSY_MS, connect, identity, set_up

# What another try may mend: the file itself is not to blame.
_PASSING = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
)

_READERS_MS = 1000  # for which a start waits for somebody who reads the log

_NOT_A_DATABASE = "it is not a SQLite database: name another file in store.url, or restore a backup"


@immutable
class Opened:
    """A connection that may write, and what is known from the file."""

    connection: sqlite3.Connection
    ids: Ids
    counts: dict[str, Counts]


def place(path: Path) -> Path:
    """Where the file really lies: the lock and the check for a replaced file must not depend on links."""
    path = path.resolve()
    if not path.parent.is_dir():
        raise Unusable(f"cannot open the store {path}: the directory {path.parent} does not exist: create it")
    if path.is_dir():
        raise Unusable(f"cannot open the store {path}: it is a directory")
    return path


def open_file(path: Path, on_migrate: Callable[[int, int], None] | None = None) -> Opened:
    """Open a file, or make one where there is none. The caller holds the lock. `on_migrate` is told the version of an
    older file and the one that it is brought to, which takes a while where there is much in it.

    A file that is not relay's, is newer or corrupt is looked at on a connection that cannot write, refused, and left
    as it is. Only one that holds nothing at all, not a byte or not a table, is made anew.
    """
    try:
        if identity(path) is None or (path.stat().st_size == 0 and not _wal(path)):
            _create(path)
            held = schema.VERSION
        else:
            held = look(path)
        connection = connect(path)
        try:
            if held == 0:
                schema.create(connection)
            elif held < schema.VERSION:
                if on_migrate is not None:
                    on_migrate(held, schema.VERSION)
                schema.migrate(connection, held)
            # Fails at once where the file may only be read. What a relay that is gone had begun with nobody sends now.
            schema.with_transaction(connection, ["UPDATE delivery SET taken = 0 WHERE taken = 1"])
            _begin_log_anew(connection)
            ids = Ids(schema.store_number(connection), schema.last_id(connection))
            return Opened(connection, ids, results.count(connection))
        except BaseException:
            connection.close()
            raise
    except MemoryError as error:
        raise refusal(path, Unusable("there is too little memory to bring it up to date: give relay more")) from error
    except (sqlite3.Error, OSError, Unusable) as error:
        raise refusal(path, error) from error


def _begin_log_anew(connection: sqlite3.Connection) -> None:
    """Bring into the file what is in the log, before anything is promised. If the disk failed an earlier relay, the
    kernel may still show what the disk never took, and never write it: behind that no commit would survive a power cut.
    (A relay that runs writes over what failed.) Where somebody reads the log, or the disk is full, it stays as it is.
    """
    connection.execute(f"PRAGMA busy_timeout = {_READERS_MS}").fetchone()
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL):
            raise
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}").fetchone()


def look(path: Path) -> int:
    """The schema's version, without changing a byte. Raises Unusable, or an error of SQLite's."""
    with closing(connect_to_look(path)) as connection:
        held = schema.version(connection)
        if held:
            schema.store_number(connection)
            schema.last_id(connection)
        elif path.stat().st_size and not connection.execute("PRAGMA page_count").fetchone()[0]:
            # SQLite would take less than a page of anything for a new file, and write over it.
            raise Unusable(_NOT_A_DATABASE)
        return held


def ids_of(path: Path) -> Ids:
    """The ids of a store of today's version, without changing a byte. Raises Unusable or Unavailable."""
    try:
        held = look(path)
        if held == 0:
            raise Unusable("it is empty")
        if held < schema.VERSION:
            raise Unusable(f"it was written by an older relay (schema {held}): start relay once to bring it up to date")
        with closing(connect_to_look(path)) as connection:
            return Ids(schema.store_number(connection), schema.last_id(connection))
    except (sqlite3.Error, OSError, Unusable) as error:
        raise refusal(path, error) from error


def connect_to_look(path: Path) -> sqlite3.Connection:
    """A connection that cannot write."""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=5.0)


def is_damage(error: sqlite3.Error) -> bool:
    """True where the file itself is to blame. Python's own errors, as for text that is none, have no code."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def refusal(path: Path, error: Exception, verb: str = "open") -> Exception:
    """Why a file cannot be opened, in words for the operator."""
    where = f"cannot {verb} the store {path}"
    if isinstance(error, Unusable):
        return Unusable(f"{where}: {error}")
    if isinstance(error, OSError):
        return Unusable(f"{where}: {error.strerror}")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _PASSING:
        return Unavailable(f"{where}: {error}")
    match code:
        case sqlite3.SQLITE_NOTADB:
            why = _NOT_A_DATABASE
        case sqlite3.SQLITE_CORRUPT:
            why = f"it is damaged ({error}): restore a backup"
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            why = f"{error}: relay must be able to write the file and its directory"
        case 0 if isinstance(error, sqlite3.OperationalError) and not hasattr(error, "sqlite_errorcode"):
            why = f"it is damaged ({error}): restore a backup"
        case _:
            why = str(error)
    return Unusable(f"{where}: {why}")


def _wal(path: Path) -> bool:
    """True where a log lies beside the file: then it is not empty, whatever its size."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def _create(path: Path) -> None:
    """Make a store under another name, and give it its own when it is whole: a crash leaves nothing half made."""
    new = path.with_name(path.name + ".new")
    for suffix in ("", "-wal", "-shm", "-journal"):
        new.with_name(new.name + suffix).unlink(missing_ok=True)
    # What senders sent is nobody else's business, whatever the umask. SQLite gives its other files the same mode.
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        set_up(connection)
        schema.create(connection)
    if path.exists():
        shutil.copymode(path, new)
    sync(new)
    new.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """What was written to a file, or a directory's entries, is on disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def affected_by_wal_reset_bug(version: str) -> bool:
    """True for SQLite versions in which two connections that write can damage a database in WAL mode.

    relay writes on one connection alone, which keeps clear of it; other programs on the live file would not.
    See https://sqlite.org/wal.html: since 3.7.0, mended in 3.51.3 and in 3.50.7 and 3.44.6 of the older series.
    """
    number = tuple(int(part) for part in version.split(".")[:3])
    number += (0,) * (3 - len(number))
    if number < (3, 7, 0) or number >= (3, 51, 3):
        return False
    series = number[:2]
    return not (series == (3, 50) and number >= (3, 50, 7)) and not (series == (3, 44) and number >= (3, 44, 6))
