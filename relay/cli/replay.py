"""`relay replay`: route a stored event again."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay.cli import ask, completing, hand, progress, selection, term

if TYPE_CHECKING:
    from relay.event import Event
    from relay.routing import Routing

_NOT_KEPT = "its body is no longer kept"
_BODILESS = "whose body is no longer kept"


@click.command("replay")
@selection.options("[EVT…]", everything="All events.", leave_out=("route",))
@click.option("--route", shell_complete=completing.routes, help="Only by this route, if it wants the event.")
def command(route: str | None, **given: Any) -> None:
    """Route stored events again under today's config: each route that wants one gets a new delivery of it.

    'relay explain EVT' says beforehand which routes those are, and what would be sent. Filters are those of
    'relay logs', but for --route; events they find that no route wants are passed over, and counted.

    \b
    Examples:
      relay replay evt_01M85CA5GE9CERZWDHANEQSGCC
      relay replay evt_01M85CA5GE9CERZWDHANEQSGCC --route search
      relay replay --status unmatched --since 2h --dry-run
    """
    path: Path | None = given["config"]
    chosen = selection.events(given)
    query = None
    if route is not None:
        [found] = hand.routes(chosen.daemon, [route], everything=False)
        query = {"route": found["name"]}
    unwanted = "that no route wants" if query is None else f"that the route {query['route']} does not want"
    chosen.each(
        "replayed",
        lambda id_text: f"/events/{id_text}/replay",
        "deliveries",
        _said,
        query,
        passes=lambda detail: _BODILESS if _NOT_KEPT in detail else unwanted,
        would=lambda daemon, found: _passed_over(daemon, path, found, route, unwanted),
    )


def _passed_over(
    daemon: ask.Daemon, path: Path | None, found: list[str], route: str | None, unwanted: str
) -> Counter[str] | None:
    """How many of the events would not be replayed, by why: judged by the code that 'relay explain' uses, under the
    config here; None where the daemon runs with another one, or this one cannot be read."""
    from relay.pattern import Subject

    routing = _routing(daemon, path)
    if routing is None:
        return None
    passed: Counter[str] = Counter()
    with progress.bar("asking the daemon") as moved:
        for number, id_text in enumerate(found, 1):
            event = _event(daemon, id_text)
            if event is None:
                passed[_BODILESS] += 1
            elif not any(route in (None, each.name) for each in routing.match(Subject.of(event, id_text))):
                passed[unwanted] += 1
            moved(number, len(found))
    return passed


def _routing(daemon: ask.Daemon, path: Path | None) -> Routing | None:
    """The routes that the daemon has, if they are those of the config here."""
    from relay import config as config_file
    from relay.clock import SystemClock
    from relay.runtime import build

    try:
        loaded = config_file.load(config_file.find_config(path))
        routing = build(loaded, 1, SystemClock().now()).routing
    except config_file.ConfigError:
        return None
    try:
        _, health = daemon.get("/health")
    except ask.Unreachable as error:
        term.fail(str(error))
    config = health.get("config") if isinstance(health, dict) else None
    return routing if isinstance(config, dict) and config.get("sha256") == loaded.sha256 else None


def _event(daemon: ask.Daemon, id_text: str) -> Event | None:
    """A stored event; None where its body is no longer kept, or all of it is gone."""
    from relay.event import event_from_json

    try:
        status, answer = daemon.get(f"/logs/{id_text}")
    except ask.Unreachable as error:
        term.fail(str(error))
    if status == 404:
        return None
    answer = daemon.require("headers", status, answer)
    body = answer.get("body")
    if answer.get("event") is None or (body is None and "body_base64" not in answer):
        return None
    content = body.encode() if body is not None else base64.b64decode(answer["body_base64"])
    return event_from_json(answer["event"], answer["headers"], content)


def _said(id_text: str, answer: Any) -> str:
    routes, deliveries = answer["routes"], answer["deliveries"]
    if len(routes) != len(deliveries):
        return f"{id_text}: to {', '.join(routes)}"
    return f"{id_text}: " + ", ".join(f"{new} to {name}" for new, name in zip(deliveries, routes, strict=True))
