"""The hot path: what happens to an event between its request and its answer, and to a delivery between two records.

    accept   verify, describe, match, store; when it returns, the event and all that is owed for it are on disk
    attempt  render, sign, send, judge, decide; its result is recorded in one transaction

Between the two lies the store, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256

import orjson

from relay import journal, rendering
from relay.bodyproof import without_proofs
from relay.client import Transport, Unreachable
from relay.clock import Clock, from_ms, to_ms, whole_ms
from relay.delivery import (
    Added,
    Attempt,
    Code,
    Delivered,
    Delivery,
    Failure,
    Outcome,
    Owed,
    Refused,
    Request,
    Response,
    Result,
    Retryable,
    State,
    StoredEvent,
    Trigger,
    Unready,
)
from relay.destination import Destination, Outbound, Unsendable, expired
from relay.event import Description, Event, Inbound, event_from_json
from relay.ids import DELIVERY, EVENT, DeliveryId, EventId
from relay.immutable import immutable
from relay.metrics import Metrics
from relay.notify import Kind
from relay.oversight import Oversight
from relay.pattern import Subject
from relay.routing import Route, Routing
from relay.source import Ignored, Source
from relay.steps import BEHIND, Steps
from relay.store import Store
from relay.unready import Rounds

_CORRUPT = Failure(Code.CORRUPT_BODY, "the stored body no longer fits its checksum")
_OWN_LIMIT = timedelta(seconds=2)  # until an attempt that relay itself lacked something for is made again


@immutable
class Accepted:
    """What the sender is told: the event's id and who is owed it, or why it was left out."""

    id: str | None
    at: datetime
    """When that was known."""
    routes: tuple[str, ...] = ()
    duplicate: bool = False
    ignored: str | None = None
    added: Added | None = None
    """What is to be handed to the dispatcher."""


