"""`relay check`: what is wrong with the config, all of it, before anything runs with it."""

from __future__ import annotations

from pathlib import Path

import click

from relay.cli import term


@click.command("check")
@term.config_option
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--no-secrets", is_flag=True, help="Check all but the values that come from outside: for CI.")
@term.config_errors
def command(config: Path | None, file: Path | None, no_secrets: bool) -> None:
    """Check the config by the code that the daemon uses, and say every mistake with its line and column.

    Exits with 78 if the daemon would not take it. Warnings alone do not count.

    \b
    Examples:
      relay check
      relay check --no-secrets config.yaml     where the secrets are not at hand, as in CI
    """
    from relay import config as config_file
    from relay.clock import SystemClock
    from relay.runtime import build

    if file is not None and config is not None:
        raise click.UsageError("name the config once: --config, or the file alone")
    path = config_file.find_config(file or config)
    loaded = config_file.load(path, no_secrets=no_secrets, try_samples=True)
    if not no_secrets:
        build(loaded, 1, SystemClock().now())
    for warning in loaded.warnings:
        click.echo(term.printable(str(warning)), err=True)
    sources, routes = len(loaded.config.sources), len(loaded.config.routes)
    click.echo(f"{path}: ok ({term.count(sources, 'source')}, {term.count(routes, 'route')})")
