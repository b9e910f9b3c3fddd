"""How the admin side speaks: answers that nothing may keep, guess at, embed or hand to another site."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from relay.logline import as_json

PRIVATE = {
    "Server": "relay",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What every answer says. A page that shows more than text brings its own Content-Security-Policy."""
WHO = web.RequestKey("who", str)
"""Under which name a request acts."""


class Conflict(Exception):
    """The request cannot be fulfilled as things are. The message says what to do instead."""


def answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer in JSON."""
    return web.Response(
        status=status,
        body=as_json(body),
        headers={**PRIVATE, "Content-Type": "application/json", **(headers or {})},
    )


def plain(content_type: str, body: str | bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer in anything else."""
    written = body.encode() if isinstance(body, str) else body
    return web.Response(body=written, headers={**PRIVATE, "Content-Type": content_type, **(headers or {})})
