"""Payloads tried on samples before the first event comes: what works may still fail, but most mistakes show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256

from relay import samples, source
from relay.bodyproof import without_proofs
from relay.delivery import Unsendable
from relay.destination import filled
from relay.event import Event
from relay.fields import Unresolved
from relay.ids import EventId
from relay.jsontext import Malformed, canonical
from relay.pattern import Patterns, Subject
from relay.payloadschema import Made
from relay.routeschema import Route
from relay.signschema import PrismicSign
from relay.source import Ignored, Source, SourceConfig

_THEN = datetime(2026, 1, 1, tzinfo=UTC)
_ID = "evt_00000000000000000000000000"


class Trial:
    """The sample that stands for each source's type, as an event of that source."""

    def __init__(self, sources: Mapping[str, SourceConfig]) -> None:
        self._sources = sources
        self._events: dict[str, tuple[Event, bytes] | None] = {}
        """By source, and what they say: that is the same of all sources of a type but for those that describe it
        otherwise, by their `map` for instance."""

    def failures(self, route: Route) -> Iterator[str]:
        """Why a route could not send some sample. Samples of types that `match.type` leaves out are not tried;
        where not every event can be sent, nor those that `match` as a whole leaves out."""
        aim = route.to.aim()
        sent = route.sent.texts() if isinstance(route.sent, Made) else ()
        fillers = [entry.build() for entry in route.sign if isinstance(entry, PrismicSign)]
        if not (sent or fillers or aim) or any(isinstance(text, Unresolved) for text in sent):
            return
        payload = route.content()
        wanted = Patterns(route.match.type) if route.match is not None and route.match.type is not None else None
        taken = route.filter()
        tried: set[bytes] = set()
        types: set[str] = set()
        for name in sorted(route.selected(self._sources)):
            made = self._event(name)
            if made is None:
                continue
            event, said = made
            if said in tried or (wanted is not None and not wanted.takes(event.type)):
                continue
            which = f", as {name} describes it" if event.type in types or self._sources[name].map else ""
            tried.add(said)
            types.add(event.type)
            if aim is not None and not taken.matches(Subject.of(event, _ID)):
                continue
            try:
                if aim is None or not aim(event).bodiless:
                    filled(payload(event, _ID).body, fillers)
            except Unsendable as error:
                yield f"{error.failure.message} (tried on the sample {_sample(event.type)} of {event.type}{which})"

    def _event(self, name: str) -> tuple[Event, bytes] | None:
        if name not in self._events:
            event = self._made(name)
            self._events[name] = None if event is None else (event, canonical(event.as_json(_ID) | {"source": None}))
        return self._events[name]

    def _made(self, name: str) -> Event | None:
        config = self._sources[name]
        module = source.types()[config.type]
        kind = module.__name__.rpartition(".")[2]
        try:
            adapter = module.Adapter(config)
            made = Source(name, config, adapter, kind)
            inbound = without_proofs(samples.load(kind), adapter.body_proofs)
            description = made.describe(inbound)
        except (Malformed, ValueError):  # what is wrong with the source is said where it stands
            return None
        if isinstance(description, Ignored):
            return None
        return Event(
            id=EventId(0),
            source=name,
            type=kind,
            received_at=_THEN,
            description=description,
            headers=made.shown_headers(inbound.headers),
            body=inbound.body,
            sha256=sha256(inbound.body).digest(),
            document=inbound.document_or_none(),
        )


def _sample(kind: str) -> str:
    return str(source.types()[kind].SAMPLE)
