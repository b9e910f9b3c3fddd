"""Attacks on what is guarded: replays, forbidden addresses, the admin side, secrets in the process itself."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

from multidict import CIMultiDict

from relay.config import load
from relay.event import Inbound
from relay.problems import ConfigError
from relay.runtime import build
from tests.faults.peers import FINE, peer
from tests.faults.routes import config as route_config
from tests.faults.test_denied_addresses import DENIED, DENY, URLS
from tests.harness import LISTEN, PATIENCE, RelayProcess, relay_process, write_config
from tests.torture.crashes import end
from tests.torture.row import TOP, Figure, Place, Seen, of_forms
from tests.torture.wire import Answer, exchange, post

_SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"
_REPLAY = f"sources: {{s: {{type: standard, secret: {_SECRET}}}, other: {{type: standard, secret: {_SECRET}}}}}\n"
_REPLAY += "routes: [{name: r, to: {url: 'http://127.0.0.1:9/'}}]\n"  # what no route wanted is no duplicate


async def replays(place: Place) -> Figure:
    """A genuine request of Standard Webhooks, and what somebody who saw it can do with it."""
    path = write_config(place.folder, _REPLAY)
    now = datetime.now(UTC)
    adapter = build(load(path), 1, now).sources["s"].adapter

    def signed(at: datetime, name: str = "msg_1", body: bytes = b'{"type":"a.b"}') -> Inbound:
        return adapter.sign(Inbound(CIMultiDict({"webhook-id": name}), body), at)

    def sent(inbound: Inbound, to: str = "s", more: str = "", body: bytes | None = None) -> bytes:
        headers = [f"{key}: {value}" for key, value in inbound.headers.items() if key.lower() != "host"]
        headers += [more] if more else []
        return post(f"/in/{to}", inbound.body if body is None else body, *headers)

    first = signed(now)
    other_id = CIMultiDict(first.headers)
    other_id["webhook-id"] = "msg_2"
    none = CIMultiDict(first.headers)
    none["webhook-signature"] = "v1,"
    forms: dict[str, tuple[bytes, int, bool | None]] = {
        "a genuine request": (sent(first), 200, False),
        "the same again": (sent(first), 200, True),
        "the same with a header more": (sent(first, more="X-More: 1"), 200, True),
        "the same to another source with this secret": (sent(first, "other"), 200, False),
        "with another body": (sent(first, body=b'{"type":"a.c"}'), 401, None),
        "with another message id": (sent(Inbound(other_id, first.body)), 401, None),
        "with the signature twice": (sent(first, more="webhook-signature: v1,x"), 401, None),
        "with the id twice": (sent(first, more="webhook-id: msg_1"), 401, None),
        "with an empty signature": (sent(Inbound(none, first.body)), 401, None),
        "signed 310 s ago": (sent(signed(now - timedelta(seconds=310), "msg_3")), 401, None),
        "signed 270 s ago": (sent(signed(now - timedelta(seconds=270), "msg_4")), 200, False),
        "signed 320 s ahead": (sent(signed(now + timedelta(seconds=320), "msg_5")), 401, None),
    }
    seen = []
    relay = RelayProcess(path)
    try:
        await relay.start()
        for form, (data, status, duplicate) in forms.items():
            seen.append(_replayed(form, await exchange(relay.public, data), status, duplicate))
        relay.kill()
        await relay.start()
        again = await exchange(relay.public, sent(first))
        seen.append(_replayed("the same again after kill -9 and a start", again, 200, True))
    finally:
        end(relay)
    return of_forms(seen)


def _replayed(form: str, answer: Answer, status: int, duplicate: bool | None) -> Seen:
    said = json.loads(answer.raw.rpartition(b"\r\n\r\n")[2]).get("duplicate")
    told = str(answer) + {True: ", a duplicate", False: ", a new event", None: ""}[said]
    return Seen(form, told, answer.statuses == (status,) and said is duplicate)


async def addresses(place: Place) -> Figure:
    """Every spelling of a denied address, as a route's URL; somebody listens on this machine and counts."""
    seen = []
    hosts = [host for host in DENIED if not host.endswith(".test")]
    async with peer(FINE) as target:
        routes = [
            f"name: r{number}, to: {{url: 'http://{host}:{target.port}/'}}, retry: none"
            for number, host in enumerate(hosts)
        ]
        async with relay_process(place.folder, route_config(*routes, server=DENY)) as relay:
            await exchange(relay.public, post("/in/any", b"{}"))
            items = await _failed(relay, len(hosts))
        for number, host in enumerate(hosts):
            error = items[f"r{number}"]["error"]
            rule = error["message"].rpartition("(")[2].rstrip(")")
            seen.append(Seen(f"http://{host}/", f"{error['code']} ({rule})", error["code"] == "blocked_address"))
        connections = target.connections
    for what, url in URLS.items():
        place_for = place.folder / "url"
        place_for.mkdir(exist_ok=True)
        try:
            load(write_config(place_for, route_config(f"name: r, to: {{url: '{url}'}}")))
            seen.append(Seen(f"{what}: {url}", "taken", False))
        except ConfigError as error:
            seen.append(Seen(f"{what}: {url}", f"config error: {error.problems[0].message.partition(chr(10))[0][:80]}"))
    return of_forms(seen, f"{connections} connections to this machine", passed=connections == 0)


