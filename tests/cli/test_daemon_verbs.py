"""`logs`, `show`, `retry`, `reload`, `explain ID`, `send`: with a real relay process, and after it is gone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import socket
import struct
import termios
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from relay.cli import hand
from relay.source import types
from tests.cli.running import (
    Ended,
    Talking,
    command,
    complaint,
    free_ports,
    items_when,
    run,
    run_process,
    serving,
    talking,
)
from tests.harness import PATIENCE, write_config

TOKEN = "an-admin-token-of-32-characters!"
READER = "a-token-that-may-read-and-no-more"
SECRET = "s3cr3t-of-all-these-sources"
WHSEC = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"

SOURCES = f"""
sources:
  storyblok: {{type: storyblok, secret: {SECRET}}}
  strapi: {{type: strapi, token: {SECRET}}}
  contentstack: {{type: contentstack, secret: {SECRET}}}
  prismic: {{type: prismic, secret: {SECRET}}}
  hygraph: {{type: hygraph, secret: {SECRET}}}
  standard: {{type: standard, secret: {WHSEC}}}
  github: {{type: github, secret: {SECRET}}}
  stripe: {{type: stripe, secret: {SECRET}}}
  generic: {{type: generic, hmac: {{header: X-Sig, algorithm: sha256, encoding: hex, secret: {SECRET}}}}}
  theirs: {{type: standard, public_key: whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=}}
  open: {{type: generic, verify: none, map: {{event: body.event, model: "'page'", action: body.action}}}}
"""


@dataclass(frozen=True)
class World:
    """A relay process, where it sends to, and how to reach it."""

    folder: Path
    config: Path
    public: str
    admin: str
    sink: Talking
    where: tuple[str, ...] = field(default=())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with talking(folder, "sink", "--listen", "127.0.0.1:0", "--secret", WHSEC) as sink:
        url = "http://" + sink.wait_for("listening on").rpartition(" ")[2]
        public, admin, nowhere = free_ports(3)
        text = f"""
server: {{listen: "127.0.0.1:{public}"}}
admin: {{listen: "127.0.0.1:{admin}", token: "{TOKEN}", tokens: {{ci: {{token: "{READER}", scope: read}}}}}}
{SOURCES}
routes:
  - name: all
    match: {{action: "!fail"}}
    to: {{url: "{url}/all", headers: {{X-Api-Key: {SECRET}}}}}
    sign: [{{scheme: standard, secret: {WHSEC}}}]
  - name: broken
    sources: [open]
    match: {{action: fail}}
    to: {{url: "http://127.0.0.1:{nowhere}/"}}
    retry: {{policy: none}}
