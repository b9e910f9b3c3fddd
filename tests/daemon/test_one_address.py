"""Both sides at one address: senders and operators by the same listener, each as they are answered by two."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import pytest

from relay import daemon, handover, sourcepath
from relay.clock import SystemClock
from relay.config import load
from relay.handover import HandedOver
from relay.schema import Admin as AdminSection
from relay.schema import Server, Tls, admin_url
from relay.web.admin import Admin
from relay.web.desk import Desk
from tests.certificates import write_certificate
from tests.cli.running import free_ports, run_process
from tests.daemon.test_admin import OPERATE, READ, bearer
from tests.harness import PATIENCE, Relay, relay_here, relay_process, sink, write_config

SECRET = "a-secret-of-github-that-is-long"
SOURCES = """
sources:
  any: {type: generic, verify: none}
  hub: {type: github, secret: a-secret-of-github-that-is-long, path: /hooks/hub}
"""
ELSEWHERE = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
POST = b"POST /in/any HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"


def at(listen: str, of_server: str = "") -> str:
    tokens = f"token: {OPERATE}, tokens: {{ci: {{token: {READ}, scope: read}}}}"
    return f"server: {{listen: {listen}{of_server}}}\nadmin: {{listen: {listen}, {tokens}}}\n"


def somewhere(of_server: str = "") -> str:
    """The head of a config: both sides at an address that is free."""
    [port] = free_ports(1)
    return at(f'"127.0.0.1:{port}"', of_server)


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    async with relay_here(tmp_path, somewhere() + SOURCES) as running:
        assert running.running is not None
        assert running.running.admin is running.running.public
        yield running


@asynccontextmanager
async def connected(public: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    address = urlsplit(public)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        async with asyncio.timeout(PATIENCE):
            yield reader, writer
    finally:
        writer.close()


async def answered(reader: asyncio.StreamReader) -> tuple[int, bytes, Any]:
    """Status, head and JSON of the next answer on a connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return int(head[9:12]), head, json.loads(await reader.readexactly(length))


async def test_events_are_taken_and_delivered_and_operators_find_them(tmp_path: Path) -> None:
    async with sink() as destination:
        route = f"routes: [{{name: www, to: {{url: '{destination.url}'}}}}]\n"
        async with relay_here(tmp_path, somewhere() + SOURCES + route) as relay:
            body = b'{"zen": "Keep it logically awesome."}'
            proof = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
            headers = {"X-Hub-Signature-256": f"sha256={proof}", "X-GitHub-Event": "ping", "X-GitHub-Delivery": "1"}
            assert (await relay.post("/in/any"))[0] == 200
            assert (await relay.post("/hooks/hub", body, headers))[0] == 200
            assert (await relay.post("/hooks/hub", body, {**headers, "X-Hub-Signature-256": "sha256=0"}))[0] == 401
            assert (await relay.ask("GET", "/in/any", headers=bearer(OPERATE)))[0] == 405
            await destination.wait_count(2)
            items = await relay.logs_when(
                lambda items: [item["status"] for item in items] == ["delivered"] * 2, headers=bearer(READ)
            )
            assert {item["source"] for item in items} == {"any", "hub"}


async def test_all_that_is_no_source_is_behind_the_guard(relay: Relay) -> None:
    for path in ("/", "/logs", "/config", "/metrics", "/openapi.json", "/in/nobody", "/in/any/", "/nothing"):
        for headers in ({}, bearer("wrong-token-0123456789")):
            status, answer = await relay.ask("GET", path, headers=headers)
            assert (status, answer["error"]) == (401, "unauthenticated"), path
    for path in ("/in/nobody", "/reload"):
        assert (await relay.ask("POST", path))[0] == 401
        assert (await relay.ask("POST", path, headers=bearer(READ)))[0] == 403
        assert (await relay.ask("POST", path, headers={**bearer(OPERATE), **ELSEWHERE}))[0] == 403
    assert (await relay.ask("GET", "/logs", headers={**bearer(OPERATE), "Sec-Fetch-Site": "cross-site"}))[0] == 403
    assert (await relay.ask("GET", "/logs", headers={"Host": "hooks.example.com"}))[0] == 421
    assert (await relay.ask("GET", "/in/nobody", headers=bearer(READ)))[0] == 404
    assert (await relay.ask("POST", "/reload", headers=bearer(OPERATE)))[0] == 200
    assert (await relay.post("/in/any", b"{}", ELSEWHERE))[0] == 200  # a sender is known by its proof


