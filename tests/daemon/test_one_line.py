"""One fact is one line, whatever strangers put into it: in the journal, on a terminal, in what verbs print."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import pty
import re
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web

from relay import logline
from tests import several
from tests.cli.running import command, free_ports
from tests.fakes import until
from tests.harness import PATIENCE, Received, sink, write_config

pytestmark = pytest.mark.long

TOP = Path(__file__).parent.parent.parent
# Newlines of all kinds, a line that looks like a fact, cursor and title sequences in 7 and 8 bits, NUL, DEL, bidi
# overrides and isolates, a zero-width joiner, markup.
NASTY = (
    'a\nb\r\n{"event":"forged","level":"info"}\x1b[2J\x1b]0;pwned\x07\x1b[31m\x9b2J\x00\x7f\x08\x85\u2028\u2029'
    "\u202e\u2066\u200f\u200d\ufeff<script>alert(1)</script><img src=x onerror=alert(1)>' OR 1=1 --"
)
LONG = "L" * (1 << 20)
LONGEST_LINE = 48 << 10  # what journald takes for one line
COLOURS = re.compile(r"\x1b\[[0-9;]*m")

FORMS = ["json", "console", "terminal"]


def sane(text: str) -> bool:
    return text.replace("\n", "").isprintable()


class Reading:
    """What a process writes to a terminal or a file."""

    def __init__(self, folder: Path, form: str) -> None:
        self._bytes = bytearray()
        self._path = folder / f"out.{form}"
        if form == "terminal":
            self._master, self.end = pty.openpty()
            self._thread = threading.Thread(target=self._read, daemon=True)
            self._thread.start()
        else:
            self.end = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._form = form

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the last process has closed it
            while data := os.read(self._master, 65536):
                self._bytes += data

    @property
    def raw(self) -> str:
        if self._form != "terminal":
            return self._path.read_text(errors="surrogateescape")
        return (
            bytes(self._bytes).decode("utf-8", "surrogateescape").replace("\r\n", "\n")
        )  # as the line discipline does

    @property
    def text(self) -> str:
        """Without relay's own colours."""
        return COLOURS.sub("", self.raw)

    def close(self) -> None:
        os.close(self.end)
        if self._form == "terminal":
            self._thread.join(PATIENCE)
            os.close(self._master)


@dataclass
class Daemon:
    config: Path
    public: str
    admin: str
    session: aiohttp.ClientSession
    output: Reading

    async def post(self, path: str, said: Any, headers: Any = None) -> int:
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        async with self.session.post(
            self.public + path, data=io.BytesIO(body), headers={"Content-Type": "application/json"} | (headers or {})
        ) as response:
            await response.read()
            return response.status

    async def ask(self, method: str, path: str) -> tuple[int, Any]:
        async with self.session.request(method, self.admin + path) as response:
            return response.status, json.loads(await response.read())

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition, PATIENCE)


@asynccontextmanager
async def daemon(folder: Path, form: str, text: str) -> AsyncIterator[Daemon]:
    """`relay serve`, its standard error a file or a terminal."""
    public, admin = free_ports(2)
    head = (
        f'server: {{listen: "127.0.0.1:{public}", max_body: 8MiB, trusted_proxies: ["127.0.0.1"]}}\n'
        f'admin: {{listen: "127.0.0.1:{admin}"}}\n'
        f"log: {{level: debug, format: {'auto' if form == 'terminal' else form}}}\n"
    )
    config = write_config(folder, head + text)
    output = Reading(folder, form)
    environ = {**os.environ, "PYTHONPATH": str(TOP)}
    process = subprocess.Popen(
        command("serve", "--config", config), stdout=output.end, stderr=output.end, env=environ, cwd=folder
    )
    try:
        async with aiohttp.ClientSession() as session:
            made = Daemon(config, f"http://127.0.0.1:{public}", f"http://127.0.0.1:{admin}", session, output)
            await made.until(lambda: "started" in output.text or process.poll() is not None)
            assert process.poll() is None, output.text
            yield made
        process.terminate()
        assert await asyncio.to_thread(process.wait, PATIENCE) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        output.close()


