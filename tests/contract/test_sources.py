"""Every source type keeps the contract of `relay.source`: recorded requests, genuine ones, and garbage."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from pydantic import ValidationError

from relay import samples
from relay.bodyproof import without_proofs
from relay.clock import rfc3339
from relay.delivery import Mark
from relay.event import Change, Description, Inbound
from relay.fieldmap import FieldMap
from relay.fields import Unresolved
from relay.jsontext import Malformed
from relay.pattern import Filter, Subject
from relay.source import Ignored, Proof, Rejected, Source, SourceAdapter, SourceConfig, types
from relay.sources import prismic

NOW = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
RECORDED = Path(__file__).parent.parent / "samples"
TYPES = ("storyblok", "strapi", "contentstack", "prismic", "hygraph", "standard", "github", "stripe", "generic")
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_WHSEC = "whsec_" + base64.b64encode(b"another key of some length").decode()


def adapter(type_name: str, **config: Any) -> SourceAdapter:
    module = types()[type_name]
    built: SourceAdapter = module.Adapter(module.Config(type=type_name, **config))
    return built


def request(body: bytes | str | dict[str, Any], *headers: tuple[str, str]) -> Inbound:
    if isinstance(body, dict):
        body = json.dumps(body)
    return Inbound(CIMultiDict(headers), body.encode() if isinstance(body, str) else body)


def described(source: SourceAdapter, inbound: Inbound) -> Description:
    description = source.describe(inbound)
    assert isinstance(description, Description)
    return description


def reason(source: SourceAdapter, inbound: Inbound, now: datetime = NOW) -> str:
    with pytest.raises(Rejected) as caught:
        source.verify(inbound, now)
    return caught.value.reason


# --- recorded requests ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    config: dict[str, Any]
    inbound: Inbound
    now: datetime
    status: int
    expected: dict[str, Any] | None


def recorded(path: Path) -> Recorded:
    said = json.loads(path.read_text())
    body = base64.b64decode(said["body_base64"]) if "body_base64" in said else said["body"].encode()
    return Recorded(
        config=said["source_config"],
        inbound=Inbound(CIMultiDict([(name, value) for name, value in said["headers"]]), body),
        now=datetime.fromtimestamp(said["now"], UTC) if said["now"] is not None else NOW,
        status=said["status"],
        expected=said["expected"],
    )


FILES = sorted(RECORDED.glob("*/*.json"))


def test_the_recorded_requests_are_there() -> None:
    assert len(FILES) > 250


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recorded_request_is_answered_and_described_as_written(path: Path) -> None:
    what = recorded(path)
    module = types()[what.config["type"]]
    source = module.Adapter(module.Config.model_validate(what.config))
    status, description = 200, None
    try:
        if what.config.get("verify") != "none":
            source.verify(what.inbound, what.now)
        description = source.describe(without_proofs(what.inbound, source.body_proofs))
    except Rejected:
        status = 401
    except Malformed:
        status = 400
    assert status == what.status
    if what.expected is None:
        return
    assert isinstance(description, Description)
    assert {
        "event": description.event,
        "occurred_at": rfc3339(description.occurred_at) if description.occurred_at else None,
        "environment": description.environment,
        "branch": description.branch,
        "locale": description.locale,
        **description.common.as_json(),
        "changes": [change.as_json() for change in description.changes],
        "extra": description.extra,
    } == what.expected


# --- genuine requests -------------------------------------------------------------------------------------------------

SIGNABLE: dict[str, list[dict[str, Any]]] = {
    "storyblok": [{"secret": "s"}, {"secret": "s", "body_secret": {"pointer": "/dialog_values/secret", "value": "d"}}],
    "strapi": [
        {"token": "t"},
        {"headers": {"X-One": "1", "X-Two": "2"}},
        {"secret": "s"},
        {"token": "t", "secret": "s"},
    ],
    "contentstack": [
        {"secret": "s"},
        {"basic": {"username": "relay", "password": "pä:ss wörd"}},
        {"token": "t"},
        {"headers": {"X-One": "1"}, "secret": "s", "token": "t"},
    ],
    "prismic": [{"secret": "geheim-ß"}, {"token": "t"}, {"secret": "s", "headers": {"X-One": "1"}}],
    "hygraph": [{"secret": "s"}, {"secret": "s", "tolerance": "30m"}],
    "standard": [{"secret": WHSEC}],
    "github": [{"secret": "s"}],
    "stripe": [{"secret": "s"}],
    "generic": [
        {"hmac": {"header": "X-Signature", "secret": "s"}},
        {"hmac": {"header": "X-S", "secret": "s", "algorithm": "sha1", "encoding": "base64", "prefix": "v1="}},
        {
            "hmac": {"header": "X-S", "secret": "s", "algorithm": "sha512"},
            "body_secret": {"pointer": "/a/b", "value": "v"},
        },
        {"basic": {"username": "u", "password": "p"}},
        {"token": "t"},
        {"headers": {"X-One": "1"}},
    ],
}
CASES = [(name, config) for name, configs in SIGNABLE.items() for config in configs]
SAMPLES = [(name, config, event) for name, config in CASES for event in samples.names(name)]


def several(config: Any) -> Any:
    """The config with a second, newer secret before each secret."""
    if isinstance(config, dict):
        return {key: several(value) if key not in KEPT else value for key, value in config.items()}
    return [OTHER_WHSEC if str(config).startswith("whsec_") else "newer", config]


KEPT = frozenset({"header", "algorithm", "encoding", "prefix", "pointer", "username", "tolerance"})


def test_every_type_is_tested_here() -> None:
    assert set(types()) == {*TYPES, "graphcms"} == {*SIGNABLE, "graphcms"}
    assert all(issubclass(module.Config, SourceConfig) for module in types().values())


@pytest.mark.parametrize(("name", "config", "event"), SAMPLES)
def test_a_signed_sample_verifies_and_is_described(name: str, config: dict[str, Any], event: str) -> None:
    source = adapter(name, **config)
    signed = source.sign(samples.load(name, event), NOW)
    assert source.verify(signed, NOW).held
    assert isinstance(source.describe(without_proofs(signed, source.body_proofs)), Description)


@pytest.mark.parametrize(("name", "config"), CASES)
def test_an_unsigned_sample_does_not_verify(name: str, config: dict[str, Any]) -> None:
    assert reason(adapter(name, **config), samples.load(name))


@pytest.mark.parametrize(("name", "config"), CASES)
def test_another_secret_does_not_verify(name: str, config: dict[str, Any]) -> None:
    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: changed(one) if key not in KEPT else one for key, one in value.items()}
        return OTHER_WHSEC if str(value).startswith("whsec_") else f"{value}x"

    signed = adapter(name, **changed(config)).sign(samples.load(name), NOW)
    assert reason(adapter(name, **config), signed)


@pytest.mark.parametrize(("name", "config"), CASES)
def test_old_and_new_secrets_both_hold_and_say_which_they_were(name: str, config: dict[str, Any]) -> None:
    rotating = adapter(name, **several(config))
    old = rotating.verify(adapter(name, **config).sign(samples.load(name), NOW), NOW)
    new = rotating.verify(rotating.sign(samples.load(name), NOW), NOW)
    assert all(held.endswith("[1]") for held in old.held)
    assert all(held.endswith("[0]") for held in new.held)


@pytest.mark.parametrize(("name", "config"), CASES)
def test_a_proof_header_that_is_repeated_or_empty_or_missing_never_passes(name: str, config: dict[str, Any]) -> None:
    source = adapter(name, **config)
    signed = source.sign(samples.load(name), NOW)
    carriers = {header for header in signed.headers if header.lower() in source.proof_headers}
    for header in carriers:
        repeated = CIMultiDict(signed.headers)
        repeated.add(header, signed.headers[header])
        assert "repeated" in reason(source, Inbound(repeated, signed.body))
        empty = CIMultiDict(signed.headers)
        empty[header] = ""
        assert "empty" in reason(source, Inbound(empty, signed.body))
        missing = CIMultiDict(signed.headers)
        del missing[header]
        assert reason(source, Inbound(missing, signed.body))


SIGNING = [(name, config) for name, config in CASES if "secret" in config or "hmac" in config]


@pytest.mark.parametrize(("name", "config"), [case for case in SIGNING if case[0] != "prismic"])
def test_a_body_that_was_changed_after_signing_does_not_verify(name: str, config: dict[str, Any]) -> None:
    source = adapter(name, **config)
    signed = source.sign(samples.load(name), NOW)
    assert reason(source, Inbound(signed.headers, signed.body + b" "))


@pytest.mark.parametrize("name", ["contentstack", "standard", "stripe"])
def test_signed_times_hold_for_five_minutes_both_ways(name: str) -> None:
    source = adapter(name, secret=WHSEC)
    signed = source.sign(samples.load(name), NOW)
    assert source.verify(signed, NOW + timedelta(minutes=5))
    assert source.verify(signed, NOW - timedelta(minutes=5))
    assert reason(source, signed, NOW + timedelta(seconds=301)) == "the timestamp is too old"
    assert reason(source, signed, NOW - timedelta(seconds=301)) == "the timestamp lies in the future"
    assert adapter(name, secret=WHSEC, tolerance="0s").verify(signed, NOW + timedelta(days=9))


@pytest.mark.parametrize("name", TYPES)
def test_without_a_configured_proof_nothing_verifies(name: str) -> None:
    assert reason(adapter(name, verify="none"), samples.load(name))


@pytest.mark.parametrize("name", TYPES)
def test_proofs_are_the_configured_keys(name: str) -> None:
    module = types()[name]
    assert module.Config(type=name, verify="none").proofs() == ()
    for config in SIGNABLE[name]:
        assert set(module.Config(type=name, **config).proofs()) == set(config) - {"tolerance"}


@pytest.mark.parametrize(("name", "config"), CASES)
def test_proof_headers_are_lower_case_and_name_all_that_carries_a_proof(name: str, config: dict[str, Any]) -> None:
    source = adapter(name, **config)
    assert {"authorization", "proxy-authorization", "cookie"} <= source.proof_headers
    assert all(header == header.lower() for header in source.proof_headers)
    added = set(source.sign(samples.load(name), NOW).headers) - set(samples.load(name).headers)
    harmless = {"webhook-id", "webhook-timestamp", "x-github-delivery"}
    assert {header.lower() for header in added} - harmless <= source.proof_headers


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("storyblok", {"webhook-signature"}),
        ("strapi", {"x-strapi-signature-256"}),
        (
            "contentstack",
            {"x-contentstack-request-signature", "x-contentstack-hmac-signature", "x-contentstack-signature"},
        ),
        ("hygraph", {"gcms-signature"}),
        ("standard", {"webhook-signature", "svix-signature"}),
        ("github", {"x-hub-signature", "x-hub-signature-256"}),
        ("stripe", {"stripe-signature"}),
    ],
)
def test_a_senders_own_signature_headers_are_proofs_also_where_nothing_is_configured(
    name: str, headers: set[str]
) -> None:
    assert headers <= adapter(name, verify="none").proof_headers


def test_only_senders_that_never_try_again_are_without_retries() -> None:
    assert {name for name in TYPES if not adapter(name, verify="none").retries} == {"github", "storyblok", "strapi"}


# --- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TYPES)
def test_samples_carry_no_proof(name: str) -> None:
    source = adapter(name, verify="none")
    for event in samples.names(name):
        sample = samples.load(name, event)
        assert not {header.lower() for header in sample.headers} & source.proof_headers
        assert without_proofs(sample, source.body_proofs) is sample


@pytest.mark.parametrize("name", ["storyblok", "strapi", "contentstack", "prismic", "hygraph"])
def test_the_samples_of_a_content_system_show_its_life_and_the_first_is_a_publish(name: str) -> None:
    source = adapter(name, verify="none")
    actions = {
        change.action
        for event in samples.names(name)
        for change in described(source, samples.load(name, event)).changes
    }
    assert {"create", "update", "delete"} <= actions
    assert {"publish", "unpublish"} <= actions or "change" in actions
    assert described(source, samples.load(name)).common.action in ("publish", "change")


def test_an_unknown_sample_is_answered_with_those_there_are() -> None:
    with pytest.raises(KeyError, match="no sample 'nope' of github: there are ping, pull_request, push"):
        samples.load("github", "nope")


def test_an_alias_has_the_samples_of_its_type() -> None:
    assert samples.names("graphcms") == samples.names("hygraph")


# --- duplicates -------------------------------------------------------------------------------------------------------


def named(type_name: str, source_name: str = "s", **config: Any) -> Source:
    """A source of this type, as a config would name it."""
    module = types()[type_name]
    section = module.Config(**{"type": type_name, **config})
    return Source(source_name, section, module.Adapter(section), type_name)


def marked(source: Source, inbound: Inbound) -> Mark | None:
    inbound = without_proofs(inbound, source.adapter.body_proofs)
    description = source.describe(inbound)
    assert isinstance(description, Description)
    return source.mark(inbound, description)


def marks(source: Source, inbound: Inbound) -> Mark:
    found = marked(source, inbound)
    assert found is not None
    return found


WINDOWS = {
    "strapi": timedelta(minutes=60),
    "contentstack": timedelta(minutes=20),
    "prismic": timedelta(minutes=60),
    "hygraph": timedelta(minutes=30),
    "standard": timedelta(hours=24),
    "github": timedelta(hours=24),
    "stripe": timedelta(hours=24),
}


@pytest.mark.parametrize("name", TYPES)
def test_what_tells_a_repeat_is_hashed_and_remembered_for_as_long_as_its_sender_repeats(name: str) -> None:
    source = named(name, **SIGNABLE[name][0])
    for event in samples.names(name):
        signed = source.adapter.sign(samples.load(name, event), NOW)
        mark = marked(source, signed)
        assert marked(source, signed) == mark
        if name not in WINDOWS or described(source.adapter, signed).common.action == "test":
            assert mark is None
        elif mark is not None:
            assert mark.window == WINDOWS[name]
            assert len(mark.key) == 16
            assert len(mark.value) == (16 if name == "contentstack" else 0)
    assert (marked(source, source.adapter.sign(samples.load(name), NOW)) is not None) is (name in WINDOWS)


@pytest.mark.parametrize("name", WINDOWS)
def test_two_sources_never_share_a_mark_and_dedup_off_has_none(name: str) -> None:
    sample = adapter(name, **SIGNABLE[name][0]).sign(samples.load(name), NOW)
    assert marks(named(name, "a"), sample).key != marks(named(name, "b"), sample).key
    assert marked(named(name, dedup="off"), sample) is None


def test_what_was_recorded_as_one_delivery_has_one_mark() -> None:
    groups: dict[str, set[Mark | None]] = {}
    for path in FILES:
        group = json.loads(path.read_text()).get("dedup_group")
        if group is not None:
            what = recorded(path)
            groups.setdefault(group, set()).add(marked(named(what.config["type"], **what.config), what.inbound))
    assert {name: len(found - {None}) for name, found in groups.items()} == {"cs-retry-1": 1}


def contentstack(event: str, triggered_at: str = "2026-11-23T20:00:00.000Z", **data: Any) -> Inbound:
    entry = {"entry": {"uid": "e", "title": "x"}, "content_type": {"uid": "post"}, "locale": "en"}
    where = {"environment": {"name": "production"}}
    return request({"module": "entry", "event": event, "triggered_at": triggered_at, "data": entry | where | data})


def test_contentstacks_publish_unpublish_publish_is_three_events_of_one_entry() -> None:
    source = named("contentstack")
    publish, unpublish = marks(source, contentstack("publish")), marks(source, contentstack("unpublish"))
    assert publish.key == unpublish.key
    assert publish.value != unpublish.value
    assert marks(source, contentstack("publish", "2026-11-23T20:10:00.000Z")) == publish
    reordered = request(dict(reversed(contentstack("publish").object().items())))
    assert marks(source, reordered) == publish


@pytest.mark.parametrize(
    "other",
    [
        {"entry": {"uid": "f", "title": "x"}},
        {"content_type": {"uid": "page"}},
        {"locale": "de"},
        {"environment": {"name": "staging"}},
        {"branch": {"uid": "main"}},
    ],
)
def test_contentstacks_entries_are_told_apart_by_all_that_they_are(other: dict[str, Any]) -> None:
    source = named("contentstack")
    assert marks(source, contentstack("publish")).key != marks(source, contentstack("publish", **other)).key


def test_only_the_time_at_the_top_of_contentstacks_body_does_not_count() -> None:
    source = named("contentstack")
    one, other = (contentstack("publish", entry={"uid": "e", "triggered_at": at}) for at in ("1", "2"))
    assert marks(source, one).value != marks(source, other).value


@pytest.mark.parametrize("fixture", ["asset-publish-via-release", "duplicate-keys"])
@pytest.mark.parametrize("config", [{}, {"map": {"environment": "'production'"}}])
@pytest.mark.parametrize("event", ["publish", "unpublish", "publish.start", "publish.fail", "unpublish.success"])
def test_a_contentstack_publish_that_does_not_say_where_is_never_a_repeat(
    fixture: str, config: dict[str, Any], event: str
) -> None:
    told = recorded(RECORDED / "contentstack" / f"{fixture}.json").inbound.object()
    assert marked(named("contentstack", **config), request(told | {"event": event})) is None


@pytest.mark.parametrize(
    "fixture", ["asset-publish", "entry-publish-via-release", "asset-update", "entry-delete", "environment-string"]
)
def test_what_else_happened_to_a_contentstack_entry_is_repeated_by_an_equal_body(fixture: str) -> None:
    told = recorded(RECORDED / "contentstack" / f"{fixture}.json").inbound.object()
    source = named("contentstack")
    later = request(told | {"triggered_at": "2024-11-23T12:00:05.000Z"})
    assert marks(source, request(told)) == marks(source, later)


@pytest.mark.parametrize(
    ("fixture", "known"),
    [
        ("release-deploy", True),
        ("branch-create-initiated", True),
        ("taxonomy-update", True),
        ("bulk-publish-completed", False),
        ("app-installation-upgrade", False),
    ],
)
def test_a_contentstack_event_without_an_entry_id_is_never_a_repeat_and_all_that_has_one_may_be(
    fixture: str, known: bool
) -> None:
    told = recorded(RECORDED / "contentstack" / f"{fixture}.json").inbound.object()
    assert (marked(named("contentstack"), request(told)) is not None) is known


def test_two_equal_publishes_of_a_story_are_two_events() -> None:
    assert marked(named("storyblok"), request(STORY)) is None


def test_prismics_repeats_are_known_by_the_body_without_its_secret_but_its_test_is_never_one() -> None:
    body = {"type": "api-update", "documents": ["a"], "secret": "old"}
    source = named("prismic", secret=["new", "old"])
    assert marks(source, request(body)) == marks(source, request({**body, "secret": "new"}))
    assert marks(source, request(body)).key != marks(source, request({**body, "documents": ["b"]})).key
    test = request({"type": "test-trigger", "domain": "d", "secret": "old"})
    assert marked(source, test) is None
    assert marked(named("prismic", secret="old", map={"action": "'publish'"}), test) is None


def test_hygraphs_events_are_told_apart_by_environment_and_time_also_where_their_bodies_are_equal() -> None:
    source = named("hygraph")

    def sent(header: str) -> Mark | None:
        return marked(source, request({"operation": "update"}, ("gcms-signature", header)))

    first = sent("sign=AAAA, env=master, t=1")
    assert first == sent("t=1, env=master, sign=BBBB")
    assert len({first, sent("sign=AAAA, env=master, t=2"), sent("sign=AAAA, env=dev, t=1")}) == 3
    assert sent("sign=AAAA, env=master") is None
    assert marked(source, request({"operation": "update"})) is None


@pytest.mark.parametrize(
    ("name", "header"), [("standard", "webhook-id"), ("standard", "svix-id"), ("github", "X-GitHub-Delivery")]
)
def test_a_message_id_in_a_header_is_all_that_counts(name: str, header: str) -> None:
    source = named(name)
    mark = marks(source, request({"type": "a"}, (header, "msg_1")))
    assert marks(source, request({"type": "b"}, (header, "msg_1"))) == mark
    assert marks(source, request({"type": "a"}, (header, "msg_2"))) != mark
    for headers in ([], [(header, "")], [(header, "msg_1"), (header, "msg_1")]):
        assert marked(source, request({"type": "a"}, *headers)) is None


def test_stripes_message_id_is_in_its_body() -> None:
    source = named("stripe")
    assert marks(source, request({"id": "evt_1", "type": "a"})) == marks(source, request({"id": "evt_1", "type": "b"}))
    for body in ("{}", '{"id": null}', '{"id": ""}', '{"id": []}'):
        assert marked(source, request(body)) is None


def test_a_mark_by_hand_is_what_the_expression_finds() -> None:
    source = named("storyblok", dedup={"key": 'headers."x-id" || body.id', "window": "10m"})
    one = marks(source, request({"id": "a"}))
    assert one.window == timedelta(minutes=10)
    assert marks(source, request({"id": "b"}, ("X-ID", "a"))) == one
    assert marks(source, request({"id": "b"})) != one


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("body.id", {}),
        ("body.id", {"id": ""}),
        ("body.id", {"id": []}),
        ("body.id", b"no json"),
        ("[body.id, body.version]", {"id": 1}),
        ("{id: body.id}", {}),
        ("length(body.id)", {"id": 1}),
        ("headers.authorization", {}),
        ('headers."x-signature"', {}),
    ],
)
def test_where_the_expression_finds_nothing_or_fails_there_is_no_mark(key: str, body: Any) -> None:
    source = named("generic", hmac={"header": "X-Signature", "secret": "s"}, dedup={"key": key, "window": "10m"})
    assert marked(source, request(body, ("Authorization", "Bearer x"), ("X-Signature", "ab"))) is None


@pytest.mark.parametrize(
    "key", ["[body.id, body.off]", "{id: body.id, none: body.nothing}", "body", "[body.off, body]"]
)
def test_a_mark_by_hand_may_have_several_parts(key: str) -> None:
    source = named("generic", dedup={"key": key, "window": "10m"})
    one = marks(source, request('{"id": 1, "off": false, "none": null}'))
    assert marks(source, request('{"none": null, "off": false, "id": 1}')) == one
    assert marks(source, request('{"id": 2, "off": false}')) != one


# --- garbage ----------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    [
        "action",
        "event",
        "module",
        "data",
        "type",
        "task",
        "entry",
        "entity",
        "media",
        "release",
        "workflow",
        "stages",
        "to",
        "name",
        "uid",
        "id",
        "documentId",
        "story_id",
        "asset_id",
        "discussion_id",
        "dialog_values",
        "secret",
        "documents",
        "releases",
        "addition",
        "masks",
        "tags",
        "operation",
        "localizations",
        "locale",
        "environment",
        "branch",
        "publish_details",
        "content_type",
        "stage",
        "status",
        "source",
        "created",
        "createdAt",
        "triggered_at",
        "timestamp",
        "object",
        "publishedAt",
        "isPublished",
        "__typename",
        "a",
        "b",
    ]
)
WORDS = st.sampled_from(
    [
        "entry",
        "asset",
        "workflow",
        "branch_alias",
        "publish",
        "publish.fail",
        "create-completed",
        "deleted",
        "created",
        "resolved",
        "stage.changed",
        "deployed",
        "releases.publish",
        "media.create",
        "review-workflows.updateEntryStage",
        "entry.update",
        "api-update",
        "plugin::x",
        ".",
        "a.",
    ]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)
BODIES = JSON.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=200)
HEADER_NAMES = st.sampled_from(
    [
        "webhook-signature",
        "webhook-id",
        "webhook-timestamp",
        "svix-id",
        "svix-timestamp",
        "svix-signature",
        "gcms-signature",
        "Authorization",
        "X-Strapi-Event",
        "X-Strapi-Signature-256",
        "x-storyblok-topic",
        "X-Contentstack-Request-Signature",
        "X-GitHub-Event",
        "x-contentstack-hmac-signature",
        "Stripe-Signature",
        "X-Hub-Signature-256",
        "X-One",
        "X-S",
    ]
)
WIRE = st.binary(max_size=60).map(lambda sent: sent.decode("utf-8", "surrogateescape"))
VALUES = WIRE | st.sampled_from(
    [
        "",
        "sign=é, env=master, t=1",
        "sign=AAAA, env=\udcff, t=12",
        "sign=AAAA, env=a, t=9999999999999999",
        "t=١٢,v1=aa",
        "t=" + "9" * 5000 + ",v1=aa",
        "t=1,t=2,v1=a",
        "v1,=== v1a,AAAA v1,é",
        "v1=é",
        "v1=,v1==,v1=AAAA",
        "sha256=é",
        "Bearer é",
        "Basic !!!!",
        "basic w6k=",
        "1732363200",
        "٣",
    ]
)
HEADERS = st.lists(st.tuples(HEADER_NAMES, VALUES), max_size=5)


@pytest.fixture(scope="module")
def rsa_pem() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(headers=HEADERS, body=BODIES)
def test_garbage_is_rejected_or_malformed_or_described(
    name: str, rsa_pem: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    configs = [*SIGNABLE[name], {"verify": "none"}]
    if name == "contentstack":
        configs.append({"public_key": rsa_pem})
    if name == "standard":
        configs.append({"public_key": "whpk_" + base64.b64encode(bytes(range(32))).decode()})
    for config in configs:
        source = adapter(name, **config)
        inbound = Inbound(CIMultiDict(headers), body)
        with suppress(Rejected, Malformed):
            source.verify(inbound, NOW)
        try:
            description = source.describe(without_proofs(inbound, source.body_proofs))
        except Malformed:
            continue
        if isinstance(description, Description):
            with suppress(Malformed):
                source.mark(inbound, description)
            assert description.changes
            for text in (description.event, description.environment, *description.changes[0].as_json().values()):
                assert text is None or (text and text.encode())


@pytest.mark.parametrize(("name", "config"), CASES)
def test_deep_and_huge_bodies_are_malformed(name: str, config: dict[str, Any]) -> None:
    source = adapter(name, verify="none")
    for body in (
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b'{"event":1e999}',
        b'{"id":' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
    ):
        if name in ("github", "generic"):
            assert described(source, request(body)).common.entry_id is None
        else:
            with pytest.raises(Malformed):
                source.describe(request(body))


# --- what configs may say ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("contentstack", {"public_key": "nonsense"}, "not a public key in PEM"),
        ("contentstack", {"public_key": []}, "empty list"),
        ("contentstack", {"token": "t", "basic": {"username": "u", "password": "p"}}, "can never both hold"),
        ("contentstack", {"basic": {"username": "a:b", "password": "p"}}, "cannot hold a colon"),
        ("strapi", {"token": "t", "headers": {"authorization": "Bearer t"}}, "can never both hold"),
        ("strapi", {"headers": "geheim"}, "a mapping of header names"),
        ("strapi", {"token": {"geheim": "geheim"}}, "expected a string"),
        ("generic", {"hmac": "geheim"}, "expected a mapping"),
        ("strapi", {"headers": {}}, "at least one header"),
        ("strapi", {"headers": {"X-A": "1", "x-a": "2"}}, "given twice"),
        ("strapi", {"headers": {"X A": "1"}}, "expected a header name"),
        ("strapi", {"token": "geheim\n"}, "cannot hold CR, LF or NUL"),
        ("strapi", {"token": "geheim "}, "white space"),
        ("strapi", {"secret": ""}, "the secret is empty"),
        ("prismic", {"secret": "s", "action": "create"}, "publish or unpublish"),
        ("hygraph", {"secret": "s", "tolerance": "5m"}, "at least 30m"),
        ("standard", {"secret": "whsec_!geheim!"}, "expected whsec_ and base64"),
        ("standard", {"secret": "whsec_"}, "expected whsec_ and base64"),
        ("standard", {"secret": "whsk_geheim"}, "asymmetric key"),
        ("standard", {"public_key": "whsk_geheim"}, "private key"),
        ("standard", {"public_key": "whpk_AAAA"}, "32 bytes"),
        ("storyblok", {"body_secret": {"pointer": "secret", "value": "geheim"}}, "JSON pointer"),
        ("generic", {"body_secret": {"pointer": "/a~2", "value": "geheim"}}, "'~0'"),
        ("generic", {"hmac": {"header": "X", "secret": "geheim", "algorithm": "md5"}}, "sha256"),
        ("github", {"secret": "geheim", "token": "geheim"}, "unknown key"),
    ],
)
def test_a_wrong_config_is_refused_without_showing_its_secrets(name: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        adapter(name, **config)
    assert message in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_a_private_or_foreign_key_is_not_a_contentstack_public_key() -> None:
    private = rsa.generate_private_key(65537, 2048).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    with pytest.raises(ValidationError, match="this is a private key"):
        adapter("contentstack", public_key=private.decode())
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(ValidationError, match="not an RSA key"):
        adapter(
            "contentstack",
            public_key=curve.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        )


@pytest.mark.parametrize(("name", "config"), CASES)
def test_no_repr_shows_a_secret(name: str, config: dict[str, Any]) -> None:
    module = types()[name]
    built = module.Config(type=name, **{**config, **({"token": "geheim"} if "token" in config else {})})
    for secret in ("geheim", WHSEC, "pä:ss"):
        assert secret not in repr(built)


def test_values_that_were_not_looked_up_are_not_judged() -> None:
    unknown = Unresolved("${NAME}")
    adapter("contentstack", public_key=unknown, basic={"username": unknown, "password": unknown}, tolerance=unknown)
    adapter("standard", secret=unknown, public_key=[unknown])
    adapter("hygraph", secret=unknown, tolerance=unknown)
    adapter("storyblok", secret=unknown, body_secret={"pointer": unknown, "value": unknown})
    adapter("generic", body_secret={"pointer": unknown, "value": unknown}, headers={"X-A": unknown})


# --- storyblok --------------------------------------------------------------------------------------------------------

DIALOG = {"pointer": "/dialog_values/secret", "value": "d"}
TASK = {"task": {"id": 1}, "action": "task_execution", "dialog_values": {"secret": "d"}}
STORY = {"action": "published", "story_id": 1}


def signature(body: dict[str, Any], secret: bytes = b"s") -> tuple[str, str]:
    return "webhook-signature", hmac.new(secret, json.dumps(body).encode(), hashlib.sha1).hexdigest()


def test_storyblok_tasks_prove_themselves_by_their_dialog_and_all_else_by_its_signature() -> None:
    both = adapter("storyblok", secret="s", body_secret=DIALOG)
    assert both.verify(request(TASK), NOW) == Proof(("body_secret",))
    assert both.verify(request(STORY, signature(STORY)), NOW) == Proof(("secret",))
    assert reason(both, request(STORY))
    assert reason(both, request({**STORY, "dialog_values": {"secret": "d"}}))
    unproven = {**TASK, "dialog_values": None}
    assert reason(both, request(unproven, signature(unproven)))


def test_storyblok_without_a_body_secret_takes_only_what_is_signed() -> None:
    assert reason(adapter("storyblok", secret="s"), request(TASK)) == "no webhook-signature header"


def test_storyblok_without_a_secret_takes_only_tasks() -> None:
    source = adapter("storyblok", body_secret=DIALOG)
    assert reason(source, request(STORY)).startswith("not a task")
    with pytest.raises(ValueError, match="not a task"):
        source.sign(request(STORY), NOW)
    with pytest.raises(Malformed):
        source.verify(request(b"no json"), NOW)


def test_storyblok_judges_the_signature_of_a_malformed_body_first() -> None:
    both = adapter("storyblok", secret="s", body_secret=DIALOG)
    assert reason(both, request(b"no json"))
    signed = both.sign(request(b"no json"), NOW)
    assert both.verify(signed, NOW)
    with pytest.raises(Malformed):
        both.describe(signed)


def test_a_dialogs_secret_cannot_pass_for_a_published_story() -> None:
    forged = {**TASK, **STORY}
    what = described(adapter("storyblok", body_secret=DIALOG), request(forged))
    assert (what.event, what.common) == ("task_execution", Change("task", None, "execute", "1"))


def test_storybloks_dialog_secret_is_blanked_wherever_it_is_configured() -> None:
    assert adapter("storyblok", verify="none").body_proofs == (("dialog_values", "secret"),)
    elsewhere = adapter("storyblok", body_secret={"pointer": "/dialog_values/a~1b", "value": "d"})
    assert elsewhere.body_proofs == (("dialog_values", "a/b"),)


def test_a_topic_that_contradicts_the_signed_action_is_not_believed() -> None:
    source = adapter("storyblok", verify="none")
    what = described(source, request({"action": "started"}, ("x-storyblok-topic", "story.published")))
    assert (what.event, what.common) == ("started", Change(None, None, "started", None))
    repeated = ("x-storyblok-topic", "asset.created")
    assert described(source, request({"action": "created"}, repeated, repeated)).event == "created"


# --- strapi -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", ["plugin::users-permissions.user", "admin::user"])
def test_strapis_own_content_types_are_ignored_unless_asked_for(uid: str) -> None:
    sent = request({"event": "entry.create", "model": "user", "uid": uid, "entry": {"id": 1}})
    assert adapter("strapi", token="t").describe(sent) == Ignored("plugin")
    assert described(adapter("strapi", token="t", plugins=True), sent).extra == {"uid": uid}


def test_strapis_test_button_is_a_test() -> None:
    sent = request({"event": "trigger-test", "createdAt": "2026-01-01T00:00:00.000Z"})
    what = described(adapter("strapi", token="t"), sent)
    assert (what.event, what.common) == ("trigger-test", Change(action="test"))


@pytest.mark.parametrize("action", ["'publish'", "body.event"])
def test_a_test_stays_one_whatever_map_says_of_actions(action: str) -> None:
    change = Change("article", None, action="test")
    inbound = request({"event": "trigger-test"})
    mapped = FieldMap({"action": action, "model": "'page'"}).apply(Description("trigger-test", (change,)), inbound)
    assert mapped.common == Change("page", None, action="test")


# --- contentstack -----------------------------------------------------------------------------------------------------


def contentstack_signature(key: rsa.RSAPrivateKey, body: bytes, salt: int) -> tuple[str, str]:
    signed = key.sign(body, padding.PSS(padding.MGF1(SHA256()), salt), SHA256())
    return "X-Contentstack-Request-Signature", f"v1={base64.b64encode(signed).decode().rstrip('=')}"


def test_contentstacks_signature_verifies_with_any_salt_and_either_form_of_the_key() -> None:
    key = rsa.generate_private_key(65537, 2048)
    body = b'{"triggered_at":"2026-11-23T20:00:00.000Z"}'
    for form in (PublicFormat.PKCS1, PublicFormat.SubjectPublicKeyInfo):
        pem = key.public_key().public_bytes(Encoding.PEM, form).decode()
        for written in (pem, pem.replace("\n", "\\n"), pem.strip()):
            source = adapter("contentstack", public_key=written)
            for salt in (0, 32, 222):
                assert source.verify(request(body, contentstack_signature(key, body, salt)), NOW).held == (
                    "public_key",
                )


def test_contentstacks_keys_may_be_several() -> None:
    old, new = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    pems = [key.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode() for key in (new, old)]
    source = adapter("contentstack", public_key=pems, tolerance="0s")
    assert source.verify(request(b"{}", contentstack_signature(old, b"{}", 32)), NOW).held == ("public_key[1]",)


def test_of_contentstacks_signatures_a_few_are_tried() -> None:
    key, other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
    source = adapter("contentstack", public_key=pem, tolerance="0s")
    name, right = contentstack_signature(key, b"{}", 32)
    _, wrong = contentstack_signature(other, b"{}", 32)
    fourth, fifth = (request(b"{}", (name, ",".join([*[wrong] * count, right]))) for count in (3, 4))
    assert source.verify(fourth, NOW).held == ("public_key",)
    assert "more than 4" in reason(source, fifth)


def test_all_configured_proofs_must_hold() -> None:
    source = adapter("contentstack", secret="s", token="t")
    signed = source.sign(samples.load("contentstack"), NOW)
    assert source.verify(signed, NOW).held == ("token", "secret")
    for header in ("Authorization", "x-contentstack-hmac-signature"):
        headers = CIMultiDict(signed.headers)
        del headers[header]
        assert reason(source, Inbound(headers, signed.body))


def test_only_a_private_key_that_relay_does_not_hold_cannot_be_signed_for(rsa_pem: str) -> None:
    with pytest.raises(ValueError, match="only Contentstack can sign"):
        adapter("contentstack", public_key=rsa_pem).sign(samples.load("contentstack"), NOW)
    with pytest.raises(ValueError, match="only the sender can sign"):
        adapter("standard", public_key="whpk_" + base64.b64encode(bytes(32)).decode()).sign(
            samples.load("standard"), NOW
        )


def test_contentstacks_sample_is_dated_when_it_is_signed() -> None:
    signed = adapter("contentstack", token="t").sign(samples.load("contentstack"), NOW)
    assert signed.object()["triggered_at"] == "2026-11-23T20:00:00.000Z"


@pytest.mark.parametrize(
    ("body", "event", "change"),
    [
        (
            {"module": "workflow", "event": "update", "data": {
                "entry": {"uid": "e"}, "content_type": {"uid": "c"}, "workflow": {"stage": {"name": "In Review"}}}},
            "workflow.update",
            Change("c", "in review", "stage_change", "e"),
        ),
        (
            {"module": "branch_alias", "event": "assigned", "data": {"branch_alias": {"uid": "live"}}},
            "branch_alias.assigned",
            Change("branch_alias", None, "assign", "live"),
        ),
        (
            {"module": "branch", "event": "create-completed", "data": {"branch": {"uid": "dev"}}},
            "branch.create-completed",
            Change("branch", None, "create", "dev"),
        ),
        (
            {"module": "content_type", "event": "update", "data": {"uid": "page", "title": "Page"}},
            "content_type.update",
            Change("content_type", None, "update", "page"),
        ),
        (
            {"module": "asset_folder", "event": "delete", "data": {"asset_folder": {"uid": "f"}}},
            "asset_folder.delete",
            Change("asset_folder", None, "delete", "f"),
        ),
        (
            {"module": "discussion", "event": "reopen", "data": {"discussion": {"uid": "d"}}},
            "discussion.reopen",
            Change("discussion", None, "reopen", "d"),
        ),
        (
            {"module": "taxonomy", "event": "localize", "data": {"taxonomy": {"uid": "t"}}},
            "taxonomy.localize",
            Change("taxonomy", None, "localize", "t"),
        ),
    ],
)  # fmt: skip
def test_contentstack_events_without_a_recorded_request(body: dict[str, Any], event: str, change: Change) -> None:
    what = described(adapter("contentstack", verify="none"), request(body))
    assert (what.event, what.common) == (event, change)


# --- prismic ----------------------------------------------------------------------------------------------------------


def test_prismics_action_says_what_its_document_changes_mean() -> None:
    body = {"type": "api-update", "documents": ["a"], "tags": {"addition": [{"id": "t"}]}}
    what = described(adapter("prismic", secret="s", action="unpublish"), request(body))
    assert what.changes == (Change("document", "published", "unpublish", "a"), Change("tag", None, "create", "t"))


def prismics(documents: int, **parts: Any) -> Inbound:
    """The body of a real request, with so many documents."""
    sample = samples.load("prismic", "document-several")
    return request({**sample.object(), "documents": [f"X{n:07}" for n in range(documents)], **parts})


def test_a_thousand_changes_are_told_one_by_one() -> None:
    what = named("prismic", verify="none").describe(prismics(999, tags={"addition": [{"id": "t"}]}))
    assert isinstance(what, Description)
    assert what.changes == (
        *(Change("document", "published", "change", f"X{n:07}") for n in range(999)),
        Change("tag", None, "create", "t"),
    )
    assert "changes_count" not in what.extra


def test_more_than_a_thousand_changes_are_told_by_what_they_are_without_their_entries() -> None:
    what = named("prismic", verify="none", action="publish").describe(prismics(1001))
    assert isinstance(what, Description)
    assert what.changes == (Change("document", "published", "publish"),)
    assert what.extra == {"domain": "your-repo-name", "master_ref": what.extra["master_ref"], "changes_count": 1001}
    mixed = named("prismic", verify="none").describe(
        prismics(1000, releases={"deletion": [{"id": "r"}]}, tags={"addition": []})
    )
    assert isinstance(mixed, Description)
    assert mixed.changes == (Change("document", "published", "change"), Change("release", None, "delete"))
    assert mixed.extra["changes_count"] == 1001
    for wanted in ({"model": ["document"]}, {"model": ["release"], "action": ["delete"]}, {"action": ["publish"]}):
        assert Filter(wanted).matches(Subject(mixed, "prismic", "s"))


def test_a_body_full_of_documents_makes_no_change_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    def change(*args: Any) -> Change:
        nonlocal made
        made += 1
        return Change(*args)

    monkeypatch.setattr(prismic, "Change", change)
    what = described(adapter("prismic", verify="none"), request(b'{"documents":[' + b"1," * 500_000 + b"1]}"))
    assert (made, what.changes, what.extra) == (
        1,
        (Change("document", "published", "change"),),
        {"changes_count": 500_001},
    )


@pytest.mark.parametrize("models", [1, 1000, 1001])
def test_changes_are_bounded_whatever_the_source(models: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = named("generic", verify="none")
    told = tuple(Change(f"m{n % models}", "s", None, str(n)) for n in range(2002))
    monkeypatch.setattr(source.adapter, "describe", lambda _: Description("e", told, extra={"a": 1}))
    what = source.describe(request("{}"))
    assert isinstance(what, Description)
    assert what.extra == {"a": 1, "changes_count": 2002}
    if models > 1000:
        assert what.changes == (Change(None, "s"),)
    else:
        assert what.changes == tuple(Change(f"m{n}", "s") for n in range(models))


def test_prismics_trigger_button_is_a_test() -> None:
    what = described(adapter("prismic", secret="s"), request({"type": "test-trigger", "domain": "d", "secret": "s"}))
    assert (what.event, what.common, what.extra) == ("test-trigger", Change(action="test"), {"domain": "d"})


def test_prismics_secret_is_blanked_also_where_nothing_is_verified() -> None:
    assert adapter("prismic", verify="none").body_proofs == (("secret",),)


# --- hygraph ----------------------------------------------------------------------------------------------------------


@given(text=st.text(max_size=40), env=st.text(min_size=1, max_size=8, alphabet="abc-Ö"))
def test_hygraphs_message_is_what_javascript_would_write(text: str, env: str) -> None:
    body = json.dumps({"t": text}, ensure_ascii=False).encode("utf-8", "replace")
    written = json.dumps(
        {"Body": body.decode(), "EnvironmentName": env, "TimeStamp": 17}, ensure_ascii=False, separators=(",", ":")
    )
    sign = base64.b64encode(hmac.digest(b"s", written.encode(), "sha256")).decode()
    source = adapter("hygraph", secret="s")
    assert source.verify(request(body, ("gcms-signature", f"sign={sign}, env={env}, t=17")), NOW)


def test_hygraphs_body_that_is_not_utf8_is_malformed() -> None:
    with pytest.raises(Malformed):
        adapter("hygraph", secret="s").verify(request(b"\xff", ("gcms-signature", "sign=AAAA, env=a, t=1")), NOW)


def test_graphcms_is_hygraph() -> None:
    assert adapter("graphcms", secret="s").describe(request({"operation": "publish"}))


# --- standard ---------------------------------------------------------------------------------------------------------


def test_standard_v1a_is_an_ed25519_signature() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    seconds = str(int(NOW.timestamp()))
    code = base64.b64encode(private.sign(b"msg_1." + seconds.encode() + b".{}")).decode()
    source = adapter("standard", public_key="whpk_" + base64.b64encode(public).decode())
    headers = [("webhook-id", "msg_1"), ("webhook-timestamp", seconds)]
    assert source.verify(request("{}", *headers, ("webhook-signature", f"v1,AAAA v1a,{code}")), NOW).held == (
        "public_key",
    )
    assert reason(source, request("{}", *headers, ("webhook-signature", f"v1,{code}"))) == "no v1a signature fits"
    assert reason(source, request("[]", *headers, ("webhook-signature", f"v1a,{code}")))


def test_somebody_elses_library_makes_signatures_that_verify() -> None:
    from standardwebhooks import Webhook

    code = Webhook(WHSEC).sign("msg_1", NOW, "{}")
    headers = [("webhook-id", "msg_1"), ("webhook-timestamp", str(int(NOW.timestamp()))), ("webhook-signature", code)]
    assert adapter("standard", secret=WHSEC).verify(request("{}", *headers), NOW).held == ("secret",)


def test_standards_message_id_must_be_there_once() -> None:
    source = adapter("standard", secret=WHSEC)
    signed = source.sign(samples.load("standard"), NOW)
    repeated = CIMultiDict(signed.headers)
    repeated.add("webhook-id", "msg_2")
    assert reason(source, Inbound(repeated, signed.body)) == "the webhook-id header is repeated"


def test_half_of_one_header_set_and_half_of_the_other_do_not_verify() -> None:
    source = adapter("standard", secret=WHSEC)
    headers = CIMultiDict(source.sign(samples.load("standard"), NOW).headers)
    headers["svix-id"] = headers.pop("webhook-id")
    assert reason(source, Inbound(headers, samples.load("standard").body)) == "no webhook-id header"


# --- others -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["github", "generic"])
def test_any_body_is_taken(name: str) -> None:
    what = described(adapter(name, verify="none"), request(b"\xff not json"))
    assert what == Description(None)


def test_github_names_its_event_in_a_header_and_its_action_in_the_body() -> None:
    what = described(adapter("github", secret="s"), request({"action": "Opened"}, ("X-GitHub-Event", "pull_request")))
    assert (what.event, what.common) == ("pull_request", Change("pull_request", None, "opened", None))


def test_each_signed_github_delivery_has_an_id_of_its_own() -> None:
    source = adapter("github", secret="s")
    one, other = (source.sign(samples.load("github"), now) for now in (NOW, NOW + timedelta(seconds=1)))
    assert one.headers["X-GitHub-Delivery"] != other.headers["X-GitHub-Delivery"]


def test_stripe_says_what_and_when() -> None:
    body = {"type": "customer.subscription.updated", "created": 1732363200, "data": {"object": {"id": "sub_1"}}}
    what = described(adapter("stripe", secret="s"), request(body))
    assert what.common == Change("customer.subscription", None, "updated", "sub_1")
    assert what.occurred_at == datetime(2024, 11, 23, 12, tzinfo=UTC)


def test_a_generic_hex_signature_may_be_in_capitals() -> None:
    source = adapter("generic", hmac={"header": "X-S", "secret": "s"})
    code = hmac.digest(b"s", b"{}", "sha256").hex().upper()
    assert source.verify(request("{}", ("X-S", code)), NOW).held == ("hmac.secret",)


def test_a_generic_body_secret_is_read_at_object_keys_only() -> None:
    source = adapter("generic", body_secret={"pointer": "/a/0", "value": "v"})
    assert source.body_proofs == (("a", "0"),)
    assert source.verify(request({"a": {"0": "v"}}), NOW)
    assert reason(source, request({"a": ["v"]}))
    with pytest.raises(Malformed):
        source.verify(request(b"v"), NOW)
