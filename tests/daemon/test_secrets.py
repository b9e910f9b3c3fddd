"""No secret of the config is seen anywhere: not in logs, answers, messages, nor in the store's file.

Each key that can hold a secret holds a value of its own, a canary. A real relay takes, refuses, delivers and fails
with all of them, towards destinations that send everything back. So do those who are told of it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from html import escape
from inspect import get_annotations
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner
from multidict import CIMultiDict
from pydantic import BaseModel
from yarl import URL

from relay import journal, preset
from relay.cli import relay as relay_command
from relay.config import load
from relay.event import Inbound
from relay.fields import Section
from relay.notifier import types as notifier_types
from relay.runtime import Runtime, build
from relay.secret import Secret
from relay.sending import request_for
from relay.source import types
from tests.cli.running import run_process
from tests.harness import PATIENCE, Received, RelayProcess, relay_here, relay_process, sink, write_config
from tests.notifiers.post_office import USER, post_office
from tests.postgres import ROLE, cluster

pytestmark = pytest.mark.long

KEPT = 16 << 10  # of each answer
TELLING = {"Authorization", "X-Api-Key", "X-Plain", "X-Default-Token"}
WAYS: tuple[Callable[[str], str], ...] = (
    escape,
    lambda value: value.encode().hex(),
    lambda value: value.encode().hex().upper(),
    lambda value: base64.urlsafe_b64encode(f"x{value}".encode()).decode(),
    lambda value: json.dumps({"got": f"Bearer {value}"}).replace("/", "\\/"),
)
WAITING = ("basic", "collecting")  # routes whose deliveries have not ended when all others' have

FOREIGN = {
    name: f"foreign-{name.lower()}"
    for name in (
        "Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "X-Api-Key", "webhook-signature",
        "X-Hub-Signature-256", "Stripe-Signature", "gcms-signature", "X-Contentstack-Request-Signature",
    )
}  # fmt: skip
"""Headers of a sender with what no config knows: masked by their names, wherever they are shown."""
STORED = {value for name, value in FOREIGN.items() if name not in ("Authorization", "Proxy-Authorization", "Cookie")}
"""Those are in the store's file: the source does not know them for proofs, and `pass_headers` may want them."""

PAGES = (
    "/health", "/health/live", "/health/ready", "/metrics", "/config", "/routes", "/routes/bearer", "/routes/x",
    "/sources", "/windows", "/logs", "/logs?x=1", "/logs/x", "/nothing", "/openapi.json", "/", "/ui/logs",
    "/ui/logs/ID", "/ui/logs/ID/raw", "/ui/retry", "/ui/logs/EVENT", "/ui/logs/REJECTED",
    "/ui/entries?entry_id=1", "/ui/routes/bearer", "/ui/windows",
    "/logs?format=text", "/logs?format=ndjson", "/logs?q=canary", "/logs?code=5xx",
)  # fmt: skip
NOWHERE, WRONG = ("/routes/x", "/logs/x", "/nothing"), ("/logs?x=1",)


class Canaries:
    """Distinct values, each with what URLs, JSON and base64 write in their own ways."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        return self.values.setdefault(name, f"canary.{len(self.values):02}/{name}+?=&~'")

    def whsec(self, name: str) -> str:
        made = "whsec_" + base64.b64encode(f"canary.{len(self.values):02} {name} key".encode()).decode()
        return self.values.setdefault(name, made)

    def whsk(self, name: str) -> str:
        seed = f"canary.{len(self.values):02} {name} key".encode().ljust(32, b".")[:32]
        return self.values.setdefault(name, "whsk_" + base64.b64encode(seed).decode())

    def plain(self, name: str) -> str:
        """One that a URL's path writes as it is."""
        return self.values.setdefault(name, f"canary.{len(self.values):02}-{name}")

    def seen_in(self, data: bytes) -> list[str]:
        """The names of those that a text shows, in whatever form."""
        begun: dict[bytes, bool] = {}

        def has(begin: bytes, rest: tuple[bytes, ...]) -> bool:
            if begin not in begun:
                begun[begin] = begin in data
            return begun[begin] and any(form in data for form in rest)

        return [name for name, value in self.values.items() if any(has(begin, rest) for begin, rest in forms(value))]


@cache
def forms(value: str) -> tuple[tuple[bytes, tuple[bytes, ...]], ...]:
    """A value as it may be written, by what those of many values begin with: most texts do not have even that."""
    found: dict[bytes, list[bytes]] = {}
    for form in sorted(set(_forms(value))):
        found.setdefault(form[:6], []).append(form)
    return tuple((begin, tuple(rest)) for begin, rest in found.items())


def _forms(value: str) -> Iterator[bytes]:
    raw = value.encode()
    yield raw
    for safe in ("", "/", "/?'", "/:@!$'()*,?", "/:@!$&'()*+,;="):
        yield quote(raw, safe=safe).encode()
        yield quote_plus(raw, safe=safe).encode()
    written = json.dumps(value)[1:-1]
    for text in (written, written.replace("/", "\\/"), written.replace("&", "\\u0026").replace("'", "\\u0027")):
        yield text.encode()
    for page in (escape(value), escape(value, quote=False), escape(value).replace("&#x27;", "&#39;")):
        yield page.encode()
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    # In base64 a value may begin at any of three places, as a password does behind a user name.
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + raw)
        yield coded[4 if shift else 0 : len(coded) - 4]
        yield coded[4 if shift else 0 : len(coded) - 4].translate(bytes.maketrans(b"+/", b"-_"))


