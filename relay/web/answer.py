"""How the admin side speaks: JSON that nothing may keep or guess at, and what a request may say in its URL."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from aiohttp import web

from relay.web.logquery import BadFilter

PRIVATE = {"Server": "relay", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
WHO = web.RequestKey("who", str)
"""Under which name a request acts."""


class Conflict(Exception):
    """The request cannot be fulfilled as things are. The message says what to do instead."""


def answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer that nothing may keep or guess at."""
    return web.Response(
        status=status,
        body=orjson.dumps(body),
        headers={**PRIVATE, "Content-Type": "application/json", **(headers or {})},
    )


def parameters(request: web.Request, *names: str) -> dict[str, str]:
    """What a request says in its URL's query. Raises BadFilter for a name that it does not take: what was meant to
    narrow an action down must never be passed over."""
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in names:
            there = f"there is {' and '.join(names)}" if names else "this request takes none"
            raise BadFilter(f"unknown parameter '{name[:40]}': {there}")
        if name in given:
            raise BadFilter(f"'{name}' is given twice")
        if not value:
            raise BadFilter(f"'{name}' is empty")
        given[name] = value
    return given
