"""Identity: 63-bit integers inside, prefixed ULIDs (https://github.com/ulid/spec) at the edges.

An id is 42 bits of milliseconds and 21 bits of a counter that starts at a random place in each millisecond, so
that ids sort by time and SQLite appends instead of inserting in the middle. Its ULID is the time, the counter and
59 bits that the store drew when it was created: a bijection, so no table needs to hold the text.
"""

from __future__ import annotations

import random
import secrets
import time
from typing import NewType

EventId = NewType("EventId", int)
DeliveryId = NewType("DeliveryId", int)
RejectionId = NewType("RejectionId", int)

EVENT, DELIVERY, REJECTION = "evt_", "dlv_", "rej_"
PREFIXES = (EVENT, DELIVERY, REJECTION)

_COUNTER_BITS = 21
_STORE_BITS = 59
_SLOTS = 256
_SIX_LETTERS = (1 << 30) - 1
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
STORE_SPACE = 1 << _STORE_BITS
_LEAST = 6  # letters from which a text without a prefix is taken for the beginning of an id: it says the hour, about


class UnknownId(ValueError):
    """The text is not an id, or not one of this store's."""


class Ids:
    """Draws ids and translates them. `store` is the 59-bit number of the store, `last` the highest id it holds.

    Of several processes that draw ids for one store each has a `slot`, which stands in the lowest eight bits of its
    ids, so that no two of them ever draw the same.
    """

    __slots__ = ("_last", "_moment", "_random", "_slot", "_step", "_store", "_tails", "_time")

    def __init__(self, store: int, last: int = 0, slot: int | None = None) -> None:
        self._store = store
        self._last = last
        self._slot, self._step = slot or 0, 1
        if slot is not None:
            self.take_slot(slot)
        self._random = random.Random(secrets.randbits(64))  # noqa: S311 - it keeps copies apart, and guards nothing
        # The last eleven letters are the store's, and but for one bit the one before: no need to write them each time.
        self._tails = [_letters(bit << _STORE_BITS | store, 12) for bit in (0, 1)]
        self._moment, self._time = -1, ""

    def draw(self, now_ms: int | None = None) -> int:
        """The next id: greater than all before it, also when the clock was set back."""
        moment = (time.time_ns() // 1_000_000 if now_ms is None else now_ms) << _COUNTER_BITS
        if moment <= self._last:
            self._last += self._step
        else:
            # Two copies of one store (a restored backup beside the original) would otherwise draw the same ids.
            self._last = moment | self._random.getrandbits(_COUNTER_BITS - 1) // self._step * self._step + self._slot
        return self._last

    @property
    def newest(self) -> int:
        """The highest id that is known of: nothing that is stored has a higher one."""
        return self._last

    @property
    def newest_ms(self) -> int:
        """When the highest id was drawn that is known of: never earlier than anything that is stored."""
        return moment_ms(self._last)

    def take_slot(self, slot: int) -> None:
        """Draw from another slot from now on, 0 to 255."""
        self._slot, self._step = slot, _SLOTS
        self.pass_by(self._last)

    def pass_by(self, number: int) -> None:
        """Draw what is greater than this from now on."""
        if number >= self._last:
            self._last = (number // self._step + 1) * self._step + self._slot

    def text(self, prefix: str, number: int) -> str:
        """The ULID of an id, with its prefix: `text(EVENT, n)` is `evt_01J…`."""
        moment = number >> _COUNTER_BITS + 10
        if moment != self._moment:  # a second: most ids are of the last one
            self._moment, self._time = moment, _letters(moment, 8)
        six = number >> 1 & _SIX_LETTERS  # as small as this, Python counts twice as fast with it
        return (
            f"{prefix}{self._time}{_PAIRS[six >> 20]}{_PAIRS[six >> 10 & 1023]}{_PAIRS[six & 1023]}"
            f"{self._tails[number & 1]}"
        )

    def number(self, text: str, *prefixes: str) -> tuple[str, int]:
        """The prefix and the id behind a ULID. Raises UnknownId for text that this store never handed out."""
        prefix = text[:4]
        letters = text[4:].upper()
        if prefix not in (prefixes or PREFIXES) or len(letters) != 26:
            raise UnknownId(f"{text!r} is not an id")
        value = 0
        for letter in letters:
            digit = _VALUES.get(letter)
            if digit is None:
                raise UnknownId(f"{text!r} is not an id")
            value = value << 5 | digit
        moment, rest = value >> 80, value & ((1 << 80) - 1)
        if rest & (STORE_SPACE - 1) != self._store or moment >> 42:
            raise UnknownId(f"{text!r} is not an id of this store")
        return prefix, moment << _COUNTER_BITS | rest >> _STORE_BITS


def _letters(value: int, count: int) -> str:
    """The lowest bits of a number as so many letters, an even number."""
    return "".join(_PAIRS[value >> shift & 1023] for shift in range(5 * count - 10, -1, -10))


def id_range(text: str, prefix: str) -> tuple[int, int] | None:
    """The lowest and the highest id that begin with a text, `dlv_01J8` or `01J8`; None where no id of this kind can."""
    letters = text[4:] if text[:4] == prefix else text
    letters = letters.upper()
    if (text[:4] in PREFIXES and text[:4] != prefix) or len(letters) > 26 or not _VALUES.keys() >= set(letters):
        return None
    if text[:4] != prefix and len(letters) < _LEAST:
        return None
    bits = 5 * (26 - len(letters))
    low = 0
    for letter in letters:
        low = low << 5 | _VALUES[letter]
    low, high = low << bits, ((low + 1) << bits) - 1
    if low >> 122:  # past the last moment that an id can have
        return None
    return _inside(low), min(_inside(high), (1 << 63) - 1)


def _inside(value: int) -> int:
    """The id of a ULID, whatever its store."""
    return value >> 80 << _COUNTER_BITS | (value & ((1 << 80) - 1)) >> _STORE_BITS


def draw_store() -> int:
    """A store's number, drawn once when the store is created."""
    return secrets.randbits(_STORE_BITS)


def moment_ms(number: int) -> int:
    """When an id was drawn: milliseconds since 1970, UTC."""
    return number >> _COUNTER_BITS
