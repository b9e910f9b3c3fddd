"""Did my publish go out? Everything that happened to an entry, and where each of it went."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from aiohttp import web

from relay.delivery import LogItem, State
from relay.ids import DeliveryId
from relay.store import Store
from relay.web import logquery
from relay.web.dashboard.logs import given_filters, query_of
from relay.web.dashboard.page import Visit

_MOST = 200
_MOST_CARRIERS = 50
_NARROWING = ("entry_id", "model", "source", "cursor")


@dataclass(slots=True)
class Happening:
    """One event about the entry, and where it went."""

    item: LogItem
    """Any of its items: they describe the event alike."""
    went: list[Carried] = field(default_factory=list)

    @property
    def unmatched(self) -> bool:
        """Whether no route wanted it."""
        return self.item.status == "unmatched"


@dataclass(frozen=True, slots=True)
class Carried:
    """A delivery of it; of one that is merged, also the delivery that carries it."""

    item: LogItem
    carrier: LogItem | None

    @property
    def told(self) -> LogItem:
        """What says how it went."""
        return self.carrier or self.item


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer in one word, and the routes by how they stand."""

    word: str
    happening: Happening
    routes: dict[str, list[str]]


async def page(visit: Visit) -> web.Response:
    """`/ui/entries`."""
    given = given_filters(visit.request)
    unknown = [name for name in given if name not in _NARROWING]
    if unknown:
        raise logquery.BadFilter(f"unknown filter '{unknown[0]}': there are {', '.join(_NARROWING)}")
    happenings: list[Happening] = []
    more = None
    if "entry_id" in given:
        # An entry's id is looked for as it is: a comma in it makes no list.
        entry_id = given["entry_id"]
        rest = {name: value for name, value in given.items() if name != "entry_id"}
        query = query_of(visit, {**rest, "status": ",".join(logquery.STATUSES), "limit": str(_MOST)}.items())
        found = await visit.desk.store.search(replace(query, entry_id=(entry_id,)))
        happenings = await _happenings(visit.desk.store, found.items)
        more = found.items[-1].id if found.next is not None else None
    return visit.respond(
        "entry.html",
        given=given,
        happenings=happenings,
        verdict=_verdict(happenings[0]) if happenings and "cursor" not in given else None,
        more=more,
    )


async def _happenings(store: Store, items: list[LogItem]) -> list[Happening]:
    carriers: dict[str, LogItem | None] = {}
    for item in items:
        if item.merged_into is not None and item.merged_into not in carriers and len(carriers) < _MOST_CARRIERS:
            carriers[item.merged_into] = await _last_carrier(store, item.merged_into)
    found: dict[str, Happening] = {}
    for item in items:
        happening = found.setdefault(item.event_id or item.id, Happening(item))
        if item.route is not None:
            happening.went.append(Carried(item, carriers.get(item.merged_into or "")))
    for happening in found.values():
        happening.went.sort(key=lambda carried: carried.item.id)
    return sorted(found.values(), key=lambda happening: happening.item.event_id or "", reverse=True)


async def _last_carrier(store: Store, id_text: str) -> LogItem | None:
    """The delivery that carries it in the end: under `order: latest` one may be merged into the next."""
    item = None
    for _ in range(10):
        found = await store.delivery(DeliveryId(store.ids.number(id_text)[1]))
        if found is None:
            return item
        item = found.item
        if item.merged_into is None:
            return item
        id_text = item.merged_into
    return item


def _verdict(happening: Happening) -> Verdict:
    """How the newest event stands; of several deliveries to one route the last one counts."""
    last = {carried.item.route or "": carried.told for carried in happening.went}
    routes: dict[str, list[str]] = {}
    for route, told in last.items():
        routes.setdefault(told.status, []).append(route)
    if happening.unmatched or not last:
        word = "unmatched"
    elif State.FAILED in routes or State.CANCELLED in routes:
        word = "failed"
    elif set(routes) == {State.DELIVERED}:
        word = "delivered"
    else:
        word = "held" if State.HELD in routes else "pending"
    return Verdict(word, happening, routes)
