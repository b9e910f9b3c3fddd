"""Whatever a destination does, an attempt ends in time, in little memory, with a code and a message that says why."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import weakref
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from relay import client, direct
from relay.client import HttpTransport, Unreachable
from relay.clock import rfc3339
from relay.destination import Limits, Outbound, Wire
from relay.egress import Egress
from tests.fakes import NOON, ManualClock, until
from tests.faults.names import Names
from tests.faults.peers import CASES, FINE, METADATA, OK, Case, endless, hang, late, peer, says, status
from tests.faults.routes import config, ended, one_route
from tests.harness import PATIENCE, relay_here

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent.parent
KEPT = 16 << 10
MOST_MEMORY = 16  # MiB


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_each_fault_has_its_code_and_says_why(tmp_path: Path, case: Case, names: Names) -> None:
    async with (
        case.serve(tmp_path) as destination,
        relay_here(tmp_path, one_route(destination.url, case.keys(tmp_path))) as relay,
    ):
        detail = await ended(relay)
        [attempt] = detail["attempts"]
        if case.code is None:
            assert detail["delivery"]["status"] == "delivered"
            response = attempt["response"]
            assert (response["status"], response["truncated"]) == (200, True)
            assert len(response.get("body") or response.get("body_base64", "")) <= KEPT * 4 / 3 + 4
        else:
            assert detail["delivery"]["status"] == "failed"
            assert detail["delivery"]["error"]["code"] == attempt["error"]["code"] == case.code
            assert re.search(case.says, attempt["error"]["message"]), attempt["error"]["message"]
        assert attempt["duration_ms"] < 5000
        if case.tls is not None or case.no_tls:
            assert destination.requests == 0, "nothing was sent, encrypted or not"
        if case.no_tls:
            assert destination.heard[:1] == b"\x16"  # a TLS handshake
            assert b"webhook-id" not in destination.heard
            assert b"POST" not in destination.heard


async def test_why_a_connection_ended_is_said_also_where_that_was_before_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = client._Connector._create_connection

    async def until_it_ends(self: Any, *rest: Any) -> ResponseHandler:
        connection = await connect(self, *rest)
        await until(lambda: not connection.is_connected())
        return connection

    monkeypatch.setattr(client._Connector, "_create_connection", until_it_ends)
    case = CASES["client certificate wanted, TLS 1.3"]
    async with (
        case.serve(tmp_path) as destination,
        relay_here(tmp_path, one_route(destination.url, case.keys(tmp_path))) as relay,
    ):
        error = (await ended(relay))["delivery"]["error"]
        assert error["code"] == case.code
        assert case.says in error["message"]


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's figures of a process")
def test_the_real_daemon_says_the_same_and_spends_little_memory_on_each() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.faults.hostile", "--json"], capture_output=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, b"")
    rows = {row["fault"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert {fault: row["code"] for fault, row in rows.items()} == {
        fault: case.code or "delivered" for fault, case in CASES.items()
    }
    assert [row for fault, row in rows.items() if not re.search(CASES[fault].says, row["message"])] == []
    assert [row for row in rows.values() if row["mib"] >= MOST_MEMORY] == []


# --- bodies that nobody reads -----------------------------------------------------------------------------------------

DESCRIPTORS = Path("/proc/self/fd")


def sockets() -> int:
    """How many this process has open."""
    return sum(os.path.realpath(each).rpartition("/")[2].startswith("socket:") for each in DESCRIPTORS.iterdir())


def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have connections take little that is not read, as on the way to another machine."""
    connect = socket.socket.connect

    def connected(self: socket.socket, address: Any) -> None:
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connected)


@pytest.mark.skipif(not DESCRIPTORS.exists(), reason="needs Linux's list of open files")
@pytest.mark.parametrize("size", [direct.LARGEST, 4 << 20], ids=["64 KiB", "4 MiB"])
@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_destination_that_reads_nothing_keeps_no_connection_past_the_timeout(
    make: Callable[[], asyncio.AbstractEventLoop], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch)

    async def several(url: str) -> None:
        async with HttpTransport(Egress.of(())) as transport:
            outbound = Outbound("POST", URL(url), [], bytes(size))
            before = sockets()
            for _ in range(4):
                with pytest.raises(Unreachable, match=r"no answer within 0\.1 s"):
                    await transport.send(outbound, Limits(0.1, PATIENCE, 100))
            await until(lambda: sockets() <= before)

    with asyncio.Runner(loop_factory=make) as runner, socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # the system takes connections, and what is sent on them as long as there is room
        runner.run(several(f"http://127.0.0.1:{listener.getsockname()[1]}"))


