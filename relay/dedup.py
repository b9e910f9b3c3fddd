"""Duplicates: by what a repeated request is known. Pure.

What tells a repeat of a sender is for its adapter to say (`SourceAdapter.mark`), or for a source's `dedup: {key: …}`.
Only hashes of it are kept. Where nothing tells a repeat from a second event there is no mark: an event that is
delivered twice is a nuisance, one that is swallowed is a loss.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b

from relay import query
from relay.clock import to_ms
from relay.delivery import Mark
from relay.event import Inbound
from relay.jsontext import Malformed, canonical

_TIME = 6  # bytes of a key that may be a time
_MESSAGE_IDS = timedelta(hours=24)  # senders try again for hours, and a person may have them do so for longer


def digest(*parts: bytes) -> bytes:
    """A hash of all parts, none of which can run into the next."""
    return blake2b(
        b"".join([piece for part in parts for piece in (len(part).to_bytes(8), part)]), digest_size=16
    ).digest()


def encoded(text: str) -> bytes:
    """Any text as bytes, also one that UTF-8 cannot hold."""
    return text.encode("utf-8", "surrogatepass")


def known_by(*parts: bytes, window: timedelta, at: datetime | None = None) -> Mark:
    """A repeat is what has all of these in common with an earlier request; `at` is a time that is among them.

    A key begins with it: stores keep keys in order, and what is written at the end of them costs a tenth of what is
    strewn all over.
    """
    key = digest(*parts)
    return Mark(key if at is None else max(to_ms(at), 0).to_bytes(8)[2:] + key[_TIME:], b"", window)


def message_id(sent: str | None) -> Mark | None:
    """By the id that the sender gives each of its messages."""
    return known_by(b"id", encoded(sent), window=_MESSAGE_IDS) if sent else None


def of_source(name: str, mark: Mark) -> Mark:
    """The mark as that of one source: what two sources are sent is never compared."""
    return Mark(mark.key[:_TIME] + digest(encoded(name), mark.key)[_TIME:], mark.value, mark.window)


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
