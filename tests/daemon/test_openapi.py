"""What `/openapi.json` says of the admin side is true: every request is in it, and every answer is as it says.

Real answers of a relay that holds something of every kind, and requests that nobody would make.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import pytest
from aiohttp import web
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from relay import journal
from relay.delivery import State
from relay.health import RouteState
from relay.store import Unavailable
from relay.web import filters, itself, logquery, logs, openapi
from relay.web.admin import Admin
from relay.web.schemas import COMPONENTS
from relay.web.stream import STREAM
from tests.daemon.test_admin import LATER, NEVER_AGAIN, OPERATE, READ, TOKENS, bearer, body, routes
from tests.harness import Received, Relay, relay_here, sink
from tests.several import until

ENTRIES = (
    "name: good, match: {model: post}, to: {url: SINK/good}",
    f"name: ill, match: {{model: ill}}, to: {{url: SINK/ill}}, unhealthy_after: 1, {NEVER_AGAIN}",
    f"name: nobody, match: {{model: nobody}}, to: {{url: 'http://127.0.0.1:9'}}, {NEVER_AGAIN}",
    f"name: late, match: {{model: late}}, to: {{url: SINK/late}}, {LATER}",
    "name: paused, match: {model: paused}, to: {url: SINK/good}",
    "name: gone, match: {model: gone}, to: {url: SINK/good}",
    "name: windows, match: {model: window}, to: {url: SINK/good}, payload: normalized,"
    " debounce: {wait: 1h, by: [entry_id]}",
    "name: off, enabled: false, match: {model: off}, to: {url: SINK/good}",
)
NOTHING = "01J" + "0" * 23
ENDLESS = ("/logs/stream",)
PAGES = ("/ui/",)
"""Where there are pages for people, whose addresses are no part of the description."""
GUARDED = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What every answer says, of whatever kind."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
REFUSED_409 = (
    "/logs/{delivered}/retry",
    "/logs/{delivered}/cancel",
    "/events/{event}/replay",
    "/windows/{delivered}/flush",
    "/windows/{delivered}/hold",
    "/windows/{delivered}/cancel",
    "/routes/good/move?to=ill",
)


def answers(received: Received) -> web.StreamResponse:
    """A text, bytes that are none, or a wish for patience."""
    if received.path == "/ill":
        return web.Response(status=500, body=b"\xff\xfe\x00", headers={"X-Odd": "é~"})
    return web.Response(status=503 if received.path == "/late" else 200, text="thanks \x1b[31m")


def matching(document: dict[str, Any], method: str, path: str) -> str:
    """The path of the description behind a path: the one with the fewest names in it."""
    bare = path.partition("?")[0]
    found = [
        template
        for template, item in document["paths"].items()
        if method.lower() in item and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), bare)
    ]
    assert found, f"{method} {path} is not described"
    return str(min(found, key=lambda template: template.count("{")))


@dataclass
class Reader:
    """Somebody who asks, and holds each answer against the description."""

    running: Relay
    document: dict[str, Any] = field(default_factory=dict)
    seen: set[tuple[str, int]] = field(default_factory=set)

    async def __call__(self, method: str, path: str, status: int = 200, headers: dict[str, str] | None = None) -> Any:
        given = bearer(OPERATE) if headers is None else headers
        async with self.running.session.request(method, self.running.admin + path, headers=given) as response:
            assert response.status == status, (method, path, await response.text())
            return self.conforming(method, path, response, await response.read())

    def conforming(self, method: str, path: str, response: aiohttp.ClientResponse, content: bytes) -> Any:
        """The answer, which the description has, with a body that it describes."""
        template = matching(self.document, method, path)
        self.seen.add((f"{method} {template}", response.status))
        described = self.document["paths"][template][method.lower()]["responses"][str(response.status)]
        if "$ref" in described:
            described = self.document["components"]["responses"][described["$ref"].rpartition("/")[2]]
        assert set(described.get("headers", ())) - {"X-Next-Cursor"} <= set(response.headers)
        guarded = GUARDED | ({"Content-Security-Policy": PAGE_POLICY} if response.content_type == "text/html" else {})
        assert {name: response.headers.get(name) for name in guarded} == guarded
        schema = described["content"][response.content_type]["schema"]
        if response.content_type != "application/json":
            return content.decode()
        found = json.loads(content)
        whole = {**schema, "components": self.document["components"]}
        validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        assert [f"{error.instance_path}: {error.message[:300]}" for error in validator.iter_errors(found)] == []
        return found


@asynccontextmanager
async def reading(folder: Path, *entries: str) -> AsyncIterator[Reader]:
    async with sink(answers) as destination:
        text = TOKENS + routes(*(entry.replace("SINK", destination.url) for entry in entries))
        async with relay_here(folder, text) as running:
            reader = Reader(running)
            reader.document = await running.get("/openapi.json", headers=bearer(OPERATE))
            yield reader


async def items_when(ask: Reader, query: str, condition: Callable[[list[dict[str, Any]]], object]) -> Any:
    """The items of a page, once they fulfil a condition."""

    async def items() -> Any:
        return (await ask("GET", f"/logs?{query}"))["items"]

    return await until(items, condition)


async def filled(ask: Reader, folder: Path) -> None:
    """Leave something of every kind in a relay's store."""
    running = ask.running
    await ask("POST", "/routes/paused/pause?reason=%20a%20freeze%20")
    await ask("POST", "/routes/gone/pause")
    for model in ("post", "ill", "nobody", "late", "late", "paused", "gone", "window", "window", "off", "unwanted"):
        event = {"event": "entry.publish\n\x1b[31m", "model": model, "id": "\u202e1", "action": "publish"}
        await running.post("/in/any", body(**event), {"Content-Type": "application/json", "X-Note": "é \t~"})
    await running.post("/in/any", b"\xff\x00\xfe")
    await running.post("/in/any", b"")
    await running.post("/in/www", b"{}", {"webhook-signature": "0" * 40, "User-Agent": "x"})
    ended = "status=delivered,failed&limit=1000"
    await items_when(ask, ended, lambda items: len(items) == 3)
    late = await items_when(ask, "route=late", lambda items: all(item["attempts"] for item in items))
    await ask("POST", f"/logs/{late[0]['id']}/cancel")
    await items_when(ask, "status=rejected", len)
    path = folder / "config.yaml"
    path.write_text(re.sub(r"  - \{name: gone.*\n", "", path.read_text()))
    changed = await ask("POST", "/reload")
    assert changed["changes"]["routes"]["removed"] == ["gone"]


