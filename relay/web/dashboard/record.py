"""One delivery, one event, or one refused request: what it said, what was done with it, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiohttp import web
from markupsafe import Markup

from relay import explanation, jsontext
from relay.delivery import Attempt, State, StoredEvent
from relay.event import event_from_json
from relay.health import RouteState
from relay.ids import DELIVERY, EVENT, REJECTION, DeliveryId, EventId, UnknownId
from relay.immutable import immutable
from relay.pattern import Subject
from relay.secret import redact_bytes
from relay.store import DeliveryDetail
from relay.waiting import Cause
from relay.web import read
from relay.web.dashboard import bodies, carrier
from relay.web.dashboard.page import HEADERS, Visit
from relay.web.read import NotFound

_FULL_ATTEMPTS = 12
_LISTED_ATTEMPTS = 200
_MOST_ANSWER = 4_000
_MOST_MERGED = 100
_MOST_DELIVERIES = 100
_OPEN_ROUTES = 6
_MOST_ROUTES = 60
_RETRYABLE = ("failed", "cancelled", "pending")
_CANCELLABLE = ("pending", "held")


@immutable
class Exchange:
    """An attempt as its page shows it; `full` ones with what was sent and what came back."""

    made: Attempt
    full: bool
    sent: list[tuple[Markup, Markup]]
    came: list[tuple[Markup, Markup]]
    answer: bodies.Body | None


async def page(visit: Visit) -> web.Response:
    """`/ui/logs/<id>`."""
    store, id_text = visit.desk.store, visit.request.match_info["id"]
    prefix, number = _number(visit, id_text)
    if prefix == DELIVERY:
        found = await store.delivery(DeliveryId(number))
        if found is not None:
            return await _delivery(visit, found)
    elif prefix == EVENT:
        stored = await store.event(EventId(number))
        if stored is not None:
            deliveries = await store.deliveries_of(EventId(number))
            return visit.respond(
                "event.html",
                id=store.ids.text(EVENT, number),
                deliveries=[found.item for found in deliveries[:_MOST_DELIVERIES]],
                deliveries_count=len(deliveries),
                **_event(visit, stored, bodies.Room(), None),
            )
    elif (refused := await store.rejection(number)) is not None:
        room = bodies.Room()
        return visit.respond(
            "rejection.html",
            id=store.ids.text(REJECTION, number),
            refused=refused,
            headers=bodies.headers(refused.headers, room),
        )
    raise _missing(id_text)


async def _delivery(visit: Visit, found: DeliveryDetail) -> web.Response:
    store, item = visit.desk.store, found.item
    stored = None
    if item.event_id is not None:
        stored = await store.event(EventId(store.ids.number(item.event_id)[1]))
    room = bodies.Room()
    newest = found.attempts[-_LISTED_ATTEMPTS:]
    exchanges = [_exchange(made, place < _FULL_ATTEMPTS, room) for place, made in enumerate(reversed(newest))]
    windows = {window.id for window in await store.windows()} if item.status in _CANCELLABLE else set()
    waits = read.waits(found, visit.now, visit.desk.waits_here)
    known = visit.desk.reloader.runtime.routing.routes
    carrying = await carrier.last(store, item.merged_into) if item.merged_into is not None else None
    return visit.respond(
        "delivery.html",
        item=item,
        carrier_id=carrying.id if carrying is not None else item.merged_into,
        carrier_status=carrying.status if carrying is not None else None,
        shares=carrier.shared(carrying),
        exchanges=exchanges,
        attempts_count=len(found.attempts),
        merged=[store.ids.text(EVENT, event) for event in found.merged[:_MOST_MERGED]],
        merged_count=len(found.merged),
        window=store.ids.number(item.id)[1] in windows,
        retryable=item.status in _RETRYABLE,
        cancellable=item.status in _CANCELLABLE,
        route_known=item.route in known,
        unhealthy=item.status == State.PENDING and visit.desk.oversight.state(item.route or "") is RouteState.UNHEALTHY,
        waits=waits if waits is not None and waits.code is not Cause.HEALTH else None,  # of which a page says more
        kept=visit.desk.kept(item.route) if item.route is not None else None,
        **_event(visit, stored, room, item.route),
    )


def _event(visit: Visit, stored: StoredEvent | None, room: bodies.Room, route: str | None) -> dict[str, Any]:
    """What a page shows of an event."""
    if stored is None:
        return {"event": None, "headers": [], "body": None, "why": [], "routes_count": 0}
    hidden, redact = ("changes", "extra"), visit.desk.reloader.runtime.redact
    described = stored.description
    return {
        "event": described,
        "said": [(name, value) for name, value in described.items() if name not in hidden and value is not None],
        "changes": described["changes"],
        "extra": bodies.body(jsontext.dumps(described["extra"]), room, 2_000) if described["extra"] else None,
        "headers": bodies.headers([(name, redact(value)) for name, value in stored.headers], room),
        "body": bodies.body(redact_bytes(stored.body, redact), room) if stored.body is not None else None,
        "why": _why(visit, stored, route),
        "routes_count": len(visit.desk.reloader.runtime.routing.routes),
    }


def _why(visit: Visit, stored: StoredEvent, about: str | None) -> list[dict[str, Any]]:
    """What each route of today's config makes of the event. Open is what somebody will want to read: the route that
    the page is about, or, where none wanted the event, the first few."""
    runtime = visit.desk.reloader.runtime
    event = replace(event_from_json(stored.description, stored.headers, stored.body or b""), id=stored.id)
    subject = Subject.of(event, visit.desk.store.ids.text(EVENT, stored.id))
    found = explanation.of_routes(runtime, subject)
    if stored.body is None:
        explanation.leave_open(runtime, found, explanation.gone_from(stored.headers))
    shown: list[dict[str, Any]] = explanation.redacted(found, runtime.redact)
    shown.sort(key=lambda route: not route["matched"])
    nobody = not any(route["matched"] for route in shown)
    return [
        {**route, "open": route["route"] == about or (nobody and place < _OPEN_ROUTES)}
        for place, route in enumerate(shown[:_MOST_ROUTES])
    ]


def _exchange(made: Attempt, full: bool, room: bodies.Room) -> Exchange:
    request, response = made.request, made.response
    if not full or room.left < 4_000:
        return Exchange(made, False, [], [], None)
    return Exchange(
        made,
        True,
        bodies.headers(request.headers, room) if request is not None else [],
        bodies.headers(response.headers, room) if response is not None else [],
        bodies.body(response.body, room, _MOST_ANSWER) if response is not None else None,
    )


async def raw(visit: Visit) -> web.Response:
    """`/ui/logs/<id>/raw`: the event's body as text, with `?attempt=` that of an answer. Never as what it says it is.

    Raises NotFound.
    """
    store, id_text = visit.desk.store, visit.request.match_info["id"]
    attempt = visit.request.query.get("attempt")
    prefix, number = _number(visit, id_text)
    content: bytes | None = None
    if prefix == DELIVERY:
        found = await store.delivery(DeliveryId(number))
        if found is not None and attempt is not None:
            answers = [made.response for made in found.attempts if str(made.n) == attempt]
            content = answers[0].body if answers and answers[0] is not None else None
        elif found is not None and found.item.event_id is not None:
            number, prefix = store.ids.number(found.item.event_id)[1], EVENT
    if prefix == EVENT:
        stored = await store.event(EventId(number))
        body = stored.body if stored is not None else None
        content = redact_bytes(body, visit.desk.reloader.runtime.redact) if body is not None else None
    if content is None:
        raise NotFound(f"there is no body of {id_text[:100]}, or it is no longer kept")
    text = {"Content-Type": "text/plain; charset=utf-8", "Content-Security-Policy": "default-src 'none'; sandbox"}
    return web.Response(body=content, headers={**HEADERS, **text})


def _number(visit: Visit, id_text: str) -> tuple[str, int]:
    try:
        return visit.desk.store.ids.number(id_text)
    except UnknownId:
        raise _missing(id_text) from None


def _missing(id_text: str) -> NotFound:
    return NotFound(f"there is no {id_text[:100]} here: it may have been pruned, or be another relay's")
