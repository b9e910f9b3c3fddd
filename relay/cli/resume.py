"""`relay resume`: let paused routes send again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from relay.cli import ask, hand, term


@click.command("resume")
@hand.route_options
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
    hand.turn("resume", names, everything, dry_run, as_json, daemon, _would, _said)


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
