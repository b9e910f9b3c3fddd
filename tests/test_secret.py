"""Secrets are never printed."""

from __future__ import annotations

import base64
import json
import pickle
import re
import timeit
from hashlib import sha256
from html import escape
from urllib.parse import quote, quote_plus

import pytest

from relay.secret import Redactor, Secret

VALUE = "hush/hush & never tell"


def test_a_secret_prints_as_stars_however_it_is_printed() -> None:
    secret = Secret(VALUE)
    for text in (str(secret), repr(secret), f"{secret}", f"{secret:>30}", f"{[secret]}"):
        assert VALUE not in text
        assert "***" in text
    assert secret.reveal() == VALUE


def test_a_secret_cannot_be_serialised_by_accident() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret(VALUE))
    with pytest.raises(TypeError):
        json.dumps(Secret(VALUE))


FORMS = [VALUE, quote(VALUE, safe=""), quote_plus(VALUE), base64.b64encode(VALUE.encode()).decode()]


@pytest.mark.parametrize("form", FORMS, ids=["plain", "quoted", "form", "base64"])
def test_a_redactor_finds_a_secret_in_the_forms_that_others_write(form: str) -> None:
    assert Redactor([VALUE])(f"before {form} after") == "before *** after"


def test_the_longer_of_two_nested_secrets_goes_as_a_whole() -> None:
    assert Redactor(["secret-one", "secret-one-and-more"])("secret-one-and-more") == "***"


def test_short_values_are_not_sought_in_foreign_text() -> None:
    assert Redactor(["a", "blog"])("a blog about relays") == "a blog about relays"


@pytest.mark.parametrize("safe", ["", "/", "&", "/?&=+:@", " "])
@pytest.mark.parametrize("lower", [False, True])
def test_a_secret_is_found_however_much_of_it_a_url_escapes(safe: str, lower: bool) -> None:
    written = quote("hush/hush & ~nëver+tell", safe=safe)
    if lower:
        written = re.sub("%..", lambda found: found[0].lower(), written)
    assert Redactor(["hush/hush & ~nëver+tell"])(f"/a%20b?key={written}&x=1") == "/a%20b?key=***&x=1"


def test_a_secret_is_found_in_hex_and_in_html() -> None:
    value = 'hush <"it\'s"> & never tell'
    for written in (
        value.encode().hex(),
        value.encode().hex().upper(),
        escape(value),
        escape(value, quote=False),
        "hush &lt;&#34;it&#39;s&#34;&gt; &amp; never tell",
    ):
        assert Redactor([value])(f"before {written} after") == "before *** after"


@pytest.mark.parametrize("before", ["", "B", "Be", "Bearer "])
@pytest.mark.parametrize("after", ["", "!", "!!"])
def test_a_secret_inside_base64_is_found_whatever_stands_around_it(before: str, after: str) -> None:
    plain = "0123456789abcdef0123"
    shown = Redactor([plain])(base64.b64encode((before + plain + after).encode()).decode())
    assert "***" in shown
    left = base64.b64decode((shown.partition("***")[0] + "====")[: len(shown.partition("***")[0]) // 4 * 4])
    assert plain[:3].encode() not in left


@pytest.mark.parametrize("written", [json.dumps('a "quoted" ü/secret'), '"a \\"quoted\\" ü\\/secret"'])
def test_a_secret_inside_json_is_found(written: str) -> None:
    assert json.loads(written) == 'a "quoted" ü/secret'
    assert Redactor(['a "quoted" ü/secret'])(written) == '"***"'


def test_of_a_secret_that_the_end_of_a_text_cuts_in_two_nothing_is_left() -> None:
    redact = Redactor([VALUE])
    for length in range(4, len(VALUE) + 1):
        assert redact.cut("said: " + VALUE[:length]) == "said: ***"
    assert redact.cut("said: " + VALUE + " and more") == "said: *** and more"
    assert redact.cut("nothing of it") == "nothing of it"
    assert Redactor([]).cut("nothing at all") == "nothing at all"


def tokens(count: int, shortest: int = 6) -> list[str]:
    """As generators of tokens make them, of several lengths."""
    digests = [sha256(n.to_bytes(2)).digest() for n in range(count)]
    return [base64.urlsafe_b64encode(digest).decode()[: shortest + n % 20] for n, digest in enumerate(digests)]


def test_each_of_many_secrets_is_found_wherever_it_stands() -> None:
    many = tokens(150)
    redact = Redactor([*many, *(f"{value[::-1]}/&+" for value in many)])
    innocent = "a text without any of them, of which 100% are English"
    assert redact(innocent) == redact.cut(innocent) == innocent
    assert not redact.finds(innocent)
    assert not redact.finds_raw(innocent)
    for value in many:
        for before in range(24):
            text = "~" * before + value
            assert redact.finds(text)
            assert redact.finds_raw(text)
            assert redact(f"{text}~") == "~" * before + "***~"
        assert "***" in redact(base64.b64encode(f"user:{value}".encode()).decode())
        assert redact.cut(f"said: {value[:5]}") == "said: ***"
        assert redact(f"/?a=%7E&key={value[::-1]}%2f%26%2b") == "/?a=%7E&key=***"


def test_an_answer_is_looked_through_as_fast_for_a_thousand_routes_secrets_as_for_a_few() -> None:
    answer = "nginx/1.22.1\nThu, 26 Nov 2026 13:31:15 GMT\ntext/plain\nkeep-alive\n" + "all of it is well: 100% " * 20

    def seconds(count: int) -> float:
        redact = Redactor(tokens(count, shortest=24))
        looks = (lambda: redact.finds(answer), lambda: redact.finds_raw(answer), lambda: redact.cut(answer))
        for look in looks:
            look()  # some of what it looks with is made then
        return sum(min(timeit.repeat(look, number=10, repeat=10)) for look in looks)

    assert seconds(3000) < 10 * seconds(30)


@pytest.mark.parametrize(
    "value", ["a-secret-in-small", "A-SECRET-IN-CAPITALS", "123456", "ǅungla-ⓐ", "Ⅷ-ⅷ-Σς", "------"]
)
def test_a_secret_is_found_in_texts_of_any_case_and_length(value: str) -> None:
    redact = Redactor([value, "another-secret-that-is-longer-than-the-text"])
    for text in (value, f"x{value}", f"{value}X", f"1{value}1", f"{value}{value}"):
        assert redact.finds(text)
        assert redact.finds_raw(text)
        assert "***" in redact(text)
    assert not redact.finds(value[1:])
    assert not redact.finds("")