async def _failed(relay: RelayProcess, count: int) -> dict[str, dict[str, dict[str, str]]]:
    request = b"GET /logs?status=failed&limit=1000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await exchange(relay.admin, request)
            items = json.loads(answer.raw.partition(b"\r\n\r\n")[2])["items"]
            if len(items) == count:
                return {item["route"]: item for item in items}
            await asyncio.sleep(0.05)


_OPERATE = "operator-token-0123456789"
_READ = "reader-token-0123456789abc"
_ADMIN = f"""
server: {{listen: "127.0.0.1:0"}}
admin: {{listen: "127.0.0.1:0", token: {_OPERATE}, tokens: {{ci: {{token: {_READ}, scope: read}}}}}}
sources: {{open: {{type: generic, verify: none}}}}
routes: [{{name: r, to: {{url: "http://127.0.0.1:9/"}}}}]
"""
_OPEN = _ADMIN.replace(f", token: {_OPERATE}, tokens: {{ci: {{token: {_READ}, scope: read}}}}", "")
_BEARER = f"Authorization: Bearer {_OPERATE}"
_BASIC = "Authorization: Basic " + b64encode(f"x:{_OPERATE}".encode()).decode()


def _asked(method: str, path: str, *headers: str, body: str = "", host: str = "localhost") -> bytes:
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, *headers, "", body]).encode()


