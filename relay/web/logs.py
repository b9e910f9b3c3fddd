"""Reading the log: a page of it, or everything about one thing; as JSON, or in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from relay import logtext
from relay.ids import DELIVERY, EVENT, REJECTION
from relay.logline import as_json
from relay.web import read, schemas
from relay.web.answer import answer, plain
from relay.web.desk import Desk
from relay.web.filters import filters
from relay.web.operation import GIVEN, JSON, NDJSON, TEXT, Answer, Operation, Parameter, Table

_NEXT = "X-Next-Cursor"
_PLAIN = f"{TEXT}; charset=utf-8"
_LINES: schemas.Schema = {"type": "string"}

LIST = Operation(
    "GET",
    "/logs",
    "listLogs",
    "logs",
    "Deliveries, newest first; also events that no route wanted and requests that were refused.",
    {
        200: Answer(
            "A page. As `text` a table, a line for each item; as `ndjson` an item in JSON on each line.",
            {JSON: schemas.ref("LogPage"), TEXT: _LINES, NDJSON: _LINES},
            {_NEXT: "With `text` and `ndjson`, the cursor of the next page; absent at the end."},
        )
    },
    (503,),
    "Pages stay right while new deliveries arrive. Several values of a filter are a list with commas: any of them.",
    parameters=(
        Parameter("format", "How it is written.", {**schemas.words(("json", "text", "ndjson")), "default": "json"}),
    ),
    filters=filters(),
)
SHOW = Operation(
    "GET",
    "/logs/{id}",
    "showLog",
    "logs",
    "Everything about a delivery, an event or a refused request.",
    {
        200: Answer(
            "All that is kept of it.",
            {
                JSON: {"oneOf": [schemas.ref(name) for name in ("Delivery", "StoredEvent", "Rejection")]},
                TEXT: _LINES,
            },
        )
    },
    (503,),
    names=(
        Parameter(
            "id",
            "The id of a delivery (`dlv_…`), an event (`evt_…`) or a refused request (`rej_…`).",
            schemas.LOG_ID,
            what=f"a delivery ({DELIVERY}…), an event ({EVENT}…) or a refused request ({REJECTION}…)",
        ),
    ),
    parameters=(Parameter("format", "How it is written.", {**schemas.words(("json", "text")), "default": "json"}),),
)


class Logs:
    """The handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def table(self) -> Table:
        """What is answered here."""
        return [(LIST, self._list), (SHOW, self._show)]

    async def _list(self, request: web.Request) -> web.Response:
        given = request[GIVEN]
        asked = [(name, value) for name, value in request.query.items() if name not in given]
        page = await read.logs(self._desk.store, asked, self._desk.clock.now())
        headers: Mapping[str, str] = {_NEXT: page["next"]} if page["next"] is not None else {}
        items: list[dict[str, Any]] = page["items"]
        match given.get("format"):
            case "text":
                return plain(_PLAIN, logtext.table(items) + "\n", headers)
            case "ndjson":
                return plain(NDJSON, b"".join(as_json(item) + b"\n" for item in items), headers)
            case _:
                return answer(200, page)

    async def _show(self, request: web.Request) -> web.Response:
        desk = self._desk
        redact = desk.reloader.runtime.redact
        found = await read.log(desk.store, request.match_info["id"], redact, desk.clock.now(), desk.waits_here)
        if request[GIVEN].get("format") == "text":
            return plain(_PLAIN, logtext.page(found) + "\n")
        return answer(200, found)
