"""Secrets: values that print as ***, and the redactor that finds them in text that others wrote."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"

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


class Redactor:
    """Masks every live secret in a text: as it is, in base64, and as URLs and JSON write it."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms: set[str] = set()
        for value in secrets:
            if len(value) >= _SHORTEST_SOUGHT:
                forms.update(_forms(value))
        # Longest first: a secret that contains another must go as a whole.
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text with each secret replaced by ***."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text

    def cut(self, text: str) -> str:
        """The same for a text that was cut off: a secret that the cut went through is masked too."""
        text = self(text)
        for length in range(min(len(text), max(map(len, self._forms), default=0)), _SHORTEST_CUT - 1, -1):
            end = text[-length:]
            if any(form.startswith(end) for form in self._forms):
                return text[:-length] + MASK
        return text


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
