"""Ids by their beginning, wherever a verb takes one."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.cli.running import complaint, free_ports, items_when, run, serving
from tests.cli.standin import StandIn, log_item, standing_in
from tests.cli.test_daemon_verbs import sent_id
from tests.harness import write_config

ONE = "dlv_01M85CA5GE9CETFWDHANEQSGCC"
TWIN = "dlv_01M85CA5GF9CETFWDHANEQSGCC"
EVENT = "evt_01M85CA5GE9CERZWDHANEQSGCC"
LONE = "evt_01M85CB5GE9CERZWDHANEQSGCC"
REJECTED = "rej_01M85CA5GE9CERZWDHANEQSGCC"
ITEMS = [
    log_item(ONE, event_id=EVENT, status="failed"),
    log_item(TWIN, event_id=EVENT, status="pending"),
    log_item(LONE, event_id=LONE, status="unmatched"),
    log_item(REJECTED, event_id=None, status="rejected"),
]


def listed(query: dict[str, str], _: BaseHTTPRequestHandler) -> Any:
    """`GET /logs?q=…`, two items a page."""
    statuses = query.get("status", "pending,delivered,failed,held,merged,cancelled").split(",")
    found = [
        item
        for item in ITEMS
        if item["status"] in statuses
        and (item["id"].startswith(query.get("q", "")) or str(item["event_id"]).startswith(query.get("q", "")))
    ]
    start = int(query.get("cursor", "0"))
    return {"items": found[start : start + 1], "next": str(start + 1) if start + 1 < len(found) else None}


@pytest.fixture
def admin() -> Iterator[StandIn]:
    def done(query: dict[str, str], handler: BaseHTTPRequestHandler) -> Any:
        id_text = handler.path.split("/")[2]
        return {
            "delivery": log_item(id_text), "deliveries": [ONE], "routes": ["www"], "id": id_text, "forgotten": True,
            "window": None,
        }  # fmt: skip

    def shown(query: dict[str, str], handler: BaseHTTPRequestHandler) -> Any:
        return {"delivery": log_item(handler.path.split("/")[2]), "attempts": [], "headers": []}

    answers: dict[str, Any] = {"GET /logs": listed, "GET /windows": lambda query, handler: {"items": []}}
    for id_text in (ONE, TWIN, EVENT, LONE, REJECTED):
        answers[f"GET /logs/{id_text}"] = shown
        for verb in ("POST /logs/{}/retry", "POST /logs/{}/cancel", "POST /events/{}/replay", "POST /events/{}/forget"):
            answers[verb.format(id_text)] = done
        answers[f"POST /windows/{id_text}/flush"] = done
    with standing_in(answers) as made:
        yield made


@pytest.mark.parametrize(
    ("args", "asked"),
    [
        (["show", "dlv_01M85CA5GE"], f"GET /logs/{ONE}"),
        (["show", "DLV_01m85ca5ge"], f"GET /logs/{ONE}"),
        (["show", "evt_01M85CB5"], f"GET /logs/{LONE}"),
        (["show", "rej_01M85CA5"], f"GET /logs/{REJECTED}"),
        (["retry", "dlv_01M85CA5GE"], f"POST /logs/{ONE}/retry"),
        (["cancel", "dlv_01M85CA5GF"], f"POST /logs/{TWIN}/cancel"),
        (["replay", "evt_01M85CA5"], f"POST /events/{EVENT}/replay"),
        (["forget", "evt_01M85CB5"], f"POST /events/{LONE}/forget"),
        (["windows", "flush", "dlv_01M85CA5GE"], f"POST /windows/{ONE}/flush"),
    ],
)
def test_an_id_may_be_cut_short(admin: StandIn, args: list[str], asked: str) -> None:
    ended = run(*args, "--url", admin.url)
    assert ended.code == 0, ended
    assert admin.asked[-1][0] == asked
    assert admin.asked[0][1]["q"] == args[-1][:4].lower() + args[-1][4:].upper()


def test_explain_takes_one_too(admin: StandIn, tmp_path: Any) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("{}")
    said = complaint(run("explain", "dlv_01M85CA5", "--url", admin.url, "--config", path), 2)
    assert f"could be {ONE}, {TWIN}" in said


@pytest.mark.parametrize("args", [["retry"], ["cancel"], ["windows", "flush"], ["show"]])
def test_what_could_be_several_is_listed_and_nothing_is_done(admin: StandIn, args: list[str]) -> None:
    said = complaint(run(*args, "dlv_01M85CA5", "--url", admin.url), 2)
    assert said == f"relay: dlv_01M85CA5 could be {ONE}, {TWIN}: give more of it"
    assert {name for name, _ in admin.asked} == {"GET /logs"}


def test_what_is_none_is_said_before_anything_is_done_to_the_others(admin: StandIn) -> None:
    said = complaint(run("retry", ONE, "dlv_7ZZZZZZZ", "--url", admin.url), 1)
    assert said == "relay: there is no delivery whose id begins with dlv_7ZZZZZZZ"
    assert all(name == "GET /logs" for name, _ in admin.asked)


def test_one_thing_that_is_named_twice_is_done_once(admin: StandIn) -> None:
    assert run("retry", ONE, "dlv_01M85CA5GE", "--url", admin.url).code == 0
    assert [name for name, _ in admin.asked] == ["GET /logs", f"POST /logs/{ONE}/retry"]


def test_a_whole_id_is_not_looked_up(admin: StandIn) -> None:
    assert run("show", ONE, "--url", admin.url).code == 0
    assert [name for name, _ in admin.asked] == [f"GET /logs/{ONE}"]


def test_the_daemon_and_the_file_know_beginnings(tmp_path: Any) -> None:
    text = """
