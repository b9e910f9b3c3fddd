"""`relay check`: what is wrong with the config, all of it, before anything runs with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay.cli import colour, term

if TYPE_CHECKING:
    from relay.config import Loaded
    from relay.problems import Problem


@click.command("check")
@term.config_option
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--no-secrets", is_flag=True, help="Check all but the values that come from outside: for CI.")
@click.option(
    "--no-credentials",
    is_flag=True,
    help="Check all but the values of systemd's credentials: for ExecReload=, which cannot read them.",
)
@term.json_option
def command(config: Path | None, file: Path | None, no_secrets: bool, no_credentials: bool, as_json: bool) -> None:
    """Check the config by the code that the daemon uses, and say every mistake with its line and column.

    Exits with 78 if the daemon would not take it. Warnings alone do not count.

    \b
    Examples:
      relay check
      relay check --no-secrets config.yaml     where the secrets are not at hand, as in CI
    """
    from relay.config import ConfigError, find_config

    if file is not None and config is not None:
        raise click.UsageError("name the config once: --config, or the file alone")
    try:
        path = find_config(file or config)
        loaded = _loaded(path, no_secrets, no_credentials)
    except ConfigError as error:
        if as_json:
            click.echo(json.dumps(_report(error.problems, error.warnings), indent=2))
        else:
            term.say_problems(error.problems, error.warnings)
        sys.exit(term.OPERATOR)
    if as_json:
        click.echo(json.dumps(_report((), loaded.warnings), indent=2))
        return
    term.say_problems((), loaded.warnings)
    counts = f"{term.count(len(loaded.config.sources), 'source')}, {term.count(len(loaded.config.routes), 'route')}"
    click.echo(f"{path}: {colour.word('ok')} ({counts})")


def _loaded(path: Path, no_secrets: bool, no_credentials: bool) -> Loaded:
    """The config, which can also be built where all its values are at hand. Raises ConfigError."""
    from relay import config as config_file
    from relay.clock import SystemClock
    from relay.runtime import build

    loaded = config_file.load(path, no_secrets=no_secrets, no_credentials=no_credentials, try_samples=True)
    if loaded.complete:
        build(loaded, 1, SystemClock().now())
    return loaded


def _report(problems: Sequence[Problem], warnings: Sequence[Problem]) -> dict[str, Any]:
    """The same for programs, such as the annotations of a CI."""
    return {"ok": not problems, "problems": list(map(asdict, problems)), "warnings": list(map(asdict, warnings))}
