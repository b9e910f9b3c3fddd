"""The one writer: whatever waits when a commit ends goes into the next one.

All writes wait in lists on the event loop. A batch is one job for the writer's thread, which owns the only connection
that writes and checkpoints: one transaction, a handful of large calls, one fsync, and one call back to the loop that
resolves every future. Then, at times, the thread does what nobody should wait for; then it rests, and the loop may
prepare the next batch. A lone write is not delayed by a timer; sixty-four concurrent ones share one fsync. That one
connection alone writes also keeps clear of SQLite's WAL-reset bug (https://sqlite.org/wal.html).

What can go wrong is of two kinds. A value that cannot be stored is the fault of the one write that brought it: the
batch is written again, one write at a time, and only that one fails. A disk that does not take the batch is nobody's
fault: nothing of it was promised, everyone is told so, and the connection is opened anew, because after a failed
commit only the file knows what it holds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from relay.delivery import Added, Owed, Rejection, Result
from relay.ids import EventId
from relay.store import Counts, Unavailable
from relay.stores._sql import results, rows
from relay.stores._sql.batch import Add, Batch, Call
from relay.stores._sql.changes import Changed
from relay.stores._sql.committing import Committer
from relay.stores._sql.connection import Command
from relay.stores._sql.joining import Adding
from relay.stores._sql.results import Record
from relay.stores._sql.rows import Row

T = TypeVar("T")

Begin = Callable[[Callable[[Batch], None], Callable[[], None], Mapping[str, Counts]], Committer]
"""Makes the writer's thread, which calls back on the loop with what came of a batch, and when it rests again where that
is later; told what waits."""

MOST_JOBS = 10_000
MOST_BYTES = 256 << 20
_REJECTIONS_WAITING, _REJECTED_CHARACTERS = 2000, 4 << 20
_REJECTIONS_DELAY = 1.0  # seconds until refused requests are written without anything else to write


class Writer:
    """Owns the writing connection and its thread. All methods are called on the event loop."""

    def __init__(self, begin: Begin, counts: dict[str, Counts]) -> None:
        self.counts = counts
        self.trouble: str | None = None
        self.begun = 0
        self.commits = 0
        self.added = 0
        """How many events were to be written."""
        self.on_commit: Callable[[float], None] | None = None
        self.on_change: Callable[[Changed], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._waiting = Batch()
        self._rejections: deque[Row] = deque()
        self._rejected = 0
        """How many characters of headers those have."""
        self._bytes = 0
        self._busy = False
        self.tidying = False
        """Whether the thread is at what nobody waits for, see `Batch.tidying`."""
        self._kicked = False
        self._closing: asyncio.Future[None] | None = None
        self._rejection_timer: asyncio.TimerHandle | None = None
        self._lull: asyncio.Future[None] | None = None
        self._overdue = False
        """Whether refused requests have waited for long enough."""
        self._thread = begin(self._answer, self._rest, counts)
        self.shapes = self._thread.shapes
        """For commands alone: they run in the writer's thread."""
        self._thread.start()

    def add(self, adding: Adding) -> asyncio.Future[Added]:
        """Write an event. Raises Unavailable when too much waits already."""
        adds = self._waiting.adds
        if len(adds) >= MOST_JOBS or self._bytes > MOST_BYTES:
            raise Unavailable("the disk does not keep up: too many events wait to be written")
        done: asyncio.Future[Added] = self._future()
        self._bytes += len(adding.content)
        self.added += 1
        adds.append(Add(adding, done))
        self._kick()
        return done

    def owe(self, event: EventId, size: int, owed: Sequence[Owed]) -> asyncio.Future[Added]:
        """Write new deliveries of a stored event, whose body has this size."""
        return self.call(self._thread.owe(event, size, owed))

    def record(self, result: Result) -> asyncio.Future[None]:
        """Write what an attempt changed."""
        done = self._future()
        attempt = result.attempt
        if attempt is None:
            self._waiting.records.append(Record(result, None, None, done))
        else:
            row = rows.attempt_row(result.delivery.id, attempt)
            update = results.update_row(result, attempt.n)
            self._waiting.records.append(Record(result, update, row, done))
        self._kick()
        return done

    def call(
        self, command: Command[T], empty_log: bool = False, about: Sequence[tuple[str, str]] | None = None
    ) -> asyncio.Future[T]:
        """Run a command in the next transaction; if it raises, what it changed is undone and nothing else is.

        With `empty_log` what was there before is gone from the log too when this is done. `about` is as in `Call`.
        """
        done: asyncio.Future[T] = self._future()
        self._waiting.empty_log |= empty_log
        self._waiting.calls.append(Call(command, done, about))
        self._kick()
        return done

    async def lull(self, patience: float) -> None:
        """Return as soon as results have been written and nothing else waits yet, or after so many seconds. Where
        events come evenly the next one is then as far away as it ever is. For one caller at a time."""
        self._lull = self._loop.create_future()
        try:
            async with asyncio.timeout(patience):
                await self._lull
        except TimeoutError:
            pass
        finally:
            self._lull = None

    async def follow(self, told: Callable[[Changed], None] | None) -> None:
        """From now on tell this what each transaction changes, or nobody. Raises Unavailable."""
        self.on_change = told
        self._thread.following = told is not None
        if told is None:
            return
        try:
            await self.call(lambda connection, deltas: None)  # when it is done, changes are being noted
        except BaseException:
            self.on_change, self._thread.following = None, False
            raise

    def reject(self, rejection: Rejection) -> None:
        """Write a refused request along with the next commit; of too many that wait the newest are written."""
        row = rows.rejection_row(rejection)
        self._rejections.append(row)
        self._rejected += len(row[-1])
        while len(self._rejections) > _REJECTIONS_WAITING or self._rejected > _REJECTED_CHARACTERS:
            self._rejected -= len(self._rejections.popleft()[-1])
        if self._rejection_timer is None and self._closing is None:
            self._rejection_timer = self._loop.call_later(_REJECTIONS_DELAY, self._reject_now)

    @property
    def running(self) -> int | None:
        """The number of the batch that the thread is at; None between batches."""
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
        self._overdue = False
        batch.last = self._closing is not None
        if not (batch or batch.last):
            return
        self._rejections.clear()
        self._rejected = 0
        self._waiting, self._bytes, self._busy = Batch(), 0, True
        self.begun += 1
        self._thread.prepare(batch)
        self._thread.jobs.put(batch)

    def _answer(self, batch: Batch) -> None:
        """Everyone is told what came of a batch; the counts follow before anyone can look."""
        if not batch.probe:
            self._busy = self.tidying = batch.tidying
        self.trouble = batch.trouble
        if batch.trouble is None:
            self.commits += 1
            if self.on_commit is not None:
                self.on_commit(batch.seconds)
        self._count(batch)
        for future, error in batch.failed:
            if not future.done():
                future.set_exception(error)
        for future, result in batch.results:
            if not future.done():
                future.set_result(result)
        if self.on_change is not None and batch.changed:
            self._loop.call_soon(self._tell, self.on_change, batch.changed)
        if batch.last:
            self._thread.join()
            assert self._closing is not None
            self._closing.set_result(None)
        else:
            lull = self._lull
            if lull is not None and batch.records and not (batch.trouble or self._waiting or lull.done()):
                lull.set_result(None)
            # After the futures' owners: what they write next belongs to this batch.
            self._go_on()

    def _rest(self) -> None:
        """The thread takes the next batch."""
        self._busy = self.tidying = False
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting or self._overdue or self._closing is not None:
            self._kick()

    def _reject_now(self) -> None:
        self._overdue = True
        self._kick()

    @staticmethod
    def _tell(told: Callable[[Changed], None], changed: Sequence[Changed]) -> None:
        for each in changed:
            told(each)

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
