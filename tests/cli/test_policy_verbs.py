"""`retry` by filters, `cancel`, `replay`, `forget`, `pause`, `resume`, `test`, `move`, `windows`: with a real relay."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Ended, Talking, complaint, free_ports, items_when, listed, run, serving, talking
from tests.cli.standin import log_item, standing_in
from tests.cli.test_daemon_verbs import at_terminal, sent_id
from tests.harness import write_config

TOKEN = "an-admin-token-of-32-characters!"
READER = "a-token-that-may-read-and-no-more"
NOBODY = "dlv_01M85CA5GE9CETFWDHANEQSGCC"
NO_EVENT = "evt_01M85CA5GE9CETFWDHANEQSGCC"

VERBS: list[list[str]] = [
    ["retry", NOBODY], ["retry", "--all"], ["cancel", NOBODY], ["replay", NO_EVENT], ["forget", NO_EVENT],
    ["pause", "up"], ["pause", "--all"], ["resume", "up"], ["resume", "--all"], ["test", "up"],
    ["windows"], ["windows", "flush", NOBODY],
]  # fmt: skip


@dataclass(frozen=True)
class World:
    """A relay with a sink, a destination that is not there, and a route that collects."""

    config: Path
    admin: str
    sink: Talking

    def run(self, *args: str | Path) -> Ended:
        return run(*args, "--config", self.config)

    def send(self, action: str, **said: Any) -> str:
        path = self.config.parent / "body.json"
        path.write_text(json.dumps({"event": "e", "action": action, **said}))
        return sent_id(self.run("send", "open", "--file", path))

    def items(self, *options: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.run("logs", "--json", *options).json["items"]
        return found

    def when(self, ready: Callable[[list[dict[str, Any]]], object], *options: str) -> list[dict[str, Any]]:
        return items_when(self.admin, ready, "--token", TOKEN, *options)

    def windows_when(self, ready: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
        return listed(lambda: self.run("windows", "--json"), ready)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("policy")
    with talking(folder, "sink", "--listen", "127.0.0.1:0") as there:
        url = "http://" + there.wait_for("listening on").rpartition(" ")[2]
        public, admin, nowhere = free_ports(3)
        text = f"""
server: {{listen: "127.0.0.1:{public}"}}
admin: {{listen: "127.0.0.1:{admin}", token: "{TOKEN}", tokens: {{ci: {{token: "{READER}", scope: read}}}}}}
sources: {{open: {{type: generic, verify: none, map: {{event: body.event, model: body.model, action: body.action}}}}}}
routes:
  - {{name: up, match: {{action: up}}, to: {{url: "{url}/up"}}}}
  - {{name: down, match: {{action: down}}, to: {{url: "http://127.0.0.1:{nowhere}"}}, retry: none, unhealthy_after: 99}}
  - {{name: slow, match: {{action: slow}}, to: {{url: "{url}/slow"}}, debounce: {{wait: 1h}}}}
  - {{name: off, enabled: false, match: {{action: off}}, to: {{url: "{url}/off"}}}}
