"""What comes in: a request as it was received, what it says happened, and the event that relay makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, fields, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy

from relay import jsontext
from relay.clock import parse_rfc3339, rfc3339
from relay.ids import EventId
from relay.immutable import immutable
from relay.secret import Redactor

Headers = CIMultiDictProxy[str] | CIMultiDict[str]

_UNPARSED: Any = object()

_Words = tuple[object, ...]
_MOST_WORDS, _LONGEST_WORDS = 256, 256  # what is remembered, and characters of it


class Inbound:
    """One request to a source, after `Content-Encoding` is undone and before anything is parsed.

    Header values hold the bytes of the wire as UTF-8 with surrogate escapes, as aiohttp delivers them.
    """

    __slots__ = ("_document", "_sha256", "body", "headers")

    def __init__(self, headers: Headers, body: bytes, document: Any = _UNPARSED) -> None:
        self.headers = headers
        self.body = body
        self._document = document
        self._sha256: bytes | None = None

    @property
    def sha256(self) -> bytes:
        """The body's digest, made once."""
        if self._sha256 is None:
            self._sha256 = sha256(self.body).digest()
        return self._sha256

    def document(self) -> Any:
        """The body as JSON, parsed once. Raises Malformed."""
        document = self._document
        if document is _UNPARSED:
            document = self._document = jsontext.parse(self.body)
        return document

    def forget(self) -> None:
        """Let go of what was parsed."""
        self._document = _UNPARSED

    def document_or_none(self) -> Any:
        """The body as JSON, or None where it is not."""
        try:
            return self.document()
        except jsontext.Malformed:
            return None

    def object(self) -> dict[str, Any]:
        """The body as a JSON object. Raises Malformed."""
        document = self._document
        if document is _UNPARSED:
            document = self.document()
        if not isinstance(document, dict):
            raise jsontext.Malformed(f"the body is {jsontext.kind(document)}, not an object")
        return document


@immutable
class Change:
    """One thing that an event says happened. None is "the sender does not say"."""

    model: str | None = None
    stage: str | None = None
    action: str | None = None
    entry_id: str | None = None

    @property
    def texts(self) -> tuple[str | None, ...]:
        """What it says, in the order of its fields."""
        return self.model, self.stage, self.action, self.entry_id

    @property
    def is_test(self) -> bool:
        """Whether somebody only tried whether events arrive, and nothing has changed."""
        return self.action is not None and self.action.casefold() == "test"

    def as_json(self) -> dict[str, str | None]:
        """The change as descriptions show it."""
        return {"model": self.model, "stage": self.stage, "action": self.action, "entry_id": self.entry_id}


TESTED = Change(action="test")


