"""Tables and colours at a terminal, plain text elsewhere, and texts of strangers that do nothing to either."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.cli import colour, screen, term
from tests.cli.running import TOP, free_ports, items_when, run, serving
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
