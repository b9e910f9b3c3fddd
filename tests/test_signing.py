"""What relay signs, as receivers verify it: by their own libraries, and by the code of relay's sources."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from multidict import CIMultiDict

from relay import signing
from relay.bodyproof import without_proofs
from relay.config import load
from relay.delivery import Code, Delivery, Response
from relay.destination import Destination, Outbound, Unsendable
from relay.event import Change, Description, Event, Inbound
from relay.ids import DeliveryId, EventId
from relay.keyed import Keyed
from relay.runtime import build
from relay.secret import MASK
from relay.signing import Message, asymmetric_key
from relay.signschema import never_an_object
from relay.source import types
from tests.node import verified

BODY = '{"operation":"publish","title":"Über <b>&</b> 日本  \\u003c","n":1.0,"big":12345678901234567890}'.encode()
KEY = "0123456789abcdef-äöü"
WHSEC = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OTHER_WHSEC = "whsec_" + base64.b64encode(b"another-key-another-key!").decode()
SEED, OTHER_SEED = b"0123456789abcdef0123456789abcdef", b"fedcba9876543210fedcba9876543210"

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _now() -> None:
    """The libraries look at the clock themselves, and take nothing that is minutes old."""
    global NOW
    NOW = datetime.now(UTC)


def public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def coded(prefix: str, key: bytes) -> str:
    return prefix + base64.b64encode(key).decode()


def destination(*sign: dict[str, Any], **route: Any) -> Destination:
    """The destination of a config's only route, as the daemon builds it."""
    config = {"routes": [{"name": "r", "to": {"url": "https://example.com/"}, "sign": list(sign)} | route]}
    loaded = load(yaml.safe_dump(config, allow_unicode=True).encode(), environ={})
    [built] = build(loaded, 1, NOW).routing.routes.values()
    return built.destination


def event(body: bytes = BODY, description: Description | None = None) -> Event:
    return Event(
        id=EventId(1),
        source="www",
        type="generic",
        received_at=NOW,
        description=description or Description("publish", (Change(),)),
        headers=(("Content-Type", "application/json"),),
        body=body,
        sha256=hashlib.sha256(body).digest(),
    )


def rendered(to: Destination, what: Event | None = None) -> Outbound:
    delivery = Delivery(id=DeliveryId(2), route="r", event=what or event(), due=NOW, first_due=NOW)
    return to.render(delivery, "dlv_1", "evt_1", NOW)


def headers_of(outbound: Outbound) -> dict[str, str]:
    return {name.lower(): value for name, value in outbound.headers}


def case(scheme: str, secret: str, outbound: Outbound, body: bytes | None = None) -> dict[str, Any]:
    text = (outbound.body if body is None else body).decode()
    return {"scheme": scheme, "secret": secret, "headers": headers_of(outbound), "body": text}


# --- somebody else's code ---------------------------------------------------------------------------------------------


def test_npm_libraries_verify_github_hygraph_and_v1a_and_nothing_that_was_changed() -> None:
    """`@octokit/webhooks-methods`, `@hygraph/utils`, and for v1a the specification with Node's own Ed25519."""
    github = rendered(destination({"scheme": "github", "secret": KEY}))
    hygraph = rendered(destination({"scheme": "hygraph", "secret": KEY}))
    secrets = [coded("whsk_", SEED), coded("whsk_", OTHER_SEED + public(OTHER_SEED))]
    both = rendered(destination({"scheme": "standard-asymmetric", "secret": secrets}))
    pairs = [
        ("github", KEY, "another", github),
        ("hygraph", KEY, "another", hygraph),
        ("standard-asymmetric", coded("whpk_", public(SEED)), coded("whpk_", public(b"x" * 32)), both),
        ("standard-asymmetric", coded("whpk_", public(OTHER_SEED)), coded("whpk_", public(b"y" * 32)), both),
    ]
    assert verified(
        [
            one
            for scheme, secret, wrong, sent in pairs
            for one in (
                case(scheme, secret, sent),
                case(scheme, secret, sent, sent.body + b" "),
                case(scheme, wrong, sent),
            )
        ]
    ) == [True, False, False] * len(pairs)


