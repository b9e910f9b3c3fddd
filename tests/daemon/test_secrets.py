"""No secret of the config is seen anywhere: not in logs, answers, messages, nor in the store's file.

Each key that can hold a secret holds a value of its own, a canary. A real relay takes, refuses, delivers and fails
with all of them, towards destinations that send everything back. So do those who are told of it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus

import aiohttp
from aiohttp import web
from click.testing import CliRunner
from pydantic import BaseModel

from relay import preset
from relay.cli import relay as relay_command
from relay.config import load
from relay.event import Inbound
from relay.fields import Section
from relay.notifier import types as notifier_types
from relay.runtime import Runtime, build
from relay.secret import Secret
from relay.sending import request_for
from relay.source import types
from tests.harness import PATIENCE, Received, RelayProcess, relay_process, sink, write_config

KEPT = 16 << 10  # of each answer
WAITING = ("basic", "collecting")  # routes whose deliveries have not ended when all others' have


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
        return [name for name, value in self.values.items() if any(form in data for form in forms(value))]


def forms(value: str) -> Iterator[bytes]:
    raw = value.encode()
    yield raw
    for safe in ("", "/", "/?'", "/:@!$'()*,?", "/:@!$&'()*+,;="):
        yield quote(raw, safe=safe).encode()
        yield quote_plus(raw, safe=safe).encode()
    yield json.dumps(value)[1:-1].encode()
    # In base64 a value may begin at any of three places, as a password does behind a user name.
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + raw)
        yield coded[4 if shift else 0 : len(coded) - 4]


def config(folder: Path, canary: Canaries, http: str, raw: str) -> dict[str, Any]:
    """A config that holds a secret wherever one can stand."""

    def from_file(name: str) -> str:
        path = folder / name
        path.write_text(canary(name) + "\n")
        return f"${{file:{path}}}"

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
            "headers": {"X-Default-Token": canary("default-header"), "X-Env": from_file("file-default")},
            "unhealthy_after": 1000,  # all destinations fail, and every delivery is to be tried
            "notify": ["mail", "chat", "hook"],
        },
        "notifiers": notifiers(canary, http, from_file),
        "sources": {
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
        ],
    }


def notifiers(canary: Canaries, http: str, from_file: Callable[[str], str]) -> dict[str, dict[str, Any]]:
    """A mail server that is not there, and services that refuse what they are told."""
    login = f"relay:{quote(canary('mail'), safe='')}@"
    slack = f"{http}/notice/{canary.plain('notice-slack')}?key={quote(canary('notice-query'), safe='')}"
    return {
        "mail": {"type": "email", "smtp": f"smtp://{login}127.0.0.1:9", "from": "r@example.com", "to": "o@example.com"},
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
    return {
        **hooks,
        "teams": {"hook": hook},
        "github-dispatch": {"url": f"{http}/github", "repo": "acme/www", "token": canary("github-token")},
        "gitlab-trigger": {**gitlab, "token": canary("gitlab-token")},
        "algolia": {"url": f"{http}/algolia", "application": "APP", "index": "posts", "key": canary("algolia")},
        "meilisearch": {"url": f"{http}/meilisearch", "index": "posts", "key": canary("meilisearch")},
        "typesense": {"url": f"{http}/typesense", "collection": "posts", "key": canary("typesense")},
    }


def held(value: object) -> Iterator[tuple[str, str]]:
    """Each field of a section that holds a secret, by the section's class and the field."""
    if isinstance(value, BaseModel):
        for key in type(value).model_fields:
            child = getattr(value, key)
            if _holds_secret(child):
                yield type(value).__module__ + "." + type(value).__name__, key
            yield from held(child)
    elif isinstance(value, typing.Mapping):
        for child in value.values():
            yield from held(child)
    elif isinstance(value, tuple):
        for child in value:
            yield from held(child)


def _holds_secret(value: object) -> bool:
    if isinstance(value, typing.Mapping):
        return any(_holds_secret(child) for child in value.values())
    return isinstance(value, Secret) or (isinstance(value, tuple) and any(isinstance(one, Secret) for one in value))


def known(section: type[Section] = Section) -> Iterator[tuple[str, str]]:
    """Each field of the schema that may hold a secret."""
    for model in section.__subclasses__():
        names = (model.__module__ + "." + model.__name__, *model.model_fields)
        if not model.__subclasses__():  # a base of others is never used itself
            for key in names[1:]:
                if _names_secret(model.model_fields[key].annotation):
                    yield names[0], key
        yield from known(model)


