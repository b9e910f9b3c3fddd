"""Tables and colours at a terminal, plain text elsewhere, and texts of strangers that do nothing to either."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.cli import colour, routes, screen, term
from tests.cli.running import TOP, free_ports, items_when, run, serving
from tests.cli.standin import log_item, standing_in
from tests.cli.test_daemon_verbs import at_terminal, sent_id
from tests.harness import RelayProcess, write_config

SGR = re.compile(r"\x1b\[[0-9;]*m")
HOSTILE = "[red]x[/red] :skull: \x1b[2J\x1b]0;owned\x07 \r\n\u202eevil \u200b漢字漢字"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    text = """
server: {{listen: "127.0.0.1:{}"}}
admin: {{listen: "127.0.0.1:{}"}}
sources: {{open: {{type: generic, verify: none, map: {{event: body.event, action: body.action, model: body.model}}}}}}
routes: [{{name: down, to: {{url: "http://127.0.0.1:{}"}}, retry: none}}]
""".format(*free_ports(3))
    folder = tmp_path_factory.mktemp("terminal")
    with serving(write_config(folder, text)) as relay:
        body = folder / "body.json"
        body.write_text(json.dumps({"event": HOSTILE, "action": "publish", "model": HOSTILE}))
        sent_id(run("send", "open", "--file", body, "--config", relay.config))
        items_when(relay.admin, lambda items: items and items[0]["status"] == "failed")
        yield relay


def plain(lines: list[str]) -> list[str]:
    return [SGR.sub("", line) for line in lines]


@pytest.mark.parametrize("verb", ["logs", "show", "explain", "routes", "windows", "check", "sources"])
def test_colours_are_for_terminals_alone(served: RelayProcess, verb: str) -> None:
    where = ["--config", str(served.config)] if verb != "sources" else []
    if verb in ("show", "explain"):
        where = [item(served)["id"], *where]
    coloured = at_terminal(120, verb, *where, colours=True)
    assert SGR.search("".join(coloured))
    assert not SGR.search("".join(at_terminal(120, verb, *where)))  # NO_COLOR
    assert "\x1b" not in run(verb, *where).out
    assert all(term.printable(line) == line for line in plain(coloured)), "something else than colours got through"


def item(served: RelayProcess) -> dict[str, Any]:
    found: dict[str, Any] = run("logs", "--json", "--config", served.config).json["items"][0]
    return found


def test_what_strangers_wrote_stays_one_line_and_says_what_it_is(served: RelayProcess) -> None:
    lines = plain(at_terminal(400, "logs", "--config", str(served.config), colours=True))
    assert len(lines) == 3  # header, delivery, its error
    assert "[red]x[/red] :skull: \\x1b[2J\\x1b]0;owned\\x07 \\r\\n\\u202eevil \\u200b漢字漢字" in lines[1]


def test_wide_characters_take_two_columns_at_a_terminal() -> None:
    lines = screen.table(("a", "b"), [("漢字漢字漢字漢字漢字漢字", "x"), ("plain", "y")], ("a",), 20)
    assert [term_width(line) for line in lines[1:]] == [20, 20]
    assert lines[1].endswith("…   x") or lines[1].endswith("…  x")


def term_width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


@pytest.mark.parametrize("room", [20, 60, 100, 300])
def test_no_line_is_wider_than_the_terminal(room: int) -> None:
    rows = [("dlv_01M85CA5GE9CETFWDHANEQSGCC", "failed", "a" * 200), ("dlv_1", "held", HOSTILE)]
    lines = screen.table(("id", "status", "event"), rows, ("event",), room)
    assert len(lines) == 3
    assert max(map(term_width, lines)) <= room


def test_a_state_has_one_colour_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colour, "wanted", lambda: True)
    assert colour.word("failed") == "\x1b[31mfailed\x1b[0m"
    assert colour.word("a route's name") == "a route's name"
    assert "\x1b[31mfailed" in "".join(screen.table(("status",), [("failed",)], (), 40))


@pytest.mark.parametrize("args", [["version"], ["schema"], ["logs"], ["routes"], ["check"]])
def test_rich_is_not_even_loaded_where_nobody_looks(served: RelayProcess, args: list[str]) -> None:
    where = [] if args in (["version"], ["schema"]) else ["--config", str(served.config)]
    code = (
        "import sys\nfrom relay.cli import relay\ntry:\n    relay(sys.argv[1:], 'relay')\n"
        "finally:\n    print('rich' in sys.modules, file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *args, *where], capture_output=True, text=True, check=True, cwd=TOP
    )
    assert ended.stderr.splitlines()[-1] == "False"
    assert ended.stdout


def test_check_as_json_has_the_place_of_each_mistake(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("rowtes: []\nsources: {a: {type: storyblok, secret: short}}\n")
    ended = run("check", path, "--json")
    assert (ended.code, ended.err) == (78, "")
    assert ended.json["ok"] is False
    [problem] = ended.json["problems"]
    assert (problem["line"], problem["col"], problem["path"]) == (1, 1, "rowtes")
    assert ended.json["warnings"]
    path.write_text("{}")
    assert run("check", path, "--json").json == {"ok": True, "problems": [], "warnings": []}


LONG = {"source": "a-source-of-a-length", "model": "landing-page", "entry_id": "b2f1c0de-0000-4000-8000-000000000000"}


@pytest.mark.parametrize(
    ("columns", "header"),
    [
        (60, "ID UTC STATUS ROUTE TRIES CODE"),
        (80, "ID TIME (UTC) STATUS ROUTE EVENT ATTEMPTS CODE"),
        (100, "ID TIME (UTC) STATUS ROUTE SOURCE EVENT ENTRY_ID ATTEMPTS CODE"),
        (120, "ID TIME (UTC) STATUS ROUTE SOURCE EVENT MODEL ENTRY_ID ATTEMPTS CODE"),
    ],
)
def test_the_log_keeps_what_matters_at_every_width(columns: int, header: str) -> None:
    error = {"code": "http_error", "message": "HTTP 503 " + "x" * 200}
    said = {**LONG, "route": "rebuild-the-whole-site", "attempts": 12, "code": 503, "error": error}
    ids = ("dlv_01M85CA5GE9CETFWDHANEQSGCC", "dlv_01M85CA5GE9CETVWDHANEQSGCC")
    with standing_in({}) as there:
        there.answers["GET /logs"] = lambda *_: {"items": [log_item(one, **said) for one in ids], "next": None}
        head, first, error_line, second, _ = at_terminal(columns, "logs", "--url", there.url)
    assert head.split() == header.split()
    assert "…" not in head
    for line, id_text in ((first, ids[0]), (second, ids[1])):
        assert len(line) <= columns
        assert id_text.startswith(line.split()[0])
        assert len(line.split()[0]) >= 14
        assert "delivered  rebuild" in line
        assert line.split()[-2:] == ["12", "503"]
    assert error_line.startswith("    http_error: HTTP 503 xxx")


def test_ids_stay_apart_where_there_is_room_for_that() -> None:
    ids = ("dlv_01M85CA5GE9CETFWDHANEQSGCC", "dlv_01M85CA5GE9CETVWDHANEQSGCC")
    header, rows = ("id", "status", "event"), [(one, "delivered", "e" * 40) for one in ids]
    assert [line.split()[0] for line in screen.table(header, rows, ("event",), 60)[1:]] == [one[:19] for one in ids]
    assert [line.split()[0] for line in screen.table(header, rows, ("event",), 120)[1:]] == list(ids)


@pytest.mark.parametrize("columns", [60, 70, 80, 100, 120])
def test_windows_keep_when_they_are_due_and_whether_they_are_held(columns: int) -> None:
    window = {
        "id": "dlv_01M85CA5GE9CETFWDHANEQSGCC", "route": "rebuild-the-whole-site", "events": ["a"] * 12, "held": True,
        "opened_at": "2026-11-23T20:00:00.000Z", "due_at": "2026-11-24T21:00:00.000Z",
    }  # fmt: skip
    with standing_in({"GET /windows": lambda *_: {"items": [window]}}) as there:
        head, line = at_terminal(columns, "windows", "--url", there.url)
    assert head.split()[:3] == ["ID", "ROUTE", "EVENTS"]
    assert head.split()[-2:] == ["DUE_AT", "HELD"]
    assert max(len(head), len(line)) <= columns
    assert line.split()[2] == "12"
    assert re.search(r"11-24[ T]21:00:00", line)
    assert line.endswith("yes")


ROUTES = """
server: {{listen: "127.0.0.1:0"}}
sources: {{open: {{type: generic, verify: none}}}}
admin: {{listen: "127.0.0.1:{}"}}
routes:
  - {{name: up, to: {{url: "http://127.0.0.1:1/up"}}, description: all that happens}}
  - {{name: down, to: {{url: "http://127.0.0.1:1/down"}}}}
