"""How often people are told. Pure: facts go in, notices come out; what time it is, in seconds, is always said.

Most kinds are told at once and then rest: what comes within ten minutes is counted, and told in one notice when the
rest is over.

The state of a route (unhealthy, recovered, paused) and of a source (silent, heard) is told when it turns, and the last
notice is never wrong for longer than a rest. Each kind of turn has a rest of its own, so that an outage of five minutes
is told when it opens and when it closes, while one that opens again two minutes later is not: a route that flaps is
summed up once in ten minutes. While a route is unhealthy, what fails of it is no news: it is counted, and told by the
notice that closes the outage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from relay.notice import Fact, Notice
from relay.notifier import Kind

QUIET = 600.0  # seconds between two notices of one kind about one subject

_TURNS = frozenset({Kind.UNHEALTHY, Kind.RECOVERED, Kind.PAUSED, Kind.SOURCE_SILENT, Kind.SOURCE_HEARD})
_TROUBLE = frozenset({Kind.UNHEALTHY, Kind.PAUSED, Kind.SOURCE_SILENT})
_COUNTED = frozenset({Kind.DELIVERY_FAILED, Kind.QUEUE_FULL})
_MOST_IDS = 5


@dataclass(slots=True)
class _Gathered:
    """Facts of one kind that are not told yet."""

    first_at: datetime
    last: Fact
    count: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, fact: Fact) -> None:
        self.last = fact
        self.count += 1
        self.ids.extend(fact.ids[: _MOST_IDS - len(self.ids)])


@dataclass(slots=True)
class _Subject:
    """What is known of one route or source."""

    state: Kind | None = None
    """As the last turn says, told or not."""
    since: datetime | None = None
    """Since when it has been in trouble; stays until the end of it is told."""
    turns: _Gathered | None = None
    meanwhile: Counter[Kind] = field(default_factory=Counter)
    """What is left to the next notice about a turn."""
    full: bool = False
    """Whether it was told in this outage that the queue is full."""
    others: dict[Kind, _Gathered] = field(default_factory=dict)
    rests: dict[Kind, float] = field(default_factory=dict)
    """When the rest of each kind is over."""

    def saw(self, fact: Fact) -> None:
        kind = fact.kind
        if kind in _TURNS:
            if kind in _TROUBLE and (self.state not in _TROUBLE or self.since is None):
                self.since = fact.since or fact.at
            self.state = kind
            self.turns = self.turns or _Gathered(fact.at, fact)
            self.turns.add(fact)
            self.full = False
            if kind is Kind.UNHEALTHY:
                for other in _COUNTED & self.others.keys():
                    self.meanwhile[other] += self.others.pop(other).count
        elif kind is Kind.QUEUE_FULL and self.state is Kind.UNHEALTHY and not self.full:
            # From here on events are not sent even when the outage ends: that is worth a message of its own, once.
            self.full = True
            self.others.setdefault(kind, _Gathered(fact.at, fact)).add(fact)
        elif kind in _COUNTED and self.state is Kind.UNHEALTHY:
            self.meanwhile[kind] += 1
        else:
            self.others.setdefault(kind, _Gathered(fact.at, fact)).add(fact)

    def waiting(self) -> Iterator[Kind]:
        """The kinds of which there is something to tell."""
        yield from self.others
        if self.turns is not None and self.state is not None:
            yield self.state

    def ready(self, kind: Kind, now: float) -> bool:
        return self.rests.get(kind, now) <= now

    def tell(self, kind: Kind, now: float) -> Notice:
        self.rests[kind] = now + QUIET
        return self.taken(kind)

    def taken(self, kind: Kind) -> Notice:
        """The notice of a kind, which is settled by it."""
        if kind not in _TURNS:
            gathered = self.others.pop(kind)
            return Notice(gathered.last, gathered.count, gathered.first_at, tuple(gathered.ids))
        turns, meanwhile, since = self.turns, dict(self.meanwhile), self.since
        assert turns is not None
        self.turns = None
        self.meanwhile.clear()
        if kind not in _TROUBLE:
            since = turns.last.since or since
            self.since = None
        return Notice(turns.last, turns.count, turns.first_at, tuple(turns.ids), since, meanwhile)

    def idle(self, now: float) -> bool:
        """Whether there is nothing to remember."""
        nothing = self.turns is None and not self.others and not self.meanwhile and self.state not in _TROUBLE
        return nothing and all(rest <= now for rest in self.rests.values())


class Quota:
    """What has been told of whom, and what is still to be told."""

    def __init__(self) -> None:
        self._subjects: dict[tuple[str, str], _Subject] = {}

    def saw(self, fact: Fact, now: float) -> Notice | None:
        """A fact, and what is to be told of it at once."""
        subject = self._subjects.setdefault((fact.kind.about, fact.subject), _Subject())
        subject.saw(fact)
        if fact.kind in subject.waiting() and subject.ready(fact.kind, now):
            return subject.tell(fact.kind, now)
        return None

    def held_until(self, kind: Kind, subject: str) -> float | None:
        """When what is held back of a kind will have to be told; None where there is nothing."""
        known = self._subjects.get((kind.about, subject))
        return known.rests.get(kind) if known is not None and kind in known.waiting() else None

    def remember(self, kind: Kind, subject: str, since: datetime | None) -> None:
        """A state of a route or source that was told before relay was started anew."""
        self._subjects.setdefault((kind.about, subject), _Subject(kind, since))

    def heard(self, kind: Kind, subject: str, since: datetime | None) -> None:
        """Another relay saw a route or source turn, and tells it: what is held back here of its turns is that one's."""
        known = self._subjects.setdefault((kind.about, subject), _Subject())
        known.state, known.since, known.turns = kind, since if kind in _TROUBLE else None, None

    def due(self, now: float) -> list[Notice]:
        """What is to be told now, because its rest is over."""
        found = [
            subject.tell(kind, now)
            for subject in self._subjects.values()
            for kind in list(subject.waiting())
            if subject.ready(kind, now)
        ]
        for key in [key for key, subject in self._subjects.items() if subject.idle(now)]:
            del self._subjects[key]
        return found

    def next_due(self) -> float | None:
        """When something will have to be told, if no other fact comes."""
        rests = [subject.rests.get(kind, 0.0) for subject in self._subjects.values() for kind in subject.waiting()]
        return min(rests, default=None)

    def rest(self) -> list[Notice]:
        """All that is not told yet, at the end."""
        return [subject.taken(kind) for subject in self._subjects.values() for kind in list(subject.waiting())]
