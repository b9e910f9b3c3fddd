"""The queue in one SQLite file, with nothing else to install.

What it has in common with other stores on SQL lies in `stores/_sql`.

- `committer` owns the only connection that writes: group commit; `staging` writes an ordinary batch in one go,
  `joining` and `transaction` all others, many rows at once (`bulk`); `changes` tells who follows the log
- `reader` asks, on connections that cannot write
- `survey` looks at a file as a whole, `copying` makes backups
- `opening` finds out whose a file is; `schema` has the tables and their versions; `lock` lets one relay in
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from relay.clock import Clock
from relay.delivery import (
    Added,
    Delivery,
    Mark,
    Owed,
)
from relay.event import Event
from relay.ids import DeliveryId, EventId, Ids
from relay.lane import Order
from relay.memory import CLAIMED
from relay.store import Haste, Pruned, StoreStatus, Unavailable, Unusable, quickly
from relay.stores._sql import commands
from relay.stores._sql.store import SqlStore
from relay.stores._sql.writer import Writer
from relay.stores.sqlite import copying, opening
from relay.stores.sqlite import reader as reading
from relay.stores.sqlite.committer import Committer
from relay.stores.sqlite.connection import identity
from relay.stores.sqlite.lock import Lock, lock
from relay.stores.sqlite.opening import affected_by_wal_reset_bug
from relay.stores.sqlite.pruning import Pruning
from relay.stores.sqlite.reader import Reader
from relay.stores.sqlite.room import Room
from relay.stores.sqlite.survey import Survey

__all__ = ["SqliteStore", "affected_by_wal_reset_bug", "open_reader", "open_store", "open_url", "survey"]

_OLDEST_EVERY = 5.0  # seconds for which the oldest pending delivery is remembered, where there is one


class SqliteStore(SqlStore):
    """The Store in a SQLite file. See relay.store.Store for what each verb promises."""

    shared = None

    def __init__(
        self,
        path: Path,
        clock: Clock,
        ids: Ids,
        held: Lock,
        write: Writer,
        readers: tuple[Reader, Reader, Reader],
        notes: Sequence[str] = (),
    ) -> None:
        claims, logs, self._glances = readers
        """What `/health` asks may not wait for people's searches."""
        super().__init__(clock, ids, write, claims, logs)
        self.path = path
        self._lock = held
        self._claiming, self._restored = claims, logs.restored
        self._notes = tuple(notes)
        self._room = Room(path, clock)
        self._oldest: tuple[float, datetime | None] = (float("-inf"), None)
        self._closing = asyncio.Lock()
        self._closed = False

    def add(self, event: Event, owed: Sequence[Owed], mark: Mark | None = None) -> Awaitable[Added]:
        room = self._room
        room.look(len(event.body))
        if room.lacking is not None:
            raise Unavailable(room.lacking)
        return super().add(event, owed, mark)

    async def forget(self, event: EventId) -> None:
        await self._writer.call(partial(commands.forget, ids=self.ids, event=event), empty_log=True)

    async def prune(
        self,
        now: datetime,
        retention: timedelta,
        bodies: timedelta,
        told: Callable[[Pruned], None] | None = None,
        haste: Callable[[], Haste] = quickly,
    ) -> Pruned:
        async with self._pruning:
            passing = Pruning(self._logs.ask, self._writer, told, haste)
            return await passing.run(now, retention, bodies)

    async def claim(
        self,
        route: str,
        retried: bool | None,
        now: datetime,
        limit: int,
        exclude: Collection[DeliveryId],
        most_bytes: int = CLAIMED,
    ) -> list[Delivery]:
        found = await self._claiming.claim(route, retried, now, limit, exclude, most_bytes)
        if self._orders.get(route) is Order.LATEST:
            for delivery in found:
                delivery.reserved = delivery.reserved and delivery.lane is None
        return found

    async def restored(self) -> datetime | None:
        return await self._restored()

    async def accepted(self) -> None:
        await self._writer.call(copying.unmark)

    async def status(self) -> StoreStatus:
        counts = self.counts().values()
        pending = sum(each.pending for each in counts)
        now = self._clock.monotonic()
        if not pending:
            self._oldest = (now, None)
        elif self._oldest[1] is None or now - self._oldest[0] >= _OLDEST_EVERY:
            self._oldest = (now, await self._glances.oldest_pending())
        return reading.status(
            self.path,
            pending,
            sum(each.held for each in counts),
            self._oldest[1],
            await self._claims.first_due() if pending else {},
        )

    def notes(self) -> Sequence[str]:
        version = sqlite3.sqlite_version
        if not affected_by_wal_reset_bug(version):
            return self._notes
        return (
            *self._notes,
            f"SQLite {version} has the WAL-reset bug: two connections that write can damage a database. relay writes on"
            f" one connection alone, which keeps clear of it; let no other program write to {self.path} while relay"
            " runs",
        )

    def trouble(self) -> str | None:
        self._room.look()
        return self._writer.trouble or self._room.trouble or self.stalled()

    async def close(self) -> None:
        async with self._closing:
            if self._closed:
                return
            try:
                # The readers first: an open one would keep the last checkpoint from emptying the log.
                for each in (self._claims, self._logs, self._glances):
                    await each.close()
            finally:
                await self._writer.close()
                self._lock.release()
                self._closed = True


