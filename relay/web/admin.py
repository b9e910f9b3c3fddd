"""The admin side: the table of what it answers, and the guard before all of it.

Who may call is `relay.web.auth`. What is answered is in one module for each noun, declared as operations and handled:
relay `itself`, `logs`, `deliveries`, `events`, `routes`, `sources`, `windows`.
"""

from __future__ import annotations

from functools import cached_property

import orjson
from aiohttp import web

from relay import journal
from relay.fields import Rate
from relay.limits import TokenBucket
from relay.store import Unavailable, WrongState
from relay.web import logquery, openapi, read
from relay.web.answer import PRIVATE, WHO, Conflict, answer
from relay.web.auth import SAFE, Denied, admit
from relay.web.dashboard import Dashboard
from relay.web.deliveries import Deliveries
from relay.web.desk import Desk
from relay.web.events import Events
from relay.web.itself import LIVE, PAGE, READY, Itself
from relay.web.logs import Logs
from relay.web.operation import Handler, Table
from relay.web.routes import Routes
from relay.web.sources import Sources
from relay.web.stream import Stream
from relay.web.upkeep import Upkeep
from relay.web.windows import Windows

_STRANGERS = Rate(10, 1)


class Illegible(Exception):
    """The request's address holds what is not text."""


# The stream comes before the logs: /logs/stream is not an id.
_PARTS = (Itself, Stream, Logs, Deliveries, Events, Routes, Sources, Windows, Upkeep)
_OPEN = (LIVE.path, READY.path)


class Admin:
    """The handlers, with what they need."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @cached_property
    def _strangers(self) -> TokenBucket:
        """How many of those who have no token are written down: who tries many must not fill the disk with it."""
        return TokenBucket(_STRANGERS, self._desk.clock.monotonic)

    def application(self) -> web.Application:
        """The aiohttp application of the admin side."""
        dashboard = Dashboard(self._desk)
        around = [dashboard.browsing, self._note_refusals, self._guard]
        app = web.Application(middlewares=around, client_max_size=64 << 10)
        app.add_routes(dashboard.table())
        app.add_routes([operation.route(handler) for operation, handler in self.table()])
        return app

    def table(self) -> Table:
        """All that is answered, with the description of it."""
        table = [row for part in _PARTS for row in part(self._desk).table()]
        described = openapi.document([*(operation for operation, _ in table), PAGE, openapi.READ])

        async def describe(request: web.Request) -> web.Response:
            return answer(200, described)

        return [*table, (openapi.READ, describe)]

    @web.middleware
    async def _note_refusals(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What people did is written down where it is done; here, what they wanted to do and it was not done."""
        response = await handler(request)
        if request.method not in SAFE and response.status >= 400:
            who = request.get(WHO)
            if who is not None or not self._strangers.take():
                journal.manual_refused(request.path, who, response.status, _detail(response))
        return response

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Admit or refuse, and turn every refusal into JSON."""
        try:
            if request.path not in _OPEN:
                request[WHO] = admit(request, self._desk.reloader.runtime.gate)
            _legible(request)
            return await handler(request)
        except Denied as error:
            if error.who is not None:
                request[WHO] = error.who
            return answer(error.status, {"error": error.word, "detail": error.detail}, error.headers)
        except Illegible as error:
            return answer(400, {"error": "malformed_request", "detail": str(error)})
        except logquery.BadFilter as error:
            return answer(400, {"error": "bad_filter", "detail": str(error)})
        except read.NotFound as error:
            return answer(404, {"error": "not_found", "detail": str(error)})
        except Conflict as error:
            return answer(409, {"error": "wrong_state", "detail": str(error)})
        except WrongState as error:
            return answer(409, {"error": "wrong_state", "detail": str(error), "status": error.state})
        except Unavailable as error:
            return answer(503, {"error": "unavailable", "detail": str(error)}, {"Retry-After": "5"})
        except web.HTTPMethodNotAllowed as error:
            if request.method == "OPTIONS":
                return web.Response(status=204, headers={**PRIVATE, "Allow": error.headers["Allow"]})
            detail = f"use {' or '.join(sorted(error.allowed_methods))}"
            return answer(405, {"error": "method_not_allowed", "detail": detail}, {"Allow": error.headers["Allow"]})
        except web.HTTPNotFound:
            return answer(404, {"error": "not_found", "detail": f"there is nothing at {request.path[:200]}"})
        except web.HTTPException as error:
            return answer(error.status, {"error": error.reason.lower().replace(" ", "_"), "detail": error.reason})
        except Exception:  # noqa: BLE001 - a bug of ours: logged with its traceback, told without
            journal.crashed("admin")
            return answer(500, {"error": "internal_error", "detail": "see the log"})


def _legible(request: web.Request) -> None:
    """Refuse addresses with bytes that are no text: they could neither be looked for nor named in an answer."""
    try:
        f"{request.path}?{request.query_string}".encode()
    except UnicodeEncodeError:
        raise Illegible("the address holds bytes that are not UTF-8") from None


def _detail(response: web.StreamResponse) -> str | None:
    """What an answer says of why it is a no."""
    if not isinstance(response, web.Response) or response.content_type != "application/json":
        return None
    said = orjson.loads(response.body) if isinstance(response.body, bytes) else None
    detail = said.get("detail") if isinstance(said, dict) else None
    return detail if isinstance(detail, str) else None
