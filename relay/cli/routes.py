"""`relay routes`: what the config sends where."""

from __future__ import annotations

import json
from pathlib import Path

import click

from relay.cli import term


@click.command("routes")
@term.config_option
@term.json_option
@click.option("--expanded", is_flag=True, help="Print each route whole, defaults filled in, secrets as ***, as JSON.")
@term.config_errors
def command(config: Path | None, as_json: bool, expanded: bool) -> None:
    """List the routes of the config, in its order.

    \b
    Examples:
      relay routes
      relay routes --expanded | jq '.[] | select(.name == "search").retry'
    """
    from relay import config as config_file

    effective = config_file.effective(config_file.load(config_file.find_config(config)).config)
    if as_json or expanded:
        click.echo(json.dumps(effective["routes"], indent=2))
        return
    rows = [
        (
            route["name"],
            "yes" if route["enabled"] else "no",
            route["sources"] or "all",
            f"{route['to']['method']} {route['to']['url']}",
            route.get("description") or "",
        )
        for route in effective["routes"]
    ]
    header = ("route", "enabled", "sources", "to", "description")
    click.echo(term.listing(header, rows, flexible=("sources", "to", "description")))
