"""`relay replay`: route a stored event again."""

from __future__ import annotations

from typing import Any

import click

from relay.cli import completing, hand, selection


@click.command("replay")
@selection.options("[EVT…]", everything="All events.", leave_out=("route",))
@click.option("--route", shell_complete=completing.routes, help="Only by this route, if it wants the event.")
def command(route: str | None, **given: Any) -> None:
    """Route stored events again under today's config: each route that wants one gets a new delivery of it.

    'relay explain EVT' says beforehand which routes those are, and what would be sent. Filters are those of
    'relay logs', but for --route.

    \b
    Examples:
      relay replay evt_01M85CA5GE9CERZWDHANEQSGCC
      relay replay evt_01M85CA5GE9CERZWDHANEQSGCC --route search
      relay replay --status unmatched --since 2h --dry-run
    """
    chosen = selection.events(given)
    query = None
    if route is not None:
        [found] = hand.routes(chosen.daemon, [route], everything=False)
        query = {"route": found["name"]}
    chosen.each("replayed", lambda id_text: f"/events/{id_text}/replay", "deliveries", _said, query)


def _said(id_text: str, answer: Any) -> str:
    routes, deliveries = answer["routes"], answer["deliveries"]
    if len(routes) != len(deliveries):
        return f"{id_text}: to {', '.join(routes)}"
    return f"{id_text}: " + ", ".join(f"{new} to {name}" for new, name in zip(deliveries, routes, strict=True))
