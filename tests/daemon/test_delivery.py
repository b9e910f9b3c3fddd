"""From an accepted event to its destinations: relay in this process, a real sink, a real store."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from aiohttp import web

from relay import samples
from relay.delivery import Code
from tests.harness import LISTEN, Received, Relay, relay_here, sink

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
TOKEN = "my-very-secured-token"
SOURCES = f"""
sources:
  blog: {{type: strapi, token: {TOKEN}, dedup: off}}
  any: {{type: generic, verify: none, map: {{model: body.model, action: body.action, entry_id: body.id}}}}
"""
FAST = "retry: {policy: fixed, every: 10ms, attempts: 5, jitter: 0}"


def routes(*entries: str) -> str:
    return SOURCES + "routes:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries)


async def publish(relay: Relay) -> dict[str, Any]:
    """A genuine Strapi publish."""
    sample = samples.load("strapi", "entry.publish")
    headers = [*sample.headers.items(), ("Authorization", f"Bearer {TOKEN}")]
    status, answer = await relay.post("/in/blog", sample.body, headers)
    assert status == 200
    return answer


async def test_a_publish_arrives_with_headers_auth_and_signature_byte_for_byte(tmp_path: Path) -> None:
    async with sink() as destination:
        text = (
            SOURCES
            + f"""
defaults: {{headers: {{X-Env: production, X-Site: default}}}}
routes:
  - name: rebuild
    match: {{action: publish, stage: published}}
    to:
      url: {destination.url}/hook?a=1
      query: {{trigger_title: relay}}
      headers: {{X-Site: www}}
      pass_headers: [X-Strapi-Event]
      auth: {{type: bearer, token: a-token-for-the-receiver}}
    sign: [{{scheme: standard, secret: {SECRET}}}]
