"""The one writer: whatever waits when a commit ends goes into the next one.

All writes wait in lists on the event loop. A batch is one job for the writer's thread, which owns the only connection
that writes and checkpoints: one transaction, a handful of large calls, one fsync, and one call back to the loop that
resolves every future. A lone write is not delayed, since there is no timer; sixty-four concurrent ones share one
fsync. That one connection alone writes also keeps clear of SQLite's WAL-reset bug (https://sqlite.org/wal.html).

What can go wrong is of two kinds. A value that cannot be stored is the fault of the one write that brought it: the
batch is written again, one write at a time, and only that one fails. A disk that does not take the batch is nobody's
fault: nothing of it was promised, everyone is told so, and the connection is opened anew, because after a failed
commit only the file knows what it holds.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, TypeVar

from relay.delivery import Rejection, Result
from relay.store import Counts, Unavailable
from relay.stores.sqlite import rows, transaction
from relay.stores.sqlite.rows import Row
from relay.stores.sqlite.transaction import Add, Command, Deltas, Record

T = TypeVar("T")

MOST_JOBS = 10_000
MOST_BYTES = 256 << 20
_REJECTIONS_WAITING = 2000
_REJECTIONS_DELAY = 1.0  # seconds until refused requests are written without anything else to write
_PROBE_EVERY = 1.0  # seconds between tries to write after a failure, when nobody else tries

# A value that SQLite cannot take, or that breaks a constraint: the fault of one write.
_OWN_FAULT = (
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    OverflowError,
    ValueError,
    TypeError,
)


@dataclass(slots=True)
class Call:
    """A command, waiting."""

    run: Command[Any]
    done: asyncio.Future[Any]


@dataclass(slots=True)
class Batch:
    """What one transaction writes, and what came of it."""

    adds: list[Add] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    rejections: list[Row] = field(default_factory=list)
    last: bool = False
    probe: bool = False
    """Nobody's: only to see whether one can write again."""
    # Filled by the writer's thread:
    failed: list[tuple[asyncio.Future[Any], BaseException]] = field(default_factory=list)
    results: list[tuple[asyncio.Future[Any], Any]] = field(default_factory=list)
    deltas: Deltas = field(default_factory=dict)
    counts: dict[str, Counts] | None = None
    """All counts, where they had to be read anew."""
    trouble: str | None = None
    seconds: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.adds or self.records or self.calls or self.rejections)


class Replaced(Exception):
    """The file at the database's path is no longer the one that is open."""


