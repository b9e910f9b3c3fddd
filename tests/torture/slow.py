"""Many senders that take their time, or hold what relay needs for others: connections, descriptors, memory."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import subprocess
import time
import zlib
from functools import cache
from statistics import median, quantiles
from urllib.parse import urlsplit

import aiohttp

from relay import ceilings
from tests.harness import RelayProcess, relay_process, sink
from tests.torture.row import Figure, Place, Seen, Skipped, of_forms
from tests.torture.smuggling import SOURCES
from tests.torture.wire import exchange, memory, peak, post

CLIENTS = 1000
_LATEST = 15.0  # seconds until the last one is closed
_HEAD = b"POST /in/open HTTP/1.1\r\nHost: relay.test\r\n"
_DRIPS = {
    "connects and says nothing": (b"", b""),
    "a head, a byte a second": (_HEAD, b"X"),
    "a body, a byte a second": (_HEAD + b"Content-Length: 1000\r\n\r\n", b"x"),
    "chunks, a byte a second": (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
}


async def clients(place: Place) -> Figure:
    """A thousand slow clients, 250 of each kind, while another sender goes on."""
    ceilings.settle()  # this process needs a descriptor for each, too
    lasted: dict[str, list[float]] = {form: [] for form in _DRIPS}
    async with relay_process(place.folder, SOURCES) as relay, aiohttp.ClientSession() as session:
        before = await _p99(session, relay)
        small = memory(relay)
        connected = asyncio.Barrier(CLIENTS + 1)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                form = list(_DRIPS)[number % len(_DRIPS)]
                group.create_task(_drip(relay.public, *_DRIPS[form], lasted[form], connected))
            await connected.wait()
            during = await _p99(session, relay)
            grown = memory(relay) - small
        after = await _p99(session, relay)
    usual = max(before, after)
    seen = [
        Seen(f"250 x {form}", f"closed after {min(times):.1f} to {max(times):.1f} s", max(times) <= _LATEST)
        for form, times in lasted.items()
    ]
    return of_forms(
        seen,
        f"another sender's p99 {during * 1000:.0f} ms with, {usual * 1000:.0f} ms without; {grown:.0f} MiB for them",
        # a machine that does much else makes single figures of a few milliseconds worth nothing
        passed=during < max(2 * usual, 0.02) and grown < 64,
    )


async def _drip(url: str, head: bytes, piece: bytes, lasted: list[float], connected: asyncio.Barrier) -> None:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    began = time.monotonic()
    writer.write(head)
    await connected.wait()
    while True:
        try:
            async with asyncio.timeout(1):
                while await reader.read(4096):
                    pass
            break
        except TimeoutError:
            writer.write(piece)
        except ConnectionError:
            break
    lasted.append(time.monotonic() - began)
    writer.close()


async def _p99(session: aiohttp.ClientSession, relay: RelayProcess) -> float:
    """The median of five p99 of a hundred requests each."""
    found = []
    for _ in range(5):
        times = []
        for _ in range(100):
            began = time.perf_counter()
            async with session.post(f"{relay.public}/in/open", data=b"{}") as response:
                assert response.status == 200
                await response.read()
            times.append(time.perf_counter() - began)
        found.append(quantiles(times, n=100)[98])
    return median(found)


async def slowhttptest(place: Place) -> Figure:
    """Somebody else's program for the same."""
    if shutil.which("slowhttptest") is None:
        raise Skipped("needs slowhttptest: apt-get install slowhttptest")
    ceilings.settle()
    async with relay_process(place.folder, SOURCES) as relay:
        url = f"{relay.public}/in/open"
        command = ["slowhttptest", "-c", "300", "-r", "300", "-i", "1", "-l", "5", "-p", "1", "-t", "POST", "-u", url]
        forms = {"-H": "slow headers", "-B": "slow bodies", "-X": "slow reading"}
        processes = [
            await asyncio.create_subprocess_exec(
                *(*command, option), cwd=place.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            for option in forms
        ]
        served = asked = 0
        while any(process.returncode is None for process in processes) and asked < 50:
            asked += 1
            served += (await exchange(relay.public, post("/in/open", b"{}"), quiet=0.05)).statuses == (200,)
        await asyncio.gather(*[process.wait() for process in processes])
    told = f"{served} of {asked} others served meanwhile"
    return of_forms(
        [Seen(f"slowhttptest {option}: {form}", told, served == asked > 0) for option, form in forms.items()]
    )


async def descriptors(place: Place) -> Figure:
    """More connections than there are descriptors."""
    limited = ["prlimit", "--nofile=64"]
    async with sink() as destination:
        text = SOURCES + f"routes: [{{name: r, to: {{url: '{destination.url}'}}}}]\n"
        async with relay_process(place.folder, text, prefix=limited) as relay:
            address = urlsplit(relay.public)
            writers = [(await asyncio.open_connection(address.hostname, address.port))[1] for _ in range(200)]
            answer = await exchange(relay.public, post("/in/open", b'{"n":1}'))
            await destination.wait_count(1)
            health = await exchange(relay.admin, b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for writer in writers:
                writer.close()
            began = time.monotonic()
            again = await exchange(relay.public, post("/in/open", b'{"n":2}'))
            recovered = time.monotonic() - began
            await destination.wait_count(2)
            complaints = sum(line.get("level") in ("warning", "error") for line in relay.lines())
    seen = [
        Seen("an event while 200 connections wait", str(answer), answer.statuses == (200,)),
        Seen("its delivery", "arrived"),
        Seen("/health/ready meanwhile", str(health), health.statuses == (200,)),
        Seen("an event after they are gone", str(again), again.statuses == (200,)),
    ]
    return of_forms(
        seen,
        f"64 descriptors, 200 connections; well {recovered:.1f} s after; {complaints} lines of complaint",
        passed=recovered < 2 and complaints <= 4,
    )


@cache
def _deflated(size: int, window: int) -> bytes:
    """So many zeros, without ever having them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)), packer.flush()])


def _bombs() -> dict[str, tuple[str, bytes, int]]:
    one = gzip.compress(b"{}")
    return {
        "gzip: 300 MiB in 300 kB": ("gzip", _deflated(300 << 20, 31), 413),
        "x-gzip: the same": ("x-gzip", _deflated(300 << 20, 31), 413),
        "deflate (zlib): 300 MiB": ("deflate", _deflated(300 << 20, 15), 413),
        "deflate (raw): 300 MiB": ("deflate", _deflated(300 << 20, -15), 413),
        "gzip in gzip: the inner one is the body": ("gzip", gzip.compress(_deflated(300 << 20, 31)), 200),
        "gzip, gzip": ("gzip, gzip", gzip.compress(_deflated(300 << 20, 31)), 415),
        "br": ("br", b"\x5b\xff\xff\xff" * 100, 415),
        "zstd": ("zstd", b"\x28\xb5\x2f\xfd" * 100, 415),
        "an encoding of 10 kB": ("x" * 8000, b"{}", 415),
        "40,000 empty members": ("gzip", gzip.compress(b"") * 40_000, 400),
        "64 members": ("gzip", one * 64, 200),
        "65 members": ("gzip", one * 65, 400),
        "64 members that are too large together": ("gzip", gzip.compress(bytes(1 << 15)) * 64, 413),
        "cut short": ("gzip", one[:-3], 400),
        "a wrong checksum": ("gzip", one[:-8] + bytes(8), 400),
        "garbage behind it": ("gzip", one + b"garbage", 400),
        "zeros behind it": ("gzip", one + bytes(1000), 400),
        "no gzip at all": ("gzip", b"garbage", 400),
        "empty": ("gzip", b"", 400),
        "a name without an end": ("gzip", b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * 500_000, 400),
        "deflate with a preset dictionary": ("deflate", b"\x78\x20\0\0\0\0", 400),
    }


async def bombs(place: Place) -> Figure:
    """Each compressed body, and what it does to memory."""
    seen = []
    async with relay_process(place.folder, SOURCES) as relay:
        await exchange(relay.public, post("/in/open", gzip.compress(b"{}"), "Content-Encoding: gzip"))
        for form, (encoding, body, status) in _bombs().items():
            before = peak(relay)
            answer = await exchange(relay.public, post("/in/open", body, f"Content-Encoding: {encoding}"))
            grown = peak(relay) - before
            seen.append(Seen(form, f"{answer}, +{grown:.1f} MiB", answer.statuses == (status,) and grown < 16))
    return of_forms(seen)
