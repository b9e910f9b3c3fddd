"""What a person is told was done: kept in memory until they see their next page, and for a while after."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from relay.immutable import immutable
from relay.web.dashboard.wording import count

_MOST = 100
_LONGEST_BODY = 4000


@immutable
class Receipt:
    """One thing that was done."""

    text: str
    well: bool = True
    links: Sequence[str] = ()
    """Ids of what came of it."""
    lines: Sequence[tuple[str, str]] = ()
    """What else is known, by name."""
    body: str = ""
    """What a destination said."""


class Receipts:
    """The last ones, by a name that nobody guesses: a link that somebody else made says nothing here."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Receipt] = OrderedDict()

    def keep(self, receipt: Receipt) -> str:
        """Keep it; the name by which the next page finds it."""
        name = secrets.token_urlsafe(9)
        self._kept[name] = receipt
        if len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        return name

    def find(self, name: str | None) -> Receipt | None:
        """The one of that name."""
        return self._kept.get(name) if name is not None else None


def of(path: str, said: dict[str, Any]) -> Receipt:
    """What the answer to an action comes to in words."""
    match path.strip("/").split("/"):
        case ["logs", "retry"]:
            passed = said.get("passed_over") or 0
            more = f" {count(passed, 'delivery')} passed over: an order forbids to send them again." if passed else ""
            return Receipt(f"{count(said['count'], 'delivery')} will be tried again now.{more}")
        case ["logs", _, "retry"]:
            held = (said.get("delivery") or {}).get("status") == "held"
            return Receipt("It is held: its route may not send." if held else "It is tried again now.", not held)
        case ["logs", _, "cancel"]:
            return Receipt("The delivery was cancelled.")
        case ["events", _, "replay"]:
            return Receipt(f"Sent again to {', '.join(said['routes'])}.", links=said.get("deliveries", ()))
        case ["windows", _, "flush"]:
            return Receipt("The window is sent now.")
        case ["windows", _, "hold"]:
            return Receipt("The window is held: it takes events until it is sent by hand.")
        case ["windows", _, "cancel"]:
            return Receipt("The window was dropped.")
        case ["routes", ("pause" | "resume") as action]:
            changed = [done["route"]["name"] for done in said["routes"] if done["changed"]]
            return Receipt(f"{action.capitalize()}d: {', '.join(changed) or 'nothing, all were so already'}.")
        case ["routes", name, "pause"]:
            return Receipt(f"{name} is paused." if said["changed"] else f"{name} was paused already.")
        case ["routes", name, "resume"]:
            released = said.get("released") or 0
            more = f" {count(released, 'delivery')} held no more." if released else ""
            return Receipt(f"{name} sends again.{more}" if said["changed"] else f"{name} was not paused.")
        case ["routes", name, "test"]:
            return _tested(name, said)
    return Receipt("Done.")


def _tested(name: str, said: dict[str, Any]) -> Receipt:
    request, response, error = said.get("request"), said.get("response"), said.get("error")
    lines = []
    if request is not None:
        lines.append(("sent", f"{request['method']} {request['url']}"))
    if response is not None:
        lines.append(("answer", f"{response['status']} after {said['duration_ms']:,} ms"))
    if error is not None:
        lines.append((error["code"], error["message"]))
        text = f"The test of {name} failed: {error['message']}"
    else:
        text = f"The test of {name} went well."
    body = (response or {}).get("body") or ""
    return Receipt(text, error is None, lines=lines, body=body[:_LONGEST_BODY])
