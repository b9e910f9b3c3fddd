"""relay itself: its health, its config, its metrics."""

from __future__ import annotations

from aiohttp import web

from relay import journal, metrics
from relay.effective import effective
from relay.web.answer import WHO, answer, plain
from relay.web.desk import Desk
from relay.web.operation import HTML, TEXT, Answer, Operation, Table, gives
from relay.web.schemas import ref

HEALTH = Operation(
    "GET",
    "/health",
    "health",
    "relay",
    "How relay is doing, and each route.",
    {
        200: gives("`ok`, or `degraded`: it works, and somebody should look.", ref("Health")),
        503: gives("`failing`: `checks` says why.", ref("Health")),
    },
)
LIVE = Operation(
    "GET",
    "/health/live",
    "live",
    "relay",
    "Whether the process answers.",
    {200: gives("It does.", ref("Liveness"))},
    open=True,
)
READY = Operation(
    "GET",
    "/health/ready",
    "ready",
    "relay",
    "Whether relay takes events.",
    {200: gives("It does.", ref("Liveness")), 503: gives("Not yet, or no more.", ref("Liveness"))},
    open=True,
)
CONFIG = Operation(
    "GET",
    "/config",
    "config",
    "relay",
    "The config that runs, without its secrets.",
    {200: gives("The config.", ref("Config"))},
)
RELOAD = Operation(
    "POST",
    "/reload",
    "reload",
    "relay",
    "Takes the config file as it is now, wholly or not at all; the same as SIGHUP.",
    {200: gives("What changed.", ref("Reloaded"))},
    (422,),
)
METRICS = Operation(
    "GET",
    "/metrics",
    "metrics",
    "relay",
    "What Prometheus scrapes.",
    {200: Answer("Prometheus' text format.", {TEXT: {"type": "string"}})},
)
PAGE = Operation(
    "GET",
    "/",
    "dashboard",
    "relay",
    "The dashboard, for people.",
    {200: Answer("A page.", {HTML: {"type": "string"}})},
    (503,),
)


class Itself:
    """The handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def table(self) -> Table:
        """What is answered here."""
        return [
            (HEALTH, self._health),
            (LIVE, self._live),
            (READY, self._ready),
            (CONFIG, self._config),
            (RELOAD, self._reload),
            (METRICS, self._metrics),
        ]

    async def _health(self, request: web.Request) -> web.Response:
        report = await self._desk.health.report()
        return answer(503 if report["status"] == "failing" else 200, report)

    async def _live(self, request: web.Request) -> web.Response:
        return answer(200, {"status": "ok"})

    async def _ready(self, request: web.Request) -> web.Response:
        ready = self._desk.health.ready
        return answer(200 if ready else 503, {"status": "ok" if ready else "failing"})

    async def _config(self, request: web.Request) -> web.Response:
        runtime = self._desk.reloader.runtime
        shown = {"generation": runtime.generation, "sha256": runtime.sha256, "config": effective(runtime.config)}
        return answer(200, shown)

    async def _reload(self, request: web.Request) -> web.Response:
        journal.manual("reload", request[WHO])
        taken = await self._desk.reloader.reload()
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

    async def _metrics(self, request: web.Request) -> web.Response:
        await self._desk.health.refresh()
        return plain(metrics.CONTENT_TYPE, self._desk.metrics.exposition())
