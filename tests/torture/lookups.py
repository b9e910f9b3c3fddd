"""A name server that never answers for some names: what others, looked up beside, notice of it."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from statistics import median
from typing import cast

from tests.harness import RelayProcess, write_config
from tests.torture.crashes import end
from tests.torture.load import ROUNDS, by_turns, steadily
from tests.torture.row import Figure, Place, Skipped, needs
from tests.torture.sinks import WELL, Sinks, sinks

HUNG = 50
NAMES = 20  # of each round, each looked up for the first time
_MOST_ROUNDS = 2 * ROUNDS
_ADDED = 0.1  # seconds
_RATE = 20
_SECOND_QUESTION, _A, _IN = 12, 1, 1


class NameServer(asyncio.DatagramProtocol):
    """Knows every name but those under hang.test, of which it says nothing: all are 127.0.0.1."""

    def __init__(self) -> None:
        self.ignored: set[bytes] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # of Python 3.11 it is no subclass

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """RFC 1035, section 4."""
        end_of_name = data.index(b"\0", _SECOND_QUESTION) + 1
        name, kind = data[_SECOND_QUESTION:end_of_name], struct.unpack("!H", data[end_of_name : end_of_name + 2])[0]
        if name.endswith(b"\4hang\4test\0"):
            self.ignored.add(name)
            return
        answers = 1 if kind == _A else 0
        head = data[:2] + struct.pack("!HHHHH", 0x8580, 1, answers, 0, 0)
        record = b"\xc0\x0c" + struct.pack("!HHIH", _A, _IN, 0, 4) + bytes((127, 0, 0, 1))
        self._transport.sendto(head + data[_SECOND_QUESTION : end_of_name + 4] + record * answers, address)


@asynccontextmanager
async def name_server(folder: Path) -> AsyncIterator[tuple[NameServer, list[str]]]:
    """It, and what starts a program that asks it."""
    needs("unshare", "mount", root=True, package="util-linux")
    address = f"127.53.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
    try:
        transport, made = await asyncio.get_running_loop().create_datagram_endpoint(
            NameServer, local_addr=(address, 53)
        )
    except OSError as error:
        raise Skipped(f"port 53 cannot be had: {error.strerror}") from error
    path = folder / "resolv.conf"
    path.write_text(f"nameserver {address}\noptions timeout:30 attempts:1\n")
    script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    try:
        yield made, ["unshare", "--mount", "sh", "-c", script, str(path)]
    finally:
        transport.close()


def _config(folder: Path, port: str) -> Path:
    folder.mkdir()
    names = [f"g{number}" for number in range(NAMES * _MOST_ROUNDS)]
    lines = ["sources: {any: {type: generic, verify: none, map: {model: body.to}}}", "routes:"]
    for name in names:
        lines.append(f"  - {{name: {name}, match: {{model: {name}}}, to: {{url: 'http://{name}.test:{port}/'}}}}")
    for number in range(HUNG):
        url = f"http://h{number}.hang.test:{port}/"
        lines.append(f"  - {{name: h{number}, match: {{model: hang}}, to: {{url: '{url}'}}, retry: none}}")
    return write_config(folder, "\n".join(lines) + "\n")


async def hung(place: Place) -> Figure:
    """Fifty names hang; the worst of twenty others, from the post to the receipt."""
    first, turns = 0, {True: count(), False: count()}

    async def worst(relay: RelayProcess, sink: Sinks, begin: int) -> float:
        nonlocal first
        first += NAMES
        posted = await steadily(
            relay.public, _RATE, NAMES, lambda n: b'{"id":%d,"to":"g%d"}' % (n, n - first + begin), first
        )
        seen = await sink.wait_for(lambda seen: posted.keys() <= {each.number for each in seen})
        return max(each.at - posted[each.number].at for each in seen if each.number in posted)

    async with name_server(place.folder) as (server, prefix), sinks(place.folder, "well", [WELL]) as sink:
        port = sink.urls[0].rpartition(":")[2]
        one, other = (RelayProcess(_config(place.folder / name, port), prefix) for name in ("with", "without"))
        try:
            await one.start()
            await other.start()
            await steadily(one.public, 1, 1, lambda n: b'{"to":"hang"}')
            async with asyncio.timeout(20):
                while len(server.ignored) < HUNG:
                    await asyncio.sleep(0.01)
            found = await by_turns(
                lambda there: worst(one if there else other, sink, next(turns[there]) * NAMES),
                lambda found: found.added < _ADDED,
            )
            assert one.process is not None
            threads = len(list(Path(f"/proc/{one.process.pid}/task").iterdir()))
        finally:
            end(one)
            end(other)
    return Figure(
        f"{HUNG} names hung in {threads} threads; the worst of {NAMES} others looked up meanwhile was there after"
        f" {median(found.amid) * 1000:.0f} ms, without them after {median(found.without) * 1000:.0f} ms"
        f" (medians of {len(found.amid)} rounds)",
        found.added < _ADDED and threads > HUNG,
    )