def _names_secret(annotation: Any) -> bool:
    return annotation is Secret or any(map(_names_secret, typing.get_args(annotation)))


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
    async with aiohttp.ClientSession() as session, aiohttp.ClientSession(headers=headers) as admin:
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
        shown = json.loads(await ask("GET", "/logs?limit=1000"))["items"]
        assert {item["status"] for item in shown if item["route"] not in WAITING} == {"failed"}
        assert {item["status"] for item in shown if item["route"] == "collecting"} == {"pending", "merged"}
        assert {item["route"] for item in shown} == {route["name"] for route in document["routes"]}
        codes = {"http_status", "protocol_error", "connect_error", "auth_error"}
        assert {item["error"]["code"] for item in shown if item["route"] != "collecting"} == codes
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
        pages = ["/", "/ui/logs", "/ui/windows", "/ui/retry", *(f"/ui/routes/{r['name']}" for r in document["routes"])]
        for path in (*pages, "/health", "/health/live", "/metrics", "/config", "/logs?x=1", "/logs/x", "/nothing"):
            await ask("GET", path)
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
    for more in ([], ["--json"]):
        seen.add(f"logs {more}", await run(relay.config, "logs", *more))


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


async def test_no_secret_is_seen_anywhere(tmp_path: Path) -> None:
    canary, seen = Canaries(), Seen()
    async with sink(answering(canary)) as destination, raw_echo() as raw:
        document = config(tmp_path, canary, destination.url, raw)
        async with relay_process(tmp_path, as_text(document)) as relay:
            await everything_happens(relay, document, canary, seen)
            for path in tmp_path.glob("relay.db*"):
                seen.add(f"{path.name} while it runs", path.read_bytes())
            assert await relay.stop() == 0
        seen.add("log", relay.log.read_bytes())
        seen.add("relay.db", (tmp_path / "relay.db").read_bytes())
    # The canaries were at work: the destinations saw those that were meant for them.
    sent = [f"{request.path}\n{dict(request.headers)}".encode() + request.body for request in destination.received]
    arrived = {name for text_sent in sent for name in canary.seen_in(text_sent)}
    meant = {"default-header", "file-default", "file-path", "url-query", "query", "file-query", "api-key"}
    meant |= {"file-header", "bearer", "basic-auth", "access-token", "proxy", "proxy-refused", "proxy-tunnel"}
    meant |= {f"{name}-{part}" for name in ("oauth", "oauth-refused") for part in ("url", "secret", "param", "query")}
    meant |= {"github-token", "gitlab-token", "gitlab-variable", "teams-sig", "sign-prismic", "window-key"}
    meant |= {"notice-slack", "notice-query", "notice-file", "notice-header", "notice-bearer"}
    assert arrived == meant | (set(preset.names()) - {"github-dispatch", "gitlab-trigger"})
    assert len(destination.received) > 10
    assert {"store", "log"} <= {where.partition(".")[0].replace("relay", "store") for where in seen.texts}
    assert b"***" in seen.texts["relay.db"]
    told = list(untold(seen.texts["log"]))
    assert {line["notifier"] for line in told} == {"mail", "chat", "hook"}
    assert any("***" in line["reason"] for line in told if line["notifier"] == "hook")  # it sends back all it got
    leaks = {where: names for where, text_seen in seen.texts.items() if (names := canary.seen_in(text_seen))}
    assert leaks == {}
    # Of a secret that was cut in two where the answer was, no half is left.
    half = canary.values["default-header"][:12].encode()
    assert [where for where, text_seen in seen.texts.items() if half in text_seen] == []


def untold(log: bytes) -> Iterator[dict[str, Any]]:
    """What people were to be told and were not: each line has what the other side said to that."""
    lines = (json.loads(line) for line in log.splitlines())
    yield from (line for line in lines if line["event"] == "notice_not_sent")


def test_every_key_that_may_hold_a_secret_is_in_that_config(tmp_path: Path) -> None:
    types()
    notifier_types()
    for name in preset.names():
        preset.model(name)
    text = as_text(config(tmp_path, Canaries(), "http://127.0.0.1:1", "http://127.0.0.1:2"))
    assert set(held(load(write_config(tmp_path, text)).config)) == {
        (model, key) for model, key in known() if model.startswith("relay.") and "._" not in model
    }
