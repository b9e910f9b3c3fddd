"""The JSON Schemas of what the admin side answers: `shape` makes it, this tells it, named as `/openapi.json` shows it.

Closed where nothing may be added without a word about it; open where the content is the sender's or the config's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from relay.delivery import Code, State, Trigger
from relay.health import RouteState
from relay.ids import DELIVERY, EVENT, REJECTION
from relay.waiting import Cause
from relay.web import logquery

Schema = Mapping[str, Any]

_ULID = "[0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{26}"


def ref(name: str) -> Schema:
    """One of COMPONENTS, by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def id_pattern(*prefixes: str) -> str:
    """What ids of these kinds look like."""
    return f"^({'|'.join(prefixes)}){_ULID}$"


def closed(properties: Mapping[str, Schema], optional: Iterable[str] = (), description: str | None = None) -> Schema:
    """An object with these properties and no others, all of them there but the optional ones."""
    told = {} if description is None else {"description": description}
    left_out = set(optional)
    return {
        "type": "object",
        **told,
        "properties": dict(properties),
        "required": [name for name in properties if name not in left_out],
        "additionalProperties": False,
    }


def array(items: Schema, **more: Any) -> Schema:
    """A list of these."""
    return {"type": "array", "items": items, **more}


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    if "$ref" in schema:
        return {"oneOf": [schema, {"type": "null"}]}
    found = {**schema, "type": [schema["type"], "null"]}
    return {**found, "enum": [*schema["enum"], None]} if "enum" in schema else found


def told(schema: Schema, description: str) -> Schema:
    """The same, with what it means."""
    return {**schema, "description": description}


TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SWITCH: Schema = {"type": "string", "enum": ["1", "0"]}
"""Of a parameter that is on or off."""
SECONDS: Schema = {"type": "number", "minimum": 0}
MOMENT: Schema = {"type": "string", "format": "date-time"}
SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
HTTP_STATUS: Schema = {"type": "integer", "minimum": 100, "maximum": 999}
DELIVERY_ID: Schema = {"type": "string", "pattern": id_pattern(DELIVERY)}
EVENT_ID: Schema = {"type": "string", "pattern": id_pattern(EVENT)}
REJECTION_ID: Schema = {"type": "string", "pattern": id_pattern(REJECTION)}
LOG_ID: Schema = {"type": "string", "pattern": id_pattern(DELIVERY, EVENT, REJECTION)}


def words(values: Iterable[str]) -> Schema:
    """One of these words."""
    return {"type": "string", "enum": [str(value) for value in values]}


_BY_SENDER = {name: nullable(TEXT) for name in ("model", "stage", "action", "entry_id")}
_BODY = {
    "body": told(nullable(TEXT), "What is text. Null once it was removed."),
    "body_base64": told({"type": "string", "contentEncoding": "base64"}, "What is not text, in base64."),
}
_ONE_BODY = {"oneOf": [{"required": ["body"]}, {"required": ["body_base64"]}]}

_ERROR_WORDS = (
    "bad_filter",
    "malformed_request",
    "unauthenticated",
    "forbidden",
    "not_found",
    "method_not_allowed",
    "wrong_state",
    "misdirected_request",
    "invalid_config",
    "internal_error",
    "unavailable",
)

_ATTEMPT = {
    "n": told({"type": "integer", "minimum": 1}, "Its number; they go on when a delivery is retried by hand."),
    "trigger": words(Trigger),
    "started_at": MOMENT,
    "duration_ms": COUNT,
    "request": nullable(ref("SentRequest")),
    "response": nullable(ref("Response")),
    "error": nullable(ref("Failure")),
}

_EVENT = {
    "event": nullable(ref("Event")),
    "headers": ref("Headers"),
    **_BODY,
}

_ROUTE = {
    "name": TEXT,
    "state": words(RouteState),
    "reason": told(nullable(TEXT), "Why it is not healthy, for people."),
    "since": told(nullable(MOMENT), "Since when it is in this state; null where it never was in another."),
    "pending": COUNT,
    "held": COUNT,
    "consecutive_failures": COUNT,
    "last_success_at": nullable(MOMENT),
    "last_error": nullable(ref("Failure")),
    "next_probe_at": told(nullable(MOMENT), "When an unhealthy route is tried next."),
}

