"""The queue in one SQLite file, with nothing else to install.

- `writer` owns the only connection that writes: group commit; `transaction` is what one commit writes
- `joining` lets new deliveries into the queue: `lanes` that keep an order, windows, `repeats` of what is known
- `commands` change the queue for people and configs: hold, release, retry, cancel
- `reader` has the queries, on connections that cannot write; `rows` turns values to rows and back
- `survey` looks at a file as a whole, `copying` makes backups
- `opening` finds out whose a file is; `schema` has the tables and their versions; `lock` lets one relay in
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from relay.clock import Clock, to_ms
from relay.delivery import (
    Added,
    Delivery,
    HeldReason,
    LogItem,
    Mark,
    Owed,
    Rejection,
    Result,
    State,
    StoredEvent,
    Window,
)
from relay.event import Event
from relay.ids import DeliveryId, EventId, Ids
from relay.jsontext import dumps
from relay.lane import Order
from relay.memory import CLAIMED
from relay.pace import Minute
from relay.store import (
    STALLED,
    Counts,
    DeliveryDetail,
    Haste,
    LogQuery,
    Page,
    Pruned,
    Retried,
    Settled,
    StoreStatus,
    Unavailable,
    Unusable,
    quickly,
)
from relay.stores.sqlite import commands, copying, lanes, opening, rows
from relay.stores.sqlite import reader as reading
from relay.stores.sqlite.changes import Changed
from relay.stores.sqlite.connection import identity
from relay.stores.sqlite.joining import Adding
from relay.stores.sqlite.lock import Lock, lock
from relay.stores.sqlite.opening import affected_by_wal_reset_bug
from relay.stores.sqlite.pruning import Pruning
from relay.stores.sqlite.reader import Reader
from relay.stores.sqlite.room import Room
from relay.stores.sqlite.survey import Survey
from relay.stores.sqlite.transaction import Command
from relay.stores.sqlite.writer import Writer

__all__ = ["SqliteStore", "affected_by_wal_reset_bug", "open_reader", "open_store", "open_url", "survey"]

_OLDEST_EVERY = 5.0  # seconds for which the oldest pending delivery is remembered


class SqliteStore:
    """The Store in a SQLite file. See relay.store.Store for what each verb promises."""

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
        self.ids = ids
        self.path = path
        self._clock = clock
        self._lock = held
        self._writer = write
        self._claims, self._logs, self._glances = readers
        """For the queue; for people's searches, which may take seconds; for what `/health` asks, which may not wait."""
        self._notes = tuple(notes)
        self._room = Room(path, clock)
        self._seen_running: tuple[int | None, float] = (None, 0.0)
        self._oldest: tuple[float, datetime | None] = (float("-inf"), None)
        self._orders: dict[str, Order] = {}
        self._settling = asyncio.Lock()
        self._pruning = asyncio.Lock()
        self._closing = asyncio.Lock()
        self._closed = False

    # -- writing -----------------------------------------------------------------------------------------------------

    async def add(self, event: Event, owed: Sequence[Owed], mark: Mark | None = None) -> Added:
        self._room.look(len(event.body))
        if self._room.lacking is not None:
            raise Unavailable(self._room.lacking)
        several = len(event.description.changes) > 1 and event.description.common.entry_id is None
        mentions = event.description.entries if several else ()
        return await self._writer.add(Adding(rows.event_row(event, len(owed)), event.body, owed, mark, mentions))

    async def owe(self, event: EventId, owed: Sequence[Owed]) -> Added:
        stored = await self._logs.event(event)
        if stored is None:
            raise KeyError(event)
        size = len(stored.body or b"")
        for each in owed:
            # Newer ones may have been stored while it was read; who pages on from those must meet these too.
            each.delivery.id = DeliveryId(self.ids.draw(to_ms(self._clock.now())))
        return await self._writer.owe(event, size, owed)

    def reject(self, rejection: Rejection) -> None:
        self._writer.reject(rejection)

    async def record(self, result: Result) -> None:
        order = self._orders.get(result.delivery.route, Order.NONE)
        if order is not Order.NONE:
            # It may have been put into a lane while it was sent.
            result = replace(result, ordered=True, latest=order is Order.LATEST)
        await self._writer.record(result)

    async def settle(self, active: Collection[str], kept: Mapping[str, HeldReason]) -> Settled:
        # A route may have a million deliveries: they change in steps, so that senders are answered in between. Should
        # relay end half way, the next settle goes on from there.
        held: dict[str, int] = {}
        released: dict[str, int] = {}
        running = set(active) - kept.keys()
        async with self._settling:
            for route in await self._writer.call(commands.pending_routes):
                if route not in running:
                    reason = kept.get(route, HeldReason.REMOVED)
                    _note(held, route, await self._in_steps(commands.Hold(route, reason, self._clock)))
            for route in await self._writer.call(commands.held_routes):
                if route in running:
                    steps = [commands.Release(route, reason, self._clock) for reason in commands.FOR_ITS_ROUTE]
                    _note(released, route, sum([await self._in_steps(step) for step in steps]))
                else:
                    await self._in_steps(commands.Rename(route, kept.get(route, HeldReason.REMOVED)))
        return Settled(held, released)

    async def set_back(self, by: timedelta, now: datetime) -> int:
        moved, moment, ms = 0, to_ms(now), round(by.total_seconds() * 1000)
        async with self._settling:
            for route in list(self.counts()):
                found = await self._logs.unfinished(route)
                for start in range(0, len(found), commands.AT_ONCE):
                    some = found[start : start + commands.AT_ONCE]
                    moved += await self._writer.call(partial(commands.set_back, deliveries=some, by=ms, now=moment))
        return moved

    async def follow(self, orders: Mapping[str, Order], sending: Collection[DeliveryId] = ()) -> None:
        async with self._settling:
            known = {name: state["order"] for name, state in (await self._logs.states("order")).items()}
            new = {name: order for name, order in orders.items() if known.get(name, Order.NONE) != order}
            # From here on: an attempt may end before its lane is known here. Routes that are away keep theirs.
            self._orders = {name: Order(order) for name, order in known.items() if order} | dict(orders)
            if new:
                # Should relay end half way, whatever order comes next is put in place anew.
                await self.save_states("order", {name: {"order": None} for name in new})
                await self._writer.call(partial(commands.mark_taken, deliveries=list(sending)))
                for name, order in new.items():
                    await self._relane(name, order)
                await self.save_states("order", {name: {"order": order.value} for name, order in new.items()})

    async def _relane(self, route: str, order: Order) -> None:
        # Once: what has come meanwhile was born under the new order.
        found = await self._logs.unfinished(route)
        for start in range(0, len(found), lanes.AT_ONCE):
            await self._writer.call(
                lanes.Relane(route, order, found[start : start + lanes.AT_ONCE], to_ms(self._clock.now()))
            )

    async def move(self, old: str, new: str) -> int:
        if old == new:
            return 0
        async with self._settling:
            order, now = self._orders.get(new, Order.NONE), to_ms(self._clock.now())
            return await self._in_steps(commands.Move(old, new, order, now, self._writer.shapes))

    async def _in_steps(self, step: Command[int]) -> int:
        changed = 0
        while number := await self._writer.call(step):
            changed += number
        return changed

    async def take(self, delivery: Delivery, now: datetime) -> Delivery | None:
        moment = to_ms(now)
        taken = await self._writer.call(partial(commands.take, delivery=delivery.id, now=moment))
        if not taken:
            return None
        delivery.reserved = True
        return await self._claims.collected(delivery)

    async def retry(self, delivery: DeliveryId, now: datetime) -> str:
        retrying = commands.Retry(self.ids, self._orders, to_ms(now))
        return await self._writer.call(partial(retrying.one, delivery=delivery))

    async def retry_all(self, query: LogQuery, now: datetime, dry_run: bool = False) -> Retried:
        total = Retried(0, frozenset())
        # Oldest first, as they came; an id is looked at once, whatever becomes of it meanwhile.
        query = replace(query, status=(State.FAILED.value,), ascending=True, limit=commands.AT_ONCE, before=None)
        while True:
            page = await self._logs.search(query)
            found = [DeliveryId(self.ids.number(item.id)[1]) for item in page.items]
            retrying = commands.Retry(self.ids, self._orders, to_ms(now))
            done = await self._writer.call(partial(retrying.many, deliveries=found, dry=dry_run))
            total = Retried(total.count + done.count, total.routes | done.routes, total.passed_over + done.passed_over)
            if page.next is None:
                return total
            query = replace(query, before=page.next)

    async def cancel(self, delivery: DeliveryId, now: datetime) -> str:
        moment = to_ms(now)
        return await self._writer.call(partial(commands.cancel, ids=self.ids, delivery=delivery, now=moment))

    async def forget(self, event: EventId) -> None:
        await self._writer.call(partial(commands.forget, ids=self.ids, event=event), empty_log=True)

    async def flush(self, window: DeliveryId, now: datetime, kept: HeldReason | None) -> str:
        moment = to_ms(now)
        return await self._writer.call(partial(commands.flush, ids=self.ids, delivery=window, now=moment, kept=kept))

    async def hold(self, window: DeliveryId, now: datetime) -> str:
        moment = to_ms(now)
        return await self._writer.call(partial(commands.hold, ids=self.ids, delivery=window, now=moment))

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

    async def save_states(self, kind: str, states: Mapping[str, Mapping[str, Any]]) -> None:
        table = [(name, dumps(dict(state)).decode()) for name, state in states.items()]
        await self._writer.call(partial(commands.save, kind=kind, table=table))

    # -- reading -----------------------------------------------------------------------------------------------------

    async def claim(
        self,
        route: str,
        retried: bool | None,
        now: datetime,
        limit: int,
        exclude: Collection[DeliveryId],
        most_bytes: int = CLAIMED,
    ) -> list[Delivery]:
        found = await self._claims.claim(route, retried, now, limit, exclude, most_bytes)
        if self._orders.get(route) is Order.LATEST:
            for delivery in found:
                delivery.reserved = delivery.reserved and delivery.lane is None
        return found

    async def next_due(self, route: str, after: datetime) -> datetime | None:
        return await self._claims.next_due(route, after)

    async def windows(self) -> list[Window]:
        return await self._logs.windows()

    async def states(self, kind: str) -> Mapping[str, Mapping[str, Any]]:
        return await self._logs.states(kind)

    async def pace(self, since: datetime) -> Sequence[Minute]:
        return await self._logs.pace(since)

    async def search(self, query: LogQuery) -> Page:
        return await self._logs.search(query)

    async def delivery(self, delivery: DeliveryId) -> DeliveryDetail | None:
        return await self._logs.delivery(delivery)

    async def deliveries_of(self, event: EventId) -> list[DeliveryDetail]:
        return await self._logs.deliveries_of(event)

    async def event(self, event: EventId) -> StoredEvent | None:
        return await self._logs.event(event)

    async def rejection(self, rejection: int) -> Rejection | None:
        return await self._logs.rejection(rejection)

    async def restored(self) -> datetime | None:
        return await self._logs.restored()

    async def accepted(self) -> None:
        await self._writer.call(copying.unmark)

    # -- its state ---------------------------------------------------------------------------------------------------

    def counts(self) -> Mapping[str, Counts]:
        return self._writer.counts

    async def status(self) -> StoreStatus:
        now = self._clock.monotonic()
        if now - self._oldest[0] >= _OLDEST_EVERY:
            self._oldest = (now, await self._glances.oldest_pending())
        counts = self.counts().values()
        pending = sum(each.pending for each in counts)
        return reading.status(
            self.path,
            pending,
            sum(each.held for each in counts),
            self._oldest[1] if pending else None,
            await self._claims.first_due() if pending else {},
        )

    async def watch(self, told: Callable[[Sequence[LogItem], bool], None] | None) -> None:
        def tell(changed: Changed) -> None:
            if told is not None:
                told(changed.items(self.ids), changed.more)

        await self._writer.follow(None if told is None else tell)

    def on_commit(self, told: Callable[[float], None]) -> None:
        self._writer.on_commit = told

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

    def stalled(self, within: float = STALLED) -> str | None:
        running, now = self._writer.running, self._clock.monotonic()
        if running is None or running != self._seen_running[0]:
            self._seen_running = (running, now)
        since = now - self._seen_running[1]
        return f"a commit has not ended for {since:.0f} s" if since > within and running is not None else None

    @property
    def commits(self) -> int:
        """How many transactions were committed since the store was opened."""
        return self._writer.commits

    @property
    def commit_seconds(self) -> float:
        """How long the last one took."""
        return self._writer.seconds

    @property
    def waiting(self) -> int:
        """How many writes wait for the next one."""
        return self._writer.waiting

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


def _note(changed: dict[str, int], route: str, number: int) -> None:
    if number:
        changed[route] = number


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
                write = Writer(path, opened.connection, opened.counts)
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


def survey(path: Path) -> Survey:
    """Look at a store as a whole; raises as `open_reader` does."""
    return Survey(path)


async def open_reader(path: Path) -> Reader:
    """Read a store without a daemon, or beside one: never creates, migrates or locks anything.

    Raises Unusable for a file that is missing, foreign, newer, older or corrupt.
    """
    path = opening.place(path)
    if identity(path) is None:
        raise Unusable(f"cannot open the store {path}: there is no such file")
    ids = await asyncio.to_thread(opening.ids_of, path)
    return await Reader.open(path, ids)
