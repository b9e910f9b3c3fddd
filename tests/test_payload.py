"""What is sent of an event."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import orjson
import pytest
from multidict import CIMultiDict

from relay import payload, samples, source
from relay.delivery import Code, Unsendable
from relay.event import Description, Event, Inbound
from relay.payload import Content
from relay.secret import Secret
from relay.window import Collected
from tests.test_destination import event


def of_sample(kind: str, name: str) -> Event:
    inbound = samples.load(kind, name)
    config = source.types()[kind].Config.model_validate({"type": kind, "verify": "none"})
    described = source.types()[kind].Adapter(config).describe(inbound)
    assert isinstance(described, Description)
    return event(type=kind, description=described, body=inbound.body, document=inbound.document())


def body_of(content: Content) -> Any:
    assert content.type == "application/json"
    return json.loads(content.body)


def test_concise_contentstack_is_what_contentstack_documents() -> None:
    """https://www.contentstack.com/docs/developers/set-up-webhooks/send-concise-webhook-payload"""
    sent = of_sample("contentstack", "entry.update")
    assert body_of(payload.concise(sent, "evt_1")) == {
        "triggered_at": "2024-11-23T11:59:55.000Z",
        "module": "entry",
        "api_key": "blt**************b7",
        "data": {
            "entry": {"title": "test 19", "locale": "en-us", "uid": "blt**************48", "_version": 44},
            "content_type": {"title": "Ref", "uid": "ref"},
            "branch": {"uid": "main", "source": "", "alias": []},
        },
        "event": "update",
    }


def test_concise_contentstack_leaves_a_release_as_it_is() -> None:
    sent = of_sample("contentstack", "release.deploy")
    assert body_of(payload.concise(sent, "evt_1")) == sent.document


def test_concise_hygraph_is_operation_type_id_and_stage() -> None:
    sent = of_sample("hygraph", "publish")
    assert body_of(payload.concise(sent, "evt_1")) == {
        "operation": "publish",
        "data": {"__typename": "Post", "id": "ckadrcx4g00pw01525c5d2e56", "stage": "PUBLISHED"},
    }


@pytest.mark.parametrize("kind", ["strapi", "storyblok", "prismic", "github", "generic", "standard", "stripe"])
def test_concise_is_the_description_for_all_others(kind: str) -> None:
    sent = of_sample(kind, source.types()[kind].SAMPLE)
    assert payload.concise(sent, "evt_1") == payload.normalized(sent, "evt_1")


def test_concise_of_a_debounce_window_tells_of_all_its_events_where_it_is_the_description() -> None:
    first, last = of_sample("strapi", "entry.create"), of_sample("strapi", "entry.publish")
    window = Collected("debounce", (first, last), ("evt_1", "evt_2"))
    made = payload.concise(last, "evt_2", window)
    assert made == payload.normalized(last, "evt_2", window)
    assert [of["id"] for of in body_of(made)["events"]] == ["evt_1", "evt_2"]


def test_concise_of_a_batch_is_what_it_is_of_each_event() -> None:
    events = of_sample("hygraph", "publish"), of_sample("strapi", "entry.publish")
    made = payload.concise(events[-1], "evt_2", Collected("batch", events, ("evt_1", "evt_2")))
    assert body_of(made) == [
        body_of(payload.concise(of, id_text)) for of, id_text in zip(events, ("evt_1", "evt_2"), strict=True)
    ]


def test_concise_parses_a_body_that_was_read_back_from_the_store() -> None:
    sent = of_sample("hygraph", "publish")
    assert payload.concise(replace(sent, document=None), "evt_1") == payload.concise(sent, "evt_1")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("body.title", '"Über <b>&</b> 日本"'),
        ("{id: event.entry_id, of: event.id, n: length(events)}", '{"id":"7","of":"evt_1","n":1}'),
        ('headers."x-strapi-event"', '"entry.publish"'),
        ("headers.authorization", '"***"'),
        ("body.nothing", "null"),
    ],
)
def test_jmespath_selects_a_part_as_json(expression: str, expected: str) -> None:
    headers = (("X-Strapi-Event", "entry.publish"), ("Authorization", "***"))
    made = payload.selected(expression)(event(headers=headers), "evt_1")
    assert made == Content(expected.encode(), "application/json")


