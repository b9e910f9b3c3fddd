"""The admin side: health, logs, metrics, retry and reload. JSON always; who may call is `relay.web.auth`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import orjson
from aiohttp import web

from relay import journal, metrics
from relay.clock import Clock
from relay.dispatcher import Dispatcher
from relay.effective import effective
from relay.ids import DELIVERY, DeliveryId, UnknownId
from relay.metrics import Metrics
from relay.reload import Reloader
from relay.store import Store, Unavailable, WrongState
from relay.web import logquery, read, shape
from relay.web.auth import Denied, admit
from relay.web.health import Health

_OPEN = ("/health/live", "/health/ready")
_PRIVATE = {"Server": "relay", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
WHO = web.RequestKey("who", str)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """The handlers, with what they need."""

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        reloader: Reloader,
        health: Health,
        clock: Clock,
        registry: Metrics,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._reloader = reloader
        self._health = health
        self._clock = clock
        self._metrics = registry

    def application(self) -> web.Application:
        """The aiohttp application of the admin side."""
        app = web.Application(middlewares=[self._guard], client_max_size=64 << 10)
        app.add_routes(
            [
                web.get("/health", self._get_health),
                web.get("/health/live", self._get_live),
                web.get("/health/ready", self._get_ready),
                web.get("/logs", self._get_logs),
                web.get("/logs/{id}", self._get_log),
                web.post("/logs/{id}/retry", self._post_retry),
                web.get("/config", self._get_config),
                web.post("/reload", self._post_reload),
                web.get("/metrics", self._get_metrics),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Admit or refuse, and turn every refusal into JSON."""
        try:
            if request.path not in _OPEN:
                request[WHO] = admit(request, self._reloader.runtime.gate)
            return await handler(request)
        except Denied as error:
            return answer(error.status, {"error": error.word, "detail": error.detail}, error.headers)
        except logquery.BadFilter as error:
            return answer(400, {"error": "bad_filter", "detail": str(error)})
        except read.NotFound as error:
            return answer(404, {"error": "not_found", "detail": str(error)})
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
        return answer(200, await read.logs(self._store, request.query.items(), self._clock.now()))

    async def _get_log(self, request: web.Request) -> web.Response:
        return answer(200, await read.log(self._store, request.match_info["id"]))

    async def _post_retry(self, request: web.Request) -> web.Response:
        text = request.match_info["id"]
        try:
            number = DeliveryId(self._store.ids.number(text, DELIVERY)[1])
            route = await self._store.retry(number, self._clock.now())
        except (UnknownId, KeyError):
            raise read.NotFound(f"there is no delivery {text}") from None
        journal.manual("retry", request[WHO], delivery_id=text, route=route)
        self._dispatcher.look(route)
        found = await self._store.delivery(number)
        return answer(200, {"delivery": shape.item(found.item) if found is not None else None})

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
        return web.Response(body=self._metrics.exposition(), headers={**_PRIVATE, "Content-Type": metrics.CONTENT_TYPE})


def answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer that nothing may keep or guess at."""
    return web.Response(
        status=status,
        body=orjson.dumps(body),
        headers={**_PRIVATE, "Content-Type": "application/json", **(headers or {})},
    )
