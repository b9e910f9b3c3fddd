"""The log with all its filters in a URL that can be shared; trying again what it found; the search in every header."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from relay.clock import from_ms, parse_rfc3339
from relay.delivery import LogItem, State
from relay.ids import UnknownId
from relay.immutable import immutable
from relay.store import LogQuery
from relay.web import logquery
from relay.web.dashboard.navigation import TOLD, by_a_person
from relay.web.dashboard.page import HEADERS, Visit
from relay.web.dashboard.receipt import held_by

_PAGE = 50
_MOST = 200
_PAGING = ("limit", "cursor", "order")
_ALL = ",".join(logquery.STATUSES)
"""Whoever names no status wants to see also what did not become a delivery."""
_LABELS = {"q": "search", "event_id": "event id", "entry_id": "entry", "code": "answer"}
_HINTS = {
    "q": "id, entry, event or error text",
    "since": "2h, or a time (UTC)",
    "until": "15m, or a time (UTC)",
    "code": "500, 5xx, 200-399",
    "entry_id": "exactly",
    "event_id": "evt_…",
    "model": "article, page",
    "action": "publish, delete",
    "stage": "published",
    "event": "entry.publish",
}
_TYPED = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?))?")
"""A day, or a time that says no zone."""
_MAIN = ("q", "route", "source", "entry_id", "since")


@immutable
class Field:
    """An input of the form."""

    name: str
    label: str
    value: str
    hint: str
    options: tuple[str, ...]
    error: str = ""
    """What is wrong with its value."""


async def page(visit: Visit) -> web.Response:
    """`/ui/logs`. A filter that cannot be used is said beside its field, with all that was typed still there."""
    given = given_filters(visit.request)
    try:
        query = query_of(visit, {"limit": str(_PAGE), "status": _ALL, **given}.items())
    except logquery.BadFilter as error:
        if not by_a_person(visit.request):
            raise
        return _form(visit, given, error=str(error))
    query = replace(query, limit=min(query.limit, _MOST))
    found = await visit.desk.store.search(query)
    following = {**given, "cursor": found.items[-1].id} if found.next is not None else None
    newest = "cursor" not in given and given.get("order", "desc") == "desc" and "until" not in given
    statuses = set(given["status"].split(",")) if "status" in given else set()
    retried = {name: value for name, value in given.items() if name not in (*_PAGING, "status")}
    selecting = {name: value for name, value in {"status": _ALL, **given}.items() if name not in _PAGING}
    return _form(
        visit,
        given,
        items=found.items,
        limit=query.limit,
        next=f"/ui/logs?{urlencode(following)}" if following is not None else None,
        first=f"/ui/logs?{urlencode({k: v for k, v in given.items() if k != 'cursor'})}" if "cursor" in given else None,
        retry=f"/ui/retry?{urlencode(retried)}" if not statuses or State.FAILED in statuses else None,
        stream=f"/logs/stream?{urlencode(spelt(selecting))}" if newest else None,
    )


def _form(visit: Visit, given: dict[str, str], error: str = "", **found: Any) -> web.Response:
    """The form with what was typed, and what it found; or, in its place, the error."""
    about = error.partition(" ")[0]
    fields = [
        _field(visit, name, given, error if name == about else "")
        for name in logquery.FILTERS
        if name not in (*_PAGING, "status")
    ]
    nothing = {"items": [], "limit": _PAGE, "next": None, "first": None, "retry": None, "stream": None}
    return visit.respond(
        "logs.html",
        400 if error else 200,
        statuses=logquery.STATUSES,
        chosen=set(given.get("status", "").split(",")),
        main=sorted((field for field in fields if field.name in _MAIN), key=lambda field: _MAIN.index(field.name)),
        more=[field for field in fields if field.name not in _MAIN],
        more_given=any(field.value for field in fields if field.name not in _MAIN),
        given=given,
        order=given.get("order", "desc"),
        most=_MOST,
        blank=_BLANK,
        error=error,
        error_beside=any(field.error for field in fields),
        **{**nothing, **found},
    )


async def retry(visit: Visit) -> web.Response:
    """`/ui/retry`: how many would be tried again, before they are."""
    given = {name: value for name, value in given_filters(visit.request).items() if name not in _PAGING}
    given.pop("status", None)
    query = query_of(visit, given.items())
    # Looked for as a page of the log is: a count of millions would have the writer work for whoever opens this.
    query = replace(query, status=(State.FAILED.value,), limit=logquery.MOST, before=None)
    found = await visit.desk.store.search(query)
    routes = Counter(item.route or "" for item in found.items)
    kept = [name for name in routes if visit.desk.holds(name)]
    return visit.respond(
        "retry.html",
        count=len(found.items),
        held=sum(routes[name] for name in kept),
        held_words=held_by(visit.desk.kept(name) for name in kept),
        more=found.next is not None,
        given=given,
        action=f"/logs/retry?{urlencode(spelt(given) or {'all': '1'})}",
        log=f"/ui/logs?{urlencode({**given, 'status': State.FAILED.value})}",
    )


async def find(visit: Visit) -> web.StreamResponse:
    """`/ui/find?text=`: the page of an id, of an entry, or the log of what is like it."""
    text = visit.request.query.get("text", "").strip().rstrip("…")  # of an id as pages show it
    store = visit.desk.store
    if not text:
        return _elsewhere("/ui/logs")
    try:
        prefix, number = store.ids.number(text)
        return _elsewhere(f"/ui/logs/{store.ids.text(prefix, number)}")
    except UnknownId:
        pass
    states = tuple(logquery.STATUSES)
    known = await store.search(LogQuery(entry_id=(text,), status=states, limit=1))
    if known.items or "q" not in logquery.FILTERS:
        return _elsewhere(f"/ui/entries?{urlencode({'entry_id': text}, errors='replace')}")
    return _elsewhere(f"/ui/logs?{urlencode({'q': text}, errors='replace')}")


def given_filters(request: web.Request) -> dict[str, str]:
    """The filters of a page's URL: fields that were left empty say nothing, and several boxes make one list."""
    found: dict[str, str] = {}
    for name, value in request.query.items():
        if name != TOLD and value.strip():
            found[name] = f"{found[name]},{value.strip()}" if name in found else value.strip()
    return found


