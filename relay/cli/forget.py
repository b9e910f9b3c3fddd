"""`relay forget`: remove what an event said."""

from __future__ import annotations

from pathlib import Path

import click

from relay.cli import ask, hand, term


@click.command("forget")
@click.argument("ids", nargs=-1, required=True, metavar="EVT…")
@term.json_option
@term.daemon_options
@term.config_errors
def command(ids: tuple[str, ...], as_json: bool, config: Path | None, url: str | None, token: str | None) -> None:
    """Remove the body and the headers of events for good, as when somebody asks for their data to be erased.

    The description and the attempts stay in the logs. What is still to be sent has to be cancelled first. Backups, and
    what was sent already, are not reached.

    \b
    Example:
      relay forget evt_01M85CA5GE9CERZWDHANEQSGCC
    """
    for id_text in ids:
        term.need_id(id_text, "evt_")
    daemon = ask.daemon(config, url, token)
    hand.each(
        daemon,
        ids,
        lambda id_text: f"/events/{id_text}/forget",
        "forgotten",
        lambda id_text, answer: f"{id_text}: its body and headers are gone",
        as_json,
    )
