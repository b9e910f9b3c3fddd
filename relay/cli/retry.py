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
    """Make failed or cancelled deliveries pending again, due now; pending ones become due now.

    \b
    Examples:
      relay retry dlv_01M85CA5GE9CETFWDHANEQSGCC
      relay logs --status failed --json | jq -r '.items[].id' | xargs relay retry
    """
    for id_text in ids:
        term.need_id(id_text, "dlv_")
    daemon = ask.daemon(config, url, token)
    failed = False
    for id_text in ids:
        try:
            status, answer = daemon.post(f"/logs/{id_text}/retry")
        except ask.Unreachable as error:
            term.fail(str(error))
        if status in (404, 409) and isinstance(answer, dict) and "detail" in answer:
            failed = True
            term.complain(str(answer["detail"]))
            continue
        daemon.require("delivery", status, answer)
        click.echo(f"{id_text}: pending, due now")
    if failed:
        sys.exit(term.FAILED)
