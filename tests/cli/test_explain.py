"""`explain`: every recorded request of the repository, and how mistakes are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.running import FIXTURES, complaint, free_ports, run, run_process, serving
from tests.harness import write_config

KNOWN = {f"{path.parent.name}/{path.stem}": path for path in sorted(FIXTURES.glob("*/*.json"))}

ROUTES = """
  - name: published
    match: {action: publish, model: ["article*", address], stage: "!draft"}
    to: {url: "https://user.example.com/hook?key=s3cr3t-of-the-query", headers: {X-Api-Key: s3cr3t-of-the-header}}
    sign: [{scheme: standard, secret: whsec_ZXhhbXBsZS1zaWduaW5nLXNlY3JldC0wMDE=}]
  - name: either
    match: {any: [{action: delete}, {model: media}], where: "event.locale == 'en'"}
    to: {url: "https://example.com/", auth: {type: bearer, token: s3cr3t-of-the-bearer}}
  - {name: elsewhere, sources: [other], to: {url: "https://example.com/"}}
  - {name: asleep, enabled: false, to: {url: "https://example.com/"}}
"""


def config(folder: Path, fixture: str, routes: str = ROUTES) -> Path:
    """A config whose source `it` is set up as the fixture says."""
    source = json.loads(KNOWN[fixture].read_text())["source_config"]
    path = folder / "config.yaml"
    sources = {"it": source, "other": {"type": "generic", "verify": "none"}}
    path.write_text(yaml.safe_dump({"sources": sources}, allow_unicode=True) + f"routes:{routes}")
    return path


def explain(folder: Path, fixture: str, *options: str, routes: str = ROUTES) -> Any:
    path = config(folder, fixture, routes)
    return run("explain", "--source", "it", KNOWN[fixture], "--config", path, *options)


def test_each_route_shows_every_clause_with_the_value_it_saw(tmp_path: Path) -> None:
    ended = explain(tmp_path, "strapi/v4-entry-publish")
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.splitlines()[:2] == ["source it, type strapi", "verified: token"]
    blocks = {block.split()[1]: block.splitlines() for block in ended.out.split("\n\n") if block.startswith("route")}
    published = [line.split() for line in blocks["published"]]
    assert published[0] == ["route", "published", "takes", "it"]
    assert published[1:5] == [
        ["yes", "source", "saw", "'it'", "wants", "*"],
        ["yes", "model", "saw", "'address'", "wants", "article*,", "address"],
        ["yes", "stage", "saw", "'published'", "wants", "!draft"],
        ["yes", "action", "saw", "'publish'", "wants", "publish"],
    ]
    either = "\n".join(blocks["either"])
    assert "route either does not take it" in either
    for clause in ("either", "or", "NO   action       saw 'publish'", "NO   model        saw 'address'", "NO   where"):
        assert clause in either
    assert "NO   source       saw 'it'" in "\n".join(blocks["elsewhere"])
    assert "route asleep is disabled" in blocks["asleep"]
    assert ended.out.endswith("taken by published\n")


def test_what_would_go_out_is_shown_with_its_secrets_masked(tmp_path: Path) -> None:
    ended = explain(tmp_path, "strapi/v4-entry-publish")
    assert "would send POST https://user.example.com/hook?key=***" in ended.out
    assert "webhook-signature: ***" in ended.out
    assert "X-Api-Key: ***" in ended.out
    assert '{"event":"entry.publish","createdAt"' in ended.out
    both = ended.out + explain(tmp_path, "strapi/v4-entry-publish", "--json").out
    assert "s3cr3t" not in both
    assert "my-very-secured-token" not in both
    assert "whsec_" not in both


def test_lines_fit_a_hundred_columns_but_for_values_that_cannot_be_broken(tmp_path: Path) -> None:
    ended = explain(tmp_path, "strapi/v4-entry-publish")
    assert max(map(len, ended.out.splitlines())) <= 100


def test_json_says_the_same(tmp_path: Path) -> None:
    report = explain(tmp_path, "strapi/v4-entry-publish", "--json").json
    assert (report["answer"], report["verified"], report["proofs"]) == (200, True, ["token"])
    assert report["event"]["model"] == "address"
    assert report["routes_matched"] == ["published"]
    first, second, *_ = report["routes"]
    assert {"key": "model", "patterns": ["article*", "address"], "saw": ["address"], "matched": True, "change": 0} in (
        first["clauses"]
    )
    assert [clause["key"] for clause in second["clauses"]] == ["any", "where"]
    assert first["request"]["method"] == "POST"
    assert "request" not in second


@pytest.mark.parametrize(
    ("expected", "code", "said"),
    [
        (["published"], 0, ""),
        (["published", "either"], 1, "relay: expected either to take the event\n"),
        (["asleep", "elsewhere"], 1, "relay: expected asleep and elsewhere to take the event\n"),
        (["publisht"], 2, "relay: --expect: there is no route 'publisht' (did you mean 'published'?): there are "),
    ],
)
def test_expect_makes_it_a_check(tmp_path: Path, expected: list[str], code: int, said: str) -> None:
    options = [word for route in expected for word in ("--expect", route)]
    ended = explain(tmp_path, "strapi/v4-entry-publish", *options)
    assert ended.code == code
    assert ended.err.startswith(said)
    assert bool(ended.err) is bool(said)


@pytest.mark.parametrize(
    ("fixture", "reason"),
    [
        ("contentstack/adv-stale", "old"),
        ("hygraph/adv-stale", "old"),
        ("strapi/adv-wrong-token", "wrong"),
        ("storyblok/adv-wrong-secret", "does not fit"),
    ],
)
def test_a_request_that_does_not_prove_itself_is_explained_all_the_same_with_the_reason(
    tmp_path: Path, fixture: str, reason: str
) -> None:
    every = '\n  - {name: all, match: {any: [{event: "*"}, {event: "!?*"}]}, to: {url: "https://example.com/"}}\n'
    ended = explain(tmp_path, fixture, "--expect", "all", routes=every)
    assert ended.code == 0, "routing is what --expect is about"
    verdict = ended.out.splitlines()[1]
    assert verdict.startswith("REJECTED with 401: ")
    assert reason in verdict
    assert "route all takes it" in ended.out


def test_a_body_that_cannot_be_read_is_refused_and_expected_nowhere(tmp_path: Path) -> None:
    ended = explain(tmp_path, "strapi/adv-invalid-utf8")
    assert ended.code == 0
    assert ended.out.splitlines()[1].startswith("REFUSED with 400: the body is not JSON")
    ended = explain(tmp_path, "strapi/adv-invalid-utf8", "--json")
    assert ended.json["event"] is None
    ended = explain(tmp_path, "prismic/adv-not-json", "--expect", "published")
    assert ended.code == 1
    assert "REFUSED with 400" in ended.out


def test_an_event_that_its_source_leaves_out_is_said_to_be_ignored(tmp_path: Path) -> None:
    ended = explain(tmp_path, "strapi/unknown-plugin-event")
    body = {"event": "entry.update", "model": "user", "uid": "plugin::users-permissions.user", "entry": {"id": 1}}
    file = tmp_path / "plugin.json"
    file.write_text(
        json.dumps({"headers": [["Authorization", "Bearer my-very-secured-token"]], "body": json.dumps(body)})
    )
    ended = run("explain", "--source", "it", file, "--config", tmp_path / "config.yaml", "--expect", "published")
    assert ended.code == 1
    assert "verified: token\nignored, not stored: plugin\n" in ended.out


def test_a_bare_body_and_standard_input_will_do(tmp_path: Path) -> None:
    fixture = json.loads(KNOWN["strapi/v4-entry-publish"].read_text())
    body = tmp_path / "body.json"
    body.write_text(fixture["body"])
    path = config(tmp_path, "strapi/v4-entry-publish")
    bare = run("explain", "--source", "it", body, "--config", path, "--expect", "published")
    assert bare.code == 0
    assert "REJECTED with 401: " in bare.out
    piped = run("explain", "--source", "it", "-", "--config", path, stdin=KNOWN["strapi/v4-entry-publish"].read_bytes())
    assert "verified: token" in piped.out


def test_an_event_with_several_changes_says_which_one_each_clause_looked_at(tmp_path: Path) -> None:
    routes = '\n  - {name: tags, match: {model: tag, action: create}, to: {url: "https://example.com/"}}\n'
    ended = explain(tmp_path, "prismic/everything", routes=routes)
    assert "  change 2 " in ended.out
    assert "saw 'tag'" in ended.out
    assert "(change " in ended.out
    [silent] = [line.split("  ")[-1] for line in ended.out.splitlines() if line.startswith("  not said")]
    assert silent == "occurred_at, environment, branch, locale"
    assert "route tags takes it" in ended.out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"headers": [["a"]], "body": ""}', "headers must be a list of [name, value]"),
        ('{"headers": [["a", 1]], "body": ""}', "headers must be a list of [name, value]"),
        ('{"headers": [], "body": {"a": 1}}', "body must be a string"),
        ('{"headers": [], "body_base64": "*"}', "body_base64 cannot be decoded"),
        ('{"headers": [], "body": "\\ud800"}', "body cannot be decoded"),
    ],
)
def test_a_file_that_is_meant_to_be_a_request_and_is_not_is_wrong_usage(
    tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "request.json"
    file.write_text(content)
    path = config(tmp_path, "strapi/v4-entry-publish")
    assert said in complaint(run("explain", "--source", "it", file, "--config", path), 2)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nowhere.json", "--source", "it"], "nowhere.json: there is no such file, nor is it an id"),
        ([str(KNOWN["strapi/v4-entry-publish"])], "say with --source which source it would have come to: it, other"),
        ([str(KNOWN["strapi/v4-entry-publish"]), "--source", "othr"], "no source 'othr' (did you mean 'other'?)"),
        ([str(FIXTURES), "--source", "it"], "cannot be read: Is a directory"),
        (["evt_short"], "'evt_short' is not an id"),
        (["rej_01M85CA5GE9CERZWDHANEQSGCC"], "is a rejected request's, expected an event's or a delivery's id"),
    ],
)
def test_wrong_arguments_say_what_is_right(tmp_path: Path, args: list[str], said: str) -> None:
    path = config(tmp_path, "strapi/v4-entry-publish")
    assert said in complaint(run("explain", *args, "--config", path), 2)


def test_of_an_event_whose_body_is_no_longer_kept_only_what_can_be_told_is_told(tmp_path: Path) -> None:
    """With the daemon, and from its file."""
    posted = "{type: generic, verify: none, map: {model: body.model}}"
    sources = f"sources: {{open: {posted}, other: {{type: github, secret: s}}}}"
    to = "to: {url: 'https://example.com/'}"
    routes = f"""
  - {{name: pages, match: {{model: page, where: "event.action == `null`"}}, {to}}}
  - {{name: posts, match: {{model: post, where: "body.model == 'page'"}}, {to}}}
  - {{name: never, sources: other, match: {{where: "body.model == 'page'"}}, {to}}}
