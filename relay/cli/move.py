"""`relay move`: a renamed route takes over what is held under its old name."""

from __future__ import annotations

import json
from pathlib import Path

import click

from relay.cli import ask, completing, hand, term


@click.command("move")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW", shell_complete=completing.routes)
@click.option("--dry-run", is_flag=True, help="Only say how many deliveries are held for OLD.")
@term.json_option
@term.daemon_options
@term.config_errors
def command(
    old: str, new: str, dry_run: bool, as_json: bool, config: Path | None, url: str | None, token: str | None
) -> None:
    """Give the deliveries that are held for a route that is no longer in the config to another one, which sends them.

    \b
    Examples:
      relay move rebuild-www rebuild-site --dry-run
      relay move rebuild-www rebuild-site
    """
    daemon = ask.daemon(config, url, token)
    shown = hand.get(daemon, "/routes", "removed")
    known = [route["name"] for route in shown["routes"]]
    if new not in known:
        term.fail(term.one_of("route", new, known), term.USAGE)
    held = {route["name"]: route["held"] for route in shown["removed"]}
    if old not in held and old not in known:
        there = f"; there is something for {', '.join(held)}" if held else ""
        term.fail(f"nothing is held for a removed route '{old}'{there}")
    if dry_run and old not in known:
        count = held[old]
    else:
        with hand.waiting("moving"):
            status, answer = hand.post(daemon, f"/routes/{old}/move", {"to": new})
        count = daemon.require("count", status, answer)["count"]
    if as_json:
        click.echo(json.dumps({"count": count}, indent=2))
    else:
        click.echo(f"{term.count(count, 'delivery')} {'would move' if dry_run else 'moved'} from {old} to {new}")
