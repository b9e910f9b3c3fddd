"""Requests that senders repeat, through a whole relay: answered alike, delivered once; what only looks alike is not."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relay.config import load
from relay.event import Inbound
from relay.runtime import Runtime, build
from relay.samples import load as sample
from relay.sending import request_for
from tests.harness import Relay, relay_here, sink

SOURCES = """
sources:
  crm: {type: standard, secret: whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3}
  www: {type: storyblok, secret: 0123456789abcdef}
  stack: {type: contentstack, token: 0123456789abcdef}
  repo: {type: github, secret: 0123456789abcdef}
  shop: {type: generic, verify: none, dedup: {key: body.order, window: 1h}, map: {entry_id: body.order}}
"""


def config(url: str, more: str = "") -> str:
    return f"{SOURCES}routes: [{{name: r, to: {{url: '{url}'}}{more}}}]\n"


def made(folder: Path) -> Runtime:
    return build(load(folder / "config.yaml"), 1, datetime.now(UTC))


async def send(relay: Relay, path: str, inbound: Inbound) -> dict[str, Any]:
    status, answer = await relay.post(path, inbound.body, list(inbound.headers.items()))
    assert status == 200
    return answer


async def test_the_same_message_is_delivered_once_also_over_a_restart(tmp_path: Path) -> None:
    async with sink() as destination:
        async with relay_here(tmp_path, config(destination.url)) as relay:
            message = request_for(made(tmp_path).sources["crm"], None, None, datetime.now(UTC))
            first = await send(relay, "/in/crm", message)
            assert first["duplicate"] is False
            again = await asyncio.gather(*(send(relay, "/in/crm", message) for _ in range(5)))
            assert again == [{"id": first["id"], "routes": ["r"], "duplicate": True}] * 5
            await destination.wait_count(1)
        async with relay_here(tmp_path, config(destination.url)) as relay:
            assert await send(relay, "/in/crm", message) == {"id": first["id"], "routes": ["r"], "duplicate": True}
            await relay.logs_when(lambda items: [item["status"] for item in items] == ["delivered"])
            assert len(destination.received) == 1


async def test_two_equal_storyblok_publishes_are_two(tmp_path: Path) -> None:
    async with sink() as destination, relay_here(tmp_path, config(destination.url)) as relay:
        publish = request_for(made(tmp_path).sources["www"], "story.published", None, datetime.now(UTC))
        answers = [await send(relay, "/in/www", publish) for _ in range(2)]
        assert answers[0]["id"] != answers[1]["id"]
        await destination.wait_count(2)


async def test_publish_unpublish_publish_of_one_entry_are_three_and_a_retried_one_is_not(tmp_path: Path) -> None:
    told = json.loads(sample("contentstack", "entry.publish").body)

    def event(name: str, at: int) -> Inbound:
        body = told | {"event": name, "triggered_at": f"2026-11-26T10:00:{at:02}.000Z"}
        source = made(tmp_path).sources["stack"]
        return request_for(source, None, json.dumps(body).encode(), datetime.now(UTC))

    async with sink() as destination, relay_here(tmp_path, config(destination.url)) as relay:
        names = ("publish", "unpublish", "publish")
        answers = [await send(relay, "/in/stack", event(name, 10 * at)) for at, name in enumerate(names)]
        assert len({answer["id"] for answer in answers}) == 3
        assert not any(answer["duplicate"] for answer in answers)
        retried = await send(relay, "/in/stack", event("publish", 45))  # dated and signed anew by the sender
        assert retried == {"id": answers[2]["id"], "routes": ["r"], "duplicate": True}
        await destination.wait_count(3)


async def test_a_release_deployed_to_staging_and_to_production_has_its_assets_delivered_twice(tmp_path: Path) -> None:
    recorded = Path(__file__).parent.parent / "samples" / "contentstack" / "asset-publish-via-release.json"
    told = json.loads(json.loads(recorded.read_text())["body"])

    def deployed(at: int) -> Inbound:
        body = json.dumps(told | {"triggered_at": f"2026-11-26T10:0{at}:00.000Z"}).encode()
        return request_for(made(tmp_path).sources["stack"], None, body, datetime.now(UTC))

    async with sink() as destination, relay_here(tmp_path, config(destination.url)) as relay:
        answers = [await send(relay, "/in/stack", deployed(at)) for at in (0, 5)]
        assert answers[0]["id"] != answers[1]["id"]
        assert [answer["duplicate"] for answer in answers] == [False, False]
        await destination.wait_count(2)


async def test_a_redelivery_is_routed_anew_once_the_filter_was_mended(tmp_path: Path) -> None:
    wrong = ", match: {event: 'psuh'}"
    async with sink() as destination, relay_here(tmp_path, config(destination.url, wrong)) as relay:
        source = made(tmp_path).sources["repo"]
        push = request_for(source, None, None, datetime.now(UTC))
        first = await send(relay, "/in/repo", push)
        assert (first["routes"], first["duplicate"]) == ([], False)
        path = tmp_path / "config.yaml"
        path.write_text(path.read_text().replace("psuh", "*"))
        assert (await relay.ask("POST", "/reload"))[0] == 200
        assert await send(relay, "/in/repo", push) == {"id": first["id"], "routes": ["r"], "duplicate": False}
        [request] = await destination.wait_count(1)
        assert request.body == push.body
        assert await send(relay, "/in/repo", push) == {"id": first["id"], "routes": ["r"], "duplicate": True}
        items = await relay.logs_when(lambda items: [item["status"] for item in items] == ["delivered"])
        assert items[0]["event_id"] == first["id"]


@pytest.mark.parametrize(
    ("bodies", "deliveries"),
    [
        ([b'{"order":1}', b'{"order":1,"note":"again"}'], 1),
        ([b'{"order":1}', b'{"order":2}'], 2),
        ([b"{}", b"{}"], 2),
    ],
)
async def test_a_key_by_hand_says_what_is_the_same(tmp_path: Path, bodies: list[bytes], deliveries: int) -> None:
    async with sink() as destination, relay_here(tmp_path, config(destination.url)) as relay:
        answers = [(await relay.post("/in/shop", body))[1] for body in bodies]
        assert len({answer["id"] for answer in answers}) == deliveries
        await relay.logs_when(lambda items: [item["status"] for item in items] == ["delivered"] * deliveries)
        assert len(destination.received) == deliveries
