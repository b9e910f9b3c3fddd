"""The dashboard's pages over real HTTP: what they show, to whom, and that nothing of a stranger's runs in them."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import pytest_asyncio
from aiohttp import web
from yarl import URL

from relay.store import Unavailable
from relay.web import logquery
from tests.daemon.test_admin import LATER, NEVER_AGAIN, OPERATE, READ, TOKENS, bearer, body, relay_and_sink
from tests.fakes import ManualClock
from tests.harness import LISTEN, PATIENCE, Answer, Relay, relay_here, sink

LARGEST = 400_000
VOID = {"meta", "link", "input", "br", "use", "path", "circle", "rect", "line"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "Sec-Fetch-Mode": "navigate"}
ROUTES = (
    "name: good, description: All is well here, match: {action: publish}, to: {url: SINK/good}",
    f"name: bad, match: {{action: [publish, delete]}}, to: {{url: SINK/bad}}, {NEVER_AGAIN}",
    "name: slow, match: {any: [{action: collect}, {model: page, stage: live}], where: 'body.id'},"
    " to: {url: SINK/slow}, debounce: {wait: 1h, max_wait: 2h}",
)


class Page(HTMLParser):
    """A page, taken apart; it fails on markup that browsers would have to mend."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of <{tag}> is given twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.said += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def actions(self) -> list[str]:
        """Where its buttons post to."""
        return [form["action"] or "" for form in self.all("form") if form.get("method") == "post"]


def sound(text: str, headers: Mapping[str, str]) -> Page:
    """A page that keeps our own rules: well-formed, bounded, nothing inline, every reference ours."""
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["Cache-Control"] == "no-store"
    assert len(text.encode()) < LARGEST
    assert text.isascii() or not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    page = Page(text)
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.tags:
        assert not any(name == "style" or name.startswith("on") for name in attrs), (tag, attrs)
        for name in ("href", "src", "action"):
            assert re.match(r"/(?!/)|#", attrs.get(name) or "/"), (tag, attrs)
        assert tag != "style"
        assert tag != "script" or (attrs.get("src") or "").startswith("/ui/static/")
        if tag in ("input", "select") and attrs.get("type") != "checkbox":
            assert attrs["id"] in {label.get("for") for label in page.all("label")}, attrs
    return page


