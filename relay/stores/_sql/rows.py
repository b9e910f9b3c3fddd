"""Values to rows, and rows to values: the order of columns is known here alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from relay.clock import from_ms, to_ms
from relay.delivery import (
    MOST_KEPT,
    Attempt,
    Code,
    Delivery,
    Failure,
    HeldReason,
    LogItem,
    Owed,
    Rejection,
    Request,
    Response,
    State,
    StoredEvent,
    Trigger,
    kept,
)
from relay.event import Change, Description, Event
from relay.ids import DELIVERY, EVENT, REJECTION, DeliveryId, EventId, Ids, moment_ms
from relay.jsontext import whole
from relay.lane import Order, lane

Row = tuple[Any, ...]

_MOST = (1 << 63) - 1
PER_MS = next(1 << bits for bits in range(63) if moment_ms(1 << bits))  # ids of one millisecond


def first_id(moment: datetime) -> int:
    """The lowest id that a moment can have: what is older lies below it."""
    return min(max(to_ms(moment) * PER_MS, 0), _MOST)


# -- JSON columns ----------------------------------------------------------------------------------------------------


def dump(value: object) -> str:
    """JSON for a column. Header values may hold bytes that are not UTF-8, as lone surrogates."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return json.dumps(value, default=_plain)


def load(text: str) -> Any:
    """What `dump` wrote."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _dump_kept(headers: tuple[tuple[str, str], ...]) -> str:
    """Those headers of a stranger's message that are kept: nearly always all."""
    text = dump(headers)
    return text if len(text) <= MOST_KEPT else dump(kept(headers))


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in load(text))


# -- events ----------------------------------------------------------------------------------------------------------

EVENT_COLUMNS = (
    "id, source, type, event, received_at, occurred_at, environment, branch, locale,"
    " model, stage, action, entry_id, changes, extra, headers, sha256, size, matched"
)
RECEIVED_AT, MATCHED = 4, 18
"""Where `received_at` and `matched` stand in a row of `event`."""


def event_columns(alias: str) -> str:
    """`EVENT_COLUMNS` of a table that goes by another name."""
    return ", ".join(f"{alias}.{column.strip()}" for column in EVENT_COLUMNS.split(","))


def event_row(event: Event, matched: int) -> Row:
    """A row of `event`."""
    what, received = event.description, event.received_ms
    common = what.common
    return (
        event.id,
        event.source,
        event.type,
        what.event,
        to_ms(event.received_at) if received is None else received,
        None if what.occurred_at is None else to_ms(what.occurred_at),
        what.environment,
        what.branch,
        what.locale,
        common.model,
        common.stage,
        common.action,
        common.entry_id,
        None if len(what.changes) == 1 else dump([change.as_json() for change in what.changes]),
        dump(dict(what.extra)) if what.extra else None,
        dump(event.headers),
        event.sha256,
        len(event.body),
        matched,
    )


def to_event(row: Sequence[Any], body: bytes, intact: bool) -> Event:
    """The event of an `EVENT_COLUMNS` row. Its `sha256` is empty when the body is not what was stored."""
    return Event(
        id=EventId(row[0]),
        source=row[1],
        type=row[2],
        received_at=from_ms(row[4]),
        description=Description(
            event=row[3],
            changes=_changes(row),
            occurred_at=None if row[5] is None else from_ms(row[5]),
            environment=row[6],
            branch=row[7],
            locale=row[8],
            extra=load(row[14]) if row[14] else {},
        ),
        headers=_pairs(row[15]),
        body=body,
        sha256=row[16] if intact else b"",
    )


def _changes(row: Sequence[Any]) -> tuple[Change, ...]:
    if row[13] is None:
        return (Change(model=row[9], stage=row[10], action=row[11], entry_id=row[12]),)
    return tuple(Change(**change) for change in load(row[13]))


def to_stored_event(row: Sequence[Any], body: bytes | None, ids: Ids) -> StoredEvent:
    """An `EVENT_COLUMNS` row as it is shown."""
    event = to_event(row, body or b"", True)
    return StoredEvent(event.id, event.as_json(ids.text(EVENT, event.id)), event.headers, body)


# -- deliveries ------------------------------------------------------------------------------------------------------

