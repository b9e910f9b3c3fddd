"""What relay is compared with, each a process of its own: the least that a program on aiohttp and uvloop can do.

    python -m bench.yardsticks application|forwarder|naive PORT SINK FILE

application   `web.Application` reads each request and answers 200
forwarder     `web.Server` answers 200 and posts the body on through a tuned ClientSession; it keeps, proves and signs
              nothing, and what it holds is lost when it ends
naive         what one writes in an afternoon: proves the token, commits each event before its 200, posts it, and
              commits each result; one commit for each
"""

from __future__ import annotations

import asyncio
import hmac
import sqlite3
import sys
from collections.abc import Awaitable, Callable

import aiohttp
import uvloop
from aiohttp import web

from bench.process import HOST
from bench.senders import TOKEN

IN_FLIGHT = 16
_ROOM = 100_000
_ANSWER = b'{"ok":true}'


async def application(port: int, sink: str, file: str) -> None:
    """Read and answer."""

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=_ANSWER, content_type="application/json")

    app = web.Application()
    app.router.add_post("/in/blog", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port, backlog=1024).start()
    await asyncio.Event().wait()


async def forwarder(port: int, sink: str, file: str) -> None:
    """Answer and post on, out of memory."""
    queue: asyncio.Queue[bytes] = asyncio.Queue(_ROOM)

    async def handle(request: web.BaseRequest) -> web.Response:
        await queue.put(await request.read())
        return web.Response(body=_ANSWER, content_type="application/json")

    async def forward(session: aiohttp.ClientSession) -> None:
        while True:
            async with session.post(sink, data=await queue.get()) as response:
                await response.read()

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, HOST, port, backlog=1024).start()
    await _post(forward)


async def naive(port: int, sink: str, file: str) -> None:
    """Prove, commit, answer; post, commit."""
    queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(_ROOM)
    expected = f"Bearer {TOKEN}".encode()
    store = sqlite3.connect(file, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        store.execute(f"PRAGMA {pragma}")
    store.execute("CREATE TABLE event (id INTEGER PRIMARY KEY, body BLOB NOT NULL, state TEXT NOT NULL)")

    async def handle(request: web.Request) -> web.Response:
        if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), expected):
            return web.Response(status=401)
        body = await request.read()
        cursor = store.execute("INSERT INTO event (body, state) VALUES (?, 'pending')", (body,))
        assert cursor.lastrowid is not None
        await queue.put((cursor.lastrowid, body))
        return web.json_response({"id": cursor.lastrowid})

    async def forward(session: aiohttp.ClientSession) -> None:
        while True:
            number, body = await queue.get()
            async with session.post(sink, data=body) as response:
                await response.read()
            store.execute("UPDATE event SET state = 'delivered' WHERE id = ?", (number,))

    app = web.Application()
    app.router.add_post("/in/blog", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port, backlog=1024).start()
    await _post(forward)


async def _post(forward: Callable[[aiohttp.ClientSession], Awaitable[None]]) -> None:
    async def one(session: aiohttp.ClientSession) -> None:
        await forward(session)

    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Content-Type", "User-Agent", "Accept", "Accept-Encoding"),
    )
    async with session, asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(one(session))


KINDS = {"application": application, "forwarder": forwarder, "naive": naive}

if __name__ == "__main__":
    uvloop.run(KINDS[sys.argv[1]](int(sys.argv[2]), sys.argv[3], sys.argv[4]))