_ACT = "/routes/r/pause"
_FORM = "Content-Type: application/x-www-form-urlencoded"
_FORGED = {
    "a POST from another site, with the browser's basic auth": (
        _asked("POST", _ACT, _BASIC, "Origin: http://evil.test"),
        403,
    ),
    "the same, saying so itself": (_asked("POST", _ACT, _BASIC, "Sec-Fetch-Site: cross-site"), 403),
    "from a sibling site": (_asked("POST", _ACT, _BASIC, "Sec-Fetch-Site: same-site"), 403),
    "with Origin: null": (_asked("POST", _ACT, _BASIC, "Origin: null"), 403),
    "with an Origin that begins like ours": (_asked("POST", _ACT, _BASIC, "Origin: http://localhost.evil.test"), 403),
    "from another port of this host": (_asked("POST", _ACT, _BASIC, "Origin: http://localhost:1"), 403),
    "a form": (_asked("POST", _ACT, _BASIC, _FORM, "Origin: http://evil.test", body="reason=x"), 403),
    "JSON as text/plain": (
        _asked("POST", _ACT, _BASIC, "Content-Type: text/plain", "Origin: http://evil.test", body="{}"),
        403,
    ),
    "with a bearer token": (_asked("POST", _ACT, _BEARER, "Origin: http://evil.test"), 403),
    "a picture from another site": (
        _asked("GET", "/logs", _BASIC, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"),
        403,
    ),
    "GET for what changes something": (_asked("GET", _ACT, _BEARER), 405),
    "GET with X-HTTP-Method-Override": (_asked("GET", _ACT, _BEARER, "X-HTTP-Method-Override: POST"), 405),
    "GET with _method": (_asked("GET", f"{_ACT}?_method=POST", _BEARER), 405),
    "the preflight of another site": (
        _asked("OPTIONS", _ACT, "Origin: http://evil.test", "Access-Control-Request-Method: POST"),
        401,
    ),
    "a cookie for a token": (_asked("POST", _ACT, f"Cookie: token={_OPERATE}"), 401),
    "the token in the query": (_asked("POST", f"{_ACT}?token={_OPERATE}"), 401),
    "a token that may only read": (_asked("POST", _ACT, f"Authorization: Bearer {_READ}"), 403),
    "our own page": (_asked("POST", _ACT, _BASIC, "Origin: http://localhost", "Sec-Fetch-Site: same-origin"), 200),
}
_STRANGERS = {
    "no token": (_asked("GET", "/logs"), 401),
    "an empty bearer token": (_asked("GET", "/logs", "Authorization: Bearer "), 401),
    "half of a token": (_asked("GET", "/logs", f"Authorization: Bearer {_OPERATE[:12]}"), 401),
    "a token with more behind it": (_asked("GET", "/logs", f"{_BEARER}x"), 401),
    "a token in capitals": (_asked("GET", "/logs", f"Authorization: Bearer {_OPERATE.upper()}"), 401),
    "other bytes than ASCII": (_asked("GET", "/logs", "Authorization: Bearer \u00e4\u00f6"), 401),
    "basic auth that is not base64": (_asked("GET", "/logs", "Authorization: Basic ~~~"), 401),
    "basic auth without a colon": (_asked("GET", "/logs", "Authorization: Basic eHg="), 401),
    "the token as a user name": (
        _asked("GET", "/logs", "Authorization: Basic " + b64encode(f"{_OPERATE}:".encode()).decode()),
        401,
    ),
    "Digest": (_asked("GET", "/logs", "Authorization: Digest x"), 401),
    "no token, for /metrics": (_asked("GET", "/metrics"), 401),
    "no token, for the dashboard": (_asked("GET", "/"), 401),
    "no token, for the stream": (_asked("GET", "/logs/stream"), 401),
    "no token, for /config": (_asked("GET", "/config"), 401),
    "no token, behind an X-Forwarded-For": (_asked("GET", "/logs", "X-Forwarded-For: 127.0.0.1"), 401),
    "no token, for /health/live": (_asked("GET", "/health/live"), 200),
    "the token": (_asked("GET", "/logs", _BEARER), 200),
}
_REBOUND = {
    "a name that was bound to this address anew": ("evil.test", 421),
    "the same with a port": ("evil.test:8081", 421),
    "a name that begins like localhost": ("localhost.evil.test", 421),
    "a name that ends like it": ("evil-localhost", 421),
    "an address of the network": ("192.168.0.1", 421),
    "0.0.0.0": ("0.0.0.0", 421),
    "localhost": ("localhost:1", 200),
    "another address of this machine": ("127.0.0.2", 200),
    "[::1]": ("[::1]:8081", 200),
}


async def forgeries(place: Place) -> Figure:
    """What another site's page can have a browser send."""
    return of_forms(await _told(place.folder, _ADMIN, _FORGED))


async def strangers(place: Place) -> Figure:
    """Who has no token, names that were bound anew, and configs that would let the world in."""
    closed, loose = place.folder / "closed", place.folder / "open"
    closed.mkdir()
    loose.mkdir()
    seen = await _told(closed, _ADMIN, _STRANGERS)
    rebound = {
        f"without tokens, Host: {what}": (_asked("GET", "/logs", host=host), status)
        for what, (host, status) in _REBOUND.items()
    }
    seen += await _told(loose, _OPEN, rebound)
    for address in ("0.0.0.0:0", "'[::]:0'", "192.0.2.1:8081"):
        folder = place.folder / f"exposed-{len(seen)}"
        folder.mkdir()
        text = f"server: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: {address!r}}}\n".replace("\"'", "'").replace(
            "'\"", "'"
        )
        path = write_config(folder, text + "sources: {}\n")
        command = [sys.executable, "-m", "relay", "serve", "--config", str(path)]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False, cwd=TOP
        )
        said = done.stderr.strip().splitlines()[-1].replace(f"{path}:", "")[:120] if done.stderr.strip() else ""
        held = done.returncode == 78 and "token" in done.stderr
        seen.append(Seen(f"a start with admin.listen {address} and no token", f"exit {done.returncode}: {said}", held))
    return of_forms(seen)


