"""`relay doctor`: proves that all is as it must be, or says what is not, and what to do."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from relay.cli import ask, colour, progress, term

if TYPE_CHECKING:
    from relay.checkup import Check
    from relay.config import Loaded
    from relay.survey import Progress, Surveyor

_INDENT = 24


@click.command("doctor")
@term.daemon_options
@term.json_option
def command(config: Path | None, url: str | None, token: str | None, as_json: bool) -> None:
    """Look at everything that can be wrong: config, secrets, certificates, names, the daemon, clock, disk, and whether
    the store is whole and the queue moves. It changes nothing, and works beside a running daemon or without one.

    Exits with 1 if something failed, with 78 if the store is damaged. Warnings alone do not count.

    \b
    Examples:
      relay doctor
      relay doctor --json | jq -r '.checks[] | select(.verdict != "ok") | .detail'
    """
    from relay.checkup import Unfit, Verdict

    with progress.bar("looking at everything") as moved:
        checks = list(_checks(config, url, token, moved))
    well = all(check.verdict is not Verdict.FAILED for check in checks)
    if as_json:
        click.echo(json.dumps({"ok": well, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        click.echo("\n".join(line for check in checks for line in _lines(check, term.width())))
    if not well:
        sys.exit(term.OPERATOR if any(isinstance(check, Unfit) for check in checks) else term.FAILED)


def _lines(check: Check, room: int | None) -> Iterator[str]:
    """`failed    certificates  …`, on a terminal wrapped under itself."""
    detail = term.printable(check.detail)
    head = f"{colour.word(check.verdict)}{' ' * (9 - len(check.verdict))} {check.name:<{_INDENT - 10}}"
    if room is None or room < 2 * _INDENT:
        yield head + detail
        return
    first, *others = textwrap.wrap(detail, room - _INDENT, break_on_hyphens=False) or [""]
    yield head + first
    yield from (" " * _INDENT + line for line in others)


def _checks(config: Path | None, url: str | None, token: str | None, moved: Progress) -> Iterator[Check]:
    from relay import checkup
    from relay.clock import SystemClock

    began, steady = time.time(), time.monotonic()
    now = SystemClock().now()
    health = _health(config, url, token)
    loaded, said = _config(config, now, isinstance(health, dict))
    yield from said
    yield from _daemon(health, loaded)
    if loaded is None:
        return
    yield from checkup.certificates(loaded.config, now)
    yield from checkup.names(loaded.config)
    newest = yield from _store(loaded, now, isinstance(health, dict), moved)
    # What was stored while this read is newer than its beginning.
    yield checkup.clock(SystemClock().now(), newest, time.time() - began, time.monotonic() - steady)


def _config(config: Path | None, now: datetime, running: bool) -> tuple[Loaded | None, list[Check]]:
    """The config as far as it can be read, and what is to be said of it."""
    from relay import config as config_file
    from relay.checkup import failed, ok, warning
    from relay.config import ConfigError
    from relay.runtime import build

    try:
        path = config_file.find_config(config)
        loaded = config_file.load(path, no_secrets=True)
    except ConfigError as error:
        return None, [failed("config", str(problem)) for problem in error.problems]
    try:
        loaded = config_file.load(path)
    except ConfigError as error:
        # A service has secrets that its operator's shell has not; one that runs has found them.
        say, what = (
            (warning, "not from this shell") if running else (failed, "run this as the service does, or mend it")
        )
        secrets = [say("secrets", f"{problem}: {what}") for problem in error.problems]
        return loaded, [ok("config", f"{path}: as far as it can be judged without secrets"), *secrets]
    secrets = [ok("secrets", "all that the config refers to can be read")]
    try:
        build(loaded, 1, now)
    except ConfigError as error:
        return loaded, [*(failed("config", str(problem)) for problem in error.problems), *secrets]
    counts = f"{term.count(len(loaded.config.sources), 'source')}, {term.count(len(loaded.config.routes), 'route')}"
    warnings = [warning("config", str(problem)) for problem in loaded.warnings]
    return loaded, [ok("config", f"{path}: {counts}"), *warnings, *secrets]


def _health(config: Path | None, url: str | None, token: str | None) -> dict[str, object] | Check:
    """What the daemon says, or why it does not."""
    from relay.checkup import failed, warning
    from relay.config import ConfigError

    try:
        daemon = ask.daemon(config, url, token)
        status, answer = daemon.get("/health")
        # With one address for both sides, who has no token is told what the public side says.
        if status in (401, 403) or (daemon.anonymous and answer == {"status": "ok"}):
            return warning("daemon", f"the relay at {daemon.shown} wants one of its tokens: --token or $RELAY_TOKEN")
        if status == 503 and isinstance(answer, dict) and "checks" in answer:  # it fails, and says in what
            status = 200
        return dict(daemon.require("checks", status, answer))
    except ask.Unreachable as error:
        return warning("daemon", str(error))
    except term.Complaint as error:
        return failed("daemon", error.message)
    except ConfigError:
        return warning("daemon", "the config does not say where it would answer: say --url")


def _daemon(health: dict[str, object] | Check, loaded: Loaded | None) -> list[Check]:
    from relay import checkup

    if not isinstance(health, dict):
        return [health]
    return checkup.daemon(health, loaded.sha256 if loaded is not None else None)


def _store(loaded: Loaded, now: datetime, running: bool, moved: Progress) -> Generator[Check, None, datetime | None]:
    """What is to be said of the store; gives when its newest entry was made."""
    from relay import checkup
    from relay.fields import Unresolved
    from relay.secret import Redactor
    from relay.store import Unavailable, Unusable
    from relay.stores import server, surveyed

    section, redact = loaded.config.store, Redactor(loaded.secrets)
    if isinstance(section.url, Unresolved):
        yield checkup.warning("store", "where it is cannot be read from this shell: run this as the service does")
        return None
    if section.path is not None and not section.path.exists():
        yield checkup.warning("store", f"there is none at {section.path} yet: 'relay serve' makes one")
        return None
    try:
        if (said := server(section.url)) is not None:
            yield from checkup.database(said)
            if said.schema < said.newest_schema:
                return None
            running = running or bool(said.alive)
        with surveyed(section.url) as survey:
            if (space := survey.space()) is not None:
                yield checkup.disk(space)
            yield from _queue(survey, loaded, now, running, moved)
            return survey.newest()
    except Unusable as error:
        yield checkup.unfit("store", redact(str(error)))
    except Unavailable as error:
        yield checkup.failed("store", redact(str(error)))
    return None


def _queue(survey: Surveyor, loaded: Loaded, now: datetime, running: bool, moved: Progress) -> Iterator[Check]:
    from relay import checkup

    yield from checkup.laws(survey.laws(False), survey.faults(False, moved))
    late = survey.overdue(now - checkup.LONG_OVERDUE)
    yield from checkup.overdue(loaded.config, late, survey.states("route"), running)
