"""`relay cancel`: give up what waits."""

from __future__ import annotations

from pathlib import Path

import click

from relay.cli import ask, hand, term


@click.command("cancel")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@term.json_option
@term.daemon_options
@term.config_errors
def command(ids: tuple[str, ...], as_json: bool, config: Path | None, url: str | None, token: str | None) -> None:
    """Give up pending or held deliveries: they are kept in the logs as cancelled, and 'relay retry' brings them back.

    An attempt that is under way is not called back.

    \b
    Examples:
      relay cancel dlv_01M85CA5GE9CETFWDHANEQSGCC
      relay logs --status held --route old --json | jq -r '.items[].id' | xargs relay cancel
    """
    for id_text in ids:
        term.need_id(id_text, "dlv_")
    daemon = ask.daemon(config, url, token)
    hand.each(
        daemon,
        ids,
        lambda id_text: f"/logs/{id_text}/cancel",
        "delivery",
        lambda id_text, answer: f"{id_text}: {answer['delivery']['status']}",
        as_json,
    )