async def _told(folder: Path, text: str, table: dict[str, tuple[bytes, int]]) -> list[Seen]:
    seen = []
    async with relay_process(folder, text) as relay:
        for form, (data, status) in table.items():
            answer = await exchange(relay.admin, data)
            held = answer.statuses == (status,) and b"Access-Control-Allow" not in answer.raw
            seen.append(Seen(form, str(answer).partition(",")[0], held))
    return seen


async def process(place: Place) -> Figure:
    """What the process itself shows of a secret, to who may look at it, and to who may not."""
    canary = "canary-6f1e9b0c2d7a4835"
    (place.folder / "secret").write_text(canary)
    text = f"{LISTEN}sources: {{s: {{type: generic, token: '${{file:{place.folder / 'secret'}}}'}}}}\n"
    seen = []
    async with relay_process(place.folder, text, prefix=["prlimit", "--core=unlimited"]) as relay:
        assert relay.process is not None
        proof = f"Authorization: Bearer {canary}"
        taken = await exchange(relay.public, post("/in/s", b"{}", proof))
        wrong = await exchange(relay.public, post("/in/s", b"{}", f"{proof}x"))
        proc = Path(f"/proc/{relay.process.pid}")
        [core] = [line.split() for line in (proc / "limits").read_text().splitlines() if "core file" in line]
        seen.append(Seen("core dumps", f"limit {core[4]}", core[4] == "0"))
        config = (await exchange(relay.admin, _asked("GET", "/config"))).raw
        shown = {
            "/proc/PID/cmdline": (proc / "cmdline").read_bytes(),
            "/proc/PID/environ": (proc / "environ").read_bytes(),
            "the answer to a wrong proof": wrong.raw,
            "/config": config,
            "/metrics": (await exchange(relay.admin, _asked("GET", "/metrics"))).raw,
            "/logs?status=rejected": (await exchange(relay.admin, _asked("GET", "/logs?status=rejected"))).raw,
        }
        copy = place.folder / "copy.db"
        command = [sys.executable, "-m", "relay", "db", "backup", str(copy), "--config", str(relay.config)]
        await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True, cwd=TOP, timeout=60)
        shown["a backup"] = copy.read_bytes()
        mode = copy.stat().st_mode & 0o777
        await relay.stop()
        shown["the log"] = relay.log.read_bytes()
        shown["the store"] = (place.folder / "relay.db").read_bytes()
    forms = [canary.encode(), b64encode(canary.encode())[:-4], canary.encode().hex().encode()]
    for where, raw in shown.items():
        found = any(form in raw for form in forms)
        seen.append(Seen(where, "the secret" if found else f"{len(raw):,} bytes without the secret", not found))
    seen.append(Seen("who may read a backup", f"mode {mode:03o}", mode & 0o077 == 0))
    return of_forms(seen, passed=taken.statuses == (200,) and wrong.statuses == (401,))