async def ids(ask: Reader, query: str) -> list[str]:
    return [item["id"] for item in (await ask("GET", f"/logs?limit=1000&{query}"))["items"]]


async def refused_everywhere(ask: Reader) -> None:
    """Each request without a token, by a foreign name, from another site, of what is not there, with what it does not
    take."""
    open_to_all = {operation.path for operation in (itself.LIVE, itself.READY)}
    for template, item in ask.document["paths"].items():
        for method in map(str.upper, item):
            path = template.replace("{id}", f"dlv_{NOTHING}").replace("{name}", "nobody's")
            if template.startswith("/events/"):
                path = path.replace("dlv_", "evt_")
            # An address of a page that somebody was sent shows the page, whatever else is in it.
            await ask(method, f"{path}?no-such-parameter=1", 200 if template == itself.PAGE.path else 400)
            if template not in open_to_all:
                await ask(method, path, 401, headers={})
                await ask(method, path, 421, headers={"Host": "evil.example"})
                await ask(method, path, 403, headers={**bearer(OPERATE), "Sec-Fetch-Site": "cross-site"})
            if method == "POST":
                await ask(method, path, 403, headers=bearer(READ))
                await ask(method, path, 403, headers={**bearer(OPERATE), "Origin": "https://evil.example"})
            if "{" in template:
                query = "?to=good" if template.endswith("/move") else ""
                # What is held for a name that no route ever had: nothing, and no mistake.
                await ask(method, path + query, 200 if query else 404)
                if "{id}" in template:
                    await ask(method, template.replace("{id}", "nothing"), 404)


