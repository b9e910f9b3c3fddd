"""`relay reload`: the same as SIGHUP, with an answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from relay.cli import ask, hand, term

_KEPT = "the config was not taken; the running one stays"


@click.command("reload")
@term.daemon_options
def command(config: Path | None, url: str | None, token: str | None) -> None:
    """Make the running daemon read its config again, and say what changed or every mistake.

    A config with mistakes is not taken, the running one stays, and the exit code is 78.

    \b
    Example:
      relay check && relay reload
    """
    daemon, (status, answer) = _reach(config, url, token)
    if status == 422 and isinstance(answer, dict) and "errors" in answer:
        _refuse(answer["errors"])
    taken = daemon.require("generation", status, answer)
    click.echo(f"generation {taken['generation']}")
    for kind, names in taken["changes"].items():
        words = [f"{verb} {', '.join(found)}" for verb, found in names.items() if found] if kind != "other" else names
        click.echo(term.printable(f"{kind}: {'; '.join(words)}"))
    for key in taken["pending_restart"]:
        click.echo(f"takes effect at the next start: {key}")
    for warning in taken["warnings"]:
        click.echo(term.printable(warning), err=True)


def _reach(config: Path | None, url: str | None, token: str | None) -> tuple[ask.Daemon, tuple[int, Any]]:
    """The daemon, and its answer."""
    from relay.config import ConfigError

    try:
        daemon = ask.daemon(config, url, token)
        with hand.waiting("asking the daemon to reload"):
            return daemon, daemon.post("/reload", patience=hand.PATIENCE)
    except ask.Unreachable as error:
        term.fail(str(error))
    except ConfigError as error:
        _refuse([str(problem) for problem in error.problems])


def _refuse(problems: list[str]) -> NoReturn:
    for problem in problems:
        click.echo(term.printable(problem), err=True)
    term.complain(_KEPT)
    sys.exit(term.OPERATOR)
