"""Whether the time that a comparison takes says how much of a proof is right."""

from __future__ import annotations

import gc
import random
from contextlib import suppress
from datetime import UTC, datetime
from math import sqrt
from statistics import fmean, variance
from time import perf_counter_ns

from multidict import CIMultiDict

from relay import proof
from relay.event import Inbound
from relay.secret import Secret
from relay.source import Rejected
from tests.torture.row import Figure, Place, Seen, of_forms

_ROUNDS = 100_000  # of the quick run
_PLACES = 256
_MOST = 4.5  # of Welch's t: what side-channel analysts take for a leak
_NOW = datetime(2026, 11, 23, tzinfo=UTC)
_SECRET = "0123456789abcdef" * 4


async def proofs(place: Place) -> Figure:
    """Wrong in the first byte, against wrong in the last."""
    code = proof.Hmac("secret", [_SECRET.encode()])
    right = code.sign(b"{}")
    checks: dict[str, tuple[proof.Check, str, str]] = {
        "an HMAC of the body": (proof.SignedBody("X-Signature", code), "X-Signature", right),
        "a bearer token": (proof.Bearer([Secret(_SECRET)]), "Authorization", f"Bearer {_SECRET}"),
        "a configured header": (proof.StaticHeader("X-Key", [Secret(_SECRET)]), "X-Key", _SECRET),
    }
    seen = []
    for what, (check, header, value) in checks.items():
        start = 7 if value.startswith("Bearer ") else 0
        early, late = f"{value[:start]}~{value[start + 1 :]}", value[:-1] + "~"
        t = _welch(check, header, (early, late), _ROUNDS * place.count)
        said = f"t = {t:+.2f}"
        if abs(t) >= _MOST:  # once more: a leak is there the second time too, other work of the machine is not
            t = _welch(check, header, (early, late), _ROUNDS * place.count)
            said += f", tried again {t:+.2f}"
        seen.append(Seen(f"{what}, wrong early or late", said, abs(t) < _MOST))
    told = "; ".join(f"{one.form.partition(',')[0]}: {one.answer}" for one in seen)
    return of_forms(seen, f"Welch's t over {_ROUNDS * place.count:,} of each: {told}")


def _welch(check: proof.Check, header: str, values: tuple[str, str], rounds: int) -> float:
    draw = random.Random(5)
    # Where in memory a request lies takes or saves it more than what we look for: of each kind there are many, each
    # with a text of its own.
    made = [
        [Inbound(CIMultiDict({header: value.encode().decode()}), b"{}") for value in values] for _ in range(_PLACES)
    ]
    order = [(draw.randrange(_PLACES), draw.randrange(2)) for _ in range(2 * rounds)]
    times: tuple[list[int], list[int]] = [], []
    gc.disable()
    try:
        for place, which in order:
            inbound = made[place][which]
            began = perf_counter_ns()
            with suppress(Rejected):
                check.hold(inbound, _NOW)
            times[which].append(perf_counter_ns() - began)
    finally:
        gc.enable()
    # What was interrupted says nothing about the comparison.
    bound = sorted(times[0] + times[1])[int(1.9 * rounds)]
    first, second = ([one for one in each if one <= bound] for each in times)
    return (fmean(first) - fmean(second)) / sqrt(variance(first) / len(first) + variance(second) / len(second))
