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

_ROUNDS = 10_000  # of the quick run; ten times as many with --count 10
_MOST = 4.5  # of Welch's t: what side-channel analysts take for a leak
_NOW = datetime(2026, 11, 23, tzinfo=UTC)
_SECRET = "0123456789abcdef" * 4


async def proofs(place: Place) -> Figure:
    """Wrong in the first byte, against wrong in the last."""
    code = proof.Hmac("secret", [_SECRET.encode()])
    body = b"{}"
    right = code.sign(body)
    checks: dict[str, tuple[proof.Check, str, str]] = {
        "an HMAC of the body": (proof.SignedBody("X-Signature", code), "X-Signature", right),
        "a bearer token": (proof.Bearer([Secret(_SECRET)]), "Authorization", f"Bearer {_SECRET}"),
        "a configured header": (proof.StaticHeader("X-Key", [Secret(_SECRET)]), "X-Key", _SECRET),
    }
    seen = []
    for what, (check, header, value) in checks.items():
        start = 7 if value.startswith("Bearer ") else 0
        early = Inbound(CIMultiDict({header: f"{value[:start]}~{value[start + 1 :]}"}), body)
        late = Inbound(CIMultiDict({header: value[:-1] + "~"}), body)
        t = min((_welch(check, early, late, _ROUNDS * place.count) for _ in range(3)), key=abs)
        seen.append(Seen(f"{what}, wrong early or late", f"t = {t:+.2f}", abs(t) < _MOST))
    return of_forms(seen, f"Welch's t over {_ROUNDS * place.count:,} of each, the least of three tries")


def _welch(check: proof.Check, early: Inbound, late: Inbound, rounds: int) -> float:
    draw = random.Random(5)
    times: tuple[list[int], list[int]] = [], []
    gc.disable()
    try:
        for _ in range(2 * rounds):
            which = draw.random() < 0.5
            inbound = late if which else early
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
