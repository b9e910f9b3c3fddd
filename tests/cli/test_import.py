"""`import` and `export`: configs out of webhook exports, and routes out of configs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay.config import load
from relay.event import Change, Description
from relay.imports.channels import joined, match_of, scoped
from relay.pattern import Filter, Subject
from tests.cli.running import Ended, complaint, run

EXPORTS = Path(__file__).parent.parent / "samples" / "exports" / "contentstack"
SEEDS = sorted(EXPORTS.glob("*.json"))
VALUE = "value-of-a-variable-0123456789"
ASSETS = {"model": "asset", "action": "create"}


def webhook(*destinations: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"name": "Rebuild", "channels": ["assets.create"], "destinations": list(destinations)} | keys


def to(**keys: Any) -> dict[str, Any]:
    return {"target_url": "https://example.com/hook"} | keys


def imported(folder: Path, export: object) -> tuple[Ended, dict[str, Any]]:
    """The config that an export becomes, accepted by `check` once its variables are set."""
    path = folder / "export.json"
    path.write_text(json.dumps(export))
    ended = run("import", "contentstack", path)
    assert ended.code == 0, ended
    assert run("import", "contentstack", path).out == ended.out
    return ended, accepted(folder, ended.out)


def accepted(folder: Path, config: str) -> dict[str, Any]:
    path = folder / "config.yaml"
    path.write_text(config)
    checked = run("check", path, environ=dict.fromkeys(names(config), VALUE))
    assert checked.code == 0, checked.err + config
    said: dict[str, Any] = yaml.safe_load(config)
    return said


def names(config: str) -> list[str]:
    return re.findall(r"(?<!\$)\$\{(\w+)\}", config)


def route_of(folder: Path, export: object) -> dict[str, Any]:
    config = imported(folder, export)[1]
    [route] = config["routes"]
    assert isinstance(route, dict)
    return route


# --- what Contentstack documents --------------------------------------------------------------------------------------


def test_the_documented_exports_are_there() -> None:
    assert len(SEEDS) == 10


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.stem)
def test_a_documented_export_becomes_a_config_and_each_of_its_routes_goes_out_again(tmp_path: Path, path: Path) -> None:
    ended, config = imported(tmp_path, json.loads(path.read_text()))
    assert "********" not in ended.out
    assert set(names(ended.out)) == set(re.findall(r"to be set: (\w+)", ended.err))
    for route in config["routes"]:
        once = run("export", route["name"], "--config", tmp_path / "config.yaml")
        assert (once.code, once.err) == (0, "")
        again = tmp_path / "again.yaml"
        again.write_text(once.out)
        assert run("export", route["name"], "--config", again).out == once.out
        folder = tmp_path / route["name"]
        folder.mkdir()
        assert accepted(folder, once.out) == {"sources": config["sources"], "routes": [route]}


def test_all_webhooks_of_a_stack(tmp_path: Path) -> None:
    _, config = imported(tmp_path, json.loads((EXPORTS / "get-all.json").read_text()))
    assert config["sources"] == {"contentstack": {"type": "contentstack", "token": "${CONTENTSTACK_TOKEN}"}}
    assert config["routes"] == [
        {
            "name": "basic-test",
            "description": "Basic Test",
            "sources": ["contentstack"],
            "match": {"model": "asset", "action": "create"},
            "to": {
                "url": "http://example.com",
                "auth": {"type": "basic", "username": "username", "password": "${BASIC_TEST_PASSWORD}"},
            },
            "payload": "concise",
            "retry": "none",
        },
        {
            "name": "aman-test",
            "description": "Aman Test",
            "sources": ["contentstack"],
            "match": {"event": "entry.*", "action": "create"},
            "to": {
                "url": "http://example.com",
                "auth": {
                    "type": "oauth2",
                    "token_url": "https://your_access_token_url",
                    "client_id": "your_client_id",
                    "client_secret": "${AMAN_TEST_CLIENT_SECRET}",
                },
            },
            "retry": "none",
        },
    ]


# --- authentication ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "auth"),
    [
        ({"authentication_type": "None"}, None),
        ({"authentication_type": None}, None),
        ({}, None),
        ({"authentication_type": "Basic", "http_basic_auth": "", "http_basic_password": ""}, None),
        (
            {"authentication_type": "Basic", "http_basic_auth": "ann", "http_basic_password": "hush-hush"},
            {"type": "basic", "username": "ann", "password": "${REBUILD_PASSWORD}"},
        ),
        (
            {"http_basic_auth": "ann", "http_basic_password": "********"},
            {"type": "basic", "username": "ann", "password": "${REBUILD_PASSWORD}"},
        ),
        (
            {"authentication_type": "Basic", "http_basic_auth": "ann:hush-hush"},
            {"type": "basic", "username": "${REBUILD_USERNAME}", "password": "${REBUILD_PASSWORD}"},
        ),
        (
            {"authentication_type": "Bearer", "bearer_token": "hush-hush"},
            {"type": "bearer", "token": "${REBUILD_TOKEN}"},
        ),
        (
            {
                "authentication_type": "OAuth2",
                "access_token_url": "https://auth.example.com/token",
                "client_id": "relay",
                "client_secret": "hush-hush",
                "scope": "build deploy",
                "request_query_parameters": "audience=https://api.example.com&code=hush-hush&grant_type=client_credentials",
            },
            {
                "type": "oauth2",
                "token_url": "https://auth.example.com/token",
                "client_id": "relay",
                "client_secret": "${REBUILD_CLIENT_SECRET}",
                "scope": "build deploy",
                "query": {"audience": "${REBUILD_TOKEN_AUDIENCE}", "code": "${REBUILD_TOKEN_CODE}"},
            },
        ),
        (
            {
                "authentication_type": "OAuth2",
                "access_token_url": "https://ann:hush-hush@auth.example.com/token",
                "client_id": "blt****",
                "request_query_parameters": [{"key": "resource", "value": "x"}, {"key": "", "value": ""}],
            },
            {
                "type": "oauth2",
                "token_url": "https://auth.example.com/token",
                "client_id": "${REBUILD_CLIENT_ID}",
                "client_secret": "${REBUILD_CLIENT_SECRET}",
                "query": {"resource": "${REBUILD_TOKEN_RESOURCE}"},
            },
        ),
    ],
)
def test_each_way_of_authentication(tmp_path: Path, given: dict[str, Any], auth: dict[str, Any] | None) -> None:
    ended, config = imported(tmp_path, webhook(to(**given)))
    assert config["routes"][0]["to"].get("auth") == auth
    assert "hush-hush" not in ended.out + ended.err


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"http_basic_auth": "bob", "http_basic_password": "hush-hush"}, "http_basic_auth is given"),
        ({"authentication_type": "Bearer", "bearer_token": "hush-hush"}, "its authentication is Bearer"),
    ],
)
def test_the_user_of_a_url_is_left_out_where_another_authentication_is_given(
    tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    ended, config = imported(tmp_path, webhook(to(target_url="https://ann:hush-hush@example.com/h", **given)))
    assert config["routes"][0]["to"]["url"] == "https://example.com/h"
    assert config["routes"][0]["to"]["auth"].get("username") in (None, "bob")
    said = f"left out: the user name and password in the target_url, because {reason}\n"
    assert f"relay: route rebuild: {said}" in ended.err
    assert f"  # {said}" in ended.out
    assert "they are in auth" not in ended.out + ended.err
    assert "hush-hush" not in ended.out + ended.err


def test_the_user_of_a_token_url_is_not_said_to_be_in_auth(tmp_path: Path) -> None:
    auth = {
        "authentication_type": "OAuth2",
        "access_token_url": "https://ann:hush@auth.example.com/t",
        "client_id": "x",
    }
    ended, _ = imported(tmp_path, webhook(to(**auth)))
    assert "relay: route rebuild: not translated: the user name in its access_token_url\n" in ended.err
    assert "they are in auth" not in ended.out + ended.err


@pytest.mark.parametrize(
    ("header", "listed"),
    [
        (
            "Bearer hu$sh-hush",
            "the bearer token in the header Authorization of route rebuild (take it from the export)",
        ),
        ("Bearer ****", "the bearer token in the header Authorization of route rebuild (the export does not hold it)"),
        ("Basic hu$sh-hush", "the bearer token of route rebuild (the export does not hold it)"),
    ],
)
def test_a_bearer_token_may_be_in_the_header_only(tmp_path: Path, header: str, listed: str) -> None:
    headers = [{"header_name": "authorization", "value": header}]
    ended, config = imported(tmp_path, webhook(to(authentication_type="Bearer", custom_header=headers)))
    assert config["routes"][0]["to"]["auth"] == {"type": "bearer", "token": "${REBUILD_TOKEN}"}
    assert "headers" not in config["routes"][0]["to"]
    assert f"to be set: REBUILD_TOKEN, {listed}\n" in ended.err
    assert "sh-hush" not in ended.out + ended.err


def test_what_import_has_listed_is_enough_after_export_too(tmp_path: Path) -> None:
    auth = {
        "authentication_type": "OAuth2",
        "access_token_url": "https://auth.example.com/token?tenant=x",
        "client_id": "relay",
        "client_secret": "hush-hush",
        "request_query_parameters": "audience=https://api.example.com&resource=x",
    }
    ended, config = imported(tmp_path, webhook(to(**auth)))
    exported = run("export", "rebuild", "--config", tmp_path / "config.yaml")
    assert (exported.code, exported.err) == (0, "")
    listed = re.findall(r"to be set: (\w+)", ended.err)
    (tmp_path / "again.yaml").write_text(exported.out)
    assert run("check", tmp_path / "again.yaml", environ=dict.fromkeys(listed, VALUE)).code == 0
    assert yaml.safe_load(exported.out) == config


def test_a_token_url_that_is_missing_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(webhook(to(authentication_type="OAuth2", client_id="relay"))))
    ended = run("import", "contentstack", path)
    assert 'token_url: "${REBUILD_TOKEN_URL}"' in ended.out
    assert "relay: route rebuild: the access_token_url is missing\n" in ended.err
    assert "was put before it" not in ended.err


def test_an_authentication_that_relay_does_not_know_leaves_the_route_disabled(tmp_path: Path) -> None:
    ended, config = imported(tmp_path, webhook(to(authentication_type="Kerberos")))
    assert config["routes"][0]["enabled"] is False
    assert "relay: route rebuild: not translated: its authentication 'kerberos'" in ended.err


# --- URLs and headers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected", "auth"),
    [
        ("https://example.com", "https://example.com", None),
        ("example.com/hook", "https://example.com/hook", None),
        (" HTTPS://example.com/a ", "https://example.com/a", None),
        ("https://example.com/a?key=hush-hush&b=&c",
         "https://example.com/a?key=${REBUILD_URL_KEY}&b=${REBUILD_URL_B}&c", None),
        ("https://example.com/${x}", "https://example.com/$${x}", None),
        ("https://example.com/a#b", "https://example.com/a", None),
        ("https://ann:hush-hush@example.com/a", "https://example.com/a",
         {"type": "basic", "username": "ann", "password": "${REBUILD_PASSWORD}"}),
        ("https://ann%40example.com:hush%2Dhush@example.com/a", "https://example.com/a",
         {"type": "basic", "username": "ann@example.com", "password": "${REBUILD_PASSWORD}"}),
        ("https://hush-hush@example.com/a", "https://example.com/a",
         {"type": "basic", "username": "${REBUILD_USERNAME}", "password": "${REBUILD_PASSWORD}"}),
        ("https://@example.com/a", "https://example.com/a", None),
        ("https://example.com/content-types/blog-post-2024-01/hook-v2",
         "https://example.com/content-types/blog-post-2024-01/hook-v2", None),
    ],
)  # fmt: skip
def test_a_url_becomes_one_that_relay_takes(tmp_path: Path, url: str, expected: str, auth: object) -> None:
    ended, config = imported(tmp_path, webhook(to(target_url=url)))
    assert config["routes"][0]["to"]["url"] == expected
    assert config["routes"][0]["to"].get("auth") == auth
    assert "hush-hush" not in ended.out + ended.err


@pytest.mark.parametrize(
    "url",
    [
        "https://api.netlify.com/build_hooks/5c23354f454e1350f8543e78?trigger_title=x",
        "https://api.vercel.com/v1/integrations/deploy/prj_hush/hush",
        "https://hooks.slack.com/services/T00/B00/hush",
        "https://HOOKS.slack.com./workflows/T00/hush",
        "https://discord.com/api/webhooks/1/hush",
        "https://discordapp.com/api/webhooks/1/hush",
        "https://api.cloudflare.com/client/v4/pages/webhooks/deploy_hooks/hush",
        "https://acme.webhook.office.com/webhookb2/hush",
        "https://hooks.example.com/a8f5f167f44f4964e6c998dee827110c/hush",
        "https://ci.example.com/hush/0b7c1a52-9d3e-4f5a-8c6b-7d8e9f0a1b2c",
    ],
)
def test_the_url_of_a_hook_is_a_secret_and_becomes_a_variable(tmp_path: Path, url: str) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(webhook(to(target_url=url))))
    ended = run("import", "contentstack", path)
    assert 'url: "${REBUILD_URL}"' in ended.out
    assert "to be set: REBUILD_URL, the target_url of route rebuild (take it from the export)" in ended.err
    said = ended.out + ended.err
    assert [part for part in ("hush", "5c23354f", "a8f5f1", "0b7c1a52") if part in said] == []
    (tmp_path / "config.yaml").write_text(ended.out)
    environ = {"CONTENTSTACK_TOKEN": VALUE, "REBUILD_URL": url}
    assert run("check", tmp_path / "config.yaml", environ=environ).code == 0


@pytest.mark.parametrize(
    ("url", "lack"),
    [
        ("ftp://ex ample/", "in the export it is no URL that relay could send to"),
        ("ftp://x", "in the export it is no URL that relay could send to"),
        ("https://****.example.com/", "the export does not hold it"),
    ],
)
def test_a_url_that_is_none_becomes_a_variable(tmp_path: Path, url: str, lack: str) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(webhook(to(target_url=url))))
    ended = run("import", "contentstack", path)
    assert 'url: "${REBUILD_URL}"' in ended.out
    assert "the target_url is no URL that relay could send to" in ended.err
    assert f"to be set: REBUILD_URL, the target_url of route rebuild ({lack})\n" in ended.err


def test_the_url_of_a_hook_is_to_be_set_without_its_user(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(webhook(to(target_url="https://ann:hush@hooks.slack.com/services/T00/B00/x"))))
    ended = run("import", "contentstack", path)
    assert 'url: "${REBUILD_URL}"' in ended.out
    assert "username: ann" in ended.out
    said = "the target_url without its user name and password of route rebuild (take it from the export)"
    assert f"to be set: REBUILD_URL, {said}\n" in ended.err


def test_headers_are_taken_over_but_empty_ones_and_secrets(tmp_path: Path) -> None:
    given = {
        "": "",
        "X-Empty": "",
        "X-Site": "www ${a}: # 'b'",
        "X-Count": 5,
        "X-Api-Key": "hush",
        "X-Plain": "Bearer hush-hush",
        "X-Long": "a8f5f167f44f4964e6c998dee827110c",
        "X-Masked": "ab****",
    }
    listed = [{"header_name": name, "value": value} for name, value in given.items()]
    ended, config = imported(tmp_path, webhook(to(custom_header=listed)))
    assert config["routes"][0]["to"]["headers"] == {
        "X-Site": "www $${a}: # 'b'",
        "X-Count": "5",
        "X-Api-Key": "${REBUILD_HEADER_X_API_KEY}",
        "X-Plain": "${REBUILD_HEADER_X_PLAIN}",
        "X-Long": "${REBUILD_HEADER_X_LONG}",
        "X-Masked": "${REBUILD_HEADER_X_MASKED}",
    }
    assert "hush" not in ended.out + ended.err
    assert "a8f5f1" not in ended.out + ended.err


def test_headers_that_relay_could_not_send_are_left_out_and_said(tmp_path: Path) -> None:
    names = ("Host", "Webhook-Signature", "Connection", "Authorization", "bad name", "X-Twice", "x-twice")
    listed = [{"header_name": name, "value": "abc"} for name in names]
    listed.append({"header_name": "X-Break", "value": "a\r\nX-Evil: 1"})
    auth = {"authentication_type": "Bearer", "bearer_token": "hush-hush"}
    ended, config = imported(tmp_path, webhook(to(custom_header=listed, **auth)))
    assert config["routes"][0]["to"]["headers"] == {"X-Twice": "abc"}
    for name, reason in (
        ("Host", "relay writes it"),
        ("Webhook-Signature", "relay writes it"),
        ("Connection", "it belongs to one connection"),
        ("Authorization", "auth writes it"),
        ("bad name", "this is no header's name"),
        ("x-twice", "it is given twice"),
        ("X-Break", "its value has control characters"),
    ):
        assert f"relay: route rebuild: left out: the header {name}, because {reason}\n" in ended.err
        assert f"  # left out: the header {name}, because {reason}\n" in ended.out


# --- everything else of a webhook -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"retry_policy": "manual"}, {"retry": "none"}),
        ({"retry_policy": "automatic"}, {"retry": {"policy": "schedule", "delays": ["5s", "25s", "125s", "625s"]}}),
        ({"retry_policy": "manual", "retry": {"auto": True}}, {"retry": "none"}),
        ({"retry": {"auto": True}}, {"retry": {"policy": "schedule", "delays": ["5s", "25s", "125s", "625s"]}}),
        ({"disabled": True}, {"enabled": False}),
        ({"disabled": False, "concise_payload": False}, {}),
        ({"concise_payload": True}, {"payload": "concise"}),
        ({"branches": []}, {}),
        ({"branches": ["$all"]}, {}),
        ({"branches": ["main"]}, {"match": {**ASSETS, "any": [{"branch": "main"}, {"branch": "!?*"}]}}),
        ({"branches": ["main", "dev"]}, {"match": {**ASSETS, "any": [{"branch": ["main", "dev"]}, {"branch": "!?*"}]}}),
        ({"name": "rebuild"}, {"description": None}),
        ({"name": "Übersicht: Büro №1 ✓"}, {"name": "ubersicht-buro-no1", "description": "Übersicht: Büro №1 ✓"}),
        ({"name": "***", "uid": "cs1"}, {"name": "webhook", "description": "***"}),
        ({"name": None, "uid": "cs1-a"}, {"name": "cs1-a", "description": None}),
    ],
)
def test_each_key_of_a_webhook(tmp_path: Path, keys: dict[str, Any], expected: dict[str, Any]) -> None:
    plain = {
        "name": "rebuild",
        "description": "Rebuild",
        "sources": ["contentstack"],
        "match": {"model": "asset", "action": "create"},
        "to": {"url": "https://example.com/hook"},
    }
    wanted = {key: value for key, value in (plain | expected).items() if value is not None}
    assert route_of(tmp_path, webhook(to(), **keys)) == wanted


@pytest.mark.parametrize("notifiers", ["a@example.com, b@example.com", ["a@example.com", "b@example.com"]])
def test_who_is_notified_is_a_comment(tmp_path: Path, notifiers: object) -> None:
    ended, _ = imported(tmp_path, webhook(to(), notifiers=notifiers))
    assert "  # Contentstack tells of its failures: a@example.com, b@example.com\n  - name: rebuild\n" in ended.out


@pytest.mark.parametrize("text", ["a\nroutes: []", "a\u2028b", "a\x85b: c", "\ud800"])
def test_no_text_of_an_export_gets_out_of_its_place(tmp_path: Path, text: str) -> None:
    odd = webhook(to(authentication_type=text, custom_header=[{"header_name": text, "value": text}]))
    odd |= {"name": text, "notifiers": text, "channels": ["assets.create", text], "branches": [text, "main"]}
    assert [route["match"] for route in imported(tmp_path, odd)[1]["routes"]] == [
        {**ASSETS, "any": [{"branch": "main"}, {"branch": "!?*"}]}
    ]


def test_every_destination_is_a_route_and_names_are_unique(tmp_path: Path) -> None:
    several = [webhook(to(), to()), webhook(to()), webhook(to(), name="re build 1"), webhook(to(), name="REBUILD-1")]
    secrets = {"authentication_type": "Bearer", "bearer_token": "x"}
    several += [webhook(to(**secrets), name="a"), webhook(to(**secrets), name="a!")]
    config = imported(tmp_path, {"webhooks": several})[1]
    found = [route["name"] for route in config["routes"]]
    assert found == ["rebuild-1", "rebuild-2", "rebuild", "re-build-1", "rebuild-1-2", "a", "a-2"]
    tokens = [route["to"]["auth"]["token"] for route in config["routes"][-2:]]
    assert tokens == ["${A_TOKEN}", "${A_2_TOKEN}"]


def test_unknown_channels_are_said_and_a_webhook_of_nothing_else_is_disabled(tmp_path: Path) -> None:
    ended, config = imported(
        tmp_path,
        [
            webhook(to(), channels=["assets.create", "cs.apps.installations.install"]),
            webhook(to(), name="other", channels=["cs.apps.installations.install"]),
            webhook(to(), name="none", channels=[]),
        ],
    )
    first, second, third = config["routes"]
    assert first["match"] == {"model": "asset", "action": "create"}
    assert "enabled" not in first
    for route in (second, third):
        assert route["enabled"] is False
        assert "match" not in route
    assert ended.out.count("# not translated: the channel cs.apps.installations.install\n") == 2
    assert "relay: route other: not translated: the channel cs.apps.installations.install\n" in ended.err


# --- channels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "match"),
    [
        ("content_types.blog.entries.publish", {"model": "blog", "action": "publish"}),
        ("content_types.blog.entries.blt1.update", {"model": "blog", "action": "update", "entry_id": "blt1"}),
        ("content_types.entries.create", {"event": "entry.*", "action": "create"}),
        ("content_types.entries.publish.success", {"event": "entry.*", "action": "publish"}),
        ("content_types.entries.publish.fail", {"event": "entry.*", "action": "publish_fail"}),
        ("content_types.entries.environments.publish.success", {"event": "entry.*", "action": "publish"}),
        ("content_types.blog.entries.environments.production.unpublish.success",
         {"model": "blog", "action": "unpublish", "environment": "production"}),
        ("content_types.asset.entries.create", {"event": "entry.*", "model": "asset", "action": "create"}),
        ("content_types.comment.entries.create", {"event": "entry.*", "model": "comment", "action": "create"}),
        ("content_types.create", {"model": "content_type", "action": "create"}),
        ("content_types.blog.update", {"model": "content_type", "action": "update", "entry_id": "blog"}),
        ("content_types.entries.comments.create", {"model": "comment", "action": "create"}),
        ("content_types.entries.discussions.resolve", {"model": "discussion", "action": "resolve"}),
        ("assets.create", {"model": "asset", "action": "create"}),
        ("assets.publish.success", {"model": "asset", "action": "publish"}),
        ("assets.blt1.delete", {"model": "asset", "action": "delete", "entry_id": "blt1"}),
        ("assets.environments.development.publish.success",
         {"model": "asset", "action": "publish", "environment": "development"}),
        ("global_fields.seo.update", {"model": "global_field", "action": "update", "entry_id": "seo"}),
        ("releases.environments.deploy", {"model": "release", "action": "deploy"}),
        ("releases.environments.production.deploy",
         {"model": "release", "action": "deploy", "environment": "production"}),
        ("branch.create.initiated", {"model": "branch", "action": "create_start"}),
        ("branch.create-completed", {"model": "branch", "action": "create"}),
        ("branch.dev.delete.completed", {"model": "branch", "action": "delete", "entry_id": "dev"}),
        ("branch_alias.assigned", {"model": "branch_alias", "action": "assign"}),
        ("taxonomies.color.update", {"model": "taxonomy", "action": "update", "entry_id": "color"}),
        ("taxonomies.terms.create", {"model": "term", "action": "create"}),
        ("content_types.blog.entries.comments.create", None),
        ("content_types.entries.variants.create", None),
        ("content_types.*.entries.create", None),
        ("content_types.!blog.entries.create", None),
        ("content_types..entries.create", None),
        ("cs.apps.installations.install", None),
        ("assets.publish.sometime", None),
        ("assets", None),
        ("create", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_channel_is_a_match_or_nothing(channel: str, match: dict[str, str] | None) -> None:
    assert match_of(channel) == match


@pytest.mark.parametrize(
    ("channels", "match"),
    [
        (["assets.create", "assets.delete", "assets.create"], {"model": "asset", "action": ["create", "delete"]}),
        (["content_types.a.entries.publish", "content_types.b.entries.publish"],
         {"model": ["a", "b"], "action": "publish"}),
        (["content_types.a.entries.publish", "assets.create"],
         {"any": [{"model": "a", "action": "publish"}, {"model": "asset", "action": "create"}]}),
        (["content_types.a.entries.x.delete", "content_types.a.entries.y.delete"],
         {"model": "a", "action": "delete", "entry_id": ["x", "y"]}),
        (["content_types.entries.publish", "content_types.entries.delete", "content_types.delete"],
         {"any": [{"event": "entry.*", "action": ["publish", "delete"]},
                  {"model": "content_type", "action": "delete"}]}),
    ],
)  # fmt: skip
def test_several_channels_are_one_match(channels: list[str], match: dict[str, Any]) -> None:
    assert joined(found for channel in channels if (found := match_of(channel))) == match


def test_the_scope_of_branches_is_not_for_events_about_branches() -> None:
    matches = [match_of("branch.create.completed"), match_of("assets.create")]
    assert joined(within for match in matches if match for within in scoped(match, ["main"])) == {
        "action": "create",
        "any": [{"model": "branch"}, {"model": "asset", "branch": "main"}, {"model": "asset", "branch": "!?*"}],
    }


@pytest.mark.parametrize(
    ("channel", "taken"),
    [
        ("content_types.entries.publish.success", {"main", None}),
        ("content_types.release.entries.publish.success", {"main", None}),
        ("content_types.create", {"main", None}),
        ("global_fields.update", {"main", None}),
        ("assets.publish.success", {"main", None}),
        ("releases.environments.deploy", {"main", "dev", None}),
        ("taxonomies.create", {"main", "dev", None}),
        ("taxonomies.terms.create", {"main", "dev", None}),
        ("content_types.entries.comments.update", {"main", "dev", None}),
        ("content_types.entries.discussions.create", {"main", "dev", None}),
        ("branch.create.completed", {"main", "dev", None}),
    ],
)
def test_an_event_without_a_branch_is_not_lost_to_the_scope_of_branches(channel: str, taken: set[str | None]) -> None:
    match = match_of(channel)
    assert match is not None
    wanted = joined(scoped(match, ["main"]))
    alternatives = [{key: [text] for key, text in one.items()} for one in wanted.pop("any", [])]
    route = Filter({key: [text] for key, text in wanted.items()}, alternatives)
    change = Change(match.get("model"), None, match["action"], "x")
    for branch in ("main", "dev", None):
        event = Description("entry.publish", (change,), branch=branch)
        assert route.matches(Subject(event, "contentstack", "contentstack")) == (branch in taken)


def test_what_is_taken_of_all_branches_is_said(tmp_path: Path) -> None:
    channels = ["assets.create", "releases.environments.deploy", "taxonomies.create", "taxonomies.delete"]
    ended, _ = imported(tmp_path, webhook(to(), channels=channels, branches=["main"]))
    without = 'events that say no branch, such as those of items of a release, are taken from all: branch "!?*"'
    theirs = "events about release, taxonomy are taken from all branches: they do not say theirs"
    assert f"  # {without}\n  # {theirs}\n  - name: rebuild\n" in ended.out
    assert f"relay: route rebuild: {without}\nrelay: route rebuild: {theirs}\n" in ended.err
    for every in ([], ["$all"]):
        ended, _ = imported(tmp_path, webhook(to(), channels=channels, branches=every))
        assert "branch" not in ended.out + ended.err


def test_imported_routes_take_the_events_of_their_channels_and_no_others(tmp_path: Path) -> None:
    from relay import samples
    from relay.clock import SystemClock
    from relay.runtime import build

    ended, _ = imported(
        tmp_path,
        [
            webhook(to(), name="entries", channels=["content_types.entries.publish.success"]),
            webhook(to(), name="assets", channels=["assets.create", "assets.delete"]),
            webhook(to(), name="types", channels=["content_types.create"]),
            webhook(to(), name="releases", channels=["releases.environments.deploy"], branches=["main"]),
            webhook(to(), name="taxonomies", channels=["taxonomies.create"], branches=["main"]),
            webhook(to(), name="comments", channels=["content_types.entries.comments.update"], branches=["main"]),
            webhook(to(), name="others", channels=["assets.create"], branches=["dev"]),
            webhook(to(), name="branches", channels=["branch.create.initiated"]),
        ],
    )
    loaded = load(ended.out.encode(), environ=dict.fromkeys(names(ended.out), VALUE))
    runtime = build(loaded, 1, SystemClock().now())
    took: dict[str, list[str]] = {}
    for name in samples.names("contentstack"):
        inbound = samples.load("contentstack", name)
        description = runtime.sources["contentstack"].describe(inbound)
        assert isinstance(description, Description)
        for route in runtime.routing.routes.values():
            if route.filter.matches(Subject(description, "contentstack", "contentstack")):
                took.setdefault(route.name, []).append(name)
    assert took == {
        "entries": ["entry.publish"],
        "assets": ["asset.create", "asset.delete"],
        "types": ["content_type.create"],
        "releases": ["release.deploy"],
        "taxonomies": ["taxonomy.create"],
        "comments": ["comment.update"],
        "branches": ["branch.create.initiated"],
    }


# --- files that are no exports ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is not JSON"),
        (b"{", "the file is not JSON"),
        (b"\xff{}", "the file is not JSON"),
        (b"[" * 5000, "the file is"),
        (b"5", "expected a webhook, which is an object"),
        (b"null", "expected a webhook, which is an object"),
        (b"[]", "there is no webhook in it"),
        (b'{"webhooks": []}', "there is no webhook in it"),
        (b"{}", "expected a webhook, or an object with webhook or webhooks"),
        (b'{"webhook": 5}', "webhook: expected a webhook, which is an object"),
        (b'{"webhooks": [{"name": "a"}]}', "webhooks[0]: expected a list of destinations"),
        (b'[{"destinations": []}, 7]', "[1]: expected a webhook, which is an object"),
        (b'{"destinations": {}}', "the webhook: expected a list of destinations"),
        (b'{"destinations": ["x"]}', "destinations[0]: expected an object with a target_url"),
        (b'{"webhook": {"destinations": [{"url": 1}]}}', "webhook.destinations[0]: expected an object with a target"),
        (b'{"destinations": [], "channels": "assets.create"}', "expected channels to be a list of strings"),
        (b'{"destinations": [], "branches": "main"}', "expected branches to be a list of strings"),
        (b'{"destinations": [{"target_url": "https://a.example", "custom_header": 5}]}', "custom_header to be a list"),
        (b'{"destinations": [{"target_url": "https://a.example", "custom_header": [5]}]}', "a list of objects"),
    ],
)  # fmt: skip
def test_what_is_no_export_gives_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "export.json"
    path.write_bytes(content)
    assert said in complaint(run("import", "contentstack", path), 1)


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    assert "No such file" in complaint(run("import", "contentstack", tmp_path / "none.json"), 2)
    assert "contentstack" in complaint(run("import", "contentful", tmp_path), 2)


def test_an_export_may_come_by_standard_input() -> None:
    assert "name: rebuild\n" in run("import", "contentstack", "-", stdin=json.dumps(webhook(to())).encode()).out


# --- export -----------------------------------------------------------------------------------------------------------

CONFIG = """
server: {max_body: 2MiB}
defaults: {headers: {X-Api-Key: hush-hush-defaults}, timeout: 10s}
sources:
  blog: {type: strapi, token: [hush-hush-blog-0123, "${OLD}"]}
  www: {type: storyblok, secret: hush-hush-www-01234}
