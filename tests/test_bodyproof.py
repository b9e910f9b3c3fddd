"""A proof in the body becomes null, and nothing else in the bytes changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from relay.bodyproof import blank, without_proofs
from relay.event import Inbound

SECRET = (("secret",),)
DIALOG = (("dialog_values", "secret"),)


def inbound(body: bytes) -> Inbound:
    return Inbound(CIMultiDict(), body)


@pytest.mark.parametrize(
    ("body", "paths", "expected"),
    [
        (b'{"secret":"x"}', SECRET, b'{"secret":null}'),
        (b'{"a":1,"secret" : "x\\"y" ,"b":2}', SECRET, b'{"a":1,"secret" : null ,"b":2}'),
        (b'{"secret":{"a":[1,{"b":"}"}]},"c":1}', SECRET, b'{"secret":null,"c":1}'),
        (b'{"secret":[1,[2]]}', SECRET, b'{"secret":null}'),
        (b'{"secret":1.50e3}', SECRET, b'{"secret":null}'),
        (b'{"secret":true}', SECRET, b'{"secret":null}'),
        (b'{"secret":"x","a":0,"secret":"y"}', SECRET, b'{"secret":null,"a":0,"secret":null}'),
        (b'{"s\\u0065cret":"x"}', SECRET, b'{"s\\u0065cret":null}'),
        (b'{"s\\u0065cret":"x","secret":null}', SECRET, b'{"s\\u0065cret":null,"secret":null}'),
        (b'{"a":"secret","secret":"x"}', SECRET, b'{"a":"secret","secret":null}'),
        (b'{"a":"\\"secret\\":\\"x\\"","secret":"x"}', SECRET, b'{"a":"\\"secret\\":\\"x\\"","secret":null}'),
        (b'{"dialog_values":{"name":"n","secret":"x"}}', DIALOG, b'{"dialog_values":{"name":"n","secret":null}}'),
        (
            b'{"dialog_values":{"secret":"x"},"dialog_values":{"a":1}}',
            DIALOG,
            b'{"dialog_values":{"secret":null},"dialog_values":{"a":1}}',
        ),
        (b'{"a/b":{"c~d":"x"}}', (("a/b", "c~d"),), b'{"a/b":{"c~d":null}}'),
        (b'{"a\\/b":"x"}', (("a/b",),), b'{"a\\/b":null}'),
        (b'{"a":"1","b":{"c":"2","d":3}}', (("a",), ("b", "c")), b'{"a":null,"b":{"c":null,"d":3}}'),
        (b'{"a":{"b":1}}', (("a", "b"), ("a",)), b'{"a":null}'),
        ('{"ä":"x","ö":"ß"}'.encode(), (("ä",),), '{"ä":null,"ö":"ß"}'.encode()),
        (b' \n{ "secret"\t:\r"x" }\n', SECRET, b' \n{ "secret"\t:\rnull }\n'),
    ],
)
def test_the_value_becomes_null_and_nothing_else_changes(
    body: bytes, paths: tuple[tuple[str, ...], ...], expected: bytes
) -> None:
    assert blank(body, paths) == expected
    changed = without_proofs(inbound(body), paths)
    assert changed.body == expected
    assert changed.document() == json.loads(expected)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"secret":null}',
        b'{"a":{"secret":"x"}}',
        b'[{"secret":"x"}]',
        b'{"a":[{"secret":"x"}],"secrets":1}',
        b'"secret"',
        b'{"a":"secret"}',
        b'{"a":"\\u0073"}',
        b"17",
    ],
)
def test_where_there_is_nothing_to_blank_the_same_request_is_returned(body: bytes) -> None:
    assert blank(body, SECRET) is body
    request = inbound(body)
    assert without_proofs(request, SECRET) is request
    assert without_proofs(request, ()) is request


@pytest.mark.parametrize("body", [b"", b"\xff", b'{"secret":"x"', b"secret=x", b"\xef\xbb\xbf{}"])
def test_a_body_that_is_not_json_is_left_alone(body: bytes) -> None:
    request = inbound(body)
    assert without_proofs(request, SECRET) is request


def test_the_blanked_request_is_not_parsed_again_and_the_first_one_keeps_its_document() -> None:
    request = inbound(b'{"dialog_values":{"secret":"x","a":[1]}}')
    before = request.document()
    changed = without_proofs(request, DIALOG)
    assert before == {"dialog_values": {"secret": "x", "a": [1]}}
    assert changed.document()["dialog_values"]["a"] is before["dialog_values"]["a"]


def test_a_value_that_is_deep_takes_no_recursion() -> None:
    deep = b"[" * 1000 + b"]" * 1000
    assert blank(b'{"secret":' + deep + b',"a":' + deep + b"}", SECRET) == b'{"secret":null,"a":' + deep + b"}"


KEYS = st.sampled_from(["secret", "dialog_values", "a", 'q"', "ä", "\\", ""])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
PATHS = st.lists(st.lists(KEYS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=3).map(tuple)


def written(document: Any, escape: Any) -> str:
    """JSON text with any legal spelling: keys escaped or not, repeated or not, white space or not."""
    if isinstance(document, dict):
        pairs = []
        for key, value in document.items():
            if escape(3) == 0:
                pairs.append(f"{spelled(key, escape)}:{written([value, {key: 1}][escape(2)], escape)}")
            pairs.append(f"{spelled(key, escape)}{' ' * escape(2)}:{' ' * escape(2)}{written(value, escape)}")
        return "{" + ",".join(pairs) + "}"
    if isinstance(document, list):
        return "[" + ", ".join(written(item, escape) for item in document) + "]"
    return json.dumps(document, ensure_ascii=bool(escape(2)))


def spelled(key: str, escape: Any) -> str:
    letters = (f"\\u{ord(letter):04x}" if escape(3) == 0 else json.dumps(letter)[1:-1] for letter in key)
    return '"' + "".join(letters) + '"'


def nulled(pairs: list[tuple[str, Any]], paths: list[tuple[str, ...]]) -> list[tuple[str, Any]]:
    return [
        (
            key,
            None if (key,) in paths else below(value, [path[1:] for path in paths if path[0] == key and len(path) > 1]),
        )
        for key, value in pairs
    ]


def below(value: Any, paths: list[tuple[str, ...]]) -> Any:
    return Pairs(nulled(list(value), paths)) if isinstance(value, Pairs) else value


class Pairs(tuple[Any, ...]):
    """An object with its repeated keys."""

    __slots__ = ()


@settings(deadline=None, max_examples=300)
@given(document=DOCUMENTS, paths=PATHS, data=st.data())
def test_blanked_bytes_say_the_same_with_null_at_every_occurrence(
    document: Any, paths: tuple[tuple[str, ...], ...], data: st.DataObject
) -> None:
    random = data.draw(st.randoms(use_true_random=False))
    body = written(document, random.randrange).encode()
    blanked = blank(body, paths)
    before = json.loads(body, object_pairs_hook=Pairs)
    assert json.loads(blanked, object_pairs_hook=Pairs) == below(before, list(paths))
    changed = without_proofs(inbound(body), paths)
    assert changed.body == blanked
    assert changed.document() == json.loads(blanked)
    if blanked != body:  # only by cutting values out: what is left over stands in the body in the same order
        place = 0
        for piece in blanked.split(b"null"):
            place = body.index(piece, place) + len(piece)


@settings(max_examples=200)
@given(body=st.binary(max_size=60))
def test_bytes_that_are_no_json_raise_nothing(body: bytes) -> None:
    blank(body + b'"secret":', SECRET)
    without_proofs(inbound(body), SECRET)