def config(folder: Path, canary: Canaries, http: str, raw: str, post: int = 9) -> dict[str, Any]:
    """A config that holds a secret wherever one can stand; `post` is the port of a mail server."""

    def from_file(name: str) -> str:
        path = folder / name
        path.write_text(canary(name) + "\n")
        return f"${{file:{path}}}"

    def from_credential(name: str) -> str:
        (folder / "credentials").mkdir(exist_ok=True)
        (folder / "credentials" / name).write_text(canary(name) + "\n")
        return f"${{credential:{name}}}"

    fast = {"policy": "fixed", "every": "10ms", "attempts": 2, "jitter": 0}
    return {
        "server": {"listen": "127.0.0.1:0"},
        "admin": {
            "listen": "127.0.0.1:0",
            "token": canary("admin"),
            "tokens": {"ci": {"token": canary("ci"), "scope": "read"}},
        },
        "store": {"url": f"sqlite:{folder / 'relay.db'}", "response_body": "16KiB"},
        "log": {"level": "debug", "format": "json"},
        "defaults": {
            "headers": {
                "X-Default-Token": canary("default-header"),
                "X-Env": from_file("file-default"),
                "X-Systemd": from_credential("credential-default"),
            },
            "proxy": http.replace("//", f"//relay:{quote(canary('default-proxy'), safe='')}@"),
            "unhealthy_after": 1000,  # all destinations fail, and every delivery is to be tried
            "notify": ["mail", "post", "chat", "hook"],
        },
        "notifiers": notifiers(canary, http, post, from_file),
        "sources": {
            "open": {"type": "generic", "verify": "none", "dedup": "off"},
            "www": {
                "type": "storyblok",
                "secret": [canary("storyblok"), canary("storyblok-old")],
                "body_secret": {"pointer": "/dialog_values/secret", "value": canary("storyblok-task")},
            },
            "blog": {
                "type": "strapi",
                "token": canary("strapi-token"),
                "headers": {"X-Site": canary("strapi-header")},
                "secret": canary("strapi-secret"),
                "dedup": "off",
                "notify": ["chat"],
                "expect_every": "1s",
            },
            "stack": {
                "type": "contentstack",
                "secret": canary("contentstack"),
                "basic": {"username": "stack", "password": canary("contentstack-basic")},
                "headers": {"X-Site": canary("contentstack-header")},
            },
            "stack2": {"type": "contentstack", "token": canary("contentstack-token")},
            "site": {
                "type": "prismic",
                "secret": canary("prismic"),
                "token": canary("prismic-token"),
                "headers": {"X-Site": canary("prismic-header")},
            },
            "content": {"type": "hygraph", "secret": canary("hygraph")},
            "crm": {"type": "standard", "secret": canary.whsec("standard")},
            "repo": {"type": "github", "secret": canary("github")},
            "pay": {"type": "stripe", "secret": canary("stripe")},
            "shop": {
                "type": "generic",
                "hmac": {"header": "X-Shop", "secret": canary("hmac")},
                "basic": {"username": "shop", "password": [canary("basic"), canary("basic-old")]},
                "body_secret": {"pointer": "/auth/key", "value": from_file("file-body")},
            },
            "misc": {
                "type": "generic",
                "token": from_file("file-token"),
                "headers": {"X-Site": [canary("header"), canary("header-old")]},
            },
        },
        "routes": [
            *unproxied(routes(canary, http, raw, fast, from_file)),
            {"name": "by-default-proxy", "to": {"url": "http://127.0.0.1:9/by-proxy"}, "retry": fast},
        ],
    }