def test_jmespath_on_a_body_that_is_no_json_sees_null() -> None:
    assert payload.selected("body")(event(body=b"\xff<xml>"), "evt_1").body == b"null"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":"\\ud83d!"}', '{"a":"\ufffd!"}'),
        (b'{"a":123456789012345678901234567890}', '{"a":123456789012345678901234567890}'),
        (b'{"\\udc00":[1.50]}', '{"\ufffd":[1.5]}'),
    ],
)
def test_what_utf8_and_64_bits_cannot_hold_is_still_sent(body: bytes, expected: str) -> None:
    made = payload.selected("body")(event(body=body), "evt_1")
    assert made.body.decode() == expected
    assert payload.templated("{{ body | tojson }}", "r")(event(body=body), "evt_1").body.decode() == expected


def test_jmespath_that_fails_is_a_template_error() -> None:
    with pytest.raises(Unsendable) as caught:
        payload.selected("abs(body.title)")(event(), "evt_1")
    assert caught.value.failure.code is Code.TEMPLATE_ERROR
    assert "abs()" in caught.value.failure.message


def test_jmespath_that_grows_without_end_is_a_template_error() -> None:
    with pytest.raises(Unsendable, match="too much"):
        payload.selected("body" + "|[@,@]" * 40)(event(), "evt_1")


def test_a_template_sees_event_events_body_headers_and_route() -> None:
    text = "{{ [event.action, events[0].model, body.title, headers['x-strapi-event'], route] | tojson }}"
    made = payload.templated(text, "search")(event(), "evt_1")
    assert body_of(made) == ["publish", "article", "Über <b>&</b> 日本", "entry.publish", "search"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"a": {{ body.n | tojson }}}', "application/json"),
        ("[1]", "application/json"),
        ("{{ body.title }}", "text/plain; charset=utf-8"),
        ("<a>{{ body.n }}</a>", "text/plain; charset=utf-8"),
        ("{# nothing #}", None),
    ],
)
def test_the_content_type_of_a_template_is_json_where_it_makes_json(text: str, kind: str | None) -> None:
    assert payload.templated(text, "r")(event(), "evt_1").type == kind


def test_a_template_on_a_body_that_is_no_json_sees_none() -> None:
    assert payload.templated("{{ body is none }}", "r")(event(body=b"<xml>"), "evt_1").body == b"True"


def test_tojson_is_json_without_escapes_of_html() -> None:
    made = payload.templated("{{ body.title | tojson }}", "r")(event(), "evt_1")
    assert made.body.decode() == '"Über <b>&</b> 日本"'


def test_a_form_leaves_out_what_is_not_said() -> None:
    made = payload.form({"a": "'x y'", "b": "event.locale", "c": "event.entry_id"})(event(), "evt_1")
    assert made == Content(b"a=x+y&c=7", "application/x-www-form-urlencoded")


def test_a_secret_in_a_form_that_is_not_utf_8_is_its_bytes() -> None:
    made = payload.form({"token": Secret(os.fsdecode(b"\xff\xfe"))})(event(), "evt_1")
    assert made.body == b"token=%FF%FE"


def test_deep_bodies_are_sent_or_refused_in_words() -> None:
    deep = b"[" * 500 + b"]" * 500
    inbound = Inbound(CIMultiDict(), deep)
    with pytest.raises(Unsendable, match="nested too deeply"):
        payload.selected("body")(event(body=deep, document=inbound.document()), "evt_1")
    fine = b"[" * 150 + b"]" * 150
    assert payload.selected("body")(event(body=fine, document=orjson.loads(fine)), "evt_1").body == fine
