"""The delivery that a merged one became part of: what becomes of it, becomes of both."""

from __future__ import annotations

from relay.delivery import LogItem, State
from relay.ids import DeliveryId
from relay.store import Store

_FURTHEST = 10
_SHARED = {
    State.PENDING: "it goes out with",
    State.HELD: "it is held with",
    State.DELIVERED: "it was sent with",
    State.FAILED: "it failed with",
    State.CANCELLED: "it was cancelled with",
}


async def last(store: Store, id_text: str) -> LogItem | None:
    """The one that carries it in the end: under `order: latest` one may be merged into the next."""
    item = None
    for _ in range(_FURTHEST):
        found = await store.delivery(DeliveryId(store.ids.number(id_text)[1]))
        if found is None:
            return item
        item = found.item
        if item.merged_into is None:
            return item
        id_text = item.merged_into
    return item


def shared(carrier: LogItem | None) -> str:
    """What a merged delivery shares with its carrier, before the carrier's id; of one that is not known, no more than
    is true of any."""
    return "it was merged into" if carrier is None else _SHARED.get(State(carrier.status), "it was merged into")
