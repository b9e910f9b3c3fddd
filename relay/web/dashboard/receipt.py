"""What a person is told was done: kept in memory until they see their next page, and for a while after."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from relay.delivery import HeldReason, State
from relay.health import RouteState
from relay.immutable import immutable
from relay.web.dashboard.wording import count, held
from relay.web.desk import Desk

_MOST = 100
_LONGEST_BODY = 4000


@immutable
class Receipt:
    """One thing that was done."""

    text: str
    look: Literal["delivered", "held", "failed"] = "delivered"
    """The state that it looks like: done, done and kept back, or gone wrong."""
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


def of(path: str, asked: Mapping[str, str], said: dict[str, Any], desk: Desk) -> Receipt:
    """What the answer to an action comes to in words; `asked` is the query of its URL."""
    match path.strip("/").split("/"):
        case ["logs", "retry"]:
            return _retried_all(said, [desk.kept(name) for name in asked.get("route", "").split(",") if name])
        case ["logs", _, "retry"]:
            return _retried(said, desk)
        case ["logs", _, "cancel"]:
            return Receipt("The delivery was cancelled.")
        case ["events", _, "replay"]:
            return _replayed(said, desk)
        case ["windows", _, "flush"]:
            return _flushed(said, desk)
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


def _retried_all(said: dict[str, Any], kept: Sequence[HeldReason | None]) -> Receipt:
    """`kept` is what keeps the routes that were named, if any were."""
    back, passed = said.get("held") or 0, said.get("passed_over") or 0
    again = said["count"] - back
    told = []
    if again or not back:
        told.append(f"{count(again, 'delivery')} will be tried again.")
    if back:
        told.append(f"{count(back, 'delivery')} {'is' if back == 1 else 'are'} {held_by(kept)}.")
    if passed:
        told.append(
            f"{count(passed, 'delivery')} passed over: an order forbids to send them again, or their body is not kept."
        )
    return Receipt(" ".join(told), "held" if back else "delivered")


def held_by(kept: Iterable[HeldReason | None]) -> str:
    """The words for what is held of several routes, by what keeps them: the reason where they have it in common."""
    reasons = {reason for reason in kept if reason is not None}
    return held(reasons.pop(), "their route") if len(reasons) == 1 else held(None, "their route")


def _retried(said: dict[str, Any], desk: Desk) -> Receipt:
    delivery, waits = said.get("delivery") or {}, said.get("waits_for")
    if delivery.get("status") == State.HELD:
        return Receipt(f"It is {held(desk.kept(delivery['route']))}.", "held")
    return Receipt("It is tried again now." if waits is None else f"It is due, but waits: {waits['message']}.")


def _replayed(said: dict[str, Any], desk: Desk) -> Receipt:
    """What its deliveries wait for is told by their routes: of what is not sent at once, one may wait for its lane and
    another be part of a window by now."""
    named = [name + _keeps(name, desk) for name in said["routes"]]
    look: Literal["delivered", "held"] = "held" if any(map(desk.kept, said["routes"])) else "delivered"
    return Receipt(
        f"{'New deliveries' if len(named) > 1 else 'A new delivery'} to {', '.join(named)}.",
        look,
        links=said.get("deliveries", ()),
    )


def _keeps(route: str, desk: Desk) -> str:
    kept = desk.kept(route)
    if kept is not None:
        return f" ({held(kept)})"
    return " (waits for its route to answer)" if desk.oversight.state(route) is RouteState.UNHEALTHY else ""


def _flushed(said: dict[str, Any], desk: Desk) -> Receipt:
    delivery = said.get("delivery") or {}
    route = delivery.get("route") or ""
    if delivery.get("status") == State.HELD:
        return Receipt(f"The window is closed, and {held(desk.kept(route))}.", "held")
    if delivery.get("status") == State.PENDING and desk.oversight.state(route) is RouteState.UNHEALTHY:
        return Receipt("The window is closed, and waits for its route to answer.")
    return Receipt("The window is sent now.")


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
    return Receipt(text, "delivered" if error is None else "failed", lines=lines, body=body[:_LONGEST_BODY])