@pytest.mark.parametrize("secret", [WHSEC, OTHER_WHSEC])
def test_standardwebhooks_verifies_each_of_two_signatures(secret: str) -> None:
    sent = rendered(destination({"scheme": "standard", "secret": [WHSEC, OTHER_WHSEC]}))
    assert headers_of(sent)["webhook-signature"].count("v1,") == 2
    standardwebhooks.Webhook(secret).verify(sent.body, dict(sent.headers))
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret).verify(sent.body + b" ", dict(sent.headers))


def test_storyblok_is_the_hmac_that_storyblok_documents() -> None:
    # https://www.storyblok.com/tp/webhook-secret-with-different-technologies
    sent = rendered(destination({"scheme": "storyblok", "secret": KEY}))
    assert headers_of(sent)["webhook-signature"] == hmac.new(KEY.encode(), sent.body, hashlib.sha1).hexdigest()


def test_a_key_that_is_not_utf_8_is_its_bytes() -> None:
    key = b"\xff" * 16
    [(_, signature)] = signing.storyblok(os.fsdecode(key)).sign(Message("dlv_1", NOW, 0, None), BODY)
    assert signature == hmac.new(key, BODY, hashlib.sha1).hexdigest()


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_hmac_is_any_header_of_that_kind(algorithm: str, encoding: str) -> None:
    scheme = {"scheme": "hmac", "secret": KEY, "header": "X-Sig", "algorithm": algorithm, "encoding": encoding}
    digest = hmac.new(KEY.encode(), BODY, algorithm).digest()
    expected = digest.hex() if encoding == "hex" else base64.b64encode(digest).decode()
    assert headers_of(rendered(destination(scheme)))["x-sig"] == expected
    assert headers_of(rendered(destination({**scheme, "prefix": "v1="})))["x-sig"] == "v1=" + expected


def test_schemes_of_different_headers_sign_the_same_bytes() -> None:
    sent = rendered(
        destination(
            {"scheme": "github", "secret": KEY},
            {"scheme": "prismic", "secret": "geheim-ß-0123456789"},
            {"scheme": "hmac", "secret": KEY, "header": "X-Sig"},
        )
    )
    digest = hmac.new(KEY.encode(), sent.body, "sha256").hexdigest()
    assert headers_of(sent)["x-hub-signature-256"] == f"sha256={digest}"
    assert headers_of(sent)["x-sig"] == digest
    assert json.loads(sent.body)["secret"] == "geheim-ß-0123456789"


@pytest.mark.parametrize("payload", ["full", "normalized"])
def test_the_payload_is_signed_as_it_is_sent(payload: str) -> None:
    sent = rendered(destination({"scheme": "standard", "secret": WHSEC}, payload=payload))
    standardwebhooks.Webhook(WHSEC).verify(sent.body, dict(sent.headers))


# --- the environment of hygraph ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configured", "said", "expected"),
    [("staging", "production", "staging"), (None, "production", "production"), (None, None, "master")],
)
def test_hygraphs_environment_is_the_schemes_else_the_events_else_master(
    configured: str | None, said: str | None, expected: str
) -> None:
    scheme = {"scheme": "hygraph", "secret": KEY} | ({"env": configured} if configured else {})
    sent = rendered(destination(scheme), event(description=Description("publish", environment=said)))
    assert f", env={expected}, t={int(NOW.timestamp() * 1000)}" in headers_of(sent)["gcms-signature"]


def test_an_environment_that_no_header_can_hold_neither_breaks_nor_forges_one() -> None:
    odd = event(description=Description("publish", environment="a\r\nX-Evil: 1\0\ud800"))
    signature = headers_of(rendered(destination({"scheme": "hygraph", "secret": KEY}), odd))["gcms-signature"]
    assert "env=a??X-Evil: 1??, t=" in signature


# --- prismic's secret in the body -------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"not json", b"\xff", b""])
def test_a_body_that_cannot_hold_prismics_secret_is_not_sent(body: bytes) -> None:
    with pytest.raises(Unsendable) as caught:
        rendered(destination({"scheme": "prismic", "secret": KEY}), event(body))
    assert caught.value.failure.code is Code.TEMPLATE_ERROR