async def open_store(
    path: Path,
    *,
    clock: Clock,
    wait_for_lock: float = 10.0,
    on_lock_wait: Callable[[str], None] | None = None,
    on_migrate: Callable[[int, int], None] | None = None,
) -> SqliteStore:
    """Open the store in a file, or make it where there is none.

    Raises Locked, naming the holder, when another relay has it for longer than `wait_for_lock` seconds; `on_lock_wait`
    is told the holder once, when there is something to wait for. Raises Unusable for what an operator must mend and
    Unavailable for what may pass; the file is then as it was.
    """
    path = opening.place(path)
    kept: list[str] = []

    def migrating(version: int, to: int) -> None:
        if on_migrate is not None:
            on_migrate(version, to)
        kept.append(copying.keep(path, version, clock.now()))

    held = await lock(path, clock, wait_for_lock, on_lock_wait)
    try:
        opened = await asyncio.to_thread(opening.open_file, path, migrating)
        try:
            async with AsyncExitStack() as opening_them:
                readers = []
                for _ in range(3):
                    readers.append(await Reader.open(path, opened.ids))
                    opening_them.push_async_callback(readers[-1].close)
                write = Writer(partial(Committer, path, opened.connection), opened.counts)
                opening_them.pop_all()
        except BaseException:
            opened.connection.close()
            raise
    except BaseException:
        held.release()
        raise
    claims, logs, glances = readers
    return SqliteStore(path, clock, opened.ids, held, write, (claims, logs, glances), kept)


async def open_url(
    rest: str,
    clock: Clock,
    on_wait: Callable[[str], None] | None = None,
    on_migrate: Callable[[int, int], None] | None = None,
) -> SqliteStore:
    """Open the store that `store.url` names: what stands after `sqlite:` is a path."""
    if not rest or rest == ":memory:":
        raise Unusable("store.url: sqlite: needs a file, as in sqlite:relay.db or sqlite:/var/lib/relay/relay.db")
    return await open_store(Path(rest), clock=clock, on_lock_wait=on_wait, on_migrate=on_migrate)


def survey(path: str | Path) -> Survey:
    """Look at a store as a whole; raises as `open_reader` does."""
    return Survey(Path(path))


async def open_reader(path: str | Path) -> Reader:
    """Read a store without a daemon, or beside one: never creates, migrates or locks anything.

    Raises Unusable for a file that is missing, foreign, newer, older or corrupt.
    """
    path = opening.place(Path(path))
    if identity(path) is None:
        raise Unusable(f"cannot open the store {path}: there is no such file")
    ids = await asyncio.to_thread(opening.ids_of, path)
    return await Reader.open(path, ids)