routes:
  - {name: other, sources: www, to: {url: https://example.com/}}
  - name: search
    description: "${A:-b} and $${c}"
    sources: ["bl*"]
    match: {action: [create, "!x"], entry_id: "5", where: "body.a == 'no'"}
    to:
      url: https://search.example.com/hooks/relay?key=hush-hush-q&b=
      headers: {X-Index: www, X-Token: hush-hush-header}
      query: {refresh: hush-hush-query}
      auth: {type: bearer, token: "${file:/nowhere/at/all}"}
    sign: [{scheme: github, secret: hush-hush-sign-0123}, {scheme: hmac, header: X-A, secret: "${SEARCH_SIGN_SECRET}"}]
  - name: mixed
    to: {url: "https://${HOST}/x?key=hush-hush&z=${Z}", auth: {type: basic, username: u, password: hush-hush-basic}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def test_a_route_goes_out_as_it_was_written_with_what_it_needs_and_without_secrets(
    tmp_path: Path, config: Path
) -> None:
    ended = run("export", "search", "--config", config)
    assert ended.code == 0
    assert yaml.safe_load(ended.out) == {
        "defaults": {"headers": {"X-Api-Key": "${DEFAULTS_HEADERS_X_API_KEY}"}, "timeout": "10s"},
        "sources": {"blog": {"type": "strapi", "token": ["${BLOG_TOKEN}", "${OLD}"]}},
        "routes": [
            {
                "name": "search",
                "description": "${A:-b} and $${c}",
                "sources": ["bl*"],
                "match": {"action": ["create", "!x"], "entry_id": "5", "where": "body.a == 'no'"},
                "to": {
                    "url": "https://search.example.com/hooks/relay?key=${SEARCH_URL_KEY}&b=",
                    "headers": {"X-Index": "www", "X-Token": "${SEARCH_HEADERS_X_TOKEN}"},
                    "query": {"refresh": "${SEARCH_QUERY_REFRESH}"},
                    "auth": {"type": "bearer", "token": "${file:/nowhere/at/all}"},
                },
                "sign": [
                    {"scheme": "github", "secret": "${SEARCH_SIGN_SECRET_2}"},
                    {"scheme": "hmac", "header": "X-A", "secret": "${SEARCH_SIGN_SECRET}"},
                ],
            }
        ],
    }
    assert "hush" not in ended.out + ended.err
    assert "relay: to be set: SEARCH_SIGN_SECRET_2, in the place of routes[0].sign[0].secret\n" in ended.err
    again = tmp_path / "again.yaml"
    again.write_text(ended.out)
    assert run("check", "--no-secrets", again).code == 0
    assert run("export", "search", "--config", again).out == ended.out


@pytest.mark.parametrize("route", ["other", "mixed"])
def test_no_secret_of_any_route_goes_out(config: Path, route: str) -> None:
    ended = run("export", route, "--config", config)
    assert ended.code == 0
    assert "hush" not in ended.out + ended.err


def test_what_cannot_be_exported_gives_one_line(config: Path) -> None:
    assert "there is no route 'serch' (did you mean 'search'?)" in complaint(run("export", "serch", "-c", config), 2)
    config.write_text("routes: [{name: a}]")
    assert run("export", "a", "--config", config).code == 78
