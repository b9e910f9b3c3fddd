"""Which of the headers of a message are meant, asked for the same names again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

_LONGEST = 1024  # characters of all names that are remembered together: strangers choose them
_MOST = 256


class Chosen:
    """Remembers for which headers a question about a header's name is answered with yes."""

    def __init__(self, choose: Callable[[str], bool]) -> None:
        self._choose = choose
        self._remembered = lru_cache(_MOST)(self._among)

    def of(self, names: Iterable[str]) -> frozenset[str]:
        """Those names, as they are written there."""
        joined = "\n".join(names)
        return self._remembered(joined) if len(joined) <= _LONGEST else self._among(joined)

    def _among(self, joined: str) -> frozenset[str]:
        return frozenset(filter(self._choose, joined.split("\n")))
