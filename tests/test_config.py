"""Loading a config: values, defaults, secrets, and what is shown of it."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import window
from relay.authschema import Basic, Bearer
from relay.config import Config, ConfigError, Loaded, effective, find_config, load
from relay.delivery import Code, Failure, Retryable
from relay.fields import Rate
from relay.lane import Order
from relay.problems import Problem, nearest, path_text
from relay.retryschema import statuses
from relay.routing import Route as RunningRoute
from relay.runtime import build
from relay.schema import Admin, Route, Server, TcpAddress, UnixAddress, shown_url
from relay.secret import MASK, Redactor, Secret
from relay.source import DedupKey, SourceConfig

TOP = Path(__file__).parent.parent
EXAMPLE = TOP / "config.example.yaml"

ROUTE = "routes:\n  - name: r\n    to:\n      url: https://example.com/hook\n"


def config(text: str, **environ: str) -> Config:
    return load(text.encode(), environ=environ).config


def route(more: str = "", **environ: str) -> Route:
    return config(ROUTE + more, **environ).routes[0]


def running(text: str) -> RunningRoute:
    """The one route of a config, as it runs."""
    [built] = build(load(text.encode(), environ={}), 1, datetime.now(UTC)).routing.routes.values()
    return built


def problems(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text.encode(), environ=environ)
    return [str(problem) for problem in caught.value.problems]


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_example_works_as_it_stands_without_a_warning() -> None:
    loaded = load(EXAMPLE, environ={})
    assert loaded.warnings == ()
    assert {source.type for source in loaded.config.sources.values()} == {
        "storyblok",
        "strapi",
        "contentstack",
        "prismic",
        "hygraph",
    }
    assert [route.name for route in loaded.config.routes] == ["rebuild-www", "search", "audit"]


def test_an_empty_config_is_the_defaults() -> None:
    empty = config("{}")
    assert empty == Config()
    assert str(empty.server.listen) == "127.0.0.1:8080"
    assert str(empty.admin.listen) == "127.0.0.1:8081"
    assert empty.store.path == Path("relay.db")


def test_messages_name_the_file_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("a: 1\n")
    with pytest.raises(ConfigError, match=r"^my\.yaml:1:1: a: unknown key$"):
        load(Path("my.yaml"))


@pytest.mark.parametrize("name", ["nothing.yaml", "."])
def test_a_file_that_cannot_be_read_is_one_problem(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read: ") as caught:
        load(tmp_path / name)
    assert str(caught.value) == str(caught.value.problems[0])
    assert not caught.value.problems[0].line


def test_the_hash_is_of_the_bytes_of_the_file() -> None:
    assert load(b"{}").sha256 == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_a_place_in_the_file_can_be_asked_for_later() -> None:
    assert load(b"log:\n  level: info\n").place(("log", "level")) == (2, 10)


def test_the_option_wins_over_the_variable_and_both_over_the_usual_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("a.yaml", {"RELAY_CONFIG": "b.yaml"}) == Path("a.yaml")
    assert find_config(None, {"RELAY_CONFIG": "b.yaml"}) == Path("b.yaml")
    Path("config.yaml").write_text("{}")
    assert find_config(None, {}) == Path("config.yaml")


def test_no_config_anywhere_says_where_one_was_sought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("relay.config._ETC", tmp_path / "etc.yaml")
    with pytest.raises(ConfigError, match=r"neither \./config\.yaml nor"):
        find_config(None, {})


def test_the_version_is_told_without_reading_the_schema() -> None:
    code = "import relay, sys; relay.__version__; sys.exit('relay.schema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port", "local"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("127.9.9.9:1", "127.9.9.9", 1, True),
        ("localhost:0", "localhost", 0, True),
        ("[::1]:8080", "::1", 8080, True),
        ("[::]:8080", "::", 8080, False),
        (":8080", None, 8080, False),
        ("0.0.0.0:8080", "0.0.0.0", 8080, False),
        ("relay.example.com:80", "relay.example.com", 80, False),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str | None, port: int, local: bool) -> None:
    listen = Server.model_validate({"listen": text}).listen
    assert listen == TcpAddress(host, port)
    assert listen.local is local
    assert str(listen) == text


@pytest.mark.parametrize(("mode", "bits"), [("0660", 0o660), ("600", 0o600), (0o666, 0o666)])
def test_an_address_may_be_a_unix_socket_with_a_mode(mode: Any, bits: int) -> None:
    listen = Server.model_validate({"listen": {"unix": "/run/in.sock", "mode": mode}}).listen
    assert listen == UnixAddress(unix="/run/in.sock", mode=bits)


@pytest.mark.parametrize("empty", ["''", "", "${RELAY_ADMIN_TOKEN:-}"])
def test_an_empty_admin_token_is_none(empty: str) -> None:
    assert config(f"admin: {{token: {empty!r}}}" if "$" in empty else f"admin:\n  token: {empty}").admin.token is None


def test_the_admin_side_is_guarded_by_any_token() -> None:
    assert not Admin().guarded
    assert Admin.model_validate({"token": "0123456789abcdef"}).guarded
    assert Admin.model_validate({"tokens": {"ci": {"token": "0123456789abcdef"}}}).guarded


@pytest.mark.parametrize(
    ("written", "inside", "outside"),
    [
        (204, [204], [200, 205]),
        ("200-299", [200, 299], [199, 300]),
        ("2xx", [200, 299], [300]),
        (["2xx", 304, "400-401"], [200, 304, 401], [303, 402]),
        ([], [], [200]),
    ],
)
def test_statuses_are_numbers_ranges_and_classes(written: Any, inside: list[int], outside: list[int]) -> None:
    found = statuses(written)
    assert all(status in found for status in inside)
    assert not any(status in found for status in outside)


@pytest.mark.parametrize(
    ("retry", "attempts", "delays"),
    [
        ("{}", 10, [5, 20, 80]),
        ("{policy: exponential, first: 1s, factor: 2, max: 3s, attempts: 4, jitter: 0}", 4, [1, 2, 3]),
        ("{policy: fixed, every: 10m, attempts: 5}", 5, [600, 600]),
        ("{policy: schedule, delays: [5s, 5m]}", 3, [5, 300]),
        ("{policy: none}", 1, []),
        ("none", 1, []),
        ("exponential", 10, [5, 20]),
    ],
)
def test_a_retry_policy_is_what_the_file_says(retry: str, attempts: int, delays: list[int]) -> None:
    policy = route(f"    retry: {retry}\n").retry.build()
    assert policy.attempts == attempts
    assert [policy.delay(number + 1) for number in range(len(delays))] == [timedelta(seconds=n) for n in delays]


def test_every_policy_gives_up_on_refusals_unless_told_otherwise() -> None:
    for policy in ("{}", "none", "{policy: fixed, every: 1s, attempts: 2}"):
        given_up = route(f"    retry: {policy}\n").retry.give_up_on
        assert given_up.codes == {400, 405, 411, 413, 414, 415, 422, 431}
    assert route("    retry: {give_up_on: []}\n").retry.give_up_on.codes == frozenset()


def test_no_retry_ends_with_the_first_attempt() -> None:
    assert (
        route("    retry: none\n").retry.build().after(Retryable(Failure(Code.TIMEOUT, "")), 1, datetime.now(UTC))
        is None
    )


def test_a_route_listens_to_the_sources_its_patterns_take() -> None:
    names = ["www", "blog-a", "blog-b", "hub"]
    assert route().selected(names) == set(names)
    picky = Route.model_validate({"name": "r", "to": {"url": "https://h/"}, "sources": ["blog*", "!*-b", "hub"]})
    assert picky.selected(names) == {"blog-a", "hub"}


def test_the_query_is_added_to_the_url() -> None:
    to = config(ROUTE.replace("/hook", "/hook?a=1") + "      query: {b: 'x y&z'}\n").routes[0].to
    assert list(to.request_url.query.items()) == [("a", "1"), ("b", "x y&z")]
    assert shown_url(to.request_url) == "https://example.com/hook?a=***&b=***"


def test_auth_makes_the_header() -> None:
    basic = route("      auth: {type: basic, username: me, password: 0123456789abcdef}\n").to.auth
    bearer = route("      auth: {type: bearer, token: 0123456789abcdef}\n").to.auth
    assert isinstance(basic, Basic)
    assert isinstance(bearer, Bearer)
    assert basic.header == "Basic bWU6MDEyMzQ1Njc4OWFiY2RlZg=="
    assert bearer.header == "Bearer 0123456789abcdef"


SIGNED = "routes: [{name: r, to: {url: 'https://h/'}, sign: [{scheme: SCHEME, secret: '${S}'}]}]"
SENT = "routes: [{name: r, to: {url: 'https://h/', auth: AUTH}}]"
BASIC = "{type: basic, username: u, password: '${S}'}"
OAUTH2 = "{type: oauth2, token_url: 'https://h/', client_id: c, client_secret: '${S}'}"


@pytest.mark.parametrize(
    "text",
    [
        "sources: {a: {type: github, secret: '${S}'}}",
        "admin: {token: '${S}'}",
        *(SIGNED.replace("SCHEME", scheme) for scheme in ("github", "hygraph", "prismic", "storyblok")),
        *(SENT.replace("AUTH", auth) for auth in (BASIC, OAUTH2)),
    ],
)
def test_a_secret_may_be_bytes_that_are_not_utf_8(text: str) -> None:
    loaded = load(text.encode(), environ={"S": os.fsdecode(b"\xff" * 16)})
    assert not [each for each in loaded.warnings if "shorter" in str(each)]
    build(loaded, 1, datetime.now(UTC))
    assert MASK in json.dumps(effective(loaded.config))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("routes: [{name: r, to: {url: 'https://h/', headers: {X-A: 'a ${S}'}}}]", "routes[0].to.headers.X-A"),
        ("defaults: {headers: {X-A: '${S}'}}", "defaults.headers.X-A"),
    ],
)
def test_a_header_may_not(text: str, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text.encode(), environ={"S": os.fsdecode(b"\xff" * 16)})
    [problem] = caught.value.problems
    assert (problem.path, problem.message) == (path, "a header value must be UTF-8, which this is not")


def test_of_a_secret_that_is_not_utf_8_the_bytes_count() -> None:
    short = load(b"sources: {a: {type: github, secret: '${S}'}}", environ={"S": os.fsdecode(b"\xff" * 15)})
    assert "shorter than 16 bytes" in str(short.warnings[0])
    auth = Basic(type="basic", username="u", password=Secret(os.fsdecode(b"\xff")))
    assert auth.header == "Basic " + base64.b64encode(b"u:\xff").decode()


@pytest.mark.parametrize("age", ["none", "1h"])
def test_max_age_is_a_duration_or_none(age: str) -> None:
    assert route(f"    max_age: {age}\n").max_age == (None if age == "none" else timedelta(hours=1))


# --- delivery policy --------------------------------------------------------------------------------------------------


def test_a_route_says_nothing_and_sends_each_event_at_once() -> None:
    plain = route()
    assert (plain.grouping(), plain.delay, plain.order, plain.rate) == (None, timedelta(), "none", None)
    assert (plain.max_pending, plain.unhealthy_after, plain.disable_after, plain.notify) == (1_000_000, 5, None, ())


@pytest.mark.parametrize(
    ("debounce", "wait", "longest", "by"),
    [
        ("{wait: 30s}", 30, 300, ()),
        ("{wait: 30s, max_wait: 30s}", 30, 30, ()),
        ("{wait: 30s, max_wait: 1h, by: source}", 30, 3600, ("source",)),
        ("{wait: 1s, by: [model, entry_id, model]}", 1, 10, ("model", "entry_id")),
        ("{wait: 1s, by: []}", 1, 10, ()),
    ],
)
def test_debounce_waits_ten_times_as_long_at_most_unless_told_otherwise(
    debounce: str, wait: int, longest: int, by: tuple[str, ...]
) -> None:
    grouping = route(f"    debounce: {debounce}\n    delay: 5s\n").grouping()
    expected = window.debounce(timedelta(seconds=wait), timedelta(seconds=longest), by, timedelta(seconds=5))
    assert grouping == expected


def test_a_batch_takes_a_hundred_events_unless_told_otherwise() -> None:
    wait = timedelta(seconds=5)
    assert route("    batch: {wait: 5s}\n").grouping() == window.batch(100, wait, timedelta())
    assert route("    batch: {max: 7, wait: 5s}\n").grouping() == window.batch(7, wait, timedelta())


@pytest.mark.parametrize("order", ["none", "entry", "latest", "route"])
def test_an_order_is_one_of_four_words(order: str) -> None:
    assert route(f"    order: {order}\n").order == order


@pytest.mark.parametrize(("never", "most"), [("never", None), ("7", 7)])
def test_disable_after_is_a_number_or_never(never: str, most: int | None) -> None:
    assert route(f"    disable_after: {never}\n").disable_after == most


def test_a_rate_is_so_many_in_a_time_or_none() -> None:
    assert route("    rate: 100/m\n").rate == Rate(100, 60)
    assert route("    rate: none\n").rate is None


NOTIFIERS = "notifiers:\n  ops: {type: webhook, url: 'https://example.com/alerts'}\n"


@pytest.mark.parametrize(("notify", "names"), [("ops", ("ops",)), ("[ops, ops]", ("ops",)), ("[]", ())])
def test_notify_is_a_name_or_a_list_of_names(notify: str, names: tuple[str, ...]) -> None:
    assert route(f"    notify: {notify}\n{NOTIFIERS}").notify == names


INDEX = "routes:\n  - {name: r, to: {preset: algolia, application: A, index: i, key: 0123456789abcdef}MORE}\n"


@pytest.mark.parametrize(("more", "order"), [("", "latest"), (", order: entry", "entry"), (", order: route", "route")])
def test_a_search_index_keeps_only_the_latest_unless_told_otherwise(more: str, order: str) -> None:
    loaded = config(INDEX.replace("MORE", more))
    assert loaded.routes[0].order == order
    assert effective(loaded)["routes"][0]["order"] == order


def test_what_runs_is_what_the_route_says() -> None:
    policy = "    delay: 5s\n    rate: 10/s\n    max_pending: 7\n    unhealthy_after: 2\n    disable_after: 3\n"
    built = running(ROUTE + policy + "    order: entry\n    notify: ops\n" + NOTIFIERS)
    assert (built.order, built.grouping, built.delay) == (Order.ENTRY, None, timedelta(seconds=5))
    assert (built.rate, built.max_pending, built.notify) == (Rate(10, 1), 7, ("ops",))
    assert (built.unhealthy_after, built.disable_after) == (2, 3)


def test_a_delay_starts_when_the_window_closes() -> None:
    built = running(ROUTE + "    delay: 5s\n    batch: {wait: 1s}\n")
    assert built.delay == timedelta()
    assert built.grouping is not None
    assert built.grouping.delay == timedelta(seconds=5)


TO = "{url: https://h/, auth: {type: bearer, token: 0123456789abcdef}, headers: {X-Api-Key: a, X-Site: www}}"
OAUTH = "auth: {type: oauth2, token_url: https://t/, client_id: a, client_secret: 0123456789abcdef}"
TARGETS = [
    TO,
    TO.replace("https://h/", "https://h/?a=1"),
    TO.replace("{url", "{method: PUT, url"),
    TO.replace("bearer, token: ", "bearer, token: b"),
    TO.replace("Key: a", "Key: b"),
    f"{{url: https://h/, {OAUTH}}}",
    f"{{url: https://h/, {OAUTH.replace('https://t/', 'https://u/')}}}",
    f"{{url: https://h/, {OAUTH.replace('client_id: a', 'client_id: b')}}}",
    f"{{url: https://h/, {OAUTH.replace('secret: 0', 'secret: 1')}}}",
    "{preset: algolia, application: A, index: one, key: 0123456789abcdef}",
    "{preset: algolia, application: A, index: two, key: 0123456789abcdef}",
    "{preset: algolia, application: A, index: two, key: 1123456789abcdef}",
]


def test_another_url_method_or_credential_makes_another_fingerprint_of_four_digits() -> None:
    prints = [running(f"routes: [{{name: r, to: {to}}}]\n").fingerprint for to in TARGETS]
    assert len(set(prints)) == len(prints)
    assert all(re.fullmatch("[0-9a-f]{4}", found) for found in prints)


@pytest.mark.parametrize(
    "harmless",
    [TO.replace("www", "blog"), TO.replace("{url", "{timeout: 5s, url"), TO.replace("X-Api-Key", "x-api-key")],
)
def test_what_does_not_change_the_destination_leaves_its_fingerprint(harmless: str) -> None:
    one, other = (running(f"routes: [{{name: r, to: {to}}}]\n").fingerprint for to in (TO, harmless))
    assert one == other


def test_a_default_header_that_proves_is_part_of_the_fingerprint_where_the_route_has_none_of_its_own() -> None:
    bare = ROUTE + "defaults: {headers: {X-Api-Key: KEY}}\n"
    own = ROUTE + "      headers: {x-api-key: mine}\ndefaults: {headers: {X-Api-Key: KEY}}\n"
    assert running(bare).fingerprint != running(bare.replace("KEY", "other")).fingerprint
    assert running(own).fingerprint == running(own.replace("KEY", "other")).fingerprint


# --- defaults ---------------------------------------------------------------------------------------------------------

DEFAULTS = "defaults: {timeout: 7s, connect_timeout: 1s, success: 204, concurrency: 3, retry: none}\n"


def test_a_route_takes_from_the_defaults_what_it_does_not_say() -> None:
    taken = route(DEFAULTS)
    assert (taken.to.timeout, taken.to.connect_timeout) == (timedelta(seconds=7), timedelta(seconds=1))
    assert taken.to.success.codes == {204}
    assert (taken.concurrency, taken.retry.policy) == (3, "none")


def test_a_route_that_says_so_keeps_its_own_even_where_it_equals_the_built_in_value() -> None:
    kept = route("      timeout: 30s\n      success: 200-299\n    concurrency: 8\n    retry: {}\n" + DEFAULTS)
    assert (kept.to.timeout, kept.concurrency) == (timedelta(seconds=30), 8)
    assert kept.to.connect_timeout == timedelta(seconds=1)
    assert 200 in kept.to.success
    assert kept.retry.policy == "exponential"


POLICY = "defaults: {rate: 1/s, max_pending: 9, unhealthy_after: 8, disable_after: 7, notify: ops}\n" + NOTIFIERS


def test_a_route_takes_its_delivery_policy_from_the_defaults_too() -> None:
    taken = route(POLICY)
    assert (taken.rate, taken.max_pending, taken.unhealthy_after) == (Rate(1, 1), 9, 8)
    assert (taken.disable_after, taken.notify) == (7, ("ops",))
    own = route("    rate: none\n    disable_after: never\n    notify: []\n" + POLICY)
    assert (own.rate, own.disable_after, own.notify) == (None, None, ())


@pytest.mark.parametrize(
    ("more", "defaults", "disable_after"),
    [
        ("    retry: prismic\n", "{}", 5),
        ("    retry: prismic\n    disable_after: 3\n", "{}", 3),
        ("    retry: prismic\n    disable_after: never\n", "{}", None),
        ("", "{retry: prismic}", 5),
        ("", "{retry: prismic, disable_after: 7}", 7),
        ("", "{retry: prismic, disable_after: never}", None),
        ("    retry: prismic\n", "{disable_after: 7}", 5),
        ("    retry: contentstack\n", "{retry: prismic}", None),
    ],
)
def test_prismics_retrying_brings_what_it_disables_a_webhook_after(
    more: str, defaults: str, disable_after: int | None
) -> None:
    assert route(f"{more}defaults: {defaults}\n").disable_after == disable_after


# --- sources and notifiers --------------------------------------------------------------------------------------------


def sources(text: str) -> dict[str, SourceConfig]:
    return dict(config(f"sources:\n  a: {{type: github, secret: 0123456789abcdef{text}}}\n{NOTIFIERS}").sources)


def test_a_source_seeks_duplicates_by_itself_and_expects_nothing() -> None:
    plain = sources("")["a"]
    assert (plain.dedup, plain.expect_every, plain.notify) == ("auto", None, ())


def test_a_source_may_have_a_key_for_its_duplicates() -> None:
    keyed = sources(", dedup: {key: body.id, window: 10m}")["a"].dedup
    assert isinstance(keyed, DedupKey)
    assert (keyed.key, keyed.window) == ("body.id", timedelta(minutes=10))


def test_off_is_a_word_and_no_boolean() -> None:
    assert sources(", dedup: off")["a"].dedup == "off"


def test_a_source_may_be_expected_and_somebody_told() -> None:
    watched = sources(", expect_every: 1h, notify: ops")["a"]
    assert (watched.expect_every, watched.notify) == (timedelta(hours=1), ("ops",))


def test_notifiers_are_read_by_their_types() -> None:
    [(name, notifier)] = config(NOTIFIERS).notifiers.items()
    assert (name, notifier.type) == ("ops", "webhook")


# --- problems ---------------------------------------------------------------------------------------------------------


def test_a_problem_reads_as_compilers_write() -> None:
    assert str(Problem("c.yaml", 12, 7, "routes[0].x", "unknown key")) == "c.yaml:12:7: routes[0].x: unknown key"
    assert str(Problem("c.yaml", 1, 1, "", "not YAML")) == "c.yaml:1:1: not YAML"
    assert str(Problem("c.yaml", 0, 0, "", "cannot be read")) == "c.yaml: cannot be read"


def test_a_path_reads_as_keys_and_places() -> None:
    assert path_text(("routes", 0, "match", "any", 1, "model")) == "routes[0].match.any[1].model"


@pytest.mark.parametrize(
    ("word", "meant"),
    [("actoin", "action"), ("Models", "model"), ("storyblock", "storyblok"), ("zzz", None), ("", None)],
)
def test_the_nearest_word_is_suggested_when_one_is_near(word: str, meant: str | None) -> None:
    assert nearest(word, ["action", "model", "stage", "storyblok"]) == meant


def test_a_mistake_in_one_route_hides_none_between_the_others() -> None:
    text = "routes:\n  - 5\n  - {name: a, to: {url: https://h/}}\n  - {name: a, to: {url: https://h/}}\n"
    assert len(problems(text)) == 2


# --- secrets ----------------------------------------------------------------------------------------------------------

SECRETS = """
admin:
  token: admin-token-admin-token
  tokens: {ci: {token: ci-token-ci-token-ci}}
