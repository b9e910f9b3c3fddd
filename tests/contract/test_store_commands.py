"""What every store must promise of what people and configs do to the queue."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from relay.delivery import HeldReason, State, Trigger
from relay.ids import DeliveryId, EventId
from relay.lane import Order
from relay.store import LogQuery, Moved, Retried, WrongState
from relay.window import batch, debounce
from tests.contract.desk import SECOND, Desk, again, delivered, failed
from tests.fakes import NOON, until

# -- held and released -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [HeldReason.REMOVED, HeldReason.DISABLED, HeldReason.PAUSED])
async def test_what_is_held_for_its_routes_sake_is_released_with_it(desk: Desk, reason: HeldReason) -> None:
    delivery = await desk.tell()
    kept = {} if reason is HeldReason.REMOVED else {"www": reason}
    assert (await desk.store.settle([], kept)).held == {"www": 1}
    assert desk.counts() == {"www": (0, 1)}
    assert (await desk.store.settle(["www"], {})).released == {"www": 1}
    assert await desk.claimed() == [delivery.id]


async def test_a_reason_that_is_kept_wins_over_a_route_that_is_active(desk: Desk) -> None:
    await desk.tell()
    assert (await desk.store.settle(["www"], {"www": HeldReason.PAUSED})).held == {"www": 1}
    assert (await desk.store.settle(["www"], {"www": HeldReason.PAUSED})).released == {}
    assert desk.counts() == {"www": (0, 1)}


async def test_the_reason_may_change_while_something_is_held(desk: Desk) -> None:
    """Held since it was paused, then because it was removed: what is moved is what was removed."""
    await desk.tell()
    await desk.pause()
    assert await desk.store.move("www", "new") == Moved(0)
    await desk.settle()
    await desk.store.settle([], {})
    assert await desk.store.move("www", "new") == Moved(1)


async def test_what_a_pause_held_goes_on_as_resumed_but_for_what_is_not_due(desk: Desk) -> None:
    now_due, later = await desk.tell(), await desk.tell()
    await desk.store.record(again(later, NOON + 60 * SECOND))
    await desk.pause()
    desk.wait(30)
    await desk.resume()
    (found,) = await desk.claim()
    assert (found.id, found.trigger, found.due) == (now_due.id, Trigger.RESUME, NOON)
    desk.wait(30)
    (_, found) = await desk.claim()
    assert (found.id, found.trigger, found.due) == (later.id, Trigger.RETRY, NOON + 60 * SECOND)


async def test_what_a_route_that_was_away_had_goes_on_as_before(desk: Desk) -> None:
    await desk.tell()
    await desk.settle()
    await desk.settle("www")
    (found,) = await desk.claim()
    assert found.trigger is Trigger.INITIAL


async def test_what_is_owed_to_a_paused_route_is_born_held(desk: Desk) -> None:
    await desk.pause()
    event = desk.about()
    added = await desk.store.add(event, [desk.owed(event, "www"), desk.owed(event, "search")])
    assert [ready.route for ready in added.ready] == ["search"]
    assert desk.counts() == {"www": (0, 1), "search": (1, 0)}
    assert await desk.claimed() == []
    await desk.resume()
    assert len(await desk.claimed()) == 1


async def test_max_age_of_what_is_born_held_stands_still(desk: Desk) -> None:
    await desk.pause()
    await desk.tell()
    desk.wait(3600)
    await desk.resume()
    (found,) = await desk.claim()
    assert found.first_due == desk.clock.now()


# -- what waits, and what is waited for ------------------------------------------------------------------------------


async def test_first_attempts_and_others_are_claimed_apart(desk: Desk) -> None:
    first, second = await desk.tell(), await desk.tell()
    await desk.store.record(again(first, NOON))

    async def claimed(retried: bool | None, limit: int = 9) -> list[DeliveryId]:
        return [each.id for each in await desk.store.claim("www", retried, NOON, limit, ())]

    assert await claimed(True) == [first.id]
    assert await claimed(False) == [second.id]
    assert await claimed(None) == [first.id, second.id]
    assert await claimed(None, 1) == [first.id]
    await desk.reopen()
    assert await claimed(True) == [first.id]
    await desk.store.retry(first.id, NOON)
    assert await claimed(False) == [first.id, second.id], "by hand it is a first one"


async def test_what_may_be_sent_at_once_is_said(desk: Desk) -> None:
    desk.groupings["windows"] = debounce(10 * SECOND, 60 * SECOND, (), 0 * SECOND)
    await desk.follow(lanes=Order.ENTRY)
    await desk.tell(route="lanes")
    event = desk.about()
    routes = ("www", "lanes", "windows", "later", "full")
    desk.most["full"] = 0
    owed = [desk.owed(event, route, (5 if route == "later" else 0) * SECOND) for route in routes]
    added = await desk.store.add(event, owed)
    assert (added.event, added.routes, added.duplicate) == (event.id, routes, False)
    assert added.ready == (owed[0].delivery,)
    assert sorted(added.later) == [("later", NOON + 5 * SECOND), ("windows", NOON + 10 * SECOND)]
    assert added.full == ("full",)
    assert added.looks == frozenset()


async def test_what_is_full_takes_no_more_and_says_so(desk: Desk) -> None:
    desk.most["www"] = 2
    await desk.tell()
    await desk.pause()
    await desk.tell()
    refused = await desk.tell()
    item = (await desk.detail(refused)).item
    assert (item.status, item.error and item.error.code, item.attempts) == ("failed", "queue_full", 0)
    assert desk.counts() == {"www": (0, 2)}
    await desk.resume()
    for found in await desk.claim():
        await desk.store.record(delivered(found))
    assert await desk.state(await desk.tell()) == "pending"
    await desk.store.retry(refused.id, desk.clock.now())
    assert desk.counts() == {"www": (2, 0)}


async def test_a_queue_takes_exactly_as_many_as_it_may_however_many_come_together(desk: Desk) -> None:
    desk.most["www"] = 7
    old = await desk.tell(route="search")
    told = await asyncio.gather(
        *(desk.tell() for _ in range(6)),
        *(desk.replay(old.event) for _ in range(6)),
        *(desk.tell() for _ in range(6)),
        *(desk.replay(old.event) for _ in range(6)),
    )
    assert sorted(await desk.states(*told)) == ["failed"] * 17 + ["pending"] * 7
    assert desk.counts() == {"www": (7, 0), "search": (1, 0)}


@pytest.mark.parametrize("order", list(Order))
async def test_a_queue_is_full_by_what_waits_and_not_by_what_came(desk: Desk, order: Order) -> None:
    await desk.follow(www=order)
    desk.most["www"] = 1
    for _ in range(3):
        delivery = await desk.tell()
        assert await desk.state(delivery) == "pending"
        await desk.send(delivery)


# -- retried, cancelled ----------------------------------------------------------------------------------------------


async def test_retry_brings_back_what_was_cancelled(desk: Desk) -> None:
    delivery = await desk.tell()
    await desk.store.record(again(delivery, NOON + 60 * SECOND))
    await desk.store.cancel(delivery.id, NOON)
    now = desk.wait(10)
    assert await desk.store.retry(delivery.id, now) == "www"
    (found,) = await desk.claim()
    assert (found.due, found.first_due, found.attempts, found.tries) == (now, now, 1, 0)
    assert found.trigger is Trigger.MANUAL
    assert desk.counts() == {"www": (1, 0)}


async def test_retry_of_one_that_is_overdue_keeps_its_place(desk: Desk) -> None:
    first, second = await desk.tell(), await desk.tell()
    desk.wait(60)
    await desk.store.retry(first.id, desk.clock.now())
    assert await desk.claimed() == [first.id, second.id]
    (found, _) = await desk.claim()
    assert (found.due, found.trigger) == (NOON, Trigger.MANUAL)


async def test_retry_of_one_that_was_merged_names_what_to_retry(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    old = await desk.tell()
    await desk.tell()
    with pytest.raises(WrongState, match="merged into another delivery: retry that one") as caught:
        await desk.store.retry(old.id, NOON)
    assert caught.value.state is State.MERGED


async def test_retry_all_finds_failed_ones_alone(desk: Desk) -> None:
    told = [await desk.tell(route=route) for route in ("www", "www", "search", "www")]
    for delivery in told[:3]:
        await desk.store.record(failed(delivery))
    query = LogQuery(route=("www",), status=("delivered",))
    planned = await desk.store.retry_all(query, NOON, dry_run=True)
    assert planned == Retried({"www": 2}, 0)
    assert desk.counts() == {"www": (1, 0)}
    assert await desk.store.retry_all(query, NOON) == planned
    assert await desk.states(*told) == ["pending", "pending", "failed", "pending"]
    assert (await desk.store.retry_all(query, NOON)).count == 0


async def test_retry_all_goes_through_any_number_once(desk: Desk) -> None:
    event = desk.about()
    deliveries = [desk.owe(event) for _ in range(1234)]
    await desk.put(event, deliveries)
    await asyncio.gather(*(desk.store.record(failed(delivery)) for delivery in deliveries))
    assert (await desk.store.retry_all(LogQuery(), NOON)).count == 1234
    assert desk.counts() == {"www": (1234, 0)}


async def test_a_cancelled_one_is_not_sent(desk: Desk) -> None:
    pending, held = await desk.tell(), await desk.tell(route="old")
    await desk.settle("www")
    assert await desk.store.cancel(pending.id, NOON) == "www"
    assert await desk.store.cancel(held.id, NOON) == "old"
    assert await desk.states(pending, held) == ["cancelled", "cancelled"]
    await desk.settle("www", "old")
    assert desk.counts() == {}
    assert await desk.claimed() == []


async def test_only_what_waits_can_be_cancelled(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    merged, done, gone = await desk.tell(), await desk.tell(), await desk.tell(route="search")
    await desk.send(done)
    await desk.store.cancel(gone.id, NOON)
    for delivery, words in ((merged, "cancel the one that it was merged into"), (done, "it is delivered already")):
        with pytest.raises(WrongState, match=words):
            await desk.store.cancel(delivery.id, NOON)
    with pytest.raises(WrongState, match="it is cancelled already") as caught:
        await desk.store.cancel(gone.id, NOON)
    assert caught.value.state is State.CANCELLED
    with pytest.raises(KeyError):
        await desk.store.cancel(DeliveryId(1), NOON)


async def test_one_cancelled_in_flight_stays_cancelled_and_its_attempt_is_told_of(desk: Desk) -> None:
    delivery = await desk.tell()
    await desk.store.cancel(delivery.id, NOON)
    await desk.store.record(delivered(delivery))
    detail = await desk.detail(delivery)
    assert (detail.item.status, len(detail.attempts)) == ("cancelled", 1)
    assert desk.counts() == {}


# -- owed again ------------------------------------------------------------------------------------------------------


async def test_a_stored_event_is_owed_again_as_new_deliveries(desk: Desk) -> None:
    first = await desk.tell()
    await desk.send(first)
    owed = [desk.owed(first.event, route) for route in ("www", "search")]
    added = await desk.store.owe(first.event.id, owed)
    assert (added.event, added.routes, added.duplicate) == (first.event.id, ("www", "search"), False)
    assert (added.ready, added.looks) == ((), frozenset({"www", "search"}))
    (found,) = await desk.claim()
    assert (found.id, found.event) == (owed[0].delivery.id, first.event)
    assert len(await desk.store.deliveries_of(first.event.id)) == 3
    assert desk.counts() == {"www": (1, 0), "search": (1, 0)}


async def test_an_event_that_matched_nothing_is_no_longer_unmatched_once_it_is_owed(desk: Desk) -> None:
    event = desk.about()
    await desk.put(event)
    await desk.store.owe(event.id, [])
    assert len((await desk.store.search(LogQuery(status=("unmatched",)))).items) == 1
    await desk.replay(event)
    assert (await desk.store.search(LogQuery(status=("unmatched",)))).items == []


async def test_an_unknown_event_is_owed_to_nobody(desk: Desk) -> None:
    event = desk.about()
    with pytest.raises(KeyError):
        await desk.store.owe(EventId(1), [desk.owed(event)])
    assert desk.counts() == {}


@pytest.mark.parametrize("paused", [False, True])
async def test_what_is_owed_again_while_its_route_is_turned_is_as_the_others_of_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    """Nothing may come after that that looks for it."""
    first = await desk.tell()
    turns = [desk.resume, desk.pause] if paused else [desk.pause, desk.resume]
    await turns[0]()
    logs = desk.store._logs  # type: ignore[attr-defined]
    read = logs.event

    async def slowly(event: EventId) -> object:
        found = await read(event)
        await turns[1]()
        return found

    monkeypatch.setattr(logs, "event", slowly)
    replayed = await desk.replay(first.event)
    assert await desk.states(first, replayed) == ["held" if paused else "pending"] * 2


# -- moved -----------------------------------------------------------------------------------------------------------


async def test_what_is_held_for_a_removed_route_can_be_given_to_another(desk: Desk) -> None:
    moved = [await desk.tell(route="old") for _ in range(3)]
    await desk.store.record(failed(moved[2]))
    stays = await desk.tell(route="other")
    await desk.settle("www")
    assert await desk.store.move("old", "www") == Moved(2)
    assert desk.counts() == {"www": (0, 2), "other": (0, 1)}
    await desk.settle("www")
    assert await desk.claimed() == [delivery.id for delivery in moved[:2]]
    assert await desk.states(*moved, stays) == ["pending", "pending", "failed", "held"]
    assert await desk.store.move("old", "www") == Moved(0)


async def test_what_is_sent_or_paused_is_not_moved(desk: Desk) -> None:
    await desk.tell(route="old")
    assert await desk.store.move("old", "www") == Moved(0)
    await desk.pause("old")
    assert await desk.store.move("old", "www") == Moved(0)
    assert desk.counts() == {"old": (0, 1)}


async def test_what_is_moved_to_where_it_is_stays(desk: Desk) -> None:
    await desk.tell(route="old")
    await desk.settle("www")
    assert await desk.store.move("old", "old") == Moved(0)
    assert desk.counts() == {"old": (0, 1)}


async def test_any_number_is_moved(desk: Desk) -> None:
    event = desk.about()
    await desk.put(event, [desk.owe(event, "old") for _ in range(1234)])
    await desk.settle("www")
    assert await desk.store.move("old", "www") == Moved(1234)
    assert desk.counts() == {"www": (0, 1234)}


async def test_a_result_of_what_was_moved_meanwhile_counts_for_its_new_route(desk: Desk) -> None:
    in_flight = await desk.tell(route="old")
    await desk.settle("www")
    await desk.store.move("old", "www")
    await desk.settle("www")
    assert desk.counts() == {"www": (1, 0)}
    await desk.store.record(delivered(in_flight))
    assert desk.counts() == {}
    assert await desk.state(in_flight) == "delivered"


# -- forgotten -------------------------------------------------------------------------------------------------------


async def test_a_forgotten_event_has_neither_body_nor_headers(desk: Desk) -> None:
    delivery = await desk.tell()
    await desk.send(delivery)
    await desk.store.forget(delivery.event.id)
    found = await desk.store.event(delivery.event.id)
    assert found is not None
    assert (found.body, found.headers) == (None, ())
    assert found.description["entry_id"] == "7"
    assert (await desk.detail(delivery)).item.status == "delivered"
    await desk.store.forget(delivery.event.id)
    with pytest.raises(KeyError):
        await desk.store.forget(EventId(1))


async def test_what_is_still_to_be_sent_is_not_forgotten(desk: Desk) -> None:
    desk.groupings["windows"] = debounce(10 * SECOND, 60 * SECOND, (), 0 * SECOND)
    pending, held = await desk.tell(), await desk.tell(route="old")
    carrier, merged = await desk.tell(route="windows"), await desk.tell(route="windows")
    await desk.settle("www", "windows")
    for delivery in (pending, held, carrier, merged):
        with pytest.raises(WrongState, match="still to be sent: cancel it first"):
            await desk.store.forget(delivery.event.id)
        found = await desk.store.event(delivery.event.id)
        assert found is not None
        assert found.body
    for delivery in (pending, held, carrier):
        await desk.store.cancel(delivery.id, NOON)
    for delivery in (pending, held, carrier, merged):
        await desk.store.forget(delivery.event.id)


async def test_what_was_forgotten_is_never_sent_as_if_it_were_whole(desk: Desk) -> None:
    desk.groupings["windows"] = batch(2, 10 * SECOND, 0 * SECOND)
    plain, carrier = await desk.tell(), await desk.tell(route="windows")
    merged = await desk.tell(route="windows")
    for delivery in (plain, carrier):
        await desk.store.cancel(delivery.id, NOON)
    for delivery in (plain, merged):
        await desk.store.forget(delivery.event.id)
    with pytest.raises(WrongState, match="no longer kept"):
        await desk.store.retry(plain.id, NOON)
    assert await desk.state(plain) == "cancelled", "and what is known of it stays"
    await desk.store.retry(carrier.id, NOON)  # one of its window's events was forgotten, not its own
    taken = await desk.take(carrier)
    assert taken is not None
    assert not taken.event.sha256
    assert taken.event.body == b""


async def test_of_many_those_whose_body_is_gone_are_passed_over(desk: Desk) -> None:
    whole, forgotten = await desk.tell(), await desk.tell()
    for delivery in (whole, forgotten):
        await desk.store.record(failed(delivery))
    await desk.store.forget(forgotten.event.id)
    done = await desk.store.retry_all(LogQuery(), NOON)
    assert (done.count, done.passed_over) == (1, 1)
    assert await desk.states(whole, forgotten) == ["pending", "failed"]


# -- what is known ---------------------------------------------------------------------------------------------------


async def test_states_are_kept_by_kind_and_name(desk: Desk) -> None:
    assert await desk.store.states("route") == {}
    await desk.store.save_states("route", {"www": {"state": "paused", "n": [1, None, "ä"]}, "search": {}})
    await desk.store.save_states("source", {"www": {"last": "x"}})
    await desk.store.save_states("route", {"search": {"state": "healthy"}})
    await desk.store.save_states("route", {})
    await desk.reopen()
    assert await desk.store.states("route") == {
        "www": {"state": "paused", "n": [1, None, "ä"]},
        "search": {"state": "healthy"},
    }
    assert await desk.store.states("source") == {"www": {"last": "x"}}


async def test_what_was_retried_while_it_was_sent_is_still_recorded(desk: Desk) -> None:
    delivery = await desk.tell()
    await desk.store.retry(delivery.id, NOON)
    await desk.store.record(again(delivery, NOON + 60 * SECOND))
    await desk.store.retry(delivery.id, NOON)
    (found,) = await desk.claim()
    assert found == replace(delivery, attempts=1, tries=1, trigger=Trigger.MANUAL)


async def test_a_retry_after_an_attempt_is_of_what_waits_as_that_attempt_left_it(desk: Desk) -> None:
    [delivery] = await desk.add("www")
    hour = desk.clock.now() + timedelta(hours=1)
    await desk.store.record(again(delivery, hour))
    for attempt in (0, 2):
        with pytest.raises(WrongState):
            await desk.store.retry(delivery.id, desk.clock.now(), after=attempt)
    assert await desk.claim() == []
    assert await desk.store.retry(delivery.id, desk.clock.now(), after=1) == "www"
    assert [each.id for each in await desk.claim()] == [delivery.id]


@pytest.mark.parametrize("since", ["retried", "cancelled", "failed"])
async def test_nothing_is_retried_after_an_attempt_once_something_else_has_become_of_it(desk: Desk, since: str) -> None:
    [delivery] = await desk.add("www")
    await desk.store.record(again(delivery, desk.clock.now() + timedelta(hours=1)))
    match since:
        case "retried":
            await desk.store.retry(delivery.id, desk.clock.now())
        case "cancelled":
            await desk.store.cancel(delivery.id, desk.clock.now())
        case _:
            await desk.store.record(failed(delivery, 2))
    with pytest.raises(WrongState):
        await desk.store.retry(delivery.id, desk.clock.now(), after=1)


async def test_a_settling_that_is_superseded_ends_with_the_one_that_does_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.stores._sql.settling.AT_ONCE", 1)
    for _ in range(5):
        await desk.add("www")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(desk.store.settle([], {"www": HeldReason.PAUSED}))
        await until(lambda: desk.counts()["www"][1])
        group.create_task(desk.store.settle([], {"www": HeldReason.DISABLED}))
        await first
        assert desk.counts() == {"www": (0, 5)}
