"""Which of the headers of a message are meant, asked for the same names again and again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache

_LONGEST = 1024  # characters of all names that are remembered together: strangers choose them
_MOST = 256


class Chosen:
    """Remembers for which headers a question about a header's name is answered with yes."""

    def __init__(self, choose: Callable[[str], bool]) -> None:
        self._choose = choose
        self._remembered = lru_cache(_MOST)(self._among)
        self._remembered_places = lru_cache(_MOST)(self._counted_places)

    def of(self, names: Iterable[str]) -> frozenset[str]:
        """Those names, as they are written there."""
        joined = "\n".join(names)
        return self._remembered(joined) if len(joined) <= _LONGEST else self._among(joined)

    def places(self, names: Collection[str]) -> tuple[int, ...]:
        """Where they stand among those names."""
        joined = "\n".join(names)
        if len(joined) > _LONGEST:
            return self._places(names)
        count, places = self._remembered_places(joined)
        # A name with a line break, which no parser of HTTP lets pass, would shift them.
        return places if count == len(names) else self._places(names)

    def _counted_places(self, joined: str) -> tuple[int, tuple[int, ...]]:
        names = joined.split("\n")
        return len(names), self._places(names)

    def _places(self, names: Iterable[str]) -> tuple[int, ...]:
        return tuple([place for place, name in enumerate(names) if self._choose(name)])

    def _among(self, joined: str) -> frozenset[str]:
        return frozenset(filter(self._choose, joined.split("\n")))
