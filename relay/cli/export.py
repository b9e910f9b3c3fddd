"""`relay export`: one route as a config of its own."""

from __future__ import annotations

from pathlib import Path

import click

from relay.cli import completing, term


@click.command("export")
@term.config_option
@click.argument("route", shell_complete=completing.routes)
@term.config_errors
def command(config: Path | None, route: str) -> None:
    """Print ROUTE as YAML, as it was written, with its sources and the defaults: a config of its own.

    References such as ${NAME} stay as they are, and nothing is looked up. A secret that was written into the config is
    replaced by a variable, which is named on standard error.

    \b
    Examples:
      relay export search
      relay export search --config old.yaml > search.yaml && relay check --no-secrets search.yaml
    """
    from relay import config as config_file
    from relay import excerpt, yamlfile

    path = config_file.find_config(config)
    data = config_file.contents(path, str(path))
    loaded = config_file.load(data, name=str(path), no_secrets=True)
    raw = yamlfile.read(data, {}, no_secrets=True).value
    try:
        text, variables = excerpt.of(raw, loaded.config, route)
    except KeyError:
        term.fail(term.one_of("route", route, [section.name for section in loaded.config.routes]), term.USAGE)
    click.echo(text, nl=False)
    for variable in variables:
        term.complain(f"to be set: {variable.name}, in the place of {variable.meaning}")
