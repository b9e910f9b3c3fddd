"""How verbs speak: options they share, and errors in one line that says what to do."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import click

from relay.plaintext import columns as columns
from relay.plaintext import cut as cut
from relay.plaintext import paragraph as paragraph
from relay.plaintext import plain as plain
from relay.plaintext import printable as printable
from relay.plaintext import table as table
from relay.plaintext import widths as widths
from relay.systemd import priority

if TYPE_CHECKING:
    from relay.problems import Problem

FAILED = 1
USAGE = 2
OPERATOR = 78  # EX_CONFIG of sysexits(3): a restart will not help; systemd is told not to try


P = ParamSpec("P")
R = TypeVar("R")


class Complaint(click.ClickException):
    """Why a verb cannot go on: it is said and ends it, unless somebody can make something of it."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Say why on standard error and exit."""
    complain(message)
    sys.exit(code)


def complain(message: str) -> None:
    """One line on standard error."""
    say(f"relay: {message}")


def say(message: str, level: str = "error") -> None:
    """One line on standard error, which journald files under its level."""
    click.echo(f"{priority(level)}{printable(message)}", err=True)


def config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--config`, for every verb."""
    return click.option(
        "-c",
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The config (default: $RELAY_CONFIG, ./config.yaml, /etc/relay/config.yaml).",
    )(function)


def daemon_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How to reach the running daemon."""
    function = click.option(
        "--token", envvar="RELAY_TOKEN", help="Its admin token (default: $RELAY_TOKEN, else the config's)."
    )(function)
    function = click.option(
        "--url",
        envvar="RELAY_URL",
        help="The daemon's admin side, http://host:port or unix:/path (default: $RELAY_URL, else the config's).",
    )(function)
    return config_option(function)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def config_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Print every mistake of the config and exit with 78."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        from relay.problems import ConfigError

        try:
            return function(*args, **kwargs)
        except ConfigError as error:
            say_problems(error.problems, error.warnings)
            sys.exit(OPERATOR)

    return wrapper


def say_problems(problems: Sequence[Problem], warnings: Sequence[Problem]) -> None:
    """What is wrong with a config, a line for each mistake."""
    for problem in problems:
        say(str(problem))
    for warning in warnings:
        say(str(warning), "warning")


def one_of(what: str, name: str, known: Iterable[str]) -> str:
    """`there is no source 'blgo' (did you mean 'blog'?): there are blog and shop`."""
    from relay.problems import did_you_mean

    names = list(known)
    there = f"there are {', '.join(names)}" if names else "there are none"
    return f"there is no {what} '{name}'{did_you_mean(name, names)}: {there}"


def count(number: int, noun: str) -> str:
    """`1 route`, `2 routes`, `3 deliveries`."""
    several = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else several}"


def width() -> int | None:
    """The columns of the terminal; None where standard output is something else."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def listing(header: Sequence[str], rows: Sequence[Sequence[object]], flexible: Collection[str] = ()) -> str:
    """A table as whoever reads standard output wants it: fitted and coloured on a terminal, else whole and plain."""
    room = width()
    if room is None:
        return table(header, rows)
    from relay.cli import screen

    return "\n".join(screen.table(header, rows, flexible, room))
