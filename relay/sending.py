"""Being a sender: samples as the content systems make them, signed with a source's own secrets, posted to it."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict

from relay import samples
from relay.event import Inbound
from relay.schema import Server, local_url
from relay.source import Source

_OF_THE_CONNECTION = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding"})
"""Headers of a recorded request that belong to the connection it came by."""


DUPLICATE = " (a duplicate: not delivered again)"
"""What is said of a sample that was taken for a repeat."""


class Unsendable(Exception):
    """The request cannot be made or posted; the message says why."""


def recorded(raw: bytes) -> Inbound | None:
    """The request in `{"headers": [[name, value]…], "body": "…"}` (or "body_base64"); None for anything else.

    Raises ValueError for what is meant to be such a request and is not.
    """
    try:
        request = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, dict) or "headers" not in request or not request.keys() & {"body", "body_base64"}:
        return None
    headers = request["headers"]
    if not isinstance(headers, list):
        return None
    for pair in headers:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ValueError("headers must be a list of [name, value]")
    body = request.get("body", request.get("body_base64"))
    if not isinstance(body, str):
        raise ValueError("body must be a string (as body_base64, where it is not text)")
    try:
        content = body.encode() if "body" in request else base64.b64decode(body, validate=True)
    except ValueError:
        raise ValueError(f"{'body' if 'body' in request else 'body_base64'} cannot be decoded") from None
    return Inbound(CIMultiDict([(name, value) for name, value in headers]), content)


def request_for(source: Source, event: str | None, file: bytes | None, now: datetime) -> Inbound:
    """A sample of the source's type, as of now, with the proofs that the source wants, made anew.

    A `file` takes its place: a recorded request, or a body that then comes with the sample's headers. Raises
    Unsendable, and UnknownSample for an `event` that there is no sample of.
    """
    try:
        given = recorded(file) if file is not None else None
        if given is not None:
            left = _OF_THE_CONNECTION if source.trusting else _OF_THE_CONNECTION | source.adapter.proof_headers
            kept = [(name, value) for name, value in given.headers.items() if name.lower() not in left]
            inbound = Inbound(CIMultiDict(kept), given.body)
        else:
            inbound = samples.fresh(source.type, event, now)
            if file is not None:
                inbound = Inbound(inbound.headers, file)
        return inbound if source.trusting else source.adapter.sign(inbound, now)
    except ValueError as error:
        raise Unsendable(str(error)) from None


def public_url(server: Server) -> str:
    """Where the public side of a config is reached from this machine: `http://host:port` or `unix:/path`."""
    return local_url(server.listen, "https" if server.tls is not None else "http")


def address_of(to: str, path: str) -> str:
    """The URL to post to: `to` as it stands where it has a path of its own, else with the source's."""
    if to.startswith("unix:"):
        return to
    return to if urlsplit(to).path.strip("/") else to.rstrip("/") + path


async def post(to: str, path: str, inbound: Inbound) -> tuple[int, Any]:
    """Post it to the source's path at `to`; gives the status and the answer. Raises Unsendable when nobody answers."""
    connector = None
    url = address_of(to, path)
    if to.startswith("unix:"):
        connector = aiohttp.UnixConnector(to.removeprefix("unix:"))
        url = f"http://localhost{path}"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30), connector=connector) as session,
            session.post(url, data=inbound.body, headers=inbound.headers, allow_redirects=False) as answer,
        ):
            text = await answer.text(errors="replace")
    except aiohttp.ClientConnectionError as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unsendable(f"nobody answers at {to} ({reason}): start relay with 'relay serve', or say --to") from None
    except TimeoutError:
        raise Unsendable(f"no answer from {url} within 30 s") from None
    except aiohttp.InvalidURL:
        raise Unsendable(f"'{to}' is not an address: expected --to http://host:port") from None
    except (aiohttp.ClientError, ValueError) as error:
        raise Unsendable(f"cannot post to {url}: {error or type(error).__name__}") from None
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, text