"""
        with serving(write_config(folder, text)) as relay:
            yield World(folder, relay.config, relay.public, relay.admin, sink, ("--config", str(relay.config)))


def body_file(folder: Path, body: dict[str, Any]) -> Path:
    path = folder / "body.json"
    path.write_text(json.dumps(body, ensure_ascii=False))
    return path


def send(world: World, source: str, *options: str | Path) -> Ended:
    return run("send", source, *options, *world.where)


def sent_id(ended: Ended) -> str:
    assert ended.code == 0, ended
    status, event_id, *_ = ended.out.split()
    assert status == "200"
    assert event_id.startswith("evt_")
    return event_id


def logs(world: World, *options: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = run("logs", "--json", *options, *world.where).json["items"]
    return items


def ended_item(world: World, event_id: str) -> dict[str, Any]:
    """The one delivery of an event, once it is settled."""
    [item] = items_when(
        world.admin,
        lambda items: items and items[0]["status"] in ("delivered", "failed"),
        "--event-id", event_id, "--token", TOKEN,
    )  # fmt: skip
    return item


def assert_no_secret(ended: Ended) -> None:
    for secret in (SECRET, TOKEN, WHSEC, WHSEC.removeprefix("whsec_"), READER):
        assert secret not in ended.out + ended.err


# --- send -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "sample"),
    [
        ("strapi", "entry.publish"), ("strapi", "media.create"), ("strapi", "trigger-test"),
        ("contentstack", "entry.publish"), ("contentstack", "asset.create"),
        ("prismic", "document-published"), ("prismic", "release-created"), ("prismic", "tag-added"),
    ],
)  # fmt: skip
def test_each_sample_that_is_sent_is_an_event_of_its_own(world: World, source: str, sample: str) -> None:
    ended = [send(world, source, "--event", sample) for _ in range(2)]
    assert all(one.code == 0 for one in ended), ended
    assert "duplicate" not in "".join(one.out for one in ended)


@pytest.mark.parametrize("name", [name for name in sorted(types()) if name != "graphcms"])
def test_a_sample_of_each_type_is_taken_and_delivered(world: World, name: str) -> None:
    ended = send(world, name)
    assert_no_secret(ended)
    item = ended_item(world, sent_id(ended))
    assert (item["type"], item["status"], item["code"]) == (name, "delivered", 200)
    assert item["id"] in world.sink.wait_for(item["id"])
    assert "signature verified" in world.sink.wait_for(item["id"])


def test_each_named_sample_can_be_sent(world: World) -> None:
    event_id = sent_id(send(world, "strapi", "--event", "media.create"))
    [item] = logs(world, "--event-id", event_id)
    assert (item["event"], item["model"]) == ("media.create", "media")


def test_a_body_and_a_recorded_request_are_signed_anew(world: World, tmp_path: Path) -> None:
    body = '{"ref":"refs/heads/main"}'
    bare = tmp_path / "bare.json"
    bare.write_text(body)
    assert sent_id(send(world, "github", "--file", bare))
    recorded = tmp_path / "recorded.json"
    headers = [
        ["X-GitHub-Event", "push"],
        ["X-GitHub-Delivery", "d-1"],
        ["X-Hub-Signature-256", "sha256=00"],
        ["Host", "h"],
    ]
    recorded.write_text(json.dumps({"headers": headers, "body": body}))
    event_id = sent_id(send(world, "github", "--file", recorded))
    assert logs(world, "--event-id", event_id)[0]["event"] == "push"


def test_a_proof_that_only_the_sender_can_make_is_said(world: World) -> None:
    line = complaint(send(world, "theirs"), 1)
    assert line == "relay: only the sender can sign for public_key: it alone holds the private key"


def test_to_takes_the_address_of_relay_or_of_the_source(world: World) -> None:
    for to in (world.public, world.public + "/", world.public + "/in/strapi"):
        assert sent_id(send(world, "strapi", "--to", to))


def test_what_sending_needs_is_said_in_one_line(world: World) -> None:
    assert complaint(send(world, "strapy"), 2).startswith(
        "relay: there is no source 'strapy' (did you mean 'strapi'?): there are storyblok, strapi"
    )
    assert complaint(send(world, "strapi", "--event", "entry.publihs"), 2).startswith(
        "relay: there is no sample 'entry.publihs' of strapi (did you mean 'entry.publish'?): there are entry.create"
    )
    assert "does not exist" in complaint(send(world, "strapi", "--file", "/nowhere.json"), 2)
    [port] = free_ports(1)
    line = complaint(send(world, "strapi", "--to", f"http://127.0.0.1:{port}"), 1)
    assert line.startswith(f"relay: nobody answers at http://127.0.0.1:{port} (")
    assert line.endswith("start relay with 'relay serve', or say --to")
    assert "--to" in complaint(send(world, "strapi", "--to", "nonsense"), 1)
    assert "answered 404 not_found" in complaint(send(world, "strapi", "--to", world.public + "/elsewhere"), 1)


def test_a_sample_that_is_refused_fails_and_says_where_the_reason_is(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("sources: {strapi: {type: strapi, token: another-token-altogether}}\n")
    line = complaint(run("send", "strapi", "--config", other, "--to", world.public), 1)
    assert line == "relay: strapi answered 401 unauthenticated: 'relay logs --status rejected' says why"
    [item, *_] = items_when(world.admin, bool, "--status", "rejected", "--token", TOKEN)
    assert (item["source"], item["code"]) == ("strapi", 401)
    shown = run("show", item["id"], *world.where)
    assert "reason      the bearer token is wrong" in shown.out
    assert "Authorization    ***" in shown.out
    assert "another-token" not in shown.out


def test_send_as_json_is_the_answer(world: World) -> None:
    answer = send(world, "open", "--json").json
    assert answer["status"] == 200
    assert answer["answer"]["routes"] == ["all"]


# --- logs, show, retry ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def failed(world: World) -> dict[str, Any]:
    """A delivery that failed, of an event whose every text tries to move the cursor."""
    nasty = {"event": "\x1b[2Jwiped\x07 \u202eevil", "action": "fail", "note": "line one\nline two \x1b]0;title\x07"}
    return ended_item(world, sent_id(send(world, "open", "--file", body_file(world.folder, nasty))))


def test_logs_show_the_error_with_its_code(world: World, failed: dict[str, Any]) -> None:
    ended = run("logs", "--status", "failed", "--route", "broken", *world.where)
    header, line, *_ = ended.out.splitlines()
    assert header.split()[-1] == "ERROR"
    assert line.startswith(failed["id"])
    assert "connect_error: " in line
    assert failed["error"]["message"] in line


def test_plain_output_is_free_of_control_characters_whatever_the_payload_holds(
    world: World, failed: dict[str, Any]
) -> None:
    shown = [run(*args, *world.where) for args in (
        ["logs"], ["show", failed["id"]], ["show", failed["event_id"]], ["explain", failed["event_id"]],
    )]  # fmt: skip
    assert all("\\x1b[2Jwiped\\x07 \\u202eevil" in ended.out for ended in shown)
    for ended in shown:
        assert ended.code == 0
        assert_no_secret(ended)


def test_filters_are_options_and_may_be_repeated(world: World, failed: dict[str, Any]) -> None:
    sent_id(send(world, "open"))
    assert {item["route"] for item in logs(world, "--route", "broken", "--route", "all")} == {"broken", "all"}
    assert {item["route"] for item in logs(world, "--route", "broken,all")} == {"broken", "all"}
    assert [item["id"] for item in logs(world, "--event-id", failed["event_id"], "--since", "1h")] == [failed["id"]]
    assert logs(world, "--until", "1h") == []
    first = run("logs", "--limit", "1", "--json", *world.where).json
    [second] = logs(world, "--limit", "1", "--cursor", first["next"])
    assert second["id"] < first["items"][0]["id"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--status", "fialed"], "status takes "),
        (["--since", "yesterday"], "since takes a time such as 2026-11-23T20:00:00Z or an age such as 2h"),
        (["--limit", "0"], "limit takes a number from 1 to 1000, not '0'"),
        (["--order", "random"], "order takes asc or desc"),
    ],
)  # fmt: skip
def test_a_wrong_filter_is_wrong_usage(world: World, options: list[str], said: str) -> None:
    assert said in complaint(run("logs", *options, *world.where), 2)


def test_show_says_everything_of_a_delivery_with_the_secrets_masked(world: World, failed: dict[str, Any]) -> None:
    ended = run("show", failed["id"], *world.where)
    for part in ("delivery\n", "\nattempts\n", "\nevent\n", "\nheaders\n", "\nbody\n", "connect_error: "):
        assert part in ended.out
    assert '\n  {"event": "' in ended.out
    delivered = sent_id(send(world, "strapi"))
    [item] = [ended_item(world, delivered)]
    ended = run("show", item["id"], *world.where)
    assert "HTTP 200" in ended.out
    assert '| {"received": true}' in ended.out
    assert "Authorization    ***" in ended.out
    assert_no_secret(ended)
    answer = run("show", item["id"], "--json", *world.where)
    assert answer.json["attempts"][0]["response"]["status"] == 200
    assert_no_secret(answer)


def test_show_of_an_event_lists_its_deliveries(world: World, failed: dict[str, Any]) -> None:
    ended = run("show", failed["event_id"], *world.where)
    assert f"  {failed['id']}  failed  to broken" in ended.out


def test_an_id_that_is_not_there_is_said(world: World) -> None:
    strange = "dlv_01M85CA5GE9CETFWDHANEQSGCC"
    for verb in ("show", "retry", "explain"):
        assert strange in complaint(run(verb, strange, *world.where), 1)


def test_retry_sends_again_and_a_delivered_one_is_refused(world: World, failed: dict[str, Any]) -> None:
    delivered = ended_item(world, sent_id(send(world, "github")))
    ended = run("retry", delivered["id"], failed["id"], *world.where)
    assert ended.code == 1
    assert ended.out == f"{failed['id']}: pending, due now\n"
    [line] = ended.err.splitlines()
    assert line.startswith(f"relay: {delivered['id']} cannot be retried: it was delivered")
    [again] = items_when(
        world.admin,
        lambda items: items[0]["attempts"] == 2 and items[0]["status"] == "failed",
        "--event-id", failed["event_id"], "--token", TOKEN,
    )  # fmt: skip
    assert again["id"] == failed["id"]
    assert "  2  " in run("show", failed["id"], *world.where).out
    assert run("retry", failed["id"], *world.where).code == 0


def test_an_event_is_explained_by_its_id_under_todays_config(
    world: World, failed: dict[str, Any], tmp_path: Path
) -> None:
    ended = run("explain", failed["event_id"], "--expect", "broken", *world.where)
    assert ended.code == 0
    assert "verified: when it was accepted" in ended.out
    assert "route broken takes it" in ended.out
    today = tmp_path / "config.yaml"
    today.write_text(world.config.read_text().replace("action: fail}", "action: never}"))
    ended = run("explain", failed["id"], "--expect", "broken", "--config", today)
    assert (ended.code, ended.err) == (1, "relay: expected broken to take the event\n")
    assert "NO   action       saw 'fail'            wants never" in ended.out


# --- tokens and addresses ---------------------------------------------------------------------------------------------


def test_a_wrong_token_says_what_to_do(world: World) -> None:
    for args in (
        ["logs"],
        ["show", "dlv_01M85CA5GE9CETFWDHANEQSGCC"],
        ["retry", "dlv_01M85CA5GE9CETFWDHANEQSGCC"],
        ["reload"],
    ):
        line = complaint(run(*args, "--url", world.admin, "--token", "wrong"), 1)
        assert line == (
            f"relay: the relay at {world.admin} refuses this token: "
            "give one of its admin tokens with --token or $RELAY_TOKEN"
        )
        assert "wants a token: give one" in complaint(run(*args, "--url", world.admin), 1)


def test_a_token_that_may_only_read_is_told_so(world: World) -> None:
    environ = {"RELAY_URL": world.admin, "RELAY_TOKEN": READER}
    assert run("logs", environ=environ).code == 0
    assert complaint(run("reload", environ=environ), 1) == "relay: the token 'ci' may only read"


def test_an_address_that_is_not_the_admin_side_is_said(world: World) -> None:
    for url in (world.public, f"http://{world.sink.wait_for('listening').rpartition(' ')[2]}"):
        line = complaint(run("logs", "--url", url, "--token", TOKEN), 1)
        assert (
            line == f"relay: what answers at {url} is not relay's admin side: --url takes the address of admin.listen"
        )


def test_no_daemon_is_said_with_what_to_do(tmp_path: Path) -> None:
    [port] = free_ports(1)
    path = write_config(tmp_path, f'server: {{listen: "127.0.0.1:0"}}\nadmin: {{listen: "127.0.0.1:{port}"}}\n')
    for args in (
        ["retry", "dlv_01M85CA5GE9CETFWDHANEQSGCC"],
        ["reload"],
        ["logs"],
        ["show", "evt_01M85CA5GE9CETFWDHANEQSGCC"],
    ):
        line = complaint(run(*args, "--config", path), 1)
        assert f"no relay answers at http://127.0.0.1:{port} (Connection refused): start it with 'relay serve'" in line
    assert f"nor is there a store to read at {tmp_path / 'relay.db'}" in complaint(run("logs", "--config", path), 1)
    assert "unix:/nowhere" in complaint(run("logs", "--url", "unix:/nowhere"), 1)


def test_a_daemon_that_takes_its_time_is_not_taken_for_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "PATIENCE", 0.05)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        said = f"relay: the relay at {url} has not answered for 0.05 s: it may still be at work"
        assert complaint(run("reload", "--url", url), 1) == said
        assert complaint(run("retry", "dlv_01M85CA5GE9CETFWDHANEQSGCC", "--url", url), 1) == said


def test_secrets_that_only_the_service_has_are_not_needed_to_ask_it(world: World, tmp_path: Path) -> None:
    mine = tmp_path / "config.yaml"
    mine.write_text(world.config.read_text().replace(f"token: {SECRET}", 'token: "${credential:strapi}"'))
    assert run("check", mine).code == 78
    assert run("logs", "--config", mine, "--token", TOKEN).code == 0


# --- reload -----------------------------------------------------------------------------------------------------------


def test_reload_says_what_changed_or_every_mistake_and_the_old_one_stays(world: World) -> None:
    before = world.config.read_text()
    try:
        world.config.write_text(before.replace("name: broken", "name: mended"))
        ended = run("reload", *world.where)
        assert ended.code == 0
        assert ended.out.splitlines()[0].startswith("generation ")
        assert "mended" in ended.out
        assert "broken" in ended.out
        world.config.write_text(before.replace("routes:", "rowtes:"))
        for where in (world.where, ("--url", world.admin, "--token", TOKEN)):
            ended = run("reload", *where)
            assert ended.code == 78
            assert ended.out == ""
            first, *_, last = ended.err.splitlines()
            assert first.endswith("rowtes: unknown key (did you mean 'routes'?)")
            assert last == "relay: the config was not taken; the running one stays"
    finally:
        world.config.write_text(before)
    assert run("reload", *world.where).code == 0


# --- a terminal -------------------------------------------------------------------------------------------------------


def at_terminal(columns: int, *args: str, colours: bool = False) -> list[str]:
    """The lines of a verb at a terminal of so many columns."""
    import subprocess

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    env |= {"TERM": "xterm-256color"} if colours else {"NO_COLOR": "1"}
    process = subprocess.Popen(command(*args), stdout=slave, stderr=subprocess.DEVNULL, env=env)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other side is gone
        while chunk := os.read(master, 65536):
            shown += chunk
    os.close(master)
    assert process.wait(PATIENCE) == 0
    return shown.decode().replace("\r\n", "\n").splitlines()


def test_logs_fit_a_terminal_of_a_hundred_columns(world: World, failed: dict[str, Any]) -> None:
    lines = at_terminal(100, "logs", "--status", "failed,delivered", *world.where)
    assert max(map(len, lines)) <= 100
    assert lines[0].split()[:4] == ["ID", "TIME", "(UTC)", "STATUS"]
    assert lines[0].split()[-2:] == ["ATTEMPTS", "CODE"]
    place = next(n for n, line in enumerate(lines) if failed["id"].startswith(line.split()[0]))
    assert lines[place].split()[3] == "failed"
    assert lines[place + 1].startswith("    connect_error: ")


def test_a_wide_terminal_shows_more(world: World, failed: dict[str, Any]) -> None:
    assert "ENTRY_ID" in at_terminal(240, "logs", *world.where)[0]


# --- without a daemon, and by a unix socket ---------------------------------------------------------------------------


def test_without_a_daemon_logs_show_and_explain_read_the_file(tmp_path: Path) -> None:
    text = """
