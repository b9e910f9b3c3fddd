"""The admin side as an HTTP server: methods, headers, and requests that are broken or huge. None is a 5xx."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path

import pytest

from relay.web import adminserver, server
from relay.web.dashboard import navigation
from tests.daemon.test_admin import OPERATE, READ, TOKENS, bearer
from tests.daemon.test_openapi import ENDLESS, ENTRIES, GUARDED, reading
from tests.fakes import until
from tests.harness import PATIENCE, relay_here, relay_process

PATHS = {
    "/logs": "GET,HEAD",
    "/logs/nothing": "GET,HEAD",
    "/logs/retry": "GET,HEAD,POST",  # also the page of something whose id would be "retry"
    "/logs/nothing/retry": "POST",
    "/routes/pause": "GET,HEAD,POST",
    "/routes/r/pause": "POST",
    "/reload": "POST",
    "/health/live": "GET,HEAD",
}


async def test_another_method_is_a_405_that_says_which_there_are(tmp_path: Path) -> None:
    async with reading(tmp_path, *ENTRIES) as ask:
        base = ask.running.admin
        for path, allowed in PATHS.items():
            for method in ("PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"):
                async with ask.running.session.request(method, base + path, headers=bearer(OPERATE)) as response:
                    assert response.status == 405
                    assert response.headers["Allow"] == allowed
                    assert {name: response.headers.get(name) for name in GUARDED} == GUARDED
                    assert response.content_type == "application/json"
                    answer = json.loads(await response.read())
                    assert answer["error"] == "method_not_allowed"


async def test_options_says_which_methods_there_are_and_allows_other_origins_nothing(tmp_path: Path) -> None:
    async with reading(tmp_path, *ENTRIES) as ask:
        preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        for path, allowed in PATHS.items():
            for token in (OPERATE, READ):
                headers = {**bearer(token), **preflight}
                async with ask.running.session.options(ask.running.admin + path, headers=headers) as response:
                    assert (response.status, await response.read()) == (204, b"")
                    assert response.headers["Allow"] == allowed
                    assert {name: response.headers.get(name) for name in GUARDED} == GUARDED
                    assert not [name for name in response.headers if name.lower().startswith("access-control-")]
        async with ask.running.session.options(ask.running.admin + "/reload", headers=preflight) as response:
            assert response.status == 401
        async with ask.running.session.options(ask.running.admin + "/nothing", headers=bearer(OPERATE)) as response:
            assert response.status == 404


async def test_head_is_answered_as_get_without_a_body(tmp_path: Path) -> None:
    async with reading(tmp_path, *ENTRIES) as ask:
        gets = [path for path, item in ask.document["paths"].items() if "get" in item and path not in ENDLESS]
        assert len(gets) > 10
        for path in [*gets, "/nothing", "/logs?no=1", "/logs?format=text", "/logs?format=ndjson"]:
            seen = []
            for method in ("GET", "HEAD"):
                where = ask.running.admin + path
                async with ask.running.session.request(method, where, headers=bearer(OPERATE)) as response:
                    seen.append((response.status, response.headers["Content-Type"]))
                    if method == "HEAD":
                        assert await response.read() == b""
            assert seen[0] == seen[1], path
        async with ask.running.session.head(ask.running.admin + "/logs") as response:
            assert response.status == 401


# -- broken requests -------------------------------------------------------------------------------------------------

BROKEN = (
    b"GET /logs?rou\xff=1 HTTP/1.1",
    b"GET /logs?route=\xed\xa0\x80 HTTP/1.1",
    b"GET /lo\xffgs HTTP/1.1",
    b"POST /logs/retry?all=1&rou\xff=1 HTTP/1.1",
    b"GET /logs?%ff=%ED%A0%80 HTTP/1.1",
    b"GET /logs?%00=1 HTTP/1.1",
    b"GET /logs?limit=%00 HTTP/1.1",
    b"GET /logs?limit=%D9%A1 HTTP/1.1",
    b"GET /logs?since=%zz HTTP/1.1",
    b"GET /logs?cursor=%ED%A0%80 HTTP/1.1",
    b"GET /logs?cursor=dlv_ZZZZZZZZZZZZZZZZZZZZZZZZZZ HTTP/1.1",
    b"GET /logs?status=%F0%9F%92%A9 HTTP/1.1",
    b"GET /logs?route=a%00,,b HTTP/1.1",
    b"GET /logs/%ff HTTP/1.1",
    b"GET /logs/%00 HTTP/1.1",
    b"GET /logs/%ED%A0%80 HTTP/1.1",
    b"GET /%ED%A0%80%00 HTTP/1.1",
    b"GET /routes/%2e%2e%2f%ff HTTP/1.1",
    b"POST /routes/%ED%A0%80/move?to=%00 HTTP/1.1",
    b"POST /routes/pause?reason=" + b"a" * 501 + b" HTTP/1.1",
    b"POST /reload?\x00 HTTP/1.1",
    b"GET /logs?route=" + b"a" * 100_000 + b" HTTP/1.1",
    b"GET /logs/" + b"a" * 100_000 + b" HTTP/1.1",
    b"GET /logs?q\xff=" + b"%ff" * 100_000 + b" HTTP/1.1",
    b"GET /logs?" + b"&".join(b"a=%d" % number for number in range(1000)) + b" HTTP/1.1",
    b"GET /logs?" + b"&".join(b"route=%d" % number for number in range(700)) + b" HTTP/1.1",
    b"GET /logs?" + b"&".join(b"a=%d" % number for number in range(100_000)) + b" HTTP/1.1",
    b"GET /logs HTTP/1.1\r\nX-Long: " + b"a" * 100_000,
    b"GET /logs HTTP/1.1\r\nHost: two",
    b"GET /nothing HTTP/1.1\r\nExpect: nothing",
    b"DELETE /logs HTTP/1.1\r\nExpect: nothing",
    b"POST /reload HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
    b"POST /reload HTTP/1.1\r\nContent-Length: -1",
    b"GET /logs HTTP/x",
    b"CONNECT relay:1 HTTP/1.1",
    b"GET //evil.example/logs HTTP/1.1",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"hello",
)
ACCEPTED = (
    b"GET /logs?route=%00 HTTP/1.1",
    b"GET /logs?route=%zz%ED%A0%80%ff HTTP/1.1",
    b"GET /logs?entry_id=" + b",".join(b"%d" % number for number in range(1500)) + b" HTTP/1.1",
    b"GET /logs?" + b"&" * 8000 + b" HTTP/1.1",
    b"GET /logs?since=0001-01-01T00:00:00Z HTTP/1.1",
    b"GET /logs?until=9999-12-31T23:59:59Z HTTP/1.1",
    b"GET /logs HTTP/1.1\r\nX-Odd: \xff\xfe",
    b"GET /logs HTTP/1.1\r\nExpect: nothing",
    b"POST /routes/resume HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 0",
    b"GET /logs HTTP/1.1\r\nUpgrade: h2c",
)
"""Odd, and no mistake: it finds what it says."""


def send(admin: str, head: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to bytes, which need not all be read for it."""
    host, _, port = admin.removeprefix("http://").partition(":")
    rest = f"\r\nHost: {host}\r\nAuthorization: Bearer {OPERATE}\r\nConnection: close\r\n\r\n"
    answer = b""
    with socket.create_connection((host, int(port)), PATIENCE) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head + rest.encode())
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
    top, _, content = answer.partition(b"\r\n\r\n")
    status, *lines = top.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), content


