"""How verbs speak: options they share, tables, and errors in one line that says what to do."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

FAILED = 1
OPERATOR = 78  # EX_CONFIG of sysexits(3): a restart will not help; systemd is told not to try

P = ParamSpec("P")
R = TypeVar("R")


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Say why on standard error and exit."""
    click.echo(f"relay: {message}", err=True)
    sys.exit(code)


def config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--config`, for every verb."""
    return click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path),
        help="the config file (default: $RELAY_CONFIG, ./config.yaml, /etc/relay/config.yaml)",
    )(function)


def daemon_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How to reach the running daemon."""
    function = click.option("--token", envvar="RELAY_TOKEN", help="its admin token (default: the config's)")(function)
    function = click.option("--url", envvar="RELAY_URL", help="its admin address (default: the config's)")(function)
    return config_option(function)


json_option = click.option("--json", "as_json", is_flag=True, help="print JSON")


def config_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Print every mistake of the config and exit with 78."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        from relay.config import ConfigError

        try:
            return function(*args, **kwargs)
        except ConfigError as error:
            for problem in error.problems:
                click.echo(str(problem), err=True)
            sys.exit(OPERATOR)

    return wrapper


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns; on a terminal cut to its width."""
    texts = [[_plain(cell) for cell in row] for row in rows]
    widths = [max(len(cells[i]) for cells in [list(header), *texts]) for i in range(len(header))]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    lines = []
    for cells in [[name.upper() for name in header], *texts]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        lines.append(line[:limit] if limit else line)
    return "\n".join(lines)


def _plain(value: object) -> str:
    """A cell: what a sender wrote cannot move the cursor or break the line."""
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return printable(str(value))


def printable(text: str) -> str:
    """Text with control and direction characters escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