"""


def health(name: str, **said: Any) -> dict[str, Any]:
    """A route of `GET /routes`."""
    return {
        "name": name, "state": "healthy", "reason": None, "since": None, "pending": 0, "held": 0,
        "consecutive_failures": 0, "last_success_at": None, "last_error": None, "next_probe_at": None,
    } | said  # fmt: skip


def test_routes_say_how_they_are_doing_where_a_daemon_answers(tmp_path: Path) -> None:
    path = write_config(tmp_path, ROUTES.format(*free_ports(1)))
    error = {"code": "timeout", "message": "no answer within 10 s"}
    down = health("down", state="unhealthy", pending=1234, held=7, last_error=error, since="2026-11-23T20:00:00.000Z")
    with standing_in({"GET /routes": lambda *_: {"routes": [health("up"), down], "removed": []}}) as there:
        where = ["--config", str(path), "--url", there.url]
        shown = run("routes", *where).out.splitlines()
        assert shown[0].split("  ")[0] == "ROUTE"
        assert [word for word in shown[0].split() if word != "ENABLED"] == (
            ["ROUTE", "STATE", "PENDING", "HELD", "SOURCES", "TO", "LAST", "ERROR", "DESCRIPTION"]
        )
        assert shown[2].split()[2:5] == ["unhealthy", "1234", "7"]
        assert shown[2].endswith("timeout: no answer within 10 s")
        assert [route["health"] for route in run("routes", "--json", *where).json] == [health("up"), down]
        assert "health" not in run("routes", "--expanded", *where).json[0]
        for columns in (60, 80, 120):
            lines = at_terminal(columns, "routes", *where)
            assert max(map(len, lines)) <= columns
            assert {"ROUTE", "STATE", "PENDING", "HELD", "LAST"} <= set(lines[0].split())
            assert {"unhealthy", "1234", "7", "timeout:"} <= set(lines[2].split())


def test_routes_need_no_daemon(tmp_path: Path) -> None:
    path = write_config(tmp_path, ROUTES.format(*free_ports(1)))
    ended = run("routes", "--config", path)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[0].split() == ["ROUTE", "ENABLED", "SOURCES", "TO", "DESCRIPTION"]
    assert "health" not in run("routes", "--config", path, "--json").json[0]
    ended = run("routes", "--config", path, "--url", "http://127.0.0.1:1")
    assert (ended.code, len(ended.out.splitlines()), len(ended.err.splitlines())) == (0, 3, 1)
    with standing_in({"GET /routes": lambda *_: (401, {"error": "unauthorized", "detail": "no"})}) as there:
        ended = run("routes", "--config", path, "--url", there.url)
    assert (ended.code, len(ended.out.splitlines())) == (0, 3)
    assert "wants a token" in ended.err
    path = write_config(tmp_path, ROUTES.format(0))
    ended = run("routes", "--config", path)
    assert (ended.code, ended.err) == (0, "")


def test_routes_do_not_wait_for_a_daemon_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_PATIENCE", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        path = write_config(tmp_path, ROUTES.format(silent.getsockname()[1]))
        ended = run("routes", "--config", path)
    assert (ended.code, ended.err) == (0, "")
    assert len(ended.out.splitlines()) == 3
