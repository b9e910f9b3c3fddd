"""From a delivery to a request, and from an answer to an outcome."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
import standardwebhooks
from yarl import URL

from relay import __version__
from relay.delivery import Code, Delivered, Delivery, Outcome, Refused, Response, Retryable
from relay.destination import Destination, Limits, Outbound, Unsendable, expired
from relay.event import Change, Description, Event
from relay.ids import DeliveryId, EventId
from relay.masking import may_echo
from relay.payload import PAYLOADS
from relay.secret import Redactor
from relay.signing import StandardSigner, standard_key
from tests.fakes import NOON

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OTHER = "whsec_" + base64.b64encode(b"another-key-another-key!").decode()
BODY = '{"event":"entry.publish","title":"Über <b>&</b> 日本","n":1.0}'.encode()
SENT = Outbound("POST", URL("https://hook.example/"), [], b"")


def event(**given: Any) -> Event:
    fields: dict[str, Any] = {
        "id": EventId(1),
        "source": "blog",
        "type": "strapi",
        "received_at": NOON,
        "description": Description("entry.publish", (Change("article", "published", "publish", "7"),)),
        "headers": (("Content-Type", "application/json"), ("X-Strapi-Event", "entry.publish")),
        "body": BODY,
        "sha256": b"x",
    }
    return Event(**fields | given)


def delivery(of: Event | None = None, **given: Any) -> Delivery:
    fields: dict[str, Any] = {"id": DeliveryId(2), "route": "r", "event": of or event(), "due": NOON, "first_due": NOON}
    return Delivery(**fields | given)


def destination(**given: Any) -> Destination:
    fields: dict[str, Any] = {
        "url": URL("http://sink/hook"),
        "shown_url": "http://sink/hook",
        "method": "POST",
        "headers": {},
        "default_headers": {},
        "pass_headers": (),
        "authorization": None,
        "payload": PAYLOADS["full"],
        "signers": (),
        "limits": Limits(30, 5, 1024),
        "success": range(200, 300),
        "give_up_on": {400, 422},
        "redact": Redactor(),
    }
    return Destination(**fields | given)


def headers_of(destination: Destination, what: Delivery | None = None) -> dict[str, str]:
    rendered = destination.render(what or delivery(), "dlv_1", "evt_1", NOON).headers
    names = [name.lower() for name, _ in rendered]
    assert len(names) == len(set(names)), "no header twice"
    return dict(rendered)


def test_the_body_goes_out_byte_for_byte_with_its_content_type() -> None:
    outbound = destination().render(delivery(), "dlv_1", "evt_1", NOON)
    assert outbound.body == BODY
    assert dict(outbound.headers)["Content-Type"] == "application/json"


def test_every_attempt_says_what_it_is() -> None:
    headers = headers_of(destination(), delivery(attempts=2))
    assert headers == {
        "Content-Type": "application/json",
        "User-Agent": f"relay/{__version__}",
        "webhook-id": "dlv_1",
        "webhook-timestamp": str(int(NOON.timestamp())),
        "X-Relay-Source": "blog",
        "X-Relay-Event": "entry.publish",
        "X-Relay-Attempt": "3",
        "X-Relay-Hops": "1",
    }


def test_later_headers_win_whatever_their_case() -> None:
    made = destination(
        default_headers={"x-team": "default", "X-Strapi-Event": "default"},
        pass_headers=("x-strapi-event", "Content-Type"),
        headers={"USER-AGENT": "mine", "X-Team": "route"},
        authorization="Bearer t",
    )
    headers = {name.lower(): value for name, value in headers_of(made).items()}
    assert headers["x-team"] == "route"
    assert headers["x-strapi-event"] == "entry.publish"
    assert headers["user-agent"] == "mine"
    assert headers["authorization"] == "Bearer t"


def test_a_masked_header_is_never_passed_on() -> None:
    masked = event(headers=(("Authorization", "***"), ("X-Token", "***")))
    assert "X-Token" not in headers_of(destination(pass_headers=("X-Token",)), delivery(masked))


def test_a_header_that_came_several_times_is_passed_on_whole() -> None:
    made = destination(pass_headers=("X-Tag", "X-Token"))
    repeated = event(headers=(("X-Tag", "a"), ("X-Token", "***"), ("x-tag", "b, c"), ("X-Token", "***")))
    passed = headers_of(made, delivery(repeated))
    assert passed["X-Tag"] == "a, b, c"
    assert "X-Token" not in passed


def test_what_no_header_can_hold_is_replaced() -> None:
    odd = event(description=Description("a\r\nX-Evil: 1\0\ud800"))
    assert headers_of(destination(), delivery(odd))["X-Relay-Event"] == "a??X-Evil: 1??"


def test_a_sender_that_names_no_event_gets_no_event_header() -> None:
    assert "X-Relay-Event" not in headers_of(destination(), delivery(event(description=Description(None))))


def test_an_empty_payload_has_neither_body_nor_content_type() -> None:
    outbound = destination(payload=PAYLOADS["empty"]).render(delivery(), "dlv_1", "evt_1", NOON)
    assert outbound.body == b""
    assert "Content-Type" not in dict(outbound.headers)


def test_the_normalized_payload_is_the_description() -> None:
    outbound = destination(payload=PAYLOADS["normalized"]).render(delivery(), "dlv_1", "evt_1", NOON)
    assert outbound.body == (
        b'{"id":"evt_1","source":"blog","type":"strapi","event":"entry.publish","received_at":"2026-11-23T12:00:00.000Z",'
        b'"occurred_at":null,"environment":null,"branch":null,"locale":null,"model":"article","stage":"published",'
        b'"action":"publish","entry_id":"7","changes":[{"model":"article","stage":"published","action":"publish",'
        b'"entry_id":"7"}],"extra":{}}'
    )


@pytest.mark.parametrize("secret", [SECRET, OTHER])
def test_each_of_several_signatures_verifies_by_the_reference_library(secret: str, monkeypatch: Any) -> None:
    outbound = destination(signers=(StandardSigner([SECRET, OTHER]),)).render(delivery(), "dlv_1", "evt_1", NOON)
    monkeypatch.setattr("standardwebhooks.webhooks.datetime", _FrozenDatetime)
    standardwebhooks.Webhook(secret).verify(outbound.body, dict(outbound.headers))
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret).verify(outbound.body + b" ", dict(outbound.headers))


class _FrozenDatetime(type(NOON)):  # type: ignore[misc]
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return NOON


@pytest.mark.parametrize("secret", ["whsec_", "whsec_%%%", ""])
def test_a_key_that_is_not_base64_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="expected whsec_"):
        standard_key(secret)


def test_the_fifth_relay_sends_and_the_sixth_breaks_the_loop() -> None:
    assert headers_of(destination(), delivery(event(headers=(("x-relay-hops", "4"),))))["X-Relay-Hops"] == "5"
    with pytest.raises(Unsendable) as caught:
        headers_of(destination(), delivery(event(headers=(("X-Relay-Hops", "5"),))))
    assert caught.value.failure.code is Code.REFUSED


def test_what_is_shown_has_no_credential_signature_or_secret() -> None:
    made = destination(
        authorization="Bearer hush-hush", signers=(StandardSigner([SECRET]),), headers={"X-Key": "from-a-file"},
        redact=Redactor(["from-a-file"]),
    )  # fmt: skip
    shown = made.shown(made.render(delivery(), "dlv_1", "evt_1", NOON))
    assert "hush" not in repr(shown)
    assert dict(shown.headers) | {"Authorization": "***", "webhook-signature": "***", "X-Key": "***"} == dict(
        shown.headers
    )


def test_an_answer_that_echoes_a_secret_is_kept_without_it() -> None:
    made = destination(redact=Redactor(["s3cret-token"]))
    kept = made.masked(
        Response(200, (("Set-Cookie", "a=b"), ("X-Echo", "s3cret-token")), b"\xffs3cret-token", False), SENT
    )
    assert kept == Response(200, (("Set-Cookie", "***"), ("X-Echo", "***")), b"\xff***", False)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (200, Delivered, None),
        (299, Delivered, None),
        (301, Retryable, Code.HTTP_STATUS),
        (400, Refused, Code.REFUSED),
        (401, Retryable, Code.HTTP_STATUS),
        (410, Refused, Code.GONE),
        (422, Refused, Code.REFUSED),
        (500, Retryable, Code.HTTP_STATUS),
    ],
)
def test_the_status_decides(status: int, kind: type[Outcome], code: Code | None) -> None:
    outcome = destination().judge(Response(status, (), b"", False), None, NOON)
    assert isinstance(outcome, kind)
    assert (None if isinstance(outcome, Delivered) else outcome.failure.code) == code


def test_success_as_configured_wins_over_all_else() -> None:
    lenient = destination(success={410, 422})
    assert isinstance(lenient.judge(Response(410, (), b"", False), None, NOON), Delivered)
    assert isinstance(lenient.judge(Response(200, (), b"", False), None, NOON), Retryable)


@pytest.mark.parametrize(("status", "heard"), [(429, True), (503, True), (500, False)])
def test_retry_after_counts_on_429_and_503_only(status: int, heard: bool) -> None:
    outcome = destination().judge(Response(status, (), b"", False), "60", NOON)
    assert isinstance(outcome, Retryable)
    assert (outcome.retry_after == NOON + timedelta(seconds=60)) is heard


def test_a_delivery_past_its_max_age_expires() -> None:
    old = replace(delivery(), first_due=NOON - timedelta(hours=2))
    assert expired(old, None, NOON) is None
    assert expired(old, timedelta(hours=3), NOON) is None
    failure = expired(old, timedelta(hours=1), NOON)
    assert failure is not None
    assert failure.code is Code.EXPIRED


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "Bearer "])
@pytest.mark.parametrize(
    "written", [str, lambda text: quote(text, safe=""), lambda text: base64.b64encode(text.encode()).decode()]
)
def test_the_quick_look_overlooks_no_echo(before: str, written: Callable[[str], str]) -> None:
    signature = "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="
    echo = f"you said {written(before + signature)}"
    assert may_echo(Response(200, (), echo.encode(), truncated=False), [signature])
    plain = (("Date", "Thu, 26 Nov 2026 02:41:58 GMT"), ("Server", "nginx"))
    assert not may_echo(Response(200, plain, b'{"status":"taken in with thanks"}', truncated=False), [signature])
    assert not may_echo(Response(200, plain, b"ok", truncated=False), [signature])
    for told in (signature, f"it was {signature}", signature.partition("/")[0]):
        assert may_echo(Response(200, (*plain, ("X-Echo", told)), b"ok", truncated=False), [signature])
    assert may_echo(Response(200, plain, b"ok 1/abc/ef", truncated=False), ["v1,1/abc/ef"])


@pytest.mark.parametrize("secret", ["01JD7B3KTQ9X", "dlv_01JD7B", "_01JD7B3", "QZ4Y5V6W7X", "1794657600", "7946576"])
def test_a_secret_that_an_id_or_a_moment_holds_is_masked_there(secret: str) -> None:
    made = destination(redact=Redactor([secret]))
    moment = datetime.fromtimestamp(1794657600, UTC)
    shown = made.shown(made.render(delivery(), "dlv_01JD7B3KTQ9XQZ4Y5V6W7XABCD", "evt_1", moment))
    assert secret not in repr(shown)


def test_an_answer_is_kept_without_the_signature_that_it_echoes() -> None:
    made = destination(signers=(StandardSigner([SECRET]),))
    sent = made.render(delivery(), "dlv_1", "evt_1", NOON)
    [signature] = [value for name, value in sent.headers if name == "webhook-signature"]
    for headers, body in (((("X-Echo", signature),), b""), ((), f"no {signature}".encode())):
        assert signature not in repr(made.masked(Response(200, headers, body, truncated=False), sent))
        assert signature not in repr(
            made.masked(Response(200, headers, body, truncated=False), replace(sent, heading=None))
        )


def test_an_answer_that_was_harmless_before_is_not_where_it_echoes_another_signature() -> None:
    made = destination(signers=(StandardSigner([SECRET]),))
    sent = made.render(delivery(), "dlv_1", "evt_1", NOON)
    words = "v1,1/abc/efg/hij"
    answer = Response(200, (("X-Echo", words), ("Date", "now")), b"ok", truncated=False)
    for _ in range(2):
        assert made.masked(answer, sent) is answer
        other = replace(sent, heading=None, headers=[("webhook-signature", words)])
        assert made.masked(answer, other).headers == (("X-Echo", "***"), ("Date", "now"))
        cut = replace(answer, truncated=True)
        assert made.masked(cut, sent) is not cut
    for n in range(1000):
        made.masked(Response(200, (("X-Id", str(n)),), b"", truncated=False), sent)
    assert len(made.redact.harmless_answers) <= 64


def test_a_request_is_the_same_whether_or_not_there_was_one_like_it() -> None:
    given: dict[str, Any] = {
        "headers": {"X-Own": "a-secret-of-ours"},
        "default_headers": {"x-signature-of-old": "1", "User-Agent": "mine"},
        "authorization": "Bearer t",
        "signers": (StandardSigner([SECRET]),),
        "redact": Redactor(["a-secret-of-ours", "blog-that-is-secret"]),
    }
    used = destination(**given)
    others = [
        delivery(),
        delivery(attempts=1),
        delivery(event(source="blog-that-is-secret")),
        delivery(event(headers=(("Content-Type", "text/plain"), ("X-Relay-Hops", "2")))),
        delivery(event(description=Description(None, environment="e"))),
        delivery(event(description=Description("x" * 1000))),
        *(delivery(event(description=Description(f"event-{n}"))) for n in range(20)),
    ]
    for what in (*others, *others):
        fresh = destination(**given)
        outbound, other = (made.render(what, "dlv_1", "evt_1", NOON) for made in (used, fresh))
        assert (outbound.headers, outbound.body) == (other.headers, other.body)
        assert used.shown(outbound) == fresh.shown(other)
        headers = dict(used.shown(outbound).headers)
        hidden = ("Authorization", "X-Own", "x-signature-of-old", "webhook-signature")
        assert [headers[name] for name in hidden] == ["***"] * 4
        assert "secret" not in str(used.shown(outbound))


def test_what_requests_have_in_common_is_remembered_of_each_route_and_within_bounds() -> None:
    redact = Redactor([])
    one, other = destination(redact=redact), destination(redact=redact, headers={"X-Own": "1"})
    for what in [delivery(event(description=Description(f"event-{n}"))) for n in range(3000)]:
        first, second = (made.render(what, "dlv_1", "evt_1", NOON) for made in (one, other))
        assert "X-Own" not in dict(first.headers)
        assert dict(second.headers)["X-Own"] == "1"
        assert one.render(what, "dlv_2", "evt_1", NOON).heading is first.heading
        assert len(redact.headings) <= 1024


def test_an_id_that_is_a_secret_is_not_shown() -> None:
    made = destination(redact=Redactor(["dlv_01234"]))
    assert dict(made.shown(made.render(delivery(), "dlv_01234", "evt_1", NOON)).headers)["webhook-id"] == "***"


@pytest.mark.parametrize(
    "given",
    [
        {"pass_headers": ("X-Strapi-Event",)},
        {"headers": {"Webhook-Signature": "mine"}},
        {"headers": {"Webhook-Id": "mine"}},
        {"signers": (StandardSigner([OTHER]), StandardSigner([SECRET]))},
    ],
    ids=["of the event", "a signature's", "relay's own", "two signatures'"],
)
def test_each_header_stands_once_whoever_writes_it_besides(given: dict[str, Any]) -> None:
    made = destination(**{"signers": (StandardSigner([SECRET]),)} | given)
    names = [name.lower() for name, _ in made.render(delivery(), "dlv_1", "evt_1", NOON).headers]
    assert len(names) == len(set(names))
    shown = dict(made.shown(made.render(delivery(), "dlv_1", "evt_1", NOON)).headers)
    assert shown["webhook-signature"] == "***"


def test_an_answer_is_masked_also_where_all_else_in_it_was_there_before() -> None:
    made = destination(redact=Redactor(["a-secret-of-ours"]), signers=(StandardSigner([SECRET]),))
    fine = Response(200, (("Server", "a"), ("X-Id", "1")), b"ok", truncated=False)
    for _ in range(2):
        assert made.masked(fine, SENT) == fine
        for headers, body, truncated in (
            ((("Server", "a"), ("X-Id", "a-secret-of-ours")), b"ok", False),
            ((("Server", "a"), ("webhook-signature", "1")), b"ok", False),
            ((("Server", "a"), ("X-Signature", "1")), b"ok", False),
            ((("Server", "a"), ("X-Id", "1")), b"a-secret-of-ours", False),
            ((("Server", "a"), ("X-Id", "1")), b"a-secret-of", True),
        ):
            shown = made.masked(Response(200, headers, body, truncated), SENT)
            assert str(shown).count("***") == 1
            assert "secret" not in str(shown)
            assert "('Server', 'a')" in str(shown)
    for n in range(1000):
        made.masked(Response(200, (("X-Id", str(n)),), str(n).encode(), truncated=False), SENT)
    [known] = made.redact.harmless.values()
    assert len(known) <= 66
