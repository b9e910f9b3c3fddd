"""`relay pause`: hold what routes would send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from relay.cli import ask, hand, term


@click.command("pause")
@click.argument("names", nargs=-1, metavar="[ROUTE…]")
@click.option("--all", "everything", is_flag=True, help="All routes of the config.")
@click.option("--reason", help="Why, for whoever looks at /health.")
@click.option("--dry-run", is_flag=True, help="Only say what it would hold.")
@term.json_option
@term.daemon_options
@term.config_errors
def command(
    names: tuple[str, ...],
    everything: bool,
    reason: str | None,
    dry_run: bool,
    as_json: bool,
    config: Path | None,
    url: str | None,
    token: str | None,
) -> None:
    """Pause routes: events are taken in as ever, and their deliveries held until 'relay resume'.

    Attempts that are under way are not called back. A pause outlives restarts and reloads.

    \b
    Examples:
      relay pause rebuild-www --reason "content freeze until Monday"
      relay pause --all --reason "the data centre moves"
    """
    daemon = ask.daemon(config, url, token)
    routes = hand.routes(daemon, names, everything)
    if dry_run:
        click.echo(json.dumps(routes, indent=2) if as_json else "\n".join(map(_would, routes)))
        return
    query = {"reason": reason} if reason else None
    if everything:
        with hand.waiting("pausing"):
            status, answer = hand.post(daemon, "/routes/pause", query)
        done = daemon.require("routes", status, answer)["routes"]
        click.echo(json.dumps(done, indent=2) if as_json else "\n".join(term.printable(_said("", one)) for one in done))
        return
    found = [route["name"] for route in routes]
    hand.each(daemon, found, lambda name: f"/routes/{name}/pause", "changed", _said, as_json, query)


def _would(route: dict[str, Any]) -> str:
    if route["state"] == "paused":
        return term.printable(f"{route['name']}: is paused ({route['reason']})")
    return f"{route['name']}: would hold {term.count(route['pending'], 'delivery')}"


def _said(_: str, answer: Any) -> str:
    route = answer["route"]
    held = f"{term.count(route['held'], 'delivery')} held"
    if not answer["changed"]:
        return f"{route['name']}: was paused already ({route['reason']}), {held}"
    also = ", and the config says enabled: false" if route["state"] == "disabled" else ""
    return f"{route['name']}: paused{also}, {held}"
