"""`relay forget`: remove what an event said."""

from __future__ import annotations

from typing import Any

import click

from relay.cli import selection


@click.command("forget")
@selection.options("[EVT…]", everything="All events.")
def command(**given: Any) -> None:
    """Remove the body and the headers of events for good, as when somebody asks for their data to be erased.

    The description and the attempts stay in the logs. What is still to be sent has to be cancelled first. Backups, and
    what was sent already, are not reached. Filters are those of 'relay logs'.

    \b
    Examples:
      relay forget evt_01M85CA5GE9CERZWDHANEQSGCC
      relay forget --source shop --entry-id 1042 --dry-run
    """
    selection.events(given).each(
        "forgotten",
        lambda id_text: f"/events/{id_text}/forget",
        "forgotten",
        lambda id_text, answer: f"{id_text}: its body and headers are gone",
        passes=lambda detail: None,  # what was to be erased and is not has to be said, and is no success
    )
