"""What strangers hold on to: heads without end, answers that they do not read, handshakes that they do not begin."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from relay import ceilings
from relay.delivery import MOST_KEPT
from relay.web import handshake, server
from tests.certificates import write_certificate
from tests.fakes import until
from tests.harness import PATIENCE, Relay, RelayProcess, relay_here, relay_process
from tests.torture.wire import exchange, post

PATIENT = 'server: {listen: "127.0.0.1:0", read_timeout: 10m}\nadmin: {listen: "127.0.0.1:0"}\n'
OPEN = "sources: {open: {type: generic, verify: none}}\n"
SHUT = "sources: {shut: {type: github, secret: 0123456789abcdef}}\n"


# -- heads -----------------------------------------------------------------------------------------------------------

FIRST = b"POST /in/open HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
SMALL = b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"POST /in/open HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"


def headers(count: int, size: int = 10_000) -> bytes:
    return b"".join(b"X-%d: %s\r\n" % (n, b"x" * size) for n in range(count))


def large(count: int, size: int = 10_000, path: bytes = b"/in/open") -> bytes:
    """A request with so many such headers."""
    return b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: 2\r\n\r\n{}" % (path, headers(count, size))


async def in_pieces(relay: Relay, data: bytes, size: int) -> bytes:
    """What comes back until the other side closes, as far as it can be had when it does so while more is sent."""
    address = urlsplit(relay.public)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    came = b""
    async with asyncio.timeout(PATIENCE):
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            for at in range(0, len(data), size):
                writer.write(data[at : at + size])
                await writer.drain()
                await asyncio.sleep(0)  # relay runs in this loop
            while piece := await reader.read(1 << 16):
                came += piece
    return came


async def taken(relay: Relay) -> int:
    """How many events were."""
    return len((await relay.get("/logs?status=unmatched"))["items"])


AT_ONCE, SLOWLY = 1 << 20, 7000
TOO_MUCH = {
    "a head": large(8),
    "a head of small headers": large(110, 700),
    "a head of a quarter of a MiB": large(25),
    "the head of a later request": FIRST + large(8),
    "a head without end": large(15)[:-6],
    "a head behind many requests": SMALL * 49 + large(8),
    "a head behind many requests and a body": SMALL * 33 + post("/nope", b"x" * 9000) + SMALL * 33 + large(8),
    "trailers": CHUNKED + b"0\r\n" + headers(25) + b"\r\n",
    "the line of a chunk": CHUNKED + b"2;" + b"x" * 200_000,
}


@pytest.mark.parametrize("size", [AT_ONCE, SLOWLY])
@pytest.mark.parametrize("data", TOO_MUCH.values(), ids=TOO_MUCH.keys())
async def test_what_comes_beside_bodies_has_a_bound_as_a_whole(tmp_path: Path, data: bytes, size: int) -> None:
    async with relay_here(tmp_path, PATIENT + OPEN) as relay:
        came = await in_pieces(relay, data, size)
        assert await taken(relay) == (1 if data.startswith(FIRST) else 0)
        assert came.count(b" 200 OK") <= 1
        assert b" 400 " in came or not came


@pytest.mark.parametrize("size", [AT_ONCE, SLOWLY])
async def test_a_head_of_unusual_size_is_heard_and_is_the_last_one(tmp_path: Path, size: int) -> None:
    async with relay_here(tmp_path, PATIENT + OPEN) as relay:
        came = await in_pieces(relay, FIRST + large(4), size)
        first, last = came.split(b"HTTP/1.1 200 OK")[1:]
        assert b"Connection: close" not in first
        assert b"Connection: close" in last, "it would be held for as long as the connection is idle"


CHUNK = b"64\r\n%s\r\n" % (b"x" * 100)
BODIES = {
    "20 kB": post("/in/open", b"x" * 20_000),
    "900 kB": post("/in/open", b"x" * 900_000),
    "200 kB in chunks": CHUNKED + CHUNK * 2000 + b"0\r\n\r\n",
    "900 kB in chunks of 4 KiB": CHUNKED + (b"1000\r\n%s\r\n" % (b"x" * 4096)) * 220 + b"0\r\n\r\n",
}


@pytest.mark.parametrize("request_", BODIES.values(), ids=BODIES.keys())
async def test_a_large_body_is_not_taken_for_a_head(tmp_path: Path, request_: bytes) -> None:
    async with relay_here(tmp_path, PATIENT + OPEN) as relay:
        assert (await exchange(relay.public, request_ * 3)).statuses == (200, 200, 200)


async def test_of_a_refused_request_so_many_headers_are_kept_and_the_others_counted(tmp_path: Path) -> None:
    async with relay_here(tmp_path, PATIENT + SHUT) as relay:
        assert (await exchange(relay.public, large(5, path=b"/in/shut"))).statuses == (401,)
        [item] = await relay.logs_when(len, "?status=rejected")
        kept = (await relay.get(f"/logs/{item['id']}"))["headers"]
        assert [name for name, _ in kept] == ["Host", "X-0", "Content-Length", "…"]
        assert kept[-1][1].startswith("and 4 more")
        assert sum(len(name) + len(value) for name, value in kept[:-1]) <= MOST_KEPT


# -- answers that nobody reads ---------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def unread(relay: Relay) -> AsyncIterator[server.Connected]:
    """A connection whose answers nobody reads: fewer than it takes until no more may be written, but more than the
    system holds."""
    assert relay.running is not None
    listener = relay.running.public
    for each in listener._servers[0].sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stranger.setblocking(False)
        address = urlsplit(relay.public)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(stranger, (address.hostname, address.port))
        answers = relay.running.ingest._metrics.not_found
        await loop.sock_sendall(stranger, b"POST /nowhere HTTP/1.1\r\nHost: relay\r\n\r\n" * 250)
        async with asyncio.timeout(PATIENCE):
            while answers.value < 250:
                await asyncio.sleep(0)
        [connection] = listener._handler.open
        assert isinstance(connection, server.Connection)
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() > 0
        assert not connection.writing_paused
        yield connection


async def test_a_sender_that_reads_nothing_does_not_keep_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "IDLE", 0.05)
    monkeypatch.setattr(server, "_LEAVING", 0.05)
    async with relay_here(tmp_path, PATIENT + OPEN) as relay, unread(relay):
        assert relay.running is not None
        everyone = relay.running.public._handler.open
        async with asyncio.timeout(PATIENCE):
            while everyone:
                await asyncio.sleep(0.01)


async def test_who_was_closed_and_reads_nothing_is_the_first_to_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceilings, "connections", lambda secure: 2)
    async with relay_here(tmp_path, PATIENT + OPEN) as relay, unread(relay) as connection:
        assert relay.running is not None
        connection.close()
        everyone = relay.running.public._handler.open
        assert list(everyone) == [connection], "it waits until all is sent"
        async with relay.begun("/in/open", b"{}") as go_on:
            assert (await exchange(relay.public, FIRST)).statuses == (200,)
            assert connection not in everyone
            assert await go_on() == 200


async def test_who_has_not_sent_its_body_makes_room_for_who_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceilings, "connections", lambda secure: 3)
    async with relay_here(tmp_path, PATIENT + OPEN) as relay, asyncio.timeout(PATIENCE):
        assert relay.running is not None
        everyone = relay.running.public._handler.open
        address = urlsplit(relay.public)
        begun = [await asyncio.open_connection(address.hostname, address.port) for _ in range(3)]
        for _, writer in begun:
            writer.write(b"POST /in/open HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        await until(lambda: [each.waiting for each in everyone] == [True] * 3)
        assert (await exchange(relay.public, FIRST)).statuses == (200,)
        with contextlib.suppress(ConnectionError):
            assert await begun[0][0].read() == b"", "the one that has been silent for longest goes"
        for _, writer in begun:
            writer.close()


# -- handshakes ------------------------------------------------------------------------------------------------------


def over_tls(folder: Path) -> str:
    cert, key = write_certificate(folder, "relay")
    return PATIENT.replace('127.0.0.1:0"', f'127.0.0.1:0", tls: {{cert: {cert}, key: {key}}}', 1) + OPEN


async def answers_over_tls(relay: Relay | RelayProcess) -> bytes:
    """The first line of the answer to one event."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = urlsplit(relay.public)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, ssl=context)
    writer.write(FIRST)
    line = await reader.readline()
    writer.close()
    return line