defaults:
  headers: {X-Default-Token: default-header-token}
sources:
  www: {type: storyblok, secret: [storyblok-secret-1, storyblok-secret-2]}
  blog: {type: strapi, headers: {X-Hook: strapi-header-secret}}
  shop: {type: generic, basic: {username: shop, password: generic-password-1}}
notifiers:
  mail: {type: email, smtp: "smtps://relay:smtp-password-1@mail.example.com", from: a@example.com, to: b@example.com}
  chat: {type: webhook, preset: slack, url: https://hooks.slack.com/services/T0/B0/slack-hook-secret-1}
routes:
  - name: a
    description: ${file:FILE}
    to:
      url: https://example.com/${file:FILE}?key=url-query-value
      query: {more: query-map-value}
      headers: {X-Api-Key: header-api-key-1, X-Plain: plain}
      auth: {type: basic, username: me, password: basic-password-12}
    sign: [{scheme: standard, secret: whsec_c2lnbi1zZWNyZXQtMTIzNDU2}]
  - name: b
    match: {model: ["${credential:cred}"]}
    to: {url: https://example.com/, auth: {type: bearer, token: bearer-token-1234}}
"""
VALUES = [
    "admin-token-admin-token",
    "ci-token-ci-token-ci",
    "default-header-token",
    "storyblok-secret-1",
    "storyblok-secret-2",
    "strapi-header-secret",
    "generic-password-1",
    "shop:generic-password-1",
    "url-query-value",
    "query-map-value",
    "header-api-key-1",
    "basic-password-12",
    "me:basic-password-12",
    "whsec_c2lnbi1zZWNyZXQtMTIzNDU2",
    "bearer-token-1234",
    "smtp-password-1",
    "slack-hook-secret-1",
    "from-the-file",
    "from-systemd",
]


@pytest.fixture
def secretive(tmp_path: Path) -> Loaded:
    (tmp_path / "secret").write_text("from-the-file\n")
    (tmp_path / "cred").write_text("from-systemd\n")
    text = SECRETS.replace("FILE", str(tmp_path / "secret"))
    return load(text.encode(), environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})


@pytest.mark.parametrize("value", VALUES)
def test_every_secret_is_registered_for_the_redactor(secretive: Loaded, value: str) -> None:
    assert value in secretive.secrets
    assert value not in Redactor(secretive.secrets)(f"x {value} y")


def test_no_secret_is_in_the_effective_config_or_in_its_repr(secretive: Loaded) -> None:
    shown = json.dumps(effective(secretive.config))
    for value in VALUES:
        assert value not in shown
    assert '"X-Plain": "plain"' in shown
    assert "https://example.com/" in shown


def test_what_came_from_a_file_is_masked_where_it_stands(secretive: Loaded) -> None:
    first, second = effective(secretive.config)["routes"]
    assert first["description"] == MASK
    assert first["to"]["url"] == MASK
    assert second["match"]["model"] == [MASK]


def test_the_effective_config_is_written_as_a_config_is() -> None:
    shown = effective(load(EXAMPLE, environ={}).config)
    assert shown["server"] == {
        "listen": "127.0.0.1:8080",
        "max_body": "1MiB",
        "read_timeout": "10s",
        "trusted_proxies": [],
        "egress": {"deny": ["metadata", "link-local"]},
    }
    assert shown["routes"][1]["retry"]["delays"] == ["5s", "1m", "10m", "1h"]
    assert shown["routes"][1]["max_age"] == "1d"


def test_the_effective_config_shows_the_delivery_policy_with_what_was_left_out() -> None:
    text = "    debounce: {wait: 30s, by: model}\n    delay: 500ms\n    rate: 100/m\n    notify: ops\n" + NOTIFIERS
    text += "sources: {a: {type: github, secret: 0123456789abcdef, dedup: {key: body.id, window: 10m}}}\n"
    shown = effective(config(ROUTE + text))
    [shown_route] = shown["routes"]
    assert {key: shown_route.get(key) for key in POLICY_KEYS} == {
        "debounce": {"wait": "30s", "max_wait": "5m", "by": ["model"]},
        "batch": None,
        "delay": "500ms",
        "order": "none",
        "rate": "100/m",
        "max_age": "none",
        "max_pending": 1_000_000,
        "unhealthy_after": 5,
        "disable_after": "never",
        "notify": ["ops"],
    }
    assert shown["sources"]["a"]["dedup"] == {"key": "body.id", "window": "10m"}
    assert shown["notifiers"]["ops"]["type"] == "webhook"


POLICY_KEYS = (
    *("debounce", "batch", "delay", "order", "rate", "max_age", "max_pending"),
    *("unhealthy_after", "disable_after", "notify"),
)


@pytest.mark.parametrize("policy", ["", "    debounce: {wait: 1s}\n", "    batch: {wait: 1s}\n    delay: 1d\n"])
def test_the_effective_config_of_an_open_config_loads_again(policy: str) -> None:
    text = DEFAULTS + ROUTE + policy + "    match: {model: a, any: [{stage: b}]}\nlog: {level: debug}\n"
    first = config(text)
    again = config(json.dumps(effective(first)))
    assert effective(again) == effective(first)


def test_a_message_never_shows_a_secret(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("from-the-file\n")
    [message] = problems(f"log: {{level: '${{file:{tmp_path}/s}}'}}")
    assert message.endswith("got '***'")


# --- without secrets --------------------------------------------------------------------------------------------------


def test_without_secrets_all_but_the_values_is_checked() -> None:
    text = """
server: {listen: "${A}", max_body: "${A}", read_timeout: "${A}", trusted_proxies: ["${A}"]}
admin: {listen: "${A}", token: "${A}", tokens: {ci: {token: "${A}", scope: "${A}"}}, hosts: ["${A}"]}
store: {url: "${A}", response_body: "${A}"}
log: {level: "${A}", format: "${A}"}
defaults: {headers: {X-A: "${A}"}, timeout: "${A}", success: "${A}", retry: "${A}", rate: "${A}", notify: "${A}",
           max_pending: "${A}", unhealthy_after: "${A}", disable_after: "${A}"}
sources:
  www: {type: storyblok, secret: "${file:/x}", path: "${A}", allow_ips: ["${A}"]}
  c: {type: contentstack, public_key: "${A}", tolerance: "${A}", map: {action: "${A}"}}
  s: {type: standard, secret: "${A}", respond: "${A}"}
  v: {type: stripe, verify: "${A}", rate_limit: "${A}", dedup: "${A}", expect_every: "${A}", notify: ["${A}"]}
  k: {type: github, secret: "${A}", dedup: {key: "${A}", window: "${A}"}}
notifiers:
  mail: {type: email, smtp: "${A}", from: "${A}", to: ["${A}"]}
  chat: {type: webhook, url: "${A}", preset: "${A}"}
  what: {type: "${A}"}
  t: {type: "${A}"}
routes:
  - name: "${A}"
    sources: ["${A}"]
    match: {model: "${A}", where: "${A}", any: [{stage: "${A}"}]}
    to: {url: "https://${A}/", method: "${A}", headers: {X-B: "${A}"}, query: {q: "${A}"}, timeout: "${A}",
         success: ["${A}"], auth: {type: bearer, token: "${credential:x}"}}
    payload: "${A}"
    sign: [{scheme: standard, secret: "${A}"}]
    retry: {policy: fixed, every: "${A}", attempts: 2, give_up_on: ["${A}"]}
    max_age: "${A}"
    debounce: {wait: "${A}", max_wait: "${A}", by: ["${A}"]}
    delay: "${A}"
    order: "${A}"
    rate: "${A}"
    max_pending: "${A}"
    unhealthy_after: "${A}"
    disable_after: "${A}"
    notify: "${A}"
  - {name: b, to: {url: "https://${A}/"}, batch: {max: "${A}", wait: "${A}"}}
  - {name: c, to: {url: "https://${A}/"}, debounce: {wait: 1h, max_wait: "${A}", by: "${A}"}}
  - {name: d, to: {url: "https://${A}/"}, debounce: {wait: "${A}", max_wait: 1h}}
"""
    loaded = load(text.encode(), environ={}, no_secrets=True)
    assert loaded.warnings == ()
    assert loaded.config.routes[0].filter() is not None
    effective(loaded.config)


def test_without_secrets_mistakes_are_still_found() -> None:
    with pytest.raises(ConfigError) as caught:
        load(b"admin: {tokn: '${A}'}\nsources: {a: {type: strapi, token: '${A}', secrt: '${B}'}}\n", no_secrets=True)
    assert len(caught.value.problems) == 2


def test_the_example_can_be_checked_without_secrets() -> None:
    assert load(EXAMPLE, environ={}, no_secrets=True).warnings == ()


# --- whatever is written ----------------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    [
        "server",
        "admin",
        "store",
        "log",
        "defaults",
        "sources",
        "routes",
        "listen",
        "tls",
        "tokens",
        "token",
        "hosts",
        "url",
        "level",
        "headers",
        "timeout",
        "success",
        "retry",
        "type",
        "secret",
        "verify",
        "path",
        "allow_ips",
        "rate_limit",
        "map",
        "name",
        "match",
        "to",
        "any",
        "where",
        "model",
        "action",
        "sign",
        "scheme",
        "payload",
        "auth",
        "pass_headers",
        "query",
        "policy",
        "delays",
        "give_up_on",
        "max_age",
        "debounce",
        "batch",
        "wait",
        "max_wait",
        "by",
        "max",
        "delay",
        "order",
        "rate",
        "disable_after",
        "dedup",
        "key",
        "window",
        "notifiers",
        "preset",
        "notify",
        "Host",
        "basic",
        "hmac",
        "header",
        "x",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 600)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        [
            "storyblok",
            "generic",
            "strapi",
            "standard",
            "none",
            "basic",
            "bearer",
            "fixed",
            "2xx",
            "5s",
            "*",
            "!*",
            "${A}",
            "https://h/",
            "whsec_",
            "/x",
            "latest",
            "algolia",
            "webhook",
            "email",
        ]
    )
)
VALUES_OF_ANY_KIND = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)
CONFIGS_OF_ANY_KIND = st.fixed_dictionaries(
    {},
    optional={
        "sources": st.dictionaries(st.sampled_from(["a", "b"]), st.dictionaries(KEYS, VALUES_OF_ANY_KIND), max_size=2),
        "routes": st.lists(st.dictionaries(KEYS, VALUES_OF_ANY_KIND), max_size=2),
        **{key: st.dictionaries(KEYS, VALUES_OF_ANY_KIND) for key in ("server", "admin", "store", "log", "defaults")},
        "notifiers": st.dictionaries(
            st.sampled_from(["a", "b"]), st.dictionaries(KEYS, VALUES_OF_ANY_KIND), max_size=2
        ),
    },
)


@given(CONFIGS_OF_ANY_KIND | VALUES_OF_ANY_KIND, st.booleans())
def test_any_document_is_taken_or_refused_with_places(document: object, no_secrets: bool) -> None:
    try:
        loaded = load(json.dumps(document).encode(), environ={}, no_secrets=no_secrets)
    except ConfigError as error:
        for problem in error.problems:
            assert problem.line == 1 <= problem.col  # both are outcomes that are meant
            assert "Value error" not in problem.message
    else:
        json.dumps(effective(loaded.config))
