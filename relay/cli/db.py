"""`relay db`: the store: what is in it, whether it is whole, a backup, a move, and what is out of date removed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay.cli import ask, colour, hand, offline, progress, term

if TYPE_CHECKING:
    from relay.schema import Store as Section
    from relay.survey import Fault, Figures

_STATES = ("pending", "held", "delivered", "failed", "merged", "cancelled")


@click.group("db", subcommand_metavar="stats|check|backup|copy|prune …")
def command() -> None:
    """Look at the store's file, back it up, and remove what is out of date: beside a running daemon or without one.

    \b
    Examples:
      relay db stats
      relay db backup /var/backups/relay.db
      relay db stats --help
    """


@command.command("stats", short_help="count what is in it")
@term.config_option
@term.json_option
@term.config_errors
def stats(config: Path | None, as_json: bool) -> None:
    """Count what is in it: rows by table, deliveries by route and state, sizes, the oldest and the newest event.

    \b
    Example:
      relay db stats --json | jq .rows
    """
    with offline.survey(config) as survey, progress.bar("counting") as moved:
        figures = survey.figures(moved)
    click.echo(json.dumps(_as_json(figures), indent=2) if as_json else _page(figures))


@command.command("check", short_help="read all of it: is it whole?")
@term.config_option
@term.json_option
@term.config_errors
def check(config: Path | None, as_json: bool) -> None:
    """Read all of it: are pages and indexes whole, and does all hold that must?

    \b
    Example:
      relay db check && relay db backup /var/backups/relay.db --force
    """
    with offline.survey(config) as survey, progress.bar("reading all of it") as moved:
        laws = survey.laws(True)
        found = {fault.name: fault for fault in survey.faults(True, moved)}
    if as_json:
        faults = [asdict(fault) for fault in found.values()]
        click.echo(json.dumps({"ok": not found, "checked": list(laws), "faults": faults}, indent=2))
    else:
        rows = [("failed" if law in found else "ok", law, _said(found.get(law))) for law in laws]
        click.echo(term.listing(("result", "check", "found"), rows, ("found",)))
    if found:
        if not as_json:
            term.complain("keep a copy of it, then restore a backup: see 'A damaged file' in docs/operating.md")
        sys.exit(term.OPERATOR if "integrity" in found else term.FAILED)


@command.command("backup", short_help="copy it, while the daemon runs")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE where it is there already.")
@term.config_option
@term.json_option
@term.config_errors
def backup(file: Path, force: bool, config: Path | None, as_json: bool) -> None:
    """Make a copy of the store as it is at one moment, while the daemon runs on.

    FILE appears when it is whole and on disk, readable by nobody else. A relay that is started on a copy holds all
    routes until 'relay resume --all', for the copy does not know what was sent after it was made.

    \b
    Example:
      relay db backup "/var/backups/relay-$(date +%F).db"
    """
    from relay.clock import SystemClock, rfc3339
    from relay.survey import CannotCopy

    now = SystemClock().now()
    with offline.survey(config) as survey, progress.bar("copying") as moved:
        try:
            size = survey.copy(file, now, moved, replace=force)
        except CannotCopy as error:
            term.fail(str(error))
    if as_json:
        click.echo(json.dumps({"file": str(file), "size_bytes": size, "at": rfc3339(now)}, indent=2))
    else:
        click.echo(f"{term.printable(str(file))}: {_size(size)}, as it was at {rfc3339(now)}")


@command.command("copy", short_help="move it to PostgreSQL, with the daemon stopped")
@click.argument("sqlite_url", metavar="SQLITE_URL")
@click.argument("postgres_url", metavar="POSTGRES_URL")
@term.json_option
def copy(sqlite_url: str, postgres_url: str, as_json: bool) -> None:
    """Copy all of a SQLite store into an empty PostgreSQL database, with the daemon stopped, and check what came there.

    It is all there in the end, or nothing is. Ids stay as they are; SQLITE_URL is only read. A password belongs into
    $PGPASSWORD or ~/.pgpass: others see what is typed here.

    \b
    Example:
      relay db copy sqlite:/var/lib/relay/relay.db postgresql://relay@db.example.com/relay
    """
    from relay import storeurl
    from relay.secret import Redactor
    from relay.store import Locked, Unavailable, Unusable
    from relay.stores import lacking
    from relay.survey import CannotCopy

    if postgres_url.startswith(("postgresql:", "postgres:")):
        try:
            postgres_url = storeurl.checked(postgres_url)
        except ValueError as error:
            term.fail(f"POSTGRES_URL: {error}", term.USAGE)
    redact = Redactor(storeurl.hidden(postgres_url))
    for url, scheme in ((sqlite_url, "sqlite:"), (postgres_url, "postgresql:")):
        if not url.startswith(scheme) or url == scheme:
            term.fail(f"expected a URL that begins with {scheme}, as in store.url", term.USAGE)
    for url in (sqlite_url, postgres_url):
        if (needed := lacking(url)) is not None:
            term.fail(needed, term.OPERATOR)
    from relay.stores.postgresql import copying

    try:
        with progress.bar("copying") as moved:
            copied = copying.copy(Path(sqlite_url.removeprefix("sqlite:")), postgres_url, moved)
    except Unusable as error:
        term.fail(redact(str(error)), term.OPERATOR)
    except Locked as error:
        term.fail(f"{error}: stop it first")
    except (CannotCopy, Unavailable) as error:
        term.fail(redact(str(error)))
    if as_json:
        click.echo(json.dumps(asdict(copied), indent=2))
        return
    rows = [(table.name, table.rows, table.checksum) for table in copied.tables]
    click.echo(term.listing(("table", "rows", "checksum"), rows))
    where = term.printable(copied.target)
    click.echo(f"\nCounts and checksums are the same on both sides: {where} has all of it.")
    if copied.bad_bodies:
        bodies = term.count(copied.bad_bodies, "body")
        click.echo(f"{bodies} had another checksum than when accepted, and still have: 'relay db check' names them.")
    click.echo("Next: set store.url to that URL and start relay. Do not start it on the old file: it would send again.")


@command.command("prune", short_help="remove what is older than the config wants it kept")
@click.option("--dry-run", is_flag=True, help="Only count what would be removed.")
@term.daemon_options
@term.json_option
@term.config_errors
def prune(config: Path | None, url: str | None, token: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove now what is older than the config wants it kept. A running daemon does so by itself, too.

    \b
    Examples:
      relay db prune --dry-run
      relay db prune
    """
    daemon = ask.daemon(config, url, token)
    try:
        with hand.waiting("counting" if dry_run else "pruning"):
            status, answer = daemon.post("/store/prune", {"dry_run": "1"} if dry_run else None, hand.PATIENCE)
        done = daemon.require("events", status, answer)
    except ask.Unreachable as error:
        if url is not None:
            term.fail(str(error))
        done = _pruned(*ask.store(config), dry_run)
    if as_json:
        click.echo(json.dumps({**done, "dry_run": True} if dry_run else done, indent=2))
        return
    words = f"{term.count(done['events'], 'event')} and {term.count(done['deliveries'], 'delivery')}"
    would = "would be " if dry_run else ""
    click.echo(f"{words} {would}removed, and the bodies of {done['bodies']} that are kept")


