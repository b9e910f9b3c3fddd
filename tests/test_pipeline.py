"""What an outcome means for a delivery."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from relay import pipeline
from relay.config import load
from relay.delivery import Code, Delivery, Failure, Retryable, State
from relay.event import event_from_json
from relay.ids import DeliveryId
from relay.runtime import build
from tests.fakes import NOON

ROUTE = b"""
sources: {any: {type: generic, verify: none}}
routes: [{name: r, to: {url: 'http://a.test/'}, retry: none}]
"""
EVENT: dict[str, Any] = {
    "source": "any", "type": "generic", "event": None, "received_at": NOON.isoformat(), "occurred_at": None,
    "environment": None, "branch": None, "locale": None, "extra": {},
    "changes": [{"model": None, "stage": None, "action": None, "entry_id": None}],
}  # fmt: skip


def test_an_attempt_cut_off_by_a_shutdown_is_made_again_at_once_even_if_it_was_the_last() -> None:
    route = build(load(ROUTE, name="config.yaml"), 1, NOON).routing.routes["r"]
    delivery = Delivery(DeliveryId(1), "r", event_from_json(EVENT, [], b"{}"), NOON, NOON)
    cut_off = Retryable(Failure(Code.INTERRUPTED, "relay was shut down"), counts=False)
    result = pipeline._decide(route, delivery, None, cut_off, NOON)
    assert (result.state, result.due, result.tries) == (State.PENDING, NOON, 0)
    failed = pipeline._decide(route, delivery, None, replace(cut_off, counts=True), NOON)
    assert (failed.state, failed.due, failed.tries) == (State.FAILED, None, 1)
