"""JSON is taken as senders write it, and nothing but Malformed comes of anything else."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import jsontext
from relay.jsontext import Malformed


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'{"a":12345678901234567890}', {"a": 12345678901234567890}),
        (b'{"a":"\\ud83d"}', {"a": "\ud83d"}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"a":1.0,"b":-0,"c":1e2}', {"a": 1.0, "b": 0, "c": 100.0}),
        (b' [1, "x\\/y"]\n', [1, "x/y"]),
        (b'"1234567890123456789"', "1234567890123456789"),
        (b"9223372036854775808", 9223372036854775808),
    ],
)
def test_what_senders_write_is_read(body: bytes, expected: Any) -> None:
    assert jsontext.parse(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nope",
        b"NaN",
        b'{"a":Infinity,"b":12345678901234567890}',
        b"1e999",
        b"[12345678901234567890,1e999]",
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b"9" * 5000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b"[" * 100_000 + b"12345678901234567890",
    ],
)
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        jsontext.parse(body)


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=[])),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_every_document_is_read_back(document: Any) -> None:
    assert jsontext.parse(json.dumps(document).encode()) == document


@given(body=st.binary(max_size=80) | st.text('{}[]":,0123456789eE+-.\\u dD8', max_size=60).map(str.encode))
def test_garbage_is_malformed_and_nothing_else(body: bytes) -> None:
    with suppress(Malformed):
        jsontext.parse(body)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        ("", ""),
        ("a\ud83d", "a\ufffd"),
        (17, "17"),
        (166888799188279.0, "166888799188279.0"),
        (True, "true"),
        (False, "false"),
        (None, None),
        ([], None),
        ({}, None),
    ],
)
def test_scalars_have_a_text(value: Any, text: str | None) -> None:
    assert jsontext.scalar_text(value) == text
    assert jsontext.said(value) == (text or None)


def test_a_path_that_ends_early_leads_to_nothing() -> None:
    document = {"a": {"b": [1]}, "c": None}
    assert jsontext.at(document, "a", "b") == [1]
    for path in (("a", "x"), ("a", "b", "0"), ("c", "d"), ("x", "y", "z")):
        assert jsontext.at(document, *path) is None
    assert jsontext.at([], "a") is None


def test_canonical_json_is_the_same_whatever_the_order_of_keys() -> None:
    one = jsontext.parse(b'{"a": {"c": 1, "b": [2, 1.50]}, "d": "\xc3\xa9"}')
    other = jsontext.parse(b'{"d":"\\u00e9","a":{"b":[2,1.5],"c":1}}')
    assert jsontext.canonical(one) == jsontext.canonical(other)
    assert jsontext.canonical([1, 2]) != jsontext.canonical([2, 1])


@pytest.mark.parametrize("odd", ["\ud83d", 10**30, 1.5])
def test_canonical_json_tells_apart_what_orjson_cannot_write(odd: Any) -> None:
    assert jsontext.canonical({"b": odd, "a": 1}) == jsontext.canonical({"a": 1, "b": odd})
    assert len({jsontext.canonical(value) for value in (odd, "\ud83e", 10**30 + 1, "\ufffd", 2)}) == 5


def test_what_is_too_deep_or_no_json_has_no_canonical_form() -> None:
    deep: Any = 10**30
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, object()):
        with pytest.raises(Malformed):
            jsontext.canonical(value)


@pytest.mark.parametrize("before", range(8))
@pytest.mark.parametrize("digits", [19, 20, 22, 25])
def test_long_integers_are_whole_wherever_they_stand(before: int, digits: int) -> None:
    number = int("9" * digits)
    assert jsontext.parse(b'{"a":"%s","n":%d,"b":"x"}' % (b"x" * before, number))["n"] == number