def unproxied(listed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Routes that name no proxy of their own use none, whatever the defaults say."""
    for route in listed:
        yield {**route, "to": {"proxy": "none", **route["to"]}}


def routes(
    canary: Canaries, http: str, raw: str, fast: dict[str, Any], from_file: Callable[[str], str]
) -> list[dict[str, Any]]:
    """A secret in each place of a route, of each preset, scheme and kind of auth."""
    return [
        {
            "name": "bearer",
            "to": {
                "url": f"{http}/{from_file('file-path')}?key={quote(canary('url-query'), safe='')}",
                "query": {"q": canary("query"), "f": from_file("file-query")},
                "headers": {"X-Api-Key": canary("api-key"), "X-Plain": from_file("file-header")},
                "auth": {"type": "bearer", "token": canary("bearer")},
            },
            "sign": [{"scheme": "standard", "secret": [canary.whsec("sign"), canary.whsec("sign-old")]}],
            "retry": fast,
        },
        {
            "name": "basic",
            "to": {
                "url": f"{http}/basic",
                "auth": {"type": "basic", "username": "relay", "password": canary("basic-auth")},
            },
            "payload": "normalized",
        },
        {
            "name": "collecting",
            "to": {"url": f"{http}/collected", "headers": {"X-Api-Key": canary("window-key")}},
            "batch": {"wait": "1h"},
            "retry": "none",
        },
        {"name": "not-http", "to": {"url": f"{raw}/?key={quote(canary('echoed'), safe='')}"}, "retry": fast},
        {
            "name": "nobody",
            "to": {"url": "http://127.0.0.1:9/", "query": {"k": canary("refused")}},
            "retry": "none",
        },
        *(
            {"name": name, "sources": "blog", "retry": fast, **route}
            for name, route in (*with_tokens(canary, http), *proxied(canary, http), *signed(canary, http))
        ),
        *(
            {"name": name, "sources": "blog", "retry": fast, "to": {"preset": name, **keys}}
            for name, keys in presets(canary, http, from_file).items()
        ),
    ]


def notifiers(canary: Canaries, http: str, post: int, from_file: Callable[[str], str]) -> dict[str, dict[str, Any]]:
    """A mail server that is not there and one that is, and services that refuse what they are told."""
    login = f"relay:{quote(canary('mail'), safe='')}@"
    known = f"{USER}:{quote(canary('post'), safe='')}@"
    slack = f"{http}/notice/{canary.plain('notice-slack')}?key={quote(canary('notice-query'), safe='')}"
    return {
        "mail": {"type": "email", "smtp": f"smtp://{login}127.0.0.1:9", "from": "r@example.com", "to": "o@example.com"},
        "post": {
            "type": "email",
            "smtp": f"smtp://{known}127.0.0.1:{post}",
            "starttls": "never",
            "from": "r@example.com",
            "to": "o@example.com",
        },
        "chat": {"type": "webhook", "preset": "slack", "url": slack},
        "hook": {
            "type": "webhook",
            "url": f"{http}/notice/{from_file('notice-file')}",
            "headers": {"X-Api-Key": canary("notice-header")},
            "auth": {"type": "bearer", "token": canary("notice-bearer")},
        },
    }


Routes = Iterator[tuple[str, dict[str, Any]]]


def with_tokens(canary: Canaries, http: str) -> Routes:
    """Routes that get a token before they send, or get none."""
    for name, endpoint in (("oauth", "token"), ("oauth-refused", "no-token")):
        auth = {
            "type": "oauth2",
            "token_url": f"{http}/{endpoint}?tenant={quote(canary(f'{name}-url'), safe='')}",
            "client_id": "relay",
            "client_secret": canary(f"{name}-secret"),
            "params": {"assertion_key": canary(f"{name}-param")},
            "query": {"q": canary(f"{name}-query")},
        }
        yield name, {"to": {"url": f"{http}/oauth", "auth": auth}}


def proxied(canary: Canaries, http: str) -> Routes:
    """Routes through a proxy, which lets them pass, or does not."""
    for name, url in (
        ("proxy", "http://127.0.0.1:9/by-proxy"),
        ("proxy-refused", "http://127.0.0.1:9/refused-by-proxy"),
        ("proxy-tunnel", "https://127.0.0.1:9/tunnel"),
    ):
        secret = quote(canary(name), safe="")
        yield name, {"to": {"url": url, "proxy": http.replace("//", f"//relay:{secret}@")}}


def signed(canary: Canaries, http: str) -> Routes:
    """Routes with the schemes that no other route has."""
    schemes: list[dict[str, Any]] = [
        {"scheme": "standard-asymmetric", "secret": [canary.whsk("sign-ed25519"), canary.whsk("sign-ed25519-old")]},
        {"scheme": "hygraph", "secret": canary("sign-hygraph")},
        {"scheme": "prismic", "secret": canary("sign-prismic")},
        {"scheme": "github", "secret": canary("sign-github")},
        {"scheme": "hmac", "secret": canary("sign-hmac"), "header": "X-Hmac"},
    ]
    yield "signed", {"to": {"url": f"{http}/signed"}, "sign": schemes}
    storyblok = {"scheme": "storyblok", "secret": canary("sign-storyblok")}
    yield "signed-as-storyblok", {"to": {"url": f"{http}/signed"}, "payload": "normalized", "sign": [storyblok]}


def presets(canary: Canaries, http: str, from_file: Callable[[str], str]) -> dict[str, dict[str, Any]]:
    """The keys of each preset, sent to this machine in the place of its service."""
    hooks = {
        name: {"hook": f"{http}/hooks/{canary.plain(name)}"}
        for name in ("cloudflare-pages", "discord", "netlify", "slack", "vercel")
    }
    hook = f"{http}/hooks/{canary.plain('teams')}?sig={quote(canary('teams-sig'), safe='')}"
    gitlab = {"server": http, "project": "acme/www", "variables": {"DEPLOY_KEY": from_file("gitlab-variable")}}

    def server(name: str) -> str:
        return f"{http}/{name}?key={quote(canary(f'{name}-url'), safe='')}"

    return {
        **hooks,
        "teams": {"hook": hook},
        "github-dispatch": {"url": f"{http}/github", "repo": "acme/www", "token": canary("github-token")},
        "gitlab-trigger": {**gitlab, "token": canary("gitlab-token")},
        "algolia": {"url": f"{http}/algolia", "application": "APP", "index": "posts", "key": canary("algolia")},
        "meilisearch": {
            "url": server("meilisearch"),
            "index": "posts",
            "key": canary("meilisearch"),
        },
        "typesense": {
            "url": server("typesense"),
            "collection": "posts",
            "key": canary("typesense"),
        },
    }


def held(value: object, canary: Canaries) -> Iterator[tuple[str, str]]:
    """Each field of a section that holds a canary, by the section's class and the field."""
    if isinstance(value, BaseModel):
        for key in type(value).model_fields:
            child = getattr(value, key)
            if any(canary.seen_in(text.encode()) for text in texts(child)):
                yield from ((named(model), key) for model in type(value).__mro__ if key in get_annotations(model))
                yield named(type(value)), key
            yield from held(child, canary)
    elif isinstance(value, typing.Mapping):
        for child in value.values():
            yield from held(child, canary)
    elif isinstance(value, tuple):
        for child in value:
            yield from held(child, canary)


def texts(value: object) -> Iterator[str]:
    """What a field says itself, not what the sections below it say."""
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, str):
        yield value
    elif isinstance(value, URL):
        yield from (value.user or "", value.password or "", value.path, *value.query.values())
    elif isinstance(value, tuple):
        for one in value:
            yield from texts(one)
    elif isinstance(value, typing.Mapping):
        for one in value.values():
            yield from texts(one)


def known(section: type[Section] = Section) -> Iterator[tuple[str, str]]:
    """Each field of the schema that may hold a secret: one that is typed so, of each section that has it.

    Of URLs, and of values that people name themselves (headers and the like), one section that has the field will do:
    the one that declares it.
    """
    for model in section.__subclasses__():
        used = not model.__subclasses__()  # a base of others is never used itself
        for key, about in model.model_fields.items():
            secret = used and _names(about.annotation, Secret)
            if secret or (key in get_annotations(model) and (_names(about.annotation, URL) or key in FREELY_NAMED)):
                yield named(model), key
        yield from known(model)


FREELY_NAMED = {"headers", "params", "query", "variables"}
NOTHING_SECRET = {
    ("relay.destinations.gitlab_trigger.Config", "server"): "an origin: user names and queries are refused",
}
"""URLs that can hold no secret."""


def named(model: type) -> str:
    return f"{model.__module__}.{model.__name__}"


