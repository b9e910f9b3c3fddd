"""Deliveries by hand: retry one, or all that filters find, and cancel one."""

from __future__ import annotations

from aiohttp import web

from relay import journal
from relay.delivery import State
from relay.web import logquery
from relay.web.answer import WHO, answer
from relay.web.desk import Desk, no_delivery
from relay.web.logquery import BadFilter

PAGING = ("limit", "cursor", "order")
"""Filters of a list that say nothing of what is to be found."""
SELECTING = tuple(name for name in logquery.FILTERS if name not in PAGING)


class Deliveries:
    """The handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def table(self) -> list[web.RouteDef]:
        """What is answered here."""
        return [
            web.post("/logs/retry", self._retry_all),
            web.post("/logs/{id}/retry", self._retry),
            web.post("/logs/{id}/cancel", self._cancel),
        ]

    async def _retry(self, request: web.Request) -> web.Response:
        desk, text = self._desk, request.match_info["id"]
        number = desk.delivery_id(text)
        try:
            route = await desk.store.retry(number, desk.clock.now())
        except KeyError:
            raise no_delivery(text) from None
        journal.manual("retry", request[WHO], delivery_id=text, route=route)
        shown = await desk.item(number)  # before it is sent: what the retry made of it
        desk.dispatcher.again(number, route)
        if desk.kept(route) is not None:
            await desk.look([route])
            shown = await desk.item(number)
        return answer(200, {"delivery": shown})

    async def _retry_all(self, request: web.Request) -> web.Response:
        desk, now = self._desk, self._desk.clock.now()
        pairs = list(request.query.items())
        flags = {name: _flag(name, value) for name, value in pairs if name in ("dry_run", "all")}
        filters = [(name, value) for name, value in pairs if name not in flags]
        query = logquery.parse(filters, now, desk.store.ids)
        for name, value in filters:
            if name in PAGING:
                raise BadFilter(f"'{name}' is for lists: all that the other filters find is retried")
            if not value:
                raise BadFilter(f"filter '{name}' is empty")
        if not set(query.status) <= {State.FAILED}:
            raise BadFilter("only what failed is retried all at once: status takes failed, or is left out")
        if not filters and not flags.get("all"):
            raise BadFilter("no filter: name some, such as route=www, or say all=1 for everything that failed")
        dry = flags.get("dry_run", False)
        done = await desk.store.retry_all(query, now, dry)
        if not dry:
            journal.manual("retry", request[WHO], query=request.query_string, count=done.count)
            await desk.hurry(done.routes)
        return answer(200, {"count": done.count, "passed_over": done.passed_over})

    async def _cancel(self, request: web.Request) -> web.Response:
        desk, text = self._desk, request.match_info["id"]
        number = desk.delivery_id(text)
        try:
            route = await desk.cancel(number)
        except KeyError:
            raise no_delivery(text) from None
        journal.manual("cancel", request[WHO], delivery_id=text, route=route)
        return answer(200, {"delivery": await desk.item(number)})


def _flag(name: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise BadFilter(f"{name} takes 1 or 0, not '{value[:40]}'")
    return value == "1"
