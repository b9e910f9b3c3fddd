"""Messages as requests: plain JSON, and what chat services want."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from multidict import CIMultiDict
from pydantic import ValidationError

from relay import __version__
from relay.client import HttpTransport, Reply
from relay.delivery import Code, Response
from relay.egress import Egress
from relay.fields import Unresolved
from relay.notifier import Kind, Means, Message, NotSent
from relay.notifiers.webhook import Config, Webhook
from relay.secret import Redactor
from relay.unreachable import Unreachable
from tests.fakes import NOON, ManualClock, ScriptedTransport
from tests.harness import sink

SAID = Message(Kind.DELIVERY_FAILED, "www", "A delivery failed", "It was given up: HTTP 503.\nSee: relay logs", NOON, 3)
PATH = "T0123/B4567/abcdefghijklmnopqrstuvwx"
HOOKS = {
    "slack": f"https://hooks.slack.com/services/{PATH}",
    "discord": "https://discord.com/api/webhooks/1234567/abcdefghijklmnopqrstuvwx",
    "teams": "https://example.logic.azure.com/workflows/0123456789abcdef/invoke?sig=abcdefghijklmnopqrstuvwx",
}
EVIL = (
    "<!channel> <@U123> @everyone @here <https://evil.example|click> *b* _i_ `c` ~s~ ||x|| # h\n> q\n- l\n[a](b) & \\"
)


def config(url: str, **given: Any) -> Config:
    return Config.model_validate({"type": "webhook", "url": url, **given})


def notifier(transport: Any, url: str, **given: Any) -> Webhook:
    built = config(url, **given).build(Means(transport, ManualClock(), Egress.of(()), Redactor(["other-secret"])))
    assert isinstance(built, Webhook)
    return built


async def test_without_a_preset_the_message_is_posted_as_json() -> None:
    async with sink() as there, HttpTransport(Egress.of(())) as transport:
        auth = {"type": "bearer", "token": "geheim-geheim"}
        await notifier(transport, f"{there.url}/told?x=1", headers={"X-Team": "ops"}, auth=auth).send(SAID)
    [seen] = there.received
    assert (seen.method, seen.path) == ("POST", "/told?x=1")
    assert json.loads(seen.body) == {
        "kind": "delivery_failed",
        "subject": "www",
        "title": "A delivery failed",
        "text": "It was given up: HTTP 503.\nSee: relay logs",
        "at": "2026-11-23T12:00:00.000Z",
        "count": 3,
    }
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["User-Agent"] == f"relay/{__version__}"
    assert seen.headers["X-Team"] == "ops"
    assert seen.headers["Authorization"] == "Bearer geheim-geheim"


async def posted(preset: str, text: str, title: str = "Title") -> tuple[str, Any]:
    """Where a preset sends, and what."""
    transport = ScriptedTransport()
    await notifier(transport, HOOKS[preset], preset=preset).send(
        Message(Kind.DELIVERY_FAILED, "www", title, text, NOON)
    )
    [request] = transport.requests
    assert CIMultiDict(request.headers)["Content-Type"] == "application/json"
    return str(request.url), json.loads(request.body)


async def test_slack_shows_a_text_that_neither_calls_nor_formats() -> None:
    url, body = await posted("slack", EVIL)
    assert url == HOOKS["slack"]
    assert body == {
        "text": "Title\n" + EVIL.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
    }


async def test_discord_shows_a_text_that_neither_calls_nor_formats() -> None:
    url, body = await posted("discord", EVIL)
    assert url == HOOKS["discord"]
    assert body["allowed_mentions"] == {"parse": []}
    assert body["flags"] == 4
    lines = body["content"].split("\n")
    assert len(lines) == 5
    assert lines[0] == "Title"
    assert lines[1].startswith("\\<\\!channel\\> \\<\\@U123\\> \\@everyone \\@here")
    assert lines[2:] == ["\\> q", "\\- l", "\\[a\\]\\(b\\) & \\\\"]


async def test_teams_shows_each_line_as_it_is() -> None:
    url, body = await posted("teams", EVIL)
    assert url == HOOKS["teams"]
    [card] = body["attachments"]
    assert card["contentType"] == "application/vnd.microsoft.card.adaptive"
    blocks = card["content"]["body"]
    assert {block["type"] for block in blocks} == {"RichTextBlock"}
    assert [run["text"] for block in blocks for run in block["inlines"]] == ["Title", *EVIL.split("\n")]


@pytest.mark.parametrize("preset", HOOKS)
async def test_a_text_is_never_longer_than_a_service_takes(preset: str) -> None:
    _, body = await posted(preset, "\n".join(["*" * 3000] * 20), "_" * 3000)
    if preset == "discord":
        assert 1900 < len(body["content"]) <= 2000
    assert len(json.dumps(body)) < 28_000


@pytest.mark.parametrize("url", [PATH, f"/{PATH}"])
async def test_the_hook_may_be_what_follows_the_services_address(url: str) -> None:
    transport = ScriptedTransport()
    await notifier(transport, url, preset="slack").send(SAID)
    assert str(transport.requests[0].url) == HOOKS["slack"]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "again"),
    [(301, False), (400, False), (403, False), (404, False), (408, True), (429, True), (500, True), (503, True)],
)
async def test_an_answer_that_is_no_success_is_said(status: int, again: bool) -> None:
    answer = Reply(Response(status, (), b"no_service\n\x1b[31m", truncated=False), None)
    with pytest.raises(NotSent) as raised:
        await notifier(answering(answer), "https://example.com/x").send(SAID)
    assert raised.value.reason == f"HTTP {status}: no_service [31m"
    assert raised.value.again is again


async def test_a_service_that_asks_for_patience_is_heard() -> None:
    answer = Reply(Response(429, (), b"", truncated=False), "30")
    with pytest.raises(NotSent) as raised:
        await notifier(answering(answer), "https://example.com/x").send(SAID)
    assert raised.value.after == timedelta(seconds=30)


def answering(answer: object) -> ScriptedTransport:
    return ScriptedTransport(lambda request: answer)


async def test_no_secret_is_in_a_reason() -> None:
    url = HOOKS["teams"]
    password = "basic-password"
    echo = (
        f"{url} {url[8:]} /workflows/0123456789abcdef/invoke abcdefghijklmnopqrstuvwx {password} other-secret x-key-1"
    )
    for answer in (
        Reply(Response(400, (), echo.encode(), truncated=False), None),
        Reply(Response(400, (), echo.encode()[:70], truncated=True), None),
        Unreachable(Code.PROTOCOL_ERROR, f"the answer is not HTTP: {echo}"),
    ):
        auth = {"type": "basic", "username": "me", "password": password}
        sending = notifier(
            answering(answer),
            url, preset="teams", auth=auth, headers={"X-Api-Key": "x-key-1"},
        )  # fmt: skip
        with pytest.raises(NotSent) as raised:
            await sending.send(SAID)
        for secret in ("abcdefgh", "0123456789abcdef", password, "other-secret", "x-key-1"):
            assert secret not in raised.value.reason


async def test_the_egress_rule_holds() -> None:
    async with sink() as there, HttpTransport(Egress.of(["loopback"])) as transport:
        with pytest.raises(NotSent, match=r"127\.0\.0\.1 is denied by server\.egress \(loopback\)") as raised:
            await notifier(transport, there.url).send(SAID)
    assert not raised.value.again
    assert there.received == []


async def test_a_slow_service_is_given_up() -> None:
    async def slow(request: Any) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async with sink(slow) as there, HttpTransport(Egress.of(())) as transport:
        with pytest.raises(NotSent, match=r"no answer within 0\.2 s") as raised:
            await notifier(transport, there.url, timeout="200ms").send(SAID)
    assert raised.value.again


# -- the config --------------------------------------------------------------------------------------------------------


def test_nothing_of_the_url_is_shown() -> None:
    made = config(HOOKS["teams"], preset="teams")
    assert "0123456789abcdef" not in repr(made)
    assert {"workflows/0123456789abcdef/invoke", "abcdefghijklmnopqrstuvwx"} <= set(made.hidden)
    assert PATH.rpartition("/")[2] in config(HOOKS["slack"]).hidden


@pytest.mark.parametrize(
    ("given", "place", "message"),
    [
        ({"url": "nowhere"}, ("url",), "expected an http:// or https:// URL"),
        (
            {"url": "https://me:you@example.com/"},
            ("url",),
            "a user name or password does not go into the URL: use auth",
        ),
        ({"url": "nowhere://", "preset": "slack"}, ("url",), "expected the hook's URL, or what follows https://hooks"),
        ({"url": 5}, ("url",), "expected a string"),
        ({"preset": "slak"}, ("preset",), "expected discord, slack or teams, got 'slak' (did you mean 'slack'?)"),
        ({"preset": "netlify"}, ("preset",), "expected discord, slack or teams, got 'netlify'"),
        ({"headers": {"host": "x"}}, ("headers", "host"), "'host' is written by relay"),
        (
            {"headers": {"authorization": "x"}, "auth": {"type": "bearer", "token": "t"}},
            ("headers", "authorization"),
            "'authorization' is also written by auth",
        ),
        ({"auth": {"type": "oauth2"}}, ("auth", "type"), "expected basic or bearer, got 'oauth2'"),
        ({"auth": "x"}, ("auth",), "expected a mapping such as {type: bearer"),
        ({"timeout": "2m"}, ("timeout",), "expected at most 60s"),
    ],
)
def test_mistakes_in_the_config_are_said(given: dict[str, Any], place: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        config(**{"url": "https://example.com/x", **given})
    [line] = raised.value.errors()
    assert line["loc"] == place
    assert message in line["msg"]


@pytest.mark.parametrize("preset", [None, "slack", Unresolved("${P}")])
def test_what_was_not_looked_up_is_not_judged(preset: str | None) -> None:
    made = config(Unresolved("${URL}"), **({"preset": preset} if preset is not None else {}))
    assert made.hidden == ()
    assert made.exposed is None


def test_a_url_that_travels_in_the_clear_is_known() -> None:
    assert config("http://example.com/x").exposed == ("url", "example.com")
    assert config("https://example.com/x").exposed is None
