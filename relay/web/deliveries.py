"""Deliveries by hand: retry one, or all that filters find, and cancel one."""

from __future__ import annotations

from aiohttp import web

from relay import journal
from relay.delivery import State
from relay.ids import DELIVERY
from relay.web import logquery, read, shape
from relay.web.answer import WHO, answer
from relay.web.desk import Desk, no_delivery
from relay.web.filters import PAGING, filters
from relay.web.logquery import BadFilter
from relay.web.operation import GIVEN, Operation, Parameter, Table, gives
from relay.web.schemas import COUNT, DELIVERY_ID, SWITCH, WAITS_FOR, array, closed, nullable, ref, words

_DELIVERY = Parameter("id", f"The id of the delivery ({DELIVERY}…).", DELIVERY_ID, what="a delivery")
_STATUS = Parameter("status", "May be said; nothing else is retried.", array(words([State.FAILED]), minItems=1))
_ITSELF = gives("The delivery as it is now.", closed({"delivery": nullable(ref("LogItem"))}))

RETRY_ALL = Operation(
    "POST",
    "/logs/retry",
    "retryDeliveries",
    "deliveries",
    "Retries all failed deliveries that the filters find.",
    {
        200: gives(
            "How many; how many of these are held until their route may send; and how many were passed over, because "
            "their route sends only what is newest and that was sent or waits (`order: latest`), or because the body "
            "of their event is no longer kept.",
            closed({"count": COUNT, "held": COUNT, "passed_over": COUNT}),
        )
    },
    (503,),
    "Without a filter it wants `all=1`. `limit`, `cursor` and `order` are refused.",
    parameters=(
        Parameter("dry_run", "1 only counts.", SWITCH),
        Parameter("all", "1 for everything that failed.", SWITCH),
    ),
    filters=(*filters(leave_out=(*PAGING, _STATUS.name)), _STATUS),
    refuses=dict.fromkeys(PAGING, "is for lists: all that the other filters find is retried"),
)
RETRY = Operation(
    "POST",
    "/logs/{id}/retry",
    "retryDelivery",
    "deliveries",
    "Makes a failed or cancelled delivery pending, due now; one that is pending becomes due now.",
    {
        200: gives(
            "The delivery as it is now, and what it waits for although it is due.",
            closed({"delivery": nullable(ref("LogItem")), "waits_for": WAITS_FOR}),
        )
    },
    (409, 503),
    "A 409 for what is delivered, held or merged.",
    names=(_DELIVERY,),
)
CANCEL = Operation(
    "POST",
    "/logs/{id}/cancel",
    "cancelDelivery",
    "deliveries",
    "Gives a pending or held delivery up.",
    {200: _ITSELF},
    (409, 503),
    names=(_DELIVERY,),
)


class Deliveries:
    """The handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def table(self) -> Table:
        """What is answered here."""
        return [
            (RETRY_ALL, self._retry_all),
            (RETRY, self._retry),
            (CANCEL, self._cancel),
        ]

    async def _retry(self, request: web.Request) -> web.Response:
        desk, text = self._desk, request.match_info["id"]
        number = desk.delivery_id(text)
        try:
            route = await desk.store.retry(number, desk.clock.now(), sending=desk.dispatcher.sending)
        except KeyError:
            raise no_delivery(text) from None
        journal.manual("retry", request[WHO], delivery_id=text, route=route)
        found = await desk.store.delivery(number)  # before it is sent: what the retry made of it
        desk.dispatcher.again(number, route)
        if desk.kept(route) is not None:
            await desk.look([route])
            found = await desk.store.delivery(number)
        waits = read.waits(found, desk.clock.now(), desk.waits_here) if found is not None else None
        shown = shape.item(found.item) if found is not None else None
        return answer(200, {"delivery": shown, "waits_for": shape.waits(waits)})

    async def _retry_all(self, request: web.Request) -> web.Response:
        desk, now = self._desk, self._desk.clock.now()
        flags = request[GIVEN]
        asked = [(name, value) for name, value in request.query.items() if name not in flags]
        query = logquery.parse(asked, now, desk.store.ids)
        if not set(query.status) <= {State.FAILED}:
            raise BadFilter("only what failed is retried all at once: status takes failed, or is left out")
        if not asked and flags.get("all") != "1":
            raise BadFilter("no filter: name some, such as route=www, or say all=1 for everything that failed")
        dry = flags.get("dry_run") == "1"
        done = await desk.store.retry_all(query, now, dry, desk.dispatcher.sending)
        if not dry:
            journal.manual("retry", request[WHO], query=request.query_string, count=done.count)
            await desk.hurry(done.routes)
        held = sum(number for route, number in done.routes.items() if desk.holds(route))
        return answer(200, {"count": done.count, "held": held, "passed_over": done.passed_over})

    async def _cancel(self, request: web.Request) -> web.Response:
        desk, text = self._desk, request.match_info["id"]
        number = desk.delivery_id(text)
        try:
            route = await desk.cancel(number)
        except KeyError:
            raise no_delivery(text) from None
        journal.manual("cancel", request[WHO], delivery_id=text, route=route)
        return answer(200, {"delivery": await desk.item(number)})