class Pipeline:
    """The two halves of an event's path, with what they need."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        clock: Clock,
        metrics: Metrics,
        oversight: Oversight,
        steps: Steps | None = None,
    ) -> None:
        self._steps = Steps(clock) if steps is None else steps
        self._store = store
        self._transport = transport
        self._clock = clock
        self._metrics = metrics
        self._oversight = oversight
        self._rendering = asyncio.Semaphore(rendering.HELPERS)
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._rounds = Rounds()

    async def accept(self, source: Source, routing: Routing, inbound: Inbound, client: str) -> Accepted:
        """Take an event in from `client`. Raises Rejected, Malformed, RateLimited or Unavailable, and then nothing was
        promised."""
        moment = self._clock.now_ms()
        now = from_ms(moment)
        source.verify(inbound, now)
        if source.adapter.body_proofs:
            inbound = without_proofs(inbound, source.adapter.body_proofs)
        description = source.describe(inbound)
        if isinstance(description, Ignored):
            return Accepted(None, now, ignored=description.reason)
        event = self._event(source, inbound, description.masked(source.redact), now, moment)
        event_id = self._store.ids.text(EVENT, event.id)
        owed = self._owe(event, routing.wanting(event, event_id, inbound.document_or_none), moment)
        mark = source.mark(inbound, description)
        # Parsed, a body may be 25 times as large: it is not to be held while the disk is waited for.
        inbound.forget()
        added = await self._store.add(event, owed, mark)
        ended = self._clock.now()
        if added.event != event.id:
            event_id = self._store.ids.text(EVENT, added.event)
        if added.duplicate:
            journal.duplicate(source.name, event_id)
        else:
            journal.accepted(event, event_id, added.routes, client, ended)
            self._metrics.pace.accepted(now)
        if added.full:
            self._say_full(added, routing)
        return Accepted(event_id, ended, added.routes, added.duplicate, None, added)

    async def replay(self, routing: Routing, stored: StoredEvent, route: str | None = None) -> Added:
        """Route a stored event again, as new deliveries; only by one route, if it is named. Raises Unavailable."""
        event = replace(event_from_json(stored.description, stored.headers, stored.body or b""), id=stored.id)
        wanted = routing.match(Subject.of(event, self._store.ids.text(EVENT, event.id)))
        # It is owed from now on: what is late is late since it was replayed.
        event = replace(event, received_at=whole_ms(self._clock.now()))
        owed = self._owe(
            event, [each for each in wanted if route is None or each.name == route], to_ms(event.received_at)
        )
        added = await self._store.owe(stored.id, owed)
        self._say_full(added, routing)
        return added

    async def test(self, route: Route) -> Attempt:
        """Send a marked test event by a route and see what its destination says. Nothing of it is kept."""
        now = whole_ms(self._clock.now())
        event = _test_event(route, now)
        number = DeliveryId(self._store.ids.draw(to_ms(now)))
        delivery = Delivery(number, route.name, event, now, now, trigger=Trigger.MANUAL)
        ids = self._store.ids.text(DELIVERY, number), self._store.ids.text(EVENT, EventId(number))
        attempt, _, _ = await self._send(route, delivery, ids, now)
        return attempt

    async def attempt(self, route: Route, delivery: Delivery) -> Result:
        """Make the next attempt of a delivery and say what it changes. Never raises."""
        now = self._clock.now()
        text = self._store.ids.text
        ids = text(DELIVERY, delivery.id), text(EVENT, delivery.event.id)
        hindrance = self._expired(delivery, route.max_age, now) if delivery.event.sha256 else _CORRUPT
        attempt: Attempt | None = None
        outcome: Outcome
        if hindrance is not None:
            outcome, ended = Refused(hindrance), self._clock.now()
        else:
            attempt, outcome, ended = await self._send(route, delivery, ids, now)
        result = _decide(route, delivery, attempt, outcome, ended)
        if attempt is not None:
            self._oversight.saw(route, result, outcome)
        if result.failure is not None and result.state is State.FAILED:
            self._oversight.failed(route, Kind.DELIVERY_FAILED, result.failure.message, ids[0])
        journal.attempted(delivery, ids, result, outcome)
        self._metrics.attempted(result, outcome)
        return result

    def _expired(self, delivery: Delivery, max_age: timedelta | None, now: datetime) -> Failure | None:
        """Why it is too old to be sent, by the time that has really passed as far as it is known."""
        if (failure := expired(delivery, max_age, now)) is None:
            return None
        self._steps.look()  # it may have been this moment
        skipped = self._steps.skipped(delivery.first_due, delivery.event.received_at)
        if self._store.shared is not None:
            ahead = self._store.shared.ahead()
            if ahead >= BEHIND:  # others say when it became due by theirs
                skipped = max(skipped, ahead)
        return expired(delivery, max_age, now - skipped) and failure

    async def _send(
        self, route: Route, delivery: Delivery, ids: tuple[str, str], now: datetime
    ) -> tuple[Attempt, Outcome, datetime]:
        """One exchange with the destination, as it will be shown, how it ended, and when."""
        destination = route.destination
        request: Request | None = None
        response: Response | None = None
        clock = self._clock
        began = clock.monotonic()
        outcome: Outcome
        ended: datetime | None = None
        try:
            if destination.long:
                outbound = await self._render(destination, delivery, ids, now)
            else:
                outbound = destination.render(delivery, *ids, now)
            request = destination.shown(outbound)
            reply = await destination.exchange(outbound, destination.limits, self._transport, clock)
            ended = clock.now()
            response = destination.masked(reply.response, outbound)
            outcome = destination.judge(response, reply.retry_after, ended)
        except Unready as error:
            outcome = self._rounds.again(delivery, error, clock.now())
        except Unsendable as error:
            outcome = Refused(error.failure)
        except Unreachable as error:
            outcome = Retryable(destination.told(error.failure))
            if error.ours:
                outcome = replace(outcome, retry_after=clock.now() + _OWN_LIMIT, counts=False)
        except asyncio.CancelledError:
            # Only the drain at shutdown cancels an attempt: it is recorded, and made again after the restart.
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            outcome = Retryable(Failure(Code.INTERRUPTED, "relay was shut down"), counts=False)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not stop the queue, nor send for ever
            journal.attempt_crashed(ids[0], route.name)
            outcome = Retryable(Failure(Code.PROTOCOL_ERROR, f"relay failed to send it: {type(error).__name__}"))
        duration = round((clock.monotonic() - began) * 1000)
        failure = None if isinstance(outcome, Delivered) else outcome.failure
        attempt = Attempt(delivery.attempts + 1, delivery.trigger, now, duration, request, response, failure)
        return attempt, outcome, ended or clock.now()

    async def _render(
        self, destination: Destination, delivery: Delivery, ids: tuple[str, str], now: datetime
    ) -> Outbound:
        """The request, where it may take long: rendered by a helper, so that all else goes on. Raises Unsendable."""
        # One of each route at most: what takes long for one of them leaves room for the others.
        async with self._turns.setdefault(delivery.route, asyncio.Semaphore(1)), self._rendering:
            outbound = await asyncio.to_thread(destination.render, delivery, *ids, now)
        self._rounds.over(delivery)
        return outbound

    def _event(self, source: Source, inbound: Inbound, description: Description, now: datetime, moment: int) -> Event:
        # By position: it costs half as much as by name, and 4 thousand instructions less.
        return Event(
            EventId(self._store.ids.draw(moment)),
            source.name,
            source.type,
            now,
            description,
            source.shown_headers(inbound.headers),
            inbound.body,
            inbound.sha256,
            None,
            moment,
        )

    def _owe(self, event: Event, routes: Sequence[Route], moment: int) -> list[Owed]:
        if not routes:
            return []
        draw, paused = self._store.ids.draw, self._oversight.paused
        return [route.owe(event, DeliveryId(draw(moment)), paused(route.name)) for route in routes]

    def _say_full(self, added: Added, routing: Routing) -> None:
        for name in added.full:
            self._metrics.deliveries.labels(name, State.FAILED.value).inc()
            self._metrics.pace.failed(self._clock.now())
            route = routing.routes.get(name)
            if route is not None:
                self._oversight.failed(route, Kind.QUEUE_FULL, f"{route.max_pending} deliveries wait already")


def _test_event(route: Route, now: datetime) -> Event:
    """What `test` sends: an event that says of itself that it is none."""
    body = orjson.dumps({"test": True, "route": route.name, "message": "a test by relay: nothing has changed"})
    return Event(
        id=EventId(0),
        source="relay",
        type="generic",
        received_at=now,
        description=Description("relay.test", (route.destination.tested,)),
        headers=(("Content-Type", "application/json"),),
        body=body,
        sha256=sha256(body).digest(),
    )


def _decide(route: Route, delivery: Delivery, attempt: Attempt | None, outcome: Outcome, now: datetime) -> Result:
    """What an outcome means for the delivery: done, given up, or when to try again."""
    match outcome:
        case Delivered():
            return Result(delivery, attempt, State.DELIVERED, None, delivery.tries + 1, None, now)
        case Refused(failure):
            return Result(delivery, attempt, State.FAILED, None, delivery.tries + 1, failure, now)
        case Retryable(failure) if delivery.trigger is Trigger.PROBE:
            # It was not its turn: it waits as it did.
            return Result(delivery, attempt, State.PENDING, delivery.due, delivery.tries, failure, now)
        case Retryable(failure, again, counts=False):  # through no fault of the destination's: the policy has no say
            return Result(delivery, attempt, State.PENDING, again or now, delivery.tries, failure, now)
        case Retryable(failure):
            tries = delivery.tries + 1
            due = route.retry.after(outcome, tries, now)
            state = State.FAILED if due is None else State.PENDING
            return Result(delivery, attempt, state, due, tries, failure, now)
