"""The admin side: the table of what it answers, and the guard before all of it. JSON always.

Who may call is `relay.web.auth`. What people do by hand is in one module for each noun: `deliveries`, `events`,
`routes`, `windows`, and `sources`, which are only looked at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from relay import journal, metrics
from relay.effective import effective
from relay.fields import Rate
from relay.limits import TokenBucket
from relay.store import Unavailable, WrongState
from relay.web import logquery, read
from relay.web.answer import PRIVATE, WHO, Conflict, answer
from relay.web.auth import SAFE, Denied, admit
from relay.web.deliveries import Deliveries
from relay.web.desk import Desk
from relay.web.events import Events
from relay.web.routes import Routes
from relay.web.sources import Sources
from relay.web.windows import Windows

_STRANGERS = Rate(10, 1)
_OPEN = ("/health/live", "/health/ready")

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """The handlers, with what they need."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._store = desk.store
        self._reloader = desk.reloader
        self._health = desk.health
        self._strangers = TokenBucket(_STRANGERS, desk.clock.monotonic)
        """How many of those who have no token are written down: who tries many must not fill the disk with it."""

    def application(self) -> web.Application:
        """The aiohttp application of the admin side."""
        app = web.Application(middlewares=[self._note_refusals, self._guard], client_max_size=64 << 10)
        app.add_routes(
            [
                web.get("/health", self._get_health),
                web.get("/health/live", self._get_live),
                web.get("/health/ready", self._get_ready),
                web.get("/logs", self._get_logs),
                web.get("/logs/{id}", self._get_log),
                web.get("/config", self._get_config),
                web.post("/reload", self._post_reload),
                web.get("/metrics", self._get_metrics),
            ]
        )
        for part in (Deliveries, Events, Routes, Sources, Windows):
            app.add_routes(part(self._desk).table())
        return app

    @web.middleware
    async def _note_refusals(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """What people did is written down where it is done; here, what they wanted to do and it was not done."""
        response = await handler(request)
        if request.method not in SAFE and response.status >= 400:
            who = request.get(WHO)
            if who is not None or not self._strangers.take():
                journal.manual_refused(request.path, who, response.status, _detail(response))
        return response

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Admit or refuse, and turn every refusal into JSON."""
        try:
            if request.path not in _OPEN:
                request[WHO] = admit(request, self._reloader.runtime.gate)
            return await handler(request)
        except Denied as error:
            if error.who is not None:
                request[WHO] = error.who
            return answer(error.status, {"error": error.word, "detail": error.detail}, error.headers)
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
            detail = f"use {' or '.join(sorted(error.allowed_methods))}"
            return answer(405, {"error": "method_not_allowed", "detail": detail}, {"Allow": error.headers["Allow"]})
        except web.HTTPNotFound:
            return answer(404, {"error": "not_found", "detail": f"there is nothing at {request.path[:200]}"})
        except web.HTTPException as error:
            return answer(error.status, {"error": error.reason.lower().replace(" ", "_"), "detail": error.reason})
        except Exception:  # noqa: BLE001 - a bug of ours: logged with its traceback, told without
            journal.crashed("admin")
            return answer(500, {"error": "internal_error", "detail": "see the log"})

    async def _get_health(self, request: web.Request) -> web.Response:
        report = await self._health.report()
        return answer(503 if report["status"] == "failing" else 200, report)

    async def _get_live(self, request: web.Request) -> web.Response:
        return answer(200, {"status": "ok"})

    async def _get_ready(self, request: web.Request) -> web.Response:
        ready = self._health.ready
        return answer(200 if ready else 503, {"status": "ok" if ready else "failing"})

    async def _get_logs(self, request: web.Request) -> web.Response:
        return answer(200, await read.logs(self._store, request.query.items(), self._desk.clock.now()))

    async def _get_log(self, request: web.Request) -> web.Response:
        return answer(200, await read.log(self._store, request.match_info["id"]))

    async def _get_config(self, request: web.Request) -> web.Response:
        runtime = self._reloader.runtime
        shown = {"generation": runtime.generation, "sha256": runtime.sha256, "config": effective(runtime.config)}
        return answer(200, shown)

    async def _post_reload(self, request: web.Request) -> web.Response:
        journal.manual("reload", request[WHO])
        taken = await self._reloader.reload()
        if taken.problems:
            problems = [str(problem) for problem in taken.problems]
            return answer(422, {"error": "invalid_config", "detail": problems[0], "errors": problems})
        return answer(
            200,
            {
                "generation": taken.generation,
                "changes": taken.changes,
                "pending_restart": list(taken.pending_restart),
                "warnings": list(taken.warnings),
            },
        )

    async def _get_metrics(self, request: web.Request) -> web.Response:
        await self._health.refresh()
        return web.Response(
            body=self._desk.metrics.exposition(), headers={**PRIVATE, "Content-Type": metrics.CONTENT_TYPE}
        )


def _detail(response: web.StreamResponse) -> str | None:
    """What an answer says of why it is a no."""
    if not isinstance(response, web.Response) or response.content_type != "application/json":
        return None
    said = orjson.loads(response.body) if isinstance(response.body, bytes) else None
    detail = said.get("detail") if isinstance(said, dict) else None
    return detail if isinstance(detail, str) else None