async def test_health_says_more_to_who_has_a_token(relay: Relay) -> None:
    for host in ("127.0.0.1", "hooks.example.com"):  # as a load balancer asks
        assert await relay.get("/health", headers={"Host": host}) == {"status": "ok"}
    assert "checks" in await relay.get("/health", headers=bearer(READ))
    assert (await relay.ask("GET", "/health", headers=bearer("wrong-token-0123456789")))[0] == 401
    assert (await relay.ask("POST", "/health"))[0] == 401
    for path in ("/health/live", "/health/ready"):
        assert await relay.get(path) == {"status": "ok"}
    async with relay.session.head(relay.public + "/health") as response:
        assert response.status == 200


async def test_plain_posts_to_sources_go_past_the_loop_of_aiohttp_and_nothing_else_does(relay: Relay) -> None:
    assert relay.running is not None
    server = relay.running.public._handler
    async with connected(relay.public) as (reader, writer):
        for _ in range(2):
            writer.write(POST)
            assert (await answered(reader))[0] == 200
        assert server.requests_count == 0  # those that aiohttp has counted
        writer.write(POST.replace(b"/in/any", b"/in/nobody").replace(b"relay", b"localhost"))
        assert (await answered(reader))[0] == 401
        assert server.requests_count == 1


async def test_one_connection_may_post_and_then_look(relay: Relay) -> None:
    look = f"GET /logs?status=unmatched HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {READ}\r\n\r\n".encode()
    async with connected(relay.public) as (reader, writer):
        writer.write(POST)
        status, _, first = await answered(reader)
        assert (status, first["duplicate"]) == (200, False)
        writer.write(look + POST.replace(b"{}", b"[]") + look.replace(b"/logs", b"/nothing"))
        status, head, logs = await answered(reader)
        assert (status, [item["event_id"] for item in logs["items"]]) == (200, [first["id"]])
        assert b"nosniff" in head  # as all that the admin side answers
        assert (await answered(reader))[0] == 200
        assert (await answered(reader))[0] == 404
        writer.write(look.replace(READ.encode(), b"wrong-token-0123456789"))
        assert (await answered(reader))[0] == 401


async def test_plain_posts_to_the_admin_side_go_the_long_way(relay: Relay) -> None:
    async with connected(relay.public) as (reader, writer):
        reload = f"POST /reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATE}\r\nContent-Length: 0\r\n"
        writer.write(POST + reload.encode() + b"\r\n" + reload.encode() + b"Expect: 100-continue\r\n\r\n")
        assert [(await answered(reader))[0] for _ in range(3)] == [200, 200, 200]


