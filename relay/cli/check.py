"""`relay check`: what is wrong with the config, all of it, before anything runs with it."""

from __future__ import annotations

from pathlib import Path

import click

from relay.cli import term


@click.command("check")
@term.config_option
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--no-secrets", is_flag=True, help="check all but the values that come from outside: for CI")
@term.config_errors
def command(config: Path | None, file: Path | None, no_secrets: bool) -> None:
    """Check the config by the code that the daemon uses. Exits with 78 if it would not be taken."""
    from relay import config as config_file
    from relay.clock import SystemClock
    from relay.runtime import build

    path = config_file.find_config(file or config)
    loaded = config_file.load(path, no_secrets=no_secrets)
    if not no_secrets:
        build(loaded, 1, SystemClock().now())
    for warning in loaded.warnings:
        click.echo(str(warning), err=True)
    what = loaded.config
    click.echo(f"{path}: ok ({len(what.sources)} sources, {len(what.routes)} routes)")
