"""What every store must promise of routes that keep an order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from relay.delivery import Code, Delivery, HeldReason, State
from relay.event import Change, Description
from relay.ids import DELIVERY, DeliveryId
from relay.lane import Order
from relay.store import LogQuery, Moved, Retried, WrongState
from relay.stores._sql import reader
from tests.contract.desk import SECOND, Desk, again, delivered, expired, failed

KEEPING = [Order.ENTRY, Order.LATEST, Order.ROUTE]


# -- one after another -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", KEEPING)
async def test_only_the_first_unfinished_one_of_a_lane_is_claimed(desk: Desk, order: Order) -> None:
    await desk.follow(www=order)
    first, second, third = [await desk.tell(desk.about(stage=stage)) for stage in ("draft", "review", "published")]
    for head in (first, second, third):
        assert await desk.claimed() == [head.id]
        await desk.send(head)
    assert await desk.claimed() == []


async def test_a_lane_waits_for_no_other(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    seven, eight = await desk.tell(desk.about("7")), await desk.tell(desk.about("8"))
    await desk.tell(desk.about("7"))
    assert await desk.claimed() == [seven.id, eight.id]


async def test_under_order_route_everything_waits_for_the_one_before(desk: Desk) -> None:
    await desk.follow(www=Order.ROUTE)
    one = await desk.tell(desk.about("7"))
    await desk.tell(desk.about("8", source="shop"))
    assert await desk.claimed() == [one.id]


async def test_what_waits_is_put_in_order_by_whatever_number_of_reads(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_AT_ONCE", 3)
    told = [await desk.tell(desk.about(str(number % 3))) for number in range(14)]
    await desk.store.record(again(told[0], desk.clock.now() + SECOND))
    for number in (1, 2, 5, 6):
        await desk.store.cancel(told[number].id, desk.clock.now())
    await desk.pause()
    desk.paused.clear()
    later = [await desk.tell(desk.about(str(number % 3))) for number in range(7)]
    assert desk.counts() == {"www": (7, 10)}
    waiting = [each for number, each in enumerate([*told, *later]) if number not in (1, 2, 5, 6)]
    assert await desk.store._logs.unfinished("www") == [each.id for each in waiting]  # type: ignore[attr-defined]
    await desk.settle("www")
    await desk.follow(www=Order.ENTRY)
    first = [each.id for each in waiting if (await desk.detail(each)).behind is None]
    assert first == [told[0].id, told[4].id, told[8].id]


WHAT = Description("entry.save", (Change("page", "draft", "update", "7"),), None, "live", "main", "en")


@pytest.mark.parametrize(
    "other",
    [
        replace(WHAT, environment="test"),
        replace(WHAT, environment=None),
        replace(WHAT, branch="next"),
        replace(WHAT, locale="EN"),
        replace(WHAT, locale=""),
        replace(WHAT, locale=None),
        replace(WHAT, changes=(replace(WHAT.changes[0], model="post"),)),
        replace(WHAT, changes=(replace(WHAT.changes[0], entry_id="07"),)),
        replace(WHAT, changes=(replace(WHAT.changes[0], entry_id="7\0"),)),
    ],
)
async def test_what_tells_two_entries_apart_is_compared_exactly(desk: Desk, other: Description) -> None:
    await desk.follow(www=Order.ENTRY)
    event = desk.event(description=WHAT)
    both = await desk.tell(event), await desk.tell(desk.event(description=other))
    await desk.tell(desk.event(description=WHAT))
    shop = await desk.tell(desk.event(source="shop", description=WHAT))
    assert await desk.claimed() == [both[0].id, both[1].id, shop.id]


async def test_what_is_told_of_an_entry_besides_makes_no_other_lane(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    first = await desk.tell(desk.event(description=WHAT))
    await desk.tell(desk.event(description=replace(WHAT, event="entry.publish", extra={"uid": "x"})))
    assert await desk.claimed() == [first.id]


async def test_the_deliveries_of_one_route_keep_no_other_waiting(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY, search=Order.ENTRY)
    event = desk.about()
    await desk.tell(event, "www")
    found = await desk.tell(desk.about(), "search")
    assert await desk.claimed("search") == [found.id]


async def test_what_comes_together_goes_out_in_order_of_arrival(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    told = await asyncio.gather(*(desk.tell() for _ in range(20)))
    for head in sorted(told, key=lambda delivery: delivery.id):
        assert await desk.claimed() == [head.id]
        await desk.store.record(delivered(head))


async def deliver(desk: Desk) -> None:
    (head,) = await desk.claim()
    await desk.store.record(delivered(head))


async def fail(desk: Desk) -> None:
    (head,) = await desk.claim()
    await desk.store.record(failed(head))


async def expire(desk: Desk) -> None:
    (head,) = await desk.claim()
    await desk.store.record(expired(head))


async def cancel(desk: Desk) -> None:
    (head,) = await desk.claim()
    await desk.store.cancel(head.id, desk.clock.now())


async def cancel_held(desk: Desk) -> None:
    (head,) = await desk.claim()
    await desk.pause()
    await desk.store.cancel(head.id, desk.clock.now())
    await desk.resume()


async def deliver_held(desk: Desk) -> None:
    """It was in flight when its route was paused."""
    (head,) = await desk.claim()
    await desk.pause()
    await desk.store.record(delivered(head))
    await desk.resume()


async def expire_held(desk: Desk) -> None:
    (head,) = await desk.claim()
    await desk.pause()
    await desk.store.record(expired(head))
    await desk.resume()


ENDS = [deliver, fail, expire, cancel, cancel_held, deliver_held, expire_held]


@pytest.mark.parametrize("order", [Order.ENTRY, Order.ROUTE])
@pytest.mark.parametrize("end", ENDS)
async def test_however_one_ends_the_next_one_of_its_lane_goes_on(
    desk: Desk, end: Callable[[Desk], Awaitable[None]], order: Order
) -> None:
    await desk.follow(www=order)
    _, second, third = [await desk.tell() for _ in range(3)]
    await end(desk)
    assert await desk.claimed() == [second.id]
    await end(desk)
    assert await desk.claimed() == [third.id]


async def test_results_recorded_together_each_let_the_next_one_go_on(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    sevens, eights = [[await desk.tell(desk.about(entry)) for _ in range(2)] for entry in ("7", "8")]
    await asyncio.gather(*(desk.store.record(delivered(head)) for head in (sevens[0], eights[0])))
    assert await desk.claimed() == [sevens[1].id, eights[1].id]


async def test_one_that_is_to_be_tried_again_keeps_its_lane_waiting(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    first, _ = await desk.tell(), await desk.tell()
    await desk.store.record(again(first, desk.clock.now() + 60 * SECOND))
    assert await desk.claimed() == []
    assert await desk.store.next_due("www", desk.clock.now()) == desk.clock.now() + 60 * SECOND
    desk.wait(60)
    assert await desk.claimed() == [first.id]


async def test_what_waits_for_another_one_says_for_which(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    first, second, third, other = [await desk.tell(desk.about(entry)) for entry in ("7", "7", "7", "8")]

    async def behind(delivery: Delivery) -> str | None:
        found = await desk.store.delivery(delivery.id)
        assert found is not None
        return found.behind

    said = desk.store.ids.text(DELIVERY, first.id)
    assert [await behind(one) for one in (first, second, third, other)] == [None, said, said, None]
    await desk.store.record(again(first, desk.clock.now() + 60 * SECOND))
    assert await behind(second) == said
    await desk.store.cancel(first.id, desk.clock.now())
    assert [await behind(one) for one in (second, third)] == [None, desk.store.ids.text(DELIVERY, second.id)]


async def test_what_waits_for_another_one_is_not_what_is_due_next(desk: Desk) -> None:
    await desk.follow(www=Order.ROUTE)
    now = desk.clock.now()
    for after in (9, 5):
        owed = desk.owed(event := desk.about(), after=after * SECOND)
        await desk.store.add(event, [owed])
    assert await desk.store.next_due("www", now) == now + 9 * SECOND
    status = await desk.store.status()
    assert status.oldest_by_route == {"www": now + 9 * SECOND}
    assert status.pending == 2


async def test_an_order_is_kept_over_a_restart(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    first, second = await desk.tell(), await desk.tell()
    await desk.reopen()
    await desk.follow()
    assert await desk.claimed() == [first.id]
    (head,) = await desk.claim()
    await desk.store.record(delivered(head))
    assert await desk.claimed() == [second.id]


# -- held ------------------------------------------------------------------------------------------------------------


async def test_held_ones_keep_their_place(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    waiting = [await desk.tell() for _ in range(2)]
    await desk.pause()
    waiting.append(await desk.tell())
    assert desk.counts() == {"www": (0, 3)}
    await desk.resume()
    waiting.append(await desk.tell())
    for head in waiting:
        assert await desk.claimed() == [head.id]
        await desk.send(head)


async def test_the_first_of_a_lane_may_be_born_held(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    await desk.pause()
    first = await desk.tell()
    await desk.resume()
    second = await desk.tell()
    assert await desk.claimed() == [first.id]
    await desk.send(first)
    assert await desk.claimed() == [second.id]


async def test_one_in_flight_while_its_route_is_paused_lets_nothing_past(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    first, second = await desk.tell(), await desk.tell()
    await desk.pause()
    await desk.store.record(again(first, desk.clock.now()))
    await desk.resume()
    assert await desk.claimed() == [first.id]
    await desk.store.record(delivered(first, 2))
    assert await desk.claimed() == [second.id]


# -- retried by hand -------------------------------------------------------------------------------------------------


async def test_one_retried_by_hand_goes_after_the_one_under_way_and_before_later_ones(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    gone, under_way, later = [await desk.tell() for _ in range(3)]
    await desk.store.record(failed(gone))
    assert await desk.claimed() == [under_way.id]
    await desk.store.retry(gone.id, desk.clock.now())
    assert await desk.claimed() == [under_way.id]
    await desk.store.record(delivered(under_way))
    assert await desk.claimed() == [gone.id]
    await desk.store.record(delivered(gone, 2))
    assert await desk.claimed() == [later.id]


@pytest.mark.parametrize("all_at_once", [False, True])
async def test_one_retried_goes_before_what_came_later_and_is_held(desk: Desk, all_at_once: bool) -> None:
    await desk.follow(www=Order.ENTRY)
    gone = await desk.tell()
    await desk.store.record(failed(gone))
    later = [await desk.tell() for _ in range(2)]
    await desk.settle(kept={"www": HeldReason.PAUSED})
    if all_at_once:
        await desk.store.retry_all(LogQuery(), desk.clock.now())
    else:
        await desk.store.retry(gone.id, desk.clock.now())
    await desk.settle("www")
    for head, n in ((gone, 2), (later[0], 1), (later[1], 1)):
        assert await desk.claimed() == [head.id]
        await desk.store.record(delivered(head, n))


async def test_of_several_that_are_retried_while_they_are_held_the_oldest_goes_first(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    gone = [await desk.tell() for _ in range(3)]
    for delivery in gone:
        await desk.store.record(failed(delivery))
    await desk.settle(kept={"www": HeldReason.PAUSED})
    for delivery in reversed(gone):
        await desk.store.retry(delivery.id, desk.clock.now())
        await desk.settle(kept={"www": HeldReason.PAUSED})
    await desk.settle("www")
    for delivery in gone:
        assert await desk.claimed() == [delivery.id]
        await desk.store.record(delivered(delivery, 2))


async def test_one_retried_goes_after_what_is_being_sent_though_its_route_was_paused(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    gone, under_way, later = [await desk.tell() for _ in range(3)]
    await desk.store.record(failed(gone))
    assert await desk.claimed() == [under_way.id]
    await desk.settle(kept={"www": HeldReason.PAUSED})
    await desk.store.retry(gone.id, desk.clock.now(), sending=[under_way.id])
    await desk.settle("www")
    for head, n in ((under_way, 1), (gone, 2), (later, 1)):
        assert await desk.claimed() == [head.id]
        await desk.store.record(delivered(head, n))


async def test_one_retried_in_an_empty_lane_goes_at_once_and_first(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    gone = await desk.tell()
    await desk.store.cancel(gone.id, desk.clock.now())
    await desk.store.retry(gone.id, desk.clock.now())
    await desk.tell()
    assert await desk.claimed() == [gone.id]


async def test_a_retry_keeps_the_order_that_its_route_keeps_now(desk: Desk) -> None:
    gone = await desk.tell()
    await desk.store.record(failed(gone))
    await desk.follow(www=Order.ENTRY)
    head = await desk.tell()
    await desk.store.retry(gone.id, desk.clock.now())
    assert await desk.claimed() == [head.id]
    await desk.store.record(delivered(head))
    assert await desk.claimed() == [gone.id]


async def test_a_retry_waits_for_nothing_where_its_route_keeps_no_order_any_more(desk: Desk) -> None:
    await desk.follow(www=Order.ROUTE)
    gone = [await desk.tell(), await desk.tell()]
    for delivery in gone:
        await desk.store.record(failed(delivery))
    await desk.follow(www=Order.NONE)
    for delivery in gone:
        await desk.store.retry(delivery.id, desk.clock.now())
    assert await desk.claimed() == [delivery.id for delivery in gone]


# -- latest ----------------------------------------------------------------------------------------------------------


async def test_what_waits_is_merged_into_a_newer_one_of_the_same_stage(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    old, new = await desk.tell(), await desk.tell()
    assert await desk.states(old, new) == ["merged", "pending"]
    assert await desk.carrier(old) == new.id
    assert (await desk.detail(new)).merged == [old.event.id]
    assert desk.counts() == {"www": (1, 0)}
    assert await desk.claimed() == [new.id]
    await desk.send(new)
    assert await desk.claimed() == []


async def test_what_comes_together_is_merged_into_the_newest(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    told = await asyncio.gather(*(desk.tell() for _ in range(10)))
    *older, newest = sorted(told, key=lambda delivery: delivery.id)
    assert {await desk.carrier(delivery) for delivery in older} == {newest.id}
    assert await desk.claimed() == [newest.id]
    assert desk.counts() == {"www": (1, 0)}


async def test_what_was_merged_before_is_part_of_the_newest(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    told = [await desk.tell() for _ in range(4)]
    assert {await desk.carrier(delivery) for delivery in told[:3]} == {told[3].id}
    assert (await desk.detail(told[3])).merged == [delivery.event.id for delivery in told[:3]]


async def test_another_stage_is_another_matter_and_waits_its_turn(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    draft, published = await desk.tell(desk.about(stage="draft")), await desk.tell()
    assert await desk.states(draft, published) == ["pending", "pending"]
    newer = await desk.tell(desk.about(stage="draft"))
    assert await desk.states(draft, published, newer) == ["merged", "pending", "pending"]
    for head in (published, newer):
        assert await desk.claimed() == [head.id]
        await desk.send(head)


async def test_a_stage_that_is_not_said_is_a_stage_too(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    unsaid, said = await desk.tell(desk.about(stage=None)), await desk.tell(desk.about(stage="draft"))
    newer = await desk.tell(desk.about(stage=None))
    assert await desk.states(unsaid, said, newer) == ["merged", "pending", "pending"]


async def test_a_delete_takes_up_all_that_waits(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    told = [await desk.tell(desk.about(stage=stage)) for stage in ("draft", "published", None)]
    other = await desk.tell(desk.about("8"))
    delete = await desk.tell(desk.about(stage="draft", action="delete"))
    assert {await desk.carrier(delivery) for delivery in told} == {delete.id}
    assert await desk.claimed() == [other.id, delete.id]


async def test_what_is_held_is_merged_too(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    old = await desk.tell()
    await desk.pause()
    between, new = await desk.tell(), await desk.tell()
    assert await desk.states(old, between, new) == ["merged", "merged", "held"]
    assert desk.counts() == {"www": (0, 1)}
    await desk.resume()
    assert await desk.claimed() == [new.id]


async def test_what_is_taken_is_never_merged(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    old = await desk.tell()
    taken = await desk.take(old)
    assert taken is not None
    new = await desk.tell()
    assert await desk.states(old, new) == ["pending", "pending"]
    assert await desk.claimed() == [old.id], "the newer one waits for it"
    await desk.store.record(delivered(taken))
    assert await desk.claimed() == [new.id]


async def test_what_was_taken_and_failed_waits_again_and_may_be_merged(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    old = await desk.tell()
    taken = await desk.take(old)
    assert taken is not None
    await desk.store.record(again(taken, desk.clock.now()))
    new = await desk.tell()
    assert await desk.states(old, new) == ["merged", "pending"]
    assert await desk.claimed() == [new.id]


async def test_one_taken_while_its_route_is_paused_is_not_merged(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    old = await desk.tell()
    assert await desk.take(old) is not None
    await desk.pause()
    new = await desk.tell()
    assert await desk.states(old, new) == ["held", "held"]
    await desk.store.record(delivered(old))
    await desk.resume()
    assert await desk.claimed() == [new.id]


async def test_what_a_relay_that_is_gone_had_taken_may_be_merged(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    old = await desk.tell()
    assert await desk.take(old) is not None
    await desk.reopen()
    new = await desk.tell()
    assert await desk.states(old, new) == ["merged", "pending"]


async def test_what_was_taken_and_cancelled_waits_again_once_it_is_retried(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    old = await desk.tell()
    assert await desk.take(old) is not None
    await desk.store.cancel(old.id, desk.clock.now())
    await desk.store.retry(old.id, desk.clock.now())
    new = await desk.tell()
    assert await desk.states(old, new) == ["merged", "pending"]


async def test_one_that_was_merged_after_it_was_claimed_is_not_taken(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    await desk.tell()
    (claimed,) = await desk.claim()
    assert not claimed.reserved
    await desk.tell()
    assert await desk.store.take(claimed, desk.clock.now()) is None


async def test_the_end_of_the_first_stage_lets_the_next_one_go_on_also_when_it_was_merged(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    draft, published = await desk.tell(desk.about(stage="draft")), await desk.tell()
    newer = await desk.tell(desk.about(stage="draft"))
    assert await desk.claimed() == [published.id], "the first one of the lane was merged into the last"
    assert await desk.states(draft, newer) == ["merged", "pending"]


@pytest.mark.parametrize("order", [Order.ENTRY, Order.LATEST])
@pytest.mark.parametrize(
    "changes",
    [
        (Change("page", "published", "publish", None),),
        (Change("page", "published", "publish", "7"), Change("page", "published", "publish", "8")),
        (Change("page", "published", "delete", "7"), Change("page", "published", "delete", "7")),
    ],
    ids=["no entry", "several", "several of one"],
)
async def test_what_is_about_no_single_entry_is_ordered_per_source_and_never_merged(
    desk: Desk, changes: tuple[Change, ...], order: Order
) -> None:
    await desk.follow(www=order)
    about = Description("release", changes)
    first, second = await desk.tell(desk.event(description=about)), await desk.tell(desk.event(description=about))
    shop = await desk.tell(desk.event(source="shop", description=about))
    single = await desk.tell(desk.about("7"))
    assert await desk.states(first, second, shop, single) == ["pending"] * 4
    assert await desk.claimed() == [first.id, shop.id, single.id]
    await desk.send(first)
    assert await desk.claimed() == [second.id, shop.id, single.id]


@pytest.mark.parametrize("newer", ["waits", "delivered"])
async def test_one_that_is_out_of_date_is_not_retried(desk: Desk, newer: str) -> None:
    await desk.follow(www=Order.LATEST)
    old = await desk.tell()
    await desk.store.record(failed(old))
    new = await desk.tell()
    if newer == "delivered":
        await desk.send(new)
    with pytest.raises(WrongState, match="something newer") as caught:
        await desk.store.retry(old.id, desk.clock.now())
    assert caught.value.state is State.FAILED
    assert await desk.state(old) == "failed"


async def test_one_is_retried_where_what_came_later_failed_too(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    old = await desk.tell()
    await desk.store.record(failed(old))
    new = await desk.tell()
    await desk.store.record(failed(new))
    await desk.store.retry(old.id, desk.clock.now())
    assert await desk.claimed() == [old.id]


async def test_another_stage_makes_nothing_out_of_date_but_a_delete_everything(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    draft = await desk.tell(desk.about(stage="draft"))
    await desk.store.record(failed(draft))
    await desk.send(await desk.tell())
    await desk.store.retry(draft.id, desk.clock.now())
    await desk.store.record(failed(draft, 2))
    await desk.send(await desk.tell(desk.about(stage="published", action="delete")))
    with pytest.raises(WrongState):
        await desk.store.retry(draft.id, desk.clock.now())


async def test_a_delete_is_out_of_date_when_the_entry_is_there_again(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    delete = await desk.tell(desk.about(stage=None, action="delete"))
    await desk.store.record(failed(delete))
    await desk.send(await desk.tell(desk.about(stage="published")))
    with pytest.raises(WrongState, match="something newer"):
        await desk.store.retry(delete.id, desk.clock.now())


async def test_what_is_about_no_single_entry_is_never_out_of_date(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    release = await desk.tell(desk.about(None))
    await desk.store.record(failed(release))
    await desk.send(await desk.tell(desk.about(None)))
    await desk.store.retry(release.id, desk.clock.now())
    assert await desk.claimed() == [release.id]


async def test_retry_all_passes_over_what_is_out_of_date(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    old, other = await desk.tell(), await desk.tell(desk.about("8"))
    for delivery in (old, other):
        await desk.store.record(failed(delivery))
    await desk.send(await desk.tell())
    for dry_run in (True, False):
        done = await desk.store.retry_all(LogQuery(), desk.clock.now(), dry_run=dry_run)
        assert done == Retried({"www": 1}, 1)
    assert await desk.states(old, other) == ["failed", "pending"]


async def test_a_newer_one_takes_the_place_of_what_it_takes_up_in_a_full_queue(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    desk.most["www"] = 1
    old, new = await desk.tell(), await desk.tell()
    other = await desk.tell(desk.about("8"))
    assert await desk.states(old, new, other) == ["merged", "pending", "failed"]
    assert desk.counts() == {"www": (1, 0)}


async def test_a_newer_one_that_finds_the_queue_full_leaves_what_waits_alone(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    old = await desk.tell(desk.about(stage="draft"))
    desk.most["www"] = 1
    new = await desk.tell()
    assert await desk.states(old, new) == ["pending", "failed"]
    error = (await desk.detail(new)).item.error
    assert error is not None
    assert error.code is Code.QUEUE_FULL
    assert await desk.claimed() == [old.id]


async def test_an_old_event_that_is_replayed_takes_up_nothing_newer(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    old = await desk.tell()
    await desk.send(old)
    new = await desk.tell()
    replayed = await desk.replay(old.event)
    assert await desk.states(new, replayed) == ["pending", "merged"]
    assert await desk.carrier(replayed) == new.id
    assert await desk.claimed() == [new.id]


async def test_an_event_that_is_replayed_takes_up_its_own_deliveries_and_older_ones(desk: Desk) -> None:
    await desk.follow(www=Order.LATEST)
    old, new = await desk.tell(), await desk.tell()
    replayed = await desk.replay(new.event)
    assert {await desk.carrier(delivery) for delivery in (old, new)} == {replayed.id}
    assert await desk.claimed() == [replayed.id]


# -- another order ---------------------------------------------------------------------------------------------------


async def heads(desk: Desk) -> list[DeliveryId]:
    """What goes out, one round after another, as long as everything that is claimed arrives."""
    sent = []
    while found := await desk.claim():
        for delivery in found:
            sent.append(delivery.id)
            await desk.store.record(delivered(delivery, delivery.attempts + 1))
    return sent


async def test_what_waits_is_put_into_the_lanes_of_another_order(desk: Desk) -> None:
    told = [await desk.tell(desk.about(entry)) for entry in ("7", "8", "7", "8")]
    assert len(await desk.claimed()) == 4
    await desk.follow(www=Order.ENTRY)
    assert await desk.claimed() == [told[0].id, told[1].id]
    await desk.follow(www=Order.ROUTE)
    assert await desk.claimed() == [told[0].id]
    await desk.follow(www=Order.NONE)
    assert await desk.claimed() == [delivery.id for delivery in told]
    assert await desk.states(*told) == ["pending"] * 4
    await desk.follow(www=Order.LATEST)  # of what waits only the newest is sent, also of what waited before
    assert await desk.claimed() == [told[2].id, told[3].id]
    assert await desk.states(*told) == ["merged", "merged", "pending", "pending"]


@pytest.mark.parametrize("before", list(Order))
@pytest.mark.parametrize("after", list(Order))
async def test_an_order_that_changes_leaves_nobody_behind(desk: Desk, before: Order, after: Order) -> None:
    await desk.follow(www=before)
    told = [await desk.tell(desk.about(entry, stage)) for stage in ("a", "b", "c") for entry in ("7", "8", None)]
    in_flight = await desk.claim()
    await desk.follow(www=after)
    for delivery in in_flight:
        await desk.store.record(delivered(delivery))
    sent = [delivery.id for delivery in in_flight] + await heads(desk)
    assert sorted(sent) == [delivery.id for delivery in told]


async def test_one_in_flight_that_was_born_without_an_order_lets_its_lane_go_on(desk: Desk) -> None:
    in_flight = await desk.tell()
    next_one = await desk.tell()
    await desk.follow(www=Order.ENTRY)
    await desk.store.record(delivered(in_flight))
    assert await desk.claimed() == [next_one.id]


@pytest.mark.parametrize(("order", "states"), [(Order.ENTRY, ["pending"] * 2), (Order.LATEST, ["pending", "merged"])])
async def test_what_was_about_to_be_owed_once_more_when_an_order_came_keeps_it(
    desk: Desk, order: Order, states: list[str]
) -> None:
    old = await desk.tell()
    await desk.send(old)
    new = await desk.tell()
    owed = desk.owed(replace(old.event, received_at=desk.clock.now()))
    await desk.follow(www=order)
    await desk.store.owe(old.event.id, [owed])
    assert await desk.states(new, owed.delivery) == states
    assert await desk.claimed() == [new.id]


@pytest.mark.parametrize("order", KEEPING)
async def test_what_came_after_an_order_did_goes_after_what_waits_and_is_not_in_its_lane_yet(
    desk: Desk, order: Order
) -> None:
    old = await desk.tell(desk.about(stage="draft"))
    desk.orders["www"] = order
    new = await desk.tell(desk.about(stage="published"))
    newest = await desk.tell(desk.about(stage="review"))
    await desk.follow()
    for head in (old, new, newest):
        assert await desk.claimed() == [head.id]
        await desk.send(head)
    assert await desk.claimed() == []


async def test_one_that_is_tried_again_later_is_waited_for_by_what_came_after_an_order_did(desk: Desk) -> None:
    old = await desk.tell()
    await desk.store.record(again(old, desk.clock.now() + 60 * SECOND))
    desk.orders["www"] = Order.ENTRY
    new = await desk.tell()
    await desk.follow()
    assert await desk.claimed() == []
    desk.wait(60)
    assert await desk.claimed() == [old.id]
    await desk.store.record(delivered(old, 2))
    assert await desk.claimed() == [new.id]


@pytest.mark.parametrize("begun", ["sending", "tried"])
async def test_what_came_after_an_order_did_and_was_begun_stays_before_what_was_not_in_its_lane_yet(
    desk: Desk, begun: str
) -> None:
    old = await desk.tell()
    desk.orders["www"] = Order.ENTRY
    new = await desk.tell()
    if begun == "tried":
        await desk.store.record(again(new, desk.clock.now()))
    await desk.store.follow(desk.orders, [new.id] if begun == "sending" else [])
    assert await desk.claimed() == [new.id]
    await desk.store.record(delivered(new, 2))
    assert await desk.claimed() == [old.id]


async def test_held_ones_are_put_into_new_lanes_too(desk: Desk) -> None:
    told = [await desk.tell() for _ in range(2)]
    await desk.pause()
    await desk.follow(www=Order.ENTRY)
    await desk.resume()
    assert await desk.claimed() == [told[0].id]


async def test_a_large_backlog_is_put_into_new_lanes_whole(desk: Desk) -> None:
    event = desk.about()
    await desk.put(event, [desk.owe(event) for _ in range(1700)])
    await desk.follow(www=Order.ENTRY)
    assert len(await desk.claimed()) == 1
    await desk.follow(www=Order.NONE)
    assert len(await desk.claimed(limit=5000)) == 1700


async def test_an_order_is_known_over_a_restart(desk: Desk) -> None:
    told = [await desk.tell() for _ in range(2)]
    await desk.follow(www=Order.ENTRY)
    await desk.reopen()
    await desk.follow(www=Order.ENTRY)
    assert await desk.claimed() == [told[0].id]
    await desk.follow(www=Order.NONE)
    await desk.reopen()
    await desk.follow()
    assert len(await desk.claimed()) == 2


async def test_an_order_that_stays_keeps_the_one_under_way_before_one_that_was_retried(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    gone, under_way = await desk.tell(), await desk.tell()
    await desk.store.record(failed(gone))
    await desk.store.retry(gone.id, desk.clock.now())
    await desk.follow(www=Order.LATEST)
    assert await desk.claimed() == [under_way.id]


async def test_a_route_that_was_away_still_keeps_its_order(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    told = [await desk.tell() for _ in range(2)]
    await desk.store.follow({})
    await desk.store.settle([], {})
    await desk.settle("www")
    await desk.follow()
    (head,) = await desk.claim()
    assert head.id == told[0].id
    await desk.store.record(delivered(head))
    assert await desk.claimed() == [told[1].id]


# -- moved -----------------------------------------------------------------------------------------------------------


async def test_what_is_moved_keeps_the_order_of_its_new_route(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    told = [await desk.tell(route="old") for _ in range(2)]
    await desk.settle("www")
    assert await desk.store.move("old", "www") == Moved(2)
    await desk.settle("www")
    later = await desk.tell()
    for head in (*told, later):
        assert await desk.claimed() == [head.id]
        await desk.store.record(delivered(replace(head, route="www")))


async def test_what_is_moved_goes_before_what_came_later_and_is_held(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    told = [await desk.tell(route="old") for _ in range(2)] + [await desk.tell() for _ in range(2)]
    await desk.settle(kept={"www": HeldReason.DISABLED})
    assert await desk.store.move("old", "www") == Moved(2)
    await desk.settle("www")
    for head in told:
        assert await desk.claimed() == [head.id]
        await desk.store.record(delivered(replace(head, route="www")))


async def test_what_is_moved_goes_after_the_one_under_way(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    moved = await desk.tell(route="old")
    under_way = await desk.tell()
    await desk.settle("www")
    await desk.store.move("old", "www")
    await desk.settle("www")
    assert await desk.claimed() == [under_way.id]
    await desk.store.record(delivered(under_way))
    assert await desk.claimed() == [moved.id]


async def test_what_is_moved_to_a_route_without_an_order_waits_for_nothing(desk: Desk) -> None:
    await desk.follow(old=Order.ROUTE, www=Order.NONE)
    told = [await desk.tell(desk.about(entry), "old") for entry in ("7", "8")]
    await desk.settle("www", kept={"old": HeldReason.REMOVED})
    await desk.store.move("old", "www")
    await desk.settle("www")
    assert await desk.claimed() == [delivery.id for delivery in told]
