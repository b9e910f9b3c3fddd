"""Telling a person's browser from a program, what a form said, and where somebody came from."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson
from aiohttp import web

TOLD = "told"
"""The parameter by which a page finds what was just done."""
MOST_FORM = 8 << 10
_PATIENCE = 10.0  # seconds for a form to arrive
_FORM = "application/x-www-form-urlencoded"


def by_a_person(request: web.Request) -> bool:
    """Whether a browser's window is to show the answer, and not a program or a script."""
    mode = request.headers.get("Sec-Fetch-Mode")
    if mode is not None:
        return mode == "navigate"
    accepts = request.headers.get("Accept", "").split(",", 1)[0]
    return accepts.partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")


async def with_form(request: web.Request) -> web.Request | None:
    """The request with the fields of its form as parameters, as the handlers want them; empty fields say nothing.

    None for a form that is too long: half of what it says is not what it says. Raises TimeoutError."""
    if request.content_type != _FORM:
        return request
    text = b""
    async with asyncio.timeout(_PATIENCE):
        while chunk := await request.content.read(MOST_FORM):
            text += chunk
            if len(text) > MOST_FORM:
                return None
    fields = parse_qsl(text.decode("utf-8", "replace"))
    return request.clone(rel_url=request.rel_url.extend_query(fields)) if fields else request


def said(response: web.StreamResponse) -> dict[str, Any] | None:
    """What a JSON answer says; None for any other."""
    if not isinstance(response, web.Response) or response.content_type != "application/json":
        return None
    body = response.body
    document = orjson.loads(body) if isinstance(body, bytes) and body else None
    return document if isinstance(document, dict) else None


def came_from(request: web.Request) -> str | None:
    """The page of ours that somebody came from, as a path; None where that cannot be told, or it is another site's."""
    try:
        referrer = urlsplit(request.headers.get("Referer", ""))
    except ValueError:
        return None
    if referrer.netloc.lower() != request.headers.get("Host", "").lower() or not _ours(referrer.path):
        return None
    pairs = [(name, value) for name, value in parse_qsl(referrer.query, keep_blank_values=True) if name != TOLD]
    return referrer.path + (f"?{urlencode(pairs)}" if pairs else "")


def back(request: web.Request, said: dict[str, Any]) -> str:
    """Where a person goes on after an action, which answered with `said`."""
    found = came_from(request)
    if found is not None and not found.startswith("/ui/retry"):
        return found
    parts = request.path.split("/")
    match parts[1:]:
        case ["logs" | "events", id_text, _]:
            return f"/ui/logs/{id_text}"
        case ["logs", "retry"]:
            return _retried(request, said)
        case ["windows", *_]:
            return "/ui/windows"
    return "/"


def _retried(request: web.Request, said: dict[str, Any]) -> str:
    """The log of what was retried: by the filters that chose it, in the states that it may be in by now. How it went
    before, which `code` and `q` may be about, the next attempt changes."""
    all_held = said.get("held", 0) == said.get("count") != 0
    states = ("held",) if all_held else ("pending", "held", "delivered", "failed")
    gone = ("status", "all") if all_held else ("status", "all", "code", "q")
    filters = {name: value for name, value in request.query.items() if name not in gone}
    return f"/ui/logs?{urlencode({**filters, 'status': ','.join(states)}, errors='replace')}"


def _ours(path: str) -> bool:
    # A path that began with // would be another host's.
    return path == "/" or path.startswith("/ui/")
