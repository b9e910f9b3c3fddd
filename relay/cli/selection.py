"""Which things a verb acts upon: those that are named, or all that filters find."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import click

from relay.cli import ask, hand, hint, logs, prefix, progress, term
from relay.immutable import immutable

_PAGE = "1000"
_GONE = "gone meanwhile"
_OF_EVENTS = ("pending", "delivered", "failed", "held", "merged", "cancelled", "unmatched")
"""Every status that tells of an event: all but that of requests that were refused."""
_SHARED = ("ids", "everything", "dry_run", "as_json", "config", "url", "token")


def options(
    metavar: str, everything: str, leave_out: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Ids, the filters of `relay logs`, `--all` and `--dry-run`, and how to reach the daemon."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            term.config_errors,
            term.daemon_options,
            term.json_option,
            click.option("--dry-run", is_flag=True, help="Only say how many there are."),
            click.option("--all", "everything", is_flag=True, help=everything),
        ):
            function = option(function)
        function = logs.filters(function, (*logs.PAGING, *leave_out))
        return click.argument("ids", nargs=-1, metavar=metavar)(function)

    return decorate


@immutable
class Selection:
    """What is meant: `ids`, or else what `query` finds, or everything."""

    daemon: ask.Daemon
    noun: str
    ids: tuple[str, ...]
    query: dict[str, str]
    statuses: tuple[str, ...]
    """Of which status something must be to be meant, unless the filters say."""
    dry_run: bool
    as_json: bool
    config: Path | None

    def each(
        self,
        done: str,
        path: Callable[[str], str],
        key: str,
        said: Callable[[str, Any], str],
        query: dict[str, str] | None = None,
        *,
        passes: Callable[[str], str | None],
        would: Callable[[ask.Daemon, list[str]], Counter[str] | None] | None = None,
    ) -> None:
        """Do it to each of them. What filters find is looked up here, all of it before anything is done.

        Nobody named these: one that is gone meanwhile is passed over, and so is one for which `passes` makes of the
        daemon's refusal why it is none of them. `would` counts beforehand what will be passed over; None where that
        cannot be known."""
        if self.ids:
            hand.each(self.daemon, self.ids, path, key, said, self.as_json, query)
            return
        found = self._found()
        if not found:
            self.hint()
        if self.dry_run:
            if would is None:
                self._would(done, {"count": len(found)}, Counter())
                return
            passed = would(self.daemon, found) if found else Counter()
            number = None if passed is None else passed.total()
            self._would(done, {"count": len(found) - (number or 0), "passed_over": number}, passed)
            return

        def why(status: int, detail: str) -> str | None:
            return _GONE if status == 404 else passes(detail)

        told = hand.many(self.daemon, found, path, key, why, self.as_json, query)
        if not self.as_json:
            some = f"{len(told.done)} of {len(found)}" if told.failures else None
            click.echo(f"{some} done" if some else f"{term.count(len(told.done), self.noun)} {done}")
            for reason, number in told.passed_over.items():
                were = "was" if number == 1 else "were"
                click.echo(f"{term.count(number, self.noun)} {reason} {were} passed over")
        if told.failures:
            sys.exit(term.FAILED)

    def hint(self) -> None:
        """Nothing was found: say what may be the matter with the filters."""
        hint.unknown_names(
            self.query, self.config, self.daemon, lambda query: hand.get(self.daemon, "/logs", "items", query)
        )

    def _would(self, done: str, answer: dict[str, Any], passed: Counter[str] | None) -> None:
        """What a dry run says."""
        if self.as_json:
            click.echo(json.dumps(answer, indent=2))
            return
        click.echo(f"{'at most ' if passed is None else ''}{term.count(answer['count'], self.noun)} would be {done}")
        for reason, number in (passed or {}).items():
            click.echo(f"{term.count(number, self.noun)} {reason} would be passed over")

    def _found(self) -> list[str]:
        """The ids of all that the query finds, oldest first, each once."""
        found: dict[str, None] = {}
        query = {"status": ",".join(self.statuses), **self.query, "limit": _PAGE, "order": "asc"}
        key = "event_id" if self.noun == "event" else "id"
        with progress.counting("looking") as seen:
            while True:
                page = hand.get(self.daemon, "/logs", "items", query)
                found.update(dict.fromkeys(item[key] for item in page["items"] if item[key] is not None))
                seen(len(found))
                if page["next"] is None:
                    return list(found)
                query["cursor"] = page["next"]


def deliveries(given: dict[str, Any], *statuses: str) -> Selection:
    """The deliveries that the options mean. A filter by status may only name `statuses`, where there are any: else that
    is for the daemon to judge."""
    return _of(given, "delivery", "dlv_", "deliveries (dlv_…), or filters such as --route www", statuses)


def events(given: dict[str, Any]) -> Selection:
    """The events that the options mean: filters find what came of them, or that nothing did."""
    return _of(given, "event", "evt_", "events (evt_…), or filters such as --since 2h", _OF_EVENTS)


def _of(given: dict[str, Any], noun: str, kind: str, what: str, statuses: tuple[str, ...]) -> Selection:
    """Exactly one of ids, filters and `--all`, so that nothing is done to more than was meant."""
    ids, everything, dry_run, as_json, config, url, token = (given.pop(name) for name in _SHARED)
    context = click.get_current_context()
    query = logs.asked(given)
    for name, value in given.items():
        if name not in query and value not in (None, ()):
            raise click.UsageError(f"--{name.replace('_', '-')} is empty", context)
    ways = bool(ids) + bool(query) + everything
    if ways != 1:
        which = f"name {what}, or say --all"
        raise click.UsageError(which if not ways else f"one at a time: {which}", context)
    if ids and dry_run:
        raise click.UsageError("--dry-run is for filters and --all", context)
    wrong = [word for word in query.get("status", "").split(",") if word and statuses and word not in statuses]
    if wrong:
        raise click.UsageError(f"--status takes {', '.join(statuses)} here, not '{wrong[0]}'", context)
    prefix.checked(ids, kind)
    daemon = ask.daemon(config, url, token)
    return Selection(daemon, noun, hand.named(daemon, ids), query, statuses, dry_run, as_json, config)
