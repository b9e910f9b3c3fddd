"""Duplicates: by what a repeated request is known. Pure.

What tells a repeat of a sender is for its adapter to say (`SourceAdapter.mark`), or for a source's `dedup: {key: …}`.
Only hashes of it are kept. Where nothing tells a repeat from a second event there is no mark: an event that is
delivered twice is a nuisance, one that is swallowed is a loss.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b

from relay import query
from relay.clock import to_ms
from relay.delivery import Mark
from relay.event import Inbound
from relay.jsontext import Malformed, canonical

_EMPTY = blake2b(digest_size=16)  # a copy costs less than a new one
_TIME = 6  # bytes of a key that may be a time
_MESSAGE_IDS = timedelta(hours=24)  # senders try again for hours, and a person may have them do so for longer


def digest(first: bytes, *others: bytes) -> bytes:
    """A hash of all parts, none of which can run into the next."""
    hashing = _begun(len(first)).copy()
    hashing.update(first)
    if others:
        hashing.update(b"".join([piece for part in others for piece in (_length(len(part)), part)]))
    return hashing.digest()


@lru_cache(32)
def _begun(length: int) -> blake2b:
    """The hash that `digest` makes, begun with the length of the first part."""
    hashing = _EMPTY.copy()
    hashing.update(_length(length))
    return hashing


def _length(number: int) -> bytes:
    return number.to_bytes(8)


def encoded(text: str) -> bytes:
    """Any text as bytes, also one that UTF-8 cannot hold."""
    return text.encode("utf-8", "surrogatepass")


def known_by(first: bytes, *others: bytes, window: timedelta, at: datetime | None = None) -> Mark:
    """A repeat is what has all of these in common with an earlier request; `at` is a time that is among them.

    A key begins with it: stores keep keys in order, and what is written at the end of them costs a tenth of what is
    strewn all over.
    """
    key = digest(first, *others) if others else digest(first)
    if at is not None:
        time = to_ms(at)
        key = (time if time > 0 else 0).to_bytes(_TIME) + key[_TIME:]
    return Mark(key, b"", window)


def message_id(sent: str | None) -> Mark | None:
    """By the id that the sender gives each of its messages."""
    return known_by(b"id", encoded(sent), window=_MESSAGE_IDS) if sent else None


def of_source(name: str, mark: Mark) -> Mark:
    """The mark as that of one source: what two sources are sent is never compared."""
    key = mark.key
    hashing = _before(name, len(key)).copy()
    hashing.update(key)
    return Mark(key[:_TIME] + hashing.digest()[_TIME:], mark.value, mark.window)


@lru_cache(256)
def _before(name: str, length: int) -> blake2b:
    """The hash that `digest` makes, begun with what it puts before a key of this length that it hashes with a name."""
    said = encoded(name)
    hashing = _EMPTY.copy()
    hashing.update(_length(len(said)) + said + _length(length))
    return hashing


class Key:
    """What an expression over `{body, headers}` finds in a request. Raises QueryError for one that can only fail.

    `hidden` are names of headers that carry proofs, in lower case. They are not there for the expression: as *** they
    would make every event a repeat of the first.
    """

    def __init__(self, text: str, window: timedelta, hidden: frozenset[str]) -> None:
        self._query = query.compile(text)
        self._window = window
        self._hidden = hidden

    def mark(self, inbound: Inbound) -> Mark | None:
        """The mark of a request; None where the expression finds nothing, or fails."""
        headers = [(name, value) for name, value in inbound.headers.items() if name.lower() not in self._hidden]
        data = {"body": inbound.document_or_none(), "headers": query.headers_object(headers)}
        try:
            found = self._query.search(data)
            return known_by(b"key", canonical(found), window=self._window) if _says(found) else None
        except (query.QueryError, Malformed):
            return None


def _says(found: object) -> bool:
    """Whether something was found: of `[body.id, body.version]` every part, of an object any."""
    parts = found if isinstance(found, list) else list(found.values()) if isinstance(found, dict) else [found]
    said = [part is not None and part != "" for part in parts]
    return any(said) if isinstance(found, dict) else bool(said) and all(said)