server: {{listen: "127.0.0.1:{}"}}
admin: {{listen: "127.0.0.1:{}"}}
sources: {{open: {{type: generic, verify: none, map: {{action: body.action}}}}}}
routes: [{{name: r, match: {{action: "*"}}, to: {{url: "http://127.0.0.1:{}/"}}, retry: none}}]
""".format(*free_ports(3))
    where = ("--config", str(tmp_path / "config.yaml"))
    lone = tmp_path / "lone.json"
    lone.write_text("[]")
    with serving(write_config(tmp_path, text)) as relay:
        sent_id(run("send", "open", *where))
        [item] = items_when(relay.admin, lambda items: items and items[0]["status"] == "failed")
        unmatched = sent_id(run("send", "open", "--file", lone, *where))
        for id_text in (item["id"], item["event_id"], unmatched):
            assert run("show", id_text[:24], "--json", *where).json == run("show", id_text, "--json", *where).json
    for id_text in (item["id"], item["event_id"], unmatched):
        assert run("show", id_text[:24], *where).out == run("show", id_text, *where).out


# --- many at once, by filters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "would", "did", "posted"),
    [
        (
            ["cancel", "--route", "www"],
            "1 delivery would be cancelled",
            "1 delivery cancelled",
            [f"/logs/{TWIN}/cancel"],
        ),
        (
            ["replay", "--source", "blog"],
            "at most 2 events would be replayed",
            "2 events replayed",
            [f"/events/{EVENT}/replay", f"/events/{LONE}/replay"],
        ),
        (
            ["replay", "--status", "unmatched"],
            "at most 1 event would be replayed",
            "1 event replayed",
            [f"/events/{LONE}/replay"],
        ),
        (
            ["forget", "--all"],
            "2 events would be forgotten",
            "2 events forgotten",
            [f"/events/{EVENT}/forget", f"/events/{LONE}/forget"],
        ),
    ],
)
def test_filters_find_all_that_something_is_done_to(
    admin: StandIn, args: list[str], would: str, did: str, posted: list[str]
) -> None:
    assert run(*args, "--dry-run", "--url", admin.url).out == would + "\n"
    unknown = {"passed_over": None} if args[0] == "replay" else {}
    assert run(*args, "--dry-run", "--json", "--url", admin.url).json == {"count": len(posted), **unknown}
    assert not [name for name, _ in admin.asked if name.startswith("POST")]
    assert run(*args, "--url", admin.url).out == did + "\n"
    assert [name.split(" ")[1] for name, _ in admin.asked if name.startswith("POST")] == posted


def test_what_cannot_be_done_is_said_and_counted(admin: StandIn) -> None:
    conflict = {"error": "wrong_state", "detail": f"{EVENT} cannot be forgotten: it is still to be sent"}
    admin.answers[f"POST /events/{EVENT}/forget"] = lambda query, handler: (409, conflict)
    ended = run("forget", "--all", "--url", admin.url)
    assert (ended.code, ended.out) == (1, "1 of 2 done\n")
    assert ended.err == f"relay: {EVENT} cannot be forgotten: it is still to be sent\n"
    [done, failure] = run("forget", "--all", "--json", "--url", admin.url).json
    assert (done["id"], failure) == (LONE, {"id": EVENT, **conflict})


def test_what_no_route_wants_is_counted_and_no_failure(admin: StandIn) -> None:
    conflict = {"error": "conflict", "detail": f"{EVENT} cannot be replayed: no route wants it"}
    admin.answers[f"POST /events/{EVENT}/replay"] = lambda query, handler: (409, conflict)
    ended = run("replay", "--all", "--url", admin.url)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "1 event replayed\n1 event that no route wants was passed over\n"