def test_prismics_secret_is_not_shown_however_short_it_is() -> None:
    to = destination({"scheme": "prismic", "secret": "abc"})
    sent = rendered(to)
    assert b'"secret":"abc"' in sent.body
    assert json.loads(to.shown_body(sent))["secret"] == MASK


@pytest.mark.parametrize("payload", [{"template": "{{ [event.id] | tojson }}"}, {"jmespath": "body.nothing"}])
def test_relay_check_warns_where_the_sample_gives_prismics_secret_no_object(payload: dict[str, str]) -> None:
    sign = [{"scheme": "prismic", "secret": KEY}]
    text = json.dumps({
        "sources": {"www": {"type": "storyblok", "secret": KEY}},
        "routes": [{"name": "r", "to": {"url": "https://example.com/"}, "payload": payload, "sign": sign}],
    })  # fmt: skip
    [warning] = load(text.encode(), try_samples=True).warnings
    assert warning.path == "routes[0].payload"
    assert "no secret can be put into the payload" in warning.message


def test_relay_check_has_nothing_to_say_where_the_sample_is_an_object() -> None:
    sign = [{"scheme": "prismic", "secret": "${S}"}, {"scheme": "standard-asymmetric", "secret": "${S}"}]
    text = json.dumps({
        "sources": {"www": {"type": "storyblok", "secret": KEY}},
        "routes": [{"name": "r", "to": {"url": "https://example.com/"}, "sign": sign}],
    })  # fmt: skip
    assert load(text.encode(), try_samples=True, no_secrets=True).warnings == ()


def test_a_signature_that_the_destination_echoes_is_not_kept() -> None:
    schemes = (
        {"scheme": "standard", "secret": ["whsec_MDEyMzQ1Njc4OWFiY2RlZg==", "whsec_MDEyMzQ1Njc4OWFiY2RlZh=="]},
        {"scheme": "hygraph", "secret": KEY},
        {"scheme": "github", "secret": KEY},
        {"scheme": "hmac", "secret": KEY, "header": "X-Sig", "algorithm": "sha1", "encoding": "base64"},
    )
    to = destination(*schemes)
    sent = rendered(to)
    signed = [
        headers_of(sent)[name] for name in ("webhook-signature", "gcms-signature", "x-hub-signature-256", "x-sig")
    ]
    digests = re.findall(r"[A-Za-z0-9+/]{27,}", " ".join(signed))
    assert len(digests) == 5
    echo = json.dumps({"you": "sent", "whole": signed, "bare": digests}).replace("/", "\\/")
    answer = Response(200, (("X-Echo", digests[0]),), echo.encode(), truncated=False)
    kept = repr(to.masked(answer, sent)).replace("\\", "")
    assert [digest for digest in digests if digest in kept] == []
    assert '"you": "sent"' in kept


def test_no_signature_is_shown() -> None:
    schemes = (
        {"scheme": "hygraph", "secret": KEY},
        {"scheme": "github", "secret": KEY},
        {"scheme": "storyblok", "secret": KEY},
        {"scheme": "hmac", "secret": KEY, "header": "X-Proof-Of-Mine"},
    )
    to = destination(*schemes)
    shown = {name.lower(): value for name, value in to.shown(rendered(to)).headers}
    for header in ("gcms-signature", "x-hub-signature-256", "webhook-signature", "x-proof-of-mine"):
        assert shown[header] == MASK


@pytest.mark.parametrize(
    ("payload", "never"),
    [
        ("full", False),
        ("normalized", False),
        (None, False),
        ("empty", True),
        ({"template": '{"id": "x"}'}, False),
        ({"template": "{% if a %}{}{% endif %}"}, False),
        ({"template": "  id={{ x }}"}, True),
        ({"jmespath": "{id: event.entry_id}"}, False),
        ({"jmespath": "body"}, False),
        ({"jmespath": "body.items[*].id"}, True),
        ({"jmespath": "[event, body]"}, True),
        ({"jmespath": "event.action == 'publish'"}, True),
        ({"jmespath": "((("}, False),
        ({"template": 5}, False),
    ],
)
def test_only_payloads_that_are_certainly_no_object_are_refused_for_prismic(payload: object, never: bool) -> None:
    assert (never_an_object(payload) is not None) is never


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["whsk_", "whsk_%%%", "", coded("whsk_", b"short"), WHSEC, coded("whpk_", SEED)])
def test_a_key_that_is_no_ed25519_key_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="expected whsk_"):
        asymmetric_key(secret)


