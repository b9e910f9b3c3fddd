"""`relay pause`: hold what routes would send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from relay.cli import ask, hand, term


@click.command("pause")
@hand.route_options
@click.option("--reason", help="Why, for whoever looks at /health.")
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
    query = {"reason": reason} if reason else None
    daemon = ask.daemon(config, url, token)
    hand.turn("pause", names, everything, dry_run, as_json, daemon, _would, _said, query)


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