async def test_who_begins_no_handshake_counts_and_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "connections", lambda secure: 3)
    monkeypatch.setattr(handshake, "_LONGEST", 600.0)
    async with relay_here(tmp_path, over_tls(tmp_path)) as relay, asyncio.timeout(PATIENCE):
        address = urlsplit(relay.public)
        silent = [await asyncio.open_connection(address.hostname, address.port) for _ in range(3)]
        assert await answers_over_tls(relay) == b"HTTP/1.1 200 OK\r\n"
        with contextlib.suppress(ConnectionError):
            assert await silent[0][0].read() == b"", "the one that has been silent for longest goes"
        for _, writer in silent:
            writer.close()


async def test_what_is_no_handshake_leaves_nothing_behind(tmp_path: Path) -> None:
    async with relay_here(tmp_path, over_tls(tmp_path)) as relay, asyncio.timeout(PATIENCE):
        assert relay.running is not None
        address = urlsplit(relay.public)
        for said in (b"", b"\x16\x03\x01", FIRST, b"\x00" * 300_000):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            with contextlib.suppress(ConnectionError):
                writer.write(said)
                writer.write_eof()
                await reader.read()
            writer.close()
        assert await answers_over_tls(relay) == b"HTTP/1.1 200 OK\r\n"
        everyone = relay.running.public._handler.open
        while everyone:
            await asyncio.sleep(0.01)


async def test_many_senders_come_over_tls_at_once(tmp_path: Path) -> None:
    async with relay_process(tmp_path, over_tls(tmp_path)) as relay, asyncio.timeout(PATIENCE):
        lines = await asyncio.gather(*[answers_over_tls(relay) for _ in range(50)])
        assert set(lines) == {b"HTTP/1.1 200 OK\r\n"}
