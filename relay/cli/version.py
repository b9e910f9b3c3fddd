"""`relay version`."""

from __future__ import annotations

import click

from relay import __version__


@click.command("version")
def command() -> None:
    """Say the version, as `relay --version` does.

    \b
    Example:
      relay version
    """
    click.echo(f"relay {__version__}")
