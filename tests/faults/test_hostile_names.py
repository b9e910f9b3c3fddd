"""Whatever names resolve to, and whether they do: nobody else waits, and no address is connected to that is denied."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from relay.clock import rfc3339
from relay.resolver import MOST_ADDRESSES, MOST_LOOKUPS
from tests.fakes import ManualClock, until
from tests.faults.names import MANY, Names
from tests.faults.peers import FINE, peer
from tests.faults.routes import config, ended, one_route
from tests.harness import relay_here, sink

HUNG = 50
DENY_ELSEWHERE = "egress: {deny: [127.0.0.66/32]}"


def hanging(count: int, more: str = "retry: none") -> list[str]:
    return [f"name: h{number}, to: {{url: 'http://{number}.hang/'}}, {more}" for number in range(count)]


async def test_fifty_names_that_hang_do_not_hold_up_another_destination(tmp_path: Path, names: Names) -> None:
    async with sink() as destination:
        port = destination.url.rpartition(":")[2]
        routes = [*hanging(HUNG), f"name: good, to: {{url: 'http://good.test:{port}/'}}"]
        async with relay_here(tmp_path, config(*routes)) as relay:
            for _ in range(3):
                _, answer = await relay.post("/in/any", b"{}")
                await relay.logs_when(len, f"?route=good&status=delivered&event_id={answer['id']}")
            assert len({name for name in names.asked if name.endswith(".hang")}) == HUNG
            waiting = (await relay.get("/logs?status=pending&limit=1000"))["items"]
            assert [item["attempts"] for item in waiting] == [0] * 3 * HUNG, "all of them still wait"
            names.hanging.set()
            failed = await relay.logs_when(lambda items: len(items) == 3 * HUNG, "?status=failed&limit=1000")
            assert {item["error"]["code"] for item in failed} == {"dns_error"}


async def test_while_too_many_names_hang_another_one_waits_and_it_is_not_the_destinations_failure(
    tmp_path: Path, names: Names
) -> None:
    async with sink() as destination:
        port = destination.url.rpartition(":")[2]
        routes = [
            *hanging(MOST_LOOKUPS, "retry: none, match: {where: '!(body.good)'}"),
            f"name: good, to: {{url: 'http://good.test:{port}/'}}, retry: none, match: {{where: body.good}}",
        ]
        clock = ManualClock()
        async with relay_here(tmp_path, config(*routes), clock) as relay:
            await relay.post("/in/any", b"{}")
            await until(lambda: len(names.asked) == MOST_LOOKUPS)
            path = tmp_path / "config.yaml"
            path.write_text(path.read_text().replace('0"}', '0", egress: {deny: [metadata]}}', 1))
            assert (await relay.ask("POST", "/reload"))[0] == 200  # they hang all the same
            await relay.post("/in/any", b'{"good": true}')
            [item] = await relay.logs_when(lambda items: items and items[0]["attempts"] > 0, "?route=good")
            assert (item["status"], item["error"]["code"]) == ("pending", "dns_error")
            assert "64 other lookups are waiting for the name server" in item["error"]["message"]
            assert item["next_attempt_at"] == rfc3339(clock.now() + timedelta(seconds=2))
            [route] = [route for route in (await relay.get("/health"))["routes"] if route["name"] == "good"]
            assert route["consecutive_failures"] == 0
            names.hanging.set()
            await relay.logs_when(lambda items: len(items) == MOST_LOOKUPS, "?status=failed")
            await relay.ask("POST", f"/logs/{item['id']}/retry")  # sooner than it would be by itself
            await relay.logs_when(lambda items: items[0]["status"] == "delivered", "?route=good")


async def test_a_name_with_a_thousand_addresses_is_a_name_like_others(tmp_path: Path, names: Names) -> None:
    async with peer(FINE) as destination:
        async with relay_here(tmp_path, one_route(f"http://many.test:{destination.port}/")) as relay:
            assert (await ended(relay))["delivery"]["status"] == "delivered"


@pytest.mark.parametrize(
    ("deny", "code"), [("metadata", "connect_error"), ("loopback", "blocked_address")], ids=["dead", "denied"]
)
async def test_of_a_thousand_addresses_only_so_many_are_tried(
    tmp_path: Path, names: Names, connected: list[tuple[str, int]], deny: str, code: str
) -> None:
    server = f"egress: {{deny: [{deny}]}}"
    async with relay_here(tmp_path, one_route("http://many-dead.test:9/", server=server)) as relay:
        error = (await ended(relay))["delivery"]["error"]
        assert error["code"] == code
        assert len(error["message"]) < 100
        tried = {address for address, port in connected if port == 9}
        assert len(tried) == (MOST_ADDRESSES if deny == "metadata" else 0) < MANY


@pytest.mark.parametrize("denied", ["127.0.0.66", "169.254.169.254", "::ffff:127.0.0.66", "fe80::1"])
async def test_a_name_that_turns_to_a_denied_address_is_not_followed_there(
    tmp_path: Path, names: Names, connected: list[tuple[str, int]], denied: str
) -> None:
    names.answers["rebinding.test"] = [["127.0.0.1"], [denied]]
    async with peer(FINE) as good, peer(FINE, "127.0.0.66", good.port) as bad:
        deny = "egress: {deny: [metadata, link-local, 127.0.0.66/32]}"
        url = f"http://rebinding.test:{good.port}/"
        async with relay_here(tmp_path, one_route(url, server=deny)) as relay:
            assert (await ended(relay))["delivery"]["status"] == "delivered"
            # Another policy: the name is looked up anew, and no connection is left over.
            path = tmp_path / "config.yaml"
            path.write_text(path.read_text().replace("/32]", "/32, 203.0.113.0/24]"))
            assert (await relay.ask("POST", "/reload"))[0] == 200
            error = (await ended(relay))["delivery"]["error"]
            assert error["code"] == "blocked_address"
            assert error["message"].startswith(f"{denied} is denied by server.egress")
            assert names.asked == ["rebinding.test"] * 2
            assert (good.connections, bad.connections) == (1, 0)
            assert denied not in {address for address, _ in connected}


@pytest.mark.parametrize("order", [["127.0.0.1", "127.0.0.66"], ["127.0.0.66", "127.0.0.1"]])
async def test_of_a_names_addresses_those_denied_are_left_out(tmp_path: Path, names: Names, order: list[str]) -> None:
    names.answers["both.test"] = [order]
    async with peer(FINE) as good, peer(FINE, "127.0.0.66", good.port) as bad:
        url = f"http://both.test:{good.port}/"
        async with relay_here(tmp_path, one_route(url, server=DENY_ELSEWHERE)) as relay:
            assert (await ended(relay))["delivery"]["status"] == "delivered"
            assert (good.connections, bad.connections) == (1, 0)
