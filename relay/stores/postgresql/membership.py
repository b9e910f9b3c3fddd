"""Who shares the store: each process says that it lives, and notices who no longer does.

A process has a row in `process`, which it renews every `BEAT` seconds, and which ends `LEASE` seconds after that. What
it has in hand is leased to it by that one row: `delivery.owner` names it. The first other process that has seen the row
stand still for that long removes it; from then on the owner is dead, and what it had in hand is anybody's. Its id is
the fencing token: ids only grow, and are never given out twice. A process that was stopped and goes on finds its row
gone: it takes another id and forgets what it had in hand; a result of an attempt made before is recorded only where
nobody else has taken the delivery since.

A process may begin an attempt only while its lease, by its own clock and with a margin, has not ended: it cannot know
what others did since. That clock goes on while a process is stopped, or its machine sleeps, and starts before the
renewal is sent. Where a hypervisor stops all clocks of a machine nobody there knows of it before the next sign of life,
or the next transaction; until then what is already in hand, and need not be taken, may be sent a second time. Others
wait by their own clocks too, and only while they look at it all the time: a database whose clock is put right, or
that stands still for a while, lets nobody seem dead. Only who has just started goes by the database's clock.

What others have changed is told by a notification, as a courtesy; each beat looks by itself, as the guarantee.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
import psycopg

from relay import __version__
from relay.clock import Clock, to_ms
from relay.ids import DeliveryId, Ids
from relay.immutable import immutable
from relay.shared import Member, Told
from relay.store import Unavailable
from relay.stores._sql.connection import Connection as Shared
from relay.stores._sql.deltas import Deltas
from relay.stores._sql.rows import load
from relay.stores._sql.tables import routes_with
from relay.stores.postgresql.burying import bury
from relay.stores.postgresql.connection import Connection, Session, connect, explain
from relay.stores.postgresql.dialect import translated

LEASE = 10.0
"""Seconds for which a process lives after it last said so."""
BEAT = 2.0
"""Seconds between two signs of life."""
CHANNEL = "relay"
"""Of notifications: `look` where something changed that others should know of; `ids …` of what followers are told;
`recall …` of what is not to be sent; `again …` of what one of them was told to send again."""

_MARGIN = 1.0  # seconds by which a process takes its lease for shorter than it is: clocks run unevenly
_SLOTS = 256
_OVERLAP = 60_000  # milliseconds: who wrote a state earlier than that has committed it, or never will
_SOON = 0.02  # seconds for which notifications are gathered
# `time.monotonic` stands still on Linux while the machine sleeps, and others wait no longer for that.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_RENEW = (
    "UPDATE process SET expires = clock_timestamp() + make_interval(secs => $2), stale = $3, following = $4"
    " WHERE id = $1 RETURNING (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
)
_ENTER = (
    "INSERT INTO process (id, slot, name, version, started_at, expires, routes, disabled, following)"
    " VALUES ($1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6), $7, $8, $9)"
    " RETURNING (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
)
_FOLLOW = "WITH said AS (UPDATE process SET following = $2 WHERE id = $1) SELECT pg_notify($3, 'look')"
# All at one moment: no id may be counted whose row is not seen.
_LOOK = """
    SELECT m.value::bigint, p.id, p.expires, p.name, p.version, p.started_at, p.routes, p.following, p.stale,
        p.disabled,
        p.expires < clock_timestamp() AND clock_timestamp() - pg_postmaster_start_time() > make_interval(secs => $1)
    FROM meta m CROSS JOIN process p WHERE m.key = 'members' ORDER BY p.id
"""
# What the dead had begun with is sent by nobody now: it may be merged again.
_LET_GO = "UPDATE delivery SET taken = 0 WHERE taken = 1 AND owner <= $1 AND owner <> ALL($2)"
_JOIN = "UPDATE meta SET value = (value::bigint + 1)::text WHERE key = 'members' RETURNING value::bigint"
# Two looks into the index for each route that has anything pending, but for what its owners have in hand. What this
# process has in hand it knows, unless somebody changed it by hand elsewhere: then it looks too. Not EXISTS, for which
# PostgreSQL may read the whole table: it does not know that what is due comes first in the index.
_DUE_OF = """
    SELECT id FROM delivery WHERE state = 'pending' AND route = found.route AND blocked = 0 AND retried = {retried}
        AND due <= ?1 AND (owner IS NULL OR owner = ANY(?4) OR (owner <= ?2 AND owner <> ALL(?3)))
    ORDER BY due LIMIT 1