"""
        )
        async with relay_here(tmp_path, text) as relay:
            answer = await publish(relay)
            assert answer["routes"] == ["rebuild"]
            [request] = await destination.wait_count(1)
            [item] = await relay.logs_when(lambda items: items and items[0]["status"] == "delivered")
            assert request.body == samples.load("strapi", "entry.publish").body
            assert request.path == "/hook?a=1&trigger_title=relay"
            assert request.headers["Authorization"] == "Bearer a-token-for-the-receiver"
            assert request.headers["X-Site"] == "www"
            assert request.headers["X-Env"] == "production"
            assert request.headers["X-Strapi-Event"] == "entry.publish"
            assert request.id == item["id"]
            standardwebhooks.Webhook(SECRET).verify(request.body, dict(request.headers))
            shown = json.dumps(await relay.get(f"/logs/{item['id']}"))
            assert "a-token-for-the-receiver" not in shown
            assert TOKEN not in shown
            assert "trigger_title=***" in shown


async def test_what_fails_is_tried_again_until_it_arrives_with_one_id(tmp_path: Path) -> None:
    async with sink(lambda request: 503 if request.n <= 3 else 200) as destination:
        async with relay_here(tmp_path, routes(f"name: r, to: {{url: {destination.url}}}, {FAST}")) as relay:
            await publish(relay)
            received = await destination.wait_count(4)
            [item] = await relay.logs_when(lambda items: items[0]["status"] == "delivered")
            assert {request.id for request in received} == {item["id"]}
            assert [request.headers["X-Relay-Attempt"] for request in received] == ["1", "2", "3", "4"]
            detail = await relay.get(f"/logs/{item['id']}")
            assert [a["response"]["status"] for a in detail["attempts"]] == [503, 503, 503, 200]
            assert [a["trigger"] for a in detail["attempts"]] == ["initial", "retry", "retry", "retry"]
            assert detail["attempts"][0]["error"]["code"] == "http_status"


async def test_after_its_last_attempt_a_delivery_is_failed_and_can_be_retried_by_hand(tmp_path: Path) -> None:
    healthy = asyncio.Event()
    async with sink(lambda request: 200 if healthy.is_set() else 500) as destination:
        async with relay_here(tmp_path, routes(f"name: r, to: {{url: {destination.url}}}, {FAST}")) as relay:
            await publish(relay)
            [item] = await relay.logs_when(lambda items: items[0]["status"] == "failed")
            assert item["attempts"] == 5
            assert item["code"] == 500
            assert item["error"]["code"] == "http_status"
            healthy.set()
            status, answer = await relay.ask("POST", f"/logs/{item['id']}/retry")
            assert status == 200
            await relay.logs_when(lambda items: items[0]["status"] == "delivered")
            detail = await relay.get(f"/logs/{item['id']}")
            assert (detail["attempts"][-1]["n"], detail["attempts"][-1]["trigger"]) == (6, "manual")
            assert (await relay.ask("POST", f"/logs/{item['id']}/retry"))[0] == 409
            assert answer["delivery"]["id"] == item["id"]


@pytest.mark.parametrize(("status", "code"), [(422, "refused"), (410, "gone")])
async def test_what_is_given_up_on_fails_at_once(tmp_path: Path, status: int, code: str) -> None:
    async with sink(lambda request: status) as destination:
        async with relay_here(tmp_path, routes(f"name: r, to: {{url: {destination.url}}}, {FAST}")) as relay:
            await publish(relay)
            [item] = await relay.logs_when(lambda items: items[0]["status"] == "failed")
            assert (item["attempts"], item["code"], item["error"]["code"]) == (1, status, code)


async def test_a_hanging_destination_delays_no_other_route(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def answer(request: Received) -> int:
        if request.path == "/a":
            await release.wait()
        return 200

    async with sink(answer) as destination:
        text = routes(
            f"name: a, concurrency: 3, to: {{url: {destination.url}/a}}", f"name: b, to: {{url: {destination.url}/b}}"
        )
        async with relay_here(tmp_path, text) as relay:
            for _ in range(5):
                await publish(relay)
            received = await destination.wait_for(
                lambda seen: sum(r.path == "/a" for r in seen) == 3 and sum(r.path == "/b" for r in seen) == 5
            )
            # All slots of A are still open, two of its deliveries wait for one; B has had all of its own.
            assert len(received) == 8
            assert not release.is_set()
            await relay.logs_when(lambda items: len(items) == 5, "?route=b&status=delivered")
            release.set()
            await relay.logs_when(lambda items: len(items) == 5, "?route=a&status=delivered")


async def test_more_than_fits_in_memory_arrives_all_the_same_and_once(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def answer(request: Received) -> int:
        await gate.wait()
        return 200

    async with sink(answer) as destination:
        async with relay_here(tmp_path, routes(f"name: r, concurrency: 4, to: {{url: {destination.url}}}")) as relay:
            for start in range(0, 300, 50):
                await asyncio.gather(*(relay.post("/in/any", b'{"id":%d}' % n) for n in range(start, start + 50)))
            gate.set()
            received = await destination.wait_count(300)
            await relay.logs_when(lambda items: not items, "?status=pending")
            assert sorted(json.loads(r.body)["id"] for r in received) == list(range(300))
            assert len({r.id for r in received}) == 300


async def test_redirects_are_not_followed(tmp_path: Path) -> None:
    from aiohttp import web

    def answer(request: Received) -> web.Response:
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with sink(answer) as destination:
        text = routes(f"name: r, to: {{url: {destination.url}/hook}}, retry: none")
        async with relay_here(tmp_path, text) as relay:
            await publish(relay)
            [item] = await relay.logs_when(lambda items: items[0]["status"] == "failed")
            assert item["code"] == 307
            assert [request.path for request in destination.received] == ["/hook"]


async def test_of_an_answer_only_so_much_is_kept(tmp_path: Path) -> None:
    async with sink(lambda request: web.Response(body=b"x" * 200_000)) as destination:
        text = routes(f"name: r, to: {{url: {destination.url}}}")
        async with relay_here(tmp_path, text) as relay:
            await publish(relay)
            [item] = await relay.logs_when(lambda items: items[0]["status"] == "delivered")
            response = (await relay.get(f"/logs/{item['id']}"))["attempts"][0]["response"]
            assert (len(response["body"]), response["truncated"]) == (16 << 10, True)


async def test_a_text_that_was_cut_in_the_midst_of_a_character_stays_a_text(tmp_path: Path) -> None:
    async with sink(lambda request: web.Response(body=b"x" + "ü".encode() * 20_000)) as destination:
        text = routes(f"name: r, to: {{url: {destination.url}}}")
        async with relay_here(tmp_path, text) as relay:
            await publish(relay)
            [item] = await relay.logs_when(lambda items: items[0]["status"] == "delivered")
            response = (await relay.get(f"/logs/{item['id']}"))["attempts"][0]["response"]
            assert (response["body"], response["truncated"]) == ("x" + "ü" * ((8 << 10) - 1), True)


async def test_an_event_that_no_route_wants_is_stored_and_shown_as_unmatched(tmp_path: Path) -> None:
    async with relay_here(
        tmp_path, routes("name: r, match: {action: delete}, to: {url: 'http://127.0.0.1:9'}")
    ) as relay:
        answer = await publish(relay)
        assert answer["routes"] == []
        [item] = (await relay.get("/logs?status=unmatched"))["items"]
        assert (item["id"], item["route"], item["attempts"]) == (answer["id"], None, 0)
        assert (await relay.get("/logs"))["items"] == []


async def test_a_test_event_goes_only_where_it_is_named(tmp_path: Path) -> None:
    async with sink() as destination:
        text = routes(
            f"name: all, to: {{url: {destination.url}/all}}",
            f"name: tests, match: {{action: [test, publish]}}, to: {{url: {destination.url}/tests}}",
        )
        async with relay_here(tmp_path, text) as relay:
            _, answer = await relay.post("/in/any", b'{"action":"test"}')
            assert answer["routes"] == ["tests"]


async def test_a_route_follows_one_change_not_a_mixture(tmp_path: Path) -> None:
    secret = "a-secret-for-prismic"
    text = (
        f"sources: {{p: {{type: prismic, secret: {secret}}}}}\nroutes:\n"
        "  - {name: tag-change, match: {model: tag, action: change}, to: {url: 'http://127.0.0.1:9'}}\n"
        "  - {name: doc-change, match: {model: document, action: publish}, to: {url: 'http://127.0.0.1:9'}}\n"
    )
    async with relay_here(tmp_path, text) as relay:
        body = {"type": "api-update", "documents": ["D"], "tags": {"addition": [{"id": "t"}]}, "secret": secret}
        _, answer = await relay.post("/in/p", json.dumps(body).encode())
        assert answer["routes"] == ["doc-change"]


async def test_deliveries_of_a_removed_route_are_held_and_go_on_when_it_returns(tmp_path: Path) -> None:
    async with sink(lambda request: 503 if request.n == 1 else 200) as destination:
        later = "retry: {policy: fixed, every: 100ms, attempts: 5, jitter: 0}"
        with_route = routes(f"name: r, to: {{url: {destination.url}}}, {later}")
        async with relay_here(tmp_path, with_route) as relay:
            path = tmp_path / "config.yaml"
            before = path.read_text()
            await publish(relay)
            await destination.wait_count(1)
            path.write_text(before.partition("routes:")[0])
            status, answer = await relay.ask("POST", "/reload")
            assert status == 200
            assert answer["changes"]["routes"]["removed"] == ["r"]
            [item] = await relay.logs_when(lambda items: items[0]["status"] == "held")
            assert (await relay.ask("POST", f"/logs/{item['id']}/retry"))[0] == 409
            path.write_text(before)
            assert (await relay.ask("POST", "/reload"))[0] == 200
            await relay.logs_when(lambda items: items[0]["status"] == "delivered")
            assert [request.id for request in destination.received] == [item["id"]] * 2


async def test_a_disabled_route_takes_nothing_new_and_keeps_what_waits(tmp_path: Path) -> None:
    async with sink(lambda request: 503) as destination:
        on = routes(f"name: r, enabled: true, to: {{url: {destination.url}}}, {FAST.replace('10ms', '1h')}")
        async with relay_here(tmp_path, on) as relay:
            path = tmp_path / "config.yaml"
            before = path.read_text()
            await publish(relay)
            await relay.logs_when(lambda items: items[0]["attempts"] == 1)
            path.write_text(before.replace("enabled: true", "enabled: false"))
            await relay.ask("POST", "/reload")
            assert (await publish(relay))["routes"] == []
            health = await relay.get("/health")
            assert [(r["state"], r["held"], r["pending"]) for r in health["routes"]] == [("disabled", 1, 0)]


async def test_a_waiting_delivery_uses_the_newest_definition_of_its_route(tmp_path: Path) -> None:
    async with sink(lambda request: 503 if request.path == "/old" else 200) as destination:
        old = routes(f"name: r, to: {{url: {destination.url}/old}}, {FAST.replace('attempts: 5', 'attempts: 1000')}")
        async with relay_here(tmp_path, old) as relay:
            path = tmp_path / "config.yaml"
            await publish(relay)
            await destination.wait_count(1)
            path.write_text(path.read_text().replace("/old", "/new"))
            await relay.ask("POST", "/reload")
            received = await destination.wait_for(lambda seen: seen[-1].path == "/new")
            assert len({request.id for request in received}) == 1


async def test_a_loop_of_relays_ends(tmp_path: Path) -> None:
    text = (
        SOURCES.replace("map:", "path: /loop, map:") + "routes: [{name: again, to: {url: 'http://127.0.0.1:1/loop'}}]\n"
    )
    async with relay_here(tmp_path, text) as relay:
        path = tmp_path / "config.yaml"
        path.write_text(path.read_text().replace("http://127.0.0.1:1", relay.public))
        await relay.ask("POST", "/reload")
        await relay.post("/loop", b"{}")
        items = await relay.logs_when(lambda items: any(item["status"] == "failed" for item in items))
        assert len(items) == 6
        assert [item["error"]["code"] for item in items if item["error"]] == ["refused"]


async def test_a_corrupted_body_is_never_sent(tmp_path: Path) -> None:
    import sqlite3

    async with sink(lambda request: 503) as destination:
        text = routes(f"name: r, to: {{url: {destination.url}}}, {FAST.replace('10ms', '300ms')}")
        async with relay_here(tmp_path, text) as relay:
            await publish(relay)
            await relay.logs_when(lambda items: items[0]["attempts"] == 1)
            with sqlite3.connect(tmp_path / "relay.db") as connection:
                connection.execute("UPDATE body SET content = CAST(replace(content, 'entry', 'fntry') AS BLOB)")
            connection.close()
            [item] = await relay.logs_when(lambda items: items[0]["status"] == "failed")
            assert item["error"]["code"] == "corrupt_body"
            assert all(b"fntry" not in request.body for request in destination.received)
            async with relay.session.get(relay.admin + "/metrics") as response:
                counts = (await response.text()).splitlines()
            assert 'relay_deliveries_total{route="r",status="failed"} 1.0' in counts
            attempts = [float(line.split()[-1]) for line in counts if line.startswith("relay_attempts_total{")]
            assert sum(attempts) == len(destination.received)  # those before it rotted, and none after


HOSTILE = {
    "nobody listens": (None, Code.CONNECT_ERROR),
    "closes at once": (b"", Code.CONNECTION_RESET),
    "closes inside the head": (b"HTTP/1.1 200 OK\r\nContent-", Code.CONNECTION_RESET),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Code.PROTOCOL_ERROR),
}


@pytest.mark.parametrize(("said", "code"), HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_destination_is_named_by_its_fault(tmp_path: Path, said: bytes | None, code: Code) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        assert said is not None
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if said is None:
        server.close()
        await server.wait_closed()
    text = routes(f"name: r, to: {{url: 'http://127.0.0.1:{port}'}}, retry: none")
    async with relay_here(tmp_path, text) as relay:
        await publish(relay)
        [item] = await relay.logs_when(lambda items: items[0]["status"] == "failed")
        assert item["error"]["code"] == code
        assert item["error"]["message"]
    server.close()


async def test_a_destination_that_never_answers_times_out(tmp_path: Path) -> None:
    async def forever(request: Received) -> int:
        await asyncio.Event().wait()
        return 200

    async with sink(forever) as destination:
        text = routes(f"name: r, to: {{url: {destination.url}, timeout: 50ms}}, retry: none")
        async with relay_here(tmp_path, text) as relay:
            await publish(relay)
            [item] = await relay.logs_when(lambda items: items[0]["status"] == "failed")
            assert item["error"] == {"code": "timeout", "message": "no answer within 0.05 s"}


async def test_a_name_that_does_not_resolve_is_a_dns_error(tmp_path: Path) -> None:
    text = routes("name: r, to: {url: 'http://no-such-name.invalid/'}, retry: none")
    async with relay_here(tmp_path, text) as relay:
        await publish(relay)
        [item] = await relay.logs_when(lambda items: items[0]["status"] == "failed")
        assert item["error"]["code"] == "dns_error"
        assert "no-such-name.invalid does not resolve" in item["error"]["message"]


async def test_a_large_body_goes_out_whole(tmp_path: Path) -> None:
    body = b'{"x":"' + b"y" * (900 << 10) + b'"}'
    async with sink() as destination:
        async with relay_here(tmp_path, routes(f"name: r, to: {{url: {destination.url}}}")) as relay:
            await relay.post("/in/any", body)
            [request] = await destination.wait_count(1)
            assert request.body == body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_a_denied_address_is_never_connected_to_and_a_reload_lifts_it(tmp_path: Path, host: str) -> None:
    async with sink() as destination:
        port = destination.url.rpartition(":")[2]
        server = LISTEN.replace('127.0.0.1:0"}', '127.0.0.1:0", egress: {deny: [loopback]}}', 1)
        text = server + routes(f"name: r, to: {{url: 'http://{host}:{port}/'}}, {FAST.replace('10ms', '1h')}")
        async with relay_here(tmp_path, text) as relay:
            await publish(relay)
            [item] = await relay.logs_when(lambda items: items[0]["attempts"] == 1)
            assert item["error"]["code"] == "blocked_address"
            assert "is denied by server.egress (loopback)" in item["error"]["message"]
            assert destination.received == []
            path = tmp_path / "config.yaml"
            path.write_text(path.read_text().replace("[loopback]", "[metadata]"))
            assert (await relay.ask("POST", "/reload"))[0] == 200
            await relay.ask("POST", f"/logs/{item['id']}/retry")
            await destination.wait_count(1)


async def test_an_open_connection_is_not_used_once_its_address_is_denied(tmp_path: Path) -> None:
    async with sink() as destination:
        server = LISTEN.replace('127.0.0.1:0"}', '127.0.0.1:0", egress: {deny: [metadata]}}', 1)
        async with relay_here(tmp_path, server + routes(f"name: r, to: {{url: {destination.url}}}")) as relay:
            await publish(relay)
            await relay.logs_when(lambda items: items[0]["status"] == "delivered")
            path = tmp_path / "config.yaml"
            path.write_text(path.read_text().replace("[metadata]", "[loopback]"))
            await relay.ask("POST", "/reload")
            await publish(relay)
            items = await relay.logs_when(lambda items: items[0]["attempts"] == 1)
            assert items[0]["error"]["code"] == "blocked_address"
            assert len(destination.received) == 1


@pytest.mark.parametrize(("word", "away"), [("enabled: true", "enabled: false"), ("name: r}", "name: other}")])
async def test_a_route_that_goes_and_returns_does_not_send_again_what_is_being_sent(
    tmp_path: Path, word: str, away: str
) -> None:
    release = asyncio.Event()

    async def answer(request: Received) -> int:
        await release.wait()
        return 200

    async with sink(answer) as destination:
        on = routes(f"enabled: true, concurrency: 2, to: {{url: {destination.url}}}, name: r")
        async with relay_here(tmp_path, on) as relay:
            path = tmp_path / "config.yaml"
            here = path.read_text()
            gone = here.replace(word, away)
            await publish(relay)
            await destination.wait_count(1)
            for text in (gone, here):
                path.write_text(text)
                assert (await relay.ask("POST", "/reload"))[0] == 200
            assert relay.running is not None
            assert relay.running.dispatcher.in_flight == 1
            await publish(relay)  # the second slot is free
            await destination.wait_count(2)
            release.set()
            await relay.logs_when(lambda items: len(items) == 2, "?status=delivered")
            assert len({request.id for request in destination.received}) == 2
            assert len(destination.received) == 2


async def test_a_where_that_raises_is_counted(tmp_path: Path) -> None:
    async with relay_here(
        tmp_path, routes("""name: r, match: {where: "length(body.entry.id) > `1`"}, to: {url: 'http://127.0.0.1:9'}""")
    ) as relay:
        assert (await publish(relay))["routes"] == []
        async with relay.session.get(relay.admin + "/metrics") as response:
            assert 'relay_filter_errors_total{route="r"} 1.0' in await response.text()


async def test_however_many_deliveries_wait_a_route_is_looked_at_for_one_moment(tmp_path: Path) -> None:
    async with sink(lambda request: 503) as destination:
        text = routes(
            f"name: r, to: {{url: {destination.url}}}, unhealthy_after: 999,"
            " retry: {policy: fixed, every: 1h, attempts: 5}"
        )
        async with relay_here(tmp_path, text) as relay:
            for _ in range(40):
                await publish(relay)
            await relay.logs_when(lambda items: sum(item["attempts"] for item in items) == 40)
            assert relay.running is not None
            assert len(relay.running.dispatcher._schedule._next) == 1