def _pruned(section: Section, redact: Callable[[str], str], dry_run: bool) -> dict[str, Any]:
    """The same without a daemon, which would hold the lock of a file."""
    import asyncio

    from relay.clock import SystemClock
    from relay.store import Locked, Pruned, Unavailable, Unusable
    from relay.stores import open_reader, open_store

    offline.needed(section)

    async def prune(counted: Callable[[int], None]) -> dict[str, Any]:
        def told(so_far: Pruned) -> None:
            counted(so_far.events + so_far.bodies)

        clock = SystemClock()
        if dry_run:
            reader = await open_reader(section.url)
            try:
                done = await reader.prunable(clock.now(), section.retention, section.bodies, told)
            finally:
                await reader.close()
        else:
            if section.path is None:  # a database without a store is not to become one by being pruned
                await (await open_reader(section.url)).close()
            store = await open_store(section.url, clock)
            try:
                done = await store.prune(clock.now(), section.retention, section.bodies, told)
            finally:
                await store.close()
        return {"events": done.events, "deliveries": done.deliveries, "bodies": done.bodies}

    try:
        with progress.counting("counting" if dry_run else "pruning") as counted:
            return asyncio.run(prune(counted))
    except Unusable as error:
        term.fail(redact(str(error)), term.OPERATOR)
    except (Locked, Unavailable) as error:
        term.fail(redact(str(error)))


# --- for people -------------------------------------------------------------------------------------------------------


def _as_json(figures: Figures) -> dict[str, Any]:
    from relay.clock import rfc3339

    def plain(value: Any) -> Any:
        return rfc3339(value) if isinstance(value, datetime) else value

    totals = {state: sum(each.get(state, 0) for each in figures.routes.values()) for state in _STATES}
    return {**{name: plain(value) for name, value in asdict(figures).items()}, "deliveries": totals}


def _page(figures: Figures) -> str:
    shown = _as_json(figures)
    kind, unused = "database" if figures.location.startswith("postgresql:") else "file", figures.unused_bytes
    pairs = [
        (kind, term.printable(figures.location)),
        ("schema", str(figures.schema)),
        ("size", _size(figures.size_bytes) + (f", {_size(unused)} of it unused" if unused is not None else "")),
        *([("log", _size(figures.log_bytes))] if figures.log_bytes is not None else []),
        *([("disk", f"{_size(figures.free_bytes)} left")] if figures.free_bytes is not None else []),
        ("oldest", shown["oldest"] or "-"),
        ("newest", shown["newest"] or "-"),
    ]
    tables = term.listing(("table", "rows"), list(figures.rows.items()))
    rows = [(name, *(each.get(state, 0) for state in _STATES)) for name, each in sorted(figures.routes.items())]
    rows.append(("(all)", *(shown["deliveries"][state] for state in _STATES)))
    routes = term.listing(("route", *_STATES), rows, ("route",))
    title = colour.paint("store", "bold")
    return "\n".join([title, *term.columns(pairs), "", tables, "", routes])


def _said(fault: Fault | None) -> str:
    if fault is None:
        return ""
    more = ", …" if fault.count > len(fault.examples) else ""
    return f"{fault.count} {fault.broken}: {', '.join(fault.examples)}{more}"


def _size(size: int) -> str:
    """`1.5 MiB`."""
    number = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{size} bytes" if unit == "bytes" else f"{number:.1f} {unit}"