def _names(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(_names(part, kind) for part in typing.get_args(annotation))


def answering(canary: Canaries) -> Callable[[Received], web.Response]:
    """A destination, a proxy and a token endpoint in one."""
    token = canary("access-token")

    def answer(request: Received) -> web.Response:
        if request.path.startswith("/notice/"):
            said = f"no {request.path} {dict(request.headers)}"
            return web.Response(status=404, text=said[:150] + request.headers.get("X-Api-Key", "") + said[150:])
        if request.path.startswith("/token"):
            return web.json_response({"access_token": token, "token_type": "Bearer"})
        if request.path.startswith("/no-token"):
            proof = request.headers.get("Authorization") or parse_qs(request.body.decode())["client_secret"][0]
            said = f"{proof} {request.body.decode()}"
            return web.json_response({"error": proof[:64], "error_description": said}, status=401)
        if request.method == "CONNECT" or "refused-by-proxy" in request.path:
            return web.Response(status=407, reason=f"no {request.headers['Proxy-Authorization']}")
        return echo(request, 401 if request.path.startswith("/oauth") else 500)

    return answer


def echo(request: Received, status: int) -> web.Response:
    """All that was sent, in several ways; an error, so that there is a next attempt."""
    headers = {f"X-Echo-{name}": value for name, value in request.headers.items()}
    headers |= {"Set-Cookie": request.headers["X-Default-Token"], "webhook-signature": "v1,echo"}
    said = "\n".join(
        [
            request.path,
            json.dumps(dict(request.headers)),
            *request.headers.values(),
            *(base64.b64encode(value.encode()).decode() for value in request.headers.values()),
            *(quote(value, safe="") for value in request.headers.values()),
            *(write(request.headers[name]) for name in TELLING & request.headers.keys() for write in WAYS),
            request.body.decode("utf-8", "replace"),
        ]
    )
    # What is kept of the answer ends in the middle of a secret.
    secret = request.headers["X-Default-Token"]
    cut = secret[: len(secret) // 2 if request.n % 2 else -1]
    padding = KEPT - len(said.encode()) - len(cut)
    assert padding > 0
    return web.Response(status=status, headers=headers, text=said + "." * padding + secret)


@asynccontextmanager
async def raw_echo() -> AsyncIterator[str]:
    """A server that sends back the bytes it got: not HTTP at all."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@dataclass
class Seen:
    """All that anyone can see of a relay, by where it was seen."""

    texts: dict[str, bytes] = field(default_factory=dict)

    def add(self, where: str, text: bytes | str) -> None:
        self.texts[where] = text.encode() if isinstance(text, str) else text


async def post(session: aiohttp.ClientSession, url: str, inbound: Inbound) -> tuple[int, bytes]:
    async with session.post(url, data=inbound.body, headers=inbound.headers) as response:
        return response.status, await response.read()


def genuine(runtime: Runtime) -> Iterator[tuple[str, Inbound]]:
    """A request that each source takes, and what else its secrets travel in."""
    now = datetime.now(UTC)
    for source in runtime.sources.values():
        body = b'{"auth":{"key":""},"id":"1"}' if source.name == "shop" else None
        yield source.path, request_for(source, None, body, now)
    task = b'{"action":"task_execution","task":{"id":1},"space_id":2,"dialog_values":{"secret":""}}'
    yield "/in/www", request_for(runtime.sources["www"], None, task, now)


async def everything_happens(relay: RelayProcess, document: dict[str, Any], canary: Canaries, seen: Seen) -> None:
    """Events, deliveries, refusals, reloads; and a look at every page of the admin side after them."""
    runtime = build(load(relay.config), 1, datetime.now(UTC))
    headers = {"Authorization": f"Bearer {canary.values['admin']}"}
    async with (
        aiohttp.ClientSession() as session,
        aiohttp.ClientSession(headers=headers) as admin,
        following(admin, relay.admin + "/logs/stream", seen),
    ):
        stranger = Inbound(CIMultiDict({name: canary(foreign) for name, foreign in FOREIGN.items()}), b'{"id":"1"}')
        for path, status in (("/in/open", 200), ("/in/misc", 401), ("/in/pay", 400)):
            found, answer = await post(session, relay.public + path, stranger)
            assert found in (status, 401), path
            seen.add(f"answer of {path} to a stranger", answer)
        for path, inbound in genuine(runtime):
            status, answer = await post(session, relay.public + path, inbound)
            assert status == 200, (path, answer)
            seen.add(f"answer of {path}", answer)
        for number, (path, inbound) in enumerate(list(genuine(runtime))):
            elsewhere = ("/in/pay", "/in/repo")[number % 2] if path not in ("/in/pay", "/in/repo") else "/in/content"
            status, answer = await post(session, relay.public + elsewhere, inbound)  # entered at the wrong address
            assert status in (400, 401, 429), elsewhere
            seen.add(f"answer of {elsewhere} to {path}", answer)
            broken = Inbound(inbound.headers, inbound.body[:-2])
            seen.add(f"answer of {path} to half a body", (await post(session, relay.public + path, broken))[1])

        async def ask(method: str, path: str, **options: Any) -> bytes:
            async with admin.request(method, relay.admin + path, **options) as response:
                text = await response.read()
                seen.add(f"{method} {path} {options or ''}".strip(), text)
                seen.add(f"headers of {method} {path} {options or ''}".strip(), str(response.headers))
                return text

        async with asyncio.timeout(PATIENCE):
            tried = ",".join(route["name"] for route in document["routes"] if route["name"] not in WAITING)
            while json.loads(await ask("GET", f"/logs?status=pending&route={tried}"))["items"]:
                await asyncio.sleep(0.02)
            while not any(item["error"] for item in json.loads(await ask("GET", "/logs?route=basic"))["items"]):
                await asyncio.sleep(0.02)
        shown = json.loads(await ask("GET", "/logs?limit=1000"))["items"]
        assert {item["status"] for item in shown if item["route"] not in WAITING} == {"failed"}
        assert {item["status"] for item in shown if item["route"] == "collecting"} == {"pending", "merged"}
        assert {item["route"] for item in shown} == {route["name"] for route in document["routes"]}
        codes = {"http_status", "protocol_error", "connect_error", "auth_error"}
        # Those of basic need not have been tried yet, all of them.
        assert all(item["error"] for item in shown if item["route"] not in WAITING)
        assert {item["error"]["code"] for item in shown if item["route"] != "collecting" and item["error"]} == codes
        shown += json.loads(await ask("GET", "/logs?status=rejected&limit=1000"))["items"]
        assert {item["status"] for item in shown} >= {"failed", "rejected"}
        for item in shown:
            await ask("GET", f"/logs/{item['id']}")
            await ask("GET", f"/ui/logs/{item['id']}")
        for item in shown[:3]:
            await ask("GET", f"/logs/{item['event_id']}")
            await ask("GET", f"/ui/logs/{item['event_id']}")
            await ask("GET", f"/ui/logs/{item['id']}/raw")
            await ask("GET", f"/ui/entries?entry_id={item['entry_id'] or 1}")
            await ask("POST", f"/logs/{item['id']}/retry")
        await by_hand(ask, document, shown)
        kinds = {"ID": shown[0]["id"], "EVENT": shown[0]["event_id"]}
        kinds["REJECTED"] = next(item["id"] for item in shown if item["status"] == "rejected")
        for page in PAGES:
            path = page
            for kind, one in kinds.items():
                path = path.replace(kind, one)
            async with admin.get(relay.admin + path, headers={"Accept": "text/html, */*"}) as response:
                seen.add(f"page {path}", await response.read())
                seen.add(f"headers of page {path}", str(response.headers))
                assert response.status == (404 if page in NOWHERE else 400 if page in WRONG else 200)
        for wrong in (canary.values["ci"], canary.values["bearer"]):
            for method, path in (("POST", "/reload"), ("DELETE", "/logs")):
                await ask(method, path, headers={"Authorization": f"Bearer {wrong}"})
        good = relay.config.read_text()
        for number, bad in enumerate(mistakes(document, canary)):
            relay.config.write_text(bad)
            assert json.loads(await ask("POST", "/reload", headers={"X-Try": str(number)}))["error"] == "invalid_config"
            await ask("GET", f"/health?n={number}")
            for verb in (["check"], ["routes", "--expanded"]):
                seen.add(f"{verb} of mistake {number}", await run(relay.config, *verb))
        relay.config.write_text(good)
        await ask("POST", "/reload")
    daemon = ["--url", relay.admin, "--token", canary.values["admin"]]
    for verb in (["test", "bearer"], ["test", "oauth", "--json"], ["windows"], ["pause", "--all"], ["resume", "--all"]):
        seen.add(" ".join(verb), await run(relay.config, *verb, *daemon))
    for verb in (["check"], ["check", "--no-secrets"], ["routes"], ["routes", "--expanded"], ["routes", "--json"]):
        seen.add(" ".join(verb), await run(relay.config, *verb, status=0))
    for route in document["routes"]:
        seen.add(f"export {route['name']}", await run(relay.config, "export", route["name"], status=0))
    for source, body in (("misc", b'{"id":"1"}'), ("blog", None)):
        sample = relay.config.parent / f"{source}.json"
        inbound = request_for(runtime.sources[source], None, body, datetime.now(UTC))
        pairs = [[name, value] for name, value in inbound.headers.items()]
        sample.write_text(json.dumps({"headers": pairs, "body": inbound.body.decode()}))
        for more in ([], ["--json"]):
            explained = await run(relay.config, "explain", str(sample), "--source", source, *more, status=0)
            seen.add(f"explain {source} {more}", explained)
    several = {item["status"]: item["id"] for item in shown}  # one of each state
    some = [*several.values(), *(item["event_id"] for item in shown[:3])]
    for more in ([], ["--json"]):
        for verb in (["logs"], ["logs", "--status", "rejected"], ["logs", "--status", "failed"]):
            seen.add(f"{verb} {more}", await run(relay.config, *verb, *more, *daemon, status=0))
        for one in some:
            seen.add(f"show {one} {more}", await run(relay.config, "show", one, *more, *daemon))
        event = shown[1]["event_id"]
        seen.add(f"explain {event} {more}", await run(relay.config, "explain", event, *more, *daemon))
    for verb in (["retry", shown[0]["id"]], ["retry", "--route", "bearer", "--dry-run"], ["reload"], ["show", "dlv_x"]):
        seen.add(f"{verb}", await run(relay.config, *verb, *daemon))
    for option, value in (
        ("--token", canary.values["bearer"]),
        ("--url", f"http://u:{canary.plain('cli')}@127.0.0.1:9"),
    ):
        seen.add(f"logs {option}", await run(relay.config, "logs", option, value))


@asynccontextmanager
async def following(admin: aiohttp.ClientSession, url: str, seen: Seen) -> AsyncIterator[None]:
    """All that is told of what happens while it happens."""
    told = bytearray()

    async def listen() -> None:
        async with admin.get(url, timeout=aiohttp.ClientTimeout(total=None)) as response:
            assert response.status == 200
            async for some in response.content.iter_any():
                told.extend(some)

    async with asyncio.TaskGroup() as group:
        listening = group.create_task(listen())
        yield
        listening.cancel()
    seen.add("stream", bytes(told))


async def by_hand(ask: Callable[..., Awaitable[bytes]], document: dict[str, Any], shown: list[dict[str, Any]]) -> None:
    """All that people can look at and do by HTTP."""
    for path in ("/routes", "/routes/bearer", "/routes/x", "/sources", "/windows", "/windows?x=1"):
        await ask("GET", path)
    [window] = json.loads(await ask("GET", "/windows"))["items"]
    for action in ("hold", "flush", "cancel"):
        await ask("POST", f"/windows/{window['id']}/{action}")
    for route in document["routes"]:
        tested = json.loads(await ask("POST", f"/routes/{route['name']}/test"))
        assert tested["error"] is not None, route["name"]
    for action in ("pause?reason=freeze", "resume"):
        assert "route" in json.loads(await ask("POST", f"/routes/bearer/{action}"))
        assert "routes" in json.loads(await ask("POST", f"/routes/{action}"))
    await ask("POST", "/routes/gone/move?to=bearer")
    await ask("POST", "/logs/retry?route=bearer&dry_run=1")
    failed = next(item for item in shown if item["route"] == "bearer")
    await ask("POST", f"/logs/{failed['id']}/cancel")
    replayed = json.loads(await ask("POST", f"/events/{failed['event_id']}/replay?route=bearer"))
    async with asyncio.timeout(PATIENCE):
        while json.loads(await ask("GET", f"/logs/{replayed['deliveries'][0]}"))["delivery"]["status"] == "pending":
            await asyncio.sleep(0.02)
    waiting = next(item for item in shown if item["route"] == "basic")
    await ask("POST", f"/events/{waiting['event_id']}/forget")


def as_text(document: dict[str, Any]) -> str:
    """A config file, its sections one to a line."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in document.items())


def mistakes(document: dict[str, Any], canary: Canaries) -> Iterator[str]:
    """Configs that are not taken: what is wrong with them is told without the values."""

    def changed(change: Any) -> str:
        copy = json.loads(json.dumps(document))
        change(copy)
        return as_text(copy)

    file = document["routes"][0]["to"]["headers"]["X-Plain"]
    bearer = document["routes"][0]["to"]["auth"]["token"]
    wrong_auth = {"type": "oauth2", "token_url": f"ftp://x/?{bearer}", "client_id": "", "client_secret": [bearer]}
    yield changed(lambda c: c["routes"][0].update(sources=file))
    yield changed(lambda c: c["routes"][0].update(payload=file))
    yield changed(lambda c: c["routes"][0].update(match={"where": file}))
    yield changed(lambda c: c["routes"][0].update(max_age=file, concurrency=file, name=file))
    yield changed(lambda c: c["routes"][0]["to"].update(method=file, timeout=file, url=file))
    yield changed(lambda c: c["routes"][0]["to"]["auth"].update(token=[bearer], type="bearr"))
    yield changed(lambda c: c["routes"][0]["to"].update(url=f"ftp://x/{bearer}", headers={"X-Api-Key": bearer + "\n"}))
    yield changed(lambda c: c["routes"][0].update(sign=[{"scheme": "standard", "secret": bearer}]))
    yield changed(lambda c: c["routes"][0].update(payload={"template": "{{ " + file}, retry=file))
    yield changed(lambda c: c["routes"][0].update(payload={"jmespath": "f(" + file}))
    yield changed(lambda c: c["routes"][0]["to"].update(proxy=file, success=file, tls={"ca": file, "verify": file}))
    yield changed(lambda c: c["routes"][0]["to"].update(proxy=f"http://relay:{bearer}@/"))
    yield changed(lambda c: c["routes"][0]["to"].update(auth=wrong_auth))
    yield changed(lambda c: c["routes"][0]["to"].update(preset=file))
    yield changed(lambda c: [route["to"].update(spoilt(route["to"], file)) for route in c["routes"]])
    yield changed(lambda c: c["sources"]["blog"].update(token={"nested": canary.values["strapi-token"]}))
    yield changed(lambda c: c["sources"]["blog"].update(headers=canary.values["strapi-header"]))
    yield changed(lambda c: c["sources"]["blog"].update(token=" " + canary.values["strapi-token"]))
    yield changed(lambda c: c["sources"]["shop"].update(map={"event": file}, path=file, allow_ips=[file]))
    yield changed(lambda c: c["server"].update(listen=file, max_body=file))
    yield changed(lambda c: c["admin"].update(token={"a": canary.values["admin"]}, hosts=file))
    yield changed(lambda c: c["store"].update(url=file))
    told = document["notifiers"]
    mail, chat, hook = told["mail"]["smtp"], told["chat"]["url"], told["hook"]["url"]
    yield changed(lambda c: c["notifiers"]["mail"].update(smtp=mail.replace("smtp", "ftp", 1), to=[mail]))
    yield changed(lambda c: c["notifiers"]["mail"].update({"smtp": mail + "/x", "from": file, "starttls": file}))
    yield changed(lambda c: c["notifiers"]["chat"].update(url=chat.replace("http", "ftp", 1)))
    yield changed(lambda c: c["notifiers"]["hook"].update(url=f"ftp:{hook}", preset=file, timeout=file))
    yield changed(lambda c: c["notifiers"]["hook"].update(headers={"X-Api-Key": bearer + "\n"}, auth={"token": [file]}))
    yield changed(lambda c: c["notifiers"].update({"other": {"type": file}}))
    yield changed(lambda c: c["routes"][0].update(notify=file, debounce={"wait": file, "by": file}, rate=file))
    yield changed(lambda c: c["sources"]["shop"].update(dedup={"key": file, "window": file}, expect_every=file))
    yield changed(lambda c: c["log"].update(level=file))
    yield changed(lambda c: c["routes"][0]["to"].update(tls={"ca": file}))
    yield changed(lambda c: c["server"].update(tls={"cert": file, "key": file}))
    yield as_text(document).replace("routes:", "rowtes:", 1)
    yield as_text(document)[:-40]  # half written


def spoilt(to: dict[str, Any], file: str) -> dict[str, Any]:
    """What is wrong for each preset."""
    wrong: dict[str, Any] = {key: file for key in ("repo", "event_type", "application", "clear_cache") if key in to}
    if "hook" in to:
        wrong["hook"] = to["hook"].replace("http", "ftp", 1)
    return wrong | {key: [to[key]] for key in ("token", "key") if key in to}


async def run(config: Path, verb: str, *more: str, status: int | None = None) -> bytes:
    """What a verb of the command line says."""
    command = [verb, "--config", str(config), *more]
    ended = await asyncio.to_thread(CliRunner().invoke, relay_command, command)
    assert isinstance(ended.exception, SystemExit | None), ended.exc_info
    assert status is None or ended.exit_code == status, ended.output
    return ended.output.encode()


async def test_no_secret_is_seen_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary, seen = Canaries(), Seen()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    async with (
        sink(answering(canary)) as destination,
        raw_echo() as raw,
        post_office(auth=True, password=canary("post")) as office,
    ):
        document = config(tmp_path, canary, destination.url, raw, office.port)
        async with relay_process(tmp_path, as_text(document)) as relay:
            await everything_happens(relay, document, canary, seen)
            for path in tmp_path.glob("relay.db*"):
                seen.add(f"{path.name} while it runs", path.read_bytes())
            assert await relay.stop() == 0
        seen.add("log", relay.log.read_bytes())
        for number, mail in enumerate(office.mails):
            seen.add(f"mail {number}", mail.as_bytes())
            seen.add(f"text of mail {number}", str(mail.get_content()))
        for request in destination.received:
            if request.path.startswith("/notice/"):
                seen.add(f"notice {request.n}", request.body)
        seen.add("relay.db", (tmp_path / "relay.db").read_bytes())
    # The canaries were at work: the destinations saw those that were meant for them.
    sent = [f"{request.path}\n{dict(request.headers)}".encode() + request.body for request in destination.received]
    arrived = {name for text_sent in sent for name in canary.seen_in(text_sent)}
    meant = {"default-header", "file-default", "file-path", "url-query", "query", "file-query", "api-key"}
    meant |= {"file-header", "bearer", "basic-auth", "access-token", "proxy", "proxy-refused", "proxy-tunnel"}
    meant |= {f"{name}-{part}" for name in ("oauth", "oauth-refused") for part in ("url", "secret", "param", "query")}
    meant |= {"github-token", "gitlab-token", "gitlab-variable", "teams-sig", "sign-prismic", "window-key"}
    meant |= {
        "default-proxy",
        "credential-default",
        "meilisearch-url",
        "typesense-url",
        "notice-slack",
        "notice-query",
        "notice-file",
        "notice-header",
        "notice-bearer",
    }
    assert arrived == meant | (set(preset.names()) - {"github-dispatch", "gitlab-trigger"})
    assert len(destination.received) > 10
    assert {"store", "log"} <= {where.partition(".")[0].replace("relay", "store") for where in seen.texts}
    assert b"***" in seen.texts["relay.db"]
    told = list(untold(seen.texts["log"]))
    assert {line["notifier"] for line in told if line["reason"] != "relay stops"} == {"mail", "chat", "hook"}
    assert any("***" in line["reason"] for line in told if line["notifier"] == "hook")  # it sends back all it got
    assert len(office.mails) > 3
    assert {text_seen for where, text_seen in seen.texts.items() if where.startswith("notice ")}
    leaks = {
        where: names
        for where, text_seen in seen.texts.items()
        if (names := set(canary.seen_in(text_seen)) - (STORED if where.startswith("relay.db") else set()))
    }
    assert leaks == {}
    # Of a secret that was cut in two where the answer was, no half is left.
    half = canary.values["default-header"][:12].encode()
    assert [where for where, text_seen in seen.texts.items() if half in text_seen] == []


async def test_no_password_of_a_database_is_seen_anywhere(tmp_path: Path) -> None:
    """Neither while it works, nor when it is replaced, wrong, or written as no URL has it; nor in an outage."""
    canary, seen = Canaries(), Seen()
    with cluster(password=True) as postgres, postgres.database() as database:
        password = canary("database").replace("'", "''")
        postgres.psql(f"ALTER ROLE {ROLE} PASSWORD '{password}'")

        def document(name: str, form: Callable[[str], str] = lambda value: quote(value, safe="")) -> str:
            where = f"127.0.0.1:{postgres.port}/{database.name}?sslpassword={quote(canary('sslpassword'), safe='')}"
            return as_text(
                {
                    "server": {"listen": "127.0.0.1:0"},
                    "admin": {"listen": "127.0.0.1:0"},
                    "log": {"level": "debug", "format": "json"},
                    "store": {"url": f"postgresql://{ROLE}:{form(canary(name))}@{where}"},
                    "sources": {"open": {"type": "generic", "verify": "none"}},
                }
            )

        async with (
            relay_process(tmp_path, document("database")) as relay,
            aiohttp.ClientSession() as session,
        ):

            async def ask(method: str, path: str) -> int:
                async with session.request(method, relay.admin + path, headers={"Accept": "text/html, */*"}) as got:
                    seen.add(f"{method} {path} {len(seen.texts)}", await got.read())
                    return got.status

            async def take() -> int:
                async with session.post(f"{relay.public}/in/open", data=b"{}") as got:
                    seen.add(f"answer {len(seen.texts)}", await got.read())
                    return got.status

            async def say(verb: str, *more: str) -> None:
                ended = await asyncio.to_thread(run_process, *verb.split(), *more, "--config", relay.config)
                seen.add(f"{verb} {len(seen.texts)}", ended.out + ended.err)

            assert await take() == 200
            for verb in ("doctor", "doctor --json", "logs"):
                await say(verb, "--url", relay.admin)
            for verb in ("db stats", "db stats --json", "db check", f"db backup {tmp_path}/copy", "check"):
                await say(verb)
            for path in ("/health", "/config", "/metrics", "/routes", "/logs", "/", "/ui/logs"):
                assert await ask("GET", path) == 200, path
            for name, form, status in (("another", quote_plus, 200), ("unescaped", str, 422)):
                relay.config.write_text(document(name, form))
                assert await ask("POST", "/reload") == status
                await ask("GET", "/health")
                await ask("GET", "/config")
                await say("doctor", "--url", relay.admin)
                for verb in ("check", "db stats", "serve"):
                    await say(verb)
            postgres.stop(immediate=True)
            assert await take() == 503
            await ask("GET", "/health")
            postgres.start()
            assert await relay.stop() == 0
            seen.add("log", relay.log.read_bytes())
    wrong = [where for where, text in seen.texts.items() if b"password authentication failed" in text]
    assert {where.split()[0] for where in wrong} == {"doctor", "db", "serve"}
    assert sum(b"config.yaml:" in text and b"store.url: " in text for text in seen.texts.values()) > 3
    started = next(line for line in map(json.loads, seen.texts["log"].splitlines()) if line["event"] == "started")
    assert started["store"].startswith(f"postgresql://{ROLE}:***@127.0.0.1:")
    assert {where: names for where, text in seen.texts.items() if (names := canary.seen_in(text))} == {}
    assert sorted(canary.values) == ["another", "database", "sslpassword", "unescaped"]


def untold(log: bytes) -> Iterator[dict[str, Any]]:
    """What people were to be told and were not: each line has what the other side said to that."""
    lines = (json.loads(line) for line in log.splitlines())
    yield from (line for line in lines if line["event"] == "notice_not_sent")


@pytest.mark.parametrize("form", ["json", "console"])
async def test_no_secret_is_seen_in_the_traceback_of_a_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], form: str
) -> None:
    """Whatever an exception says of what was at hand: on the way in, on the way out, on the admin side, in a notifier,
    in a library, while a config is read."""
    canary = Canaries()

    def bug(*_: object, **__: object) -> Any:
        said = f"{canary('bearer')} {canary('source')} {canary('admin')}"
        try:
            raise KeyError(base64.b64encode(said.encode()))
        except KeyError:
            raise RuntimeError(f"with {said} {quote(said)} {said.encode().hex()} {said!r} {[said]}")  # noqa: B904

    async with sink(lambda request: 500) as there:
        text = as_text(
            {
                "server": {"listen": "127.0.0.1:0"},
                "admin": {"listen": "127.0.0.1:0", "token": canary("admin")},
                "log": {"level": "debug", "format": form},
                "notifiers": {"hook": {"type": "webhook", "url": f"{there.url}/{canary.plain('hook')}"}},
                "sources": {"any": {"type": "generic", "token": canary("source"), "notify": "hook"}},
                "routes": [
                    {
                        "name": "r",
                        "to": {"url": there.url, "auth": {"type": "bearer", "token": canary("bearer")}},
                        "retry": "none",
                        "notify": ["hook"],
                    }
                ],
            }
        )
        async with relay_here(tmp_path, text) as running:
            proof = {"Authorization": f"Bearer {canary('source')}", "Content-Type": "application/json"}
            admin = {"Authorization": f"Bearer {canary('admin')}"}
            with monkeypatch.context() as broken:
                broken.setattr("relay.destination.Destination.judge", bug)
                broken.setattr("relay.notifiers.webhook.Webhook.send", bug)
                answers = [await running.post("/in/any", headers=proof)]
                await running.logs_when(lambda items: items, "?status=failed", headers=admin)
            for what, method, path in (
                ("relay.web.read.logs", "GET", "/logs"),
                ("relay.web.health.Health.report", "GET", "/health"),
                ("relay.reload.build", "POST", "/reload"),
            ):
                with monkeypatch.context() as broken:
                    broken.setattr(what, bug)
                    answers.append(await running.ask(method, path, headers=admin))
            with monkeypatch.context() as broken:
                broken.setattr("relay.source.Source.describe", bug)
                answers.append(await running.post("/in/any", headers=proof))
            logging.getLogger("aiohttp.server").error("wrote %r", canary("bearer"))
            failed = await running.logs_when(lambda items: items, "?status=failed", headers=admin)
            shown = await running.get(f"/logs/{failed[0]['id']}", headers=admin)
    journal.outlet.drain(10)
    log = capsysbinary.readouterr().err
    assert log.count(b"RuntimeError") >= 5
    assert log.count(b"***") >= 25
    assert canary.seen_in(log) == []
    assert canary.seen_in(json.dumps([answers, shown]).encode()) == []


