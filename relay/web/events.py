"""Events by hand: route a stored one again, or remove what it said."""

from __future__ import annotations

from aiohttp import web

from relay import journal
from relay.clock import to_ms
from relay.ids import EVENT
from relay.store import LogQuery
from relay.web.answer import WHO, Conflict, answer
from relay.web.desk import Desk, no_event
from relay.web.operation import GIVEN, Operation, Parameter, Table, gives
from relay.web.schemas import DELIVERY_ID, EVENT_ID, TEXT, array, closed

_EVENT = Parameter("id", f"The id of the event ({EVENT}…).", EVENT_ID, what="an event")

REPLAY = Operation(
    "POST",
    "/events/{id}/replay",
    "replayEvent",
    "events",
    "Routes a stored event again under today's config, as new deliveries.",
    {
        200: gives(
            "The routes that want it, and the new deliveries.",
            closed({"id": EVENT_ID, "routes": array(TEXT, minItems=1), "deliveries": array(DELIVERY_ID)}),
        )
    },
    (409, 503),
    "A 409 where its body is no longer kept, or no route wants it.",
    names=(_EVENT,),
    parameters=(Parameter("route", "To this route alone.", {"type": "string", "minLength": 1}),),
)
FORGET = Operation(
    "POST",
    "/events/{id}/forget",
    "forgetEvent",
    "events",
    "Removes an event's body and headers for good.",
    {200: gives("It is done.", closed({"id": EVENT_ID, "forgotten": {"type": "boolean", "const": True}}))},
    (409, 503),
    "A 409 while something of it is still to be sent.",
    names=(_EVENT,),
)

_MOST_SHOWN = 1000


class Events:
    """The handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def table(self) -> Table:
        """What is answered here."""
        return [
            (REPLAY, self._replay),
            (FORGET, self._forget),
        ]

    async def _replay(self, request: web.Request) -> web.Response:
        desk, text = self._desk, request.match_info["id"]
        name = request[GIVEN].get("route")
        number = desk.event_id(text)
        stored = await desk.store.event(number)
        if stored is None:
            raise no_event(text)
        if name is not None:
            desk.route(name)
        if stored.body is None:
            what = "its body is no longer kept: have it sent again by its sender"
            raise Conflict(f"{text} cannot be replayed: {what}")
        before = desk.store.ids.draw(to_ms(desk.clock.now()))  # new deliveries have ids above it
        added = await desk.pipeline.replay(desk.reloader.runtime.routing, stored, name)
        if not added.routes:
            nobody = "no route wants it" if name is None else f"the route {name} does not want it"
            raise Conflict(f"{text} cannot be replayed: {nobody} under today's config, 'relay explain {text}' says why")
        journal.manual("replay", request[WHO], event_id=text, routes=list(added.routes))
        desk.dispatcher.offer(added)
        query = LogQuery(event_id=(number,), route=added.routes, before=before, ascending=True, limit=_MOST_SHOWN)
        new = [item.id for item in (await desk.store.search(query)).items]
        return answer(200, {"id": text, "routes": added.routes, "deliveries": new})

    async def _forget(self, request: web.Request) -> web.Response:
        desk, text = self._desk, request.match_info["id"]
        try:
            await desk.store.forget(desk.event_id(text))
        except KeyError:
            raise no_event(text) from None
        journal.manual("forget", request[WHO], event_id=text)
        return answer(200, {"id": text, "forgotten": True})