@asynccontextmanager
async def rude() -> AsyncIterator[str]:
    """A server that answers with what is not HTTP, or with a reason that is not text."""
    answers = itertools.cycle(
        [
            b"\x1b[2J\x1b]0;pwned\x07 not http \xff\xfe\n\r\n\r\n",
            b"HTTP/1.1 500 \xff\xc2\x9b2J\xe2\x80\xaeevil\r\nX-A: \xc2\x9b2J\xff\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 500 " + b"E" * 4000 + b"\r\nContent-Length: 0\r\n\r\n",
        ]
    )

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(next(answers))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def routes(there: str, rude: str) -> str:
    fast = "retry: {policy: fixed, every: 10ms, attempts: 3, jitter: 0}"
    return (
        "defaults: {unhealthy_after: 1000}\n"
        "sources:\n"
        "  any:\n"
        "    type: generic\n"
        "    verify: none\n"
        "    map: {event: body.event, model: body.model, stage: body.stage, action: body.action, entry_id: body.id}\n"
        "  head: {type: generic, verify: none, map: {event: 'headers.\"x-event\"'}}\n"
        "  cms: {type: strapi, verify: none}\n"
        "  locked: {type: generic, token: a-token-that-nobody-knows}\n"
        "routes:\n"
        f"  - {{name: here, to: {{url: '{there}/'}}, retry: none}}\n"
        f"  - {{name: rude, to: {{url: '{rude}/'}}, {fast}}}\n"
        "  - {name: templated, retry: none, to: {url: 'http://127.0.0.1:9/'},\n"
        "     payload: {template: '{{ event.model.no_such_thing.at_all }}'}}\n"
    )


def answer(request: Received) -> web.Response:
    return web.Response(status=422, text=NASTY + LONG, headers={"X-Said": "\x9b2J\u202e"})


def said(text: str) -> dict[str, str]:
    return dict.fromkeys(("event", "model", "stage", "action", "id"), text)


async def everything_nasty(relay: Daemon) -> list[str]:
    """Senders, destinations and callers of the admin side at their worst; the ids of what was made of it."""
    assert await relay.post("/in/any", said(NASTY)) == 200
    assert await relay.post("/in/any", said(LONG)) == 200
    assert await relay.post("/in/any", said("🐐\u202e" * 20_000)) == 200
    assert await relay.post("/in/any", b'{"event":"half \\ud800 pair","model":"\\udfff","id":"\\u0000"}') == 200
    assert await relay.post(f"/in/{quote(NASTY)}", {}) == 404
    forged = {"X-Forwarded-For": "9.9.9.9\x9b2J\u202e", "Authorization": "Bearer \x9b2J\u202e"}
    assert await relay.post("/in/locked", said(NASTY), forged) == 401
    assert await relay.post("/in/cms", NASTY.encode()) == 400
    assert await relay.post("/in/cms", b'{"a":' + LONG.encode()) == 400
    assert await relay.post("/in/any", {}, {"Content-Encoding": "\x9b2J\u202e"}) == 415
    # bytes in a header that are no text
    host, port = relay.public.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /in/head HTTP/1.1\r\nHost: x\r\nX-Event: \xff\xfe \xc2\x9b2J\xe2\x80\xae\r\n")
    writer.write(b"Content-Length: 2\r\nConnection: close\r\n\r\n{}")
    assert b" 200 " in (await reader.read()).splitlines()[0]
    writer.close()
    nasty = quote(NASTY[:150])
    for path, status in (
        (f"/routes/here/pause?reason={nasty}", 200),
        ("/routes/here/resume", 200),
        (f"/routes/{nasty}/pause", 404),
        (f"/logs/{nasty}/retry", 404),
        (f"/logs/retry?entry_id={nasty}", 200),
        (f"/logs/retry?entry_id={'L' * 4000}", 200),
        (f"/{nasty}", 404),
    ):
        assert (await relay.ask("POST", path))[0] == status, path
    pending = "/logs?status=pending&limit=1"
    await several.until(lambda: relay.ask("GET", pending), lambda answer: not answer[1]["items"])
    items: list[dict[str, Any]] = []
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:  # names of a megabyte make short pages
        page = (await relay.ask("GET", "/logs?status=failed&limit=1000" + page["next"]))[1]
        items += page["items"]
        if page["next"] is not None:
            page["next"] = f"&cursor={page['next']}"
    assert len(items) == 15
    rejected = (await relay.ask("GET", "/logs?status=rejected"))[1]["items"]
    assert len(rejected) == 4
    return [item["id"] for item in (*items, *rejected)]


EXPECTED = {
    "event_accepted": 5,
    "request_rejected": 4,
    "manual_refused": 3,
    "manual_action": 4,
}


@pytest.mark.parametrize("form", FORMS)
async def test_one_fact_is_one_line_whatever_strangers_write(tmp_path: Path, form: str) -> None:
    async with sink(answer) as there, rude() as impolite:
        async with daemon(tmp_path, form, routes(there.url, impolite)) as relay:
            await everything_nasty(relay)
            await relay.until(lambda: relay.output.text.count("attempt ") + relay.output.text.count('"attempt"') >= 15)
            output = relay.output
        shown = output.text
    assert sane(shown)
    lines = shown.splitlines()
    assert max(len(line.encode()) for line in lines) < LONGEST_LINE
    if form == "json":
        events = [json.loads(line)["event"] for line in lines]
    else:
        facts = [re.match(r"[-0-9]{10}T[:.0-9]+Z \[(?:debug|info|warning|error) *\] (\w+)", line) for line in lines]
        assert None not in facts
        events = [fact[1] for fact in facts if fact is not None]
    for event, count in EXPECTED.items():
        assert events.count(event) == count, event
    assert "forged" not in events
    assert {"started", "attempt", "stopped"} <= set(events)
    # What was said is there, only escaped: nobody has to guess.
    assert "\\u202e" in shown
    assert "<script>" in shown
    assert "1048576 characters" in shown
    assert "LLL" * 200 not in shown


