"""Windows that are being collected: see them, send one now, hold or drop it."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from relay import journal
from relay.delivery import Window
from relay.ids import DELIVERY, EVENT, DeliveryId
from relay.web import shape
from relay.web.answer import WHO, answer
from relay.web.desk import Desk, no_delivery
from relay.web.operation import Operation, Parameter, Table, gives
from relay.web.schemas import DELIVERY_ID, array, closed, nullable, ref

_CARRIER = Parameter(
    "id", f"The id of the window's carrier ({DELIVERY}…), as `GET /windows` lists it.", DELIVERY_ID, what="a delivery"
)
_ITS_DELIVERY = gives("The carrier as it is now.", closed({"delivery": nullable(ref("LogItem"))}))

LIST = Operation(
    "GET",
    "/windows",
    "listWindows",
    "windows",
    "The windows that still take events, the oldest first; at most 1,000.",
    {200: gives("The windows.", closed({"items": array(ref("Window"))}))},
    (503,),
)
FLUSH = Operation(
    "POST",
    "/windows/{id}/flush",
    "flushWindow",
    "windows",
    "Sends a window now.",
    {200: _ITS_DELIVERY},
    (409, 503),
    names=(_CARRIER,),
)
HOLD = Operation(
    "POST",
    "/windows/{id}/hold",
    "holdWindow",
    "windows",
    "Keeps a window, which goes on taking events, until it is flushed or cancelled.",
    {
        200: gives(
            "The window, and its carrier as it is now.",
            closed({"window": nullable(ref("Window")), "delivery": nullable(ref("LogItem"))}),
        )
    },
    (409, 503),
    names=(_CARRIER,),
)
CANCEL = Operation(
    "POST",
    "/windows/{id}/cancel",
    "cancelWindow",
    "windows",
    "Drops a window.",
    {200: _ITS_DELIVERY},
    (409, 503),
    names=(_CARRIER,),
)


class Windows:
    """The handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def table(self) -> Table:
        """What is answered here."""
        return [
            (LIST, self._list),
            (FLUSH, self._flush),
            (HOLD, self._hold),
            (CANCEL, self._cancel),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        return answer(200, {"items": [self._shown(window) for window in await self._desk.store.windows()]})

    async def _flush(self, request: web.Request) -> web.Response:
        desk, text = self._desk, request.match_info["id"]
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
        number = desk.delivery_id(text)
        route = await self._keep(number, text)
        journal.manual("hold", request[WHO], delivery_id=text, route=route)
        listed = [self._shown(window) for window in await desk.store.windows() if window.id == number]
        return answer(200, {"window": listed[0] if listed else None, "delivery": await desk.item(number)})

    async def _cancel(self, request: web.Request) -> web.Response:
        desk, text = self._desk, request.match_info["id"]
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
