"""Upkeep of the store by hand: what relay does by itself anyway, now."""

from __future__ import annotations

from aiohttp import web

from relay import journal
from relay.web.answer import WHO, answer
from relay.web.desk import Desk
from relay.web.operation import GIVEN, Operation, Parameter, Table, gives
from relay.web.schemas import SWITCH, ref

PRUNE = Operation(
    "POST",
    "/store/prune",
    "prune",
    "store",
    "Removes what is past its time at once, rather than within a minute; answers when that is done.",
    {200: gives("How much that was.", ref("Pruned"))},
    (503,),
    parameters=(Parameter("dry_run", "1 only counts.", SWITCH),),
)


class Upkeep:
    """The handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def table(self) -> Table:
        """What is answered here."""
        return [(PRUNE, self._prune)]

    async def _prune(self, request: web.Request) -> web.Response:
        if request[GIVEN].get("dry_run") == "1":
            done = await self._desk.retention.would()
        else:
            journal.manual("prune", request[WHO])
            done = await self._desk.retention.once()
        return answer(200, {"events": done.events, "deliveries": done.deliveries, "bodies": done.bodies})
