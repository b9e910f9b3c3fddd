"""Names to addresses, so that a name server that hangs holds up nobody else.

The system's own `getaddrinfo` is asked (so /etc/hosts and nsswitch.conf count), each lookup in a thread of its own.
The event loop's pool of a few threads would be full after as many hanging names; threads of a pool would also be waited
for when the process ends. aiohttp asks once for any number of waiters for a name, so a name holds one thread at most.
"""

from __future__ import annotations

import asyncio
import socket
import threading

from aiohttp.abc import AbstractResolver, ResolveResult

MOST_LOOKUPS = 64  # at once; a thread that waits costs little, and the unit file allows for them


class Resolver(AbstractResolver):
    """Looks names up in daemon threads, at most 64 at once."""

    def __init__(self) -> None:
        self._looking = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name. Raises OSError when it has none, or when too many lookups hang."""
        if self._looking >= MOST_LOOKUPS:
            raise OSError(None, f"{self._looking} other lookups are waiting for the name server")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()
        self._looking += 1

        def answer(result: list[ResolveResult] | OSError) -> None:
            self._looking -= 1
            if found.done():  # nobody waits any more
                return
            if isinstance(result, OSError):
                found.set_exception(result)
            else:
                found.set_result(result)

        def look_up() -> None:
            result: list[ResolveResult] | OSError
            try:
                result = _addresses(host, port, family)
            except OSError as error:
                result = error
            except UnicodeError:
                result = socket.gaierror(socket.EAI_NONAME, "it is not a valid name")
            try:
                loop.call_soon_threadsafe(answer, result)
            except RuntimeError:
                return  # the loop is gone: relay has ended meanwhile

        threading.Thread(target=look_up, name="dns", daemon=True).start()
        return await found

    async def close(self) -> None:
        """Lookups that still hang end with their threads."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG)
    return [
        ResolveResult(
            hostname=host,
            host=_numeric(sockaddr),
            port=int(sockaddr[1]),
            family=found,
            proto=proto,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for found, _, proto, _, sockaddr in infos
        if found in (socket.AF_INET, socket.AF_INET6)
    ]


def _numeric(sockaddr: tuple[object, ...]) -> str:
    """The address as text; a link-local IPv6 address with its interface."""
    text = str(sockaddr[0])
    if len(sockaddr) > 3 and sockaddr[3] and "%" not in text:
        return f"{text}%{sockaddr[3]}"
    return text