async def test_a_sender_that_waits_for_100_continue_gets_it(relay: Relay) -> None:
    async with connected(relay.public) as (reader, writer):
        writer.write(POST[:-4] + b"Expect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await answered(reader))[0] == 200


async def test_bodies_are_decompressed_with_a_bound_and_long_headers_taken(relay: Relay) -> None:
    packed = {"Content-Encoding": "gzip"}
    assert (await relay.post("/in/any", gzip.compress(b'{"n": 1}'), packed))[0] == 200
    assert (await relay.post("/in/any", gzip.compress(bytes(8 << 20)), packed))[0] == 413
    assert (await relay.post("/in/any", b"{}", {"X-Long": "x" * (12 << 10)}))[0] == 200
    form = {**bearer(OPERATE), **packed, "Content-Type": "application/x-www-form-urlencoded"}
    assert (await relay.ask("POST", "/routes/pause", data=gzip.compress(b"reason=x"), headers=form))[0] == 200


async def test_a_reload_opens_the_path_of_a_new_source_and_closes_that_of_one_that_is_gone(tmp_path: Path) -> None:
    head = somewhere()
    async with relay_here(tmp_path, head + SOURCES) as relay, connected(relay.public) as (reader, writer):
        assert (await relay.post("/hooks/new"))[0] == 401  # the guard's word
        text = "sources: {new: {type: generic, verify: none, path: /hooks/new}}\n"
        write_config(tmp_path, head + text)
        assert (await relay.ask("POST", "/reload", headers=bearer(OPERATE)))[0] == 200
        assert (await relay.post("/hooks/new"))[1]["duplicate"] is False
        writer.write(POST)
        assert (await answered(reader))[2]["error"] == "unauthenticated"


async def test_a_reload_can_neither_open_it_to_all_nor_part_the_sides(tmp_path: Path) -> None:
    head = somewhere()
    async with relay_here(tmp_path, head + SOURCES) as relay:
        address = urlsplit(relay.public).netloc
        write_config(tmp_path, f'server: {{listen: "{address}"}}\nadmin: {{listen: "127.0.0.1:1"}}\n{SOURCES}')
        status, answer = await relay.ask("POST", "/reload", headers=bearer(OPERATE))
        assert status == 422
        where = f"admin.token: the admin side listens on {address}, where senders are let in as well: a token is needed"
        assert where in answer["detail"]
        apart = f'server: {{listen: "{address}"}}\nadmin: {{listen: "127.0.0.1:1", token: {OPERATE}}}\n'
        write_config(tmp_path, apart + SOURCES.replace("path: /hooks/hub", "path: /logs"))
        status, answer = await relay.ask("POST", "/reload", headers=bearer(OPERATE))
        assert (status, answer["pending_restart"]) == (200, ["admin.listen"])
        # Until then no source has a path of the admin side's.
        assert (await relay.ask("GET", "/logs", headers=bearer(OPERATE)))[0] == 200
        assert (await relay.post("/logs"))[0] == 401
        assert (await relay.post("/in/any"))[0] == 200


async def test_who_is_connected_when_relay_is_told_to_end_is_served_for_the_last_time(relay: Relay) -> None:
    assert relay.running is not None
    look = f"GET /logs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {READ}\r\n\r\n".encode()
    ready = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with connected(relay.public) as sender, connected(relay.public) as operator, connected(relay.public) as idle:
        for (reader, writer), first in ((sender, POST), (operator, look), (idle, look)):
            writer.write(first)
            assert (await answered(reader))[0] == 200
        async with asyncio.TaskGroup() as group:
            group.create_task(relay.running.wind_down())
            await asyncio.sleep(0)  # it has begun
            for (reader, writer), last, expected in ((sender, POST, 200), (operator, ready, 503)):
                writer.write(last)
                status, head, _ = await answered(reader)
                assert (status, b"Connection: close" in head) == (expected, True)
                assert await reader.read() == b""
            with pytest.raises(aiohttp.ClientConnectorError):
                async with aiohttp.ClientSession() as session:
                    await session.get(relay.admin + "/health")
        assert await idle[0].read() == b""


async def test_a_relay_that_is_told_to_end_lets_attempts_finish_and_keeps_no_follower(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def answer(request: object) -> int:
        await release.wait()
        return 200

    async with sink(answer) as destination:
        route = f"routes: [{{name: www, to: {{url: '{destination.url}'}}}}]\n"
        async with relay_process(tmp_path, somewhere() + SOURCES + route) as relay, aiohttp.ClientSession() as session:
            assert relay.public == relay.admin
            async with session.post(relay.public + "/in/any", data=b"{}") as response:
                assert response.status == 200
            await destination.wait_count(1)
            async with session.get(relay.admin + "/logs/stream", headers=bearer(READ)) as stream:
                assert relay.process is not None
                relay.process.terminate()
                await relay.said("stopping")
                release.set()
                async with asyncio.timeout(PATIENCE):
                    await stream.content.read()  # to its end
            assert await asyncio.to_thread(relay.process.wait, 4) == 0  # it need not wait for anybody
            last = [line for line in relay.lines() if line.get("event") == "stopped"]
            assert [line["interrupted"] for line in last] == [0]


async def test_a_unix_socket_may_be_that_of_both(tmp_path: Path) -> None:
    path = tmp_path / "both.sock"
    connector = aiohttp.UnixConnector(str(path))
    async with (
        relay_here(tmp_path, at(f"{{unix: {path}}}") + SOURCES) as relay,
        aiohttp.ClientSession("http://hooks.example.com", connector=connector) as session,
    ):
        assert relay.running is not None
        assert relay.running.admin.address == relay.running.public.address == f"unix:{path}"
        async with session.post("/in/any", data=b"{}") as response:
            assert response.status == 200
        for headers, status in (({}, 401), (bearer(READ), 200)):
            async with session.get("/logs", headers=headers) as response:
                assert response.status == status
    assert not path.exists() or path.is_socket()


async def test_with_a_certificate_both_sides_speak_tls(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path, "relay.example.com")
    head = somewhere(f", tls: {{cert: {certificate}, key: {key}}}")
    async with relay_here(tmp_path, head + SOURCES) as relay:
        secure = relay.public.replace("http:", "https:")
        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False
        async with relay.session.post(secure + "/in/any", data=b"{}", ssl=context) as response:
            assert response.status == 200
        async with relay.session.get(secure + "/logs", headers=bearer(READ), ssl=context) as response:
            assert response.status == 200
        config = load(tmp_path / "config.yaml").config
        assert admin_url(config.admin, config.server) == secure
        ended = await asyncio.to_thread(run_process, "reload", "--config", tmp_path / "config.yaml")
        assert ended.code == 1
        assert f"the certificate of {secure} does not hold" in ended.err
        assert "--url (with --token) takes a name that is in it, $SSL_CERT_FILE who has signed it" in ended.err


def test_the_admin_side_speaks_tls_at_the_public_sides_address_only() -> None:
    tls = Tls(cert="a", key="b")
    assert admin_url(AdminSection(), Server(tls=tls)) == "http://127.0.0.1:8081"
    assert admin_url(AdminSection(), Server(listen=AdminSection().listen)) == "http://127.0.0.1:8081"


async def test_doctor_without_a_token_says_that_one_is_needed(tmp_path: Path) -> None:
    async with relay_here(tmp_path, somewhere() + SOURCES) as relay:
        path = tmp_path / "config.yaml"
        ended = await asyncio.to_thread(run_process, "doctor", "--config", path, "--url", relay.public)
        assert "wants one of its tokens" in ended.out
        ended = await asyncio.to_thread(run_process, "doctor", "--config", path)
        assert "well, version" in ended.out


async def test_sockets_of_systemd_are_served_as_their_names_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, admin = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    monkeypatch.setattr(handover, "handed_over", lambda: HandedOver.of([public], [admin]))
    path = write_config(tmp_path, somewhere() + SOURCES)
    async with daemon.running(path, SystemClock()) as running, aiohttp.ClientSession() as session:
        assert running.admin is not running.public
        for side, status in ((public, 404), (admin, 401)):
            async with session.get(f"http://127.0.0.1:{side.getsockname()[1]}/logs") as response:
                assert response.status == status


def test_no_source_can_take_a_path_of_the_application() -> None:
    application = Admin(cast("Desk", None)).application()
    firsts = {resource.canonical.split("/")[1] for resource in application.router.resources()}
    assert firsts == sourcepath.ADMIN
