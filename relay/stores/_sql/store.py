"""The verbs of a store on SQL that are the same on every engine. See relay.store.Store for what each promises."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

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
from relay.lane import Order, lane, supersedes
from relay.pace import Minute
from relay.store import STALLED, Counts, DeliveryDetail, LogQuery, Moved, Page, Pruned, Retried, Settled, Unavailable
from relay.stores._sql import commands, lanes, rows, setback
from relay.stores._sql.changes import Changed
from relay.stores._sql.connection import Command, Connection
from relay.stores._sql.joining import Adding
from relay.stores._sql.reader import Reader
from relay.stores._sql.settling import AT_ONCE, FOR_ITS_ROUTE, Part, Plan, Step, Verdict, Wish
from relay.stores._sql.writer import Writer

T = TypeVar("T")


class SqlStore:
    """One queue behind one writer."""

    def __init__(self, clock: Clock, ids: Ids, write: Writer, claims: Reader, logs: Reader) -> None:
        self.ids = ids
        self._clock = clock
        self._writer = write
        self._claims, self._logs = claims, logs
        """For the queue; for people's searches, which may take seconds."""
        self._seen_running: tuple[tuple[int | None, bool], float] = ((None, False), 0.0)
        self._orders: dict[str, Order] = {}
        self._wish = Wish(frozenset(), {})
        """The newest one."""
        self._settled = asyncio.Event()
        """That the settling for it has ended."""
        self._settling = asyncio.Lock()
        self._pruning = asyncio.Lock()

    # -- writing -----------------------------------------------------------------------------------------------------

    # This and `record` hand on the writer's future: a coroutine around it would cost as much as all that is done here.

    def add(self, event: Event, owed: Sequence[Owed], mark: Mark | None = None) -> Awaitable[Added]:
        what = event.description
        mentions = what.entries if len(what.changes) > 1 and what.common.entry_id is None else ()
        return self._writer.add(Adding(rows.event_row(event, len(owed)), event.body, owed, mark, mentions))

    async def owe(self, event: EventId, owed: Sequence[Owed]) -> Added:
        stored = await self._logs.event(event)
        if stored is None:
            raise KeyError(event)
        size = len(stored.body or b"")
        for each in owed:
            # Newer ones may have been stored while it was read; who pages on from those must meet these too.
            each.delivery.id = DeliveryId(self.ids.draw(to_ms(self._clock.now())))
        return await self._writer.owe(event, size, [self._in_order(self._as_kept(each)) for each in owed])

    def _as_kept(self, owed: Owed) -> Owed:
        """Held or pending as its route was settled last. What was owed before that, and is stored after it, a settling
        has not met, and the next one may be far away."""
        route, wish = owed.delivery.route, self._wish
        paused = wish.kept.get(route) is HeldReason.PAUSED
        known = route in wish.active or route in wish.kept
        return replace(owed, paused=paused) if known and paused is not owed.paused else owed

    def _in_order(self, owed: Owed) -> Owed:
        """As the order that its route keeps now has it: that may have changed since it was owed."""
        delivery = owed.delivery
        order = self._orders.get(delivery.route)
        if order is None:
            return owed
        delivery.lane = lane(order, delivery.event)
        return replace(owed, supersedes=supersedes(order, delivery.event))

    def reject(self, rejection: Rejection) -> None:
        self._writer.reject(rejection)

    def record(self, result: Result) -> Awaitable[None]:
        order = self._orders.get(result.delivery.route, Order.NONE)
        if order is not Order.NONE:
            # It may have been put into a lane while it was sent.
            result = replace(result, ordered=True, latest=order is Order.LATEST)
        return self._writer.record(result)

    async def settle(self, active: Collection[str], kept: Mapping[str, HeldReason]) -> Settled:
        # A route may have a million deliveries: they change in steps, so that senders are answered in between. Should
        # relay end half way, the next settle goes on from there.
        wish = self._wish = Wish(frozenset(active) - kept.keys(), dict(kept))
        over = self._settled = asyncio.Event()
        try:
            held, released = await self._bring_in_line(wish)
            if self._wish != wish:  # whoever has superseded this does it all: it is not done before that is
                await self._settled.wait()
        finally:
            over.set()
        return Settled(+held, +released)

    async def _bring_in_line(self, wish: Wish) -> tuple[Counter[str], Counter[str]]:
        """How many of each route were held and released, until somebody wishes something else."""
        held: Counter[str] = Counter()
        released: Counter[str] = Counter()
        for part in await self._between(Plan(self._declare, self._judge)):
            left = None
            while self._wish == wish and (left is None or left > 0):
                done = await self._between(Step(part, self._judge, self._clock))
                if done is None or not any(done):
                    break
                held[part.route] += done[0]
                released[part.route] += done[1]
                # Counted once: others might bring it out of line as fast as it is put right here.
                left = await self._out_of_line(part) if left is None else left - sum(done)
        return held, released

    async def _between(self, step: Command[T], **options: Any) -> T:
        """A step, between those of what else changes much that waits: nobody waits for all of another one's."""
        async with self._settling:
            return await self._writer.call(step, **options)

    async def _out_of_line(self, part: Part) -> int:
        """How many of a route are; with what came since, which is left as it is."""
        try:
            found = await self._logs.held(part.route)
            number = sum([found.get(reason, 0) for reason in FOR_ITS_ROUTE if reason != part.verdict])
            return number if part.verdict is None else number + await self._logs.pending(part.route)
        except Unavailable:
            # Who asks may be slow, and no quicker after the next step. The writer knows it with what is in line: more
            # steps than are needed find nothing to do.
            counts = self.counts().get(part.route, Counts())
            return counts.held if part.verdict is None else counts.held + counts.pending

    def _declare(self, connection: Connection) -> None:
        """Let others know what this process wishes. Runs in the writer's thread, as does the next one."""

    def _judge(self, connection: Connection, routes: Collection[str]) -> Mapping[str, Verdict]:
        """What is to become of what waits of these routes, as things are now."""
        wish = self._wish
        return {route: wish.verdict(route) for route in routes}

    async def held(self, routes: Collection[str]) -> Mapping[str, int]:
        found = await self._logs.held_for(routes)
        return {route: found.get(route, 0) for route in routes}

    async def set_back(self, by: timedelta = timedelta()) -> int:
        moved, upto = 0, self.ids.newest
        for _ in range(2):  # what is held or released meanwhile may be passed by in one
            for route in list(self.counts()):
                moved += sum([await self._set_back(walk, by) for walk in setback.walks(route)])
        while await self._between(partial(setback.move_repeats, clock=self._clock, upto=upto), about=()):
            pass
        return moved

    async def _set_back(self, walk: setback.Walk, by: timedelta) -> int:
        """How many of these deliveries are due earlier."""
        moved, least = 0, round(by.total_seconds() * 1000)
        after: tuple[int, ...] | None = walk.first
        while after is not None:
            step = partial(setback.set_back, walk=walk, after=after, clock=self._clock, by=least)
            some, after = await self._between(step)
            moved += some
        return moved

    async def follow(self, orders: Mapping[str, Order], sending: Collection[DeliveryId] = ()) -> None:
        async with self._settling:
            known = {name: state["order"] for name, state in (await self._logs.states("order")).items()}
            # What came in here was put in lanes as this process understood it, whatever others have done since.
            new = {
                name: order
                for name, order in orders.items()
                if known.get(name, Order.NONE) != order or self._orders.get(name, order) is not order
            }
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
            some = found[start : start + lanes.AT_ONCE]
            relane = lanes.Relane(route, order, some, to_ms(self._clock.now()), self._in_other_hands)
            await self._writer.call(relane)

    def _in_other_hands(self, connection: Connection, deliveries: Collection[int]) -> Collection[int]:
        """Those of these that other processes have in hand. Runs in the writer's thread."""
        return ()

    def _begun(self, sending: Collection[DeliveryId]) -> lanes.Begun:
        """Those that are being sent here, and what others may be about to send."""

        def begun(connection: Connection, deliveries: Collection[int]) -> Collection[int]:
            return {*sending, *self._in_other_hands(connection, deliveries)}

        return begun

    async def move(self, old: str, new: str, sending: Collection[DeliveryId] = (), *, dry_run: bool = False) -> Moved:
        if old == new:
            return Moved(0)
        if dry_run:
            held = await self._logs.held(old)
            return Moved(held.get(HeldReason.REMOVED, 0), held.get(HeldReason.HAND, 0))
        moved = 0
        async with self._settling:
            order, now = self._orders.get(new, Order.NONE), to_ms(self._clock.now())
            move = commands.Move(old, new, order, now, self._writer.shapes, self._begun(sending))
            while (number := await self._writer.call(move)) is not None:
                moved += number
        return Moved(moved, (await self._logs.held(old)).get(HeldReason.HAND, 0))

    async def take(self, delivery: Delivery, now: datetime) -> Delivery | None:
        moment = to_ms(now)
        taken = await self._writer.call(partial(commands.take, delivery=delivery.id, now=moment), about=_lane(delivery))
        if not taken:
            return None
        delivery.reserved = True
        return await self._claims.collected(delivery)

    async def retry(
        self, delivery: DeliveryId, now: datetime, after: int | None = None, sending: Collection[DeliveryId] = ()
    ) -> str:
        retrying = commands.Retry(self.ids, self._orders, to_ms(now), self._begun(sending), after)
        return await self._writer.call(partial(retrying.one, delivery=delivery))

    async def retry_all(
        self, query: LogQuery, now: datetime, dry_run: bool = False, sending: Collection[DeliveryId] = ()
    ) -> Retried:
        routes: Counter[str] = Counter()
        passed_over = 0
        # Oldest first, as they came; an id is looked at once, whatever becomes of it meanwhile.
        query = replace(query, status=(State.FAILED.value,), ascending=True, limit=AT_ONCE, before=None)
        while True:
            page = await self._logs.search(query)
            found = [DeliveryId(self.ids.number(item.id)[1]) for item in page.items]
            retrying = commands.Retry(self.ids, self._orders, to_ms(now), self._begun(sending))
            done = await self._writer.call(partial(retrying.many, deliveries=found, dry=dry_run))
            routes.update(done.routes)
            passed_over += done.passed_over
            if page.next is None:
                return Retried(routes, passed_over)
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

    async def save_states(
        self,
        kind: str,
        states: Mapping[str, Mapping[str, Any]],
        *,
        over: bool = True,
        unless: Mapping[str, str] | None = None,
    ) -> None:
        table = [(name, dumps(dict(state)).decode()) for name, state in states.items()]
        await self._writer.call(partial(commands.save, kind=kind, table=table), about=())

    # -- reading -----------------------------------------------------------------------------------------------------

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

    async def prunable(
        self,
        now: datetime,
        retention: timedelta,
        bodies: timedelta,
        told: Callable[[Pruned], None] | None = None,
    ) -> Pruned:
        return await self._logs.prunable(now, retention, bodies, told)

    # -- its state ---------------------------------------------------------------------------------------------------

    def counts(self) -> Mapping[str, Counts]:
        return self._writer.counts

    async def watch(self, told: Callable[[Sequence[LogItem], bool], None] | None) -> None:
        def tell(changed: Changed) -> None:
            if told is not None:
                told(changed.items(self.ids), changed.more)

        await self._writer.follow(None if told is None else tell)

    def on_commit(self, told: Callable[[float], None]) -> None:
        self._writer.on_commit = told

    def stalled(self, within: float = STALLED) -> str | None:
        running, now = self._writer.running, self._clock.monotonic()
        at = (running, self._writer.tidying)
        if running is None or at != self._seen_running[0]:
            self._seen_running = (at, now)
        since = now - self._seen_running[1]
        if running is None or since <= within:
            return None
        return f"a {'checkpoint' if self._writer.tidying else 'commit'} has not ended for {since:.0f} s"

    @property
    def commits(self) -> int:
        """How many transactions were committed since the store was opened."""
        return self._writer.commits

    @property
    def waiting(self) -> int:
        """How many writes wait for the next one."""
        return self._writer.waiting


def _lane(delivery: Delivery) -> Sequence[tuple[str, str]]:
    return () if delivery.lane is None else ((delivery.route, delivery.lane),)