DELIVERY_COLUMNS = 'id, event_id, route, shape, entry_id, due, first_due, attempts, tries, "trigger", updated_at'


def delivery_row(delivery: Delivery, shape: int, received: int | None = None) -> Row:
    """A row of `delivery` as it is born; `received` is when its event was, or was replayed, where that is known in
    milliseconds."""
    event, due, first_due = delivery.event, delivery.due, delivery.first_due
    if received is None:
        received = to_ms(event.received_at)
    due_ms = received if due is event.received_at else to_ms(due)
    return (
        delivery.id,
        event.id,
        delivery.route,
        shape,
        event.description.common.entry_id,
        due_ms,
        due_ms if first_due is due else to_ms(first_due),
        delivery.attempts,
        delivery.tries,
        delivery.trigger._value_,
        received,  # not what its id says: that never goes back, as the clock may
    )


JOIN_COLUMNS = (
    f'{DELIVERY_COLUMNS}, state, held_reason, held_at, lane, blocked, "window", open, bytes, merged_into,'
    " error_code, error_message"
)


def join_row(
    owed: Owed,
    shape: int,
    event: int,
    state: State,
    blocked: bool,
    size: int,
    into: int | None,
    error: tuple[str, str] | None,
) -> Row:
    """A row of `delivery` as one is born that is not plain, owed for the event of this id."""
    delivery = owed.delivery
    held = state is State.HELD
    carries = owed.window is not None and state in (State.PENDING, State.HELD)
    plain = delivery_row(delivery, shape)
    return (
        plain[0],
        event,
        *plain[2:],
        state.value,
        HeldReason.PAUSED.value if held else None,
        plain[-1] if held else None,
        delivery.lane if state is not State.MERGED else None,
        int(blocked),
        owed.window if carries else None,
        int(carries and owed.grouping is not None and owed.grouping.most > 1),
        size if carries else 0,
        into,
        *(error or (None, None)),
    )


def lane_of(order: Order, row: Sequence[Any]) -> str | None:
    """The lane of the event of an `EVENT_COLUMNS` row."""
    return lane(order, to_event(row, b"", False))


CLAIM_COLUMNS = 'd.id, d.due, d.first_due, d.attempts, d.tries, d."trigger", d.lane, d.open'
CLAIMED = CLAIM_COLUMNS.count(",") + 1


def to_delivery(row: Sequence[Any], route: str, event: Event) -> Delivery:
    """The delivery of a `CLAIM_COLUMNS` row."""
    return Delivery(
        id=DeliveryId(row[0]),
        route=route,
        event=event,
        due=from_ms(row[1]),
        first_due=from_ms(row[2]),
        attempts=row[3],
        tries=row[4],
        trigger=Trigger(row[5]),
        lane=row[6],
        reserved=not row[7],
    )


# -- attempts --------------------------------------------------------------------------------------------------------

ATTEMPT_COLUMNS = (
    'n, "trigger", started_at, duration_ms, method, url, request_headers,'
    " status, response_headers, response_body, truncated, error_code, error_message"
)


def attempt_row(delivery: DeliveryId, attempt: Attempt) -> Row:
    """A row of `attempt`."""
    request, response, error = attempt.request, attempt.response, attempt.error
    return (
        delivery,
        attempt.n,
        attempt.trigger._value_,
        to_ms(attempt.started_at),
        attempt.duration_ms,
        *((None, None, None) if request is None else (request.method, whole(request.url), dump(request.headers))),
        *(
            (None, None, None, None)
            if response is None
            else (response.status, _dump_kept(response.headers), response.body, int(response.truncated))
        ),
        *((None, None) if error is None else (error.code._value_, whole(error.message))),
    )


def to_attempt(row: Sequence[Any]) -> Attempt:
    """The attempt of an `ATTEMPT_COLUMNS` row."""
    return Attempt(
        n=row[0],
        trigger=Trigger(row[1]),
        started_at=from_ms(row[2]),
        duration_ms=row[3],
        request=None if row[4] is None else Request(row[4], row[5], _pairs(row[6])),
        response=None if row[7] is None else Response(row[7], _pairs(row[8]), row[9], bool(row[10])),
        error=_failure(row[11], row[12]),
    )


