"""Being a sender: samples as the content systems make them, signed with a source's own secrets, posted to it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import aiohttp

from relay import samples
from relay.event import Inbound
from relay.schema import Server, local_url
from relay.source import Source


class Unsendable(Exception):
    """The sample cannot be made or posted; the message says why."""


def request_for(source: Source, event: str | None, body: bytes | None, now: datetime) -> Inbound:
    """A sample of the source's type (or `body` in its place) with the proofs that the source wants."""
    try:
        inbound = samples.load(source.type, event)
    except samples.UnknownSample as error:
        raise Unsendable(str(error)) from None
    if body is not None:
        inbound = Inbound(inbound.headers, body)
    if source.trusting:
        return inbound
    try:
        return source.adapter.sign(inbound, now)
    except ValueError as error:
        raise Unsendable(str(error)) from None


def public_url(server: Server) -> str:
    """Where the public side of a config is reached from this machine."""
    url = local_url(server.listen, "https" if server.tls is not None else "http")
    if url.startswith("unix:"):
        raise Unsendable("the public side listens on a unix socket: say --to http://…")
    return url


async def post(url: str, inbound: Inbound) -> tuple[int, Any]:
    """Post it; gives the status and the answer. Raises Unsendable when nobody answers."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
            session.post(url, data=inbound.body, headers=inbound.headers, allow_redirects=False) as answer,
        ):
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Unsendable(f"nobody takes it at {url}: {error or type(error).__name__}") from None
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, text
