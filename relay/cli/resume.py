"""`relay resume`: let paused routes send again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from relay.cli import ask, hand, term


@click.command("resume")
@click.argument("names", nargs=-1, metavar="[ROUTE…]")
@click.option("--all", "everything", is_flag=True, help="All routes of the config.")
@click.option("--dry-run", is_flag=True, help="Only say what it would release.")
@term.json_option
@term.daemon_options
@term.config_errors
def command(
    names: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    as_json: bool,
    config: Path | None,
    url: str | None,
    token: str | None,
) -> None:
    """Resume routes that are paused, by hand or by themselves, or unhealthy: what was held is sent, the oldest first,
    slowly to begin with.

    \b
    Examples:
      relay resume rebuild-www
      relay resume --all --dry-run
    """
    daemon = ask.daemon(config, url, token)
    routes = hand.routes(daemon, names, everything)
    if dry_run:
        click.echo(json.dumps(routes, indent=2) if as_json else "\n".join(map(_would, routes)))
        return
    if everything:
        with hand.waiting("resuming"):
            status, answer = hand.post(daemon, "/routes/resume")
        done = daemon.require("routes", status, answer)["routes"]
        click.echo(json.dumps(done, indent=2) if as_json else "\n".join(term.printable(_said("", one)) for one in done))
        return
    found = [route["name"] for route in routes]
    hand.each(daemon, found, lambda name: f"/routes/{name}/resume", "changed", _said, as_json)


def _would(route: dict[str, Any]) -> str:
    name, held = route["name"], term.count(route["held"], "delivery")
    match route["state"]:
        case "paused":
            return f"{name}: would release up to {held}"
        case "unhealthy":
            return f"{name}: is unhealthy, would send again without waiting for a probe"
        case "disabled":
            return f"{name}: the config says enabled: false, {held} held"
        case _:
            return f"{name}: is healthy"


def _said(_: str, answer: Any) -> str:
    route = answer["route"]
    name = route["name"]
    if route["state"] == "disabled":
        return f"{name}: sends nothing, for the config says enabled: false"
    if not answer["changed"]:
        return f"{name}: was healthy already"
    return f"{name}: resumed, {term.count(answer['released'], 'delivery')} released"
