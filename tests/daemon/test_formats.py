"""The log as text and as JSON lines: the same as the JSON, a line for each, and no cell breaks a line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

from relay.cli import relay as relay_command
from relay.logtext import COLUMNS
from tests.daemon.test_admin import NEVER_AGAIN, body, relay_and_sink
from tests.harness import Received, Relay

HOSTILE = (
    "two\nlines", "carriage\rreturn", "\x1b[2J\x1b[1;31mred", "\u202egnp.exe", "nul\x00bell\x07", "tab\tbed",
    "\u2028separated\u2029", "<script>alert(1)</script>", "\x9b31m", "\ufeff\u200b\u2066", "x" * 100_000,
)  # fmt: skip
ENTRY = f"name: r, to: {{url: SINK}}, unhealthy_after: 1000, {NEVER_AGAIN}"
PAGED = "status=delivered,failed,unmatched,rejected"


def failing(received: Received) -> web.Response:
    return web.Response(status=500, text="\x1b[31mred\n\u202eturned\r", headers={"X-Odd": "\u202eturned"})


async def asked(running: Relay, path: str) -> tuple[str, str | None, str]:
    """The type, the next cursor and the text of an answer."""
    async with running.session.get(running.admin + path) as response:
        assert response.status == 200, await response.text()
        text = (await response.read()).decode()
        return response.headers["Content-Type"], response.headers.get("X-Next-Cursor"), text


async def hostile(running: Relay) -> list[dict[str, Any]]:
    """The log after events that say what they should not."""
    for text in HOSTILE:
        said = body(event=text, model=text, stage=text, action=text, id=text)
        status, _ = await running.post("/in/any", said, {"Content-Type": "application/json", "X-Note": "é\u202e"})
        assert status == 200
    await running.post("/in/www", b"{}", {"webhook-signature": "0" * 40})
    return await running.logs_when(lambda items: len(items) == len(HOSTILE) + 1, f"?{PAGED}")


def fit_for_a_terminal(text: str) -> bool:
    return text.replace("\n", "").isprintable()


async def verb(running: Relay, *args: str) -> str:
    """What a verb of the command line prints into a pipe."""
    command = [*args, "--url", running.admin]
    ended = await asyncio.to_thread(CliRunner().invoke, relay_command, command, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return str(ended.stdout)


async def test_as_text_each_item_is_one_line_whatever_it_says_and_as_relay_logs_prints_it(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, ENTRY, answer=failing) as (running, _):
        items = await hostile(running)
        media, _, text = await asked(running, f"/logs?{PAGED}&format=text")
        assert media == "text/plain; charset=utf-8"
        assert fit_for_a_terminal(text)
        head, *lines = text.splitlines()
        assert head.split() == [name.upper() for name in COLUMNS]
        assert [line.split()[0] for line in lines] == [item["id"] for item in items]
        assert len(text) < 100_000, "one long cell does not make all lines as long"
        assert text == await verb(running, "logs", "--status", PAGED.partition("=")[2])


async def test_about_one_thing_the_text_is_what_relay_show_prints(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, ENTRY, answer=failing) as (running, _):
        items = await hostile(running)
        for id_text in {item[key] for item in items for key in ("id", "event_id") if item[key]}:
            media, _, text = await asked(running, f"/logs/{id_text}?format=text")
            assert media == "text/plain; charset=utf-8"
            assert fit_for_a_terminal(text)
            assert id_text in text
            assert text == await verb(running, "show", id_text)


@pytest.mark.parametrize("form", ["ndjson", "text"])
async def test_lines_page_by_the_cursor_in_the_header(tmp_path: Path, form: str) -> None:
    async with relay_and_sink(tmp_path, ENTRY, answer=failing) as (running, _):
        items = await hostile(running)
        found, cursor = [], ""
        while True:
            media, following, text = await asked(running, f"/logs?{PAGED}&limit=5&format={form}{cursor}")
            lines = text.split("\n")
            assert lines.pop() == ""
            assert len(lines) <= 5 + (form == "text")
            if form == "ndjson":
                assert media == "application/x-ndjson"
                found += [json.loads(line) for line in lines]
            else:
                found += [{"id": line.split()[0]} for line in lines[1:]]
            if following is None:
                break
            cursor = f"&cursor={following}"
        assert found == (items if form == "ndjson" else [{"id": item["id"]} for item in items])


async def test_an_empty_log_is_a_header_as_text_and_nothing_as_lines(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        assert (await asked(running, "/logs?format=text"))[1:] == (None, "  ".join(map(str.upper, COLUMNS)) + "\n")
        assert await asked(running, "/logs?format=ndjson") == ("application/x-ndjson", None, "")
        _, _, text = await asked(running, "/logs?format=json")
        assert json.loads(text) == {"items": [], "next": None}


async def test_a_format_that_there_is_not_is_a_400(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, "name: r, to: {url: SINK}") as (running, _):
        for path, there in (
            ("/logs?format=xml", "json, text or ndjson"),
            ("/logs?format=", "empty"),
            ("/logs?format=text&format=text", "twice"),
            ("/logs/evt_" + "0" * 26 + "?format=ndjson", "json or text"),
            ("/routes?format=text", "unknown parameter 'format'"),
        ):
            status, answer = await running.ask("GET", path)
            assert (status, answer["error"]) == (400, "bad_filter"), path
            assert there in answer["detail"]
