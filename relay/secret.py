"""Secrets: values that print as ***, and the redactor that finds them in text that others wrote."""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from html import escape
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"

_PLAIN = re.compile("[A-Za-z0-9]+")
_OF_IDS, _ID = re.compile("[a-z]{0,3}_?[0-9A-Z]*"), 30
_SHORTEST_SOUGHT = 6  # seeking shorter values in foreign text would mask innocent words
_SHORTEST_CUT = 4  # as for the beginning of a secret at the end of a text that was cut off
_IN_URLS = str.maketrans("+/", "-_")  # base64 as URLs write it
_IN_PATHS = "/:@!$&'()*+,;="  # RFC 3986 lets these stand in a path,
_IN_QUERIES = "/:@!$'()*,?"  # and these in a query's value


class Secret:
    """A value that nobody may see. `reveal()` at the one place where it is used."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return "Secret(***)"

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not to be serialised")


_MOST_REMEMBERED = 200
_FEW = 64  # words that are sought one by one: quicker for so few
_MOST_PIECES = 50_000


class _Sieve:
    """Many words, and whether one of them stands in a text, in a time that does not grow with how many they are: every
    event and every answer is looked through for all secrets of the config, and each source and route has some.

    Pieces of the text, all of one width, are looked up among those of the words' beginnings. They are taken at steps
    that leave one within whatever stands where, were it the shortest word; so no word is missed, and where a piece is
    found the words are sought one by one.
    """

    __slots__ = ("_all", "_lower", "_pieces", "_shortest", "_step", "_width")

    def __init__(self, words: Iterable[str]) -> None:
        words = sorted(words, key=len)
        self._all = words, [len(word) for word in words]
        self._shortest = len(words[0]) if words else 0
        lower = [word for word in words if f"{word}a".islower()]
        self._lower = lower, [len(word) for word in lower]
        self._pieces: frozenset[str] | None = None
        if len(words) > _FEW:
            shortest = len(words[0])
            self._step = max(1, min((shortest + 1) // 2, _MOST_PIECES // len(words)))
            self._width = width = shortest - self._step + 1
            self._pieces = frozenset(word[at : at + width] for word in words for at in range(self._step))

    def finds(self, text: str) -> bool:
        """Whether one of them is in a text."""
        if len(text) < self._shortest:  # as an entry's id
            return False
        if self._pieces is not None:
            width, last = self._width, len(text) - self._width + 1
            if self._pieces.isdisjoint(text[at : at + width] for at in range(0, last, self._step)):
                return False
        # No text holds what is longer, or has capitals that it has not: an id of ours can hold hardly any.
        words, lengths = self._lower if text.islower() else self._all
        if words and len(text) < lengths[-1]:
            words = words[: bisect_right(lengths, len(text))]
        for word in words:  # noqa: SIM110 - twice as fast as any(): every answer of a destination comes by here
            if word in text:
                return True
        return False


class Redactor:
    """Masks every live secret in a text: as it is, in base64 and hex, and as URLs, JSON and HTML write it."""

    def __init__(
        self, secrets: Iterable[str] = (), before: Redactor | None = None, words: frozenset[str] = frozenset()
    ) -> None:
        """`before` is that of the config before: a secret that was replaced is in logs, queues and other people's
        settings for a while, and may still be somebody's elsewhere. Of the secrets `words` may be ordinary ones."""
        values = [value for value in dict.fromkeys(secrets) if len(value) >= _SHORTEST_SOUGHT]
        older = before.known if before is not None else ()
        self.known: tuple[str, ...] = tuple(dict.fromkeys((*values, *older)))[: max(_MOST_REMEMBERED, len(values))]
        """All that are sought: those of today, then older ones, of which only so many are remembered."""
        self._words: frozenset[str] = words if before is None else words | (before._words - set(values))
        # Longest first: a secret that contains another must go as a whole.
        self._sought = sorted(self.known, key=len, reverse=True)
        forms = [set(_forms(value)) for value in self._sought]
        self._forms = sorted(set().union(*forms), key=len, reverse=True)
        self._raw = _Sieve(self._sought)
        self._written = _Sieve({form for each in forms for form in _shortest(each)})
        self.harmless: dict[frozenset[str], set[tuple[str, str]]] = {}
        """For `relay.destination`, headers in which there was nothing to mask, by those that are hidden besides."""
        self.harmless_answers: set[tuple[object, ...]] = set()
        """The same for whole answers, in which there is besides no room for an echo."""
        self.headings: dict[tuple[object, ...], Any] = {}
        """For `relay.destination`, the headers that many requests have in common, as they are and as they are shown."""
        self.harmless_words: set[tuple[object, ...]] = set()
        """For `relay.event`, what many events say, and in which no secret stands."""

    @cached_property
    def sparing(self) -> Redactor:
        """One for what senders say of their content, by which routes go: it spares words, as the `production` of
        `?env=production` in a route's URL is one."""
        return Redactor([value for value in self.known if value not in self._words])

    @cached_property
    def in_ids(self) -> bool:
        """Whether there may be something to mask in an id of ours, or in a moment in seconds: words of nothing but what
        these are written with, which hardly any config has."""
        return any(len(form) <= _ID and _OF_IDS.fullmatch(form) is not None for form in self._forms)

    @cached_property
    def _in_order(self) -> list[str]:
        return sorted(self._forms)

    @cached_property
    def _in_urls(self) -> list[tuple[str, str]]:
        return [(_unescaped(value), value) for value in self._sought if not _PLAIN.fullmatch(value)]

    @cached_property
    def _parts(self) -> _Sieve:
        return _Sieve([part for part, _ in self._in_urls])

    def finds_raw(self, text: str) -> bool:
        """Whether a secret stands in a text as it is: quicker than `finds`, for the hot path."""
        return self._raw.finds(text)

    def finds(self, text: str) -> bool:
        """Whether there may be something to mask in a text: one look at many texts that were joined is a quick one."""
        return self._written.finds(text) or ("%" in text and self._parts.finds(text))

    def __call__(self, text: str) -> str:
        """The text with each secret replaced by ***."""
        if self._written.finds(text):
            for form in self._forms:
                if form in text:
                    text = text.replace(form, MASK)
        if "%" in text and self._parts.finds(text):
            for part, value in self._in_urls:
                if part in text:
                    text = _as_urls_write(value).sub(MASK, text)
        return text

    def cut(self, text: str) -> str:
        """The same for a text that was cut off: a secret that the cut went through is masked too."""
        text = self(text)
        longest = len(self._forms[0]) if self._forms else 0
        for length in range(min(len(text), longest), _SHORTEST_CUT - 1, -1):
            end = text[-length:]
            at = bisect_left(self._in_order, end)  # where it stands, or what begins with it
            if at < len(self._in_order) and self._in_order[at].startswith(end):
                return text[:-length] + MASK
        return text


