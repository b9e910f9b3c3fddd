"""What a request to the admin side may say and what it is answered: declared once, checked before its handler runs,
told by `/openapi.json`. What is told is what is checked."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import field

from aiohttp import web

from relay.fields import any_of
from relay.immutable import immutable
from relay.web.logquery import BadFilter
from relay.web.read import NotFound
from relay.web.schemas import Schema

JSON, TEXT, NDJSON, HTML, EVENTS = (
    "application/json",
    "text/plain",
    "application/x-ndjson",
    "text/html",
    "text/event-stream",
)
GIVEN = web.RequestKey("given", dict[str, str])
"""What a request says in its URL's query, checked; but for the filters of the log."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@immutable
class Parameter:
    """One value in a request's query or path."""

    name: str
    description: str
    schema: Schema
    missing: str | None = None
    """What to say where it is left out; None where it may be."""
    what: str | None = None
    """What a path's value is the id of."""

    def check(self, text: str) -> None:
        """Raises BadFilter for a value that the schema does not have."""
        if not text:
            raise BadFilter(f"'{self.name}' is empty")
        if text not in (words := self.schema.get("enum", (text,))):
            raise BadFilter(f"{self.name} takes {any_of(words)}, not '{text[:40]}'")
        if len(text) > self.schema.get("maxLength", len(text)):
            raise BadFilter(f"'{self.name}' is longer than {self.schema['maxLength']} characters")

    def check_filter(self, text: str) -> None:
        """Raises BadFilter for what says nothing: passed over, it would find more than was meant. All else of the
        filters of the log `logquery` knows."""
        if not text:
            raise BadFilter(f"filter '{self.name}' is empty")
        if "pattern" in self.schema.get("items", ()) and "" in text.split(","):
            raise BadFilter(f"filter '{self.name}' has an empty value in its list")


@immutable
class Answer:
    """One way in which a request may be answered: a schema for each media type."""

    description: str
    content: Mapping[str, Schema]
    headers: Mapping[str, str] = field(default_factory=dict)
    """What its headers mean."""


def gives(description: str, schema: Schema) -> Answer:
    """An answer in JSON."""
    return Answer(description, {JSON: schema})


@immutable
class Operation:
    """One request, and all that it can be answered."""

    method: str
    path: str
    name: str
    """As programs call it; unique."""
    noun: str
    """What it is about."""
    summary: str
    answers: Mapping[int, Answer]
    refusals: tuple[int, ...] = ()
    """Statuses of its own errors, beside those that any request may get."""
    description: str = ""
    names: tuple[Parameter, ...] = ()
    """What its path names."""
    parameters: tuple[Parameter, ...] = ()
    """Of its query."""
    filters: tuple[Parameter, ...] = ()
    """Those of the log, which `logquery` checks: each of its messages knows what there is."""
    refuses: Mapping[str, str] = field(default_factory=dict)
    """Parameters that somebody may expect, and why they are not taken."""
    endless: bool = False
    """Whether the answer goes on for as long as somebody reads it: then there is no HEAD."""
    open: bool = False
    """Whether it is answered without a token, by any name."""

    @property
    def title(self) -> str:
        """`GET /logs`."""
        return f"{self.method} {self.path}"

    def refused_with(self) -> list[int]:
        """The status of each error that it can be answered with."""
        found = {400, 500, *self.refusals}
        if self.names:
            found.add(404)
        if not self.open:
            found |= {401, 403, 421}
        return sorted(found)

    def check(self, query: Iterable[tuple[str, str]], path: Mapping[str, str]) -> dict[str, str]:
        """What a request says in its query. Raises BadFilter for what it does not take, as what was meant to narrow an
        action down must never be passed over; and NotFound where its path names what cannot be."""
        for parameter in self.names:
            text, pattern = path[parameter.name], parameter.schema.get("pattern")
            if pattern is not None and re.search(pattern, text) is None:
                raise NotFound(f"'{text[:100]}' is not the id of {parameter.what}")
        own = {parameter.name: parameter for parameter in self.parameters}
        filters = {parameter.name: parameter for parameter in self.filters}
        given: dict[str, str] = {}
        for name, text in query:
            if name in filters:
                filters[name].check_filter(text)
                continue
            if name not in own:
                raise BadFilter(self._unknown(name, [*filters, *own]))
            if name in given:
                raise BadFilter(f"'{name}' is given twice")
            own[name].check(text)
            given[name] = text
        for parameter in self.parameters:
            if parameter.missing is not None and parameter.name not in given:
                raise BadFilter(parameter.missing)
        return given

    def _unknown(self, name: str, known: list[str]) -> str:
        if name in self.refuses:
            return f"'{name}' {self.refuses[name]}"
        if self.filters:
            return f"unknown filter '{name[:40]}': there are {', '.join(known)}"
        there = f"there is {' and '.join(known)}" if known else "this request takes none"
        return f"unknown parameter '{name[:40]}': {there}"

    def route(self, handler: Handler) -> web.RouteDef:
        """The handler, behind the checks; a GET's answers HEAD too."""

        async def checked(request: web.Request) -> web.StreamResponse:
            request[GIVEN] = self.check(request.query.items(), request.match_info)
            return await handler(request)

        if self.method != "GET":
            return web.route(self.method, self.path, checked)
        return web.get(self.path, checked, allow_head=not self.endless)


Table = list[tuple[Operation, Handler]]
"""What is answered, and by whom."""
