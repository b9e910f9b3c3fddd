"""The admin side's server: aiohttp's application on connections with the same bounds as the public side's."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict, CIMultiDictProxy

from relay.web.answer import answer
from relay.web.server import IDLE, Connection, Server, quiet

MOST_CONNECTIONS = 256
"""At once; more are closed as they come. 100 of them may follow the log."""


class _Connection(Connection):
    """A connection which answers what is not HTTP, or too long, in the admin side's own way."""

    def refusal(self, status: int) -> web.Response:
        if status == 400:
            what = "it is not HTTP as it should be, or its head is too large: 64 KiB, 8190 bytes in a line, are allowed"
            return answer(400, {"error": "malformed_request", "detail": what})
        return answer(status, {"error": "internal_error", "detail": "see the log"})


class _Server(Server):
    """Makes such connections."""

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Runner(web.AppRunner):
    """Runs the application on such a server."""

    __slots__ = ()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        make_request = made.request_factory

        def without_expect(message: RawRequestMessage, *others: Any) -> web.BaseRequest:
            # aiohttp would answer an odd `Expect` before the guard is asked, with the header's own words. No request's
            # body is waited for here, so none needs to be called for.
            if "Expect" in message.headers:
                headers = CIMultiDict(message.headers)
                headers.popall("Expect")
                message = message._replace(headers=CIMultiDictProxy(headers))
            return make_request(message, *others)

        server = _Server(made.request_handler, request_factory=without_expect, loop=made._loop, **made._kwargs)
        server.most = MOST_CONNECTIONS
        return server


async def application_server(application: web.Application) -> tuple[web.AppRunner, Server]:
    """The admin side's server."""
    runner = _Runner(application, access_log=None, logger=quiet, keepalive_timeout=IDLE, lingering_time=2.0)
    await runner.setup()
    server = runner.server
    assert isinstance(server, Server)
    return runner, server
