"""The first page: is relay well, what goes through it, which route or source is not as it should be."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web

from relay.delivery import Window
from relay.health import RouteState
from relay.immutable import immutable
from relay.pace import HOUR, Pace
from relay.store import LogQuery, Page, Unavailable
from relay.web.dashboard import chart
from relay.web.dashboard.page import Visit
from relay.web.dashboard.wording import count

_NEWEST = 8
_AMISS = ("failed", "rejected", "unmatched")
"""What somebody who waits for something should look at."""
_ORDER = (RouteState.UNHEALTHY, RouteState.PAUSED, RouteState.HEALTHY, RouteState.DISABLED)
_MOST_REASONS = 4
_MOST_WINDOWS = 5


@immutable
class SourceRow:
    """A source as the table shows it."""

    name: str
    type: str
    path: str
    last_event_at: datetime | None
    silent_since: datetime | None
    rejected: int
    reasons: list[tuple[str, int]]


async def page(visit: Visit) -> web.Response:
    """`/`."""
    desk, runtime = visit.desk, visit.desk.reloader.runtime
    report = await desk.health.report()
    pace = desk.metrics.pace
    newest, amiss, windows, unreadable = Page([], None), Page([], None), list[Window](), None
    try:
        newest = await desk.store.search(LogQuery(limit=_NEWEST))
        amiss = await desk.store.search(LogQuery(status=_AMISS, limit=_NEWEST))
        windows = await desk.store.windows()
        pace = await _pace(visit)
    except Unavailable as error:  # then the rest of the page is wanted most
        unreadable = str(error)
    minutes = pace.last_hour(visit.now)
    known = runtime.routing.routes
    paused = sum(route["state"] == RouteState.PAUSED for route in report["routes"])
    held = report["store"]["held"]
    return visit.respond(
        "overview.html",
        503 if report["status"] == "failing" else 200,
        unreadable=unreadable,
        report=report,
        reasons=[(name, text) for name, text in report["checks"].items() if text != "ok"],
        events=sum(minute.events for minute in minutes),
        delivered=sum(minute.delivered for minute in minutes),
        failed=sum(minute.failed for minute in minutes),
        events_chart=chart.events(minutes),
        deliveries_chart=chart.deliveries(minutes),
        routes=sorted(report["routes"], key=lambda route: _ORDER.index(route["state"])),
        removed=[
            (name, each.held) for name, each in sorted(desk.store.counts().items()) if name not in known and each.held
        ],
        sources=[_source(visit, name) for name in runtime.sources],
        newest=newest.items,
        amiss=amiss.items,
        windows=windows[:_MOST_WINDOWS],
        windows_count=len(windows),
        paused=paused,
        kept_back=[
            text
            for number, text in (
                (paused, f"{count(paused, 'route')} paused"),
                (held, f"{count(held, 'delivery')} held"),
            )
            if number
        ],
        sample=next(iter(runtime.sources), "SOURCE"),
    )


def _source(visit: Visit, name: str) -> SourceRow:
    source, health = visit.desk.reloader.runtime.sources[name], visit.desk.listening.of(name)
    counted: list[tuple[str, int]] = sorted(source.tally.rejected.items(), key=lambda pair: -pair[1])
    return SourceRow(
        name=name,
        type=source.type,
        path=source.path,
        last_event_at=health.last_event_at,
        silent_since=health.silent_since,
        rejected=sum(number for _, number in counted),
        reasons=counted[:_MOST_REASONS],
    )


async def _pace(visit: Visit) -> Pace:
    """What went through in the last hour: counted here, or told by the store where other relays share it."""
    desk = visit.desk
    if desk.store.shared is None:
        return desk.metrics.pace
    pace = Pace()
    for minute in await desk.store.pace(visit.now - HOUR):
        pace.seed(minute)
    return pace
