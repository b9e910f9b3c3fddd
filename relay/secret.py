"""Secrets: values that print as ***, and the redactor that finds them in text that others wrote."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"

_SHORTEST_SOUGHT = 6  # seeking shorter values in foreign text would mask innocent words


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
    """Masks every live secret in a text: as it is, in base64, and as URLs write it."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms: set[str] = set()
        for value in secrets:
            if len(value) < _SHORTEST_SOUGHT:
                continue
            raw = value.encode("utf-8", "surrogateescape")
            forms.update((value, quote(raw, safe=""), quote_plus(raw), base64.b64encode(raw).decode()))
            forms.add(base64.urlsafe_b64encode(raw).decode().rstrip("="))
        # Longest first: a secret that contains another must go as a whole.
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text with each secret replaced by ***."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text
