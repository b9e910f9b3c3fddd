"""What an event shows of headers and words is remembered where it is harmless, and never for others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from multidict import CIMultiDict

from relay.delivery import LogItem
from relay.event import Change, Description
from relay.secret import Redactor
from relay.source import Source, types
from relay.web.shown import description, item
from tests.fakes import NOON

SECRET = "s3cret-token-of-ours"
BLANK = LogItem(
    "dlv_1", "evt_1", "r", "cms", "generic", None, None, None, None, None, "pending", 0, None, None, None, NOON, NOON,
    None, None,
)  # fmt: skip


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


WORDS = {"event": "e", "model": "m", "stage": "s", "action": "a", "entry_id": "i"}


def described(**odd: str) -> Description:
    event, *change = ({**WORDS, **odd}[name] for name in WORDS)
    return Description(event, (Change(*change),))


@pytest.mark.parametrize("place", WORDS)
def test_a_secret_is_not_logged_after_the_same_words_were_harmless(place: str) -> None:
    redact = Redactor([SECRET])
    for _ in range(2):
        assert described().logged(redact) == ("e", Change("m", "s", "a", "i"))
    for _ in range(2):
        event, change = described(**{place: f"a {SECRET} b"}).logged(redact)
        assert dict(zip(WORDS, (event, *change.texts), strict=True)) == {**WORDS, place: "a *** b"}


def test_words_that_senders_make_up_are_not_kept_without_end() -> None:
    redact = Redactor([SECRET])
    for n in range(1000):
        Description(str(n)).logged(redact)
        Description(f"{n}{'x' * 500}").logged(redact)
    assert len(redact.harmless_words) <= 256


@pytest.mark.parametrize("place", [*WORDS, "environment", "branch", "locale"])
def test_items_of_the_log_show_no_secret_and_ordinary_words_as_they_are(place: str) -> None:
    redact = Redactor([SECRET, "production"])
    plain = replace(BLANK, **{place: "production"})  # type: ignore[arg-type]
    assert item(plain, redact) is plain
    assert item(replace(plain, **{place: f"a {SECRET} b"}), redact) == replace(plain, **{place: "a *** b"})  # type: ignore[arg-type]
    assert item(replace(plain, entries=("x", SECRET)), redact) == replace(plain, entries=("x", "***"))


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"a": SECRET}, {"a": "***"}),
        ({"a": [SECRET, 1]}, {"a": ["***", 1]}),
        ({"a": {SECRET: "b"}}, {"a": {"***": "b"}}),
        ({"a": "production"}, {"a": "production"}),
    ],
)
def test_descriptions_show_no_secret(extra: dict[str, object], expected: dict[str, object]) -> None:
    said = {"event": "production", "extra": extra, "changes": [{"entry_id": f"an {SECRET}"}]}
    shown = {"event": "production", "extra": expected, "changes": [{"entry_id": "an ***"}]}
    assert description(said, Redactor([SECRET, "production"])) == shown