"""
    deciding = f"  - {{name: deep, match: {{model: page, where: \"headers.a == 'b'\"}}, {to}}}\n"

    listen = "server: {{listen: '127.0.0.1:{}'}}\nadmin: {{listen: '127.0.0.1:{}'}}".format(*free_ports(2))

    def config(text: str) -> Path:
        return write_config(tmp_path, f"{listen}\n{sources}\nroutes:{text}")

    body = tmp_path / "body.json"
    body.write_text('{"model": "page"}')
    with serving(config(" []")) as relay:
        where = ("--config", relay.config)
        event_id = run("send", "open", "--file", body, *where).out.split()[1]
        config(routes)
        assert "would send POST" in run("explain", event_id, *where).out
        assert run("forget", event_id, *where).code == 0
        online = run("explain", event_id, *where)
    ended = run_process("explain", event_id, "--expect", "pages", *where)
    assert ended == online
    assert ended.code == 0
    assert "its body is no longer kept: nothing would be sent, and 'relay replay' refuses it" in ended.out
    assert "would send" not in ended.out
    assert "taken by pages" in ended.out
    assert ended.out.count("  ?    where        wants body.model == 'page'  (the body is no longer kept)") == 2
    report = run("explain", event_id, *where, "--json").json
    assert report["body_kept"] is False
    assert [route["clauses"][-1]["matched"] for route in report["routes"]] == [True, None, None]
    assert not [route for route in report["routes"] if "request" in route]
    config(routes + deciding)
    assert complaint(run("explain", event_id, *where), 1) == (
        f"relay: the body of {event_id} is no longer kept, and where looks at it: whether deep would take it cannot be"
        " told, and 'relay replay' refuses it"
    )


def test_every_fixture_is_explained_with_the_answer_that_the_daemon_gives(tmp_path: Path) -> None:
    """But for those whose time has run out since they were recorded: those say so."""
    sources = {f"fx-{n}": json.loads(path.read_text())["source_config"] for n, path in enumerate(KNOWN.values())}
    path = tmp_path / "config.yaml"
    path.write_text(
        yaml.safe_dump({"sources": sources}, allow_unicode=True) + "routes:" + ROUTES.replace("[other]", "[fx-0]")
    )
    from datetime import UTC, datetime

    from relay.cli import explain as verb
    from relay.config import load
    from relay.runtime import build

    now = datetime.fromtimestamp(1732363200, UTC)  # the time of the fixtures' signatures
    runtime = build(load(path), 1, now)
    for number, (name, file) in enumerate(KNOWN.items()):
        fixture = json.loads(file.read_text())
        report = verb._of_file(runtime, f"fx-{number}", verb._inbound(str(file)), now)
        answer = report["answer"]
        assert answer == fixture["status"], name
        if answer == 200 and report["event"] is not None:
            assert report["event"]["changes"] == fixture["expected"]["changes"], name
        page = verb.page(report, 100)
        assert page.isascii() or all(c.isprintable() or c == "\n" for c in page), name
