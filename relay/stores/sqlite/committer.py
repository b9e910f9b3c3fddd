"""The thread that commits: takes a batch as one job, one transaction, one fsync, and hands it back to the loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from relay.store import Counts
from relay.stores._sql import committing
from relay.stores._sql.batch import Add, Batch, Call
from relay.stores._sql.connection import Connection, run
from relay.stores._sql.deltas import Deltas, shift
from relay.stores._sql.results import Record, count
from relay.stores._sql.rows import Row
from relay.stores._sql.shapes import Shapes
from relay.stores.sqlite import changes, staging, transaction
from relay.stores.sqlite.connection import BUSY_MS, Replaced, connect, explain, identity
from relay.stores.sqlite.joining import Forgetting, Joining
from relay.stores.sqlite.staging import Staged

_EMPTYING_MS = 1000  # for which senders may wait while something is being forgotten
# Where little comes, the log is written into the file after a commit rather than in one, and more often than SQLite
# does by itself: who comes meanwhile waits. Where much comes, senders who were answered just before it and those who
# waited for it would come together from then on, and the loop would have nothing to do while their events are written.
_PAGES = 250  # in the log; SQLite's own limit is 1000, see `connection`
_CALM = 20_000  # rows changed in a second: some 1,600 events
_FEW = 8  # events and results in a batch: the first of many come as suddenly as they like
_LEAST, _MOST = 50, 5000  # rows changed between two checkpoints
_COUNTED = 1 << 32  # rows, after which SQLite begins anew

# A value that SQLite cannot take, or that breaks a constraint.
_OWN_FAULT = (
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    OverflowError,
    ValueError,
    TypeError,
)


class Committer(committing.Committer):
    """The writer's thread: takes batches from `jobs`, hands them back to the loop when they are on disk."""

    OWN_FAULT = _OWN_FAULT
    NOBODYS_FAULT = (sqlite3.Error, OSError, Replaced)

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        answer: Callable[[Batch], None],
        rested: Callable[[], None],
        counts: Mapping[str, Counts],
    ) -> None:
        super().__init__(answer, rested, counts, Shapes())
        self._path = path
        self._connection: sqlite3.Connection | None = connection
        self._file = identity(path)
        self._recount = False
        self._forgetting = Forgetting()
        self._staging = staging.Staging()
        self._staged: Staged | None = None
        """The batch that comes next, where it was laid out."""
        self._complained = False
        self._noting: sqlite3.Connection | None = None
        """The connection that notes changes."""
        self._looked = (0, perf_counter())
        """How many rows the connection had changed, and when, as it was last found that the log is long."""
        self._changed = 0
        """How many rows were changed before that since the time before."""
        self._rows_per_page = 1.0
        """As it was before the last checkpoint: how long the log is, SQLite tells nobody else."""

    def _joining(self, connection: Connection, deltas: Deltas) -> Joining:
        return Joining(connection, self.unfinished, deltas, self.shapes, self._forgetting)

    def _explain(self, error: BaseException) -> str:
        return explain(error)

    def _end(self) -> None:
        if self._connection is not None:
            with _suppressed():
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with _suppressed():
                self._connection.close()
            self._connection = None

    def _transaction(
        self,
        adds: Sequence[Add],
        records: Sequence[Record],
        calls: Sequence[Call],
        rejections: Sequence[Row],
        batch: Batch,
    ) -> None:
        staged, self._staged = self._staged, None
        try:
            if staged is not None and self._at_once(staged, adds, records, batch):
                return
            self._try(adds, records, calls, rejections, batch)
        except transaction.Interfered:
            self._try(adds, records, calls, rejections, batch, singly=True)

    def prepare(self, batch: Batch) -> None:
        """See committing.Committer.prepare: lay an ordinary batch out."""
        # With trouble the thread looks by itself whether it can write again.
        if self._trouble is None and not (self._recount or batch.calls or batch.rejections):
            try:
                self._staged = self._laid_out(batch)
            except (staging.Unusual, OSError):  # the thread meets it again, and tells those who wait
                pass
            except Exception as error:  # noqa: BLE001 - a bug of ours: each batch is written table by table, and slower
                self._complain(error)

    def _complain(self, error: Exception) -> None:
        """Say it once: it may be so for each batch."""
        if not self._complained:
            self._complained = True
            self._loop.call_exception_handler({"message": "a batch could not be laid out", "exception": error})

    def _laid_out(self, batch: Batch) -> Staged | None:
        connection = self._connection
        followed = self._noting is not None
        if connection is None or followed != self.following or identity(self._path) != self._file:
            return None
        self._forgetting.begun()
        return self._staging.lay_out(
            connection, batch.adds, batch.records, self.unfinished, self.shapes, self._forgetting
        )

    def _at_once(self, staged: Staged, adds: Sequence[Add], records: Sequence[Record], batch: Batch) -> bool:
        """Write an ordinary batch; False, or Interfered, with nothing written, where this is none.

        There is nothing between its writes and its commit: whether it went into the right file shows before, as it is
        laid out, and after.
        """
        try:
            self._staging.write(staged)
        except staging.Unusual:
            return False
        except transaction.Interfered:
            raise
        except BaseException as error:
            if not _waited(error):  # what a failed commit left behind, only the file knows
                self._close(staged.connection)
            raise
        # Where it went elsewhere, or nobody can tell, it may come back with what nobody was promised.
        self._recount = True
        if identity(self._path) != self._file:
            raise Replaced
        self._recount = False
        batch.results.extend(zip((add.done for add in adds), staged.added, strict=True))
        batch.results.extend([(record.done, None) for record in records])
        self._committed(staged.connection, staged.deltas, batch)
        return True

    def _try(
        self,
        adds: Sequence[Add],
        records: Sequence[Record],
        calls: Sequence[Call],
        rejections: Sequence[Row],
        batch: Batch,
        singly: bool = False,
    ) -> None:
        """As `_transaction`; `singly` records results one by one."""
        connection = self._open()
        self._note_changes(connection)
        self._forgetting.begun()
        deltas: Deltas = {}
        failed: list[tuple[asyncio.Future[Any], BaseException]] = []
        results: list[tuple[asyncio.Future[Any], Any]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            if adds:
                added = self._joining(connection, deltas).add([add.adding for add in adds])
                results.extend(zip((add.done for add in adds), added, strict=True))
            if records:
                transaction.record(connection, records, deltas, singly)
                results.extend((record.done, None) for record in records)
            for call in calls:
                try:
                    results.append((call.done, run(connection, call.run, deltas)))
                except Exception as error:  # its caller's to judge
                    if _is_the_disks(error):
                        raise
                    failed.append((call.done, error))
                    self.shapes.undone()
            if rejections:
                transaction.reject(connection, rejections)
            if not (adds or records or calls or rejections):
                connection.execute("UPDATE meta SET value = value WHERE key = 'store'")
            counts = count(connection) if self._recount else None
            if identity(self._path) != self._file:
                raise Replaced
            self._commit(connection)
        except BaseException as error:
            self.shapes.undone()
            self._undo(connection, error)
            raise
        self.shapes.committed()
        batch.failed.extend(failed)
        batch.results.extend(results)
        if counts is not None:
            self._recount = False
            batch.counts, batch.deltas = counts, {}
            self.unfinished.clear()
            self.unfinished.update(committing.sums(counts))
            deltas = {}
        self._committed(connection, deltas, batch)

    def _committed(self, connection: sqlite3.Connection, deltas: Deltas, batch: Batch) -> None:
        self._forgetting.committed()
        for route, (pending, held) in deltas.items():
            shift(batch.deltas, route, pending, held)
            self.unfinished[route] = self.unfinished.get(route, 0) + pending + held
        if self._noting is not None and (changed := changes.collect(connection)):
            batch.changed.append(changed)

    def _untidy(self, batch: Batch) -> bool:
        if self._connection is None or not (batch.adds or batch.records):  # a step of pruning is enough at once
            return False
        (before, since), total, now = self._looked, self._connection.total_changes, perf_counter()
        changed = (total - before) % _COUNTED
        if changed < min(max(_PAGES * self._rows_per_page, _LEAST), _MOST):
            return False
        self._looked, self._changed = (total, now), changed
        return self._changed < _CALM * (now - since) and len(batch.adds) + len(batch.records) <= _FEW

    def _tidy(self) -> None:
        """A checkpoint. Where it cannot be made, the next one is."""
        assert self._connection is not None
        _, pages, _ = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        # Not those rows are in it where it was begun anew in between, or grows on since somebody reads.
        known = self._rows_per_page
        self._rows_per_page = min(max(self._changed / max(1, pages), known / 2), known * 2)

    def _note_changes(self, connection: sqlite3.Connection) -> None:
        if self.following and self._noting is not connection:
            changes.follow(connection)
            self._noting = connection
        elif not self.following and self._noting is not None:
            changes.unfollow(connection)
            self._noting = None

    def _empty_log(self) -> None:
        """Waits a little for those who read; while somebody does, the log stays as it is."""
        connection = self._open()
        with _suppressed():
            connection.execute(f"PRAGMA busy_timeout = {_EMPTYING_MS}")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._looked = connection.total_changes, perf_counter()
        with _suppressed():
            connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

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
            self._looked = 0, perf_counter()
        return self._connection

    def _close(self, connection: sqlite3.Connection) -> None:
        self._connection = self._noting = None
        self._recount = True
        with _suppressed():
            connection.close()


def _is_the_disks(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and not isinstance(error, _OWN_FAULT)


def _passes(error: BaseException) -> bool:
    """True for what a connection survives: no space, or somebody else's lock."""
    return _waited(error) or getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _waited(error: BaseException) -> bool:
    """True for somebody else's lock, before which nothing is written."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


class _suppressed:  # noqa: N801 - used as a statement
    """Errors of a connection that is being given up."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, sqlite3.Error)
