"""What other processes have to do with the store: see relay.shared.Shared."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from relay.ids import DeliveryId
from relay.shared import Member, Told
from relay.stores._sql.connection import Connection
from relay.stores._sql.deltas import Deltas
from relay.stores._sql.writer import Writer
from relay.stores.postgresql.connection import Session
from relay.stores.postgresql.membership import Membership

_LEAVE = (
    "UPDATE delivery SET owner = NULL"
    " WHERE state = 'pending' AND route = ANY($1) AND owner = ANY($2) AND id <> ALL($3::bigint[])"
)
_ERRAND = """
    INSERT INTO errand AS e (name, owner, until) VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
    ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
        WHERE e.until < clock_timestamp() OR e.owner = excluded.owner
            OR NOT EXISTS (SELECT 1 FROM process WHERE process.id = e.owner)
    RETURNING 1
"""
_DONE = "DELETE FROM errand WHERE name = $1 AND owner = $2 RETURNING 1"


class Sharing:
    """See relay.shared.Shared."""

    def __init__(self, member: Membership, writer: Writer) -> None:
        self._member = member
        self._writer = writer

    def lapsed(self) -> bool:
        return self._member.lapsed()

    def follow(self, told: Told) -> None:
        self._member.follow(told)

    def members(self) -> Sequence[Member]:
        return self._member.members

    def ahead(self) -> timedelta:
        return timedelta(milliseconds=self._member.ahead_ms)

    async def leave(self, routes: Collection[str], keeping: Collection[DeliveryId]) -> None:
        mine = list(self._member.mine)

        def command(connection: Connection, deltas: Deltas) -> None:
            assert isinstance(connection, Session)
            connection.bulk(_LEAVE, [list(routes), mine, list(keeping)])

        await self._writer.call(command, about=())

    async def errand(self, name: str, within: timedelta) -> bool:
        member = self._member.id

        def command(connection: Connection, deltas: Deltas) -> bool:
            assert isinstance(connection, Session)
            return bool(connection.bulk(_ERRAND, [name, member, within.total_seconds()]))

        return await self._writer.call(command, about=())

    async def done(self, name: str) -> None:
        member = self._member.id

        def command(connection: Connection, deltas: Deltas) -> None:
            assert isinstance(connection, Session)
            connection.bulk(_DONE, [name, member])

        await self._writer.call(command, about=())
