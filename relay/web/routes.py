"""Routes: how they are doing, and what people do with them: pause, resume, test, move."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiohttp import web

from relay import journal
from relay.store import Unavailable
from relay.web import shape
from relay.web.answer import WHO, Conflict, answer
from relay.web.desk import Desk
from relay.web.operation import GIVEN, Operation, Parameter, Table, gives
from relay.web.schemas import COUNT, SWITCH, TEXT, array, closed, ref

_NAME = Parameter("name", "The name of the route.", {"type": "string", "minLength": 1})
_REASON = Parameter("reason", "Why, for people.", {"type": "string", "minLength": 1, "maxLength": 500})
_ENDING = 60.0  # seconds for what a route that is gone still sends
_CANNOT_KEEP = "Changing nothing is a 200. A 503 where it is done, but the store cannot write it down."

LIST = Operation(
    "GET",
    "/routes",
    "listRoutes",
    "routes",
    "How all routes are doing, and for which routes that are not in the config something is held.",
    {200: gives("The routes.", closed({"routes": array(ref("Route")), "removed": array(ref("RemovedRoute"))}))},
)
SHOW = Operation(
    "GET",
    "/routes/{name}",
    "showRoute",
    "routes",
    "How a route is doing.",
    {200: gives("Its state and counts.", ref("Route"))},
    names=(_NAME,),
)
PAUSE_ALL = Operation(
    "POST",
    "/routes/pause",
    "pauseRoutes",
    "routes",
    "Pauses all routes.",
    {200: gives("What it changed, for each.", closed({"routes": array(ref("PausedRoute"))}))},
    (503,),
    _CANNOT_KEEP,
    parameters=(_REASON,),
)
RESUME_ALL = Operation(
    "POST",
    "/routes/resume",
    "resumeRoutes",
    "routes",
    "Resumes all routes.",
    {200: gives("What it changed, for each.", closed({"routes": array(ref("ResumedRoute"))}))},
    (503,),
    _CANNOT_KEEP,
)
PAUSE = Operation(
    "POST",
    "/routes/{name}/pause",
    "pauseRoute",
    "routes",
    "Pauses a route: its deliveries are held.",
    {200: gives("What it changed.", ref("PausedRoute"))},
    (503,),
    _CANNOT_KEEP,
    names=(_NAME,),
    parameters=(_REASON,),
)
RESUME = Operation(
    "POST",
    "/routes/{name}/resume",
    "resumeRoute",
    "routes",
    "Resumes a route and releases what was held for it.",
    {200: gives("What it changed, and how many fewer deliveries are held than before.", ref("ResumedRoute"))},
    (503,),
    _CANNOT_KEEP,
    names=(_NAME,),
)
TEST = Operation(
    "POST",
    "/routes/{name}/test",
    "testRoute",
    "routes",
    "Sends a marked test event, of which nothing is stored.",
    {200: gives("The request, and what the destination answered.", ref("Trial"))},
    names=(_NAME,),
)
MOVE = Operation(
    "POST",
    "/routes/{name}/move",
    "moveRoute",
    "routes",
    "Gives what is held for a removed route to another one.",
    {
        200: gives(
            "How many deliveries; how many windows that are held by hand stay with the old one; and what to look at.",
            closed({"count": COUNT, "windows_left": COUNT, "warnings": array(TEXT)}),
        )
    },
    (409, 503),
    "A 409 while the old route is in the config, or where what it was sending has not ended after a minute.",
    names=(Parameter("name", "The name that the route had.", {"type": "string", "minLength": 1}),),
    parameters=(
        Parameter(
            "to",
            "The route that takes them over.",
            {"type": "string", "minLength": 1},
            missing="say with to=ROUTE which route takes the deliveries over",
        ),
        Parameter("dry_run", "1 only counts.", SWITCH),
    ),
)


class Routes:
    """The handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def table(self) -> Table:
        """What is answered here."""
        return [
            (LIST, self._list),
            (SHOW, self._show),
            (PAUSE_ALL, self._pause_all),
            (RESUME_ALL, self._resume_all),
            (PAUSE, self._pause),
            (RESUME, self._resume),
            (TEST, self._test),
            (MOVE, self._move),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        desk = self._desk
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
        return answer(200, self._desk.health.route(self._desk.route(request.match_info["name"]).name))

    # -- pause and resume --------------------------------------------------------------------------------------------

    async def _pause(self, request: web.Request) -> web.Response:
        [done] = await self._pausing(request, [self._desk.route(request.match_info["name"]).name])
        return answer(200, done)

    async def _pause_all(self, request: web.Request) -> web.Response:
        return answer(200, {"routes": await self._pausing(request, list(self._desk.reloader.runtime.routing.routes))})

    async def _pausing(self, request: web.Request, names: Sequence[str]) -> list[dict[str, Any]]:
        who = request[WHO]
        given = request[GIVEN].get("reason", "").strip()
        reason = given or ("by hand" if who == "anonymous" else f"by hand ({who})")

        def pause(name: str) -> bool:
            changed = self._desk.oversight.pause(name, reason)
            if changed:
                journal.manual("pause", who, route=name, reason=reason)
            return changed

        changed = await self._turn(names, pause)
        return [{"route": self._desk.health.route(name), "changed": changed[name]} for name in names]

    async def _resume(self, request: web.Request) -> web.Response:
        [done] = await self._resuming(request, [self._desk.route(request.match_info["name"]).name])
        return answer(200, done)

    async def _resume_all(self, request: web.Request) -> web.Response:
        """Also what a start with all of them held has paused of routes that are gone: when they return they go on."""
        desk = self._desk
        names = list(desk.reloader.runtime.routing.routes)
        gone = [name for name in desk.store.counts() if name not in names and desk.oversight.of(name).held_at_start]
        return answer(200, {"routes": await self._resuming(request, names, gone)})

    async def _resuming(
        self, request: web.Request, names: Sequence[str], gone: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        who = request[WHO]

        def resume(name: str) -> bool:
            changed = self._desk.oversight.resume(name)
            if changed:
                journal.manual("resume", who, route=name)
            return changed

        every = [*names, *gone]
        before = await self._held(every)
        changed = await self._turn(every, resume)
        # Others may have released part of it, and a pause that came after it has held it again.
        after = await self._held(every)
        return [
            {
                "route": self._desk.health.route(name),
                "changed": changed[name],
                "released": max(0, before[name] - after[name]),
            }
            for name in names
        ]

    async def _held(self, names: Sequence[str]) -> Mapping[str, int]:
        """How many are held of each; as they were counted last where the store is too busy to say: that keeps nobody
        from resuming."""
        store = self._desk.store
        try:
            return await store.held(names)
        except Unavailable:
            counts = store.counts()
            return {name: counts[name].held if name in counts else 0 for name in names}

    async def _turn(self, names: Sequence[str], turn: Callable[[str], bool]) -> dict[str, bool]:
        """Pause or resume routes, have it written down and obeyed; which of them that changed. Raises Unavailable where
        it holds only until relay is started anew."""
        desk = self._desk
        with suppress(Unavailable):  # another relay may just have turned them
            await desk.oversight.refresh(names)
        changed = {name: turn(name) for name in names}
        written = await desk.oversight.save()
        await desk.dispatcher.obey()
        if not written:
            raise Unavailable("done, but the store cannot write it down: a restart may undo it, so ask again")
        return changed

    # -- test and move -----------------------------------------------------------------------------------------------

    async def _test(self, request: web.Request) -> web.Response:
        route = self._desk.route(request.match_info["name"])
        journal.manual("test", request[WHO], route=route.name)
        shown = shape.attempt(await self._desk.pipeline.test(route))
        return answer(200, {key: shown[key] for key in ("request", "response", "error", "duration_ms")})

    async def _move(self, request: web.Request) -> web.Response:
        desk, old = self._desk, request.match_info["name"]
        new, dry = request[GIVEN]["to"], request[GIVEN].get("dry_run") == "1"
        self._may_move(old, new)
        if not dry:  # what is being sent would be sent a second time, and beside what comes after it in its lane
            try:
                async with asyncio.timeout(_ENDING):
                    await desk.dispatcher.ended(old)
            except TimeoutError:
                raise Conflict(f"something of {old} is still being sent: move again when that has ended") from None
            self._may_move(old, new)
            if desk.dispatcher.stopping:
                raise Unavailable("relay is stopping")
        moved = await desk.store.move(old, new, desk.dispatcher.sending, dry_run=dry)
        if not dry:
            journal.manual("move", request[WHO], route=old, to=new, count=moved.count)
            await desk.dispatcher.obey()
        warnings = [_left_behind(moved.windows_left, old)] if moved.windows_left else []
        paused = desk.oversight.kept_by_people(old)
        if moved.count and paused is not None and not desk.oversight.paused(new):
            warnings.append(f"{old} was {paused}; {new} is not")
        return answer(200, {"count": moved.count, "windows_left": moved.windows_left, "warnings": warnings})

    def _may_move(self, old: str, new: str) -> None:
        self._desk.route(new)
        if old in self._desk.reloader.runtime.routing.routes:
            raise Conflict(f"{old} is still in the config: rename or remove it there and reload, then move")


def _left_behind(windows: int, route: str) -> str:
    those = "1 window that is" if windows == 1 else f"{windows} windows that are"
    return f"{route} keeps {those} held by hand: 'relay windows flush --route {shlex.quote(route)}', then move again"
