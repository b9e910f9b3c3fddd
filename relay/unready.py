"""What becomes of deliveries whose payload no helper rendered, through no fault of the destination's."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta

from relay.delivery import Delivery, Retryable, Trigger, Unready
from relay.ids import DeliveryId

MOST_ENDED = 10
"""Helpers that are ended over a delivery and do not count: the last of them a quarter of an hour after the first."""

_FIRST, _LONGEST = timedelta(seconds=2), timedelta(minutes=5)
_KNOWN = 1000  # deliveries


class Rounds:
    """How often in a row that was so, and how often a helper was ended over it: of the last deliveries, since relay was
    started."""

    def __init__(self) -> None:
        self._known: OrderedDict[DeliveryId, tuple[int, int]] = OrderedDict()

    def again(self, delivery: Delivery, error: Unready, now: datetime) -> Retryable:
        """When it is tried anew: after pauses that grow, and that does not count. But what has often had its helper
        ended may be why; then the policy has its say, so that it ends."""
        known = self._known.pop(delivery.id, (0, 0))
        rounds, ended = (0, 0) if delivery.trigger is Trigger.MANUAL else known
        ended += error.begun
        self._known[delivery.id] = rounds + 1, ended
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        if error.begun and ended > MOST_ENDED:
            return Retryable(error.failure)
        return Retryable(error.failure, now + min(_FIRST * 2 ** min(rounds, 10), _LONGEST), counts=False)

    def over(self, delivery: Delivery) -> None:
        """It was rendered."""
        self._known.pop(delivery.id, None)
