"""All pages by name, and what a person sees after an action or in place of an error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from relay.web.dashboard import entry, logs, navigation, overview, page, receipt, record, routes
from relay.web.dashboard.page import HEADERS, Visit
from relay.web.desk import Desk

_WORDS = {
    400: "That cannot be asked",
    401: "A token is needed",
    403: "Not allowed",
    404: "Not found",
    409: "Not as things are",
    413: "Too long",
    421: "Not under this name",
    503: "Not available at present",
}
_PAGES: dict[str, Callable[[Visit], Awaitable[web.StreamResponse]]] = {
    "overview": overview.page,
    "logs": logs.page,
    "retry": logs.retry,
    "find": logs.find,
    "record": record.page,
    "raw": record.raw,
    "entry": entry.page,
    "route": routes.page,
    "windows": routes.windows,
}


class Site:
    """The pages, and what people were told last."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._receipts = receipt.Receipts()
        page.environment()

    async def show(self, name: str, request: web.Request) -> web.StreamResponse:
        """A page. Raises what the guard answers for: BadFilter, NotFound, Unavailable."""
        if name == "static":
            return page.static(request.match_info["name"])
        told = self._receipts.find(request.query.get(navigation.TOLD))
        return await _PAGES[name](page.visit(request, self._desk, told))

    def told(self, request: web.Request, answered: web.StreamResponse, said: dict[str, Any]) -> web.Response:
        """In place of a JSON answer: the page that the action was asked for on, or one that says what is wrong."""
        if answered.status >= 400:
            return self._error(request, answered, said)
        where = navigation.back(request, said)
        name = self._receipts.keep(receipt.of(request.path, request.query, said, self._desk))
        target = f"{where}{'&' if '?' in where else '?'}{urlencode({navigation.TOLD: name})}"
        return web.Response(status=303, headers={**HEADERS, "Location": target})

    def _error(self, request: web.Request, answered: web.StreamResponse, said: dict[str, Any]) -> web.Response:
        status = answered.status
        made = page.visit(request, self._desk).respond(
            "error.html",
            status,
            title=_WORDS.get(status, str(said.get("error", "Error"))),
            detail=str(said.get("detail", "")),
            errors=said.get("errors", ()),
            word=str(said.get("error", "")),
            code=status,
            back=navigation.came_from(request),
            inside=status not in (401, 421),
        )
        for name in ("WWW-Authenticate", "Allow", "Retry-After"):
            if name in answered.headers:
                made.headers[name] = answered.headers[name]
        return made