def query_of(visit: Visit, pairs: Iterable[tuple[str, str]]) -> LogQuery:
    """The query of filters. Raises BadFilter."""
    return logquery.parse(spelt(dict(pairs)).items(), visit.now, visit.desk.store.ids)


def spelt(given: Mapping[str, str]) -> dict[str, str]:
    """Filters as requests take them: forms also take a day, or a time without a zone, which is UTC here."""
    found = dict(given)
    for name in ("since", "until"):
        typed = _TYPED.fullmatch(found.get(name, ""))
        if typed is not None:
            meant = f"{typed[1]}T{typed[2] or '00:00'}Z"
            found[name] = meant if parse_rfc3339(meant) is not None else found[name]
    return found


def _field(visit: Visit, name: str, given: Mapping[str, str], error: str) -> Field:
    runtime = visit.desk.reloader.runtime
    options: dict[str, tuple[str, ...]] = {
        "route": tuple(runtime.routing.routes),
        "source": tuple(runtime.sources),
        "type": tuple(dict.fromkeys(source.type for source in runtime.sources.values())),
        "action": ("create", "update", "publish", "unpublish", "delete"),
        "since": ("15m", "1h", "6h", "1d", "7d"),
        "until": ("15m", "1h", "6h", "1d", "7d"),
        "code": ("2xx", "3xx", "4xx", "5xx"),
    }
    label, hint = _LABELS.get(name, name), _HINTS.get(name, "")
    return Field(name, label, given.get(name, ""), hint, options.get(name, ()), error)


def _elsewhere(path: str) -> web.Response:
    return web.Response(status=303, headers={**HEADERS, "Location": path})


_BLANK = LogItem(
    id="", event_id=None, route=None, source="", type=None, event=None, model=None, stage=None, action=None,
    entry_id=None, status="pending", attempts=0, code=None, error=None, merged_into=None, created_at=from_ms(0),
    updated_at=from_ms(0), next_attempt_at=None, duration_ms=None,
)  # fmt: skip
"""The row that a browser fills with what the stream tells it."""