async def test_a_connection_on_which_an_answer_came_before_all_was_read_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow(monkeypatch)
    connected: list[asyncio.StreamWriter] = []

    async def answer_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        async with (
            await asyncio.start_server(answer_early, sock=listener, limit=1024),
            HttpTransport(Egress.of(())) as transport,
        ):
            outbound = Outbound("POST", URL(f"http://127.0.0.1:{listener.getsockname()[1]}"), [], bytes(direct.LARGEST))
            for number in (1, 2):
                reply = await transport.send(outbound, Limits(PATIENCE, PATIENCE, 100))
                assert (reply.response.status, len(connected)) == (200, number)
            for writer in connected:
                writer.transport.abort()


# --- redirects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["the metadata service", "another destination", "itself"])
async def test_a_redirect_is_a_failure_and_nobody_connects_to_where_it_points(
    tmp_path: Path, connected: list[tuple[str, int]], code: int, to: str
) -> None:
    location = METADATA

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await status(f"{code} Away", f"Location: {location}")(reader, writer)

    async with peer(FINE) as target, peer(redirect) as destination:
        location = {"another destination": target.url, "itself": destination.url}.get(to, METADATA)
        async with relay_here(tmp_path, one_route(destination.url)) as relay:
            detail = await ended(relay)
            assert (detail["delivery"]["status"], detail["delivery"]["code"]) == ("failed", code)
            assert detail["delivery"]["error"] == {"code": "http_status", "message": f"HTTP {code}"}
            assert (destination.requests, target.connections) == (1, 0)
            assert "169.254.169.254" not in {address for address, _ in connected}
            [route] = (await relay.get("/health"))["routes"]
            assert route["last_error"] == {"code": "http_status", "message": f"HTTP {code}"}


# --- Retry-After ------------------------------------------------------------------------------------------------------

BY_SCHEDULE = timedelta(minutes=1)
DAY = timedelta(hours=24)
ASKED = {
    "seconds": ("7200", timedelta(hours=2)),
    "seconds before the schedule": ("5", BY_SCHEDULE),
    "a date": (format_datetime(NOON + timedelta(hours=3), usegmt=True), timedelta(hours=3)),
    "a date as C prints it": ("Mon Nov 23 15:00:00 2026", timedelta(hours=3)),
    "a date past": (format_datetime(NOON - timedelta(hours=3), usegmt=True), BY_SCHEDULE),
    "a date next year": (format_datetime(NOON + timedelta(days=365), usegmt=True), DAY),
    "negative": ("-1", BY_SCHEDULE),
    "none": ("0", BY_SCHEDULE),
    "31,000 years": ("1000000000000", DAY),
    "a number in another form": ("1e12", BY_SCHEDULE),
    "garbage": ("soon", BY_SCHEDULE),
    "nothing": ("", BY_SCHEDULE),
}


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(("said", "wait"), ASKED.values(), ids=ASKED.keys())
async def test_retry_after_is_honoured_for_a_day_at_most_and_else_the_schedule(
    tmp_path: Path, code: int, said: str, wait: timedelta
) -> None:
    clock = ManualClock()
    retry = "retry: {policy: fixed, every: 1m, attempts: 5, jitter: 0}"
    async with peer(status(f"{code} Busy", f"Retry-After: {said}")) as destination:
        async with relay_here(tmp_path, one_route(destination.url, route=retry), clock) as relay:
            delivery = (await ended(relay))["delivery"]
            assert (delivery["status"], delivery["code"]) == ("pending", code)
            assert delivery["next_attempt_at"] == rfc3339(clock.now() + wait)


async def test_retry_after_on_any_other_answer_is_not_heard(tmp_path: Path) -> None:
    clock = ManualClock()
    retry = "retry: {policy: fixed, every: 1m, attempts: 5, jitter: 0}"
    async with peer(status("500 Broken", "Retry-After: 7200")) as destination:
        async with relay_here(tmp_path, one_route(destination.url, route=retry), clock) as relay:
            delivery = (await ended(relay))["delivery"]
            assert delivery["next_attempt_at"] == rfc3339(clock.now() + BY_SCHEDULE)


