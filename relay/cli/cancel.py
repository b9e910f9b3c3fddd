"""`relay cancel`: give up what waits."""

from __future__ import annotations

from typing import Any

import click

from relay.cli import selection


@click.command("cancel")
@selection.options("[ID…]", everything="Everything that is pending or held.")
def command(**given: Any) -> None:
    """Give up pending or held deliveries: they are kept in the logs as cancelled, and 'relay retry' brings them back.

    An attempt that is under way is not called back. Filters are those of 'relay logs'.

    \b
    Examples:
      relay cancel dlv_01M85CA5GE9CETFWDHANEQSGCC
      relay cancel --status held --route old --dry-run
    """
    selection.deliveries(given, "pending", "held").each(
        "cancelled",
        lambda id_text: f"/logs/{id_text}/cancel",
        "delivery",
        lambda id_text, answer: f"{id_text}: {answer['delivery']['status']}",
        passes=lambda detail: "no longer waiting",
    )
