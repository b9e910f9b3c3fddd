"""Which events a route wants: globs and their lists, the compiled filter, and its explanation. Pure.

A pattern is a glob (`*`, `?`, `[abc]`, `[!abc]`) over the whole value, compared without regard to case; `!x` excludes.
A list takes a value when any positive pattern does, or there is none, and no negative one does. A missing value matches
no pattern but a bare `*`, so `!?*` means "has no value".

Two actions are special:

- `change` is Prismic's "published or unpublished, it does not say". It satisfies a list that takes `publish` or
  `unpublish` by a positive pattern; of the negative ones only those that match the word `change` itself exclude it,
  since what is excluded may be the half that did not happen. `!publish` alone therefore lets `change` pass: an event
  too many is better than one too few.
- `test` must be named: by the word `test`, spelled out. A glob names nothing, so neither `*` nor `te*` takes a test
  event, nor does a filter without `action`. Inside `any` the word may stand in the alternative that takes the change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any

from relay import query
from relay.event import Change, Description, Event
from relay.immutable import immutable

CHANGE_KEYS = ("model", "stage", "action", "entry_id")
"""Compared with each change: one change must satisfy all of them."""
EVENT_KEYS = ("event", "environment", "branch", "locale", "type")
"""Compared with the event."""

_SPECIAL = re.compile(r"[*?\[]")


@dataclass(slots=True)
class Subject:
    """An event as filters see it. What only `where` needs is made when it is first asked for."""

    description: Description
    type: str
    source: str
    document: Any = None
    headers: Sequence[tuple[str, str]] = ()
    event_json: Callable[[], dict[str, Any]] = dict
    _data: dict[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, event: Event, event_id: str, document: Any = None) -> Subject:
        """An accepted event; `event_id` is its id as users see it. The parsed body, where the event has none."""
        return cls(
            description=event.description,
            type=event.type,
            source=event.source,
            document=document if document is not None else event.document,
            headers=event.headers,
            event_json=lambda: event.as_json(event_id),
        )

    def data(self) -> dict[str, Any]:
        """What `where` is asked over: `{event, body, headers}`, header names in lower case."""
        if self._data is None:
            headers = query.headers_object(self.headers)
            self._data = {"event": self.event_json(), "body": self.document, "headers": headers}
        return self._data


class Patterns:
    """A list of patterns, compiled."""

    __slots__ = ("_globs", "_missing", "_not_globs", "_not_words", "_positive", "_words", "names_test", "texts")

    def __init__(self, texts: Sequence[str], *, of_actions: bool = False) -> None:
        self.texts = tuple(texts)
        positive = [text.casefold() for text in texts if not text.startswith("!")]
        negative = [text[1:].casefold() for text in texts if text.startswith("!")]
        self._words, self._globs = _compiled(positive)
        self._not_words, self._not_globs = _compiled(negative)
        self._positive = bool(positive)
        self._missing = (not positive or "*" in positive) and "*" not in negative
        self.names_test = of_actions and "test" in self._words
        if of_actions and positive and (self._wanted("publish") or self._wanted("unpublish")):
            self._words |= {"change"}

    @property
    def words(self) -> frozenset[str] | None:
        """The values, casefolded, of which it takes some and no others; None where it may take any."""
        return self._words if self._positive and self._globs is None else None

    def takes(self, value: str | None) -> bool:
        """Whether the list takes a value; None is a missing one."""
        if value is None:
            return self._missing
        value = value.casefold()
        if self._positive and not self._wanted(value):
            return False
        return not (
            value in self._not_words or (self._not_globs is not None and self._not_globs.match(value) is not None)
        )

    def _wanted(self, value: str) -> bool:
        return value in self._words or (self._globs is not None and self._globs.match(value) is not None)

    def __repr__(self) -> str:
        return f"Patterns({list(self.texts)})"


def _compiled(patterns: Sequence[str]) -> tuple[frozenset[str], re.Pattern[str] | None]:
    words = frozenset(pattern for pattern in patterns if _SPECIAL.search(pattern) is None)
    globs = [translate(pattern) for pattern in patterns if pattern not in words]
    return words, re.compile("|".join(globs)) if globs else None


@immutable
class Clause:
    """One line of an explanation: a key of the filter, and what it made of the event."""

    key: str
    patterns: tuple[str, ...]
    saw: tuple[str | None, ...]
    matched: bool
    change: int | None = None
    """Which of the event's changes was looked at: the one that satisfies the filter, else the closest one."""
    note: str | None = None
    """Why, where the patterns alone do not say it; also the error of a `where` that raised."""
    alternatives: tuple[tuple[Clause, ...], ...] = ()
    """For `any`: the clauses of each alternative."""


Keys = Mapping[str, Sequence[str]]


