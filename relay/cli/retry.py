"""`relay retry`: send again what failed or was cancelled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from relay.cli import ask, hand, logs, term

_WHICH = "name deliveries (dlv_…), or filters such as --route www, or say --all"


@click.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID…]")
@logs.selecting
@click.option("--all", "everything", is_flag=True, help="Everything that failed.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@term.json_option
@term.daemon_options
@term.config_errors
def command(
    ids: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    as_json: bool,
    config: Path | None,
    url: str | None,
    token: str | None,
    **given: Any,
) -> None:
    """Make failed or cancelled deliveries pending again, due now; pending ones become due now.

    Filters, which are those of 'relay logs', find failed ones only.

    \b
    Examples:
      relay retry dlv_01M85CA5GE9CETFWDHANEQSGCC
      relay retry --route search --since 2h --dry-run
      relay retry --status failed --route search --since 2h
    """
    context = click.get_current_context()
    query = logs.asked(given)
    for name, value in given.items():
        if name not in query and value not in (None, ()):
            raise click.UsageError(f"--{name.replace('_', '-')} is empty", context)
    ways = bool(ids) + bool(query) + everything
    if ways != 1:
        raise click.UsageError(_WHICH if not ways else f"one at a time: {_WHICH}", context)
    if ids and dry_run:
        raise click.UsageError("--dry-run is for filters and --all", context)
    for id_text in ids:
        term.need_id(id_text, "dlv_")
    daemon = ask.daemon(config, url, token)
    if ids:
        hand.each(daemon, ids, lambda id_text: f"/logs/{id_text}/retry", "delivery", _said, as_json)
        return
    if everything:
        query["all"] = "1"
    if dry_run:
        query["dry_run"] = "1"
    with hand.waiting("looking" if dry_run else "retrying"):
        status, answer = hand.post(daemon, "/logs/retry", query)
    done = daemon.require("count", status, answer)
    if as_json:
        click.echo(json.dumps(done, indent=2))
        return
    count = term.count(done["count"], "delivery")
    would = "would be" if dry_run else "is" if done["count"] == 1 else "are"
    click.echo(f"{count} {would} pending, due now")
    if done["passed_over"]:
        click.echo(
            f"{term.count(done['passed_over'], 'delivery')} passed over:"
            " something newer of the same entry was sent or waits (order: latest)"
        )


def _said(id_text: str, answer: Any) -> str:
    state = answer["delivery"]["status"]
    if state == "held":
        return f"{id_text}: held, until its route may send ('relay resume', or the config)"
    return f"{id_text}: {state}, due now" if state == "pending" else f"{id_text}: {state}"