def test_every_key_that_may_hold_a_secret_holds_a_canary_in_that_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is added to the schema has to be added there too."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    for found in (types(), notifier_types()):  # each is read when it is asked for
        list(found.values())
    for name in preset.names():
        preset.model(name)
    canary = Canaries()
    text = as_text(config(tmp_path, canary, "http://127.0.0.1:1", "http://127.0.0.1:2"))
    expected = {(model, key) for model, key in known() if model.startswith("relay.") and "._" not in model}
    assert len(expected) > 50
    assert expected - set(held(load(write_config(tmp_path, text)).config, canary)) == NOTHING_SECRET.keys()


async def test_words_that_are_secret_for_their_place_are_matched_all_the_same(tmp_path: Path) -> None:
    """A word in a URL's query is as secret as a token there, and so is all that comes out of a file. An event that says
    it says no secret. One that says a source's token does."""
    (tmp_path / "model").write_text("landing-page")
    text = """
sources:
  open:
    type: generic
    verify: none
    map: {environment: body.env, stage: body.stage, model: body.model, entry_id: body.id}
  closed: {type: generic, token: a-token-71}
routes:
  - name: build
    match: {environment: production, stage: published, any: [{model: ["${file:FOLDER/model}"]}]}
    to: {url: "SINK/?env=production", headers: {X-Cache-Key: published}}
    payload: normalized
"""
    async with sink() as destination:
        written = text.replace("SINK", destination.url).replace("FOLDER", str(tmp_path))
        async with relay_here(tmp_path, written) as relay:
            said = {"env": "production", "stage": "published", "model": "landing-page", "id": "a-token-71"}
            status, answer = await relay.post("/in/open", json.dumps(said).encode())
            assert (status, answer["routes"]) == (200, ["build"])
            [item] = await relay.logs_when(lambda items: [each["status"] for each in items] == ["delivered"])
            told = json.loads(destination.received[0].body)
            shown = (await relay.get(f"/logs/{item['id']}"))["event"]
            for each in (told, shown):
                assert [each[key] for key in ("environment", "stage", "model", "entry_id")] == [
                    "production", "published", "landing-page", "***",
                ]  # fmt: skip


