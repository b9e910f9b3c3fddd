"""The thread that commits, on PostgreSQL: one transaction for a batch, a statement or two for each kind of writes.

It keeps its connection; one that is lost, or takes no writes, is made anew at the next batch, or after a second. A
transaction that met another one in a deadlock is made again. What a commit that was cut off came to nobody knows: who
waited for it is told that nothing was promised.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson
import psycopg
from psycopg import errors

from relay.store import Counts
from relay.stores._sql import committing, rows
from relay.stores._sql.batch import Add, Batch, Call
from relay.stores._sql.changes import MOST, Changed
from relay.stores._sql.connection import Connection, run
from relay.stores._sql.deltas import Deltas, shift
from relay.stores._sql.results import Record
from relay.stores._sql.rows import Row
from relay.stores._sql.settling import Plan
from relay.stores.postgresql import transaction
from relay.stores.postgresql.ahead import Ahead, Unforeseen
from relay.stores.postgresql.connection import Session, connect, explain
from relay.stores.postgresql.joining import Joining
from relay.stores.postgresql.membership import CHANNEL, Gone, Membership
from relay.stores.postgresql.shapes import Shapes
from relay.stores.postgresql.transaction import Outrun, Relaned

_TRIES = 8  # for a transaction that others were in the way of
_COUNT = (
    "SELECT route, sum(pending)::bigint, sum(held)::bigint FROM tally"
    " GROUP BY route HAVING sum(pending) <> 0 OR sum(held) <> 0"
)
_IDS_AT_ONCE = 300  # in one notification: it takes 8,000 bytes

_OWN_FAULT = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.ProgrammingError,
    psycopg.NotSupportedError,
    errors.ProgramLimitExceeded,
    struct.error,  # a number too large for its column, see bulk
    OverflowError,
    ValueError,
    TypeError,
)
_IN_THE_WAY = (errors.DeadlockDetected, errors.SerializationFailure)
# The last one: a session that came to a standby, or to a database that was set so, takes no writes for as long as it
# lasts. Where its name leads by now only a new one finds out.
_LOST = (psycopg.OperationalError, psycopg.InterfaceError, errors.ReadOnlySqlTransaction)


class Committer(committing.Committer):
    """The writer's thread."""

    OWN_FAULT = _OWN_FAULT
    NOBODYS_FAULT = (psycopg.Error, OSError)

    def __init__(
        self,
        url: str,
        connection: Session,
        member: Membership,
        answer: Callable[[Batch], None],
        rested: Callable[[], None],
        counts: Mapping[str, Counts],
    ) -> None:
        self._made = Shapes()
        super().__init__(answer, rested, counts, self._made)
        self._url = url
        self._session: Session | None = connection
        self._member = member
        self._untouched = False
        self._waiting: Deltas = {}
        """What is pending and held: as it was counted last, and what this process has changed since. Others change it
        too, of which nothing is known here before it is counted again."""
        self._know(counts)
        self.recount = False
        """Whether all counts are to be read anew with the next transaction."""
        self.statements = 0
        """How many statements were sent, for `bench`."""

    def _joining(self, connection: Connection, deltas: Deltas) -> Joining:
        assert isinstance(connection, Session)
        return Joining(connection, self.unfinished, deltas, self.shapes, self._member.id)

    def _explain(self, error: BaseException) -> str:
        return explain(error)

    def _end(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._session is not None:
            self._session.raw.close()
            self._session = None

    def _open(self) -> Session:
        if self._session is None or self._session.raw.closed:
            self._session = Session(connect(self._url, "writer"))
            self.recount = True
            self._member.ask()
        return self._session

    # -- one transaction ---------------------------------------------------------------------------------------------

    def _transaction(
        self,
        adds: Sequence[Add],
        records: Sequence[Record],
        calls: Sequence[Call],
        rejections: Sequence[Row],
        batch: Batch,
    ) -> None:
        """Write and commit, or raise with nothing written. Only then does `batch` learn of it."""
        attempt = partial(self._try, adds, records, calls, rejections, batch)
        relaned = False
        for again in range(_TRIES, -1, -1):
            member = self._member.id
            self._untouched = self._session is not None
            try:
                attempt(relaned)
                return
            except Relaned:
                relaned = True
            except _LOST as error:
                # A connection that was lost since it was last used, before anything was done with it: with a new one.
                if isinstance(error, _IN_THE_WAY):
                    if not again:
                        raise
                elif not self._untouched:
                    raise
            except Gone:
                # Stopped for longer than the lease, or cut off from the database: under another id from now on.
                self._member.rejoin(member)
        raise errors.SerializationFailure("other processes are in the way again and again")

    def _try(
        self,
        adds: Sequence[Add],
        records: Sequence[Record],
        calls: Sequence[Call],
        rejections: Sequence[Row],
        batch: Batch,
        relaned: bool,
    ) -> None:
        session = self._open()
        watched = self.following or self._member.followed
        slowly = calls or rejections or watched or relaned or self.recount
        if not slowly and self._ahead(session, adds, records, batch):
            return
        before = session.statements
        deltas: Deltas = {}
        failed: list[tuple[asyncio.Future[Any], BaseException]] = []
        results: list[tuple[asyncio.Future[Any], Any]] = []
        counts = None
        try:
            # On its own: rows that others may make too are not kept locked for as long as a batch takes.
            self._made.prepare(session, [add.adding for add in adds])
            lanes, windows, closing = self._about(adds, records, calls)
            closing = closing or relaned
            session.changed = set() if watched else None
            transaction.begin(session, self._member.id, closing, lanes, windows)
            self._untouched = False
            ahead = self._outrun(session, adds) if lanes or windows else {}
            failed.extend((add.done, ahead[id(add)]) for add in adds if id(add) in ahead)
            fresh = [add for add in adds if id(add) not in ahead] if ahead else adds
            if fresh:
                added = self._joining(session, deltas).add([add.adding for add in fresh])
                results.extend(zip((add.done for add in fresh), added, strict=True))
            late: Sequence[int] = ()
            if records:
                late = transaction.record(session, records, deltas, self._member.mine, None if closing else lanes)
                results.extend((record.done, None) for record in records)
            before_calls = {route: list(both) for route, both in deltas.items()}
            for call in calls:
                try:
                    results.append((call.done, run(session, call.run, deltas)))
                except Exception as error:  # its caller's to judge
                    if isinstance(error, psycopg.Error) and not isinstance(error, _OWN_FAULT):
                        raise
                    failed.append((call.done, error))
                    self.shapes.undone()
            if rejections:
                transaction.reject(session, rejections)
                if session.changed is not None:
                    session.changed.update(row[0] for row in rejections)
            transaction.count(session, deltas, self._member.slot)
            # What is held, released or moved by hand is others' as well, by the thousand: they may have done the same.
            if self.recount or deltas != before_calls or self._too_few(deltas):
                self.recount = False  # who asks for it from here on wants it done once more
                counts = self._counted(session)
            # A plan changes nothing that others look for. It would wake who asked for it, and for what is due elsewhere
            # asks for the next one.
            if late or any(call.about is None and not isinstance(call.run, Plan) for call in calls):
                session.bulk("SELECT pg_notify($1, 'look')", [CHANNEL])
            changed = self._changes(session)
            if session.raw.execute("COMMIT").statusmessage != "COMMIT":
                raise psycopg.InternalError("the transaction was rolled back where it was to be committed")
        except BaseException as error:
            self.recount = True
            self.shapes.undone()
            self._undo(session, error)
            raise
        finally:
            session.changed = None
            self.statements += session.statements - before
        self.shapes.committed()
        self._member.stale += len(late)
        batch.failed.extend(failed)
        batch.results.extend(results)
        if counts is not None:
            batch.counts, batch.deltas = counts, {}
            self._know(counts)
            self.unfinished.clear()
            self.unfinished.update(committing.sums(counts))
        else:
            self._shift(deltas, batch)
        if changed:
            batch.changed.append(changed)

    def _ahead(self, session: Session, adds: Sequence[Add], records: Sequence[Record], batch: Batch) -> bool:
        """The common case, in two round trips: whether it was one, and is committed. Otherwise nothing was written."""
        lanes, windows, closing = self._about(adds, records, ())
        if lanes or windows or closing:
            return False
        before = session.statements
        deltas: Deltas = {}
        ahead = Ahead(session)
        try:
            self._made.prepare(session, [add.adding for add in adds])
            try:
                transaction.begin_ahead(ahead, self._member.id)
                added = self._joining(ahead, deltas).add([add.adding for add in adds]) if adds else []
                transaction.record(ahead, records, deltas, self._member.mine)
                transaction.count(ahead, deltas, self._member.slot)
            except Unforeseen:
                return False
            if self._too_few(deltas) or not ahead.agreed():
                return False
            self._untouched = False  # until here nothing can have been committed
            ahead.commit()
        except BaseException as error:
            self.shapes.undone()
            self._undo(session, error)
            raise
        finally:
            self.statements += session.statements - before
        batch.results.extend(zip((add.done for add in adds), added, strict=True))
        batch.results.extend((record.done, None) for record in records)
        self._shift(deltas, batch)
        return True

    def _shift(self, deltas: Deltas, batch: Batch) -> None:
        for route, (pending, held) in deltas.items():
            shift(batch.deltas, route, pending, held)
            shift(self._waiting, route, pending, held)
            self.unfinished[route] = self.unfinished.get(route, 0) + pending + held

    def _know(self, counts: Mapping[str, Counts]) -> None:
        self._waiting = {route: [each.pending, each.held] for route, each in counts.items()}

    def _too_few(self, deltas: Deltas) -> bool:
        """Whether a transaction takes away more than there is as far as this process knows: what others have added."""
        return any(
            change < 0 and there + change < 0
            for route, both in deltas.items()
            for change, there in zip(both, self._waiting.get(route, (0, 0)), strict=True)
        )

    def _about(
        self, adds: Sequence[Add], records: Sequence[Record], calls: Sequence[Call]
    ) -> tuple[set[tuple[str, str]], set[tuple[str, str]], bool]:
        """The lanes and windows that a batch touches, and whether it may be any."""
        lanes, windows = transaction.lanes_of(owed for add in adds for owed in add.adding.owed)
        for record in records:
            delivery = record.result.delivery
            if delivery.lane is not None:
                lanes.add((delivery.route, delivery.lane))
        closing = False
        for call in calls:
            if call.about is None:
                closing = True
            else:
                lanes.update(call.about)
        # It may have been put into another lane while it was sent.
        closing = closing or any(record.result.ordered and record.result.delivery.lane is None for record in records)
        return lanes, windows, closing

    @staticmethod
    def _outrun(session: Session, adds: Sequence[Add]) -> dict[int, Outrun]:
        """The events that something of their lanes or windows, which came before them, has a later id than; what comes
        after such an event is not to pass it meanwhile."""
        ahead: dict[int, Outrun] = {}
        behind: set[tuple[str, str, str]] = set()
        first: dict[tuple[str, str, str], int] = {}
        for add in adds:
            lanes, windows = transaction.lanes_of(add.adding.owed)
            if not (lanes or windows):
                continue
            keys = [("lane", *each) for each in lanes] + [("window", *each) for each in windows]
            newest = max(first.get(key, 0) for key in keys)
            unknown = [key for key in keys if key not in first]
            if unknown:
                newest = max(newest, transaction.newest(session, lanes, windows, add.adding.id))
            if newest >= add.adding.id or not behind.isdisjoint(keys):
                ahead[id(add)] = Outrun(newest)
                behind.update(keys)
            for key in keys:
                first[key] = max(newest, add.adding.id)
        return ahead

    @staticmethod
    def _counted(session: Session) -> dict[str, Counts]:
        """As of this moment, this transaction included: whatever it changed others have committed before it, and cannot
        change again before it ends."""
        return {route: Counts(max(0, pending), max(0, held)) for route, pending, held in session.bulk(_COUNT, [])}

    # -- who follows -------------------------------------------------------------------------------------------------

    def _changes(self, session: Session) -> Changed | None:
        """What this transaction changed: for those who follow it here, and a word to those who do elsewhere."""
        ids, session.changed = session.changed, None
        if not ids:
            return None
        numbers = sorted(ids)
        if self._member.followed:
            for start in range(0, min(len(numbers), MOST), _IDS_AT_ONCE):
                some = [self._member.id, *numbers[start : start + _IDS_AT_ONCE]]
                session.bulk("SELECT pg_notify($1, $2)", [CHANNEL, f"ids {orjson.dumps(some).decode()}"])
        return read_changes(session, numbers) if self.following else None

    def _undo(self, session: Session, error: BaseException) -> None:
        lost = isinstance(error, _LOST) and not isinstance(error, _IN_THE_WAY)
        if lost or session.raw.closed:
            self._close()
            return
        try:
            session.raw.rollback()
        except psycopg.Error:
            self._close()


_ENTRIES = (
    "CASE WHEN e.changes IS NULL THEN NULL"
    " ELSE (SELECT json_agg(entry_id)::text FROM mention WHERE event_id = e.id) END"
)
_DELIVERIES = (
    f"SELECT {rows.ITEM_COLUMNS}, {_ENTRIES} FROM delivery d JOIN event e ON e.id = d.event_id"  # noqa: S608
    " WHERE d.id = ANY($1) ORDER BY d.id"
)
_UNMATCHED = f"SELECT {rows.UNMATCHED_COLUMNS}, {_ENTRIES} FROM event e WHERE e.id = ANY($1) ORDER BY e.id"  # noqa: S608
_REJECTED = f"SELECT {rows.REJECTED_COLUMNS} FROM rejection WHERE id = ANY($1) ORDER BY id"  # noqa: S608
CHANGED = (_DELIVERIES, _UNMATCHED, _REJECTED)
"""What became of rows with these ids."""


def read_changes(session: Session, numbers: Sequence[int]) -> Changed:
    """The rows with these ids as they are now."""
    some = [list(numbers[:MOST])]
    deliveries, unmatched, rejected = (session.bulk(query, some) for query in CHANGED)
    return Changed(deliveries, unmatched, rejected, len(numbers) > MOST)
