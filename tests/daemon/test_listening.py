"""Sources that fall silent or refuse what comes: who wants to know is told, once, and again when it is over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.harness import Received, relay_here, sink


def config(chat: str, expect: str) -> str:
    return f"""
sources:
  www: {{type: storyblok, secret: 0123456789abcdef, notify: [chat]}}
  any: {{type: generic, verify: none, expect_every: {expect}, notify: chat}}
notifiers:
  chat: {{type: webhook, url: '{chat}'}}
"""


def kinds(requests: list[Received]) -> list[tuple[Any, Any]]:
    return [(told["kind"], told["subject"]) for told in (json.loads(request.body) for request in requests)]


async def test_a_silence_is_told_when_it_opens_and_when_it_closes_also_over_a_restart(tmp_path: Path) -> None:
    async with sink() as chat:
        async with relay_here(tmp_path, config(chat.url, "500ms")) as relay:
            await chat.wait_count(1)
            health = await relay.get("/health")
            assert health["status"] == "degraded"
            assert "nothing from any since" in health["checks"]["sources"]
        async with relay_here(tmp_path, config(chat.url, "500ms")) as relay:
            assert (await relay.get("/health"))["status"] == "degraded"
            await relay.post("/in/any")
            await chat.wait_count(2)
        assert kinds(chat.received)[:2] == [("source_silent", "any"), ("source_heard", "any")]


async def test_five_refusals_in_a_row_are_told_once_until_an_event_comes(tmp_path: Path) -> None:
    async with sink() as chat, relay_here(tmp_path, config(chat.url, "1h")) as relay:
        for _ in range(4):
            assert (await relay.post("/in/www", b"{}", {"webhook-signature": "0" * 40}))[0] == 401
        assert chat.received == []
        for _ in range(4):
            assert (await relay.post("/in/www", b"{}", {"webhook-signature": "0" * 40}))[0] == 401
        [told] = await chat.wait_count(1)
        assert kinds([told]) == [("source_rejected", "www")]
        assert "0123456789abcdef" not in told.body.decode()
        [www] = [source for source in (await relay.get("/sources"))["sources"] if source["name"] == "www"]
        assert sum(www["rejected"].values()) == 8
