"""The command line as such: help, wrong usage, exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from relay import __version__
from relay.cli import VERBS, relay
from relay.cli.logs import FILTERS
from relay.logtext import COLUMNS
from relay.web import logquery
from tests.cli.running import TOP, complaint, free_ports, run, run_process
from tests.cli.standin import log_item, standing_in

PAGE = (TOP / "docs" / "cli.md").read_text()


def options(verb: str) -> list[click.Parameter]:
    """Of a verb, and of those below it."""
    found = relay.get_command(click.Context(relay), verb)
    assert found is not None
    below = found.commands.values() if isinstance(found, click.Group) else ()
    return [option for command in (found, *below) for option in command.params]


def test_relay_alone_shows_the_help() -> None:
    ended = run()
    assert ended.code == 0
    assert ended.err == ""
    assert all(re.search(rf"^  {verb} +{text}$", ended.out, re.MULTILINE) for verb, text in VERBS.items())


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_says_what_it_is_for_with_an_example(verb: str) -> None:
    ended = run(verb, "--help")
    assert ended.code == 0
    assert ended.out.startswith(f"Usage: relay {verb}")
    example = ended.out[re.search(r"Examples?:\n", ended.out).end() :]  # type: ignore[union-attr]
    assert f"relay {verb}" in example.partition("Options:")[0]
    assert max(map(len, ended.out.splitlines())) <= 100


def test_every_option_has_a_help_text() -> None:
    for verb in VERBS:
        assert all(option.help for option in options(verb) if isinstance(option, click.Option))


def test_an_option_has_one_name_everywhere() -> None:
    kinds: dict[str, set[str]] = {}
    for verb in VERBS:
        for option in options(verb):
            if option.name in ("config", "url", "token", "as_json", "source"):
                kinds.setdefault(option.name, set()).add(",".join(option.opts))
    assert kinds == {
        "config": {"-c,--config"},
        "url": {"--url"},
        "token": {"--token"},
        "as_json": {"--json"},
        "source": {"source", "--source"},
    }


def test_an_unknown_verb_suggests_the_nearest() -> None:
    assert complaint(run("serv"), 2) == "relay: there is no verb 'serv' (did you mean 'serve'?) (see 'relay --help')"
    assert "did you mean" not in complaint(run("xyzzy"), 2)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["logs", "--rout", "a"], "there is no option '--rout' (did you mean '--route'?) (see 'relay logs --help')"),
        (["send"], "missing argument 'SOURCE' (see 'relay send --help')"),
        (
            ["cancel"],
            "name deliveries (dlv_…), or filters such as --route www, or say --all (see 'relay cancel --help')",
        ),
        (["cancel", "--status", "failed"], "--status takes pending, held here, not 'failed'"),
        (["forget", "--source", ""], "--source is empty"),
        (["replay", "--all", "--since", "2h"], "one at a time: name events (evt_…), or filters"),
        (["replay", "evt_01M85CA5GE9CERZWDHANEQSGCC", "--dry-run"], "--dry-run is for filters and --all"),
        (["send", "a", "--event", "e", "--file", __file__], "--event and --file exclude each other"),
        (["check", "a.yaml", "--config", "b.yaml"], "name the config once"),
        (["show", "nonsense"], "'nonsense' is not an id: expected dlv_… or evt_… or rej_…, as 'relay logs' lists them"),
        (["show", "dlv_../../health"], "is not an id"),
        (["retry", "dlv_1"], "'dlv_1' is not an id: expected dlv_…"),
        (["show", "dlv_01M85CA"], "expected dlv_… or evt_… or rej_… and at least 8 more characters"),
        (["retry", "evt_01M85CA5GE9CERZWDHANEQSGCC"], "is an event's, expected a delivery's id: 'relay show evt_01M85"),
        (["logs", "--url", "nonsense"], "--url takes http://host:port or unix:/path, not 'nonsense'"),
        (["logs", "--url", "http://h:99999"], "--url takes http://host:port"),
        (["logs", "--url", "http://127.0.0.1:1", "--token", "a\nb"], "the token holds what no header can carry"),
        (["sink", "--listen", "here"], "--listen: expected HOST:PORT, got 'here'"),
        (["sink", "--listen", "127.0.0.1:70000"], "--listen: expected HOST:PORT"),
        (["sink", "--fail", "often"], "--fail: expected STATUS:N such as 503:3, got 'often'"),
        (["sink", "--delay", "soon"], "--delay: expected a time such as 2s, got 'soon'"),
        (["sink", "--secret", "hunter2hunter2"], "--secret"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_is_right_and_exit_code_2(args: list[str], said: str) -> None:
    line = complaint(run(*args), 2)
    assert said in line
    assert "hunter2" not in line


def test_filters_have_the_names_that_the_api_gives_them() -> None:
    with standing_in({"GET /logs": lambda query, handler: {"items": [log_item("dlv_1")], "next": None}}) as admin:
        for way in (["--entry_id", "5", "--event_id=evt_1"], ["--entry-id", "5", "--event-id=evt_1"]):
            assert run("logs", *way, "--url", admin.url).code == 0
        assert admin.asked == [("GET /logs", {"entry_id": "5", "event_id": "evt_1"})] * 2
    assert "_id" not in run("logs", "--help").out


def test_both_ways_to_ask_say_the_version() -> None:
    for args in (["version"], ["--version"]):
        assert run(*args).out == f"relay {__version__}\n"


@pytest.mark.parametrize("module", ["relay.cli.version", "relay.__main__", "relay.cli", "relay.cli.term"])
def test_saying_the_version_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{'aiohttp', 'pydantic', 'yaml', 'asyncio'}} & sys.modules.keys()))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TOP)
    assert ended.stdout.strip() == ""


@pytest.mark.parametrize(
    "args",
    [
        ["serve"],
        ["check"],
        ["check", "--no-secrets"],
        ["routes"],
        ["explain", "--source", "a", __file__],
        ["explain", "evt_01M85CA5GE9CERZWDHANEQSGCC"],
        ["send", "a"],
        ["demo"],
        ["logs"],
        ["show", "evt_01M85CA5GE9CERZWDHANEQSGCC"],
        ["retry", "dlv_01M85CA5GE9CERZWDHANEQSGCC"],
        ["retry", "--all"],
        ["cancel", "dlv_01M85CA5GE9CERZWDHANEQSGCC"],
        ["replay", "evt_01M85CA5GE9CERZWDHANEQSGCC"],
        ["forget", "evt_01M85CA5GE9CERZWDHANEQSGCC"],
        ["pause", "--all"],
        ["resume", "a"],
        ["test", "a"],
        ["move", "a", "b"],
        ["windows"],
        ["db", "stats"],
        ["db", "check"],
        ["db", "backup", "copy.db"],
        ["db", "prune"],
        ["reload"],
    ],
)
def test_a_wrong_config_ends_every_verb_with_78_and_all_its_mistakes(args: list[str], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    # A relay that answers is asked all the same: none is at this port, whatever runs on this machine.
    [port] = free_ports(1)
    path.write_text(f"sources: {{a: {{type: storyblock}}}}\nrowtes: []\nadmin: {{listen: '127.0.0.1:{port}'}}\n")
    ended = run(*args, "--config", path)
    assert ended.code == 78
    assert ended.out == ""
    assert f"{path}:1:21: sources.a.type: unknown source type 'storyblock' (did you mean 'storyblok'?)" in ended.err
    assert f"{path}:2:1: rowtes: unknown key (did you mean 'routes'?)" in ended.err


def test_a_config_that_is_not_there_is_78_too(tmp_path: Path) -> None:
    ended = run("check", tmp_path / "config.yaml")
    assert (ended.code, ended.err) == (78, f"{tmp_path / 'config.yaml'}: cannot be read: No such file or directory\n")
    ended = run_process("routes", cwd=tmp_path)
    assert ended.code == 78
    assert "name one with --config or $RELAY_CONFIG" in ended.err


def test_the_config_of_the_environment_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("sources: {a: {type: generic, verify: none}}\n")
    assert run("check", environ={"RELAY_CONFIG": str(path)}).out == f"{path}: ok (1 source, 0 routes)\n"


def test_the_filters_are_those_of_the_admin_side() -> None:
    assert {name.replace("-", "_") for name in FILTERS} == set(logquery.FILTERS)
    assert "error" in COLUMNS


def test_the_page_knows_every_verb_and_every_option_with_an_example() -> None:
    for verb in VERBS:
        section = PAGE.partition(f"\n## {verb}\n")[2].partition("\n## ")[0]
        assert f"relay {verb}" in section, verb
        assert re.search(r"Exit codes?: ", section), verb
        for option in options(verb):
            if isinstance(option, click.Option) and option.name not in ("config", "url", "token"):
                assert option.opts[-1] in section, f"{verb} {option.opts}"
