"""Whatever a destination does, an attempt ends in time, in little memory, with a code and a message that says why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.faults import peers
from tests.faults.peers import CASES, NO_TLS, Case, peer, tls_peer
from tests.harness import LISTEN, Relay, relay_here

SOURCES = "sources: {any: {type: generic, verify: none}}\n"
KEPT = 16 << 10


def one_route(url: str, to: str = "", route: str = "retry: none", server: str = "") -> str:
    """A config with one route to a URL."""
    head = LISTEN.replace('127.0.0.1:0"}', f'127.0.0.1:0", {server}}}', 1) if server else ""
    return head + SOURCES + f"routes: [{{name: r, to: {{url: '{url}', {to}}}, {route}}}]\n"


async def ended(relay: Relay) -> dict[str, Any]:
    """Send one event; its delivery when the first attempt has ended, in detail."""
    await relay.post("/in/any", b"{}")
    [item] = await relay.logs_when(lambda items: items and items[0]["attempts"] == 1)
    detail: dict[str, Any] = await relay.get(f"/logs/{item['id']}")
    return detail


def absolute(to: str, folder: Path) -> str:
    return to.replace("ca.pem", str(folder / "ca.pem"))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_each_fault_has_its_code_and_says_why(tmp_path: Path, case: Case) -> None:
    async with (
        peer(case.talk) if case.tls is None else tls_peer(case.tls(tmp_path)) as hostile,
        relay_here(tmp_path, one_route(hostile.url, absolute(case.to, tmp_path))) as relay,
    ):
        detail = await ended(relay)
        print(detail["delivery"]["error"], detail["attempts"][0]["duration_ms"])
        [attempt] = detail["attempts"]
        if case.code is None:
            assert detail["delivery"]["status"] == "delivered"
            response = attempt["response"]
            assert (response["status"], response["truncated"]) == (200, True)
            assert len(response.get("body") or response.get("body_base64", "")) <= KEPT * 4 / 3 + 4
        else:
            assert attempt["error"]["code"] == case.code
            assert re.search(case.says, attempt["error"]["message"]), attempt["error"]["message"]
        if case.tls is not None:
            assert hostile.requests == 0, "nothing was sent, encrypted or not"
        assert attempt["duration_ms"] < 5000


@pytest.mark.parametrize("case", NO_TLS.values(), ids=NO_TLS.keys())
async def test_where_there_is_no_tls_nothing_is_sent_in_the_clear(tmp_path: Path, case: Case) -> None:
    heard = bytearray()

    async def talk(reader: Any, writer: Any) -> None:
        heard.extend(await reader.read(65536))
        await case.talk(reader, writer)

    async with (
        peer(talk, bare=True) as hostile,
        relay_here(tmp_path, one_route(hostile.url.replace("http:", "https:"), case.to)) as relay,
    ):
        detail = await ended(relay)
        print(detail["delivery"]["error"])
        assert detail["delivery"]["error"]["code"] == case.code
        assert re.search(case.says, detail["delivery"]["error"]["message"])
        assert heard[:1] == b"\x16"  # a TLS handshake
        assert b"webhook-id" not in heard
        assert b"POST" not in heard


assert peers
