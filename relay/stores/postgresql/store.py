"""The verbs of the store: see relay.store.Store for what each promises."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import orjson

from relay.clock import Clock, from_ms, to_ms
from relay.delivery import Added, Delivery, HeldReason, LogItem, Mark, Owed
from relay.event import Event
from relay.ids import DeliveryId, EventId, Ids
from relay.jsontext import dumps
from relay.lane import Order
from relay.memory import CLAIMED
from relay.steps import BEHIND
from relay.store import STALLED, Haste, Pruned, Settled, StoreStatus, Unavailable, quickly
from relay.stores._sql import reader as reading
from relay.stores._sql import rows
from relay.stores._sql.changes import Changed
from relay.stores._sql.connection import Connection as Shared
from relay.stores._sql.deltas import Deltas
from relay.stores._sql.settling import Verdict
from relay.stores._sql.store import SqlStore
from relay.stores._sql.writer import Writer
from relay.stores.postgresql import committer, judging, pruning
from relay.stores.postgresql.claiming import LEASED, Lease, Take
from relay.stores.postgresql.committer import Committer
from relay.stores.postgresql.connection import Session
from relay.stores.postgresql.membership import BEAT, CHANNEL, Membership
from relay.stores.postgresql.reader import Reader
from relay.stores.postgresql.schema import LAST_ID
from relay.stores.postgresql.sharing import Sharing
from relay.stores.postgresql.transaction import Outrun

_LETTING_GO, _LOOKING = 1.0, 0.01  # seconds for another process to let go of what was recalled; between two looks

_LET_GO = "UPDATE delivery SET owner = NULL WHERE id = $1 AND owner = ANY($2) AND state <> 'pending'"
_IN_OTHER_HANDS = """
    SELECT id FROM delivery
    WHERE id = ANY($1) AND owner IS NOT NULL AND owner <> ALL($2) AND (owner > $3 OR owner = ANY($4))
"""
_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_SAVE = """
    INSERT INTO known AS k (kind, name, data, writer, at)
    SELECT $1, v.name, v.data, $4, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM unnest($2::text[], $3::text[]) AS v(name, data) ORDER BY v.name
    ON CONFLICT (kind, name) DO UPDATE SET data = excluded.data, writer = excluded.writer, at = excluded.at
        WHERE k.data <> excluded.data AND (
            $5 AND ($8 = '' OR strpos(k.data, $8) = 0) OR k.writer = ANY($6) OR k.data = (
                SELECT e.data FROM unnest($2::text[], $7::text[]) AS e(name, data) WHERE e.name = k.name
            )
        )
    RETURNING name, at
