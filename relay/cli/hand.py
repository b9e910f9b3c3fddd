"""What the verbs share that do something by hand: one request for each thing that is named."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from relay.cli import ask, completing, prefix, progress, term
from relay.immutable import immutable

PATIENCE = 600.0  # seconds: a route may have a million deliveries, and a destination its own timeout
_SOON = 0.5  # seconds after which a person wonders


def post(daemon: ask.Daemon, path: str, query: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """The status and the answer of a POST that may take long."""
    try:
        return daemon.post(path, query, PATIENCE)
    except ask.Unreachable as error:
        term.fail(str(error))


def get(daemon: ask.Daemon, path: str, key: str, query: Mapping[str, str] | None = None) -> Any:
    """The answer to a GET, which has this key."""
    try:
        status, answer = daemon.get(path, query)
    except ask.Unreachable as error:
        term.fail(str(error))
    return daemon.require(key, status, answer)


def named(daemon: ask.Daemon, ids: Iterable[str]) -> tuple[str, ...]:
    """The ids that are meant by ids or their beginnings, as the daemon knows them."""
    return prefix.whole(ids, lambda query: get(daemon, "/logs", "items", query))


def each(
    daemon: ask.Daemon,
    names: Sequence[str],
    path: Callable[[str], str],
    key: str,
    said: Callable[[str, Any], str] | None,
    as_json: bool,
    query: Mapping[str, str] | None = None,
) -> list[Any]:
    """Do something with each of several things, and say of each what became of it, unless `said` is None. Where one is
    not there, or its state does not allow it, that is said, the others go on, and in the end the verb has failed.
    Returns the answers."""
    answers: list[Any] = []
    failures: list[Any] = []
    spoken = said is not None and not as_json
    with contextlib.ExitStack() as stack:
        # Where each is told on this terminal, that is the progress.
        silent = len(names) > 1 and not (spoken and sys.stdout.isatty())
        moved = stack.enter_context(progress.bar("asking the daemon")) if silent else None
        for number, name in enumerate(names, 1):
            status, answer = post(daemon, path(name), query)
            if moved is not None:
                moved(number, len(names))
            if status in (404, 409) and isinstance(answer, dict) and "detail" in answer:
                term.complain(str(answer["detail"]))
                failures.append({"id": name, **answer})
                continue
            answers.append(daemon.require(key, status, answer))
            if said is not None and not as_json:
                click.echo(term.printable(said(name, answer)))
    if as_json:
        click.echo(json.dumps(answers + failures, indent=2))
    if failures:
        if not spoken and not as_json:
            click.echo(f"{len(answers)} of {len(names)} done")
        sys.exit(term.FAILED)
    return answers


@immutable
class Told:
    """What a daemon answered to one request for each of many things, in the words that its verb has for it."""

    done: list[Any]
    passed_over: Mapping[str, int]
    """How many it was not to be done to, by why."""
    failures: list[Any]


def many(
    daemon: ask.Daemon,
    names: Sequence[str],
    path: Callable[[str], str],
    key: str,
    passes: Callable[[int, str], str | None],
    as_json: bool,
    query: Mapping[str, str] | None = None,
) -> Told:
    """Do something to each thing that filters found. One of which `passes` says why it is none of those that were meant
    (by the status and the detail of the answer) is passed over and counted: nobody named it. Of what fails, the first
    is said and the others are counted, and the verb is to fail."""
    done: list[Any] = []
    passed: list[Any] = []
    failures: list[Any] = []
    reasons: Counter[str] = Counter()
    with progress.bar("asking the daemon") if len(names) > 1 else contextlib.nullcontext() as moved:
        for number, name in enumerate(names, 1):
            status, answer = post(daemon, path(name), query)
            if moved is not None:
                moved(number, len(names))
            if status not in (404, 409) or not isinstance(answer, dict) or "detail" not in answer:
                done.append(daemon.require(key, status, answer))
                continue
            why = passes(status, str(answer["detail"]))
            (failures if why is None else passed).append({"id": name, **answer})
            if why is not None:
                reasons[why] += 1
    if as_json:
        click.echo(json.dumps(done + passed + failures, indent=2))
    if failures:
        more = f" (and {len(failures) - 1} more like it)" if len(failures) > 1 else ""
        term.complain(f"{failures[0]['detail']}{more}")
    return Told(done, reasons, failures)


def route_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Names of routes or `--all`, `--dry-run`, and how to reach the daemon."""
    for option in (
        term.config_errors,
        term.daemon_options,
        term.json_option,
        click.option("--dry-run", is_flag=True, help="Only say what it would do."),
        click.option("--all", "everything", is_flag=True, help="All routes of the config."),
        click.argument("names", nargs=-1, metavar="[ROUTE…]", shell_complete=completing.routes),
    ):
        function = option(function)
    return function


def turn(
    verb: str,
    names: Sequence[str],
    everything: bool,
    dry_run: bool,
    as_json: bool,
    daemon: ask.Daemon,
    would: Callable[[dict[str, Any]], str],
    said: Callable[[str, Any], str],
    query: Mapping[str, str] | None = None,
) -> None:
    """Pause or resume routes, or say what that would do."""
    meant = routes(daemon, names, everything)
    if dry_run:
        click.echo(json.dumps(meant, indent=2) if as_json else "\n".join(map(would, meant)))
    elif everything:
        with waiting(f"asking the daemon to {verb}"):
            status, answer = post(daemon, f"/routes/{verb}", query)
        done = daemon.require("routes", status, answer)["routes"]
        click.echo(json.dumps(done, indent=2) if as_json else "\n".join(term.printable(said("", one)) for one in done))
    else:
        found = [route["name"] for route in meant]
        each(daemon, found, lambda name: f"/routes/{name}/{verb}", "changed", said, as_json, query)


def routes(daemon: ask.Daemon, names: Sequence[str], everything: bool) -> list[dict[str, Any]]:
    """The routes that are meant, as the daemon shows them. Nothing is done to any where one does not exist."""
    if bool(names) is everything:
        what = "--all and names exclude each other" if everything else "name routes, or say --all"
        raise click.UsageError(what, click.get_current_context())
    known = {route["name"]: route for route in get(daemon, "/routes", "routes")["routes"]}
    for name in names:
        if name not in known:
            term.fail(term.one_of("route", name, known), term.USAGE)
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show a person at a terminal that something is going on, and for how long."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()

    def show() -> None:
        seconds = 0
        pause = _SOON
        while not done.wait(pause):
            click.echo(f"\r{what} … {seconds} s", nl=False, err=True)
            seconds += 1
            pause = 1.0
        if seconds:
            click.echo("\r\x1b[K", nl=False, err=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