server: {{listen: "127.0.0.1:{}"}}
admin: {{listen: "127.0.0.1:{}"}}
sources: {{open: {{type: generic, verify: none, map: {{action: body.action}}}}}}
routes: [{{name: r, to: {{url: "http://127.0.0.1:{}/"}}, retry: {{policy: none}}}}]
""".format(*free_ports(3))  # fmt: skip
    where = ("--config", str(tmp_path / "config.yaml"))
    with serving(write_config(tmp_path, text)) as relay:
        event_id = sent_id(run("send", "open", *where))
        [item] = items_when(relay.admin, lambda items: items and items[0]["status"] == "failed")
        online = [
            run(*args, *where) for args in (["logs"], ["logs", "--json"], ["show", item["id"]], ["show", event_id])
        ]
    offline = [
        run_process(*args, *where) for args in (["logs"], ["logs", "--json"], ["show", item["id"]], ["show", event_id])
    ]
    assert offline == online
    assert run("logs", "--status", "delivered", "--json", *where).json == {"items": [], "next": None}
    assert run("explain", item["id"], "--expect", "r", *where).code == 0
    assert "status takes" in complaint(run("logs", "--status", "fialed", *where), 2)
    assert "evt_01" in complaint(run("show", "evt_01M85CA5GE9CETFWDHANEQSGCC", *where), 1)
    assert "no relay answers" in complaint(run("logs", "--url", relay.admin), 1)
    assert "no relay answers" in complaint(run("retry", item["id"], *where), 1)
    (tmp_path / "relay.db").write_bytes(b"These are my holiday photos. " * 400)
    assert "its store cannot be read" in complaint(run("logs", *where), 78)


def test_everything_works_by_unix_sockets(tmp_path: Path) -> None:
    text = f"""
server: {{listen: {{unix: {tmp_path}/in.sock}}}}
admin: {{listen: {{unix: {tmp_path}/admin.sock}}}}
sources: {{open: {{type: generic, verify: none}}}}
routes: [{{name: r, enabled: false, to: {{url: "http://127.0.0.1:1/"}}}}]
"""
    with serving(write_config(tmp_path, text)) as relay:
        where = ("--config", str(relay.config))
        event_id = sent_id(run("send", "open", *where))
        assert run("show", event_id, *where).code == 0
        [item] = run("logs", "--status", "unmatched", "--json", "--url", f"unix:{tmp_path}/admin.sock").json["items"]
        assert item["id"] == event_id
        assert run("reload", *where).out.startswith("generation 2\n")


def test_what_answers_with_something_else_than_json_is_not_relay() -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of its base
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            line = complaint(run("logs", "--url", f"http://127.0.0.1:{server.server_port}"), 1)
        finally:
            server.shutdown()
            thread.join()
    assert "is not relay's admin side" in line