# -- the document ----------------------------------------------------------------------------------------------------


async def test_the_description_is_a_valid_openapi_document(tmp_path: Path) -> None:
    async with reading(tmp_path) as ask:
        document = ask.document
        OPENAPI_31_VALIDATOR.validate(document)
        named = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
        assert len(named) == len(set(named)) > 25
        schemas = dict(document["components"]["schemas"])
        assert set(schemas) == set(COMPONENTS)
        references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
        assert references == set(schemas)
        for schema in schemas.values():
            jsonschema_rs.meta.validate({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"})
        responses = set(re.findall(r'"#/components/responses/(\w+)"', json.dumps(document)))
        assert set(document["components"]["responses"]) - responses == {"MethodNotAllowed"}


def test_what_is_answered_is_what_is_described() -> None:
    no_desk: Any = None  # nothing is asked
    admin = Admin(no_desk)
    operations = [*(operation for operation, _ in admin.table()), itself.PAGE]
    described = {(operation.method, operation.path) for operation in operations}
    told = openapi.document(operations)["paths"]
    assert {(method.upper(), path) for path, item in told.items() for method in item} == described
    served = {
        (route.method, route.resource.canonical)
        for route in admin.application().router.routes()
        if route.resource is not None and not route.resource.canonical.startswith(PAGES)
    }
    assert served - {("HEAD", path) for method, path in described if method == "GET"} == described
    assert {path for method, path in served if method == "HEAD"} == {
        path for method, path in described if method == "GET" and path not in ENDLESS
    }


def test_every_filter_of_the_log_is_described() -> None:
    assert set(logquery.FILTERS) <= set(filters.KNOWN)
    assert [parameter.name for parameter in logs.LIST.filters] == list(logquery.FILTERS)


def test_what_is_for_lists_alone_is_no_filter_of_a_stream() -> None:
    told = openapi.document([STREAM, itself.PAGE])
    OPENAPI_31_VALIDATOR.validate(told)
    stream = told["paths"]["/logs/stream"]["get"]
    assert {parameter["name"] for parameter in stream["parameters"]} == set(logquery.FILTERS) - {
        "limit", "cursor", "order", "until"
    }  # fmt: skip
    assert set(stream["responses"]["200"]["content"]) == {"text/event-stream"}
    assert set(told["paths"]["/"]["get"]["responses"]["200"]["content"]) == {"text/html"}


# -- real answers ----------------------------------------------------------------------------------------------------


async def test_every_answer_is_as_it_is_described_and_every_action_is_in_the_log_with_who_did_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with reading(tmp_path, *ENTRIES) as ask:
        await filled(ask, tmp_path)
        # All there is to read.
        every = await ask("GET", f"/logs?limit=1000&status={','.join(logquery.STATUSES)}")
        kinds = {item["status"] for item in every["items"]}
        assert kinds == {*State, "unmatched", "rejected"}
        for item in every["items"]:
            await ask("GET", f"/logs/{item['id']}")
            if item["event_id"] is not None:
                await ask("GET", f"/logs/{item['event_id']}")
        states = {route["state"] for route in (await ask("GET", "/routes"))["routes"]}
        assert states == set(RouteState)
        assert [removed["held"] for removed in (await ask("GET", "/routes"))["removed"]] == [1]
        for name in ("good", "ill", "paused", "off"):
            await ask("GET", f"/routes/{name}")
        for path in ("/health", "/health/live", "/health/ready", "/config", "/sources", "/windows", "/openapi.json"):
            await ask("GET", path)
        for path in (
            "/",
            "/metrics",
            "/logs?format=text",
            "/logs?format=ndjson",
            f"/logs/{every['items'][0]['id']}?format=text",
        ):
            assert await ask("GET", path)
        # What people do.
        [failed, *_] = await ids(ask, "status=failed&route=ill")
        await ask("POST", f"/logs/{failed}/retry")
        await ask("POST", "/logs/retry?all=1&dry_run=1")
        await ask("POST", "/logs/retry?route=ill,nobody&status=failed")
        [delivered] = await ids(ask, "status=delivered&route=good")
        event = (await ask("GET", f"/logs/{delivered}"))["event"]["id"]
        assert (await ask("POST", f"/events/{event}/replay"))["deliveries"]
        assert (await ask("POST", f"/events/{event}/replay?route=good"))["routes"] == ["good"]
        await items_when(ask, "status=delivered&route=good", lambda items: len(items) == 3)
        await ask("POST", f"/events/{event}/forget")
        assert (await ask("GET", f"/logs/{delivered}"))["body"] is None
        assert (await ask("GET", f"/logs/{event}"))["body"] is None
        [window] = (await ask("GET", "/windows"))["items"]
        assert (await ask("POST", f"/windows/{window['id']}/hold"))["window"]["held"]
        assert (await ask("GET", "/windows"))["items"][0]["held"]
        await ask("POST", f"/windows/{window['id']}/flush")
        await ask.running.post("/in/any", body(model="window"))
        [window] = (await ask("GET", "/windows"))["items"]
        await ask("POST", f"/windows/{window['id']}/cancel")
        assert await ask("POST", "/store/prune?dry_run=1") == {"events": 0, "deliveries": 0, "bodies": 0}
        assert await ask("POST", "/store/prune") == {"events": 0, "deliveries": 0, "bodies": 0}
        for name in ("good", "ill", "nobody"):
            tried = await ask("POST", f"/routes/{name}/test")
            assert (tried["response"] is None) == (name == "nobody")
        assert (await ask("POST", "/routes/gone/move?to=good")) == {
            "count": 1,
            "windows_left": 0,
            "warnings": ["gone was paused by hand (admin); good is not"],
        }
        for path in ("/routes/pause?reason=x", "/routes/resume", "/routes/good/pause", "/routes/good/resume"):
            await ask("POST", path)
        # What is refused.
        config = tmp_path / "config.yaml"
        text = config.read_text()
        config.write_text(text.replace("routes:", "rowtes:"))
        assert len((await ask("POST", "/reload", 422))["errors"]) >= 1
        config.write_text(text.replace("name: late", "name: early"))
        assert (await ask("POST", "/reload"))["changes"]["routes"]["added"] == ["early"]
        for path in REFUSED_409:
            await ask("POST", path.format(delivered=delivered, event=event), 409)
        await refused_everywhere(ask)
        # What is broken.
        with monkeypatch.context() as broken:
            store = ask.running.running.store if ask.running.running is not None else None

            async def unavailable(*args: Any) -> None:
                raise Unavailable("the database is locked")

            broken.setattr(store, "search", unavailable)
            await ask("GET", "/logs", 503)
            broken.setattr("relay.web.read.log", lambda *_: 1 // 0)
            await ask("GET", f"/logs/{delivered}", 500)
        assert ask.running.running is not None
        await ask.running.running.wind_down()
        await ask("GET", "/health", 503)
        await ask("GET", "/health/ready", 503)
        described = {f"{method.upper()} {path}" for path, item in ask.document["paths"].items() for method in item}
        # What has no end is no answer to check: test_stream reads it.
        assert {name for name, status in ask.seen if status == 200} == described - {f"GET {path}" for path in ENDLESS}
        assert {status for _, status in ask.seen} == {200, 400, 401, 403, 404, 409, 421, 422, 500, 503}
        posted = {path.rpartition("/")[2] for path, item in ask.document["paths"].items() if "post" in item}
        journal.outlet.drain(10)
        lines = [json.loads(line) for line in capsysbinary.readouterr().err.splitlines()]
        done = [line for line in lines if line["event"] == "manual_action"]
        assert {line["action"] for line in done} == posted
        assert {line["who"] for line in done} == {"admin"}