# --- what is kept of an answer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "ends"), [("200 OK", ("delivered", None)), ("500 Broken", ("failed", "http_status"))], ids=["200", "500"]
)
@pytest.mark.parametrize(("size", "truncated"), [(0, False), (1023, False), (1024, False), (1025, True), (99999, True)])
async def test_the_status_decides_and_of_the_body_only_response_body_is_kept(
    tmp_path: Path, line: str, ends: tuple[str, str | None], size: int, truncated: bool
) -> None:
    answer = f"HTTP/1.1 {line}\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size
    store = f"store: {{url: 'sqlite:{tmp_path / 'relay.db'}', response_body: 1KiB}}\n"
    async with peer(says(answer)) as destination:
        text = config(f"name: r, to: {{url: '{destination.url}'}}, retry: none", store=store)
        async with relay_here(tmp_path, text) as relay:
            detail = await ended(relay)
            error = detail["delivery"]["error"]
            assert (detail["delivery"]["status"], error["code"] if error else None) == ends
            response = detail["attempts"][0]["response"]
            assert (response["body"], response["truncated"]) == ("x" * min(size, 1024), truncated)


async def test_a_failure_is_known_by_its_status_whatever_its_body_does(tmp_path: Path) -> None:
    head = b"HTTP/1.1 422 No\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with peer(says(head, then=endless(b"10000\r\n" + b"x" * 65536 + b"\r\n"))) as destination:
        async with relay_here(tmp_path, one_route(destination.url)) as relay:
            detail = await ended(relay)
            assert detail["delivery"]["error"]["code"] == "refused"
            response = detail["attempts"][0]["response"]
            assert (len(response["body"]), response["truncated"]) == (KEPT, True)


# --- connections that stay open ---------------------------------------------------------------------------------------


async def test_what_comes_unasked_on_an_idle_connection_is_no_answer_to_the_next_request(tmp_path: Path) -> None:
    unasked, sent = asyncio.Event(), asyncio.Event()
    empty = OK + b"Content-Length: 0\r\n\r\n"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if sent.is_set():
            await status("503 Busy")(reader, writer)
            return
        await says(empty)(reader, writer)
        await unasked.wait()
        await says(empty)(reader, writer)
        sent.set()
        await asyncio.Event().wait()

    async with peer(talk) as destination, relay_here(tmp_path, one_route(destination.url)) as relay:
        assert (await ended(relay))["delivery"]["status"] == "delivered"
        unasked.set()
        await sent.wait()
        assert (await ended(relay))["delivery"]["code"] == 503
        assert destination.requests == 2


async def test_part_of_an_answer_that_nobody_asked_for_is_no_beginning_of_the_next_one(tmp_path: Path) -> None:
    first = OK + b"Content-Length: 0\r\n\r\n"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await says(first + b"HTTP/1.1 200 ")(reader, writer)
        await reader.readuntil(b"\r\n\r\n")
        await status("503 Busy")(reader, writer)

    async with peer(talk) as destination, relay_here(tmp_path, one_route(destination.url)) as relay:
        assert (await ended(relay))["delivery"]["status"] == "delivered"
        assert (await ended(relay))["delivery"]["code"] == 503
        assert destination.connections == 1


async def test_a_connection_that_was_idle_for_long_is_not_used_again_before_it_is_swept_away() -> None:
    async with peer(says(OK + b"Content-Length: 0\r\n\r\n", then=hang)) as destination:
        async with HttpTransport(Egress.of(())) as transport:
            outbound = Outbound("POST", URL(destination.url), [], b"")
            await transport.send(outbound, Limits(PATIENCE, PATIENCE, 100))
            [[lease]] = transport._pool.direct._idle.values()
            lease.since -= direct._IDLE
            await transport.send(outbound, Limits(PATIENCE, PATIENCE, 100))
            assert destination.connections == 2


async def test_a_tls_context_is_let_go_when_a_renewed_one_has_taken_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_IDLE", 0.01)
    async with peer(status("200 OK")) as destination, HttpTransport(Egress.of(())) as transport:
        context = ssl.create_default_context()
        outbound = Outbound("POST", URL(destination.url), [], b"", Wire(context))
        assert (await transport.send(outbound, Limits(PATIENCE, PATIENCE, 100))).response.status == 200
        old = weakref.ref(context)
        del context, outbound
        async with asyncio.timeout(PATIENCE):
            while old() is not None:
                await asyncio.sleep(0.01)
                gc.collect()


async def test_an_idle_connection_that_answers_without_end_is_closed(tmp_path: Path) -> None:
    empty = OK + b"Content-Length: 0\r\n\r\n"
    closed = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await says(empty, then=late(endless(empty * 100)))(reader, writer)
        finally:
            closed.set()

    async with peer(talk) as destination, relay_here(tmp_path, one_route(destination.url)) as relay:
        assert (await ended(relay))["delivery"]["status"] == "delivered"
        async with asyncio.timeout(10):  # less than what an idle connection is kept
            await closed.wait()
