"""Windows that are being collected: see them, send one now, hold or drop it."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from relay import journal
from relay.delivery import Window
from relay.ids import DELIVERY, EVENT, DeliveryId
from relay.web import shape
from relay.web.answer import WHO, answer, parameters
from relay.web.desk import Desk, no_delivery


class Windows:
    """The handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def table(self) -> list[web.RouteDef]:
        """What is answered here."""
        return [
            web.get("/windows", self._list),
            web.post("/windows/{id}/flush", self._flush),
            web.post("/windows/{id}/hold", self._hold),
            web.post("/windows/{id}/cancel", self._cancel),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        parameters(request)
        return answer(200, {"items": [self._shown(window) for window in await self._desk.store.windows()]})

    async def _flush(self, request: web.Request) -> web.Response:
        desk, text = self._desk, request.match_info["id"]
        parameters(request)
        number = desk.delivery_id(text)
        found = await desk.store.delivery(number)
        if found is None or found.item.route is None:
            raise no_delivery(text)
        try:
            route = await desk.store.flush(number, desk.clock.now(), desk.kept(found.item.route))
        except KeyError:
            raise no_delivery(text) from None
        journal.manual("flush", request[WHO], delivery_id=text, route=route)
        await desk.hurry([route])
        return answer(200, {"delivery": await desk.item(number)})

    async def _hold(self, request: web.Request) -> web.Response:
        desk, text = self._desk, request.match_info["id"]
        parameters(request)
        number = desk.delivery_id(text)
        route = await self._keep(number, text)
        journal.manual("hold", request[WHO], delivery_id=text, route=route)
        listed = [self._shown(window) for window in await desk.store.windows() if window.id == number]
        return answer(200, {"window": listed[0] if listed else None, "delivery": await desk.item(number)})

    async def _cancel(self, request: web.Request) -> web.Response:
        desk, text = self._desk, request.match_info["id"]
        parameters(request)
        number = desk.delivery_id(text)
        await self._keep(number, text)  # says whether it is an open window, and keeps it from being sent meanwhile
        try:
            route = await desk.cancel(number)
        except KeyError:
            raise no_delivery(text) from None
        journal.manual("cancel", request[WHO], delivery_id=text, route=route)
        return answer(200, {"delivery": await desk.item(number)})

    async def _keep(self, number: DeliveryId, text: str) -> str:
        """Hold an open window; its route."""
        desk = self._desk
        desk.dispatcher.recall([number])
        try:
            route = await desk.store.hold(number, desk.clock.now())
        except KeyError:
            raise no_delivery(text) from None
        desk.dispatcher.recall([number])  # what was read from the store before it was held there
        return route

    def _shown(self, window: Window) -> dict[str, Any]:
        ids = self._desk.store.ids
        return {
            "id": ids.text(DELIVERY, window.id),
            "route": window.route,
            "opened_at": shape.when(window.opened_at),
            "due_at": shape.when(window.due_at),
            "held": window.held,
            "events": [ids.text(EVENT, event) for event in window.events],
        }
