"""Routes: how they are doing, and what people do with them: pause, resume, test, move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from relay import journal
from relay.store import Counts, Unavailable
from relay.web import shape
from relay.web.answer import WHO, Conflict, answer, parameters
from relay.web.desk import Desk
from relay.web.logquery import BadFilter

_LONGEST_REASON = 500


class Routes:
    """The handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def table(self) -> list[web.RouteDef]:
        """What is answered here."""
        return [
            web.get("/routes", self._list),
            web.get("/routes/{name}", self._show),
            web.post("/routes/pause", self._pause_all),
            web.post("/routes/resume", self._resume_all),
            web.post("/routes/{name}/pause", self._pause),
            web.post("/routes/{name}/resume", self._resume),
            web.post("/routes/{name}/test", self._test),
            web.post("/routes/{name}/move", self._move),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        desk = self._desk
        parameters(request)
        names = desk.reloader.runtime.routing.routes
        gone = {name: each.held for name, each in desk.store.counts().items() if name not in names and each.held}
        return answer(
            200,
            {
                "routes": [desk.health.route(name) for name in names],
                "removed": [{"name": name, "held": gone[name]} for name in sorted(gone)],
            },
        )

    async def _show(self, request: web.Request) -> web.Response:
        parameters(request)
        return answer(200, self._desk.health.route(self._desk.route(request.match_info["name"]).name))

    # -- pause and resume --------------------------------------------------------------------------------------------

    async def _pause(self, request: web.Request) -> web.Response:
        [done] = await self._pausing(request, [self._desk.route(request.match_info["name"]).name])
        return answer(200, done)

    async def _pause_all(self, request: web.Request) -> web.Response:
        return answer(200, {"routes": await self._pausing(request, list(self._desk.reloader.runtime.routing.routes))})

    async def _pausing(self, request: web.Request, names: Sequence[str]) -> list[dict[str, Any]]:
        who = request[WHO]
        given = parameters(request, "reason").get("reason", "").strip()
        if len(given) > _LONGEST_REASON:
            raise BadFilter(f"'reason' is longer than {_LONGEST_REASON} characters")
        reason = given or ("by hand" if who == "anonymous" else f"by hand ({who})")

        def pause(name: str) -> bool:
            changed = self._desk.oversight.pause(name, reason)
            if changed:
                journal.manual("pause", who, route=name, reason=reason)
            return changed

        changed, _ = await self._turn(names, pause)
        return [{"route": self._desk.health.route(name), "changed": changed[name]} for name in names]

    async def _resume(self, request: web.Request) -> web.Response:
        [done] = await self._resuming(request, [self._desk.route(request.match_info["name"]).name])
        return answer(200, done)

    async def _resume_all(self, request: web.Request) -> web.Response:
        return answer(200, {"routes": await self._resuming(request, list(self._desk.reloader.runtime.routing.routes))})

    async def _resuming(self, request: web.Request, names: Sequence[str]) -> list[dict[str, Any]]:
        who = request[WHO]
        parameters(request)

        def resume(name: str) -> bool:
            changed = self._desk.oversight.resume(name)
            if changed:
                journal.manual("resume", who, route=name)
            return changed

        changed, released = await self._turn(names, resume)
        return [
            {"route": self._desk.health.route(name), "changed": changed[name], "released": released[name]}
            for name in names
        ]

    async def _turn(self, names: Sequence[str], turn: Callable[[str], bool]) -> tuple[dict[str, bool], dict[str, int]]:
        """Pause or resume routes, have it written down and obeyed; which of them that changed, and how many deliveries
        of each are held no more. Raises Unavailable where it holds only until relay is started anew."""
        desk = self._desk
        before = {name: self._held(name) for name in names}
        changed = {name: turn(name) for name in names}
        written = await desk.oversight.save()
        await desk.dispatcher.obey()
        if not written:
            raise Unavailable("done, but the store cannot write it down: a restart may undo it, so ask again")
        return changed, {name: max(0, before[name] - self._held(name)) for name in names}

    def _held(self, name: str) -> int:
        return self._desk.store.counts().get(name, Counts()).held

    # -- test and move -----------------------------------------------------------------------------------------------

    async def _test(self, request: web.Request) -> web.Response:
        route = self._desk.route(request.match_info["name"])
        parameters(request)
        journal.manual("test", request[WHO], route=route.name)
        shown = shape.attempt(await self._desk.pipeline.test(route))
        return answer(200, {key: shown[key] for key in ("request", "response", "error", "duration_ms")})

    async def _move(self, request: web.Request) -> web.Response:
        desk, old = self._desk, request.match_info["name"]
        new = parameters(request, "to").get("to")
        if new is None:
            raise BadFilter("say with to=ROUTE which route takes the deliveries over")
        desk.route(new)
        if old in desk.reloader.runtime.routing.routes:
            raise Conflict(f"{old} is still in the config: rename or remove it there and reload, then move")
        count = await desk.store.move(old, new)
        journal.manual("move", request[WHO], route=old, to=new, count=count)
        await desk.dispatcher.obey()
        return answer(200, {"count": count})
