"""The filters of the log as descriptions tell them: one row for each that `logquery` takes."""

from __future__ import annotations

from collections.abc import Iterable

from relay.ids import DELIVERY, EVENT, REJECTION
from relay.web import logquery
from relay.web.operation import Parameter
from relay.web.schemas import Schema, array, id_pattern, words

PAGING = ("limit", "cursor", "order")
"""Filters of a list that say nothing of what is to be found."""

_TEXTS: Schema = array({"type": "string", "pattern": "^[^,]+$"}, minItems=1)
_TIME: Schema = {"type": "string", "minLength": 1, "examples": ["2h", "2026-11-23T20:00:00Z"]}
_ROWS: tuple[tuple[str, str, Schema], ...] = (
    ("route", "Of these routes.", _TEXTS),
    ("source", "Of these sources.", _TEXTS),
    ("type", "Of sources of these types.", _TEXTS),
    ("model", "Of these models, as the event says.", _TEXTS),
    ("stage", "Of these stages.", _TEXTS),
    ("action", "Of these actions.", _TEXTS),
    ("event", "Of these events, as their senders name them.", _TEXTS),
    ("entry_id", "Of these entries.", _TEXTS),
    ("event_id", f"Of these events, by their ids ({EVENT}…); what is no id finds nothing.", _TEXTS),
    (
        "status",
        "In these states. `unmatched` (events that no route wanted) and `rejected` (requests that were refused) are "
        "found only when they are named.",
        array(words(logquery.STATUSES), minItems=1),
    ),
    (
        "code",
        "The HTTP status of the last attempt, or of a rejected request's answer: `500`, `5xx`, `200-399`, `>=400`.",
        array({"type": "string", "pattern": logquery.CODE_PATTERN}, minItems=1),
    ),
    ("since", "Not older: a time with its zone (ISO 8601), or an age such as `30s`, `10m`, `2h`, `7d`.", _TIME),
    ("until", "Older: a time, or an age.", _TIME),
    (
        "q",
        "How an id, an `entry_id` or an `event` begins, or a part of an error's text.",
        {"type": "string", "pattern": r"\S", "minLength": 1, "maxLength": logquery.LONGEST_Q},
    ),
    ("limit", "At most so many.", {"type": "integer", "minimum": 1, "maximum": logquery.MOST, "default": 100}),
    (
        "cursor",
        "Goes on from there: the `next` of the page before.",
        {"type": "string", "pattern": id_pattern(DELIVERY, EVENT, REJECTION)},
    ),
    ("order", "Newest first, or oldest first.", {**words(("desc", "asc")), "default": "desc"}),
)
KNOWN = {name: Parameter(name, description, schema) for name, description, schema in _ROWS}


def filters(leave_out: Iterable[str] = ()) -> tuple[Parameter, ...]:
    """Those that `logquery` takes, in its order, but for some."""
    return tuple(KNOWN[name] for name in logquery.FILTERS if name not in leave_out)
