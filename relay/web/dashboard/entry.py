"""Did my publish go out? Everything that happened to an entry, and where each of it went.

An entry's id alone names nothing: models, locales, environments and senders may have one in common. So there is an
answer for each of these, from the last event that says what readers are to see (a publish, an unpublish, a delete);
drafts that are saved later do not change it. It is a yes only where all that was owed for that event arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from aiohttp import web

from relay.delivery import LogItem, State
from relay.ids import EventId
from relay.immutable import immutable
from relay.store import LogQuery, Store
from relay.web import logquery
from relay.web.dashboard import carrier
from relay.web.dashboard.logs import given_filters, query_of
from relay.web.dashboard.page import Visit

_MOST = 200
_MOST_CARRIERS = 50
_MOST_CHANGES = 50
_MOST_VERDICTS = 20
_STEP = 200
_MOST_STEPS = 10
_MOST_ENTRIES = 30
_ALL = tuple(logquery.STATUSES)
_NARROWING = ("entry_id", "model", "source", "cursor")
DECIDING = ("publish", "unpublish", "delete", "change")
"""What readers are to see of it is decided by these; `change` is Prismic's word for the first two."""
_WORST = ("failed", "cancelled", "unmatched", "held", "pending", "unknown", "delivered")


class Subject(NamedTuple):
    """What an event is about, beside the entry's id."""

    source: str
    environment: str | None
    branch: str | None
    locale: str | None
    model: str | None


@dataclass(slots=True)
class Happening:
    """One event about the entry, and where it went."""

    item: LogItem
    """Any of its items: they describe the event alike."""
    changes: list[tuple[str | None, str | None]] = field(default_factory=list)
    """Model and action of what it says of the entry: several where it is one event of several changes."""
    went: list[Carried] = field(default_factory=list)

    @property
    def unmatched(self) -> bool:
        """Whether no route wanted it."""
        return not self.went

    @property
    def id(self) -> str:
        """The event's."""
        return self.item.event_id or self.item.id

    @property
    def where(self) -> list[str]:
        """Environment, branch and locale, as far as its sender says."""
        return [part for part in (self.item.environment, self.item.branch, self.item.locale) if part]


@immutable
class Carried:
    """A delivery of it; of one that is merged, also the delivery that carries it."""

    item: LogItem
    carrier: LogItem | None

    @property
    def told(self) -> LogItem:
        """What says how it went."""
        return self.carrier or self.item


@immutable
class Verdict:
    """The answer for one subject in one word, and the routes by how they stand."""

    word: str
    happening: Happening
    action: str | None
    decides: bool
    """Whether it is of a publish or the like; else of the last change of any kind."""
    subject: Subject
    routes: dict[str, list[str]]
    about: tuple[tuple[str, str], ...] = ()
    """What tells the subject from the others."""

    @property
    def headline(self) -> str:
        """The answer, as somebody would say it."""
        match self.word:
            case "delivered":
                return "Yes, it went out"
            case "failed" | "cancelled" if State.DELIVERED in self.routes:
                return "Not everywhere"
            case "failed" | "cancelled":
                return "No, it did not go out" if self.word == "failed" else "No, it was cancelled"
            case "unmatched":
                return "No route wanted it"
            case "held":
                return "It is held back"
            case "pending":
                return "It is on its way"
        return "Nothing is known of the delivery that carried it"


@immutable
class Changed:
    """An entry that changed, by the last event of it."""

    item: LogItem
    times: int
    """How often, in what was looked at."""


@immutable
class Newest:
    """The entries that changed last, and whether that is all of them."""

    entries: list[Changed]
    more: bool = False
    looked_at: int | None = None
    """How much of the log was, where that was not enough to find as many as are listed."""


async def page(visit: Visit) -> web.Response:
    """`/ui/entries`."""
    given = given_filters(visit.request)
    unknown = [name for name in given if name not in _NARROWING]
    if unknown:
        raise logquery.BadFilter(f"unknown filter '{unknown[0]}': there are {', '.join(_NARROWING)}")
    store = visit.desk.store
    happenings: list[Happening] = []
    verdicts: list[Verdict] = []
    newest = Newest([])
    more = None
    if "entry_id" in given:
        # An entry's id is looked for as it is: a comma in it makes no list.
        entry_id = given["entry_id"]
        rest = {name: value for name, value in given.items() if name != "entry_id"}
        query = query_of(visit, {**rest, "status": ",".join(_ALL), "limit": str(_MOST)}.items())
        query = replace(query, entry_id=(entry_id,))
        found = await store.search(query)
        happenings = await _happenings(store, found.items, entry_id)
        more = found.items[-1].id if found.next is not None else None
        if happenings and "cursor" not in given:
            verdicts = await _verdicts(store, query, happenings)
    else:
        newest = await _newest(store)
    return visit.respond(
        "entry.html",
        given=given,
        happenings=happenings,
        verdicts=verdicts[:_MOST_VERDICTS],
        verdicts_count=len(verdicts),
        more=more,
        newest=newest,
    )


