"""`relay routes`: what the config sends where, and how that goes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay.cli import ask, term

if TYPE_CHECKING:
    from relay.cli import screen
    from relay.schema import Config

_PATIENCE = 2.0  # seconds: whoever asks what is in the config does not wait for a daemon
_FLEXIBLE = ("sources", "to", "last error", "description")
_DISPENSABLE = ("description", "sources", "enabled", "to")  # left out of a narrow terminal, in this order
_OF_HEALTH = ("state", "pending", "held", "last error")
_COLUMNS = ("route", "enabled", *_OF_HEALTH[:3], "sources", "to", "last error", "description")

Health = Mapping[str, dict[str, Any]]
"""By route, as the daemon's `GET /routes` has it."""


@click.command("routes")
@term.daemon_options
@term.json_option
@click.option("--expanded", is_flag=True, help="Print each route whole, defaults filled in, secrets as ***, as JSON.")
@term.config_errors
def command(config: Path | None, url: str | None, token: str | None, as_json: bool, expanded: bool) -> None:
    """List the routes of the config, in its order. Where a daemon runs, also how each is doing there.

    \b
    Examples:
      relay routes
      relay routes --json | jq '.[] | select(.health.state != "healthy").name'
      relay routes --expanded | jq '.[] | select(.name == "search").retry'
    """
    from relay import config as config_file

    loaded = config_file.load(config_file.find_config(config)).config
    routes = config_file.effective(loaded)["routes"]
    health = None if expanded and not as_json else _health(loaded, config, url, token)
    if as_json or expanded:
        if health is not None:
            routes = [{**route, "health": health.get(route["name"])} for route in routes]
        click.echo(json.dumps(routes, indent=2))
        return
    columns = [column for column in _COLUMNS if health is not None or column not in _OF_HEALTH]
    room = term.width()
    if room is None:
        click.echo(term.table(columns, _rows(routes, health, columns)))
        return
    from relay.cli import screen

    shape = screen.best(_shapes(routes, health, columns), _FLEXIBLE, room)
    click.echo("\n".join(screen.table(*shape, _FLEXIBLE, room)))


def _shapes(routes: Sequence[dict[str, Any]], health: Health | None, columns: Sequence[str]) -> Iterator[screen.Shape]:
    """The table with ever fewer columns; without a daemon there is room for all."""
    yield columns, _rows(routes, health, columns)
    for dropped in _DISPENSABLE if health is not None else ():
        columns = [column for column in columns if column != dropped]
        yield columns, _rows(routes, health, columns)


def _rows(routes: Sequence[dict[str, Any]], health: Health | None, columns: Sequence[str]) -> list[list[object]]:
    rows = []
    for route in routes:
        found = (health or {}).get(route["name"], {})
        error = found.get("last_error") or {}
        cells = {
            "route": route["name"],
            "enabled": "yes" if route["enabled"] else "no",
            "sources": route["sources"] or "all",
            "to": f"{route['to']['method']} {route['to']['url']}",
            "description": route.get("description") or "",
            **{name: found.get(name) for name in _OF_HEALTH},
            "last error": f"{error['code']}: {error['message']}" if error else "",
        }
        rows.append([cells[column] for column in columns])
    return rows


def _health(loaded: Config, config: Path | None, url: str | None, token: str | None) -> Health | None:
    """How the routes are doing; None where no daemon answers, which is no failure here: only one that was named, or
    that refuses to tell, is spoken of."""
    if url is None and str(loaded.admin.listen).endswith(":0"):
        return None
    daemon = ask.daemon(config, url, token)
    try:
        status, answer = daemon.get("/routes", patience=_PATIENCE)
        return {route["name"]: route for route in daemon.require("routes", status, answer)["routes"]}
    except ask.Unreachable as error:
        if url is not None:
            term.complain(str(error))
    except term.Complaint as error:
        term.complain(error.message)
    return None