@immutable
class Description:
    """An event in the one vocabulary of all senders. There is always at least one change."""

    event: str | None
    changes: tuple[Change, ...] = (Change(),)
    occurred_at: datetime | None = None
    environment: str | None = None
    branch: str | None = None
    locale: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def masked(self, redact: Redactor) -> Description:
        """The same without the config's secrets: whoever sends one as an entry's id must not have it shown and logged
        from then on."""
        if not self._shows_secret(redact):
            return self

        def mask(text: str | None) -> str | None:
            return None if text is None else redact(text)

        return replace(
            self,
            event=mask(self.event),
            environment=mask(self.environment),
            branch=mask(self.branch),
            locale=mask(self.locale),
            changes=tuple(Change(*(mask(text) for text in change.texts)) for change in self.changes),
            extra=jsontext.parse(redact(self._extra_text).encode()) if self.extra else {},
        )

    def _shows_secret(self, redact: Redactor) -> bool:
        """Whether a secret stands in what it says."""
        words: _Words | None = None
        sole = False
        if len(self.changes) == 1:
            # Most events say the same words of another entry, and where there is but one extra the same as well.
            one, extra = self.changes[0], self.extra
            pair = next(iter(extra.items())) if len(extra) == 1 else None
            sole = pair is not None and type(pair[1]) is str
            words = (
                self.event,
                self.environment,
                self.branch,
                self.locale,
                one.model,
                one.stage,
                one.action,
                pair if sole else None,
            )
            if words in redact.harmless_words:
                entry = one.entry_id or ""
                return redact.finds_raw(f"{entry}\n{self._extra_text}" if extra and not sole else entry)
        # All that it says as one text, which is looked through once. (To write None costs more than all else of it.)
        said = f"{self.event or ''}\n{self.environment or ''}\n{self.branch or ''}\n{self.locale or ''}"
        for each in self.changes:
            said += f"\n{each.model or ''}\n{each.stage or ''}\n{each.action or ''}\n{each.entry_id or ''}"
        extra_text = self._extra_text
        if redact.finds_raw(f"{said}\n{extra_text}"):
            return True
        if words is not None and len(said) + (len(extra_text) if sole else 0) <= _LONGEST_WORDS:
            if len(redact.harmless_words) >= _MOST_WORDS:  # senders make them up
                redact.harmless_words.clear()
            redact.harmless_words.add(words)
        return False

    @property
    def _extra_text(self) -> str:
        return jsontext.dumps(dict(self.extra)).decode() if self.extra else ""

    @property
    def entries(self) -> tuple[str, ...]:
        """The entries that the changes are about, each once."""
        return tuple({change.entry_id: None for change in self.changes if change.entry_id is not None})

    @property
    def common(self) -> Change:
        """What all changes have in common; None where they differ."""
        if len(self.changes) == 1:
            return self.changes[0]
        first, *others = self.changes
        return Change(
            model=first.model if all(c.model == first.model for c in others) else None,
            stage=first.stage if all(c.stage == first.stage for c in others) else None,
            action=first.action if all(c.action == first.action for c in others) else None,
            entry_id=first.entry_id if all(c.entry_id == first.entry_id for c in others) else None,
        )


@immutable
class Event:
    """One accepted request. `headers` are masked and `body` is without the proofs it carried: fit to be stored."""

    id: EventId
    source: str
    type: str
    received_at: datetime
    description: Description
    headers: tuple[tuple[str, str], ...]
    body: bytes
    sha256: bytes
    document: Any = None  # the parsed body, None where it is not JSON; not stored
    received_ms: int | None = field(default=None, compare=False)
    """`received_at` in milliseconds, where it was made of them: to find them again costs 3 thousand instructions."""

    def as_json(self, id_text: str) -> dict[str, Any]:
        """The description as users see it; `id_text` is the event's id as users see it."""
        what = self.description
        common = what.common
        return {
            "id": id_text,
            "source": self.source,
            "type": self.type,
            "event": what.event,
            "received_at": rfc3339(self.received_at),
            "occurred_at": rfc3339(what.occurred_at) if what.occurred_at is not None else None,
            "environment": what.environment,
            "branch": what.branch,
            "locale": what.locale,
            **common.as_json(),
            "changes": [change.as_json() for change in what.changes],
            "extra": dict(what.extra),
        }


def event_from_json(shown: Mapping[str, Any], headers: Sequence[Sequence[str]], body: bytes) -> Event:
    """The event behind what `as_json` shows; its id is left to whoever knows the store."""
    known = [part.name for part in fields(Change)]
    return Event(
        id=EventId(0),
        source=shown["source"],
        type=shown["type"],
        received_at=datetime.fromisoformat(shown["received_at"]),
        description=Description(
            event=shown["event"],
            changes=tuple(Change(**{key: change[key] for key in known}) for change in shown["changes"]),
            occurred_at=parse_rfc3339(shown["occurred_at"]),
            environment=shown["environment"],
            branch=shown["branch"],
            locale=shown["locale"],
            extra=shown["extra"],
        ),
        headers=tuple((name, value) for name, value in headers),
        body=body,
        sha256=sha256(body).digest(),
        document=Inbound(CIMultiDict(), body).document_or_none(),
    )
