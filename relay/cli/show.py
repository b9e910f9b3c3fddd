"""`relay show`: everything about one thing."""

from __future__ import annotations

import json
from pathlib import Path

import click

from relay import logtext
from relay.cli import colour, offline, prefix, term


@click.command("show")
@click.argument("id_text", metavar="ID")
@term.json_option
@term.daemon_options
@term.config_errors
def command(id_text: str, config: Path | None, url: str | None, token: str | None, as_json: bool) -> None:
    """Show a delivery (dlv_…), an event (evt_…) or a rejected request (rej_…), with all attempts and the body.

    Without a running daemon the store's file itself is read.

    \b
    Examples:
      relay show dlv_01M85CA5GE9CETFWDHANEQSGCC
      relay show evt_01M85CA5GE9CERZWDHANEQSGCC --json | jq .event.changes
    """
    prefix.checked([id_text], "dlv_", "evt_", "rej_")
    [found] = prefix.whole([id_text], lambda query: offline.get(config, url, token, "/logs", query))
    answer = offline.get(config, url, token, f"/logs/{found}")
    click.echo(json.dumps(answer, indent=2) if as_json else logtext.page(answer, colour.styled))
