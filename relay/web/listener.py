"""Listening: on TCP, on unix sockets, and on sockets that systemd hands over."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from relay.handover import bound_to
from relay.schema import TcpAddress, UnixAddress, is_loopback
from relay.web.handshake import Handshake
from relay.web.server import Server

_BACKLOG = 1024


class CannotListen(Exception):
    """The address is taken, or not ours. The message names it."""


class MayNotListen(CannotListen):
    """Nor may relay ever, as things are: a port or a folder that is not for who it runs as."""


class Listener:
    """A server and the sockets it listens on."""

    def __init__(self, handler: Server, address: str, *servers: asyncio.Server) -> None:
        self._handler = handler
        self._servers = servers
        self.address = address

    @property
    def local(self) -> bool:
        """Whether only this machine can connect, as the sockets themselves say."""
        names = [found.getsockname() for server in self._servers for found in server.sockets]
        return all(is_loopback(name[0]) for name in names if isinstance(name, tuple))

    def part(self) -> None:
        """Close the sockets; those who are connected are served, and each connection ends with its next answer."""
        self._handler.parting = True
        self.stop_listening()

    async def stop_accepting(self) -> None:
        """Close the socket and idle connections; requests being answered go on."""
        self.stop_listening()
        self._handler.pre_shutdown()

    async def close(self, timeout: float) -> None:
        """Wait for what is being answered, then close: idle connections at once, others after their answer."""
        self.stop_listening()
        self._handler.pre_shutdown()
        await self._handler.shutdown(timeout)

    def stop_listening(self) -> None:
        """Close the sockets: no new connections. Those there are go on."""
        for server in self._servers:
            server.close()


async def listen(
    server: Server,
    where: TcpAddress | UnixAddress,
    handed_over: Sequence[socket.socket],
    context: ssl.SSLContext | None = None,
    window: int | None = None,
) -> Listener:
    """Listen where the config says; sockets handed over by systemd win. Who connects may have `window` bytes on the
    way, if that is not for the system to choose. Raises CannotListen or MayNotListen."""
    loop = asyncio.get_running_loop()
    factory: Callable[[], asyncio.BaseProtocol] = server if context is None else partial(Handshake, server, context)
    try:
        if handed_over:
            address = " and ".join(map(bound_to, handed_over))
            taken = [await loop.create_server(factory, sock=each, backlog=_BACKLOG) for each in handed_over]
            _limit_windows(handed_over, window)
            return Listener(server, f"{address} (by systemd)", *taken)
        if isinstance(where, UnixAddress):
            path = Path(where.unix)
            _remove_stale(path)
            with _umask(0o177):
                unix = await loop.create_unix_server(factory, path, backlog=_BACKLOG)
            os.chmod(path, where.mode)
            return Listener(server, f"unix:{path}", unix)
        bound = await loop.create_server(factory, where.host, where.port, backlog=_BACKLOG, reuse_address=True)
        _limit_windows(bound.sockets, window)
        host, port = bound.sockets[0].getsockname()[:2]
        return Listener(server, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", bound)
    except OSError as error:
        # An address that is taken becomes free, and one that is not there may come. What is forbidden remains so.
        kind = MayNotListen if error.errno == errno.EACCES else CannotListen
        raise kind(f"cannot listen on {where}: {error.strerror or error}") from error


def _limit_windows(sockets: Sequence[socket.socket], size: int | None) -> None:
    """Connections take over what their listening socket has."""
    if size is not None:
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


@contextlib.contextmanager
def _umask(mask: int) -> Any:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _remove_stale(path: Path) -> None:
    """A socket that nobody listens on is left from a crash. Raises OSError where somebody does: the event loop would
    put its own in the place of any."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # as many as may wait for who listens there already do
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
