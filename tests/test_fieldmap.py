"""A source's `map` overrides single fields of the description."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from multidict import CIMultiDict

from relay.event import Change, Description, Inbound
from relay.fieldmap import FieldMap

TOLD = Description(
    "sent", (Change("m", "s", "a", "1"),), datetime(2020, 1, 1, tzinfo=UTC), "env", "main", "en", {"uid": "u"}
)


def mapped(expressions: dict[str, str], body: Any = None, *headers: tuple[str, str]) -> Description:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return FieldMap(expressions).apply(TOLD, Inbound(CIMultiDict(headers), raw))


def test_what_is_not_mapped_stays() -> None:
    assert mapped({}, {"a": 1}) == TOLD
    assert mapped({"locale": "body.l"}, {"l": "de"}) == Description(
        "sent", TOLD.changes, TOLD.occurred_at, "env", "main", "de", {"uid": "u"}
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", "x"),
        (17, "17"),
        (1.5, "1.5"),
        (True, "true"),
        (False, "false"),
        (None, None),
        ("", None),
        ([1], None),
        ({"a": 1}, None),
    ],
)
def test_scalars_become_their_json_text_and_all_else_is_not_said(value: Any, expected: str | None) -> None:
    assert mapped({"entry_id": "body.v"}, {"v": value}).common.entry_id == expected
    assert mapped({"environment": "body.v"}, {"v": value}).environment == expected


def test_stage_and_action_are_folded_and_the_rest_is_verbatim() -> None:
    what = mapped({"stage": "body.v", "action": "body.v", "model": "body.v", "event": "body.v"}, {"v": "In Review"})
    assert what.common == Change("In Review", "in review", "in review", "1")
    assert what.event == "In Review"


def test_a_mapped_action_holds_for_every_change() -> None:
    several = Description("e", (Change("m", "s", "change", "1"), Change("m", "s", "change", "2")))
    what = FieldMap({"action": "'publish'"}).apply(several, Inbound(CIMultiDict(), b"{}"))
    assert [change.action for change in what.changes] == ["publish", "publish"]


def test_changes_that_come_out_equal_are_one() -> None:
    several = Description("e", (Change("m", "s", "a", "1"), Change("m", "s", "a", "2")))
    what = FieldMap({"entry_id": "'x'"}).apply(several, Inbound(CIMultiDict(), b"{}"))
    assert what.changes == (Change("m", "s", "a", "x"),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23T21:00:00.5+01:00", datetime(2026, 11, 23, 20, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-23", None),
        ("yesterday", None),
        (1732363200, None),
    ],
)
def test_occurred_at_is_rfc3339(text: Any, expected: datetime | None) -> None:
    assert mapped({"occurred_at": "body.t"}, {"t": text}).occurred_at == expected


def test_headers_are_seen_in_lower_case_and_joined() -> None:
    what = mapped({"event": 'headers."x-event"'}, None, ("X-Event", "a"), ("x-event", "b"))
    assert what.event == "a, b"


def test_headers_that_carry_proofs_are_masked() -> None:
    fields = FieldMap({"event": "headers.authorization"}, frozenset({"authorization"}))
    request = Inbound(CIMultiDict({"Authorization": "Bearer geheim"}), b"{}")
    assert fields.apply(TOLD, request).event == "***"


def test_a_body_that_is_not_json_is_null_to_expressions() -> None:
    assert mapped({"model": "body.a", "event": "'e'"}, b"no json") == Description(
        "e", (Change(None, "s", "a", "1"),), TOLD.occurred_at, "env", "main", "en", {"uid": "u"}
    )


def test_an_expression_that_raises_says_nothing() -> None:
    assert mapped({"model": "length(body.a)"}, {"a": 1}).common.model is None


@pytest.mark.parametrize(
    ("expressions", "message"),
    [
        ({"modle": "body.a"}, "modle: expected event, environment"),
        ({"model": "body.["}, "model: Invalid jmespath expression"),
        ({"model": "lower(body.a)"}, "model: unknown function lower()"),
        ({"model": "length()"}, "model: length() takes 1 argument, got 0"),
        ({"event": "!body.a"}, "event: '!' binds more tightly"),
    ],
)
def test_a_map_that_can_only_fail_is_refused(expressions: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(").replace(")", r"\)")):
        FieldMap(expressions)
