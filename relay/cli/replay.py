"""`relay replay`: route a stored event again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from relay.cli import ask, hand, term


@click.command("replay")
@click.argument("ids", nargs=-1, required=True, metavar="EVT…")
@click.option("--route", help="Only by this route, if it wants the event.")
@term.json_option
@term.daemon_options
@term.config_errors
def command(
    ids: tuple[str, ...], route: str | None, as_json: bool, config: Path | None, url: str | None, token: str | None
) -> None:
    """Route stored events again under today's config: each route that wants one gets a new delivery of it.

    'relay explain EVT' says beforehand which routes those are, and what would be sent.

    \b
    Examples:
      relay replay evt_01M85CA5GE9CERZWDHANEQSGCC
      relay replay evt_01M85CA5GE9CERZWDHANEQSGCC --route search
    """
    for id_text in ids:
        term.need_id(id_text, "evt_")
    daemon = ask.daemon(config, url, token)
    query = None
    if route is not None:
        [found] = hand.routes(daemon, [route], everything=False)
        query = {"route": found["name"]}
    hand.each(daemon, ids, lambda id_text: f"/events/{id_text}/replay", "deliveries", _said, as_json, query)


def _said(id_text: str, answer: Any) -> str:
    routes, deliveries = answer["routes"], answer["deliveries"]
    if len(routes) != len(deliveries):
        return f"{id_text}: to {', '.join(routes)}"
    return f"{id_text}: " + ", ".join(f"{new} to {name}" for new, name in zip(deliveries, routes, strict=True))
