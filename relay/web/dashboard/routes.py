"""One route: how it does, what the config says of it, what it sent last. And the windows that are being collected."""

from __future__ import annotations

from aiohttp import web

from relay import yamltext
from relay.delivery import Window
from relay.effective import effective
from relay.ids import DELIVERY, EVENT
from relay.store import LogQuery
from relay.web.dashboard.page import Visit

_NEWEST = 20
_MOST_WINDOWS = 100
_MOST_EVENTS = 12


async def page(visit: Visit) -> web.Response:
    """`/ui/routes/<name>`."""
    desk = visit.desk
    name = desk.route(visit.request.match_info["name"]).name
    shown = effective(desk.reloader.runtime.config)
    section = next(section for section in shown["routes"] if section["name"] == name)
    newest = await desk.store.search(LogQuery(route=(name,), limit=_NEWEST))
    open_windows = [window for window in await desk.store.windows() if window.route == name]
    return visit.respond(
        "route.html",
        route=desk.health.route(name),
        config=yamltext.written(section),
        description=section.get("description"),
        items=newest.items,
        windows=[_window(visit, window) for window in open_windows[:_MOST_WINDOWS]],
        windows_count=len(open_windows),
    )


async def windows(visit: Visit) -> web.Response:
    """`/ui/windows`."""
    found = await visit.desk.store.windows()
    return visit.respond(
        "windows.html",
        windows=[_window(visit, window) for window in found[:_MOST_WINDOWS]],
        windows_count=len(found),
    )


def _window(visit: Visit, window: Window) -> dict[str, object]:
    ids = visit.desk.store.ids
    return {
        "id": ids.text(DELIVERY, window.id),
        "route": window.route,
        "opened_at": window.opened_at,
        "due_at": window.due_at,
        "held": window.held,
        "events": [ids.text(EVENT, event) for event in window.events[:_MOST_EVENTS]],
        "events_count": len(window.events),
    }
