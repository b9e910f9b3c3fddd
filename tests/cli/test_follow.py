"""`relay logs -f`: against a server that speaks the contract, and against relay itself."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from relay.cli import term
from relay.cli.completing import STATUSES
from relay.cli.follow import events
from tests.cli.running import TOP, command, complaint, free_ports, run
from tests.cli.standin import log_item
from tests.harness import PATIENCE, relay_process, sink

ONE, TWO = "dlv_01M85CA5GE9CETFWDHANEQSGCC", "dlv_01M85CA5GF9CETFWDHANEQSGCC"


@dataclass
class Told:
    """`GET /logs` and `GET /logs/stream` as the contract has them."""

    items: list[dict[str, Any]] = field(default_factory=list)
    queries: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    streams: list[web.StreamResponse] = field(default_factory=list)
    url: str = ""
    _end: asyncio.Event = field(default_factory=asyncio.Event)
    _listening: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.add_routes([web.get("/logs", self._list), web.get("/logs/stream", self._stream)])
        self._end.clear()
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        self._end.set()
        self.streams.clear()
        self._listening.clear()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _list(self, request: web.Request) -> web.Response:
        self.queries.append(("list", dict(request.query)))
        return web.json_response({"items": self.items[: int(request.query["limit"])], "next": None})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(("stream", dict(request.query)))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": hello\n\n")
        self.streams.append(response)
        self._listening.set()
        await self._end.wait()
        return response

    async def say(self, text: str) -> None:
        """To all who listen, once somebody does."""
        async with asyncio.timeout(PATIENCE):
            await self._listening.wait()
        for stream in self.streams:
            await stream.write(text.encode())

    async def tell(self, item: dict[str, Any]) -> None:
        await self.say(f"event: message\ndata: {json.dumps(item)}\n\n")


@contextlib.asynccontextmanager
async def told(*items: dict[str, Any]) -> AsyncIterator[Told]:
    made = Told(list(items))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


class Following:
    """The verb as a process; what it prints is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def complaint(self) -> str:
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stderr.readline()).decode().rstrip("\n")

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def following(url: str, *args: str, **options: Any) -> AsyncIterator[Following]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    process = await asyncio.create_subprocess_exec(
        *command("logs", "-f", "--url", url, *args), env=env | {"PYTHONPATH": str(TOP)}, **options
    )
    try:
        yield Following(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_newest_few_come_first_and_then_each_state_as_it_happens() -> None:
    async with told(log_item(TWO), log_item(ONE)) as server, following(server.url, "--route", "www") as verb:
        assert (await verb.line()).split()[:4] == ["2026-11-23T20:00:00.100Z", ONE, "delivered", "www"]
        assert (await verb.line()).split()[1] == TWO
        await server.tell(log_item(ONE, status="failed", attempts=2, updated_at="2026-11-23T20:00:09.000Z"))
        assert (await verb.line()).split()[:3] == ["2026-11-23T20:00:09.000Z", ONE, "failed"]
        asked = {"status": ",".join(STATUSES), "route": "www"}
        assert server.queries == [("stream", asked), ("list", {**asked, "limit": "10"})]


async def test_what_is_both_in_the_list_and_in_the_stream_is_told_once_and_never_backwards() -> None:
    async with told(log_item(ONE)) as server, following(server.url, "--json", "--limit", "5") as verb:
        assert json.loads(await verb.line()) == log_item(ONE)
        await server.tell(log_item(ONE))
        await server.tell(log_item(ONE, status="pending", attempts=0, updated_at="2026-11-23T20:00:00.000Z"))
        await server.tell(log_item(TWO, status="pending"))
        assert json.loads(await verb.line()) == log_item(TWO, status="pending")
        assert server.queries[1] == ("list", {"status": ",".join(STATUSES), "limit": "5"})


async def test_a_status_that_is_named_is_the_only_one() -> None:
    async with told(log_item(ONE)) as server, following(server.url, "--status", "failed") as verb:
        await verb.line()
        assert [query["status"] for _, query in server.queries] == ["failed", "failed"]


async def test_the_newest_are_in_the_order_in_which_they_came_about() -> None:
    late = log_item(ONE, updated_at="2026-11-23T20:00:05.000Z")
    rejected = log_item("rej_01M85CA5GF9CETFWDHANEQSGCC", status="rejected", route=None, event_id=None)
    async with told(rejected, log_item(TWO), late) as server, following(server.url) as verb:
        assert [(await verb.line()).split()[1] for _ in range(3)] == [TWO, rejected["id"], ONE]


async def test_in_a_pipe_columns_are_aligned_and_an_error_stays_on_its_line() -> None:
    error = {"code": "timeout", "message": "no answer\n\x1b[2Jwithin 30 s"}
    async with told() as server, following(server.url, "--limit", "0") as verb:
        await server.tell(log_item(ONE, status="failed", route="a-longer-name", error=error, code=None))
        first = await verb.line()
        await server.tell(log_item(TWO, route="www"))
        second = await verb.line()
        assert first.endswith("timeout: no answer\\n\\x1b[2Jwithin 30 s")
        assert first.index("  blog") == second.index("blog") - 2
        assert [name for name, _ in server.queries] == ["stream"]


async def test_it_goes_on_after_a_restart_and_lists_what_was_missed() -> None:
    async with told(log_item(ONE)) as server, following(server.url, "--json") as verb:
        assert json.loads(await verb.line())["id"] == ONE
        await server.stop()
        assert (await verb.complaint()).endswith(": trying again until it answers")
        missed = log_item(TWO, updated_at="2026-11-23T20:00:30.000Z")
        server.items.insert(0, missed)
        await server.start(int(server.url.rpartition(":")[2]))
        assert (await verb.complaint()) == f"relay: the relay at {server.url} answers again"
        assert json.loads(await verb.line()) == missed
        await server.tell(log_item(TWO, status="failed", updated_at="2026-11-23T20:00:31.000Z"))
        assert json.loads(await verb.line())["status"] == "failed"


async def test_a_login_in_the_address_is_never_printed() -> None:
    async with told(log_item(ONE)) as server:
        shown = server.url.replace("//", "//***@")
        async with following(server.url.replace("//", "//ann:hush@")) as verb:
            await verb.line()
            await server.stop()
            assert (
                await verb.complaint() == f"relay: the relay at {shown} ended the stream: trying again until it answers"
            )
            await server.start(int(server.url.rpartition(":")[2]))
            assert await verb.complaint() == f"relay: the relay at {shown} answers again"


async def test_states_that_were_passed_over_are_told_on_standard_error() -> None:
    async with told(log_item(ONE)) as server, following(server.url) as verb:
        await verb.line()
        await server.say('event: lost\ndata: {"detail": "too slow: 17 states"}\n\n')
        assert await verb.complaint() == "relay: some states were passed over: too slow: 17 states"


async def test_ctrl_c_ends_it_with_130() -> None:
    async with told(log_item(ONE)) as server, following(server.url) as verb:
        await verb.line()
        verb.process.send_signal(signal.SIGINT)
        assert await verb.ended() == 130
        assert "Traceback" not in await verb.complaint()


async def test_a_closed_pipe_ends_it_quietly() -> None:
    reading, writing = os.pipe()
    async with told() as server, following(server.url, stdout=writing) as verb:
        os.close(writing)
        os.close(reading)
        await server.tell(log_item(ONE))
        await verb.ended()
        assert await verb.complaint() == ""


async def shown_at(columns: int, lines: int, *items: dict[str, Any]) -> list[str]:
    """The first lines of `logs -f` at a terminal of so many columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    async with told(*items) as server:
        process = await asyncio.create_subprocess_exec(
            *command("logs", "-f", "--url", server.url),
            stdout=slave,
            stderr=subprocess.DEVNULL,
            env=env | {"TERM": "xterm", "PYTHONPATH": str(TOP)},
        )
        os.close(slave)
        shown = b""
        try:
            async with asyncio.timeout(PATIENCE):
                while shown.count(b"\n") < lines:
                    shown += await asyncio.to_thread(os.read, master, 65536)
        finally:
            process.kill()
            await process.wait()
            os.close(master)
    return shown.decode().splitlines()


async def test_at_a_terminal_a_state_is_one_coloured_line_that_fits() -> None:
    item = log_item(ONE, status="failed", event="failed " + "漢" * 200)
    [line] = await shown_at(80, 1, item)
    assert line.startswith(f"20:00:00  {ONE[:19]}  \x1b[31mfailed   \x1b[0m  www  blog  failed 漢")
    assert line.count("\x1b") == 2
    assert line.split("…")[1].split() == ["42", "1", "200"]


@pytest.mark.parametrize("columns", [60, 80, 100, 120])
async def test_status_attempts_code_and_error_are_there_at_every_width(columns: int) -> None:
    error = {"code": "http_error", "message": "HTTP 503 " + "x" * 200}
    names = {"route": "a-route-with-a-long-name", "source": "a-source-with-a-long-name", "entry_id": "e" * 40}
    item = log_item(ONE, status="failed", event="entry.publish", attempts=12, code=503, error=error, **names)
    head, below = (re.sub(r"\x1b\[[0-9;]*m", "", line) for line in await shown_at(columns, 2, item))
    assert len(head) <= columns
    assert len(below) == columns
    assert head.split()[1:3] == [ONE[: len(head.split()[1])], "failed"]
    assert len(head.split()[1]) >= 14
    assert head.split()[3].startswith("a-route")
    assert head.split()[-2:] == ["12", "503"]
    assert below.startswith("    http_error: HTTP 503 x")


def test_what_a_stream_holds() -> None:
    lines = [
        b": ping\n",
        b"\n",
        b"data: a\n",
        b"data: b\r\n",
        b"\n",
        b"event: lost\n",
        b"data:{}\n",
        b"\n",
        b"data: cut",
    ]
    assert list(events(lines)) == [("message", "a\nb"), ("lost", "{}")]


@pytest.mark.parametrize("option", ["--until", "--cursor", "--order"])
def test_what_is_followed_has_no_end(option: str) -> None:
    said = complaint(run("logs", "-f", option, "asc", "--url", "http://127.0.0.1:1"), 2)
    assert said.startswith(f"relay: {option} is for lists")


def test_where_no_daemon_runs_there_is_nothing_to_follow() -> None:
    [port] = free_ports(1)
    said = complaint(run("logs", "-f", "--url", f"http://127.0.0.1:{port}"), 1)
    assert "start it with 'relay serve'" in said
    assert term.FAILED == 1


async def test_an_older_daemon_is_said_to_be_one() -> None:
    async with told() as server:
        async with following(server.url + "/nowhere") as verb:
            assert "it is older than this command" in await verb.complaint()
            assert await verb.ended() == 1


async def test_what_is_nowhere_is_pointed_out_and_waited_for(tmp_path: Path) -> None:
    text = """
sources: {open: {type: generic, verify: none}}
routes: [{name: search, to: {url: "http://127.0.0.1:9"}}]
"""
    async with relay_process(tmp_path, text) as relay:
        for more in ((), ("--limit", "0")):
            async with following(relay.admin, "--route", "serch,search", "--source", "opne", *more) as verb:
                assert await verb.complaint() == "relay: no route is called 'serch' (did you mean 'search'?)"
                assert await verb.complaint() == "relay: no source is called 'opne' (did you mean 'open'?)"
                assert verb.process.returncode is None


async def test_relay_itself_can_be_followed(tmp_path: Path) -> None:
    text = """
sources: {open: {type: generic, verify: none, map: {action: body.action}}}
routes: [{name: up, to: {url: "URL"}}]
"""
    async with sink() as there, relay_process(tmp_path, text.replace("URL", there.url)) as relay:
        async with aiohttp.ClientSession() as session:
            async with following(relay.admin, "--json", "--route", "up") as verb:
                states = []
                async with session.post(relay.public + "/in/open", json={"action": "publish"}) as taken:
                    assert taken.status == 200
                while "delivered" not in states:
                    states.append(json.loads(await verb.line())["status"])
                # Where it was sent before the stream began it is among the newest.
                assert states in (["pending", "delivered"], ["delivered"])
