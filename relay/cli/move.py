"""`relay move`: a renamed route takes over what is held under its old name."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from relay.cli import ask, completing, hand, term


@click.command("move")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW", shell_complete=completing.routes)
@click.option("--dry-run", is_flag=True, help="Only say how many deliveries would move.")
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
    held = [route["name"] for route in shown["removed"]]
    if old not in held and old not in known:
        there = f"; there is something for {', '.join(held)}" if held else ""
        term.fail(f"nothing is held for a removed route '{old}'{there}")
    query = {"to": new, "dry_run": "1"} if dry_run else {"to": new}
    with hand.waiting("looking" if dry_run else "moving"):
        status, answer = hand.post(daemon, f"/routes/{old}/move", query)
    done = daemon.require("count", status, answer)
    if as_json:
        click.echo(json.dumps(done, indent=2))
    else:
        count = term.count(done["count"], "delivery")
        click.echo(f"{count} {'would move' if dry_run else 'moved'} from {old} to {new}")
    for warning in done.get("warnings", ()):  # an older relay has none, nor says what it left
        term.complain(warning)
    if done.get("windows_left") and not dry_run:
        sys.exit(term.FAILED)
