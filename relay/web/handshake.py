"""TLS handshakes, each of which counts as a connection from the start.

The event loop's own servers tell of a connection when its handshake is done: who says nothing holds a descriptor until
the handshake has taken too long, and nobody has counted it.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Coroutine
from typing import Any, cast

from relay.web.server import Server

_LONGEST = 10.0  # seconds that it may take
_FAREWELL = 30.0  # seconds for the rest of an answer, and for the other side to say that it closes as well

# Where there is no uvloop: asyncio keeps 256 KiB ready for each connection, from the start.
SSLProtocol.max_size = 64 << 10


class Handshake(asyncio.Protocol):
    """A connection until its handshake is done; then it is one of the server's. See `relay.web.server.Connected`.

    What comes right behind the handshake may be here before the one that it is for.
    """

    idle = True
    leaving = False
    waiting = False

    def __init__(self, server: Server, context: ssl.SSLContext) -> None:
        self._server = server
        self._context = context
        self._transport: asyncio.Transport | None = None
        self._shaking: Coroutine[Any, Any, asyncio.Transport | None] | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = raw = cast(asyncio.Transport, transport)
        self._server.make_room(self)
        if not raw.is_closing():
            self._shaking = asyncio.get_running_loop().start_tls(
                raw,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=_LONGEST,
                ssl_shutdown_timeout=_FAREWELL,
            )
            self._go_on()

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def close(self) -> None:
        """See Connected."""
        self.abort()

    def abort(self) -> None:
        """See Connected."""
        if self._transport is not None:
            self._transport.abort()

    def _go_on(self, waited_for: asyncio.Future[Any] | None = None) -> None:
        """Begin, or go on. A task would begin when the loop may have read the first bytes already, past TLS."""
        assert self._shaking is not None
        try:
            waiter: asyncio.Future[Any] = self._shaking.send(None)
        except StopIteration as end:
            self._done(end.value)
        except Exception:  # noqa: BLE001 - whatever a stranger has sent, it is no handshake
            self._done(None)
        else:
            waiter.add_done_callback(self._go_on)

    def _done(self, transport: asyncio.Transport | None) -> None:
        self._server.left(self)
        if transport is None or transport.is_closing():
            self.abort()
            return
        connection = self._server()
        transport.set_protocol(connection)
        connection.connection_made(transport)
        for each in self._early:
            connection.data_received(each)
