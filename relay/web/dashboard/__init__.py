"""The dashboard's addresses, and what browsers get where programs get JSON. All else is read on the first request.

An idle daemon, and one that nobody looks at, holds no page: the templates are loaded and compiled beside the loop when
somebody opens the first one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from relay import journal
from relay.web.answer import answer
from relay.web.auth import Denied, admit
from relay.web.dashboard import navigation
from relay.web.desk import Desk

if TYPE_CHECKING:
    from relay.web.dashboard.site import Site

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_TOO_LONG = {"error": "too_long", "detail": f"the form says more than {navigation.MOST_FORM >> 10} KiB"}
_TOO_SLOW = {"error": "timeout", "detail": "the form did not arrive in time"}
_PAGES = {
    "/": "overview",
    "/ui/logs": "logs",
    "/ui/logs/{id}": "record",
    "/ui/logs/{id}/raw": "raw",
    "/ui/retry": "retry",
    "/ui/entries": "entry",
    "/ui/routes/{name}": "route",
    "/ui/windows": "windows",
    "/ui/find": "find",
    "/ui/static/{name}": "static",
}


class Dashboard:
    """Pages for browsers, on the admin side and behind its guard."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._site: Site | None = None
        self._loading = asyncio.Lock()

    def table(self) -> list[web.RouteDef]:
        """What is answered here."""
        return [web.get(path, self._handler(name)) for path, name in _PAGES.items()]

    @web.middleware
    async def browsing(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Around the guard: a person who pressed a button is led back to the page, and told what was done; a refusal
        is a page. Programs, and scripts of our own pages, get the JSON as it is."""
        if not navigation.by_a_person(request):
            return await handler(request)
        filled: web.Request | None = request
        if request.method == "POST" and self._admitted(request):
            try:
                filled = await navigation.with_form(request)
            except TimeoutError:
                return answer(408, _TOO_SLOW)
        answered = await handler(filled) if filled is not None else answer(413, _TOO_LONG)
        said = navigation.said(answered)
        if said is None or (request.method != "POST" and "error" not in said):
            return answered
        try:
            return (await self._loaded()).told(request, answered, said)
        except Exception:  # noqa: BLE001 - a bug of ours, outside the guard: what was answered is told all the same
            journal.crashed("dashboard")
            return answered

    def _admitted(self, request: web.Request) -> bool:
        """Whether the guard will let it pass: nobody else's form is waited for."""
        try:
            admit(request, self._desk.reloader.runtime.gate)
        except Denied:
            return False
        return True

    def _handler(self, name: str) -> _Handler:
        async def show(request: web.Request) -> web.StreamResponse:
            return await (await self._loaded()).show(name, request)

        return show

    async def _loaded(self) -> Site:
        async with self._loading:
            if self._site is None:
                self._site = await asyncio.to_thread(_load, self._desk)
        return self._site


def _load(desk: Desk) -> Site:
    from relay.web.dashboard.site import Site

    return Site(desk)