@pytest.mark.parametrize("on_terminal", [False, True], ids=["pipe", "terminal"])
async def test_verbs_show_what_strangers_wrote_and_obey_none_of_it(tmp_path: Path, on_terminal: bool) -> None:
    async with sink(answer) as there, rude() as impolite:
        async with daemon(tmp_path, "json", routes(there.url, impolite)) as relay:
            ids = await everything_nasty(relay)
            sample = tmp_path / "sample.json"
            sample.write_text(json.dumps({"headers": [["X-Said", "\x9b2J"]], "body": json.dumps(said(NASTY))}))
            verbs: list[list[str]] = [
                ["logs"],
                ["logs", "--status", "rejected"],
                ["logs", "--json"],
                ["explain", "--source", "any", str(sample)],
                *(["show", one] for one in ids[::5]),
                ["show", ids[0], "--json"],
                ["show", NASTY.replace("\0", "")],
                ["logs", "--route", NASTY.replace("\0", "")],
            ]
            for verb in verbs:
                shown = await asyncio.to_thread(run, relay.config, verb, on_terminal)
                assert sane(COLOURS.sub("", shown) if on_terminal else shown), verb
                assert "Traceback" not in shown, verb
                if "--json" not in verb:
                    assert max(map(len, shown.splitlines())) < (12 * (64 << 10) if "show" in verb else 4 * 4096), verb
                if verb == ["logs"]:
                    assert len(shown.splitlines()) < 2 * (len(ids) + 1)


def run(config: Path, verb: list[str], on_terminal: bool) -> str:
    """What a verb prints, to a pipe or a terminal."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    environ |= {"PYTHONPATH": str(TOP), "TERM": "xterm-256color"}
    args = command(verb[0], "--config", config, *verb[1:])
    if not on_terminal:
        ended = subprocess.run(
            args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ, timeout=60, check=False
        )
        return ended.stdout.decode("utf-8", "surrogateescape")
    output = Reading(config.parent, "terminal")
    try:
        process = subprocess.Popen(args, stdin=output.end, stdout=output.end, stderr=output.end, env=environ)
        process.wait(60)
    finally:
        output.close()
    return output.raw


def test_a_traceback_has_lines_of_its_own_and_none_looks_like_a_fact() -> None:
    forged = "ValueError: boom\n2026-11-26T03:52:32Z [info     ] forged\x1b[2J" + "x" * 100_000
    line: dict[str, Any] = {"event": "internal_error", "exception": f"Traceback:\n  in f\n{forged}"}
    shown = logline.for_terminal(logline.bounded(line))["exception"]
    assert sane(shown)
    assert all(each.startswith("    ") for each in shown.split("\n"))
    assert len(shown) < 10_000
    assert len(json.loads(logline.as_json(line))["exception"]) < 10_000


def test_a_line_fits_into_what_journald_takes_for_one() -> None:
    long = "\u202e\U000e0001" * 5_000
    names = [f"route-{n:04}" for n in range(5_000)]
    for line in (
        {**dict.fromkeys(("event_name", "model", "stage", "action", "entry_id"), long), "routes": names},
        {"problems": [f"config.yaml:{n}:1: routes[{n}].to.{long}" for n in range(1_000)]},
        {kind: dict.fromkeys(("added", "removed", "changed"), names) for kind in ("routes", "sources", "notifiers")},
        {"exception": long + "\n" + long, "message": long},
    ):
        written = logline.as_json(logline.bounded({"event": "e", **line}))
        assert len(written) < LONGEST_LINE
        assert json.loads(written)["event"] == "e"
    few = [f"config.yaml:{n}:1: routes[{n}]: what is wrong there, and what was probably meant" for n in range(100)]
    assert logline.bounded({"problems": few})["problems"] == few
    many = logline.bounded({"routes": names})["routes"]
    assert many[-1] == f"… and {5_000 - (len(many) - 1)} more"


def test_json_lines_are_parsed_back_to_what_was_meant() -> None:
    for text in (NASTY, "\ud800", "plain", "grün 🐐", "\x7f", "\u202e"):
        written = logline.as_json({"event": text})
        assert json.loads(written) == {"event": text}
        assert sane(written.decode())
    assert logline.as_json({"a": "grün 🐐"}) == '{"a":"grün 🐐"}'.encode()
