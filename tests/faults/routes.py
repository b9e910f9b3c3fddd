"""A relay with a few routes, one event for them, and what became of it."""

from __future__ import annotations

from typing import Any

from tests.harness import LISTEN, Relay

SOURCES = "sources: {any: {type: generic, verify: none}}\n"


def config(*routes: str, server: str = "", store: str = "") -> str:
    """A config: `server` and `store` are further keys of these sections; a route is what is in its braces."""
    head = LISTEN.replace('127.0.0.1:0"}', f'127.0.0.1:0", {server}}}', 1) if server else ""
    return head + store + SOURCES + "routes:\n" + "".join(f"  - {{{route}}}\n" for route in routes)


def one_route(url: str, to: str = "", route: str = "retry: none", server: str = "") -> str:
    """A config with one route to a URL."""
    return config(f"name: r, to: {{url: '{url}', {to}}}, {route}", server=server)


async def ended(relay: Relay) -> dict[str, Any]:
    """Send one event; its delivery when the first attempt has ended, in detail."""
    status, answer = await relay.post("/in/any", b"{}")
    assert status == 200
    [item] = await relay.logs_when(lambda items: items and items[0]["attempts"] == 1, f"?event_id={answer['id']}")
    detail: dict[str, Any] = await relay.get(f"/logs/{item['id']}")
    return detail