def _failure(code: str | None, message: str | None) -> Failure | None:
    return None if code is None else Failure(Code(code), message or "")


# -- rejections ------------------------------------------------------------------------------------------------------

REJECTED_COLUMNS = "id, source, at, status, reason, client"
REJECTION_COLUMNS = f"{REJECTED_COLUMNS}, headers"


def rejection_row(rejection: Rejection) -> Row:
    """A row of `rejection`."""
    return (
        rejection.id,
        rejection.source,
        to_ms(rejection.at),
        rejection.status,
        whole(rejection.reason),
        whole(rejection.client),
        dump(rejection.headers),
    )


def to_rejection(row: Sequence[Any]) -> Rejection:
    """The rejection of a `REJECTION_COLUMNS` row."""
    return Rejection(row[0], row[1], from_ms(row[2]), row[3], row[4], row[5], _pairs(row[6]))


# -- log items -------------------------------------------------------------------------------------------------------

ITEM_COLUMNS = (
    "d.id, d.event_id, d.route, d.state, d.attempts, d.code, d.error_code, d.error_message, d.merged_into,"
    " d.updated_at, d.due, d.duration_ms, e.source, e.type, e.event, e.model, e.stage, e.action, e.entry_id,"
    " e.environment, e.branch, e.locale, d.held_reason"
)


def entries(text: str | None) -> tuple[str, ...]:
    """The entries of a JSON array, where there is one."""
    return () if text is None else tuple(load(text))


def to_item(row: Sequence[Any], ids: Ids, entries: tuple[str, ...] = ()) -> LogItem:
    """The log item of a delivery, an `ITEM_COLUMNS` row."""
    return LogItem(
        id=ids.text(DELIVERY, row[0]),
        event_id=ids.text(EVENT, row[1]),
        route=row[2],
        source=row[12],
        type=row[13],
        event=row[14],
        model=row[15],
        stage=row[16],
        action=row[17],
        entry_id=row[18],
        status=row[3],
        attempts=row[4],
        code=row[5],
        error=_failure(row[6], row[7]),
        merged_into=None if row[8] is None else ids.text(DELIVERY, row[8]),
        created_at=from_ms(moment_ms(row[0])),
        updated_at=from_ms(row[9]),
        next_attempt_at=from_ms(row[10]) if row[3] == State.PENDING else None,
        duration_ms=row[11],
        entries=entries,
        environment=row[19],
        branch=row[20],
        locale=row[21],
        held_reason=None if row[22] is None else HeldReason(row[22]),
    )


UNMATCHED_COLUMNS = (
    "e.id, e.source, e.type, e.event, e.model, e.stage, e.action, e.entry_id, e.environment, e.branch, e.locale"
)


def to_unmatched_item(row: Sequence[Any], ids: Ids, entries: tuple[str, ...] = ()) -> LogItem:
    """The log item of an event that matched no route."""
    id_text = ids.text(EVENT, row[0])
    created = from_ms(moment_ms(row[0]))
    return LogItem(
        id=id_text,
        event_id=id_text,
        route=None,
        source=row[1],
        type=row[2],
        event=row[3],
        model=row[4],
        stage=row[5],
        action=row[6],
        entry_id=row[7],
        status="unmatched",
        attempts=0,
        code=None,
        error=None,
        merged_into=None,
        created_at=created,
        updated_at=created,
        next_attempt_at=None,
        duration_ms=None,
        entries=entries,
        environment=row[8],
        branch=row[9],
        locale=row[10],
    )


def to_rejected_item(row: Sequence[Any], ids: Ids) -> LogItem:
    """The log item of a rejected request, a `REJECTED_COLUMNS` row: its code is what the sender was answered."""
    created = from_ms(row[2])
    return LogItem(
        id=ids.text(REJECTION, row[0]),
        event_id=None,
        route=None,
        source=row[1],
        type=None,
        event=None,
        model=None,
        stage=None,
        action=None,
        entry_id=None,
        status="rejected",
        attempts=0,
        code=row[3],
        error=None,
        merged_into=None,
        created_at=created,
        updated_at=created,
        next_attempt_at=None,
        duration_ms=None,
        reason=row[4],
    )
