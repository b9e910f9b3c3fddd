"""The filters of `/logs`, from a URL's query to a LogQuery. Each mistake is named."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from datetime import datetime, timedelta

from relay.clock import parse_rfc3339
from relay.delivery import LogItem, State
from relay.fields import any_of
from relay.ids import DELIVERY, EVENT, REJECTION, EventId, Ids, UnknownId, id_range
from relay.store import LogQuery

LISTS = ("route", "source", "type", "model", "stage", "action", "event", "entry_id")
FILTERS = (*LISTS, "event_id", "status", "code", "since", "until", "q", "limit", "cursor", "order")
STATUSES = (*(state.value for state in State), "unmatched", "rejected")
MOST = 1000

CODE_PATTERN = "^([1-9][xX]{2}|[0-9]{3}-[0-9]{3}|(>=|<=|>|<)?[0-9]{3})$"
_CODE = re.compile("([1-9])xx|([0-9]{3})-([0-9]{3})|(>=|<=|>|<)?([0-9]{3})", re.IGNORECASE)
_CODES = (100, 999)
LONGEST_Q = 200
_AGE = re.compile(r"([0-9]{1,9})(s|m|h|d)")
_LOWER = {ord(letter): ord(letter.lower()) for letter in string.ascii_uppercase}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class BadFilter(ValueError):
    """A filter that cannot be used; the message names it and says what it takes."""


def parse(pairs: Iterable[tuple[str, str]], now: datetime, ids: Ids) -> LogQuery:
    """The query behind `name=value` pairs. Raises BadFilter."""
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in FILTERS:
            raise BadFilter(f"unknown filter '{name}': there are {', '.join(FILTERS)}")
        if name in given:
            raise BadFilter(f"filter '{name}' is given twice: write several values as a list, with commas")
        given[name] = value
    lists = {name: tuple(given[name].split(",")) for name in LISTS if given.get(name)}
    status = tuple(given["status"].split(",")) if given.get("status") else ()
    for word in status:
        if word not in STATUSES:
            raise BadFilter(f"status takes {any_of(STATUSES)}, not '{word}'")
    order = given.get("order", "desc")
    if order not in ("asc", "desc"):
        raise BadFilter(f"order takes asc or desc, not '{order}'")
    return LogQuery(
        **lists,
        event_id=tuple(_event_id(text, ids) for text in given["event_id"].split(",")) if "event_id" in given else (),
        status=status,
        code=tuple(_codes(text) for text in given["code"].split(",")) if given.get("code") else (),
        q=_text(given.get("q")),
        since=_moment("since", given.get("since"), now),
        until=_moment("until", given.get("until"), now),
        limit=_limit(given.get("limit", "100")),
        before=_cursor(given.get("cursor"), ids),
        ascending=order == "asc",
    )


def _event_id(text: str, ids: Ids) -> EventId:
    try:
        return EventId(ids.number(text, EVENT)[1])
    except UnknownId:
        return EventId(0)  # an id that this store never gave out: nothing matches


def wants(query: LogQuery, item: LogItem, ids: Ids) -> bool:
    """Whether a query would find an item, but for where it begins and ends: what the store answers, said of one."""
    if item.status not in query.status and (query.status or item.status in ("unmatched", "rejected")):
        return False
    for name in LISTS:
        values = getattr(query, name)
        about = item.entries if name == "entry_id" else ()
        if values and getattr(item, name) not in values and not set(about) & set(values):
            return False
    if query.event_id and (item.event_id is None or ids.number(item.event_id)[1] not in query.event_id):
        return False
    if query.code and (item.code is None or not any(low <= item.code <= high for low, high in query.code)):
        return False
    moment = item.created_at
    if (query.since is not None and moment < query.since) or (query.until is not None and moment >= query.until):
        return False
    return query.q is None or _finds(query.q, item, ids)


def _finds(q: str, item: LogItem, ids: Ids) -> bool:
    texts = (item.entry_id, item.event, *item.entries)
    if any(text is not None and text.startswith(q) for text in texts):
        return True
    for prefix, text in ((DELIVERY, item.id), (REJECTION, item.id), (EVENT, item.event_id)):
        between = id_range(q, prefix)
        if between and text and text.startswith(prefix) and between[0] <= ids.number(text)[1] <= between[1]:
            return True
    if item.reason is not None:
        return _folded(q) in _folded(item.reason)
    return item.error is not None and (item.error.code == q or _folded(q) in _folded(item.error.message))


def _folded(text: str) -> str:
    """Without regard to the case of ASCII letters alone, as SQLite's LIKE has it."""
    return text.translate(_LOWER)


def _codes(text: str) -> tuple[int, int]:
    """`500`, `5xx`, `200-399`, `>=400`: the lowest and the highest code."""
    least, most = _CODES
    found = _CODE.fullmatch(text)
    if found is None:
        raise BadFilter(f"code takes 500, 5xx, 200-399 or >=400, not '{text[:40]}'")
    family, low, high, sign, code = found.groups()
    if family:
        return int(family) * 100, int(family) * 100 + 99
    if low:
        if int(low) > int(high):
            raise BadFilter(f"code takes a range from the lower to the higher, not '{text}'")
        return int(low), int(high)
    number = int(code)
    match sign:
        case ">=":
            return number, most
        case ">":
            return number + 1, most
        case "<=":
            return least, number
        case "<":
            return least, number - 1
        case _:
            return number, number


def _text(text: str | None) -> str | None:
    if text is None:
        return None
    if len(text) > LONGEST_Q:
        raise BadFilter(f"q takes up to {LONGEST_Q} characters")
    text = text.strip()
    if not text:
        raise BadFilter("q takes the beginning of an id or a name, or a part of an error's text, not spaces alone")
    return text


def _cursor(text: str | None, ids: Ids) -> int | None:
    if text is None:
        return None
    try:
        return ids.number(text)[1]
    except UnknownId:
        raise BadFilter("cursor takes the 'next' of an earlier answer") from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MOST):
        raise BadFilter(f"limit takes a number from 1 to {MOST}, not '{text}'")
    return int(text)


def _moment(name: str, text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    age = _AGE.fullmatch(text)
    if age is not None:
        try:
            return now - timedelta(seconds=int(age[1]) * _UNITS[age[2]])
        except OverflowError:
            raise BadFilter(f"{name} takes an age such as 2h, not '{text}'") from None
    moment = parse_rfc3339(text.replace(" ", "+"))  # a plus sign that was not encoded
    if moment is None:
        raise BadFilter(f"{name} takes a time such as 2026-11-23T20:00:00Z or an age such as 2h, not '{text}'")
    return moment