async def browse(running: Relay, path: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Page:
    """A page as a browser gets it."""
    async with running.session.get(running.admin + path, headers={**BROWSER, **(headers or {})}) as response:
        text = await response.text()
        assert response.status == status, text[-2000:]
        return sound(text, response.headers)


async def press(
    running: Relay,
    path: str,
    came_from: str = "/",
    data: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Mapping[str, str], str]:
    """A form that a browser sends."""
    said = {**BROWSER, "Origin": running.admin, "Sec-Fetch-Site": "same-origin", "Referer": running.admin + came_from}
    options: dict[str, Any] = {"headers": {**said, **(headers or {})}, "data": data or {}, "allow_redirects": False}
    async with running.session.post(running.admin + path, **options) as response:
        return response.status, response.headers, await response.text()


async def follow(running: Relay, answer: tuple[int, Mapping[str, str], str]) -> tuple[str, Page]:
    """Where a pressed button led."""
    status, headers, text = answer
    assert status == 303, text[-1500:]
    return headers["Location"], await browse(running, headers["Location"])


def answers(mood: dict[str, int]) -> Any:
    return lambda received: mood.get(received.path, 200)


async def everything(running: Relay) -> dict[str, str]:
    """Events of every fate; gives an id of each."""
    await running.post("/in/any", body(event="post.publish", action="publish", model="post", id="7", stage="live"))
    await running.post("/in/any", body(action="collect", model="page", id="8"))
    await running.post("/in/any", body(action="collect", model="page", id="9"))
    await running.post("/in/any", body(action="publish", model="post", id="7", stage="live", more="x"))
    _, nobody = await running.post("/in/any", body(action="ignore", model="post", id="10"))
    await running.post("/in/www", b"{}")
    items = await running.logs_when(
        lambda found: len(found) == 8 and all(item["status"] != "pending" or item["route"] == "slow" for item in found),
        "?status=delivered,failed,pending,merged,unmatched,rejected",
    )
    events = {f"{item['status']} event": item["event_id"] for item in items}
    return events | {item["status"]: item["id"] for item in items} | {"nobody": nobody["id"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Relay]:
    """A relay for tests that change nothing."""
    async with relay_and_sink(tmp_path_factory.mktemp("shared"), *ROUTES) as (running, _):
        yield running


# -- what pages show -------------------------------------------------------------------------------------------------


async def test_every_page_is_sound_with_nothing_in_the_store(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        assert "No deliveries yet." in (await browse(running, "/")).said
        assert "No events yet." in (await browse(running, "/ui/logs")).said
        assert "Which entry?" in (await browse(running, "/ui/entries")).said
        assert "Nothing is known of this entry." in (await browse(running, "/ui/entries?entry_id=7")).said
        assert "No window is open." in (await browse(running, "/ui/windows")).said
        assert "All is well here" in (await browse(running, "/ui/routes/good")).said
        assert "0 failed" in (await browse(running, "/ui/retry")).said


async def test_every_page_is_sound_with_every_kind_of_data(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES, answer=answers({"/bad": 500})) as (running, _):
        ids = await everything(running)
        await running.ask("POST", "/routes/bad/pause?reason=a+freeze")
        overview = await browse(running, "/")
        for word in ("good", "bad", "slow", "a freeze", "any", "www", "2 failed", "post", "unmatched", "rejected"):
            assert word in overview.said, word
        log = await browse(running, "/ui/logs")
        for word in ("delivered", "failed", "merged", "unmatched", "no route wanted it", "refused request"):
            assert word in log.said, word
        for status in ("delivered", "failed", "pending", "merged"):
            page = await browse(running, f"/ui/logs/{ids[status]}")
            assert status in page.said
        for path in (
            f"/ui/logs/{ids['delivered event']}",
            f"/ui/logs/{ids['rejected']}",
            "/ui/windows",
            "/ui/routes/bad",
        ):
            await browse(running, path)


async def test_a_delivery_shows_its_attempts_request_answer_and_body(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES, answer=answers({"/bad": 500})) as (running, _):
        ids = await everything(running)
        page = await browse(running, f"/ui/logs/{ids['failed']}")
        for text in ("Attempt 1", "HTTP 500", "/bad", "webhook-id", "Content-Type", '"post"', "Show raw", "initial"):
            assert text in page.said, text
        assert f"/logs/{ids['failed']}/retry" in page.actions
        raw = f"{running.admin}/ui/logs/{ids['failed']}/raw"
        async with running.session.get(raw) as response:
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert "sandbox" in response.headers["Content-Security-Policy"]
            assert json.loads(await response.text())["action"] == "publish"


async def test_what_a_filter_made_of_a_body_that_is_gone_is_left_open(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        _, answer = await running.post("/in/any", body(id="1", action="collect"))
        [item] = (await running.get("/logs"))["items"]
        await running.ask("POST", f"/logs/{item['id']}/cancel")
        assert (await running.ask("POST", f"/events/{answer['id']}/forget"))[0] == 200
        page = await browse(running, f"/ui/logs/{answer['id']}")
        said = " ".join(page.said.split())
        assert "unknown: where asks for body.id the body is no longer kept" in said


async def test_why_an_event_went_nowhere_is_told_clause_by_clause(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        ids = await everything(running)
        page = await browse(running, f"/ui/logs/{ids['nobody']}")
        said = " ".join(page.said.split())
        assert "Nowhere: no route wanted it." in said
        assert "good does not take it" in said
        assert "no: action saw ignore wants publish" in said
        assert "either" in said
        assert "asks for body.id" in said


async def test_an_entry_shows_where_each_of_its_events_went(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES, answer=answers({"/bad": 500})) as (running, _):
        await everything(running)
        page = await browse(running, "/ui/entries?entry_id=7")
        said = " ".join(page.said.split())
        assert "Not everywhere" in said
        assert re.search(r"delivered good \S+ \(200\)", said)
        assert "failed bad HTTP 500 after 1 attempt" in said
        assert "It is on its way" in " ".join((await browse(running, "/ui/entries?entry_id=8")).said.split())
        assert "No route wanted it" in (await browse(running, "/ui/entries?entry_id=10")).said
        assert "Nothing is known" in (await browse(running, "/ui/entries?entry_id=7&model=page")).said
        await browse(running, "/ui/entries?entry=7", 400)


async def test_an_entry_that_arrived_everywhere_is_told_with_a_yes(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        await everything(running)
        await running.logs_when(lambda items: len(items) == 4, "?status=delivered")
        assert "Yes, it went out" in (await browse(running, "/ui/entries?entry_id=7")).said


async def test_a_merged_delivery_is_told_by_what_became_of_its_carrier(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        ids = await everything(running)
        carrier = (await running.get(f"/logs/{ids['merged']}"))["delivery"]["merged_into"]
        await running.ask("POST", f"/windows/{carrier}/flush")
        await running.logs_when(lambda items: any(item["id"] == carrier for item in items), "?status=delivered")
        said = " ".join((await browse(running, "/ui/entries?entry_id=9")).said.split())
        assert "Yes, it went out" in said
        assert "together with others" in said


async def test_what_is_merged_is_said_to_be_sent_only_once_it_was(tmp_path: Path) -> None:
    mood: dict[str, int] = {}
    async with relay_and_sink(tmp_path, f"{ROUTES[2]}, {NEVER_AGAIN}", answer=answers(mood)) as (running, _):

        async def merged() -> tuple[str, str]:
            """A delivery that is merged, and its carrier."""
            for number in ("8", "9"):
                await running.post("/in/any", body(action="collect", model="page", id=number))
            [item, *_] = await running.logs_when(lambda found: found and found[0]["merged_into"], "?status=merged")
            return item["id"], item["merged_into"]

        async def told_of(delivery: str, carrier: str, words: str) -> None:
            said = " ".join((await browse(running, f"/ui/logs/{delivery}")).said.split())
            assert f"None of its own: {words} {carrier[:18]}" in said
            for path in ("/ui/logs", f"/ui/logs/{delivery}", "/ui/routes/slow"):
                assert "sent with" not in (await browse(running, path)).said.replace("it was sent with", ""), path

        async def ended(carrier: str, status: str) -> None:
            await running.logs_when(
                lambda found: [item for item in found if item["id"] == carrier], f"?status={status}"
            )

        delivery, carrier = await merged()
        await told_of(delivery, carrier, "it goes out with")
        await running.ask("POST", f"/windows/{carrier}/hold")
        await told_of(delivery, carrier, "it is held with")
        await running.ask("POST", f"/windows/{carrier}/cancel")
        await told_of(delivery, carrier, "it was cancelled with")
        assert "merged into another one" in (await browse(running, "/ui/logs")).said
        text = await running.session.get(f"{running.admin}/logs/{carrier}?format=text")
        shown = await text.text()
        assert "  carries  evt_" in shown
        assert "none yet" not in shown
        assert "None yet" not in (await browse(running, f"/ui/logs/{carrier}")).said
        for status, words in (("delivered", "it was sent with"), ("failed", "it failed with")):
            delivery, carrier = await merged()
            mood["/slow"] = 200 if status == "delivered" else 500
            await running.ask("POST", f"/windows/{carrier}/flush")
            await ended(carrier, status)
            await told_of(delivery, carrier, words)


# -- did it go out ---------------------------------------------------------------------------------------------------

NEWSROOM = """
sources:
  news:
    type: generic
    verify: none
    dedup: off
    map: {model: body.model, action: body.action, entry_id: body.id, locale: body.locale, environment: body.env}
  blog: {type: generic, verify: none, dedup: off, map: {model: body.model, action: body.action, entry_id: body.id}}
  several: {type: prismic, secret: a-secret-of-prismic}
routes:
"""
PUBLISHES = f"name: www, match: {{action: [publish, delete, change]}}, to: {{url: SINK/www}}, {NEVER_AGAIN}"
DRAFTS = "name: drafts, match: {action: update}, to: {url: SINK/drafts}"


@asynccontextmanager
async def newsroom(folder: Path, *entries: str, answer: Answer = lambda request: 200) -> AsyncIterator[Relay]:
    """A relay whose senders say locales and environments too."""
    async with sink(answer) as there:
        text = LISTEN + NEWSROOM + "".join(f"  - {{{entry.replace('SINK', there.url)}}}\n" for entry in entries)
        async with relay_here(folder, text) as running:
            yield running


async def told(running: Relay, action: str, ends: str | None = "delivered", source: str = "news", **more: str) -> str:
    """An event of entry 7, once all that is owed for it is as it should be."""
    said = {"model": "article", "id": "7", **more}
    _, answer = await running.post(f"/in/{source}", body(action=action, **said))
    if ends is not None:
        await running.logs_when(
            lambda items: items and all(item["status"] == ends for item in items),
            f"?event_id={answer['id']}&status={','.join(logquery.STATUSES)}",
        )
    return str(answer["id"])


async def answer_for(running: Relay, more: str = "") -> tuple[str, str]:
    """The headline, and the whole page."""
    async with running.session.get(f"{running.admin}/ui/entries?entry_id=7{more}", headers=BROWSER) as response:
        text = await response.text()
    said = " ".join(sound(text, response.headers).said.split())
    headline = re.search(r'id="verdict".*?<strong>(.*?)</strong>', text, re.DOTALL)
    return headline[1] if headline else "", said


async def test_a_draft_that_is_saved_later_hides_no_failed_publish(tmp_path: Path) -> None:
    async with newsroom(tmp_path, PUBLISHES, DRAFTS, answer=answers({"/www": 500})) as running:
        await told(running, "publish", "failed")
        await told(running, "update")
        await told(running, "workflow", "unmatched")
        headline, said = await answer_for(running)
        assert headline == "No, it did not go out"
        assert "The last publish: publish article" in said
        assert "update article" in said


async def test_a_draft_that_failed_later_does_not_undo_a_publish(tmp_path: Path) -> None:
    async with newsroom(tmp_path, PUBLISHES, DRAFTS + ", retry: none", answer=answers({"/drafts": 500})) as running:
        await told(running, "publish")
        await told(running, "update", "failed")
        await told(running, "test", "unmatched")
        assert (await answer_for(running))[0] == "Yes, it went out"


async def test_hundreds_of_drafts_do_not_hide_a_publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.web.dashboard.entry._MOST", 3)
    async with newsroom(tmp_path, PUBLISHES, DRAFTS, answer=answers({"/www": 500})) as running:
        await told(running, "publish", "failed")
        for _ in range(4):
            await told(running, "update")
        assert (await answer_for(running))[0] == "No, it did not go out"


@pytest.mark.parametrize(
    "other",
    [{"model": "page"}, {"locale": "fr"}, {"env": "staging"}, {"source": "blog"}],
    ids=lambda other: next(iter(other)),
)
async def test_what_is_something_else_with_the_same_id_has_an_answer_of_its_own(
    tmp_path: Path, other: dict[str, str]
) -> None:
    mood = {"/www": 500}
    async with newsroom(tmp_path, PUBLISHES, answer=answers(mood)) as running:
        await told(running, "publish", "failed", locale="en", env="live")
        mood.clear()
        await told(running, "publish", **({"locale": "en", "env": "live"} | other))
        headline, said = await answer_for(running)
        assert headline == "No, it did not go out"
        [name] = other
        name = {"env": "environment"}.get(name, name)
        value = {"model": "article", "locale": "en", "environment": "live", "source": "news"}[name]
        assert f"No, it did not go out: {name} {value}" in said or f"No, it did not go out: source {value}" in said
        assert "Yes, it went out:" in said
        assert said.index("No, it did not go out:") < said.index("Yes, it went out:")
        assert "news · live · en" in said


async def test_of_many_answers_the_worst_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.web.dashboard.entry._MOST_VERDICTS", 2)
    mood = {"/www": 500}
    async with newsroom(tmp_path, PUBLISHES, answer=answers(mood)) as running:
        await told(running, "publish", "failed", locale="en")
        mood.clear()
        for locale in ("fr", "de", "it"):
            await told(running, "publish", locale=locale)
        headline, said = await answer_for(running)
        assert headline == "No, it did not go out"
        assert "No, it did not go out: locale en" in said
        assert "and 2 more that stand no worse" in said


async def test_a_delete_is_what_counts_after_a_publish(tmp_path: Path) -> None:
    mood: dict[str, int] = {}
    async with newsroom(tmp_path, PUBLISHES, answer=answers(mood)) as running:
        await told(running, "publish")
        mood["/www"] = 500
        await told(running, "delete", "failed")
        headline, said = await answer_for(running)
        assert headline == "No, it did not go out"
        assert "The last delete" in said


async def test_the_last_change_of_any_kind_counts_where_nothing_was_published(tmp_path: Path) -> None:
    async with newsroom(tmp_path, PUBLISHES, DRAFTS) as running:
        await told(running, "workflow", "unmatched")
        assert (await answer_for(running))[0] == "No route wanted it"
        await told(running, "update")
        headline, said = await answer_for(running)
        assert headline == "Yes, it went out"
        assert "The last change: update article" in said
        # Nobody wants the draft of a page: that says nothing of the article.
        await told(running, "publish")
        await told(running, "workflow", "unmatched", model="page")
        assert (await answer_for(running))[0] == "Yes, it went out"


async def test_an_entry_that_was_only_tested_has_no_answer(tmp_path: Path) -> None:
    async with newsroom(tmp_path, PUBLISHES) as running:
        await told(running, "test", "unmatched")
        headline, said = await answer_for(running)
        assert headline == ""
        assert "What happened" in said


async def test_a_publish_that_no_route_wanted_went_nowhere_until_it_is_replayed(tmp_path: Path) -> None:
    quiet = "name: www, match: {action: never}, to: {url: SINK/www}"
    async with newsroom(tmp_path, quiet, DRAFTS) as running:
        event = await told(running, "publish", "unmatched")
        await told(running, "update")
        assert (await answer_for(running))[0] == "No route wanted it"
        assert running.running is not None
        config = Path(running.running.reloader.path)
        config.write_text(config.read_text().replace("action: never", "action: publish"))
        assert (await running.ask("POST", "/reload"))[0] == 200
        assert (await running.ask("POST", f"/events/{event}/replay?route=www"))[0] == 200
        await running.logs_when(lambda items: items and items[0]["status"] == "delivered", f"?event_id={event}")
        assert (await answer_for(running))[0] == "Yes, it went out"


async def test_of_a_replay_the_new_delivery_counts_and_one_that_was_cancelled_undoes_nothing(tmp_path: Path) -> None:
    mood = {"/www": 500}
    async with newsroom(tmp_path, PUBLISHES, answer=answers(mood)) as running:
        event = await told(running, "publish", "failed")
        mood.clear()
        await running.ask("POST", f"/events/{event}/replay")
        await running.logs_when(lambda items: items[0]["status"] == "delivered", f"?event_id={event}")
        assert (await answer_for(running))[0] == "Yes, it went out"
        await running.ask("POST", "/routes/www/pause")
        await running.ask("POST", f"/events/{event}/replay")
        [item, *_] = await running.logs_when(lambda items: items[0]["status"] == "held", f"?event_id={event}")
        assert (await answer_for(running))[0] == "It is held back"
        await running.ask("POST", f"/logs/{item['id']}/cancel")
        assert (await answer_for(running))[0] == "Yes, it went out"


async def test_an_event_of_several_changes_counts_by_what_it_says_of_the_entry(tmp_path: Path) -> None:
    mood: dict[str, int] = {}
    async with newsroom(tmp_path, f"name: all, to: {{url: SINK/www}}, {NEVER_AGAIN}", answer=answers(mood)) as running:

        async def changed(ends: str, **said: Any) -> None:
            text = json.dumps({"type": "api-update", "secret": "a-secret-of-prismic", **said}).encode()
            _, answer = await running.post("/in/several", text)
            await running.logs_when(lambda items: items and items[0]["status"] == ends, f"?event_id={answer['id']}")

        await changed("delivered", documents=["7"])
        mood["/www"] = 500
        await changed("failed", documents=["7", "8"], tags={"addition": [{"id": "autumn"}]})
        headline, said = await answer_for(running)
        assert headline == "No, it did not go out"
        assert "The last change" in said
        assert "No, it did not go out:" not in said  # there is one answer


async def test_a_publish_that_was_cancelled_did_not_go_out(tmp_path: Path) -> None:
    async with newsroom(tmp_path, PUBLISHES) as running:
        await running.ask("POST", "/routes/www/pause")
        event = await told(running, "publish", "held")
        [item] = (await running.get(f"/logs?event_id={event}"))["items"]
        await running.ask("POST", f"/logs/{item['id']}/cancel")
        assert (await answer_for(running))[0] == "No, it was cancelled"


async def test_the_entries_that_changed_last_are_listed_for_who_knows_no_id(tmp_path: Path) -> None:
    async with newsroom(tmp_path, PUBLISHES, DRAFTS) as running:
        await told(running, "publish")
        await told(running, "update")
        await told(running, "update", id="8", model="page")
        await told(running, "test", "unmatched", id="9")
        page = await browse(running, "/ui/entries")
        listed = [link["href"] for link in page.all("a") if (link.get("href") or "").startswith("/ui/entries?")]
        assert listed == ["/ui/entries?entry_id=8", "/ui/entries?entry_id=7"]
        assert "2 events" in page.said
        assert "update page" in page.said


async def changes(running: Relay, entries: int) -> None:
    for number in range(entries):
        await running.post("/in/news", body(action="publish", model="article", id=f"E-{number}"))


def listed(page: Page) -> list[str]:
    return [link["href"] or "" for link in page.all("a") if (link.get("href") or "").startswith("/ui/entries?")]


async def test_many_routes_make_the_list_of_what_changed_last_no_shorter(tmp_path: Path) -> None:
    many = (f"name: r-{number}, match: {{action: publish}}, to: {{url: SINK/x}}" for number in range(12))
    async with newsroom(tmp_path, *many) as running:
        await changes(running, 41)
        page = await browse(running, "/ui/entries")
        assert listed(page) == [f"/ui/entries?entry_id=E-{number}" for number in range(40, 10, -1)]
        assert "These are the 30 that changed last" in page.said


async def test_where_the_list_of_what_changed_last_ends_too_early_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.web.dashboard.entry._STEP", 5)
    monkeypatch.setattr("relay.web.dashboard.entry._MOST_STEPS", 2)
    many = (f"name: r-{number}, match: {{action: publish}}, to: {{url: SINK/x}}" for number in range(3))
    async with newsroom(tmp_path, *many) as running:
        await changes(running, 2)
        assert "These are" not in (await browse(running, "/ui/entries")).said
        await changes(running, 6)
        page = await browse(running, "/ui/entries")
        assert len(listed(page)) in (3, 4)
        assert "These are all of the newest 10 rows of the log" in page.said


# -- what deliveries wait for ------------------------------------------------------------------------------------------

SICK = "name: www, to: {url: SINK/www}, unhealthy_after: 1, retry: {policy: fixed, every: 1s, attempts: 9, jitter: 0}"


async def test_what_waits_for_an_unhealthy_route_is_not_said_to_be_due_now(tmp_path: Path) -> None:
    clock = ManualClock()
    async with relay_and_sink(tmp_path, SICK, answer=answers({"/www": 503}), clock=clock) as (running, _):
        await running.post("/in/any", body(action="publish", model="post", id="7"))
        await running.logs_when(lambda items: items and items[0]["attempts"] == 1)
        await running.post("/in/any", body(action="publish", model="post", id="8"))
        items = await running.logs_when(lambda items: len(items) == 2, "?status=pending")
        clock.advance(5)  # due by now, and still there
        for path in ("/ui/logs", "/ui/entries?entry_id=7", "/ui/entries?entry_id=8", f"/ui/logs/{items[0]['id']}"):
            said = " ".join((await browse(running, path)).said.split())
            assert "waits for its route to answer: the next probe goes out in 25 s" in said, path
            assert "due now" not in said
            assert "tried again now" not in said
        assert "The next probe goes out in 25 s" in said


async def test_what_is_held_says_why_and_until_when(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        await running.post("/in/any", body(action="collect", model="page", id="7"))
        [window] = (await running.get("/windows"))["items"]
        await running.ask("POST", f"/windows/{window['id']}/hold")
        await running.ask("POST", "/routes/good/pause")
        await running.post("/in/any", body(action="publish", model="page", id="8"))
        [item] = await running.logs_when(bool, "?status=held&route=good")
        for path in ("/ui/logs", "/ui/entries?entry_id=7", f"/ui/logs/{window['id']}"):
            page = await browse(running, path)
            assert (
                "held by hand: Send now sends it" in " ".join(page.said.split()) or "It was held by hand" in page.said
            )
            assert f"/ui/windows#window-{window['id']}" in [link.get("href") for link in page.all("a")]
        assert "resume" not in page.said.lower()
        for path in ("/ui/logs", "/ui/entries?entry_id=8", f"/ui/logs/{item['id']}"):
            assert "held until its route is resumed" in (await browse(running, path)).said, path
        assert "held_reason" not in item


# -- the log and its filters -----------------------------------------------------------------------------------------


async def test_the_form_has_an_input_for_every_filter(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        page = await browse(running, "/ui/logs")
        names = {field["name"] for tag in ("input", "select") for field in page.all(tag)}
        assert names >= set(logquery.FILTERS) - {"cursor"}
        chips = [field["value"] for field in page.all("input") if field.get("name") == "status"]
        assert chips == list(logquery.STATUSES)


async def test_filters_of_the_url_narrow_the_log_and_stand_in_the_form(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES, answer=answers({"/bad": 500})) as (running, _):
        await everything(running)
        page = await browse(running, "/ui/logs?status=failed&status=delivered&route=bad&since=1h&source=")
        rows = [attrs for attrs in page.all("tr") if (attrs.get("id") or "").startswith("row-")]
        assert {row["class"] for row in rows} == {"is-failed"}
        assert [field["value"] for field in page.all("input") if field.get("name") == "route"] == ["bad"]
        checked = {field["value"] for field in page.all("input") if "checked" in field}
        assert checked == {"failed", "delivered"}
        [stream] = [attrs["data-stream"] for attrs in page.all("body")]
        assert stream == "/logs/stream?status=failed%2Cdelivered&route=bad&since=1h"


async def test_pages_of_the_log_follow_each_other_without_a_gap(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, ROUTES[0]) as (running, _):
        for number in range(7):
            await running.post("/in/any", body(action="publish", id=str(number)))
        seen: list[str] = []
        path: str | None = "/ui/logs?limit=3"
        while path is not None:
            page = await browse(running, path)
            seen += [str(row["id"]) for row in page.all("tr") if (row.get("id") or "").startswith("row-")]
            path = next((link["href"] for link in page.all("a") if link.get("rel") == "next"), None)
        assert len(seen) == len(set(seen)) == 7


async def test_a_wrong_filter_is_a_page_for_people_and_json_for_programs(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        page = await browse(running, "/ui/logs?since=yesterday", 400)
        assert "since takes a time such as" in page.said
        assert (await running.ask("GET", "/ui/logs?since=yesterday"))[1]["error"] == "bad_filter"
        assert "unknown filter" in (await browse(running, "/ui/logs?colour=red", 400)).said
        assert "limit takes" in (await browse(running, "/ui/logs?limit=many", 400)).said
        for path in ("/ui/nothing", "/ui/logs/dlv_x", "/ui/routes/nobody", "/ui/static/x.css", "/favicon.ico"):
            assert "Not found" in (await browse(running, path, 404)).said
            assert (await running.ask("GET", path))[0] == 404
        assert "since takes" in (await browse(running, "/logs?since=yesterday", 400)).said


async def test_a_wrong_filter_is_said_beside_its_field_and_keeps_what_was_typed(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        page = await browse(running, "/ui/logs?since=yesterday&q=some+text&status=failed&code=5xx", 400)
        fields = {field.get("name"): field for field in page.all("input") if field.get("type") != "checkbox"}
        assert [fields[name]["value"] for name in ("since", "q", "code")] == ["yesterday", "some text", "5xx"]
        assert [field["value"] for field in page.all("input") if "checked" in field] == ["failed"]
        assert [name for name, field in fields.items() if field.get("aria-invalid")] == ["since"]
        assert fields["since"]["aria-describedby"] in [said.get("id") for said in page.all("p")]
        assert "since takes a time such as" in page.said
        assert "No events yet" not in page.said
        for filters in ("code=many", "status=odd", "limit=many", "order=up", "cursor=x", "colour=red"):
            page = await browse(running, f"/ui/logs?{filters}&q=kept", 400)
            assert "kept" in [field.get("value") for field in page.all("input")], filters


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2026-11-23", "2026-11-23T00:00Z"),
        ("2026-11-23T20:15", "2026-11-23T20:15Z"),
        ("2026-11-23 20:15:30", "2026-11-23T20:15:30Z"),
        ("2026-11-23T20:15:00+01:00", "2026-11-23T20:15:00+01:00"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_form_takes_a_day_and_a_time_without_a_zone_as_utc(shared: Relay, typed: str, meant: str) -> None:
    page = await browse(shared, f"/ui/logs?since={quote(typed)}")
    [stream] = [attrs["data-stream"] for attrs in page.all("body")]
    assert stream is not None
    assert stream.endswith(f"&since={quote(meant)}")
    assert typed in [field.get("value") for field in page.all("input")]
    page = await browse(shared, f"/ui/retry?until={quote(typed)}")
    assert "would be tried again" in page.said
    await browse(shared, "/ui/logs?since=2026-13-45", 400)
    if meant != typed:
        assert (await shared.ask("GET", f"/logs?since={quote(typed)}"))[0] == 400  # the form alone


async def test_the_banner_says_what_is_paused_and_held(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        said = (await browse(running, "/")).said
        assert "All is well" in said
        await running.ask("POST", "/routes/pause")
        await running.post("/in/any", body(action="publish", model="page", id="8"))
        await running.logs_when(lambda items: len(items) == 2, "?status=held")
        page = await browse(running, "/")
        assert "3 routes paused, 2 deliveries held" in page.said
        assert "All is well" not in page.said.replace("All is well here", "")
        assert "banner banner-resting" in [section.get("class") for section in page.all("section")]


async def test_the_search_finds_ids_and_entries(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        ids = await everything(running)

        async def found(text: str) -> str:
            options: dict[str, Any] = {"params": {"text": text}, "headers": BROWSER, "allow_redirects": False}
            async with running.session.get(f"{running.admin}/ui/find", **options) as response:
                assert response.status == 303
                return response.headers["Location"]

        assert await found(f" {ids['merged']} ") == f"/ui/logs/{ids['merged']}"
        assert await found("7") == "/ui/entries?entry_id=7"
        assert await found("") == "/ui/logs"
        unknown = await found("no such & entry")
        assert unknown in ("/ui/logs?q=no+such+%26+entry", "/ui/entries?entry_id=no+such+%26+entry")


async def test_retrying_all_asks_first_with_the_number(tmp_path: Path) -> None:
    mood = {"/bad": 500}
    async with relay_and_sink(tmp_path, *ROUTES, answer=answers(mood)) as (running, _):
        await everything(running)
        page = await browse(running, "/ui/retry?route=bad&status=failed")
        assert "2 failed deliveries would be tried again." in " ".join(page.said.split())
        assert page.actions == ["/logs/retry?route=bad"]
        mood.clear()
        where, page = await follow(running, await press(running, page.actions[0], "/ui/retry?route=bad"))
        assert where.startswith("/ui/logs?route=bad&status=pending%2Cheld%2Cdelivered%2Cfailed&told=")
        assert "2 deliveries will be tried again." in page.said
        await running.logs_when(lambda items: len(items) == 2, "?status=delivered&route=bad")


async def test_retrying_all_says_what_is_held_and_shows_it(tmp_path: Path) -> None:
    also = f"name: also, match: {{action: publish}}, to: {{url: SINK/bad}}, {NEVER_AGAIN}"
    async with relay_and_sink(tmp_path, ROUTES[1], also, answer=answers({"/bad": 500})) as (running, _):
        for number in ("7", "8"):
            await running.post("/in/any", body(action="publish", id=number))
        await running.logs_when(lambda items: len(items) == 4, "?status=failed")
        await running.ask("POST", "/routes/bad/pause")
        page = await browse(running, "/ui/retry")
        said = " ".join(page.said.split())
        assert "4 failed deliveries would be tried again." in said
        assert "2 of them would be held until their route is resumed." in said
        page = await browse(running, "/ui/retry?route=bad&code=500")
        assert "2 failed deliveries would be held until their route is resumed." in " ".join(page.said.split())
        answer = await press(running, page.actions[0], "/ui/retry?route=bad&code=500")
        where, page = await follow(running, answer)
        assert where.startswith("/ui/logs?route=bad&code=500&status=held&told=")
        assert "2 deliveries are held until their route is resumed." in page.said
        assert "tried again" not in page.said
        rows = [row.get("class") for row in page.all("tr") if (row.get("id") or "").startswith("row-")]
        assert rows == ["is-held", "is-held"]
        await running.ask("POST", "/routes/also/pause")
        _, page = await follow(running, await press(running, "/logs/retry?all=1", "/ui/retry"))
        assert "2 deliveries are held until their route may send." in page.said


# -- what buttons do -------------------------------------------------------------------------------------------------


async def test_buttons_lead_back_to_their_page_and_say_what_was_done(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES, answer=answers({"/bad": 500})) as (running, _):
        ids = await everything(running)
        where, page = await follow(running, await press(running, "/routes/good/pause", "/", {"reason": " a freeze "}))
        assert where.startswith("/?told=")
        assert "good is paused." in page.said
        assert (await running.get("/routes/good"))["reason"] == "a freeze"
        where, page = await follow(running, await press(running, "/routes/good/resume", f"{where}&x=1"))
        assert where.startswith("/?x=1&told=")
        assert "good sends again." in page.said
        _, page = await follow(running, await press(running, "/routes/bad/test", "/ui/routes/bad"))
        assert "The test of bad failed: HTTP 500" in page.said
        assert "500 after" in page.said
        failed = f"/ui/logs/{ids['failed']}"
        where, page = await follow(running, await press(running, f"/logs/{ids['failed']}/retry", failed))
        assert where.startswith(f"{failed}?told=")
        assert "It is tried again now." in page.said
        [again] = await running.logs_when(
            lambda items: [item["attempts"] for item in items if item["id"] == ids["failed"]] == [2],
            f"?event_id={ids['failed event']}&route=bad",
        )
        where, page = await follow(running, await press(running, f"/events/{again['event_id']}/replay", failed))
        assert "New deliveries to good, bad." in page.said
        window = (await running.get("/windows"))["items"][0]["id"]
        for action, said in (("hold", "The window is held"), ("flush", "The window is sent now.")):
            _, page = await follow(running, await press(running, f"/windows/{window}/{action}", "/ui/windows"))
            assert said in page.said


async def test_what_a_paused_route_does_not_send_is_not_said_to_be_sent(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES, answer=answers({"/bad": 500})) as (running, _):
        ids = await everything(running)
        await running.ask("POST", "/routes/pause")
        [window] = (await running.get("/windows"))["items"]
        _, page = await follow(running, await press(running, f"/windows/{window['id']}/flush", "/ui/windows"))
        assert "The window is closed, and held until its route is resumed." in page.said
        _, page = await follow(running, await press(running, f"/events/{ids['failed event']}/replay"))
        held = "(held until its route is resumed)"
        assert f"New deliveries to good {held}, bad {held}." in page.said
        assert "receipt looks-held" in [attrs.get("class") for attrs in page.all("div")]
        _, page = await follow(running, await press(running, f"/logs/{ids['failed']}/retry"))
        assert "It is held until its route is resumed." in page.said


async def test_what_an_unhealthy_route_does_not_send_yet_is_said_to_wait(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, SICK, answer=answers({"/www": 503}), clock=ManualClock()) as (running, _):
        _, event = await running.post("/in/any", body(action="publish", model="post", id="7"))
        await running.logs_when(lambda items: items and items[0]["attempts"] == 1)
        _, page = await follow(running, await press(running, f"/events/{event['id']}/replay"))
        assert "A new delivery to www (waits for its route to answer)." in page.said


async def test_what_is_retried_behind_another_one_is_said_to_wait(tmp_path: Path) -> None:
    ordered = f"name: www, to: {{url: SINK/www}}, order: route, {LATER}"
    async with relay_and_sink(tmp_path, ordered, answer=answers({"/www": 503})) as (running, _):
        for number in ("7", "8"):
            await running.post("/in/any", body(action="publish", model="post", id=number))
        items = await running.logs_when(lambda found: sum(item["attempts"] for item in found) == 1, "?status=pending")
        first, second = sorted(item["id"] for item in items)
        _, page = await follow(running, await press(running, f"/logs/{second}/retry"))
        assert f"It is due, but waits: {first} goes before it in its lane (order)." in page.said


async def test_an_action_that_fails_is_a_page_with_the_same_status_and_the_way_back(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        ids = await everything(running)
        status, headers, text = await press(running, f"/logs/{ids['merged']}/retry", "/ui/windows")
        page = sound(text, headers)
        assert (status, "Not as things are" in page.said) == (409, True)
        assert "/ui/windows" in [link.get("href") for link in page.all("a") if link.get("class") == "button primary"]
        status, headers, text = await press(running, "/routes/nobody/pause")
        assert (status, "there is no route" in sound(text, headers).said) == (404, True)


async def test_a_form_that_is_too_long_is_not_taken_by_half(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        status, headers, text = await press(running, "/routes/good/pause", data={"reason": "x" * 20_000})
        assert (status, "Too long" in sound(text, headers).said) == (413, True)
        assert (await running.get("/routes/good"))["state"] == "healthy"


async def test_while_the_store_cannot_be_read_the_overview_says_so_and_shows_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        assert running.running is not None

        async def search(query: object) -> None:
            raise Unavailable("the database cannot be read: <disk>")

        monkeypatch.setattr(running.running.store, "search", search)
        page = await browse(running, "/")
        assert "The store cannot be read: the database cannot be read: <disk>" in page.said
        assert "slow" in page.said
        page = await browse(running, "/ui/logs", 503)
        assert "Not available at present" in page.said


async def test_a_program_gets_json_for_the_same_actions(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        assert (await running.ask("POST", "/routes/good/pause"))[1]["changed"] is True
        scripted = {**BROWSER, "Sec-Fetch-Mode": "cors"}
        assert (await running.ask("POST", "/routes/good/resume", headers=scripted))[1]["changed"] is True


@pytest.mark.parametrize(
    "referrer",
    [
        "",
        "https://evil.example/ui/logs",
        "http://HOST//evil.example/",
        "http://HOST/logs",
        "http://HOST/uix",
        "http://[",
    ],
)
async def test_nobody_is_led_anywhere_but_to_a_page_of_ours(tmp_path: Path, referrer: str) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        host = urlsplit(running.admin).netloc
        status, _, _ = await press(running, "/windows/x/flush", headers={"Referer": referrer.replace("HOST", host)})
        assert status == 404
        answer = await press(running, "/routes/good/pause", headers={"Referer": referrer.replace("HOST", host)})
        assert (answer[0], answer[1]["Location"].partition("?")[0]) == (303, "/")


async def test_what_was_told_is_known_to_relay_alone(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        page = await browse(running, "/?told=Call+0900-1234")
        assert "0900" not in page.said
        assert "receipt" not in {attrs.get("class") for attrs in page.all("div")}


# -- who may look and act --------------------------------------------------------------------------------------------


def basic(token: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"me:{token}".encode()).decode()}


async def test_with_a_token_that_may_only_read_there_are_no_buttons(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES, head=TOKENS) as (running, _):
        await running.post("/in/any", body(action="publish", id="7"))
        await running.post("/in/any", body(action="collect", id="7"))
        options = {"headers": bearer(OPERATE)}
        [item, *_] = (await running.get("/logs", **options))["items"]
        for path in ("/", f"/ui/logs/{item['id']}", f"/ui/logs/{item['event_id']}", "/ui/routes/good", "/ui/windows"):
            assert (await browse(running, path, headers=basic(READ))).actions == [], path
            assert (await browse(running, path, headers=basic(OPERATE))).actions != [], path
        assert (await browse(running, "/ui/retry", headers=basic(READ))).actions == []
        status, headers, text = await press(running, "/routes/good/pause", headers=basic(READ))
        assert (status, "may only read" in sound(text, headers).said) == (403, True)


async def test_refusals_of_the_guard_are_pages_for_browsers_and_hold_all_the_same(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES, head=TOKENS) as (running, _):
        async with running.session.get(running.admin + "/", headers=BROWSER) as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"].startswith("Basic ")
            assert "A token is needed" in sound(await response.text(), response.headers).said
        assert "Not under this name" in (await browse(running, "/", 421, {"Host": "rebound.example"})).said
        for refused in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            status, headers, text = await press(running, "/routes/good/pause", headers=basic(OPERATE) | refused)
            assert (status, "cross-origin" in sound(text, headers).said) == (403, True)
        assert (await running.get("/routes/good", headers=bearer(OPERATE)))["state"] == "healthy"


# -- what strangers send ---------------------------------------------------------------------------------------------

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">'\"}}{{ 7*7 }}"
ODD = SCRIPT + "\x1b[31m\x07 \u202eabc\u2066 \u0000 \ud800"


def hostile_bodies() -> list[bytes]:
    deep = b'{"action":"publish","id":"deep","x":' + b"[" * 1000 + b"]" * 1000 + b"}"
    return [
        json.dumps(
            {"event": ODD, "model": ODD, "action": "publish", "stage": ODD, "id": ODD, ODD: [ODD, {ODD: ODD}]}
        ).encode(),
        json.dumps({"action": "publish", "model": "m" * (1 << 18), "id": "i" * (1 << 18), "text": "x" * 1000}).encode(),
        json.dumps({"action": "publish", "id": "long", "text": "<b>" * 349_000}).encode(),
        json.dumps({"action": "publish", "id": "wide", "list": [{"<i>": "&" * 300}] * 3_000}).encode(),
        json.dumps({"action": "publish", "id": "keys"} | {f"<k{n}>": n for n in range(50_000)}).encode(),
        json.dumps({"action": "publish", "id": "numbers", "n": [10**400, 1e300, -0.0, True, None, {}, []]}).encode(),
        json.dumps({"action": "publish", "id": "long keys", "k" * (1 << 18): "\x00" * (1 << 16)}).encode(),
        deep,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    ]  # fmt: skip


async def test_hostile_payloads_are_text_on_every_page_and_never_an_error(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, ROUTES[0]) as (running, _):
        sent = []
        for number, text in enumerate(hostile_bodies()):
            status, answer = await running.post("/in/any", text, {"X-Odd": f"<b>{number}</b>", "X-L": "<" * 5000})
            assert status == 200, answer
            sent.append(answer["id"])
        # What the parser refuses is refused, and shown as refused.
        await running.post("/in/www", b"[" * 10_000 + b"]" * 10_000, {"X-Odd": SCRIPT, "User-Agent": SCRIPT})
        items = await running.logs_when(
            lambda found: len(found) == len(sent) + 1 and not any(item["status"] == "pending" for item in found),
            "?status=delivered,failed,pending,rejected,unmatched",
        )
        for path in ("/", "/ui/logs", "/ui/routes/good", *(f"/ui/logs/{item['id']}" for item in items)):
            page = await browse(running, path)
            assert page.all("img") == []
            assert len(page.all("script")) == 1
        assert (await browse(running, f"/ui/entries?entry_id={quote(items[-1]['entry_id'], safe='')}")).all("img") == []
        page = await browse(running, f"/ui/logs/{sent[0]}")
        assert "<script>document.title" in page.said
        assert "\\x1b[31m" in page.said
        assert "\\u202e" in page.said
        assert "{{ 7*7 }}" in page.said
        for event in sent:
            await browse(running, f"/ui/logs/{event}")


@pytest.mark.parametrize(
    "text", ["%ff", "%00", "%3Cscript%3E", "%ED%A0%80", "%E2%80%AE", "a%2Fb", "%22%3E", "x" * 3000]
)
@pytest.mark.parametrize(
    "path",
    [
        "/ui/logs?entry_id=TEXT", "/ui/logs?since=TEXT", "/ui/logs?cursor=TEXT", "/ui/logs?limit=TEXT", "/ui/logs/TEXT",
        "/ui/logs?TEXT=1", "/ui/entries?entry_id=TEXT", "/ui/entries?entry_id=1&model=TEXT", "/ui/routes/TEXT",
        "/ui/find?text=TEXT", "/ui/retry?model=TEXT", "/ui/logs/TEXT/raw", "/ui/static/TEXT", "/?told=TEXT", "/TEXT",
    ],
)  # fmt: skip
@pytest.mark.asyncio(loop_scope="module")
async def test_an_address_with_anything_in_it_is_answered_with_a_sound_page(
    shared: Relay, path: str, text: str
) -> None:
    url = URL(shared.admin + path.replace("TEXT", text), encoded=True)
    async with shared.session.get(url, headers=BROWSER) as response:
        assert response.status in (200, 400, 404)
        sound(await response.text(), response.headers)


async def test_answers_of_destinations_are_text_too(tmp_path: Path) -> None:
    def answer(received: Any) -> web.Response:
        if received.n % 2:
            return web.Response(status=500, body=b"\xff\xfe\x00binary", headers={"X-Odd": SCRIPT})
        return web.Response(status=500, text=SCRIPT * 50, content_type="text/html")

    async with relay_and_sink(tmp_path, f"name: bad, to: {{url: SINK}}, {NEVER_AGAIN}", answer=answer) as (running, _):
        await running.post("/in/any", body(id="1"))
        await running.post("/in/any", body(id="2"))
        for item in await running.logs_when(lambda found: len(found) == 2, "?status=failed"):
            page = await browse(running, f"/ui/logs/{item['id']}")
            assert page.all("img") == []
            assert "are not text" in page.said or "<img src=x" in page.said
        answered = await press(running, "/routes/bad/test")
        _, page = await follow(running, answered)
        assert page.all("img") == []


# -- how it is served ------------------------------------------------------------------------------------------------


async def test_static_files_are_kept_for_long_under_names_that_change_with_them(tmp_path: Path) -> None:
    async with relay_and_sink(tmp_path, *ROUTES) as (running, _):
        page = await browse(running, "/")
        found = [link["href"] for link in page.all("link")] + [script["src"] for script in page.all("script")]
        assert len(found) == 3
        for path in found:
            assert re.fullmatch(r"/ui/static/\w+\.[0-9a-f]{12}\.(css|js|svg)", str(path))
            async with running.session.get(f"{running.admin}{path}") as response:
                assert response.status == 200
                assert "immutable" in response.headers["Cache-Control"]
                assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_daemon_that_nobody_looks_at_has_not_loaded_the_pages() -> None:
    code = "import sys, relay.daemon; sys.exit('relay.web.dashboard.site' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE * 3, check=False).returncode == 0