class Writer:
    """Owns the writing connection and its thread. All methods are called on the event loop."""

    def __init__(self, path: Path, connection: sqlite3.Connection, counts: dict[str, Counts]) -> None:
        self.counts = counts
        self.trouble: str | None = None
        self.begun = 0
        self.commits = 0
        self.seconds = 0.0
        """How long the last commit took."""
        self.on_commit: Callable[[float], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._waiting = Batch()
        self._rejections: deque[Row] = deque(maxlen=_REJECTIONS_WAITING)
        self._bytes = 0
        self._busy = False
        self._kicked = False
        self._closing: asyncio.Future[None] | None = None
        self._rejection_timer: asyncio.TimerHandle | None = None
        self._thread = _Thread(path, connection, self._answer)
        self._thread.start()

    def add(self, event: Row, content: bytes, deliveries: list[Row]) -> asyncio.Future[None]:
        """Write an event. Raises Unavailable when too much waits already."""
        waiting = self._waiting
        if len(waiting.adds) >= MOST_JOBS or self._bytes > MOST_BYTES:
            raise Unavailable("the disk does not keep up: too many events wait to be written")
        done = self._future()
        self._bytes += len(content)
        waiting.adds.append(Add(event, (event[0], content), deliveries, done))
        self._kick()
        return done

    def record(self, result: Result) -> asyncio.Future[None]:
        """Write what an attempt changed."""
        done = self._future()
        attempt = result.attempt
        if attempt is None:
            self._waiting.records.append(Record(result, None, None, done))
        else:
            row = rows.attempt_row(result.delivery.id, attempt)
            update = transaction.update_row(result, attempt.n)
            self._waiting.records.append(Record(result, update, row, done))
        self._kick()
        return done

    def call(self, command: Command[T]) -> asyncio.Future[T]:
        """Run a command in the next transaction; if it raises, what it changed is undone and nothing else is."""
        done: asyncio.Future[T] = self._future()
        self._waiting.calls.append(Call(command, done))
        self._kick()
        return done

    def reject(self, rejection: Rejection) -> None:
        """Write a refused request along with the next commit."""
        self._rejections.append(rows.rejection_row(rejection))
        if self._rejection_timer is None and self._closing is None:
            self._rejection_timer = self._loop.call_later(_REJECTIONS_DELAY, self._kick)

    @property
    def running(self) -> int | None:
        """The number of the batch that is being written; None between batches."""
        return self.begun if self._busy else None

    @property
    def waiting(self) -> int:
        """Writes that wait for the commit after the running one."""
        return len(self._waiting.adds) + len(self._waiting.records) + len(self._waiting.calls)

    async def close(self) -> None:
        """Write what waits, checkpoint, end the thread. Idempotent."""
        if self._closing is None:
            self._closing = self._loop.create_future()
            self._kick()
        await asyncio.shield(self._closing)

    def _future(self) -> asyncio.Future[Any]:
        if self._closing is not None:
            raise Unavailable("relay is shutting down")
        return self._loop.create_future()

    def _kick(self) -> None:
        """Have a batch begun at the end of this turn of the loop: what else this turn brings goes with it."""
        if not (self._busy or self._kicked):
            self._kicked = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._kicked = False
        if self._busy:
            return
        batch = self._waiting
        batch.rejections.extend(self._rejections)
        if self._rejection_timer is not None:
            self._rejection_timer.cancel()
            self._rejection_timer = None
        batch.last = self._closing is not None
        if not (batch or batch.last):
            return
        self._rejections.clear()
        self._waiting, self._bytes, self._busy = Batch(), 0, True
        self.begun += 1
        self._thread.jobs.put(batch)

    def _answer(self, batch: Batch) -> None:
        """Everyone is told what came of a batch; the counts follow before anyone can look."""
        if not batch.probe:
            self._busy = False
        self.trouble = batch.trouble
        if batch.trouble is None:
            self.commits += 1
            self.seconds = batch.seconds
            if self.on_commit is not None:
                self.on_commit(batch.seconds)
        self._count(batch)
        for future, error in batch.failed:
            if not future.done():
                future.set_exception(error)
        for future, result in batch.results:
            if not future.done():
                future.set_result(result)
        if batch.last:
            self._thread.join()
            assert self._closing is not None
            self._closing.set_result(None)
        elif self._waiting or self._closing is not None:
            # After the futures' owners: what they write next belongs to this batch.
            self._kick()

    def _count(self, batch: Batch) -> None:
        if batch.counts is not None:
            self.counts.clear()
            self.counts.update(batch.counts)
        for route, (pending, held) in batch.deltas.items():
            counts = self.counts.setdefault(route, Counts())
            counts.pending += pending
            counts.held += held
            if not (counts.pending or counts.held):
                del self.counts[route]


class _Thread:
    """The writer's thread: takes batches from `jobs`, hands them back to the loop when they are on disk."""

    def __init__(self, path: Path, connection: sqlite3.Connection, answer: Callable[[Batch], None]) -> None:
        self.jobs: SimpleQueue[Batch] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._answer = answer
        self._path = path
        self._connection: sqlite3.Connection | None = connection
        self._file = identity(path)
        self._recount = False
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="relay-writer", daemon=True)

    def start(self) -> None:
        """Begin taking batches."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread to end."""
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                batch = self.jobs.get(timeout=None if self._trouble is None else _PROBE_EVERY)
            except Empty:
                batch = Batch(probe=True)
            began = perf_counter()
            try:
                self._write(batch)
            except BaseException as error:  # noqa: BLE001 - a bug of ours must not leave senders waiting
                self._fail(batch, Unavailable(f"relay failed to write: {type(error).__name__}: {error}"))
            batch.seconds = perf_counter() - began
            batch.trouble = self._trouble
            if batch.last:
                self._end()
            try:
                self._loop.call_soon_threadsafe(self._answer, batch)
            except RuntimeError:  # the loop is gone, and with it everyone who waited
                self._end()
                return
            if batch.last:
                return

    def _end(self) -> None:
        if self._connection is not None:
            with _suppressed():
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with _suppressed():
                self._connection.close()
            self._connection = None

    # -- one batch ---------------------------------------------------------------------------------------------------

    def _write(self, batch: Batch) -> None:
        """One transaction for the whole batch; on somebody's own fault, one for each write."""
        try:
            try:
                if not batch.last or batch:
                    self._transaction(batch.adds, batch.records, batch.calls, batch.rejections, batch)
            except _OWN_FAULT:
                self._singly(batch)
            self._trouble = None
        except (sqlite3.Error, OSError, Replaced) as error:
            self._trouble = explain(error)
            self._fail(batch, Unavailable(self._trouble))

    def _singly(self, batch: Batch) -> None:
        """Each write in a transaction of its own, so that only the guilty one fails."""
        jobs: list[tuple[list[Add], list[Record], list[Call], list[Row], asyncio.Future[Any] | None]] = [
            *(([add], [], [], [], add.done) for add in batch.adds),
            *(([], [record], [], [], record.done) for record in batch.records),
            *(([], [], [call], [], call.done) for call in batch.calls),
            *(([], [], [], [rejection], None) for rejection in batch.rejections),
        ]
        for adds, records, calls, rejections, done in jobs:
            try:
                self._transaction(adds, records, calls, rejections, batch)
            except _OWN_FAULT as error:
                if done is not None:
                    batch.failed.append((done, error))

    def _transaction(
        self,
        adds: Sequence[Add],
        records: Sequence[Record],
        calls: Sequence[Call],
        rejections: Sequence[Row],
        batch: Batch,
    ) -> None:
        """Write and commit, or raise with nothing written. Only then does `batch` learn of it."""
        connection = self._open()
        deltas: Deltas = {}
        failed: list[tuple[asyncio.Future[Any], BaseException]] = []
        results: list[tuple[asyncio.Future[Any], Any]] = []
        # A refused request is not worth an fsync: with NORMAL a commit is synced along with the next FULL one.
        unsynced = bool(rejections) and not (adds or records or calls)
        try:
            if unsynced:
                connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            if adds:
                transaction.insert(connection, adds, deltas)
                results.extend((add.done, None) for add in adds)
            if records:
                transaction.record(connection, records, deltas)
                results.extend((record.done, None) for record in records)
            for call in calls:
                try:
                    results.append((call.done, transaction.run(connection, call.run, deltas)))
                except Exception as error:  # its caller's to judge
                    if _is_the_disks(error):
                        raise
                    failed.append((call.done, error))
            if rejections:
                transaction.reject(connection, rejections)
            if not (adds or records or calls or rejections):
                connection.execute("UPDATE meta SET value = value WHERE key = 'store'")
            counts = transaction.count(connection) if self._recount else None
            if identity(self._path) != self._file:
                raise Replaced
            self._commit(connection)
        except BaseException as error:
            self._undo(connection, error)
            raise
        finally:
            if unsynced and self._connection is not None:
                connection.execute("PRAGMA synchronous = FULL")
        batch.failed.extend(failed)
        batch.results.extend(results)
        if counts is not None:
            self._recount = False
            batch.counts, batch.deltas = counts, {}
        else:
            for route, (pending, held) in deltas.items():
                transaction.shift(batch.deltas, route, pending, held)

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except BaseException:
            # What a failed commit left behind, only the file knows: a new connection asks it.
            self._close(connection)
            raise

    def _undo(self, connection: sqlite3.Connection, error: BaseException) -> None:
        if self._connection is None:
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._close(connection)
        else:
            if _is_the_disks(error) and not _passes(error):
                self._close(connection)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if identity(self._path) != self._file:
                raise Replaced
            self._connection = connect(self._path)
        return self._connection

    def _close(self, connection: sqlite3.Connection) -> None:
        self._connection = None
        self._recount = True
        with _suppressed():
            connection.close()

    def _fail(self, batch: Batch, error: BaseException) -> None:
        """Everyone is told, but for those whose write is already on disk."""
        served = {id(future) for future, _ in (*batch.results, *batch.failed)}
        jobs: Iterable[Add | Record | Call] = (*batch.adds, *batch.records, *batch.calls)
        batch.failed.extend((job.done, error) for job in jobs if id(job.done) not in served)