"""


class PostgresStore(SqlStore):
    """The Store on PostgreSQL. See relay.store.Store for what each verb promises."""

    def __init__(
        self,
        url: str,
        clock: Clock,
        ids: Ids,
        member: Membership,
        writing: Committer,
        write: Writer,
        readers: tuple[Reader, Reader, Reader],
        notes: Sequence[str],
    ) -> None:
        claims, logs, self._glances = readers
        super().__init__(clock, ids, write, claims, logs)
        self._url = url
        self._member = member
        self._writing = writing
        self._notes = notes
        self.shared = Sharing(member, write)
        self._told: Callable[[Sequence[LogItem], bool], None] | None = None
        self._hearing: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Lock()
        self._closed = False
        self._counting = asyncio.get_running_loop().create_task(self._count(), name="counts")
        member.start(ids, self._hear)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def add(self, event: Event, owed: Sequence[Owed], mark: Mark | None = None) -> Added:
        while True:
            member = self._member.id
            try:
                added = await super().add(event, owed, mark)
                if self._member.id != member:  # others may have taken over what was born in its hand
                    added = replace(added, ready=(), looks=added.looks | {each.route for each in added.ready})
                return added
            except Outrun as ahead:
                # Another process, or its clock, was ahead: what comes later must have a later id.
                self.ids.pass_by(ahead.newest)
                now = to_ms(self._clock.now())
                event = replace(event, id=EventId(self.ids.draw(now)))
                for each in owed:
                    each.delivery.id, each.delivery.event = DeliveryId(self.ids.draw(now)), event
                owed = [self._as_kept(each) for each in owed]

    async def settle(self, active: Collection[str], kept: Mapping[str, HeldReason]) -> Settled:
        self._member.routes = sorted(
            {*active, *(route for route, why in kept.items() if why is not HeldReason.REMOVED)}
        )
        self._member.disabled = sorted(route for route, why in kept.items() if why is HeldReason.DISABLED)
        settled = await super().settle(active, kept)
        if settled.released:
            # What they had in hand when it was held is theirs yet, and they may have let go of it.
            with suppress(Unavailable):
                await self._say("look")
        with suppress(Unavailable):  # it is settled; what others did of it meanwhile is counted a little later
            await self._recount()
        return settled

    def _declare(self, connection: Shared) -> None:
        assert isinstance(connection, Session)
        judging.declare(connection, self._member.id, *self._member.said())

    def _judge(self, connection: Shared, routes: Collection[str]) -> Mapping[str, Verdict]:
        assert isinstance(connection, Session)
        return judging.judge(connection, routes, self._wish)

    def _in_other_hands(self, connection: Shared, deliveries: Collection[int]) -> Collection[int]:
        assert isinstance(connection, Session)
        mine, living = self._member.mine, self._member.living
        values = [list(deliveries), list(mine), living.upto, list(living.ids)]
        return [row[0] for row in connection.bulk(_IN_OTHER_HANDS, values)]

    async def set_back(self, by: timedelta = timedelta()) -> int:
        # Each of them may notice it of its own clock, at its own time: what one has moved, another one leaves as it is.
        # And how far that of another one went nobody knows here.
        if await self._alone_behind(self._clock.now()):
            return 0
        [(newest,)] = await self._logs.ask(LAST_ID, [])
        self.ids.pass_by(newest or 0)  # others draw ids as well: what is newest is theirs, too
        return await super().set_back()

    async def _alone_behind(self, now: datetime) -> bool:
        """Whether it is only the clock of this process that is behind, as far as the database knows: what others have
        set is not to be moved by it."""
        if all(each.me for each in self._member.members):
            return False
        [(moment,)] = await self._logs.ask(_NOW, [])
        return bool(from_ms(moment) - now >= BEHIND)

    async def take(self, delivery: Delivery, now: datetime) -> Delivery | None:
        about = () if delivery.lane is None else ((delivery.route, delivery.lane),)
        mine = self._member.mine
        if not await self._writer.call(Take(delivery.id, delivery.lane, to_ms(now), mine), about=about):
            return None
        delivery.reserved = True
        whole = await self._claims.collected(delivery)
        return whole if self._still(mine) else None

    def _still(self, mine: tuple[int, ...]) -> bool:
        """Whether what was leased under the last of these ids is still this process's: not where it was taken for dead
        meanwhile, for then `lost` may have been told before that came into its hand."""
        return self._member.id == mine[-1]

    async def cancel(self, delivery: DeliveryId, now: datetime) -> str:
        route = await super().cancel(delivery, now)
        await self._recall(delivery)
        return route

    async def hold(self, window: DeliveryId, now: datetime) -> str:
        route = await super().hold(window, now)
        await self._recall(window)
        return route

    async def retry(
        self, delivery: DeliveryId, now: datetime, after: int | None = None, sending: Collection[DeliveryId] = ()
    ) -> str:
        route = await super().retry(delivery, now, after, sending)
        await self._say(f"again {self._member.id} {delivery}")
        return route

    async def _recall(self, delivery: DeliveryId) -> None:
        """Whoever has it in hand is not to begin with it: waits a moment until that one has let go of it."""
        await self._say(f"recall {delivery}")
        until = monotonic() + _LETTING_GO
        while monotonic() < until:
            found = await self._logs.ask("SELECT owner FROM delivery WHERE id = $1", [delivery])
            owner = found[0][0] if found else None
            if owner is None or owner in self._member.mine or self._member.living.dead(owner):
                return
            await asyncio.sleep(_LOOKING)

    async def _let_go(self, delivery: int) -> None:
        def command(connection: Shared, deltas: Deltas) -> None:
            assert isinstance(connection, Session)
            connection.bulk(_LET_GO, [delivery, list(self._member.mine)])

        with contextlib.suppress(Unavailable):
            await self._writer.call(command, about=())

    async def _say(self, what: str) -> None:
        """Tell all processes."""

        def command(connection: Shared, deltas: Deltas) -> None:
            assert isinstance(connection, Session)
            connection.bulk("SELECT pg_notify($1, $2)", [CHANNEL, what])

        await self._writer.call(command, about=())

    async def claim(
        self,
        route: str,
        retried: bool | None,
        now: datetime,
        limit: int,
        exclude: Collection[DeliveryId],
        most_bytes: int = CLAIMED,
    ) -> list[Delivery]:
        found: list[Delivery] = []
        mine, living = self._member.mine, self._member.living
        for kind in (False, True) if retried is None else (retried,):
            lease = Lease(route, kind, to_ms(now), exclude, limit, most_bytes, mine, living)
            leased = await self._writer.call(lease, about=())
            for row in await self._claims.ask(LEASED, [leased]) if leased else ():
                delivery = reading.claimed(row, route)
                if self._orders.get(route) is Order.LATEST:
                    delivery.reserved = delivery.reserved and delivery.lane is None
                found.append(await self._claims.whole(delivery, row[rows.CLAIMED]))
        if not self._still(mine):
            raise Unavailable("this relay was taken for dead while it read what is due: others may have it")
        if retried is None:
            found = sorted(found, key=lambda delivery: (delivery.due, delivery.id))[:limit]
        return found

    async def prune(
        self,
        now: datetime,
        retention: timedelta,
        bodies: timedelta,
        told: Callable[[Pruned], None] | None = None,
        haste: Callable[[], Haste] = quickly,
    ) -> Pruned:
        async with self._pruning:
            return await pruning.prune(self._url, now, retention, bodies, told, haste)

    async def save_states(
        self,
        kind: str,
        states: Mapping[str, Mapping[str, Any]],
        *,
        over: bool = True,
        unless: Mapping[str, str] | None = None,
    ) -> None:
        names, data = list(states), [dumps(dict(state)).decode() for state in states.values()]
        known = [self._member.known.get((kind, name)) for name in names]
        # As it stands in the data: within a text there would be backslashes before the quotes.
        but = dumps(dict(unless or {})).decode()[1:-1]

        def command(connection: Shared, deltas: Deltas) -> list[tuple[Any, ...]]:
            assert isinstance(connection, Session)
            member = self._member
            saved = connection.bulk(_SAVE, [kind, names, data, member.id, over, list(member.mine), known, but])
            if saved:
                connection.bulk("SELECT pg_notify($1, 'look')", [CHANNEL])
            return saved

        for name, at in await self._writer.call(command, about=()):
            self._member.saved[kind, name] = at

    # -- its state ---------------------------------------------------------------------------------------------------

    async def _count(self) -> None:
        """What waits is counted anew now and then: others change it too."""
        while True:
            await asyncio.sleep(BEAT)
            with suppress(Unavailable):
                await self._recount()

    async def _recount(self) -> None:
        self._writing.recount = True
        await self._writer.call(lambda connection, deltas: None, about=())

    async def status(self) -> StoreStatus:
        found = await self._glances.status()
        counts = self.counts().values()
        pending = sum(each.pending for each in counts)
        return replace(
            found,
            pending=pending,
            held=sum(each.held for each in counts),
            oldest_pending=found.oldest_pending if pending else None,
        )

    async def watch(self, told: Callable[[Sequence[LogItem], bool], None] | None) -> None:
        self._told = told
        self._member.following = told is not None
        await super().watch(told)
        with suppress(Unavailable):  # then they hear of it with the next sign of life
            await self._writer.call(self._member.say_following, about=())

    def _hear(self, payload: str) -> None:
        """Something that is followed here was changed elsewhere, or something was recalled that may be in hand here."""
        word, _, rest = payload.partition(" ")
        if word == "recalled":
            self._do(self._let_go(int(rest)))
            return
        whose, *numbers = orjson.loads(rest)
        if self._told is not None and whose not in self._member.mine:
            self._do(self._look_at(numbers))

    def _do(self, what: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(what)
        self._hearing.add(task)
        task.add_done_callback(self._hearing.discard)

    async def _look_at(self, numbers: Sequence[int]) -> None:
        try:
            deliveries, unmatched, rejected = [
                await self._logs.ask(query, [list(numbers)]) for query in committer.CHANGED
            ]
        except Unavailable:
            deliveries = unmatched = rejected = []
        if self._told is not None:
            changed = Changed(deliveries, unmatched, rejected)
            self._told(changed.items(self.ids), not changed)

    def notes(self) -> Sequence[str]:
        return self._notes

    def trouble(self) -> str | None:
        return self._writer.trouble or self._member.trouble or super().stalled()

    def stalled(self, within: float = STALLED) -> str | None:
        """Never: against a database that does not answer a restart of relay helps nothing."""
        return None

    async def restored(self) -> datetime | None:
        """A database that was restored does not know it: see docs/scaling.md for what to do."""
        return None

    async def accepted(self) -> None:
        return None

    async def close(self) -> None:
        async with self._closing:
            if self._closed:
                return
            self._counting.cancel()
            try:
                for each in (self._claims, self._logs, self._glances):
                    await each.close()
            finally:
                await self._writer.close()
                await self._member.stop()
                self._closed = True
