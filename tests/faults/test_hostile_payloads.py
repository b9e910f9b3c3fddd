"""Whatever an event holds, and whatever a template makes of it: one route fails, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.faults.peers import FINE, peer
from tests.faults.routes import config, one_route
from tests.harness import Relay, relay_here, sink

# --- templates --------------------------------------------------------------------------------------------------------

LOOP = "{% for i in range(99999) %}"
BOMBS = {
    "a text of 300 MB": "{{ 'a' * 300000000 }}",
    "loops in loops": LOOP * 3 + "x" + "{% endfor %}" * 3,
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a macro that calls itself twice": "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "a loop that calls itself": "{% for x in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
    "Python's insides": "{{ ''.__class__ }}",
    "Python's insides by name": "{{ ''['__class__'].__mro__ }}",
    "the payload, again and again": LOOP + "{{ body | tojson }}{% endfor %}",
    "what is not there": "{{ body.nowhere.at_all }}",
    "a search that is quadratic": "{{ ('a' * 2000000).rfind('ab' ~ 'a' * 1000000) }}",
    "filters that cost nothing each": "{% set s = range(1, 99999) %}{% for i in range(8000) %}"
    "{% set x = s | reject | list %}{% endfor %}",
}
EVENT = {"releases": {"update": "spring", "items": [1, 2]}, "text": "x" * 10_000}


async def test_a_template_sees_what_the_payload_holds_also_where_python_has_a_method_of_that_name(
    tmp_path: Path,
) -> None:
    async with sink() as destination:
        template = "{{ body.releases.update }} {{ body.releases.items | tojson }}"
        route = f"name: r, to: {{url: '{destination.url}'}}, payload: {{template: '{template}'}}"
        async with relay_here(tmp_path, config(route)) as relay:
            await relay.post("/in/any", json.dumps(EVENT).encode())
            [request] = await destination.wait_count(1)
            assert request.body == b"spring [1,2]"


async def test_a_template_that_fails_or_never_ends_fails_its_route_at_once_and_no_other(tmp_path: Path) -> None:
    async with sink() as destination:
        routes = [
            f"name: fine, to: {{url: '{destination.url}'}}, payload: {{template: '{{{{ body.text | length }}}}'}}"
        ]
        for number, text in enumerate(BOMBS.values()):
            routes.append(f'name: r{number}, to: {{url: "{destination.url}"}}, payload: {{template: "{text}"}}')
        async with relay_here(tmp_path, config(*routes)) as relay:
            for count in range(1, 3):
                _, answer = await relay.post("/in/any", json.dumps(EVENT).encode())
                await destination.wait_count(count)
                query = f"?status=failed&event_id={answer['id']}"
                items = await relay.logs_when(lambda items: len(items) == len(BOMBS), query)
                for item in items:
                    assert (item["error"]["code"], item["attempts"]) == ("template_error", 1)
                    assert item["error"]["message"].startswith("the template fails: ")
            assert [request.body for request in destination.received] == [b"10000"] * 2


# --- headers ----------------------------------------------------------------------------------------------------------

SPLITTING = {
    "CRLF": "x\r\nX-Injected: 1",
    "LF": "x\nX-Injected: 1",
    "CR": "x\rX-Injected: 1",
    "NUL": "x\0X-Injected: 1",
    "an end of the head": "x\r\n\r\nPOST /other HTTP/1.1\r\nHost: other\r\n\r\n",
    "a continued line": "x\r\n X-Injected: 1",
    "control characters": "x\x0b\x0c\x1b\x7fX-Injected: 1",
    "line ends of Unicode": "x\u0085\u2028\u2029X-Injected: 1",
    "half a pair": "x\udc0d\udc0aX-Injected: 1",
    "spaces around": "  x  ",
}


MAPPED = "{type: generic, verify: none, map: {event: body.said, environment: body.said, model: body.said}}"


def mapped(text: str) -> str:
    """A config whose source takes what it says of an event from the payload."""
    return text.replace("{type: generic, verify: none}", MAPPED)


def headers_of(head: bytes) -> dict[str, str]:
    """The headers of a request that relay made, each of which is one line and has the name of one of ours."""
    assert head.endswith(b"\r\n\r\n")
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert first == b"POST / HTTP/1.1"
    assert [line for line in lines if set(line) & {0, 10, 13}] == []
    parts = [line.decode("utf-8", "surrogateescape").partition(": ") for line in lines]
    headers = {name.lower(): value for name, _, value in parts}
    assert len(headers) == len(lines)
    assert headers.keys() <= OURS
    return headers


OURS = {
    *("host", "content-type", "content-length", "user-agent", "webhook-id", "webhook-timestamp", "gcms-signature"),
    *("x-relay-source", "x-relay-event", "x-relay-attempt", "x-relay-hops", "x-a"),
}


@pytest.mark.parametrize("said", SPLITTING.values(), ids=SPLITTING.keys())
async def test_what_a_payload_puts_into_a_header_stays_in_it(tmp_path: Path, said: str) -> None:
    sign = "sign: [{scheme: hygraph, secret: 0123456789abcdef}]"
    async with peer(FINE) as destination:
        async with relay_here(tmp_path, mapped(one_route(destination.url, route=sign))) as relay:
            status, _ = await relay.post("/in/any", json.dumps({"said": said}).encode())
            assert status == 200
            await relay.logs_when(lambda items: items and items[0]["status"] == "delivered")
            headers = headers_of(destination.head)
            assert headers["x-relay-event"].startswith(said[:1])
            assert headers["gcms-signature"].startswith("sign=")
            assert headers["x-relay-hops"] == "1"


PASSED = {
    "as it is": (b"X-A: a", 200, "a"),
    "a continued line": (b"X-A: a\r\n X-Injected: 1", 400, None),
    "CR": (b"X-A: a\rX-Injected: 1", 400, None),
    "LF": (b"X-A: a\nX-Injected: 1", 400, None),
    "NUL": (b"X-A: a\0X-Injected: 1", 400, None),
    "control characters": (b"X-A: a\x0b\x1b\x7fb", 400, None),
    "a tab": (b"X-A: a\tb", 200, "a?b"),
    "no text": (b"X-A: \xff\r\nX-B: 1", 200, "\ufffd"),
    "line ends of Unicode": ("X-A: a\u0085\u2028b".encode(), 200, "a\u0085\u2028b"),
    "empty": (b"X-A:", 200, ""),
}


@pytest.mark.parametrize(("line", "status", "passed"), PASSED.values(), ids=PASSED.keys())
async def test_a_header_that_is_passed_on_stays_one_line(
    tmp_path: Path, line: bytes, status: int, passed: str | None
) -> None:
    async with peer(FINE) as destination:
        text = one_route(destination.url, "pass_headers: [X-A]")
        async with relay_here(tmp_path, text) as relay:
            head = b"POST /in/any HTTP/1.1\r\nHost: relay\r\nContent-Length: 2\r\n" + line + b"\r\n\r\n"
            assert await raw(relay, head + b"{}") == status
            if passed is None:
                assert (await relay.get("/logs"))["items"] == []
            else:
                await relay.logs_when(lambda items: items and items[0]["status"] == "delivered")
                assert headers_of(destination.head).get("x-a") == passed


async def raw(relay: Relay, request: bytes) -> int:
    """Send these bytes; the status of the answer."""
    host, _, port = relay.public.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    first = await reader.readline()
    writer.close()
    return int(first.split()[1])


# --- loops ------------------------------------------------------------------------------------------------------------


async def follow(relay: Relay, folder: Path, url: str) -> None:
    """Have a relay send to another URL from now on."""
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("http://127.0.0.1:9/", url))
    assert (await relay.ask("POST", "/reload"))[0] == 200


async def test_an_event_passes_five_relays_and_no_more(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    text = one_route("http://127.0.0.1:9/")
    async with relay_here(one, text) as first, relay_here(other, text) as second:
        await follow(first, one, f"{second.public}/in/any")
        await follow(second, other, f"{first.public}/in/any")
        await first.post("/in/any", b"{}")
        [refused] = await second.logs_when(len, "?status=failed")
        assert refused["error"]["code"] == "refused"
        assert refused["error"]["message"] == "the event has passed 5 relays: their routes form a loop"
        for relay, delivered in (first, 3), (second, 2):
            await relay.logs_when(lambda items, count=delivered: len(items) == count, "?status=delivered")  # type: ignore[misc]


async def test_a_relay_that_is_pointed_at_itself_stops_after_five(tmp_path: Path) -> None:
    async with relay_here(tmp_path, one_route("http://127.0.0.1:9/")) as relay:
        await follow(relay, tmp_path, f"{relay.public}/in/any")
        await relay.post("/in/any", b"{}")
        [refused] = await relay.logs_when(len, "?status=failed")
        assert (refused["error"]["code"], refused["attempts"]) == ("refused", 1)
        await relay.logs_when(lambda items: len(items) == 5, "?status=delivered")


HOPS = {"4": "5", "5": None, "6": None, "999999999999": None, "0": "1", "-1": "1", "five": "1", "5, 5": "1", "": "1"}


@pytest.mark.parametrize(("said", "sent"), HOPS.items(), ids=lambda hops: hops or "none")
async def test_a_sender_may_say_how_many_relays_an_event_has_passed(
    tmp_path: Path, said: str, sent: str | None
) -> None:
    async with peer(FINE) as destination, relay_here(tmp_path, one_route(destination.url)) as relay:
        await relay.post("/in/any", b"{}", {"X-Relay-Hops": said})
        [item] = await relay.logs_when(lambda items: items and items[0]["attempts"])
        if sent is None:
            assert (item["error"]["code"], destination.connections) == ("refused", 0)
        else:
            assert headers_of(destination.head)["x-relay-hops"] == sent