def hold_against(admin: str) -> None:
    for head in BROKEN:
        status, headers, content = send(admin, head)
        assert status in (400, 404, 405), head[:80]
        assert {name: headers.get(name) for name in GUARDED} == GUARDED, head[:80]
        assert headers["Content-Type"] == "application/json"
        answer = json.loads(content)
        assert answer.keys() == {"error", "detail"}, head[:80]
        assert len(content) < 1000
    for head in ACCEPTED:
        status, headers, _ = send(admin, head)
        assert status == 200, head[:80]
        assert {name: headers.get(name) for name in GUARDED} == GUARDED, head[:80]


@pytest.mark.parametrize("parser", [{}, {"AIOHTTP_NO_EXTENSIONS": "1"}], ids=["in C", "in Python"])
async def test_broken_and_huge_requests_are_refused_in_json_by_either_parser_of_aiohttp(
    tmp_path: Path, parser: dict[str, str]
) -> None:
    text = TOKENS + "sources: {any: {type: generic, verify: none}}\n"
    async with relay_process(tmp_path, text, environ=parser) as relay:
        await asyncio.to_thread(hold_against, relay.admin)
        assert not [line for line in relay.lines() if line.get("level") == "error"]


# -- bounds ----------------------------------------------------------------------------------------------------------


async def test_half_a_request_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.Server, "head_timeout", 0.2)
    monkeypatch.setattr(navigation, "_PATIENCE", 0.2)
    head = b"POST /routes/pause HTTP/1.1\r\nHost: %s\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\n"
    form = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 50\r\n\r\nreason="
    async with relay_here(tmp_path, "sources: {open: {type: generic, verify: none}}\n") as running:
        host, _, port = running.admin.rpartition("/")[2].partition(":")
        for said, status in (
            (b"GET /logs HTTP/1.1\r\nHost: ", b""),
            (head % b"localhost" + form, b"408"),
            (head % b"evil.example" + form, b"421"),
        ):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(said)
            async with asyncio.timeout(PATIENCE):
                answered = await reader.read()
            assert answered[9:12] == status, said
            writer.close()


async def test_so_many_connections_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adminserver, "MOST_CONNECTIONS", 3)
    async with relay_here(tmp_path, "sources: {open: {type: generic, verify: none}}\n") as running:
        host, _, port = running.admin.rpartition("/")[2].partition(":")
        held = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        assert (await running.post("/in/open"))[0] == 200, "senders have their own"
        for _, each in (*held, (reader, writer)):
            each.close()


async def test_an_answer_that_nobody_reads_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_UNTAKEN", 0.2)
    async with relay_here(tmp_path, "sources: {open: {type: generic, verify: none}}\n") as running:
        event = (await running.post("/in/open", b'{"a": "%s"}' % (b"x" * 900_000)))[1]["id"]
        host, _, port = running.admin.rpartition("/")[2].partition(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1)
        writer.write(b"GET /logs/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % event.encode() * 20)
        reading = writer.transport
        assert isinstance(reading, asyncio.ReadTransport)
        reading.pause_reading()
        await until(lambda: running.running is None or not running.running.admin._handler.connections, PATIENCE)
        writer.close()


async def test_a_page_of_the_log_is_bounded_also_where_senders_say_much(tmp_path: Path) -> None:
    text = "sources: {open: {type: generic, verify: none, map: {model: body.model}}}\n"
    async with relay_here(tmp_path, text) as running:
        ids = [
            (await running.post("/in/open", b'{"model": "%d%s"}' % (number, b"m" * 900_000)))[1]["id"]
            for number in range(12)
        ]
        found: list[str] = []
        query = "/logs?status=unmatched&limit=1000"
        cursor = ""
        while True:
            page = await running.get(query + cursor)
            assert 1 <= len(page["items"]) <= 5
            found += [item["id"] for item in page["items"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert found == ids[::-1]
