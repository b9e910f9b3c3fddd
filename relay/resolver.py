"""Names to addresses, so that a name server that hangs holds up nobody else.

The system's own `getaddrinfo` is asked (so /etc/hosts and nsswitch.conf count), each lookup in a thread of its own.
The event loop's pool of a few threads would be full after as many hanging names; threads of a pool would also be waited
for when the process ends. aiohttp asks once for any number of waiters for a name, so a name holds one thread at most.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter

from aiohttp.abc import AbstractResolver, ResolveResult

from relay.unreachable import OwnLimit, out_of_files

MOST_LOOKUPS = 64  # at once; a thread that waits costs little, and the unit file allows for them
MOST_ADDRESSES = 8  # that are tried, of each family: aiohttp begins again with what is left whenever all have failed


class Resolver(AbstractResolver):
    """Looks names up in daemon threads, at most 64 at once."""

    def __init__(self) -> None:
        self._looking = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name. Raises OSError when it has none; OwnLimit when too many lookups hang."""
        if self._looking >= MOST_LOOKUPS:
            raise OwnLimit(f"{self._looking} other lookups are waiting for the name server")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()

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
                result = _no_files() or error
            except UnicodeError:
                result = socket.gaierror(socket.EAI_NONAME, "it is not a valid name")
            try:
                loop.call_soon_threadsafe(answer, result)
            except RuntimeError:
                return  # the loop is gone: relay has ended meanwhile

        try:
            threading.Thread(target=look_up, name="dns", daemon=True).start()
        except RuntimeError:
            raise OwnLimit("relay can start no further thread to look it up") from None
        self._looking += 1
        return await found

    async def close(self) -> None:
        """Lookups that still hang end with their threads."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG)
    addresses: list[ResolveResult] = []
    count: Counter[int] = Counter()
    for found, _, proto, _, sockaddr in infos:
        count[found] += 1
        if found not in (socket.AF_INET, socket.AF_INET6) or count[found] > MOST_ADDRESSES:
            continue
        addresses.append(
            ResolveResult(
                hostname=host,
                host=_numeric(sockaddr),
                port=int(sockaddr[1]),
                family=found,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
        )
    return addresses


def _no_files() -> OSError | None:
    """Why no file can be opened, if it is so. The C library then says that there is no such name."""
    try:
        socket.socket().close()
    except OSError as error:
        return error if out_of_files(error) else None
    return None


def _numeric(sockaddr: tuple[object, ...]) -> str:
    """The address as text; a link-local IPv6 address with its interface."""
    text = str(sockaddr[0])
    if len(sockaddr) > 3 and sockaddr[3] and "%" not in text:
        return f"{text}%{sockaddr[3]}"
    return text
