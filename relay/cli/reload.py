"""`relay reload`: the same as SIGHUP, with an answer."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from relay.cli import ask, term


@click.command("reload")
@term.daemon_options
def command(config: Path | None, url: str | None, token: str | None) -> None:
    """Make the running daemon read its config again, and say what changed or every mistake."""
    daemon = _reach(config, url, token)
    try:
        status, answer = daemon.post("/reload")
    except ask.Unreachable as error:
        term.fail(f"{error} (is it running? start it with 'relay serve')")
    if status == 422:
        for line in answer["errors"]:
            click.echo(line, err=True)
        click.echo("relay: the config was not taken; the running one stays", err=True)
        sys.exit(term.OPERATOR)
    if status != 200:
        term.fail(ask.refused(answer))
    click.echo(f"generation {answer['generation']}")
    for kind, names in answer["changes"].items():
        words = [f"{verb} {', '.join(found)}" for verb, found in names.items() if found] if kind != "other" else names
        click.echo(f"{kind}: {'; '.join(words)}")
    for key in answer["pending_restart"]:
        click.echo(f"takes effect at the next start: {key}")
    for warning in answer["warnings"]:
        click.echo(warning, err=True)


@term.config_errors
def _reach(config: Path | None, url: str | None, token: str | None) -> ask.Daemon:
    return ask.daemon(config, url, token)
