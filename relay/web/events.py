"""Events by hand: route a stored one again, or remove what it said."""

from __future__ import annotations

from aiohttp import web

from relay import journal
from relay.clock import to_ms
from relay.store import LogQuery
from relay.web.answer import WHO, Conflict, answer, parameters
from relay.web.desk import Desk, no_event

_MOST_SHOWN = 1000


class Events:
    """The handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def table(self) -> list[web.RouteDef]:
        """What is answered here."""
        return [
            web.post("/events/{id}/replay", self._replay),
            web.post("/events/{id}/forget", self._forget),
        ]

    async def _replay(self, request: web.Request) -> web.Response:
        desk, text = self._desk, request.match_info["id"]
        name = parameters(request, "route").get("route")
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
