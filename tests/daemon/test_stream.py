"""The log as it grows: every state, in order, to whoever follows; and nobody waits for one who does not read."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from relay.following import MOST_FOLLOWERS, Follower, Followers, TooMany
from tests.harness import PATIENCE, Relay, relay_here, relay_process, sink

CONFIG = """
sources:
  cms: {{type: generic, verify: none, map: {{model: body.model, entry_id: body.entry, action: body.action}}}}
  shut: {{type: generic, token: a-token-of-enough-length}}
routes:
  - {{name: www, match: {{model: page}}, to: {{url: "{url}"}}, retry: {{policy: none}}}}
  - {{name: other, match: {{model: [post]}}, to: {{url: "{url}"}}}}
"""


class Stream:
    """What a follower reads."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def __aiter__(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        kind = "message"
        async for line in self.response.content:
            text = line.decode().rstrip("\n")
            if text.startswith("event: "):
                kind = text.removeprefix("event: ")
            elif text.startswith("data: "):
                yield kind, json.loads(text.removeprefix("data: "))
                kind = "message"

    async def until(self, status: str, event: str | None = None) -> list[dict[str, Any]]:
        """The items up to one in this state, of this event if one is named."""
        found = []
        async with asyncio.timeout(PATIENCE):
            async for kind, item in self:
                assert kind == "message"
                found.append(item)
                if item["status"] == status and event in (None, item["event_id"]):
                    return found
        raise AssertionError(f"the stream ended before anything was {status}: {found}")


@contextlib.asynccontextmanager
async def following(relay: Relay, query: str = "", **options: Any) -> AsyncIterator[Stream]:
    async with relay.session.get(f"{relay.admin}/logs/stream{query}", **options) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        assert await response.content.readline() == b"retry: 2000\n"
        yield Stream(response)


@contextlib.asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Relay]:
    async with sink() as destination, relay_here(folder, CONFIG.format(url=destination.url)) as relay:
        yield relay


async def test_each_state_is_told_in_order_as_logs_shows_it(tmp_path: Path) -> None:
    async with started(tmp_path) as relay, following(relay) as stream:
        _, accepted = await relay.post("/in/cms", b'{"model": "page", "entry": "7"}')
        items = await stream.until("delivered")
        assert [item["status"] for item in items] == ["pending", "delivered"]
        assert {item["event_id"] for item in items} == {accepted["id"]}
        assert items[-1] == (await relay.get("/logs"))["items"][0]
        await relay.ask("POST", "/routes/other/pause")
        await relay.post("/in/cms", b'{"model": "post"}')
        [held] = await stream.until("held")
        await relay.ask("POST", f"/logs/{held['id']}/cancel")
        assert [item["id"] for item in await stream.until("cancelled")] == [held["id"]]


async def test_a_stream_has_what_its_filters_want_also_what_did_not_arrive(tmp_path: Path) -> None:
    query = "?status=unmatched,rejected,failed&source=cms,shut"
    async with started(tmp_path) as relay, following(relay, query) as stream:
        await relay.post("/in/cms", b'{"model": "page"}')
        await relay.post("/in/cms", b'{"model": "nobody wants it"}')
        assert [item["model"] for item in await stream.until("unmatched")] == ["nobody wants it"]
        status, _ = await relay.post("/in/shut", b"{}")
        assert status == 401
        [rejected] = await stream.until("rejected")
        assert (rejected["source"], rejected["code"]) == ("shut", 401)


@pytest.mark.parametrize(
    ("query", "word"),
    [("limit=5", "limit"), ("cursor=dlv_1", "cursor"), ("until=2h", "until"), ("nonsense=1", "nonsense")],
)
async def test_a_filter_that_says_nothing_here_is_refused(tmp_path: Path, query: str, word: str) -> None:
    async with started(tmp_path) as relay:
        status, answer = await relay.ask("GET", f"/logs/stream?{query}")
        assert (status, answer["error"]) == (400, "bad_filter")
        assert f"'{word}'" in answer["detail"]


async def test_nothing_is_noted_while_nobody_follows(tmp_path: Path) -> None:
    async with started(tmp_path) as relay:
        assert relay.running is not None
        followers = relay.running.followers
        async with followers.follow(lambda item: True) as one, followers.follow(lambda item: True) as two:
            await relay.post("/in/cms", b'{"model": "page"}')
            for follower in (one, two):
                told, lost = await follower.next(PATIENCE)
                assert told
                assert not lost
        assert followers.count == 0
        await relay.post("/in/cms", b'{"model": "page"}')
        await relay.logs_when(lambda items: [item["status"] for item in items] == ["delivered"] * 2)
        async with followers.follow(lambda item: True) as later:
            await relay.post("/in/cms", b'{"model": "post"}')
            told, _ = await later.next(PATIENCE)
            assert all(b'"model":"post"' in one for one in told)


async def test_one_who_does_not_keep_up_is_told_how_much_was_lost() -> None:
    follower = Follower(lambda item: True)
    for number in range(5007):
        follower.tell(b"%d" % number)
    told, lost = await follower.next(0)
    assert (len(told), told[0], lost) == (5000, b"7", 7)
    follower.lose()
    assert await follower.next(0) == ([], 1)
    assert await follower.next(0) == ([], 0)


async def test_what_waits_for_one_is_bounded_also_where_it_is_large() -> None:
    follower = Follower(lambda item: True)
    for _ in range(10):
        follower.tell(b"x" * (1 << 20))
    told, lost = await follower.next(0)
    assert (len(told), lost) == (4, 6)
    follower.tell(b"x" * (5 << 20))
    assert [len(one) for one in (await follower.next(0))[0]] == [5 << 20], "one is told, however large"


async def test_so_many_may_follow_and_no_more(tmp_path: Path) -> None:
    async with started(tmp_path) as relay, contextlib.AsyncExitStack() as stack:
        assert relay.running is not None
        followers: Followers = relay.running.followers
        for _ in range(MOST_FOLLOWERS):
            await stack.enter_async_context(followers.follow(lambda item: True))
        with pytest.raises(TooMany):
            async with followers.follow(lambda item: True):
                pass
        status, answer = await relay.ask("GET", "/logs/stream")
        assert (status, answer["error"]) == (503, "unavailable")


async def test_streams_end_with_relay(tmp_path: Path) -> None:
    async with relay_process(tmp_path, CONFIG.format(url="http://127.0.0.1:9/")) as process:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{process.admin}/logs/stream") as response:
                await response.content.readline()
                assert await process.stop() == 0
                async with asyncio.timeout(PATIENCE):
                    await response.content.read()  # to its end
        assert [line["event"] for line in process.lines()][-1] == "stopped"


async def test_who_may_no_longer_look_sees_no_more(tmp_path: Path) -> None:
    config = CONFIG.format(url="http://127.0.0.1:9/")
    head = 'server: {listen: "127.0.0.1:0"}\nadmin: {listen: "127.0.0.1:0", token: %s}\n'
    async with relay_here(tmp_path, head % "first-token-of-length" + config) as relay:
        assert relay.running is not None
        authorized = {"Authorization": "Bearer first-token-of-length"}
        async with following(relay, headers=authorized) as stream:
            path = tmp_path / "config.yaml"
            path.write_text(path.read_text().replace("first-token", "other-token"))
            taken = await relay.running.reloader.reload()
            assert not taken.problems
            await relay.post("/in/cms", b'{"model": "page"}')
            async with asyncio.timeout(PATIENCE):
                assert [item async for item in stream] == []