async def test_a_secret_that_a_sender_says_is_masked_wherever_it_is_shown(tmp_path: Path) -> None:
    """Somebody's webhook was pointed at the wrong source, or an entry has a strange name: also of a secret that was
    replaced since."""
    old, new = "the-token-of-yesterday-71", "the-token-of-today-and-on"
    text = """
sources:
  closed: {type: generic, token: %s}
  open:
    type: generic
    verify: none
    map: {event: body.event, model: body.model, entry_id: body.id, stage: body.stage}
routes: [{name: r, match: {where: "body.id != `x`"}, to: {url: "http://127.0.0.1:9/"}, retry: none}]
"""
    async with relay_process(tmp_path, text % old) as relay, aiohttp.ClientSession() as session:
        (tmp_path / "config.yaml").write_text((tmp_path / "config.yaml").read_text().replace(old, new))
        async with session.post(f"{relay.admin}/reload") as response:
            assert response.status == 200
        said = json.dumps({"event": old, "model": f"a {new} b", "id": old, "stage": new, "more": {"deep": [old]}})
        headers = {"Content-Type": "application/json", "X-Api": new, "Authorization": f"Bearer {old}"}
        async with session.post(f"{relay.public}/in/open", data=said, headers=headers) as response:
            event = (await response.json())["id"]
        async with session.post(f"{relay.public}/in/closed", data=said, headers=headers | {"X-Old": old}) as response:
            assert response.status == 401
        async with asyncio.timeout(PATIENCE):
            while True:
                async with session.get(f"{relay.admin}/logs?status=failed,rejected") as response:
                    items = (await response.json())["items"]
                if {item["status"] for item in items} == {"failed", "rejected"}:
                    break
                await asyncio.sleep(0.01)
        paths = ["/logs?format=text", "/logs?format=ndjson", "/ui/logs", "/", f"/logs/{event}", f"/ui/logs/{event}"]
        paths += [f"/ui/logs/{event}/raw", *(f"/logs/{item['id']}" for item in items)]
        paths += [f"/ui/logs/{item['id']}" for item in items]
        seen = [json.dumps(items)]
        for path in paths:
            async with session.get(relay.admin + path, headers={"Accept": "text/html"}) as response:
                assert response.status == 200, path
                seen.append(f"{path}: {await response.text()}")
        await relay.stop()
        seen.append(relay.log.read_text())
    assert [one[:200] for one in seen if old in one or new in one] == []
