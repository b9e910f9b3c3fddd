"""What an event shows of headers and words is remembered where it is harmless, and never for others."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from relay.event import Change, Description
from relay.secret import Redactor
from relay.source import Source, types

SECRET = "s3cret-token-of-ours"


def source() -> Source:
    module = types()["strapi"]
    config = module.Config(type="strapi", token=SECRET)
    return Source("cms", config, module.Adapter(config), "strapi")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("Host", "a"), ("Authorization", "b"), ("X", "c")], [("Host", "a"), ("Authorization", "***"), ("X", "c")]),
        ([("authorization", "a"), ("X", "a"), ("AUTHORIZATION", "b")], ["***", "a", "***"]),
        ([("X", "caf\u00e9 \udce9"), ("Y", "a")], [("X", "caf\u00e9 \ufffd"), ("Y", "a")]),
        ([("X", "x" * 2000), ("x", "x" * 2000)], ["x" * 2000, "x" * 2000]),
    ],
)
def test_proofs_are_masked_and_all_else_is_shown_each_time(headers: list[tuple[str, str]], expected: list[str]) -> None:
    one = source()
    for _ in range(3):
        shown = one.shown_headers(CIMultiDict(headers))
        assert [name for name, _ in shown] == [name for name, _ in headers]
        values = [each if isinstance(each, str) else each[1] for each in expected]
        assert [value for _, value in shown] == values


def test_headers_that_senders_make_up_are_not_kept_without_end() -> None:
    one = source()
    for n in range(5000):
        assert one.shown_headers(CIMultiDict({"X-Id": str(n), "X": "a"})) == (("X-Id", str(n)), ("X", "a"))
        one.shown_headers(CIMultiDict({"X-Long": f"{n}{'x' * 500}"}))
    assert len(one._shown) <= 32
    assert all(len(name) + len(value) <= 128 for name, value in one._shown)


@pytest.mark.parametrize("place", ["event", "environment", "branch", "locale", "model", "stage", "action", "entry_id"])
def test_a_secret_is_masked_after_the_same_words_were_harmless(place: str) -> None:
    redact = Redactor([SECRET])
    words = {name: name for name in ("event", "environment", "branch", "locale")}
    change = {name: name for name in ("model", "stage", "action", "entry_id")}

    def described(**odd: str) -> Description:
        own = {name: odd.get(name, text) for name, text in words.items()}
        return Description(changes=(Change(**{name: odd.get(name, text) for name, text in change.items()}),), **own)  # type: ignore[arg-type]

    for _ in range(2):
        assert described().masked(redact) == described()
    for _ in range(2):
        assert described(**{place: f"a {SECRET} b"}).masked(redact) == described(**{place: "a *** b"})


@pytest.mark.parametrize(
    ("harmless", "odd", "expected"),
    [
        ({"a": "b"}, {"a": SECRET}, {"a": "***"}),
        ({"a": "b"}, {"a": [SECRET]}, {"a": ["***"]}),
        ({"a": "b"}, {SECRET: "b"}, {"***": "b"}),
        ({"a": "b", "c": "d"}, {"a": "b", "c": SECRET}, {"a": "b", "c": "***"}),
        ({"a": ["b"]}, {"a": [SECRET]}, {"a": ["***"]}),
        ({}, {"a": SECRET}, {"a": "***"}),
        ({"a": "b"}, {"a": "b", "c": SECRET}, {"a": "b", "c": "***"}),
    ],
)
def test_a_secret_in_extra_is_masked_after_the_same_words_were_harmless(
    harmless: dict[str, object], odd: dict[str, object], expected: dict[str, object]
) -> None:
    redact = Redactor([SECRET])
    for _ in range(2):
        assert Description("e", extra=harmless).masked(redact).extra == harmless
        assert Description("e", extra=odd).masked(redact).extra == expected
    with_entry = Description("e", (Change(entry_id=f"an {SECRET}"),), extra=harmless)
    assert with_entry.masked(redact).changes == (Change(entry_id="an ***"),)


def test_words_that_senders_make_up_are_not_kept_without_end() -> None:
    redact = Redactor([SECRET])
    for n in range(1000):
        Description(str(n)).masked(redact)
        Description(f"{n}{'x' * 500}").masked(redact)
    assert len(redact.harmless_words) <= 256
