"""What senders and strangers did to relay once: each is named after what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from multidict import CIMultiDict

from relay import ceilings
from relay.delivery import Added
from relay.event import Inbound
from relay.source import Rejected
from relay.sources import standard
from relay.store import Unavailable
from tests.fakes import ManualClock
from tests.harness import LISTEN, PATIENCE, Relay, relay_here, relay_process
from tests.torture.wire import Answer, exchange, post

OPEN = "sources: {open: {type: generic, verify: none}}\n"


async def _connect(relay: Relay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = relay.public.rpartition("/")[2].partition(":")
    return await asyncio.open_connection(host, int(port))


async def test_a_connection_that_says_nothing_is_closed_like_one_that_says_it_slowly(tmp_path: Path) -> None:
    text = LISTEN.replace('127.0.0.1:0"}', '127.0.0.1:0", read_timeout: 50ms}', 1) + OPEN
    async with relay_here(tmp_path, text) as relay:
        reader, writer = await _connect(relay)
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()


async def test_who_connects_and_says_nothing_makes_room_for_who_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceilings, "connections", lambda secure: 3)
    async with relay_here(tmp_path, OPEN) as relay:
        silent = [await _connect(relay) for _ in range(3)]
        assert (await exchange(relay.public, post("/in/open", b"{}"))).statuses == (200,)
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                assert await silent[0][0].read() == b"", "the one that has been silent for longest goes"
        for _, writer in silent:
            writer.close()


async def test_who_was_heard_last_is_not_the_one_who_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceilings, "connections", lambda secure: 2)
    request = b"POST /in/open HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    async with relay_here(tmp_path, OPEN) as relay, asyncio.timeout(PATIENCE):
        sender, silent = await _connect(relay), await _connect(relay)
        sender[1].write(request)
        assert b" 200 " in await sender[0].readuntil(b"\r\n")
        third = await _connect(relay)
        with contextlib.suppress(ConnectionError):
            assert await silent[0].read() == b""
        await sender[0].readuntil(b"}")
        sender[1].write(request)
        assert b" 200 " in await sender[0].readuntil(b"\r\n"), "the older one, which is in use, stays"
        for _, writer in (sender, silent, third):
            writer.close()


async def test_senders_do_not_take_the_descriptors_of_the_store_and_the_destinations(tmp_path: Path) -> None:
    prefix = ["prlimit", "--nofile=100:400", "--core=unlimited"]
    async with relay_process(tmp_path, OPEN, prefix=prefix) as relay:
        assert relay.process is not None
        limits = Path(f"/proc/{relay.process.pid}/limits").read_text().splitlines()
        [files] = [line.split() for line in limits if line.startswith("Max open files")]
        [core] = [line.split() for line in limits if line.startswith("Max core file size")]
        assert (files[3], core[4]) == ("400", "0"), "all the descriptors that may be had, and no core dumps"
        pairs = [await asyncio.open_connection(*_place(relay.public)) for _ in range(350)]
        assert (await exchange(relay.public, post("/in/open", b"{}"))).statuses == (200,)
        assert len(list(Path(f"/proc/{relay.process.pid}/fd").iterdir())) < 400 - 100
        for _, writer in pairs:
            writer.close()


BODY = b'{"it": "is large"}'.ljust(60_000)
CHUNKED = b"POST /in/open HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
BROUGHT = {
    "accepted": post("/in/open", BODY),
    "accepted, in chunks": b"".join((CHUNKED, b"%x\r\n" % len(BODY), BODY, b"\r\n0\r\n\r\n")),
    "refused by what it says": post("/in/shut", BODY),
    "refused unread": post("/in/nowhere", BODY),
}


@pytest.mark.parametrize("request_", BROUGHT.values(), ids=BROUGHT.keys())
async def test_an_idle_connection_holds_nothing_of_the_body_that_it_has_brought(
    tmp_path: Path, request_: bytes
) -> None:
    shut = "sources: {open: {type: generic, verify: none}, shut: {type: github, secret: 0123456789abcdef}}\n"
    async with relay_here(tmp_path, shut) as relay, asyncio.timeout(PATIENCE):
        reader, writer = await _connect(relay)
        writer.write(request_)
        await reader.readuntil(b"}")
        writer.close()
        readers = [each for each in gc.get_objects() if isinstance(each, aiohttp.StreamReader)]
        held = [each for each in readers if getattr(each, "_buffer", None)]
        assert held == [], "bodies are counted, and bounded, only for as long as they are looked at"


def _place(url: str) -> tuple[str, int]:
    host, _, port = url.rpartition("/")[2].partition(":")
    return host, int(port)


AMBIGUOUS = {
    "HTTP/2.0": b"POST /in/open HTTP/2.0\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/0.9": b"POST /in/open\r\n\r\n",
    "gzip, chunked": b"POST /in/open HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "no host": b"POST /in/open HTTP/1.1\r\nHost: a b/c@d\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_what_another_parser_may_read_otherwise_is_refused_and_ends_the_connection(
    tmp_path: Path, data: bytes
) -> None:
    async with relay_here(tmp_path, OPEN) as relay:
        answer = await exchange(relay.public, data)
        assert answer.raw.split(b" ")[1] == b"400"
        assert answer.closed


async def test_what_cannot_be_read_is_not_sent_back(tmp_path: Path) -> None:
    async with relay_here(tmp_path, OPEN) as relay:
        answer = await exchange(relay.public, b"GET / HTTP/1.1\r\nHost: x\r\n<script>" + b"x" * 7000 + b"\r\n\r\n")
    assert answer.statuses == (400,)
    assert answer.raw.endswith(b'{"error":"malformed_body"}')
    assert b"aiohttp" not in answer.raw
    assert b"script" not in answer.raw


async def test_a_request_over_which_aiohttps_own_loop_ends_does_not_keep_its_connection(tmp_path: Path) -> None:
    async with relay_process(tmp_path, OPEN, environ={"AIOHTTP_NO_EXTENSIONS": "1"}) as relay:
        data = b"POST https://\xff/in/open HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
        answer: Answer = await exchange(relay.public, data, wait=5)
        assert answer.closed


async def test_who_is_to_be_refused_is_answered_also_where_refusing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*anything: object) -> None:
        raise RuntimeError("a bug of ours")

    async with relay_here(tmp_path, OPEN) as relay:
        assert relay.running is not None
        monkeypatch.setattr(relay.running.store, "reject", fail)
        head = b"POST /in/open HTTP/1.1\r\nHost: not a host\r\nContent-Length: 0\r\n\r\n"
        assert (await exchange(relay.public, head)).statuses == (500,)


async def test_who_is_refused_a_thousand_times_in_one_piece_leaves_the_others_their_turn(tmp_path: Path) -> None:
    async with relay_here(tmp_path, OPEN) as relay:
        assert relay.running is not None
        refused = relay.running.ingest._metrics.not_found
        _, writer = await _connect(relay)
        writer.write(b"POST /nowhere HTTP/1.1\r\nHost: relay\r\n\r\n" * 1000)
        seen, most = 0, 0
        async with asyncio.timeout(PATIENCE):
            while seen < 1000:
                await asyncio.sleep(0)
                seen, most = refused.value, max(most, refused.value - seen)
        assert most <= 32, "so many were answered while nobody else could be"
        writer.close()


async def test_a_stranger_does_not_fill_the_log_with_refusals(tmp_path: Path) -> None:
    async with relay_here(tmp_path, OPEN, ManualClock()) as relay:
        for _ in range(30):
            status, _ = await relay.post("/in/open", b"x", {"Content-Encoding": "br"})
            assert status == 415, "the answer stays what it is"
        await relay.post("/in/open")
        assert len((await relay.get("/logs?status=rejected&limit=1000"))["items"]) == 10
        [source] = (await relay.get("/sources"))["sources"]
        assert sum(source["rejected"].values()) == 30, "each is counted"


def test_a_head_full_of_signatures_costs_no_more_than_a_few() -> None:
    key = Ed25519PrivateKey.generate()
    now = datetime(2026, 11, 23, tzinfo=UTC)
    public = "whpk_" + b64encode(key.public_key().public_bytes_raw()).decode()
    adapter = standard.Adapter(standard.Config(type="standard", public_key=public))  # type: ignore[arg-type]
    seconds = str(int(now.timestamp()))
    right = b64encode(key.sign(f"m.{seconds}.{{}}".encode())).decode()
    wrong = b64encode(Ed25519PrivateKey.generate().sign(b"x")).decode()

    def signed(count: int) -> Inbound:
        signatures = " ".join([*([f"v1a,{wrong}"] * count), f"v1a,{right}"])
        headers = {"webhook-id": "m", "webhook-timestamp": seconds, "webhook-signature": signatures}
        return Inbound(CIMultiDict(headers), b"{}")

    adapter.verify(signed(3), now)
    with pytest.raises(Rejected, match="more than 4"):
        adapter.verify(signed(4), now)


async def test_a_disk_whose_room_swings_is_complained_of_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("relay.journal.not_stored", lambda source, reason: said.append(reason))
    clock = ManualClock()
    async with relay_here(tmp_path, LISTEN + OPEN, clock) as relay:
        assert relay.running is not None

        async def full(event: object, owed: object, mark: object = None) -> Added:
            raise Unavailable(f"the disk is nearly full: {next(left)} MiB left")

        monkeypatch.setattr(relay.running.store, "add", full)
        left = itertools.cycle((6, 7))
        for _ in range(4):
            assert (await exchange(relay.public, post("/in/open", b"{}"))).statuses == (503,)
        assert len(said) == 1
        clock.advance(61)
        assert (await exchange(relay.public, post("/in/open", b"{}"))).statuses == (503,)
        assert len(said) == 2