"""
_DUE = f"""
    WITH RECURSIVE {routes_with("pending")}
    SELECT route FROM found WHERE route IS NOT NULL
        AND coalesce(({_DUE_OF.format(retried=0)}), ({_DUE_OF.format(retried=1)})) IS NOT NULL
"""  # noqa: S608
# The clock may have been put back since.
_STATES = """
    SELECT kind, name, data, at FROM known
    WHERE at > least($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) - $2
        AND writer <> ALL($3) AND kind IN ('route', 'source')
"""


class Gone(Exception):
    """This process was taken for dead: its row is not there any more."""


class Full(Unavailable):
    """There are as many processes as there may be."""


@immutable
class Living:
    """Who lived at one moment."""

    upto: int = 0
    """The highest id that had been given out."""
    ids: tuple[int, ...] = ()

    def dead(self, owner: int) -> bool:
        """Whether a process has ended for sure: one that came later is not known of."""
        return owner <= self.upto and owner not in self.ids


class Membership:
    """This process among them. Its thread has a connection of its own, so that neither a slow commit nor a busy loop
    makes others believe that it is dead."""

    def __init__(self, url: str, name: str, clock: Clock) -> None:
        self._url = url
        self._name = name
        self._clock = clock
        self._started = to_ms(clock.now())
        self.id = 0
        """This process's present id, and fencing token."""
        self.slot = 0
        """A small number that no other living process has."""
        self.mine: tuple[int, ...] = ()
        """All ids that it ever had."""
        self.living = Living()
        self.members: tuple[Member, ...] = ()
        self.followed = False
        """Whether another process wants to hear what changes."""
        self.stale = 0
        """Results that came too late to be recorded: somebody else had taken over."""
        self.ahead_ms = 0
        """By how much the clock here is ahead of the database's, when it was last asked."""
        self.routes: Sequence[str] = ()
        self.disabled: Sequence[str] = ()
        """Of these. A process says so when it settles, in a transaction that is judged by it."""
        self.following = False
        self.trouble: str | None = None
        self._good_until = 0.0
        self._forgetting = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._told: Told | None = None
        self._ids: Ids
        self._hear: Callable[[str], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._seen: dict[int, str] = {}
        self._standing: dict[int, tuple[datetime, float]] = {}
        """When each row was to end when it was last seen, and since when it has stood still."""
        self._ended: list[str] = []
        """Whose end nobody was told of yet."""
        self._missed = False
        """Whether others have come and gone between two looks, of which nobody was told yet."""
        self._looked: float | None = None
        self._asked = False
        """Whether somebody said that there is something to see."""
        self._states: dict[tuple[str, str], int] = {}
        """When others saved them that were told of last."""
        self.saved: dict[tuple[str, str], int] = {}
        """When this process saved them last: what others did before is of no interest any more."""
        self.known: dict[tuple[str, str], str] = {}
        """What others saved last of routes and sources, as far as it was told of on the loop."""
        self._looked_at = 0

    # -- its own row -------------------------------------------------------------------------------------------------

    def join(self, connection: Connection) -> None:
        """Take an id and a slot, and say that this process lives. Raises psycopg.Error."""
        began = _seconds()
        with connection.transaction():
            found = connection.execute(_JOIN).fetchone()
            assert found is not None
            number = int(found[0])
            taken = {row[0] for row in connection.execute("SELECT slot FROM process").fetchall()}
            free = (each % _SLOTS for each in range(number, number + _SLOTS) if each % _SLOTS not in taken)
            slot = next(free, None)
            if slot is None:
                raise Full(f"{_SLOTS} relays share the database already")
            values = [number, slot, self._name, __version__, self._started, LEASE, *self.said(), self.following]
            self._compare(connection.execute(_ENTER, values).fetchone())
            connection.execute("SELECT pg_notify($1, 'look')", [CHANNEL])  # so that all know of it at once
        self.id, self.slot, self.mine = number, slot, (*self.mine, number)
        self._good_until = began + LEASE - _MARGIN
        self._look(connection)

    def _compare(self, answered: Sequence[Any] | None) -> None:
        """The clock with the database's, which has just said what it says."""
        assert answered is not None
        self.ahead_ms = to_ms(self._clock.now()) - int(answered[0])

    def rejoin(self, gone: int) -> None:
        """Another id, in place of one whose row is gone; whoever notices first does it. Raises psycopg.Error."""
        with self._lock:
            if self.id != gone:
                return
            self._forgetting = True
            connection = connect(self._url, "member")
            try:
                self.join(connection)
            finally:
                connection.close()
                if self.id != gone:  # also where it then could not see who else lives
                    self._call(self._forget)

    def _forget(self) -> None:
        self._ids.take_slot(self.slot)
        if self._told is not None:
            self._told.lost()
        self._forgetting = False

    def lapsed(self) -> bool:
        """Whether others may have taken over what this process has in hand."""
        return self._forgetting or _seconds() > self._good_until

    def ask(self) -> None:
        """At the next beat look also whether something is due that is in this process's hand, and that it may not know
        of: what was committed, though nobody could be told so."""
        self._asked = True

    def said(self) -> tuple[str, str]:
        """What its row says of its routes."""
        return _json(self.routes), _json(self.disabled)

    def say_following(self, connection: Shared, deltas: Deltas) -> None:
        """A command: others are to hear at once whether somebody follows here what they do."""
        assert isinstance(connection, Session)
        connection.bulk(_FOLLOW, [self.id, self.following, CHANNEL])

    # -- the thread --------------------------------------------------------------------------------------------------

    def start(self, ids: Ids, hear: Callable[[str], None]) -> None:
        """Begin to say so, and draw `ids` from its slot. `hear` is told on the loop of what others say of ids."""
        self._loop, self._ids, self._hear = asyncio.get_running_loop(), ids, hear
        self._thread = threading.Thread(target=self._run, name="relay-member", daemon=True)
        self._thread.start()

    def follow(self, told: Told) -> None:
        """Whom to tell, on the loop."""
        self._told = told

    async def stop(self) -> None:
        """End the thread, and say that this process is gone. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._wake, self._thread)
            self._thread = None

    def _wake(self, thread: threading.Thread) -> None:
        """Have the thread see that it is to end, and wait until it has."""
        with contextlib.suppress(psycopg.Error), connect(self._url, "member") as connection:
            connection.execute("SELECT pg_notify($1, 'look')", [CHANNEL])
        thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                connection = self.reach()
                self._beat(connection)
                self.trouble = None
                self._wait(connection)
            except Exception as error:  # noqa: BLE001 - without this thread the process is taken for dead
                self.trouble = explain(error)
                self.let_go()
                self._stop.wait(BEAT / 4)
        try:
            self.reach().execute("DELETE FROM process WHERE id = $1", [self.id])
            self.reach().execute("SELECT pg_notify($1, 'look')", [CHANNEL])
        except psycopg.Error:
            pass  # it is taken for dead a little later
        self.let_go()

    def reach(self) -> Connection:
        """The thread's connection, also before that starts. Raises psycopg.Error."""
        if self._connection is None:
            self._connection = connect(self._url, "member")
            self._connection.execute(f"LISTEN {CHANNEL}")
            self.ask()  # what was said meanwhile nobody heard
        return self._connection

    def let_go(self) -> None:
        """End it; who is at work makes another one."""
        if self._connection is not None:
            try:
                self._connection.close()
            finally:
                self._connection = None

    def _beat(self, connection: Connection) -> None:
        number, began = self.id, _seconds()
        values = [number, LEASE, self.stale, self.following]
        renewed = connection.execute(_RENEW, values).fetchone()
        if renewed is None:
            self.rejoin(number)
            return
        self._compare(renewed)
        if self.id == number:
            self._good_until = began + LEASE - _MARGIN
        self._look(connection)
        told = self._told
        if told is None:
            return
        due = {row[0] for row in connection.execute(translated(_DUE), self._due_values()).fetchall()}
        states = self._changed(connection)
        if due or self._ended or self._missed or states:
            self._call(self._tell, told, due, self._ended, self._missed, states)
            self._ended, self._missed = [], False

    def _due_values(self) -> list[Any]:
        own = self.mine if self._asked else ()
        self._asked = False
        return [to_ms(self._clock.now()), self.living.upto, list(self.living.ids), list(own)]

    def _look(self, connection: Connection) -> None:
        """Who lives, and who has lived until now."""
        rows = connection.execute(_LOOK, [LEASE]).fetchall()
        buried = {row[1] for row in self._dead(rows) if bury(connection, row[1], row[2])}
        living = [row for row in rows if row[1] not in buried]
        self.members = tuple(
            Member(
                name=row[3],
                version=row[4],
                started_at=row[5],
                me=row[1] == self.id,
                stale=row[8],
                routes=load(row[6]),
                disabled=load(row[9]),
            )
            for row in living
        )
        self.followed = any(row[7] for row in living if row[1] != self.id)
        before = self.living.upto
        self.living = Living(rows[0][0] if rows else 0, tuple(row[1] for row in living))
        if self._looked is not None:
            there = {*self.living.ids, *self._seen, *self.mine}
            self._missed |= any(each not in there for each in range(before + 1, self.living.upto + 1))
        left = self._seen.keys() - {row[1] for row in living}
        if left or buried or self._looked is None:
            connection.execute(_LET_GO, [self.living.upto, list(self.living.ids)])
        self._ended += [self._seen[each] for each in sorted(left - set(self.mine))]
        self._seen = {row[1]: row[3] for row in living}
        self._looked = _seconds()

    def _dead(self, rows: Sequence[Any]) -> list[Any]:
        """Those of the rows that have stood still for as long as a lease lasts."""
        now, others = _seconds(), [row for row in rows if row[1] != self.id]
        if self._looked is None:
            return [row for row in others if row[10]]
        # Where nobody looked for long, all of them may only just have been able to renew theirs.
        before = self._standing if now - self._looked < LEASE / 2 else {}
        self._standing = {}
        for row in others:
            expires, since = before.get(row[1], (row[2], now))
            self._standing[row[1]] = (row[2], since if expires == row[2] else now)
        return [row for row in others if now - self._standing[row[1]][1] >= LEASE]

    def _changed(self, connection: Connection) -> dict[tuple[str, str], tuple[str, int]]:
        """What others have written of routes and sources since the last look, and when, by kind and name."""
        found = connection.execute(_STATES, [self._looked_at, _OVERLAP, list(self.mine)]).fetchall()
        changed: dict[tuple[str, str], tuple[str, int]] = {}
        for kind, name, data, at in found:
            self._looked_at = max(self._looked_at, at)
            if self._states.get((kind, name)) != at:
                self._states[kind, name] = at
                changed[kind, name] = data, at
        return changed

    def _tell(
        self,
        told: Told,
        due: Collection[str],
        ended: Sequence[str],
        missed: bool,
        states: Mapping[tuple[str, str], tuple[str, int]],
    ) -> None:
        for name in ended:
            told.ended(name)
        if missed:
            told.missed()
        changed: dict[str, dict[str, Any]] = {}
        for (kind, name), (data, at) in states.items():
            if at < self.saved.get((kind, name), 0):
                continue  # it was read before that was written over it
            self.known[kind, name] = data
            changed.setdefault(kind, {})[name] = orjson.loads(data)
        for kind, some in changed.items():
            told.states(kind, some)
        if due:
            told.due(due)

    def _wait(self, connection: Connection) -> None:
        """Until the next beat, or until somebody says that there is something to see."""
        until = _seconds() + BEAT
        while not self._stop.is_set() and (left := until - _seconds()) > 0:
            for notice in connection.notifies(timeout=min(left, 0.5), stop_after=1):
                if notice.payload.startswith("ids ") and self._hear is not None:
                    self._call(self._hear, notice.payload)
                elif notice.payload.startswith("recall ") and self._told is not None:
                    self._call(self._recall, self._told, DeliveryId(int(notice.payload.removeprefix("recall "))))
                elif notice.payload.startswith("again ") and self._told is not None:
                    whose, delivery = map(int, notice.payload.split()[1:])
                    if whose not in self.mine:
                        self._call(self._told.again, DeliveryId(delivery))
                elif notice.payload == "look" and notice.pid != connection.info.backend_pid:
                    until, self._asked = min(until, _seconds() + _SOON), True

    def _recall(self, told: Told, delivery: DeliveryId) -> None:
        told.recall([delivery])
        if self._hear is not None:
            self._hear(f"recalled {delivery}")

    def _call(self, what: Callable[..., None], *values: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(what, *values)
        except RuntimeError:
            self._stop.set()  # the loop is gone


def _seconds() -> float:
    """On a clock that no operator sets and no sleep stops."""
    return time.clock_gettime(_CLOCK)


def _json(names: Sequence[str]) -> str:
    return orjson.dumps(list(names)).decode()
