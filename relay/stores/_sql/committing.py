"""The thread that commits: a batch is one job and one transaction, handed back to the loop when it is on disk."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, ClassVar

from relay.delivery import Added, Owed
from relay.ids import EventId
from relay.store import Counts, Unavailable
from relay.stores._sql.batch import Add, Batch, Call
from relay.stores._sql.connection import Command, Connection
from relay.stores._sql.deltas import Deltas
from relay.stores._sql.joining import Joining
from relay.stores._sql.results import Record
from relay.stores._sql.rows import Row
from relay.stores._sql.shapes import Shapes

_PROBE_EVERY = 1.0  # seconds between tries to write after a failure, when nobody else tries


class Committer(ABC):
    """The writer's thread. What a transaction is, each engine knows."""

    OWN_FAULT: ClassVar[tuple[type[Exception], ...]] = (OverflowError, ValueError, TypeError)
    """A value that the engine cannot take, or that breaks a constraint: the fault of one write."""
    NOBODYS_FAULT: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    """The store cannot take anything at present."""

    def __init__(
        self,
        answer: Callable[[Batch], None],
        rested: Callable[[], None],
        counts: Mapping[str, Counts],
        shapes: Shapes,
    ) -> None:
        """On the loop, `answer` is told of each batch, and `rested` when the next one may come after a batch that was
        `tidying`."""
        self.jobs: SimpleQueue[Batch] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._answer = answer
        self._rested = rested
        self.unfinished = sums(counts)
        """Pending and held deliveries by route: this thread's own count, exact at each transaction,
        and for the loop to read in `prepare`."""
        self.shapes = shapes
        self.following = False
        """Whether anybody wants to know what changes: asked at the beginning of each transaction, or
        as it is prepared."""
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="relay-writer", daemon=True)

    def start(self) -> None:
        """Begin taking batches."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread to end."""
        self._thread.join()

    def prepare(self, batch: Batch) -> None:  # noqa: B027 - it need not do anything
        """What can be done for the next batch before it is put into `jobs`. The loop calls it while this thread has
        nothing to do: two threads that both have to do wait for Python's lock again and again."""

    def owe(self, event: EventId, size: int, owed: Sequence[Owed]) -> Command[Added]:
        """A command that makes new deliveries of a stored event, whose body has this size."""

        def command(connection: Connection, deltas: Deltas) -> Added:
            return self._joining(connection, deltas).owe(event, size, owed)

        return command

    @abstractmethod
    def _joining(self, connection: Connection, deltas: Deltas) -> Joining:
        """How deliveries join the queue in a transaction."""

    @abstractmethod
    def _transaction(
        self,
        adds: Sequence[Add],
        records: Sequence[Record],
        calls: Sequence[Call],
        rejections: Sequence[Row],
        batch: Batch,
    ) -> None:
        """Write and commit, or raise with nothing written. Only then does `batch` learn of it."""

    @abstractmethod
    def _explain(self, error: BaseException) -> str:
        """Why the store cannot write, for the operator."""

    @abstractmethod
    def _end(self) -> None:
        """Let go of the connection, whatever state it is in."""

    def _empty_log(self) -> None:  # noqa: B027 - where nothing that was removed stays in a log, there is nothing to do
        """Leave nothing of what was removed in the engine's log."""

    def _untidy(self, batch: Batch) -> bool:
        """Whether there is something to do that nobody should wait for, now that this batch is written."""
        return False

    def _tidy(self) -> None:  # noqa: B027 - where there never is, there is nothing to do
        """Do it. What it raises nobody is told."""

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
            if not (batch.last or batch.trouble or batch.probe):
                with suppress(Exception):
                    batch.tidying = self._untidy(batch)
            tidy = batch.tidying  # the loop has the batch from here on
            try:
                self._loop.call_soon_threadsafe(self._answer, batch)
                if tidy:
                    with suppress(Exception):  # nobody waits for it, and it is tried again
                        self._tidy()
                    self._loop.call_soon_threadsafe(self._rested)
            except RuntimeError:  # the loop is gone, and with it everyone who waited
                self._end()
                return
            if batch.last:
                return

    def _write(self, batch: Batch) -> None:
        """One transaction for the whole batch; on somebody's own fault, one for each write."""
        try:
            try:
                if not batch.last or batch:
                    self._transaction(batch.adds, batch.records, batch.calls, batch.rejections, batch)
            except self.OWN_FAULT:
                self._singly(batch)
            self._trouble = None
            if batch.empty_log:
                self._empty_log()
        except self.NOBODYS_FAULT as error:
            self._trouble = self._explain(error)
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
            except self.OWN_FAULT as error:
                if done is not None:
                    batch.failed.append((done, error))

    def _fail(self, batch: Batch, error: BaseException) -> None:
        """Everyone is told, but for those whose write is already on disk."""
        served = {id(future) for future, _ in (*batch.results, *batch.failed)}
        jobs: Iterable[Add | Record | Call] = (*batch.adds, *batch.records, *batch.calls)
        batch.failed.extend((job.done, error) for job in jobs if id(job.done) not in served)


def sums(counts: Mapping[str, Counts]) -> dict[str, int]:
    """Pending and held ones together."""
    return {route: each.pending + each.held for route, each in counts.items()}