class _Alternative:
    """Keys that must hold together: those of the filter itself, or of one entry of `any`."""

    __slots__ = ("names_test", "of_change", "of_event")

    def __init__(self, keys: Keys) -> None:
        self.of_event = [(key, Patterns(keys[key])) for key in EVENT_KEYS if key in keys]
        self.of_change = [(key, Patterns(keys[key], of_actions=key == "action")) for key in CHANGE_KEYS if key in keys]
        self.names_test = any(patterns.names_test for _, patterns in self.of_change)

    @property
    def models(self) -> frozenset[str] | None:
        return next((patterns.words for key, patterns in self.of_change if key == "model"), None)

    def takes_event(self, subject: Subject) -> bool:
        for key, patterns in self.of_event:  # noqa: SIM110  # the hot path: a generator costs more than the loop
            if not patterns.takes(_of_event(subject, key)):
                return False
        return True

    def takes_change(self, change: Change) -> bool:
        for key, patterns in self.of_change:  # noqa: SIM110
            if not patterns.takes(getattr(change, key)):
                return False
        return True

    def clauses(self, subject: Subject, change: Change, number: int) -> list[Clause]:
        found = []
        for key, patterns in self.of_event:
            value = _of_event(subject, key)
            found.append(Clause(key, patterns.texts, (value,), patterns.takes(value)))
        for key, patterns in self.of_change:
            value = getattr(change, key)
            found.append(Clause(key, patterns.texts, (value,), patterns.takes(value), number))
        return found


class Filter:
    """A route's `match`, compiled. Without keys it takes everything but test events.

    Raises ValueError (QueryError) for a `where` that can only fail.
    """

    def __init__(self, keys: Keys | None = None, any: Sequence[Keys] = (), where: str | None = None) -> None:  # noqa: A002
        self._all = _Alternative(keys or {})
        self._any = [_Alternative(entry) for entry in any]
        self._where = query.compile(where) if where is not None else None
        self.on_error: Callable[[str], None] | None = None
        """Told of each `where` that raised, with the reason."""

    @property
    def models(self) -> frozenset[str] | None:
        """The models, casefolded, without one of which it takes no change; None where it may take one of any model."""
        own = self._all.models
        if own is not None or not self._any:
            return own
        each = [entry.models for entry in self._any]
        return frozenset().union(*[models for models in each if models is not None]) if None not in each else None

    @property
    def by_words(self) -> bool:
        """Whether it asks for nothing that differs from one entry to the next."""
        keys = [key for entry in (self._all, *self._any) for key, _ in entry.of_change]
        return self._where is None and "entry_id" not in keys

    def may_see(self, keys: Container[str]) -> bool:
        """Whether its `where`, the last of its clauses, may depend on one of these keys of what it is asked over."""
        return self._where is not None and self._where.may_see(keys)

    def matches(self, subject: Subject) -> bool:
        """Whether the route wants the event."""
        if not self._all.takes_event(subject):
            return False
        for change in subject.description.changes:
            if self._takes(subject, change):
                break
        else:
            return False
        if self._where is None:
            return True
        held, error = self._asked(subject)
        if error is not None and self.on_error is not None:
            self.on_error(error)
        return held

    def explain(self, subject: Subject) -> list[Clause]:
        """The verdict of each clause; the filter takes the event when all of them matched."""
        changes = subject.description.changes
        number = next((n for n, change in enumerate(changes) if self._takes(subject, change)), None)
        if number is not None:
            clauses = self._clauses(subject, changes[number], number)
        else:
            tries = [self._clauses(subject, change, n) for n, change in enumerate(changes)]
            clauses = max(tries, key=lambda found: sum(clause.matched for clause in found), default=[])
        if self._where is not None:
            held, error = self._asked(subject)
            clauses.append(Clause("where", (self._where.text,), (), held, note=error))
        return clauses

    def _takes(self, subject: Subject, change: Change) -> bool:
        """Whether one change satisfies all that is asked of a change."""
        if not self._all.takes_change(change):
            return False
        named = self._all.names_test or not change.is_test
        if not self._any:
            return named
        for entry in self._any:
            if (named or entry.names_test) and entry.takes_event(subject) and entry.takes_change(change):
                return True
        return False

    def _clauses(self, subject: Subject, change: Change, number: int) -> list[Clause]:
        clauses = self._all.clauses(subject, change, number)
        named = self._all.names_test or not change.is_test
        if self._any:
            entries = []
            for entry in self._any:
                inside = entry.clauses(subject, change, number)
                if not named and not entry.names_test:
                    inside.append(_unnamed(number))
                entries.append(tuple(inside))
            held = any(all(clause.matched for clause in inside) for inside in entries)
            clauses.append(Clause("any", (), (), held, number, alternatives=tuple(entries)))
        elif not named:
            clauses.append(_unnamed(number))
        return clauses

    def _asked(self, subject: Subject) -> tuple[bool, str | None]:
        assert self._where is not None
        try:
            return query.truthy(self._where.search(subject.data())), None
        except query.QueryError as error:
            return False, str(error)


def _of_event(subject: Subject, key: str) -> str | None:
    if key == "type":
        return subject.type
    value: str | None = getattr(subject.description, key)
    return value


def _unnamed(number: int) -> Clause:
    return Clause("action", (), ("test",), False, number, "test events go only where match.action names test")