# --- recorded requests, relayed ---------------------------------------------------------------------------------------

SAMPLES = Path(__file__).parent / "samples"


def matching(config: dict[str, Any]) -> dict[str, Any] | None:
    """The scheme that signs as the sender of a recorded request did."""
    kind, secret = config["type"], config.get("secret")
    if config.get("verify") == "none":
        return None
    if kind == "generic" and "hmac" in config:
        return {"scheme": "hmac", **config["hmac"]}
    if kind not in ("storyblok", "hygraph", "graphcms", "prismic", "github", "standard") or secret is None:
        return None
    return {
        "scheme": "hygraph" if kind == "graphcms" else kind,
        "secret": secret[0] if isinstance(secret, list) else secret,
    }


def signed_samples() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    found = []
    for path in sorted(SAMPLES.glob("*/*.json")):
        sample = json.loads(path.read_text())
        scheme = matching(sample["source_config"])
        unsigned_task = sample["source_config"]["type"] == "storyblok" and '"task"' in sample.get("body", "")
        if scheme is not None and sample["status"] == 200 and not unsigned_task:
            found.append((f"{path.parent.name}/{path.stem}", sample, scheme))
    return found


SIGNED = signed_samples()


def relayed(sample: dict[str, Any], scheme: dict[str, Any]) -> tuple[Outbound, Inbound]:
    """A recorded request, taken in as the daemon does and sent on signed; and what the sender had sent."""
    module = types()[sample["source_config"]["type"]]
    adapter = module.Adapter(module.Config.model_validate(sample["source_config"]))
    body = base64.b64decode(sample["body_base64"]) if "body_base64" in sample else sample["body"].encode()
    original = Inbound(CIMultiDict([(name, value) for name, value in sample["headers"]]), body)
    then = datetime.fromtimestamp(sample["now"], UTC) if sample["now"] is not None else NOW
    assert adapter.verify(original, then).held
    stored = without_proofs(original, adapter.body_proofs)
    description = adapter.describe(stored)
    assert isinstance(description, Description)
    return rendered(destination(scheme), event(stored.body, description)), original


def test_each_kind_of_signed_sender_has_recorded_requests() -> None:
    kinds = [scheme["scheme"] for _, _, scheme in SIGNED]
    assert {
        kind: kinds.count(kind) > least for kind, least in (("storyblok", 25), ("hygraph", 15), ("prismic", 12))
    } == (dict.fromkeys(("storyblok", "hygraph", "prismic"), True))
    assert {"github", "standard"} <= set(kinds)


@pytest.mark.parametrize(("sample", "scheme"), [one[1:] for one in SIGNED], ids=[one[0] for one in SIGNED])
def test_a_recorded_request_relayed_with_its_senders_scheme_verifies_as_the_original_did(
    sample: dict[str, Any], scheme: dict[str, Any]
) -> None:
    sent, original = relayed(sample, scheme)
    module = types()[sample["source_config"]["type"]]
    receiver = module.Adapter(module.Config.model_validate(sample["source_config"]))
    assert receiver.verify(Inbound(CIMultiDict(sent.headers), sent.body), NOW).held
    if scheme["scheme"] != "prismic":
        assert sent.body == original.body
    else:  # the sender's secret was taken out, the route's put in: here they are the same
        assert json.loads(sent.body) == json.loads(original.body)


def test_hygraphs_own_library_verifies_its_recorded_requests_after_relay() -> None:
    sent = [
        (scheme["secret"], relayed(sample, scheme)[0]) for _, sample, scheme in SIGNED if scheme["scheme"] == "hygraph"
    ]
    assert all(verified([case("hygraph", secret, one) for secret, one in sent]))


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("length", [1, 24, 63, 64, 65, 127, 128, 129, 300])
def test_a_key_that_is_used_again_and_again_signs_as_python_does(algorithm: Any, length: int) -> None:
    key = bytes(range(1, 256)) * 2
    keyed = Keyed(key[:length], algorithm)
    for message in (b"", b"a", b"b" * 1000):
        assert keyed.digest(message) == hmac.digest(key[:length], message, algorithm)