def _shortest(forms: set[str]) -> Iterator[str]:
    """Those of a secret's forms that hold no other one: where none of these is, none of them is."""
    for form in forms:
        if not any(other in form and other != form for other in forms):
            yield form


def redact_bytes(content: bytes, redact: Redactor) -> bytes:
    """A sender's body where it shows a secret as it is; bytes that are no text are left as they are.

    Only then is every form of every secret looked for: a body may be large, and somebody waits."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content
    return redact(text).encode() if redact.finds_raw(text) else content


def _as_urls_write(value: str) -> re.Pattern[str]:
    """A secret in a URL: which of its characters are escaped there, and how, differs from program to program."""
    parts = []
    for character in value:
        if _PLAIN.fullmatch(character) is not None:
            parts.append(character)
            continue
        escaped = "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
        plus = r"|\+" if character == " " else ""
        parts.append(f"(?:{re.escape(character)}|(?i:{escaped}){plus})")
    return re.compile("".join(parts))


def _unescaped(value: str) -> str:
    """What of a secret a URL shows as it is, whoever wrote it: its longest run of letters and digits."""
    return max(_PLAIN.findall(value), key=len, default="")


def _forms(value: str) -> Iterator[str]:
    """A secret as it may turn up in what others write."""
    raw = value.encode("utf-8", "surrogateescape")
    yield value
    yield base64.b64encode(raw).decode()
    for before in range(3):
        # Whatever stands before it, as `Bearer ` or a user name: these letters are the secret's alone.
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        coded = base64.b64encode(b"\0" * before + raw)[first:last].decode()
        yield coded
        yield coded.translate(_IN_URLS)
    for safe in ("", _IN_PATHS, _IN_QUERIES):
        yield quote(raw, safe=safe)
        yield quote_plus(raw, safe=safe)
    for ascii_only in (True, False):
        written = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield written
        yield written.replace("/", "\\/")
    yield raw.hex()
    yield raw.hex().upper()
    page = escape(value)
    yield page
    yield page.replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    yield escape(value, quote=False)
