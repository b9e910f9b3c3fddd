"""How many more, or fewer, pending and held deliveries a transaction makes of each route."""

from __future__ import annotations

Deltas = dict[str, list[int]]
"""Changes of pending and held, by route."""


def shift(deltas: Deltas, route: str, pending: int, held: int) -> None:
    """Note that a route has more, or less, pending and held deliveries."""
    both = deltas.get(route)
    if both is None:
        deltas[route] = [pending, held]
    else:
        both[0] += pending
        both[1] += held
