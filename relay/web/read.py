"""The answers of `/logs` and `/logs/<id>`: the same for the daemon and for a store read without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from relay.ids import DELIVERY, EVENT, DeliveryId, EventId, UnknownId
from relay.secret import Redactor
from relay.store import DeliveryDetail, LogReader
from relay.waiting import Waits, behind
from relay.web import logquery, shape


class NotFound(Exception):
    """There is no such thing; the message names it."""


async def logs(store: LogReader, query: Iterable[tuple[str, str]], now: datetime) -> dict[str, Any]:
    """A page of the log. Raises BadFilter."""
    page = await store.search(logquery.parse(query, now, store.ids))
    cursor = page.items[-1].id if page.next is not None else None
    return {"items": [shape.item(row) for row in page.items], "next": cursor}


Waiting = Callable[[DeliveryDetail], Waits | None]
"""Says what a delivery waits for beside its lane: only a running relay knows."""


async def log(
    store: LogReader, id_text: str, redact: Redactor, now: datetime, waiting: Waiting = lambda found: None
) -> dict[str, Any]:
    """Everything about a delivery, an event or a rejected request, but the config's secrets. Raises NotFound."""
    return shape.masked(await _whole(store, id_text, now, waiting), redact)


def waits(found: DeliveryDetail, now: datetime, waiting: Waiting) -> Waits | None:
    """What a delivery waits for that is due."""
    due = found.item.next_attempt_at
    if due is None or due > now:
        return None
    return behind(found.behind) if found.behind is not None else waiting(found)


async def _whole(store: LogReader, id_text: str, now: datetime, waiting: Waiting) -> dict[str, Any]:
    try:
        prefix, number = store.ids.number(id_text)
    except UnknownId as error:
        raise NotFound(str(error)) from None
    if prefix == DELIVERY:
        found = await store.delivery(DeliveryId(number))
        if found is not None and found.item.event_id is not None:
            stored = await store.event(EventId(store.ids.number(found.item.event_id)[1]))
            about = shape.event(stored) if stored is not None else {"event": None, "headers": [], "body": None}
            return {
                **shape.detail(found),
                **about,
                "merged": [store.ids.text(EVENT, event) for event in found.merged],
                "waits_for": shape.waits(waits(found, now, waiting)),
            }
    elif prefix == EVENT:
        stored = await store.event(EventId(number))
        if stored is not None:
            deliveries = [shape.detail(found) for found in await store.deliveries_of(EventId(number))]
            return {**shape.event(stored), "deliveries": deliveries}
    elif (refused := await store.rejection(number)) is not None:
        return shape.rejection(refused, store.ids)
    raise NotFound(f"there is no {id_text}")
