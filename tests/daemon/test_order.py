"""Lanes through a whole relay: what must be in order arrives in order, whatever fails; the rest waits for nobody."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from relay.client import HttpTransport
from relay.egress import Egress
from relay.web import routes
from tests.harness import PATIENCE, Received, Relay, relay_here, relay_process, sink

ANY = """
sources:
  any:
    type: generic
    verify: none
    map: {model: body.model, action: body.action, entry_id: body.id, stage: body.stage, environment: body.env}
"""


def route(url: str, more: str) -> str:
    return f"{ANY}routes: [{{name: r, to: {{url: '{url}'}}, {more}}}]\n"


def entry(entry_id: str | None, number: int, action: str = "publish", stage: str = "published", env: str = "") -> bytes:
    said = {"id": entry_id, "n": number, "action": action, "stage": stage, "env": env or None}
    return json.dumps({key: value for key, value in said.items() if value is not None}).encode()


def lanes_of(requests: list[Received]) -> dict[Any, list[int]]:
    """The numbers that arrived, by entry and environment, repeats of one attempt taken as one."""
    found: dict[Any, list[int]] = defaultdict(list)
    for request in requests:
        told = json.loads(request.body)
        numbers = found[told.get("id"), told.get("env")]
        if not numbers or numbers[-1] != told["n"]:
            numbers.append(told["n"])
    return found


async def settled(relay: Relay, count: int) -> list[dict[str, Any]]:
    return await relay.logs_when(
        lambda items: len(items) == count and not any(item["status"] in ("pending", "held") for item in items),
        "?limit=1000",
    )


async def test_entries_arrive_in_order_over_failures_failed_heads_and_kill_9(tmp_path: Path) -> None:
    draw = random.Random(4)

    async def answer(request: Received) -> int:
        await asyncio.sleep(draw.random() / 200)  # answers overtake each other
        # One in ten is given up on; the others may fail and are tried again.
        return draw.choices([200, 503, 422], [6, 3, 1])[0]

    policy = (
        "order: entry, concurrency: 16, unhealthy_after: 100000,"
        " retry: {policy: fixed, every: 20ms, attempts: 4, jitter: 0.5}"
    )
    async with sink(answer) as destination:
        async with relay_process(tmp_path, route(destination.url, policy)) as relay, aiohttp.ClientSession() as session:
            sent: dict[Any, list[int]] = defaultdict(list)
            refused = 0

            async def post(key: tuple[str, str], number: int) -> bool:
                try:
                    body = entry(key[0], number, env=key[1])
                    async with session.post(f"{relay.public}/in/any", data=body) as response:
                        await response.read()
                        return response.status == 200
                except aiohttp.ClientError:
                    return False

            number = 0
            for _ in range(3):
                for _ in range(60):
                    key = (draw.choice("abcdef"), draw.choice(["main", "staging"]))
                    number += 1
                    if await post(key, number):
                        sent[key].append(number)
                    else:
                        refused += 1
                relay.kill()
                await relay.start()
            async with asyncio.timeout(PATIENCE):
                while True:
                    async with session.get(f"{relay.admin}/logs?status=pending") as response:
                        if not json.loads(await response.read())["items"]:
                            break
                    await asyncio.sleep(0.02)
            assert refused <= 3
            arrived = lanes_of(destination.received)
            assert arrived.keys() == sent.keys()
            for key, numbers in arrived.items():
                # No retry of the one before comes after the next one's first attempt: it never goes back.
                assert numbers == sorted(numbers), key
                assert set(numbers) >= set(sent[key]), "each was at least tried"


async def test_nothing_waits_for_another_lane(tmp_path: Path) -> None:
    stuck = asyncio.Event()

    async def answer(request: Received) -> int:
        if json.loads(request.body)["id"] == "stuck":
            await stuck.wait()
        return 200

    async with sink(answer) as destination:
        async with relay_here(tmp_path, route(destination.url, "order: entry, concurrency: 4")) as relay:
            for number in range(10):
                await relay.post("/in/any", entry("stuck", number))
            for number in range(30):
                await relay.post("/in/any", entry(f"free{number % 3}", number))
            await destination.wait_count(31)
            assert Counter(json.loads(request.body)["id"] == "stuck" for request in destination.received)[True] == 1
            stuck.set()
            await settled(relay, 40)
            assert lanes_of(destination.received)["stuck", None] == list(range(10))


async def test_latest_sends_only_the_newest_of_what_waited_by_stage(tmp_path: Path) -> None:
    busy, begun = asyncio.Event(), asyncio.Event()

    async def answer(request: Received) -> int:
        begun.set()
        await busy.wait()
        return 200

    async with sink(answer) as destination:
        async with relay_here(tmp_path, route(destination.url, "order: latest, concurrency: 8")) as relay:
            await relay.post("/in/any", entry("a", 0))
            await begun.wait()
            for number in range(1, 7):
                await relay.post("/in/any", entry("a", number, stage="draft" if number % 2 else "published"))
            await relay.post("/in/any", entry("a", 7, env="staging"))
            await relay.post("/in/any", entry("b", 8))
            busy.set()
            items = await settled(relay, 9)
            assert lanes_of(destination.received) == {
                ("a", None): [0, 5, 6], ("a", "staging"): [7], ("b", None): [8],
            }  # fmt: skip
            assert Counter(item["status"] for item in items) == {"delivered": 5, "merged": 4}


async def test_a_delete_takes_up_all_that_waits_and_nothing_older_follows_it(tmp_path: Path) -> None:
    well = False
    policy = "order: latest, unhealthy_after: 1000, retry: {policy: fixed, every: 1h, attempts: 9}"
    async with sink(lambda request: 200 if well else 500) as destination:
        async with relay_here(tmp_path, route(destination.url, policy)) as relay:
            await relay.post("/in/any", entry("a", 0, stage="draft"))
            await relay.logs_when(lambda items: items and items[0]["attempts"])
            for number, stage in enumerate(["published", "draft"], 1):
                await relay.post("/in/any", entry("a", number, stage=stage))
            # The first one failed and was taken up by the third, so that the second one went before it, and failed.
            await relay.logs_when(lambda items: [item["attempts"] for item in items] == [0, 1, 1])
            well = True
            await relay.post("/in/any", entry("a", 9, action="delete"))
            items = await settled(relay, 4)
            assert [item["status"] for item in items] == ["delivered", "merged", "merged", "merged"]
            assert {item["merged_into"] for item in items[1:]} == {items[0]["id"]}
            assert lanes_of(destination.received)["a", None][-1] == 9


async def test_what_failed_is_not_sent_after_something_newer(tmp_path: Path) -> None:
    async with sink(lambda request: 422 if request.n == 1 else 200) as destination:
        async with relay_here(tmp_path, route(destination.url, "order: latest")) as relay:
            await relay.post("/in/any", entry("a", 1))
            [old] = await relay.logs_when(lambda items: items and items[0]["status"] == "failed")
            await relay.post("/in/any", entry("a", 2, action="delete"))
            await destination.wait_count(2)
            await relay.logs_when(lambda items: items[0]["status"] == "delivered")
            status, answer = await relay.ask("POST", f"/logs/{old['id']}/retry")
            assert status == 409
            assert "newer" in answer["detail"]
            assert (await relay.ask("POST", "/logs/retry?all=1"))[1] == {"count": 0, "held": 0, "passed_over": 1}


async def test_a_whole_route_in_order(tmp_path: Path) -> None:
    policy = "order: route, concurrency: 8, retry: {policy: fixed, every: 10ms, attempts: 9}, unhealthy_after: 1000"
    async with sink(lambda request: 503 if request.n % 3 else 200) as destination:
        async with relay_here(tmp_path, route(destination.url, policy)) as relay:
            for number in range(20):
                await relay.post("/in/any", entry(str(number % 4), number))
            await settled(relay, 20)
            numbers = [json.loads(request.body)["n"] for request in destination.received]
            assert numbers == sorted(numbers)
            assert set(numbers) == set(range(20))


async def test_an_order_that_a_reload_brings_holds_for_what_waits_already(tmp_path: Path) -> None:
    well = False
    policy = "ORDER, unhealthy_after: 1000, concurrency: 8, retry: {policy: fixed, every: 20ms, attempts: 1000}"
    async with sink(lambda request: 200 if well else 500) as destination:
        async with relay_here(tmp_path, route(destination.url, policy.replace("ORDER", "order: none"))) as relay:
            for number in range(12):
                await relay.post("/in/any", entry("a", number))
            path = tmp_path / "config.yaml"
            path.write_text(path.read_text().replace("order: none", "order: entry"))
            assert (await relay.ask("POST", "/reload"))[0] == 200
            await relay.logs_when(lambda items: all(item["attempts"] for item in items[-1:]))
            before = len(destination.received)
            # Attempts that were in flight at the reload end as they began; from here on there is one at a time.
            await destination.wait_count(before + 10)
            well = True
            await settled(relay, 12)
            arrived = [json.loads(request.body)["n"] for request in destination.received[-12:]]
            assert arrived == list(range(12))
            path.write_text(path.read_text().replace("order: entry", "order: none"))
            assert (await relay.ask("POST", "/reload"))[0] == 200
            await relay.post("/in/any", entry("a", 12))
            await settled(relay, 13)


@pytest.mark.parametrize(("order", "arrived"), [("entry", [0, 0, 1]), ("latest", [0, 1])], ids=["entry", "latest"])
async def test_what_was_still_arriving_when_an_order_came_keeps_it(
    tmp_path: Path, order: str, arrived: list[int]
) -> None:
    well = False
    policy = "order: none, unhealthy_after: 1000, retry: {policy: fixed, every: 1h, attempts: 9}"
    async with sink(lambda request: 200 if well else 500) as destination:
        async with relay_here(tmp_path, route(destination.url, policy)) as relay:
            await relay.post("/in/any", entry("a", 0))
            [older] = await relay.logs_when(lambda items: items and items[0]["attempts"])
            well = True
            async with relay.begun("/in/any", entry("a", 1)) as go_on:
                path = tmp_path / "config.yaml"
                path.write_text(path.read_text().replace("order: none", f"order: {order}"))
                assert (await relay.ask("POST", "/reload"))[0] == 200
                assert await go_on() == 200
            if order == "entry":
                assert (await relay.ask("POST", f"/logs/{older['id']}/retry"))[0] == 200
            items = await settled(relay, 2)
            assert [json.loads(request.body)["n"] for request in destination.received] == arrived
            assert items[-1]["status"] == ("delivered" if order == "entry" else "merged")


async def test_what_comes_as_soon_as_an_order_does_is_not_sent_past_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped, go_on = asyncio.Event(), asyncio.Event()
    well = False

    async def follow(transport: HttpTransport, policy: Egress) -> None:
        """It closes connections of the old config, which may take a moment."""
        swapped.set()
        await go_on.wait()

    monkeypatch.setattr(HttpTransport, "follow", follow)
    policy = "order: none, unhealthy_after: 1000, retry: {policy: fixed, every: 1h, attempts: 9}"
    async with sink(lambda request: 200 if well else 500) as destination:
        async with relay_here(tmp_path, route(destination.url, policy)) as relay, asyncio.TaskGroup() as group:
            await relay.post("/in/any", entry("a", 0))
            [older] = await relay.logs_when(lambda items: items and items[0]["attempts"])
            well = True
            path = tmp_path / "config.yaml"
            path.write_text(path.read_text().replace("order: none", "order: entry"))
            reload = group.create_task(relay.ask("POST", "/reload"))
            await swapped.wait()
            await relay.post("/in/any", entry("a", 1))
            go_on.set()
            assert (await reload)[0] == 200
            assert (await relay.ask("POST", f"/logs/{older['id']}/retry"))[0] == 200
            await settled(relay, 2)
            assert [json.loads(request.body)["n"] for request in destination.received] == [0, 0, 1]


async def test_what_is_being_sent_when_an_order_comes_is_waited_for_and_not_taken_up(tmp_path: Path) -> None:
    busy = asyncio.Event()

    async def answer(request: Received) -> int:
        if json.loads(request.body)["n"] == 0:
            await busy.wait()
        return 200

    async with sink(answer) as destination:
        async with relay_here(tmp_path, route(destination.url, "order: none, concurrency: 8")) as relay:
            await relay.post("/in/any", entry("a", 0))
            await destination.wait_count(1)
            path = tmp_path / "config.yaml"
            path.write_text(path.read_text().replace("order: none", "order: latest"))
            assert (await relay.ask("POST", "/reload"))[0] == 200
            await relay.post("/in/any", entry("a", 1))
            await relay.post("/in/any", entry("b", 2))
            await destination.wait_count(2)
            assert [json.loads(request.body)["n"] for request in destination.received] == [0, 2]
            busy.set()
            items = await settled(relay, 3)
            assert {item["status"] for item in items} == {"delivered"}
            assert lanes_of(destination.received)["a", None] == [0, 1]


async def test_what_failed_gives_way_to_something_newer_that_waits(tmp_path: Path) -> None:
    first = asyncio.Event()

    async def answer(request: Received) -> int:
        if json.loads(request.body)["n"] == 1:
            await first.wait()
            return 500
        return 200

    policy = "order: latest, retry: {policy: fixed, every: 1h, attempts: 9}"
    async with sink(answer) as destination:
        async with relay_here(tmp_path, route(destination.url, policy)) as relay:
            await relay.post("/in/any", entry("a", 1))
            await destination.wait_count(1)
            await relay.post("/in/any", entry("a", 2))
            first.set()
            items = await settled(relay, 2)
            assert [item["status"] for item in items] == ["delivered", "merged"]
            assert lanes_of(destination.received)["a", None] == [1, 2]


async def test_nothing_older_follows_what_was_delivered_by_whatever_way_it_comes(tmp_path: Path) -> None:
    """Repeated by its sender, replayed by hand."""
    keyed = ANY.replace("verify: none", "verify: none\n    dedup: {key: body.n, window: 1h}")
    async with sink(lambda request: 422 if request.n == 1 else 200) as destination:
        text = keyed + f"routes: [{{name: r, to: {{url: '{destination.url}'}}, order: latest}}]\n"
        async with relay_here(tmp_path, text) as relay:
            _, first = await relay.post("/in/any", entry("a", 1))
            await relay.logs_when(lambda items: items and items[0]["status"] == "failed")
            await relay.post("/in/any", entry("a", 2, action="delete"))
            await relay.logs_when(lambda items: items[0]["status"] == "delivered")
            again = (await relay.post("/in/any", entry("a", 1)))[1]
            assert again == {"id": first["id"], "routes": ["r"], "duplicate": False}
            assert (await relay.ask("POST", f"/events/{first['id']}/replay"))[0] == 200
            await relay.post("/in/any", entry("b", 3))
            items = await settled(relay, 5)
            assert [json.loads(request.body)["n"] for request in destination.received] == [1, 2, 3]
            delivered = next(item for item in items if item["action"] == "delete")
            assert {item["merged_into"] for item in items if item["status"] == "merged"} == {delivered["id"]}


async def test_of_several_that_are_retried_or_moved_only_the_newest_goes_out(tmp_path: Path) -> None:
    well = False
    text = ANY + "routes: [{name: NAME, to: {url: 'URL'}, order: latest, unhealthy_after: 999}]\n"
    async with sink(lambda request: 200 if well else 422) as destination:
        text = text.replace("URL", destination.url)
        async with relay_here(tmp_path, text.replace("NAME", "r")) as relay:
            for number in range(3):
                await relay.post("/in/any", entry("a", number))
                await relay.logs_when(lambda items: items and {item["status"] for item in items} == {"failed"})
            well = True
            assert (await relay.ask("POST", "/logs/retry?all=1"))[0] == 200
            await settled(relay, 3)
            assert [json.loads(request.body)["n"] for request in destination.received] == [0, 1, 2, 2]
            assert (await relay.ask("POST", "/routes/r/pause"))[0] == 200
            await relay.post("/in/any", entry("a", 3))
            path = tmp_path / "config.yaml"
            path.write_text(path.read_text().replace("name: r,", "name: new,"))
            assert (await relay.ask("POST", "/reload"))[0] == 200
            await relay.post("/in/any", entry("a", 4, action="delete"))
            await destination.wait_count(5)
            assert (await relay.ask("POST", "/routes/r/move?to=new"))[0] == 200
            await settled(relay, 5)
            assert [json.loads(request.body)["n"] for request in destination.received] == [0, 1, 2, 2, 4]


@pytest.mark.parametrize("order", ["none", "entry", "latest"])
async def test_what_is_moved_waits_for_what_the_old_route_is_still_sending(tmp_path: Path, order: str) -> None:
    answered, begun = asyncio.Event(), asyncio.Event()

    async def answer(request: Received) -> int:
        if not begun.is_set():
            begun.set()
            await answered.wait()
        return 200

    text = ANY + f"routes: [{{name: NAME, to: {{url: 'URL'}}, order: {order}, concurrency: 1}}]\n"
    async with sink(answer) as destination:
        text = text.replace("URL", destination.url)
        async with relay_here(tmp_path, text.replace("NAME", "r")) as relay:
            await relay.post("/in/any", entry("a", 0, action="step0"))
            await begun.wait()  # until then `latest` would merge it into the next one
            await relay.post("/in/any", entry("a", 1, action="step1"))
            path = tmp_path / "config.yaml"
            path.write_text(path.read_text().replace("name: r,", "name: new,"))
            assert (await relay.ask("POST", "/reload"))[0] == 200
            async with asyncio.TaskGroup() as group:
                moving = group.create_task(relay.ask("POST", "/routes/r/move?to=new"))
                await relay.logs_when(lambda items: [item["status"] for item in items] == ["held", "held"])
                assert not moving.done()
                answered.set()
            status, said = moving.result()
            assert (status, said["count"]) == (200, 1)
            await settled(relay, 2)
            assert [json.loads(request.body)["n"] for request in destination.received] == [0, 1]


async def _renamed(relay: Relay, tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace(old, new))
    assert (await relay.ask("POST", "/reload"))[0] == 200


@pytest.mark.parametrize(
    ("meanwhile", "status", "detail"),
    [
        (None, 409, "something of r is still being sent: move again when that has ended"),
        (("name: new,", "name: r,"), 404, "there is no route 'new'"),
        (
            ("name: other,", "name: r,"),
            409,
            "r is still in the config: rename or remove it there and reload, then move",
        ),
        (("name: new,", "name: newer,"), 404, "there is no route 'new'"),
    ],
)
async def test_what_is_not_moved_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: tuple[str, str] | None, status: int, detail: str
) -> None:
    monkeypatch.setattr(routes, "_ENDING", 0.05 if meanwhile is None else 60)
    answered, begun = asyncio.Event(), asyncio.Event()

    async def answer(request: Received) -> int:
        begun.set()
        await answered.wait()
        return 200

    async with sink(answer) as destination:
        text = ANY + (
            f"routes: [{{name: r, to: {{url: '{destination.url}'}}}},"
            f" {{name: other, match: {{action: none}}, to: {{url: '{destination.url}'}}}}]\n"
        )
        async with relay_here(tmp_path, text) as relay:
            await relay.post("/in/any", entry("a", 0))
            await begun.wait()
            await _renamed(relay, tmp_path, "name: r,", "name: new,")
            async with asyncio.TaskGroup() as group:
                moving = group.create_task(relay.ask("POST", "/routes/r/move?to=new"))
                if meanwhile is not None:
                    await relay.logs_when(lambda items: [item["status"] for item in items] == ["held"])
                    await _renamed(relay, tmp_path, *meanwhile)
                    if meanwhile[1] == "name: newer,":
                        answered.set()
            got, said = moving.result()
            assert got == status
            assert detail in said["detail"]
            answered.set()
            if meanwhile is None:
                await settled(relay, 1)


async def test_a_route_that_is_disabled_is_still_in_the_config(tmp_path: Path) -> None:
    text = (
        ANY
        + "routes: [{name: r, enabled: false, to: {url: 'http://127.0.0.1:1/'}}, {name: new, to: {url: 'http://127.0.0.1:1/'}}]\n"
    )
    async with relay_here(tmp_path, text) as relay:
        status, said = await relay.ask("POST", "/routes/r/move?to=new")
        assert (status, said["detail"].partition(":")[0]) == (409, "r is still in the config")
