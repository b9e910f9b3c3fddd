"""Ids by their beginning, as far as it means one thing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from relay.cli import term

LEAST = 8
"""Characters after `dlv_`: eight say when it was to the second, which tells most of what one sees at a time apart."""

_KINDS = {"dlv_": "delivery", "evt_": "event", "rej_": "rejected request"}
_WHOSE = {"dlv_": "a delivery's id", "evt_": "an event's", "rej_": "a rejected request's"}
_BEGINNING = re.compile(r"(dlv|evt|rej)_[0-9A-HJKMNP-TV-Z]{0,26}", re.IGNORECASE)
_WHOLE = 30
_SHOWN = 8
_PAGE = "100"
# Under which status `/logs` lists what can have such an id, where the usual ones do not.
_STATUSES = {
    "evt_": "pending,delivered,failed,held,merged,cancelled,unmatched",
    "rej_": "rejected",
}

Logs = Callable[[Mapping[str, str]], Any]
"""Asks `/logs`."""


def checked(texts: Iterable[str], *prefixes: str) -> tuple[str, ...]:
    """The texts, if each can be an id or its beginning: else that is said before anybody is asked."""
    asked = tuple(texts)
    for text in asked:
        _refuse_what_is_none(text, prefixes)
    return asked


def whole(texts: Iterable[str], logs: Logs) -> tuple[str, ...]:
    """The ids that are meant, each once. One that means none or several ends the verb before anything was done."""
    return tuple(dict.fromkeys(text if len(text) == _WHOLE else _the_one(text, logs) for text in texts))


def _refuse_what_is_none(text: str, prefixes: tuple[str, ...]) -> None:
    beginning = text[:4].lower()
    shapes = " or ".join(f"{prefix}…" for prefix in prefixes)
    if _BEGINNING.fullmatch(text) is None:
        term.fail(f"'{text}' is not an id: expected {shapes}, as 'relay logs' lists them", term.USAGE)
    if beginning not in prefixes:
        hint = "'relay show' shows it" if beginning == "rej_" else f"'relay show {text}' lists its deliveries"
        expected = " or ".join(_WHOSE[prefix] for prefix in prefixes)
        term.fail(f"{text} is {_WHOSE[beginning]}, expected {expected}: {hint}", term.USAGE)
    if len(text) < 4 + LEAST:
        expected = f"expected {shapes} and at least {LEAST} more characters, as 'relay logs' lists them"
        term.fail(f"'{text}' is not an id: {expected}", term.USAGE)


def _the_one(text: str, logs: Logs) -> str:
    """The only id that begins so."""
    beginning = text[:4].lower() + text[4:].upper()
    query = {"q": beginning, "limit": _PAGE}
    if beginning[:4] in _STATUSES:
        query["status"] = _STATUSES[beginning[:4]]
    found: dict[str, None] = {}
    while True:  # an event may have more deliveries than there are in a page
        page = logs(query)
        for item in page["items"]:
            for candidate in (item["id"], item["event_id"]):
                if candidate is not None and candidate.startswith(beginning):
                    found[candidate] = None
        if page["next"] is None or len(found) > _SHOWN:
            break
        query["cursor"] = page["next"]
    if len(found) != 1:
        _say_which(text, list(found))
    return next(iter(found))


def _say_which(text: str, found: list[str]) -> NoReturn:
    if not found:
        term.fail(f"there is no {_KINDS[text[:4].lower()]} whose id begins with {text}")
    more = " and more" if len(found) > _SHOWN else ""
    term.fail(f"{text} could be {', '.join(found[:_SHOWN])}{more}: give more of it", term.USAGE)
