"""`relay retry`: send again what failed or was cancelled."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from relay.cli import ask, term


@click.command("retry")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@term.daemon_options
@term.config_errors
def command(ids: tuple[str, ...], config: Path | None, url: str | None, token: str | None) -> None:
    """Make failed or cancelled deliveries pending again, due now; pending ones become due now."""
    daemon = ask.daemon(config, url, token)
    failed = False
    for id_text in ids:
        try:
            status, answer = daemon.post(f"/logs/{id_text}/retry")
        except ask.Unreachable as error:
            term.fail(f"{error} (is it running? start it with 'relay serve')")
        if status == 200:
            click.echo(f"{id_text}: pending, due now")
        else:
            failed = True
            click.echo(f"relay: {id_text}: {ask.refused(answer)}", err=True)
    if failed:
        sys.exit(term.FAILED)
