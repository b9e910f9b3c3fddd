"""The JSON of the admin side: log items, deliveries, attempts, events, as the contract names their fields."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from relay.clock import rfc3339
from relay.delivery import Attempt, Failure, LogItem, Rejection, Response, StoredEvent
from relay.ids import REJECTION, Ids
from relay.masking import is_proof
from relay.secret import MASK, Redactor
from relay.store import DeliveryDetail
from relay.waiting import Waits


def when(moment: datetime | None) -> str | None:
    """RFC 3339, or null."""
    return None if moment is None else rfc3339(moment)


def failure(error: Failure | None) -> dict[str, str] | None:
    """`{"code", "message"}`, or null."""
    return None if error is None else {"code": error.code, "message": error.message}


def waits(found: Waits | None) -> dict[str, str] | None:
    """`{"code", "message"}`, or null."""
    return None if found is None else {"code": found.code, "message": found.message}


def item(row: LogItem) -> dict[str, Any]:
    """A row of `/logs`."""
    return {
        "id": row.id,
        "event_id": row.event_id,
        "route": row.route,
        "source": row.source,
        "type": row.type,
        "event": row.event,
        "model": row.model,
        "stage": row.stage,
        "action": row.action,
        "entry_id": row.entry_id,
        "status": row.status,
        "attempts": row.attempts,
        "code": row.code,
        "error": failure(row.error) if row.reason is None else {"code": None, "message": row.reason},
        "merged_into": row.merged_into,
        "created_at": when(row.created_at),
        "updated_at": when(row.updated_at),
        "next_attempt_at": when(row.next_attempt_at),
        "duration_ms": row.duration_ms,
    }


def attempt(made: Attempt) -> dict[str, Any]:
    """One attempt with what was sent and what came back."""
    request = made.request
    return {
        "n": made.n,
        "trigger": made.trigger,
        "started_at": when(made.started_at),
        "duration_ms": made.duration_ms,
        "request": None
        if request is None
        else {"method": request.method, "url": request.url, "headers": pairs(request.headers)},
        "response": None if made.response is None else _response(made.response),
        "error": failure(made.error),
    }


def _response(response: Response) -> dict[str, Any]:
    return {
        "status": response.status,
        "headers": pairs(response.headers),
        **text("body", _whole_characters(response.body) if response.truncated else response.body),
        "truncated": response.truncated,
    }


def _whole_characters(body: bytes) -> bytes:
    """A body that was cut off, without the character that the cut went through; as it is where that is not why it is
    no text."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return body[: error.start]
    return body


def detail(delivery: DeliveryDetail) -> dict[str, Any]:
    """A delivery with its attempts."""
    return {"delivery": item(delivery.item), "attempts": [attempt(made) for made in delivery.attempts]}


def event(stored: StoredEvent) -> dict[str, Any]:
    """An event's description, headers and body; text as `body`, other bytes as `body_base64`."""
    body = {"body": None} if stored.body is None else text("body", stored.body)
    return {"event": stored.description, "headers": pairs(stored.headers), **body}


def rejection(refused: Rejection, ids: Ids) -> dict[str, Any]:
    """A rejected request: why, from where, and its masked headers. Its body was not kept."""
    return {
        "rejection": {
            "id": ids.text(REJECTION, refused.id),
            "source": refused.source,
            "status": "rejected",
            "code": refused.status,
            "reason": refused.reason,
            "client": refused.client,
            "created_at": when(refused.at),
        },
        "headers": pairs(refused.headers),
    }


def pairs(headers: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Headers as anyone may see them: what proves something shows as `***`."""
    """As anyone may see them: also those of a sender whose proofs its source does not know are stored, not shown."""
    return [[name, MASK if is_proof(name) else value] for name, value in headers]


def text(key: str, body: bytes) -> dict[str, str]:
    """`{key: text}`, or `{key_base64: …}` for what is not UTF-8."""
    try:
        return {key: body.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{key}_base64": base64.b64encode(body).decode()}


def masked(found: dict[str, Any], redact: Redactor) -> dict[str, Any]:
    """Everything about one thing, without the config's secrets: somebody else's webhook may have been pointed here with
    one of them in it."""
    headers = [[name, redact(value)] for name, value in found.get("headers", ())]
    body = found.get("body")
    if isinstance(body, str) and redact.finds_raw(body):
        found = {**found, "body": redact(body)}
    return {**found, "headers": headers}