def _is_the_disks(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and not isinstance(error, _OWN_FAULT)


def _passes(error: BaseException) -> bool:
    """True for what a connection survives: no space, or somebody else's lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)


class _suppressed:  # noqa: N801 - used as a statement
    """Errors of a connection that is being given up."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, sqlite3.Error)


# -- the connection --------------------------------------------------------------------------------------------------


def connect(path: Path) -> sqlite3.Connection:
    """The writing connection. Never creates a file."""
    uri = f"{path.as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        set_up(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def set_up(connection: sqlite3.Connection) -> None:
    """The settings that durability and speed rest on."""
    for pragma in (
        "busy_timeout = 5000",
        "trusted_schema = OFF",
        "cell_size_check = ON",
        "foreign_keys = OFF",  # see schema
        "temp_store = MEMORY",
        "mmap_size = 0",  # an I/O error through a mapping is a SIGBUS
        "journal_mode = WAL",
        "synchronous = FULL",  # NORMAL loses acknowledged commits at a power loss
        "wal_autocheckpoint = 1000",
        "journal_size_limit = 67108864",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchone()


def identity(path: Path) -> tuple[int, int] | None:
    """Which file lies at a path; None when there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def explain(error: BaseException) -> str:
    """Why the store cannot write, for the operator."""
    match error:
        case Replaced():
            return "the database file was replaced or removed while relay was running: restart relay"
        case sqlite3.Error():
            return f"the database cannot be written: {error} ({getattr(error, 'sqlite_errorname', 'SQLite')})"
        case _:
            return f"the database cannot be written: {error}"