"""
        with serving(write_config(folder, text)) as relay:
            yield World(relay.config, relay.admin, there)


@pytest.fixture
def world(served: World) -> Iterator[World]:
    """Each test finds all routes healthy, and leaves them so."""
    yield served
    assert served.run("resume", "--all").code == 0
    served.run("windows", "cancel", "--all")


# --- retry ------------------------------------------------------------------------------------------------------------


def failed(world: World, model: str, count: int = 1) -> list[str]:
    """Ids of deliveries to where nobody is."""
    for _ in range(count):
        world.send("down", model=model)
    found = world.when(
        lambda items: len(items) == count and all(item["status"] == "failed" for item in items), "--model", model
    )
    return [item["id"] for item in found]


def test_many_are_retried_by_filters(world: World) -> None:
    ids = failed(world, "many", 3)
    where = ["--model", "many", "--route", "down", "--since", "1h"]
    assert world.run("retry", *where, "--dry-run").out == "3 deliveries would be pending, due now\n"
    assert world.run("retry", *where, "--dry-run", "--json").json == {"count": 3, "held": 0, "passed_over": 0}
    assert {item["attempts"] for item in world.items("--model", "many")} == {1}
    assert world.run("retry", "--status", "failed", *where).out == "3 deliveries are pending, due now\n"
    again = world.when(lambda items: all(item["attempts"] == 2 for item in items), "--model", "many")
    assert [item["id"] for item in again] == ids
    assert world.run("retry", "--model", "none").out == "0 deliveries are pending, due now\n"
    one = failed(world, "one")
    assert world.run("retry", "--event-id", world.items("--model", "one")[0]["event_id"]).out == (
        "1 delivery is pending, due now\n"
    )
    world.when(lambda items: items[0]["attempts"] == 2 and items[0]["status"] == "failed", "--model", "one")
    assert world.run("retry", "--all", "--dry-run").out.endswith(" would be pending, due now\n")
    [answer] = world.run("retry", *one, "--json").json
    assert answer["delivery"]["id"] == one[0]


def test_what_is_retried_and_held_is_told_apart(world: World) -> None:
    failed(world, "kept", 2)
    assert world.run("pause", "down").code == 0
    where = ["--model", "kept"]
    held = "held, until its route may send ('relay resume', 'relay move' or the config)"
    assert world.run("retry", *where, "--dry-run").out == f"2 deliveries would be {held}\n"
    assert world.run("retry", *where, "--json").json == {"count": 2, "held": 2, "passed_over": 0}
    assert {item["status"] for item in world.items(*where)} == {"held"}
    assert world.run("cancel", *where).code == 0
    assert world.run("resume", "down").code == 0
    [one] = failed(world, "kept-too")
    assert world.run("pause", "down").code == 0
    assert world.run("retry", "--model", "kept-too").out == f"1 delivery is {held}\n"
    assert world.run("cancel", one).code == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "name deliveries (dlv_…), or filters such as --route www, or say --all (see 'relay retry --help')"),
        (["--dry-run"], "name deliveries (dlv_…), or filters"),
        (["--all", "--route", "up"], "one at a time: "),
        ([NOBODY, "--route", "up"], "one at a time: "),
        ([NOBODY, "--dry-run"], "--dry-run is for filters and --all"),
        (["--route", ""], "--route is empty"),
        (["--route", "up", "--since", ""], "--since is empty"),
        (["--route", "", "--since", "1h"], "--route is empty"),
        (["--limit", "3"], "there is no option '--limit'"),
        (["--status", "delivered"], "status takes failed, or is left out"),
        (["--since", "yesterday"], "since takes a time"),
    ],
)
def test_a_retry_that_does_not_say_what_it_means_is_wrong_usage(world: World, args: list[str], said: str) -> None:
    assert said in complaint(world.run("retry", *args), 2)


# --- cancel, replay, forget -------------------------------------------------------------------------------------------


def test_cancel_gives_up_what_is_held_and_says_what_it_could_not(world: World) -> None:
    world.run("pause", "up")
    event_id = world.send("up")
    [item] = world.items("--event-id", event_id)
    assert world.run("cancel", item["id"]).out == f"{item['id']}: cancelled\n"
    ended = world.run("cancel", NOBODY, item["id"])
    assert (ended.code, ended.out) == (1, "")
    first, second = ended.err.splitlines()
    assert first == f"relay: there is no delivery {NOBODY}"
    assert second == f"relay: {item['id']} cannot be cancelled: it is cancelled already"
    assert (
        world.run("retry", item["id"]).out
        == f"{item['id']}: held, until its route may send ('relay resume', 'relay move' or the config)\n"
    )
    ended = world.run("cancel", item["id"], NOBODY, "--json")
    done, failure = ended.json
    assert (ended.code, done["delivery"]["status"], failure["error"]) == (1, "cancelled", "not_found")
    assert failure["id"] == NOBODY


def test_replay_makes_new_deliveries_and_forget_ends_that(world: World) -> None:
    event_id = world.send("up")
    [first] = world.when(lambda items: items and items[0]["status"] == "delivered", "--event-id", event_id)
    ended = world.run("replay", event_id)
    [new] = [item["id"] for item in world.items("--event-id", event_id) if item["id"] != first["id"]]
    assert ended.out == f"{event_id}: {new} to up\n"
    assert new in world.sink.wait_for(new)
    [answer] = world.run("replay", event_id, "--route", "up", "--json").json
    assert (answer["id"], answer["routes"], len(answer["deliveries"])) == (event_id, ["up"], 1)
    assert "the route down does not want it" in complaint(world.run("replay", event_id, "--route", "down"), 1)
    assert "there is no route 'dwon' (did you mean" in complaint(world.run("replay", event_id, "--route", "dwon"), 2)
    world.when(lambda items: all(item["status"] == "delivered" for item in items), "--event-id", event_id)
    assert world.run("forget", event_id).out == f"{event_id}: its body and headers are gone\n"
    assert "body: not kept" in world.run("show", event_id).out
    assert "its body is no longer kept" in complaint(world.run("replay", event_id), 1)
    for verb in ("replay", "forget"):
        assert NO_EVENT in complaint(world.run(verb, NO_EVENT), 1)
        assert "expected an event's" in complaint(world.run(verb, NOBODY), 2)


def test_what_is_still_to_be_sent_is_not_forgotten(world: World) -> None:
    world.run("pause", "up")
    event_id = world.send("up")
    assert "is still to be sent: cancel it first" in complaint(world.run("forget", event_id), 1)


# --- pause and resume -------------------------------------------------------------------------------------------------


def test_pause_holds_and_resume_releases_and_both_say_how_many(world: World) -> None:
    world.when(lambda items: not items, "--status", "pending,held", "--route", "up")  # of the tests before
    assert world.run("pause", "up", "--dry-run").out == "up: would hold 0 deliveries\n"
    assert world.run("pause", "up", "down", "--reason", "content freeze").out == (
        "up: paused, 0 deliveries held\ndown: paused, 0 deliveries held\n"
    )
    events = [world.send("up") for _ in range(2)]
    assert world.run("pause", "up").out == "up: was paused already (content freeze), 2 deliveries held\n"
    assert world.run("pause", "up", "--dry-run").out == "up: is paused (content freeze)\n"
    assert world.run("resume", "up", "slow", "off", "--dry-run").out.splitlines() == [
        "up: would release up to 2 deliveries",
        "slow: is healthy",
        "off: the config says enabled: false, 0 deliveries held",
    ]
    [answer] = world.run("resume", "up", "--json").json
    assert (answer["route"]["state"], answer["changed"], answer["released"]) == ("healthy", True, 2)
    world.when(lambda items: len(items) == 2, "--event-id", ",".join(events), "--status", "delivered")
    assert world.run("resume", "up", "down").out == "up: was healthy already\ndown: resumed, 0 deliveries released\n"


def test_all_routes_are_paused_and_resumed(world: World) -> None:
    assert world.run("pause", "--all", "--reason", "move").out.splitlines() == [
        "up: paused, 0 deliveries held",
        "down: paused, 0 deliveries held",
        "slow: paused, 0 deliveries held",
        "off: paused, and the config says enabled: false, 0 deliveries held",
    ]
    world.send("up")
    assert [one["changed"] for one in world.run("pause", "--all", "--json").json] == [False] * 4
    assert world.run("resume", "--all").out.splitlines() == [
        "up: resumed, 1 delivery released",
        "down: resumed, 0 deliveries released",
        "slow: resumed, 0 deliveries released",
        "off: sends nothing, for the config says enabled: false",
    ]


@pytest.mark.parametrize("verb", ["pause", "resume", "test"])
def test_routes_are_named_or_all_of_them_and_none_is_touched_where_one_is_not_there(world: World, verb: str) -> None:
    assert "name routes, or say --all" in complaint(world.run(verb), 2)
    assert "--all and names exclude each other" in complaint(world.run(verb, "up", "--all"), 2)
    line = complaint(world.run(verb, "up", "dwon"), 2)
    assert line == "relay: there is no route 'dwon' (did you mean 'down'?): there are up, down, slow, off"
    assert world.run("resume", "up").out == "up: was healthy already\n"


# --- test and move ----------------------------------------------------------------------------------------------------


def test_a_test_shows_the_answer_and_fails_where_the_destination_did(world: World) -> None:
    ended = world.run("test", "up")
    assert ended.code == 0
    first, second = ended.out.splitlines()
    assert first.startswith("up: ok, HTTP 200, ")
    assert first.endswith("/up")
    assert second == '  | {"received": true}'
    world.run("pause", "off")
    assert world.run("test", "off").code == 0
    ended = world.run("test", "--all")
    assert (ended.code, ended.err) == (1, "")
    [head, why] = [line for line in ended.out.splitlines() if line.startswith("down: ") or "connect_error" in line]
    assert head.startswith("down: FAILED, no answer, ")
    assert why.startswith("  connect_error: ")
    ended = world.run("test", "down", "up", "--json")
    assert ended.code == 1
    assert [(one["route"], one["error"] is None) for one in ended.json] == [("down", False), ("up", True)]
    assert ended.json[1]["response"]["body"] == '{"received": true}'


def test_a_renamed_route_takes_over_what_is_held(world: World) -> None:
    before = world.config.read_text()
    try:
        world.run("pause", "up", "--reason", "freeze")
        events = [world.send("up") for _ in range(2)]
        line = complaint(world.run("move", "up", "down"), 1)
        assert line == "relay: up is still in the config: rename or remove it there and reload, then move"
        world.config.write_text(before.replace("name: up", "name: better"))
        ended = world.run("reload")
        assert (ended.code, ended.err) == (
            0,
            "route up, which is no longer in the config, was paused by hand (freeze): one that takes its place is not"
            " ('relay pause')\n",
        )
        assert "there is no route 'bettr' (did you mean 'better'?)" in complaint(world.run("move", "up", "bettr"), 2)
        line = complaint(world.run("move", "op", "better"), 1)
        assert line == "relay: nothing is held for a removed route 'op'; there is something for up"
        paused = "relay: up was paused by hand (freeze); better is not\n"
        assert world.run("move", "up", "better", "--dry-run") == Ended(
            0, "2 deliveries would move from up to better\n", paused
        )
        assert world.run("pause", "better").code == 0
        assert world.run("move", "up", "better", "--dry-run").err == ""
        assert world.run("resume", "better").code == 0
        assert world.run("move", "up", "better") == Ended(0, "2 deliveries moved from up to better\n", paused)
        world.when(lambda items: len(items) == 2, "--event-id", ",".join(events), "--status", "delivered")
        assert "nothing is held for a removed route 'up'" in complaint(world.run("move", "up", "better"), 1)
    finally:
        world.config.write_text(before)
        assert world.run("reload").code == 0


def test_a_move_leaves_windows_that_are_held_by_hand_and_says_so(world: World) -> None:
    before = world.config.read_text()
    try:
        found = window(world)
        assert world.run("windows", "hold", found).code == 0
        world.config.write_text(before.replace("name: slow", "name: tidy"))
        assert world.run("reload").code == 0
        left = "relay: slow keeps 1 window that is held by hand: 'relay windows flush --route slow', then move again\n"
        assert world.run("move", "slow", "tidy", "--dry-run") == Ended(
            0, "0 deliveries would move from slow to tidy\n", left
        )
        assert world.run("move", "slow", "tidy") == Ended(1, "0 deliveries moved from slow to tidy\n", left)
        ended = world.run("move", "slow", "tidy", "--json")
        assert (ended.code, ended.err) == (1, left)
        assert (ended.json["count"], ended.json["windows_left"]) == (0, 1)
        assert world.run("windows", "--route", "slow", "--json").json["items"][0]["id"] == found
        assert world.run("windows", "flush", "--route", "slow").code == 0
        assert world.run("windows", "--route", "slow", "--json") == Ended(0, '{\n  "items": []\n}\n', "")
        assert world.run("move", "slow", "tidy") == Ended(0, "1 delivery moved from slow to tidy\n", "")
        assert {item["id"] for item in world.items("--route", "tidy")} > {found}, "what was merged into it is there too"
    finally:
        world.config.write_text(before)
        assert world.run("reload").code == 0


# --- windows ----------------------------------------------------------------------------------------------------------


def window(world: World, count: int = 2) -> str:
    """A window that is being collected."""
    for _ in range(count):
        world.send("slow")
    [found] = world.run("windows", "--json").json["items"]
    assert len(found["events"]) == count
    return str(found["id"])


def test_windows_are_listed_held_and_flushed(world: World) -> None:
    assert world.run("windows").out == "ID  ROUTE  EVENTS  OPENED_AT  DUE_AT  HELD\n"
    found = window(world)
    header, line = world.run("windows", "list", "--route", "slow,up").out.splitlines()
    assert header.split() == ["ID", "ROUTE", "EVENTS", "OPENED_AT", "DUE_AT", "HELD"]
    assert [line.split()[place] for place in (0, 1, 2, 5)] == [found, "slow", "2", "no"]
    assert world.run("windows", "--route", "up").out.count("\n") == 1
    assert world.run("windows", "hold", "--route", "slow", "--dry-run", "--json").json["items"][0]["id"] == found
    assert world.run("windows", "hold", "--route", "slow").out == (
        f"{found}: is held, and takes events, until it is flushed\n"
    )
    assert world.windows_when(lambda items: items[0]["held"])
    assert world.run("windows", "flush", "--all", "--dry-run").out.splitlines()[1].split()[-1] == "yes"
    ended = world.run("windows", "flush", found, NOBODY)
    assert (ended.code, ended.out) == (1, f"{found}: is sent now\n")
    assert ended.err == f"relay: there is no delivery {NOBODY}\n"
    assert found in world.sink.wait_for(found)
    assert world.run("windows", "cancel", "--all").out == ""
    assert "is no open window" in complaint(world.run("windows", "cancel", found), 1)
    shown = world.run("show", found).out
    assert "carries  evt_" in shown


def test_a_window_is_dropped(world: World) -> None:
    found = window(world, 1)
    [answer] = world.run("windows", "cancel", found, "--json").json
    assert answer["delivery"]["status"] == "cancelled"
    assert world.run("windows", "--json").json == {"items": []}


def test_a_window_of_a_paused_route_is_flushed_into_its_queue(world: World) -> None:
    found = window(world, 1)
    world.run("pause", "slow")
    assert world.run("windows", "flush", found).out == f"{found}: is closed, and held until its route may send\n"
    assert world.run("resume", "slow").out == "slow: resumed, 1 delivery released\n"
    assert found in world.sink.wait_for(found)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["flush"], "say which windows to flush: their ids, --route, or --all"),
        (["hold", "--dry-run"], "say which windows to hold"),
        (["cancel", NOBODY, "--all"], "name windows, or say --route, or --all"),
        (["flush", NO_EVENT], "expected a delivery's id"),
        (["list", NOBODY], "'relay show ID' shows one"),
        (["send"], "'send' is not one of"),
        (["--route", "slwo"], "there is no route 'slwo' (did you mean 'slow'?)"),
    ],
)
def test_windows_that_are_not_named_are_wrong_usage(world: World, args: list[str], said: str) -> None:
    assert said in complaint(world.run("windows", *args), 2)


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", VERBS, ids=" ".join)
def test_a_wrong_token_or_no_daemon_is_said_with_what_to_do(world: World, tmp_path: Path, args: list[str]) -> None:
    where = ("--url", world.admin)
    assert "refuses this token: give one of its admin tokens" in complaint(run(*args, *where, "--token", "wrong"), 1)
    assert "wants a token: give one" in complaint(run(*args, *where), 1)
    if args != ["windows"]:
        assert complaint(run(*args, *where, "--token", READER), 1) == "relay: the token 'ci' may only read"
    [port] = free_ports(1)
    path = write_config(tmp_path, f'server: {{listen: "127.0.0.1:0"}}\nadmin: {{listen: "127.0.0.1:{port}"}}\n')
    assert "start it with 'relay serve'" in complaint(run(*args, "--config", path), 1)


def test_work_at_a_terminal_shows_its_result_alone(world: World) -> None:
    lines = at_terminal(80, "pause", "--all", "--config", str(world.config))
    assert lines[0].startswith("up: paused")
    assert len(lines) == 4
    assert max(map(len, at_terminal(60, "windows", "--config", str(world.config)))) <= 60


# --- by filters -------------------------------------------------------------------------------------------------------


def test_what_filters_find_is_cancelled_replayed_and_forgotten(world: World) -> None:
    assert world.run("pause", "up").code == 0
    events = [world.send("up", model="by-filter") for _ in range(2)]
    where = ["--model", "by-filter", "--since", "1h"]
    assert world.run("cancel", *where, "--dry-run").out == "2 deliveries would be cancelled\n"
    assert {item["status"] for item in world.items("--model", "by-filter")} == {"held"}
    assert world.run("cancel", *where, "--route", "up").out == "2 deliveries cancelled\n"
    assert {item["status"] for item in world.items("--model", "by-filter")} == {"cancelled"}
    assert world.run("resume", "up").code == 0
    replayed = world.run("replay", *where, "--json").json
    assert [answer["id"] for answer in replayed] == events
    world.when(lambda items: sum(item["status"] == "delivered" for item in items) == 2, "--model", "by-filter")
    assert world.run("forget", *where).out == "2 events forgotten\n"
    assert world.run("show", events[0], "--json").json["body"] is None


def test_events_that_no_route_wants_are_passed_over_and_foreseen(world: World) -> None:
    for action in ("up", "nobody", "up", "nobody", "nobody"):
        world.send(action, model="mixed")
    forgotten = world.send("nobody", model="mixed")
    assert world.run("forget", forgotten).code == 0
    where = ["--model", "mixed", "--status", "delivered,pending,unmatched"]
    assert world.run("replay", *where, "--dry-run").out == (
        "2 events would be replayed\n"
        "3 events that no route wants would be passed over\n"
        "1 event whose body is no longer kept would be passed over\n"
    )
    assert world.run("replay", *where, "--dry-run", "--json").json == {"count": 2, "passed_over": 4}
    assert world.run("replay", *where, "--route", "down", "--dry-run", "--json").json["count"] == 0
    ended = world.run("replay", *where)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "2 events replayed\n"
        "3 events that no route wants were passed over\n"
        "1 event whose body is no longer kept was passed over\n"
    )
    ended = world.run("replay", *where, "--route", "down")
    assert (ended.code, ended.err) == (0, "")
    assert "5 events that the route down does not want were passed over\n" in ended.out


def test_a_dry_run_that_cannot_judge_says_at_most(world: World, tmp_path: Path) -> None:
    world.send("nobody", model="elsewhere")
    other = tmp_path / "config.yaml"
    other.write_text(world.config.read_text() + "# another one\n")
    ended = run("replay", "--model", "elsewhere", "--status", "unmatched", "--dry-run", "--config", other)
    assert ended.out == "at most 1 event would be replayed\n"


def test_what_changed_meanwhile_is_passed_over(world: World) -> None:
    with standing_in({}) as there:
        there.answers["GET /logs"] = lambda *_: {"items": [log_item(NOBODY)], "next": None}
        there.answers[f"POST /logs/{NOBODY}/cancel"] = lambda *_: (409, {"error": "conflict", "detail": "it is sent"})
        ended = run("cancel", "--all", "--url", there.url)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out == "0 deliveries cancelled\n1 delivery no longer waiting was passed over\n"
        del there.answers[f"POST /logs/{NOBODY}/cancel"]
        assert "1 delivery gone meanwhile was passed over" in run("cancel", "--all", "--url", there.url).out


def test_what_filters_find_and_cannot_be_forgotten_is_one_line_and_a_failure(world: World) -> None:
    for _ in range(2):
        world.send("slow", model="to-be-sent")
    ended = world.run("forget", "--model", "to-be-sent")
    assert ended.code == 1
    assert ended.out == "0 of 2 done\n"
    [line] = ended.err.splitlines()
    assert line.endswith("is still to be sent: cancel it first (and 1 more like it)")


@pytest.mark.parametrize("args", [["retry"], ["retry", "--dry-run"], ["cancel", "--dry-run"], ["forget"], ["logs"]])
def test_a_route_that_is_nowhere_is_pointed_out(world: World, args: list[str]) -> None:
    ended = world.run(*args, "--route", "dwon,up", "--entry-id", "nobody's", "--since", "1m")
    assert (ended.code, ended.err) == (0, "relay: no route is called 'dwon' (did you mean 'down'?)\n")
    ended = world.run(*args, "--route", "off", "--entry-id", "nobody's")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out


@pytest.mark.parametrize("args", [["retry"], ["cancel", "--dry-run"], ["replay", "--dry-run"], ["forget"], ["logs"]])
def test_a_source_that_is_nowhere_is_pointed_out(world: World, args: list[str]) -> None:
    ended = world.run(*args, "--source", "opne,open", "--entry-id", "nobody's", "--since", "1m")
    assert (ended.code, ended.err) == (0, "relay: no source is called 'opne' (did you mean 'open'?)\n")
    ended = world.run(*args, "--source", "open", "--entry-id", "nobody's")
    assert (ended.code, ended.err) == (0, "")


def test_a_source_that_was_removed_is_not_called_unknown_where_it_has_left_something(world: World) -> None:
    before = world.config.read_text()
    try:
        world.send("nobody", model="of a source that goes")
        world.config.write_text(before.replace("sources: {open:", "sources: {other:"))
        assert world.run("reload").code == 0
        assert world.run("logs", "--source", "open", "--entry-id", "nobody's").err == ""
        assert "no source is called 'opne'" in world.run("logs", "--source", "opne").err
    finally:
        world.config.write_text(before)
        assert world.run("reload").code == 0


def test_a_route_that_is_nowhere_is_pointed_out_without_a_daemon_too(world: World, tmp_path: Path) -> None:
    assert world.run("db", "backup", tmp_path / "relay.db").code == 0
    [port] = free_ports(1)
    text = f"""
admin: {{listen: "127.0.0.1:{port}"}}
server: {{listen: "127.0.0.1:0"}}
sources: {{open: {{type: generic, verify: none}}}}
routes: [{{name: new, to: {{url: "http://127.0.0.1:1"}}}}]
"""
    path = write_config(tmp_path, text)
    assert (
        run("logs", "--route", "nwe", "--config", path).err == "relay: no route is called 'nwe' (did you mean 'new'?)\n"
    )
    assert "no source is called 'opne' (did you mean 'open'?)" in run("logs", "--source", "opne", "--config", path).err
    gone = run("logs", "--route", "up", "--entry-id", "nobody's", "--config", path)
    assert (gone.code, gone.err) == (0, ""), "it has deliveries of a time when it was in the config"
