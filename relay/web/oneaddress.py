"""Both sides by one listener, where a platform gives a program one port: who answers which request.

What is asked of a source's path is the public side's, all else the admin side's, behind its guard. Only a load balancer
that has no token is told at `/health` what the public side says there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import StreamReader, hdrs, web
from aiohttp.http import RawRequestMessage

from relay import sourcepath
from relay.web.server import Server
from relay.web.swift import plain


def join(public: Server, admin: Server, has_source: Callable[[str], bool]) -> Server:
    """The public side's server, which has what is not for a source answered as the admin side's would.

    Limits and timers are the public side's, since anybody may connect. So is how bodies are read: nothing is
    decompressed before `relay.web.body` does it with a bound, and of what the admin side takes nothing is compressed.
    """
    make_public, answer_public = public.request_factory, public.request_handler
    make_admin, answer_admin = admin.request_factory, admin.request_handler

    def is_sources(path: str) -> bool:
        # A reload may bring a source whose path is the admin side's, where the file gives it another address: that
        # counts from the next start on.
        return has_source(path) and not sourcepath.is_admins(path)

    def make(message: RawRequestMessage, *others: Any) -> web.BaseRequest:
        for_public = is_sources(message.url.raw_path) or _asks_as_anybody(message)
        return (make_public if for_public else make_admin)(message, *others)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        # As it was made: a reload may have come in between. The admin side's requests know an application.
        return await (answer_admin if isinstance(request, web.Request) else answer_public)(request)

    def is_plain(message: RawRequestMessage, content: StreamReader) -> bool:
        return plain(message, content) and is_sources(message.url.raw_path)

    public.request_factory, public.request_handler, public.is_plain = make, answer, is_plain
    return public


def _asks_as_anybody(message: RawRequestMessage) -> bool:
    """Whether somebody who has no token wants to know whether relay is there."""
    return (
        message.method in ("GET", "HEAD")
        and message.url.raw_path == "/health"
        and hdrs.AUTHORIZATION not in message.headers
    )
