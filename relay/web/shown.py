"""What a store says of events, as anyone may see it: whoever sends one of the config's secrets, as an entry's id, must
not have it shown from then on.

Routes, lanes and payloads go by what was really said. So it is stored as it came, and masked where it is shown.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from relay import jsontext
from relay.delivery import LogItem, Rejection, StoredEvent
from relay.ids import DeliveryId, EventId
from relay.secret import Redactor
from relay.store import DeliveryDetail, LogQuery, LogReader, Page


class Shown:
    """A store's log, with what a redactor knows as ***."""

    def __init__(self, store: LogReader, redact: Redactor) -> None:
        self._store = store
        self.redact = redact
        self.ids = store.ids

    async def search(self, query: LogQuery) -> Page:
        """See LogReader. Filters go by what was said."""
        page = await self._store.search(query)
        return replace(page, items=[item(each, self.redact) for each in page.items])

    async def delivery(self, delivery: DeliveryId) -> DeliveryDetail | None:
        """See LogReader."""
        found = await self._store.delivery(delivery)
        return None if found is None else replace(found, item=item(found.item, self.redact))

    async def deliveries_of(self, event: EventId) -> list[DeliveryDetail]:
        """See LogReader."""
        found = await self._store.deliveries_of(event)
        return [replace(each, item=item(each.item, self.redact)) for each in found]

    async def event(self, event: EventId) -> StoredEvent | None:
        """See LogReader. Headers and body are as they were stored."""
        found = await self._store.event(event)
        return None if found is None else replace(found, description=description(found.description, self.redact))

    async def rejection(self, rejection: int) -> Rejection | None:
        """See LogReader."""
        return await self._store.rejection(rejection)


def item(row: LogItem, redact: Redactor) -> LogItem:
    """An item of the log."""
    said = (row.event, row.model, row.stage, row.action, row.entry_id, row.environment, row.branch, row.locale)
    if not redact.sparing.finds_raw("\n".join([text for text in (*said, *row.entries) if text])):
        return row
    event, model, stage, action, entry_id, environment, branch, locale = (
        None if text is None else redact.sparing(text) for text in said
    )
    return replace(
        row,
        event=event,
        model=model,
        stage=stage,
        action=action,
        entry_id=entry_id,
        environment=environment,
        branch=branch,
        locale=locale,
        entries=tuple(map(redact.sparing, row.entries)),
    )


def description(said: dict[str, Any], redact: Redactor) -> dict[str, Any]:
    """What an event says, as JSON."""
    text = jsontext.dumps(said).decode()
    if not redact.sparing.finds(text):
        return said
    masked: dict[str, Any] = jsontext.parse(redact.sparing(text).encode())
    return masked
