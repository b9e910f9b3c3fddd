"""`relay retry`: send again what failed or was cancelled."""

from __future__ import annotations

import json
from typing import Any

import click

from relay.cli import hand, selection, term

_HELD = "held, until its route may send ('relay resume', 'relay move' or the config)"


@click.command("retry")
@selection.options("[ID…]", everything="Everything that failed.")
def command(**given: Any) -> None:
    """Make failed or cancelled deliveries pending again, due now; pending ones become due now.

    Filters, which are those of 'relay logs', find failed ones only.

    \b
    Examples:
      relay retry dlv_01M85CA5GE9CETFWDHANEQSGCC
      relay retry --route search --since 2h --dry-run
      relay retry --status failed --route search --since 2h
    """
    chosen = selection.deliveries(given)
    daemon, query, dry_run = chosen.daemon, chosen.query, chosen.dry_run
    if chosen.ids:
        hand.each(daemon, chosen.ids, lambda id_text: f"/logs/{id_text}/retry", "delivery", _said, chosen.as_json)
        return
    if not query:
        query["all"] = "1"
    if dry_run:
        query["dry_run"] = "1"
    with hand.waiting("looking" if dry_run else "retrying"):
        status, answer = hand.post(daemon, "/logs/retry", query)
    done = daemon.require("count", status, answer)
    if not done["count"] and not done["passed_over"]:
        chosen.hint()
    if chosen.as_json:
        click.echo(json.dumps(done, indent=2))
        return
    held = done.get("held", 0)  # an older relay does not say it
    if held < done["count"] or not held:
        click.echo(_become(done["count"] - held, "pending, due now", dry_run))
    if held:
        click.echo(_become(held, _HELD, dry_run))
    if done["passed_over"]:
        click.echo(
            f"{term.count(done['passed_over'], 'delivery')} passed over:"
            " something newer of the same entry was sent or waits (order: latest), or the body is no longer kept"
        )


def _become(number: int, what: str, dry_run: bool) -> str:
    would = "would be" if dry_run else "is" if number == 1 else "are"
    return f"{term.count(number, 'delivery')} {would} {what}"


def _said(id_text: str, answer: Any) -> str:
    state = answer["delivery"]["status"]
    if state == "held":
        return f"{id_text}: {_HELD}"
    if state != "pending":
        return f"{id_text}: {state}"
    waits = answer.get("waits_for")  # an older relay does not say it
    return f"{id_text}: pending, due now" + (f", but waits: {waits['message']}" if waits else "")