WAITS_FOR = told(
    nullable(ref("Waits")), "What keeps it although it is due, where that is known; null when it may be sent."
)

_CHANGED = closed({name: array(TEXT) for name in ("added", "removed", "changed")})

COMPONENTS: Mapping[str, Schema] = {
    "Error": closed(
        {
            "error": words(_ERROR_WORDS),
            "detail": told(TEXT, "What is wrong and what to do, for people."),
            "status": told(words(State), "wrong_state: the state that the delivery is in."),
            "errors": told(array(TEXT, minItems=1), "invalid_config: every mistake, with its place."),
        },
        optional=("status", "errors"),
    ),
    "Failure": closed(
        {"code": words(Code), "message": TEXT}, description="Why an attempt or a delivery did not succeed."
    ),
    "Waits": closed({"code": words(Cause), "message": TEXT}, description="What a delivery that is due waits for."),
    "Headers": told(
        array(array(TEXT, minItems=2, maxItems=2)), "Pairs of name and value, in their order; what is secret is ***."
    ),
    "LogItem": closed(
        {
            "id": told(LOG_ID, "A delivery's; an event's where status is unmatched; else a rejected request's."),
            "event_id": nullable(EVENT_ID),
            "route": nullable(TEXT),
            "source": TEXT,
            "type": nullable(TEXT),
            "event": told(nullable(TEXT), "The sender's own name for it."),
            **_BY_SENDER,
            "status": words(logquery.STATUSES),
            "attempts": COUNT,
            "code": told(nullable(HTTP_STATUS), "Of the last attempt's answer; of a rejected request, of its own."),
            "error": {
                "oneOf": [
                    ref("Failure"),
                    closed({"code": {"type": "null"}, "message": TEXT}, description="Why a request was rejected."),
                    {"type": "null"},
                ]
            },
            "merged_into": nullable(DELIVERY_ID),
            "created_at": MOMENT,
            "updated_at": MOMENT,
            "next_attempt_at": told(nullable(MOMENT), "When it is due, while it is pending."),
            "duration_ms": told(nullable(COUNT), "Of the last attempt."),
        }
    ),
    "LogPage": closed(
        {
            "items": array(ref("LogItem")),
            "next": told(nullable(LOG_ID), "The cursor of the next page; null at the end."),
        }
    ),
    "Change": closed(_BY_SENDER, description="One thing that an event says happened."),
    "Event": closed(
        {
            "id": EVENT_ID,
            "source": TEXT,
            "type": TEXT,
            "event": nullable(TEXT),
            "received_at": MOMENT,
            "occurred_at": nullable(MOMENT),
            "environment": nullable(TEXT),
            "branch": nullable(TEXT),
            "locale": nullable(TEXT),
            **_BY_SENDER,
            "changes": array(ref("Change"), minItems=1),
            "extra": told({"type": "object"}, "What only this sender says."),
        }
    ),
    "SentRequest": closed({"method": TEXT, "url": TEXT, "headers": ref("Headers")}),
    "Response": {
        **closed(
            {
                "status": HTTP_STATUS,
                "headers": ref("Headers"),
                "body": TEXT,
                "body_base64": _BODY["body_base64"],
                "truncated": told(FLAG, "Whether there was more than was kept."),
            },
            optional=_BODY,
        ),
        **_ONE_BODY,
    },
    "Attempt": closed(_ATTEMPT),
    "TriedDelivery": closed({"delivery": ref("LogItem"), "attempts": array(ref("Attempt"))}),
    "Delivery": {
        **closed(
            {
                "delivery": ref("LogItem"),
                "attempts": array(ref("Attempt")),
                **_EVENT,
                "merged": told(array(EVENT_ID), "The events of the deliveries that are merged into it."),
                "waits_for": WAITS_FOR,
            },
            optional=_BODY,
            description="Everything about a delivery. A window's event, headers and body are its carrier's.",
        ),
        **_ONE_BODY,
    },
    "StoredEvent": {
        **closed(
            {**_EVENT, "event": ref("Event"), "deliveries": array(ref("TriedDelivery"))},
            optional=_BODY,
            description="Everything about an event.",
        ),
        **_ONE_BODY,
    },
    "Rejection": closed(
        {
            "rejection": closed(
                {
                    "id": REJECTION_ID,
                    "source": TEXT,
                    "status": words(["rejected"]),
                    "code": told(HTTP_STATUS, "What the sender was answered."),
                    "reason": TEXT,
                    "client": told(TEXT, "The sender's address."),
                    "created_at": MOMENT,
                }
            ),
            "headers": ref("Headers"),
        },
        description="A request that was refused. Its body was not kept.",
    ),
    "Route": closed(_ROUTE, description="How a route is doing."),
    "RemovedRoute": closed({"name": TEXT, "held": COUNT}, description="Not in the config, and something is held."),
    "PausedRoute": closed({"route": ref("Route"), "changed": FLAG}),
    "ResumedRoute": closed({"route": ref("Route"), "changed": FLAG, "released": COUNT}),
    "Trial": closed({name: _ATTEMPT[name] for name in ("request", "response", "error", "duration_ms")}),
    "Source": closed(
        {
            "name": TEXT,
            "type": TEXT,
            "path": TEXT,
            "verify": told(array(TEXT), "The proofs that it wants."),
            "last_event_at": nullable(MOMENT),
            "silent_since": nullable(MOMENT),
            "accepted": told(COUNT, "Events, since relay was started."),
            "duplicate": told(COUNT, "Requests that repeated one, since then."),
            "ignored": told(COUNT, "Events that the source's config leaves out, since then."),
            "rejected": told(
                {"type": "object", "additionalProperties": COUNT}, "How many by reason, since relay was started."
            ),
            "secrets": array(closed({"proof": TEXT, "last_used_at": nullable(MOMENT)})),
        }
    ),
    "Window": closed(
        {
            "id": told(DELIVERY_ID, "Of its carrier, the delivery that is sent for all."),
            "route": TEXT,
            "opened_at": MOMENT,
            "due_at": MOMENT,
            "held": FLAG,
            "events": array(EVENT_ID, minItems=1),
        }
    ),
    "Health": closed(
        {
            "status": words(("ok", "degraded", "failing")),
            "version": TEXT,
            "uptime_s": SECONDS,
            "pid": {"type": "integer", "minimum": 1},
            "config": closed(
                {
                    "path": TEXT,
                    "generation": {"type": "integer", "minimum": 1},
                    "sha256": SHA256,
                    "loaded_at": MOMENT,
                    "last_reload": closed({"ok": FLAG, "at": MOMENT, "error": nullable(TEXT)}),
                    "pending_restart": array(TEXT),
                }
            ),
            "store": closed(
                {
                    "ok": FLAG,
                    "backend": nullable(TEXT),
                    "version": nullable(TEXT),
                    "pending": COUNT,
                    "held": COUNT,
                    "oldest_pending_s": nullable(SECONDS),
                    "size_bytes": nullable(COUNT),
                    "free_bytes": nullable(COUNT),
                }
            ),
            "relays": told(
                array(
                    closed({"name": TEXT, "version": TEXT, "started_at": MOMENT, "me": FLAG, "stale_results": COUNT})
                ),
                "All that share the store, where it can be shared.",
            ),
            "routes": array(ref("Route")),
            "checks": told(
                {"type": "object", "additionalProperties": TEXT}, "By name: ok, or what is wrong, for people."
            ),
        },
        optional=("relays",),
    ),
    "Pruned": closed({"events": COUNT, "deliveries": COUNT, "bodies": told(COUNT, "Of events that stay.")}),
    "Liveness": closed({"status": words(("ok", "failing"))}),
    "Config": closed(
        {
            "generation": {"type": "integer", "minimum": 1},
            "sha256": SHA256,
            "config": told({"type": "object"}, "Defaults filled in, presets written out, secrets as ***."),
        }
    ),
    "Reloaded": closed(
        {
            "generation": {"type": "integer", "minimum": 1},
            "changes": told(
                closed(
                    {**dict.fromkeys(("routes", "sources", "notifiers"), _CHANGED), "other": array(TEXT)},
                    optional=("routes", "sources", "notifiers", "other"),
                ),
                "What is new, by name.",
            ),
            "pending_restart": told(array(TEXT), "Keys that take effect at the next start only."),
            "warnings": array(TEXT),
        }
    ),
}