async def _newest(store: Store) -> Newest:
    """The more routes an event goes by, the less of the log is about other entries: so it is looked at step by step,
    until there are enough, and no further than a page may take."""
    items: list[LogItem] = []
    before: int | None = None
    for _ in range(_MOST_STEPS):
        found = await store.search(LogQuery(status=_ALL, limit=_STEP, before=before))
        items += found.items
        entries, before = _changed(items), found.next
        if before is None or len(entries) > _MOST_ENTRIES:
            return Newest(entries[:_MOST_ENTRIES], len(entries) > _MOST_ENTRIES)
    return Newest(entries, True, len(items))


def _changed(items: Iterable[LogItem]) -> list[Changed]:
    """The entries that changed last, each once."""
    events: dict[str, dict[str, LogItem]] = {}
    for item in items:
        if item.entry_id and item.event_id and item.action != "test":
            events.setdefault(item.entry_id, {}).setdefault(item.event_id, item)
    found = [Changed(max(of.values(), key=lambda item: item.event_id or ""), len(of)) for of in events.values()]
    return sorted(found, key=lambda changed: changed.item.event_id or "", reverse=True)


# -- what happened ---------------------------------------------------------------------------------------------------


async def _happenings(store: Store, items: Sequence[LogItem], entry_id: str) -> list[Happening]:
    carriers: dict[str, LogItem | None] = {}
    for item in items:
        if item.merged_into is not None and item.merged_into not in carriers and len(carriers) < _MOST_CARRIERS:
            carriers[item.merged_into] = await carrier.last(store, item.merged_into)
    found: dict[str, Happening] = {}
    for item in items:
        happening = found.setdefault(item.event_id or item.id, Happening(item))
        if item.route is not None:
            happening.went.append(Carried(item, carriers.get(item.merged_into or "")))
    several = 0
    for happening in found.values():
        happening.went.sort(key=lambda carried: carried.item.id)
        happening.changes = [(happening.item.model, happening.item.action)]
        if happening.item.entry_id != entry_id and several < _MOST_CHANGES:
            several += 1
            happening.changes = await _changes(store, happening, entry_id) or happening.changes
    return sorted(found.values(), key=lambda happening: happening.id, reverse=True)


async def _changes(store: Store, happening: Happening, entry_id: str) -> list[tuple[str | None, str | None]]:
    """What an event of several changes says of one entry."""
    stored = await store.event(EventId(store.ids.number(happening.id)[1]))
    changes = stored.description["changes"] if stored is not None else ()
    about = [(change["model"], change["action"]) for change in changes if change["entry_id"] == entry_id]
    return list(dict.fromkeys(about))


# -- how it stands ---------------------------------------------------------------------------------------------------


async def _verdicts(store: Store, query: LogQuery, shown: list[Happening]) -> list[Verdict]:
    """One for each subject, the worst first. What decides is looked for also beyond what the page shows: two hundred
    drafts that were saved since do not hide a publish."""
    entry_id = query.entry_id[0]
    earlier = await store.search(replace(query, action=DECIDING))
    known = {happening.id: happening for happening in await _happenings(store, earlier.items, entry_id)}
    known |= {happening.id: happening for happening in shown}
    decided: dict[Subject, tuple[Happening, str | None]] = {}
    last: dict[Subject, tuple[Happening, str | None]] = {}
    for _, happening in sorted(known.items(), reverse=True):
        of = happening.item
        for model, action in happening.changes:
            verb = (action or "").casefold()
            if verb == "test":
                continue
            subject = Subject(of.source, of.environment, of.branch, of.locale, model)
            last.setdefault(subject, (happening, action))
            if verb in DECIDING:
                decided.setdefault(subject, (happening, action))
    standing = last | decided
    # All that is owed for them, also what lies beyond the page, and what a replay made.
    whole: dict[str, Happening] = {}
    for id_text in {happening.id for happening, _ in standing.values()}:
        event = EventId(store.ids.number(id_text)[1])
        owed = await store.search(LogQuery(event_id=(event,), status=_ALL, limit=logquery.MOST))
        whole |= {happening.id: happening for happening in await _happenings(store, owed.items, entry_id)}
    verdicts = [
        _verdict(whole.get(happening.id, happening), action, subject, subject in decided)
        for subject, (happening, action) in standing.items()
    ]
    if decided:  # that nobody wants a draft of something that was never published is as it should be
        verdicts = [verdict for verdict in verdicts if verdict.decides or verdict.word != "unmatched"]
    verdicts.sort(key=lambda verdict: _WORST.index(verdict.word))
    return [
        replace(verdict, about=_about(verdict.subject, [each.subject for each in verdicts])) for verdict in verdicts
    ]


def _verdict(happening: Happening, action: str | None, subject: Subject, decides: bool) -> Verdict:
    """How an event stands. Of several deliveries to one route the last one counts, that of a replay; but one that was
    cancelled undoes nothing."""
    last: dict[str, str] = {}
    for carried in happening.went:
        status = "unknown" if carried.told.status == State.MERGED else carried.told.status
        if status != State.CANCELLED or carried.item.route not in last:
            last[carried.item.route or ""] = status
    routes: dict[str, list[str]] = {}
    for route, status in last.items():
        routes.setdefault(status, []).append(route)
    word = min(routes, key=_WORST.index) if routes else "unmatched"
    return Verdict(word, happening, action, decides, subject, routes)


def _about(subject: Subject, all_of_them: Sequence[Subject]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, value or "none")
        for name, value, values in zip(Subject._fields, subject, zip(*all_of_them, strict=True), strict=True)
        if len(set(values)) > 1
    )
