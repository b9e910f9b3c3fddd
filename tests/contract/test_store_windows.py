"""What every store must promise of windows: several events that become one request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

import pytest

from relay import window
from relay.delivery import Delivery, HeldReason, Result, State, Trigger
from relay.event import Event
from relay.ids import EVENT, DeliveryId
from relay.lane import Order
from relay.store import LogQuery, Moved, WrongState
from relay.window import Grouping
from tests.contract.desk import SECOND, Desk, again, delivered, expired, failed
from tests.fakes import NOON


def debounce(wait: float = 10, longest: float = 25, by: Sequence[str] = (), delay: float = 0) -> Grouping:
    return window.debounce(wait * SECOND, longest * SECOND, by, delay * SECOND)


def batch(most: int = 3, wait: float = 10, delay: float = 0) -> Grouping:
    return window.batch(most, wait * SECOND, delay * SECOND)


GROUPINGS = [debounce(), batch(most=9)]


async def due(desk: Desk, carrier: Delivery) -> datetime | None:
    return (await desk.detail(carrier)).item.next_attempt_at


async def sent(desk: Desk, carrier: Delivery) -> list[int]:
    """The events that go out with a carrier."""
    taken = await desk.take(carrier)
    assert taken is not None
    assert taken.collected is not None
    assert taken.event == taken.collected.events[-1]
    assert taken.collected.ids == tuple(desk.store.ids.text(EVENT, event.id) for event in taken.collected.events)
    return [event.id for event in taken.collected.events]


async def opened(desk: Desk) -> list[tuple[DeliveryId, datetime, bool, int]]:
    """Windows as people see them: id, due, held, how many events."""
    return [(each.id, each.due_at, each.held, len(each.events)) for each in await desk.store.windows()]


# -- collecting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grouping", GROUPINGS)
async def test_the_first_event_opens_a_window_and_later_ones_are_born_merged_into_it(
    desk: Desk, grouping: Grouping
) -> None:
    desk.groupings["www"] = grouping
    carrier = await desk.tell()
    assert await due(desk, carrier) == NOON + 10 * SECOND
    desk.wait(1)
    others = [await desk.tell(), await desk.tell(desk.about("8"))]
    assert await desk.states(carrier, *others) == ["pending", "merged", "merged"]
    assert {await desk.carrier(other) for other in others} == {carrier.id}
    assert desk.counts() == {"www": (1, 0)}
    (found,) = await desk.store.windows()
    assert (found.id, found.route, found.opened_at, found.held) == (carrier.id, "www", NOON, False)
    assert found.events == tuple(each.event.id for each in (carrier, *others))
    assert (await desk.detail(carrier)).merged == [other.event.id for other in others]


async def test_each_event_moves_what_is_debounced_but_never_past_the_longest_wait(desk: Desk) -> None:
    desk.groupings["www"] = debounce(wait=10, longest=25)
    carrier = await desk.tell()
    for seconds, expected in ((4, 14), (5, 19), (9, 25), (6, 25)):
        desk.wait(seconds)
        await desk.tell()
        assert await due(desk, carrier) == NOON + expected * SECOND


async def test_a_batch_is_due_so_long_after_its_first_event(desk: Desk) -> None:
    desk.groupings["www"] = batch(most=9, wait=10)
    carrier = await desk.tell()
    desk.wait(7)
    await desk.tell()
    assert await due(desk, carrier) == NOON + 10 * SECOND


async def test_max_age_of_a_window_counts_from_when_it_is_due(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    await desk.tell()
    desk.wait(5)
    await desk.tell()
    desk.wait(10)
    (found,) = await desk.claim()
    assert found.first_due == found.due == NOON + 15 * SECOND


async def test_a_delay_starts_when_the_window_closes(desk: Desk) -> None:
    desk.groupings["www"] = batch(most=2, wait=10, delay=60)
    carrier = await desk.tell()
    assert await due(desk, carrier) == NOON + 70 * SECOND
    desk.wait(1)
    await desk.tell()
    assert await due(desk, carrier) == NOON + 61 * SECOND


@pytest.mark.parametrize("grouping", GROUPINGS)
async def test_nothing_is_found_or_taken_before_it_is_due(desk: Desk, grouping: Grouping) -> None:
    desk.groupings["www"] = grouping
    carrier = await desk.tell()
    desk.wait(9.999)
    assert await desk.claimed() == []
    assert await desk.store.take(carrier, desk.clock.now()) is None
    assert await desk.store.next_due("www", desk.clock.now()) == NOON + 10 * SECOND
    desk.wait(0.001)
    assert await desk.claimed() == [carrier.id]


async def test_a_window_that_moved_on_after_it_was_claimed_is_not_taken(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    carrier = await desk.tell()
    desk.wait(10)
    (claimed,) = await desk.claim()
    assert not claimed.reserved
    late = await desk.tell()
    assert await desk.store.take(claimed, desk.clock.now()) is None
    desk.wait(10)
    assert await sent(desk, carrier) == [carrier.event.id, late.event.id]


async def test_events_that_come_together_are_all_collected(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    told = sorted(await asyncio.gather(*(desk.tell() for _ in range(30))), key=lambda delivery: delivery.id)
    assert await desk.states(*told) == ["pending"] + ["merged"] * 29
    desk.wait(10)
    assert await sent(desk, told[0]) == [delivery.event.id for delivery in told]


async def test_windows_are_split_by_what_the_route_says_and_what_is_not_said_is_a_value(desk: Desk) -> None:
    desk.groupings["www"] = debounce(by=("source", "stage"))
    told = [
        await desk.tell(desk.about(stage=stage, source=source))
        for _ in range(2)
        for stage, source in (("draft", "blog"), (None, "blog"), ("", "blog"), ("null", "blog"), ("draft", "shop"))
    ]
    assert await desk.states(*told) == ["pending"] * 5 + ["merged"] * 5
    assert [await desk.carrier(delivery) for delivery in told[5:]] == [delivery.id for delivery in told[:5]]


async def test_each_route_has_windows_of_its_own(desk: Desk) -> None:
    desk.groupings |= {"www": debounce(), "search": debounce()}
    event = desk.about()
    await desk.store.add(event, [desk.owed(event, "www"), desk.owed(event, "search")])
    assert desk.counts() == {"www": (1, 0), "search": (1, 0)}


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_a_batch_that_is_full_is_due_at_once_and_the_next_event_opens_another(desk: Desk, most: int) -> None:
    desk.groupings["www"] = batch(most)
    told = [await desk.tell() for _ in range(2 * most)]
    assert await desk.claimed() == [told[0].id, told[most].id]
    assert await sent(desk, told[0]) == [delivery.event.id for delivery in told[:most]]
    assert await sent(desk, told[most]) == [delivery.event.id for delivery in told[most:]]
    assert await desk.store.windows() == []


async def test_a_debounced_window_is_full_one_day(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "MOST_DEBOUNCED", 3)
    desk.groupings["www"] = debounce()
    told = [await desk.tell() for _ in range(4)]
    assert await desk.states(*told) == ["pending", "merged", "merged", "pending"]
    assert await desk.claimed() == [told[0].id]


async def test_a_batch_holds_so_many_bytes(desk: Desk) -> None:
    desk.groupings["www"] = batch(most=9)
    half = b"x" * (window.MOST_BYTES // 2)
    told = [await desk.tell(desk.about(body=body)) for body in (half, half, b"")]
    assert await desk.states(*told) == ["pending", "merged", "merged"], "exactly as many"
    desk.wait(1)
    last = await desk.tell(desk.about(body=b"x"))
    assert await desk.state(last) == "pending", "one byte more opens another window"
    assert await sent(desk, told[0]) == [delivery.event.id for delivery in told]
    assert await due(desk, last) == NOON + 11 * SECOND


async def test_a_full_batch_that_was_due_before_is_not_due_later(desk: Desk) -> None:
    desk.groupings["www"] = batch(most=2)
    carrier = await desk.tell()
    desk.wait(60)
    await desk.tell()
    assert await due(desk, carrier) == NOON + 10 * SECOND


async def test_one_body_larger_than_any_batch_goes_alone(desk: Desk) -> None:
    desk.groupings["www"] = batch(most=9)
    big = await desk.tell(desk.about(body=b"x" * (window.MOST_BYTES + 1)))
    small = await desk.tell()
    assert await desk.states(big, small) == ["pending", "pending"]
    assert await sent(desk, big) == [big.event.id]


async def test_a_smaller_batch_is_full_with_what_it_has(desk: Desk) -> None:
    desk.groupings["www"] = batch(most=9)
    told = [await desk.tell() for _ in range(4)]
    desk.groupings["www"] = batch(most=2)
    told.append(await desk.tell())
    assert await sent(desk, told[0]) == [delivery.event.id for delivery in told]


async def test_a_window_takes_events_also_when_the_queue_is_full(desk: Desk) -> None:
    desk.groupings["www"] = debounce(by=("entry_id",))
    desk.most["www"] = 1
    told = [await desk.tell(), await desk.tell(), await desk.tell(desk.about("8"))]
    assert await desk.states(*told) == ["pending", "merged", "failed"]
    assert [len(each.events) for each in await desk.store.windows()] == [2]


async def test_another_way_of_collecting_leaves_open_windows_to_their_time(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    old = await desk.tell()
    desk.groupings["www"] = batch()
    new = await desk.tell()
    del desk.groupings["www"]
    plain = await desk.tell()
    assert await desk.states(old, new, plain) == ["pending"] * 3
    assert await desk.claimed() == [plain.id]
    desk.wait(10)
    assert await sent(desk, old) == [old.event.id]


async def test_windows_lie_in_the_store(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    told = [await desk.tell()]
    desk.wait(4)
    told.append(await desk.tell())
    before = await desk.store.windows()
    await desk.reopen()
    assert await desk.store.windows() == before
    assert await due(desk, told[0]) == NOON + 14 * SECOND
    told.append(await desk.tell())
    desk.wait(10)
    assert await sent(desk, told[0]) == [delivery.event.id for delivery in told]


async def test_a_replayed_event_is_collected_with_others(desk: Desk) -> None:
    old = await desk.tell()
    await desk.send(old)
    desk.groupings["www"] = debounce()
    desk.wait(3600)
    carrier = await desk.tell()
    replayed = await desk.replay(old.event)
    assert await desk.carrier(replayed) == carrier.id
    desk.wait(10)
    assert await sent(desk, carrier) == [carrier.event.id, old.event.id]


# -- sending ---------------------------------------------------------------------------------------------------------


def bodies(events: Sequence[Event]) -> list[bytes]:
    return [event.body for event in events]


async def test_a_batch_comes_with_all_bodies_in_order_of_arrival(desk: Desk) -> None:
    desk.groupings["www"] = batch()
    carrier, *_ = [await desk.tell(desk.about(body=body)) for body in (b"1", b"", b"3")]
    taken = await desk.take(carrier)
    assert taken is not None
    assert taken.collected is not None
    assert taken.collected.kind == "batch"
    assert bodies(taken.collected.events) == [b"1", b"", b"3"]
    assert taken.event.sha256


async def test_what_is_debounced_comes_with_the_last_body_and_all_descriptions(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    told = [await desk.tell(desk.about(entry, body=entry.encode())) for entry in ("7", "8", "9")]
    desk.wait(10)
    taken = await desk.take(told[0])
    assert taken is not None
    assert taken.collected is not None
    assert taken.collected.kind == "debounce"
    assert bodies(taken.collected.events) == [b"", b"", b"9"]
    assert taken.event == told[-1].event
    assert [event.description for event in taken.collected.events] == [each.event.description for each in told]


@pytest.mark.parametrize("grouping", [debounce(), batch(most=2)])
@pytest.mark.parametrize("place", [0, 1])
async def test_a_body_that_rotted_spoils_the_whole_window_it_is_sent_with(
    desk: Desk, grouping: Grouping, place: int
) -> None:
    desk.groupings["www"] = grouping
    told = [await desk.tell(desk.about(body=body)) for body in (b"the very body", b"another body")]
    other = f"SELECT content FROM body WHERE event_id = {told[1 - place].event.id}"
    await desk.damage(f"UPDATE body SET content = ({other}) WHERE event_id = {told[place].event.id}")
    desk.wait(10)
    taken = await desk.take(told[0])
    assert taken is not None
    assert taken.collected is not None
    sent = taken.collected.kind == "batch" or place == 1
    assert bool(taken.event.sha256) is not sent, "what is not sent harms nobody"


@pytest.mark.parametrize("grouping", GROUPINGS)
async def test_a_window_of_one_event_is_a_window(desk: Desk, grouping: Grouping) -> None:
    desk.groupings["www"] = grouping
    carrier = await desk.tell()
    desk.wait(10)
    taken = await desk.take(carrier)
    assert taken is not None
    assert taken.collected is not None
    assert taken.collected.events == (carrier.event,) == (taken.event,)


@pytest.mark.parametrize("grouping", GROUPINGS)
async def test_a_window_that_failed_is_tried_again_with_all_its_events_and_takes_no_more(
    desk: Desk, grouping: Grouping
) -> None:
    desk.groupings["www"] = grouping
    carrier, merged = await desk.tell(), await desk.tell()
    desk.wait(10)
    assert len(await sent(desk, carrier)) == 2
    assert await desk.store.windows() == []
    other = await desk.tell()
    assert await desk.state(other) == "pending", "taken: it takes nothing any more"
    await desk.store.record(again(carrier, desk.clock.now()))
    assert await desk.carrier(await desk.tell()) == other.id
    await desk.reopen()
    (found,) = await desk.claim()
    assert (found.id, found.reserved, found.trigger) == (carrier.id, True, Trigger.RETRY)
    assert found.collected is not None
    assert [event.id for event in found.collected.events] == [carrier.event.id, merged.event.id]
    await desk.store.record(delivered(found, 2))
    assert await desk.states(carrier, merged) == ["delivered", "merged"]


@pytest.mark.parametrize("end", [failed, expired], ids=["failed", "expired"])
async def test_a_window_that_was_given_up_takes_no_more_and_is_retried_whole(
    desk: Desk, end: Callable[[Delivery], Result]
) -> None:
    desk.groupings["www"] = debounce()
    carrier, merged = await desk.tell(), await desk.tell()
    desk.wait(10)
    taken = await desk.take(carrier)
    assert taken is not None
    await desk.store.record(end(taken))
    later = await desk.tell()
    assert await desk.states(carrier, later) == ["failed", "pending"]
    await desk.store.retry(carrier.id, desk.clock.now())
    assert await desk.carrier(await desk.tell()) == later.id
    assert await sent(desk, carrier) == [carrier.event.id, merged.event.id]


async def test_a_window_that_ended_before_it_was_taken_takes_nothing(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    carrier = await desk.tell()
    await desk.store.record(delivered(carrier))
    assert await desk.state(await desk.tell()) == "pending"


async def test_a_window_that_waits_for_its_route_still_takes_events(desk: Desk) -> None:
    desk.groupings["www"] = debounce(wait=10, longest=100)
    carrier = await desk.tell()
    desk.wait(60)
    late = await desk.tell()
    assert await desk.carrier(late) == carrier.id
    assert await due(desk, carrier) == NOON + 70 * SECOND
    desk.wait(600)
    await desk.tell()
    assert await due(desk, carrier) == NOON + 100 * SECOND, "as if it had been sent in time"


async def test_large_batches_that_are_tried_again_are_claimed_one_by_one(desk: Desk) -> None:
    desk.groupings["www"] = batch(most=3)
    told = [await desk.tell(desk.about(body=b"x" * (2 << 20))) for _ in range(6)]
    for carrier in (told[0], told[3]):
        taken = await desk.take(carrier)
        assert taken is not None
        await desk.store.record(again(taken, desk.clock.now()))
    assert await desk.claimed() == [told[0].id], "at most 8 MiB in sum"


# -- held ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grouping", GROUPINGS)
async def test_a_window_that_its_routes_pause_holds_takes_events_and_keeps_its_time(
    desk: Desk, grouping: Grouping
) -> None:
    desk.groupings["www"] = grouping
    told = [await desk.tell()]
    await desk.pause()
    told.append(await desk.tell())
    assert await desk.states(*told) == ["held", "merged"]
    assert await opened(desk) == [(told[0].id, NOON + 10 * SECOND, True, 2)]
    await desk.resume()
    told.append(await desk.tell())
    assert desk.counts() == {"www": (1, 0)}
    desk.wait(10)
    assert await sent(desk, told[0]) == [delivery.event.id for delivery in told]


async def test_a_window_may_be_opened_while_its_route_is_paused(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    await desk.pause()
    told = [await desk.tell(), await desk.tell()]
    assert await desk.states(*told) == ["held", "merged"]
    desk.wait(60)
    await desk.resume()
    (found,) = await desk.claim()
    assert (found.id, found.trigger) == (told[0].id, Trigger.RESUME)


async def test_flush_makes_a_window_due_now_and_closes_it(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    told = [await desk.tell(), await desk.tell()]
    now = desk.wait(1)
    assert await desk.store.flush(told[0].id, now, None) == "www"
    later = await desk.tell()
    assert await desk.state(later) == "pending"
    (found,) = await desk.claim()
    assert (found.id, found.due, found.first_due, found.trigger) == (told[0].id, now, now, Trigger.MANUAL)
    assert await sent(desk, told[0]) == [delivery.event.id for delivery in told]


async def test_flush_of_a_window_whose_route_may_not_send_keeps_it_for_that_reason(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    carrier = await desk.tell()
    await desk.pause()
    assert await desk.store.flush(carrier.id, desk.clock.now(), HeldReason.PAUSED) == "www"
    assert desk.counts() == {"www": (0, 1)}
    await desk.resume()
    assert await desk.claimed() == [carrier.id]


async def test_what_is_held_by_hand_takes_events_until_it_is_flushed_whatever_its_route_does(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    told = [await desk.tell()]
    assert await desk.store.hold(told[0].id, desk.clock.now()) == "www"
    assert desk.counts() == {"www": (0, 1)}
    await desk.pause()
    await desk.settle()
    await desk.resume()
    await desk.reopen()
    told.append(await desk.tell())
    desk.wait(3600)
    assert await desk.claimed() == []
    ((number, _, held, events),) = await opened(desk)
    assert (number, held, events) == (told[0].id, True, 2)
    await desk.store.flush(told[0].id, desk.clock.now(), None)
    assert await sent(desk, told[0]) == [delivery.event.id for delivery in told]
    assert desk.counts() == {"www": (1, 0)}


async def test_hold_of_what_a_pause_holds_keeps_it_over_the_end_of_the_pause(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    carrier = await desk.tell()
    await desk.pause()
    await desk.store.hold(carrier.id, desk.clock.now())
    await desk.resume()
    assert await desk.state(carrier) == "held"
    assert desk.counts() == {"www": (0, 1)}


async def test_a_batch_that_is_held_by_hand_and_full_can_still_be_seen_and_flushed(desk: Desk) -> None:
    desk.groupings["www"] = batch(most=2)
    told = [await desk.tell()]
    await desk.store.hold(told[0].id, desk.clock.now())
    told += [await desk.tell(), await desk.tell()]
    assert await desk.states(*told) == ["held", "merged", "pending"]
    assert [(number, held, events) for number, _, held, events in await opened(desk)] == [
        (told[0].id, True, 2),
        (told[2].id, False, 1),
    ]
    await desk.store.flush(told[0].id, desk.clock.now(), None)
    assert await sent(desk, told[0]) == [told[0].event.id, told[1].event.id]


async def test_a_cancelled_window_takes_nothing_and_its_events_end_with_it(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    carrier, merged = await desk.tell(), await desk.tell()
    assert await desk.store.cancel(carrier.id, desk.clock.now()) == "www"
    later = await desk.tell()
    assert await desk.states(carrier, merged, later) == ["cancelled", "merged", "pending"]
    assert [number for number, *_ in await opened(desk)] == [later.id]
    await desk.store.retry(carrier.id, desk.clock.now())
    assert await sent(desk, carrier) == [carrier.event.id, merged.event.id]


async def test_a_retry_of_a_window_that_waits_is_a_flush(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    carrier = await desk.tell()
    await desk.store.retry(carrier.id, desk.clock.now())
    other = await desk.tell()
    assert await desk.states(carrier, other) == ["pending", "pending"], "nothing moves it again"
    assert await sent(desk, carrier) == [carrier.event.id]


async def test_only_open_windows_are_flushed_and_held(desk: Desk) -> None:
    plain = await desk.tell()
    desk.groupings["www"] = debounce()
    flushed, cancelled = await desk.tell(desk.about("7")), await desk.tell(desk.about("8"))
    now = desk.clock.now()
    await desk.store.flush(flushed.id, now, None)
    with pytest.raises(WrongState) as caught:
        await desk.store.hold(cancelled.id, now)
    assert caught.value.state is State.MERGED
    for delivery in (plain, flushed):
        for change in (desk.store.hold(delivery.id, now), desk.store.flush(delivery.id, now, None)):
            with pytest.raises(WrongState, match="no open window") as caught:
                await change
            assert caught.value.state is State.PENDING
    for unknown in (desk.store.hold(DeliveryId(1), now), desk.store.flush(DeliveryId(1), now, None)):
        with pytest.raises(KeyError):
            await unknown


async def test_a_window_that_is_taken_can_be_neither_flushed_nor_held(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    carrier = await desk.tell()
    desk.wait(10)
    await desk.take(carrier)
    for change in (desk.store.hold(carrier.id, NOON), desk.store.flush(carrier.id, NOON, None)):
        with pytest.raises(WrongState):
            await change
    assert desk.counts() == {"www": (1, 0)}


async def test_windows_are_shown_oldest_first(desk: Desk) -> None:
    desk.groupings["www"] = debounce(by=("entry_id",))
    told = [await desk.tell(desk.about(entry)) for entry in ("z", "a", "m")]
    assert [each.id for each in await desk.store.windows()] == [delivery.id for delivery in told]


async def test_what_was_merged_into_a_window_is_moved_with_it_however_much_that_is(desk: Desk) -> None:
    desk.groupings["old"] = debounce()
    event = desk.about()
    carrier = desk.owed(event, "old")
    await desk.store.add(event, [carrier, *(desk.owed(event, "old") for _ in range(1233))])
    await desk.tell(route="other")
    await desk.settle("www")
    assert await desk.store.move("old", "www") == Moved(1)
    found = await desk.store.search(LogQuery(route=("www",), limit=1000))
    assert found.next is not None
    rest = await desk.store.search(LogQuery(route=("www",), limit=1000, before=found.next))
    assert [len(found.items), len(rest.items)] == [1000, 234]
    assert {item.route for item in (*found.items, *rest.items)} == {"www"}
    assert (await desk.store.search(LogQuery(route=("old",)))).items == []
    assert desk.counts() == {"www": (0, 1), "other": (0, 1)}


async def test_a_move_says_what_it_would_do_and_which_windows_it_leaves(desk: Desk) -> None:
    desk.groupings["old"] = debounce(by=("entry_id",))
    held = [await desk.tell(desk.about(entry), route="old") for entry in ("a", "b")]
    for each in held:
        await desk.store.hold(each.id, desk.clock.now())
    await desk.tell(desk.about("c"), route="old")
    await desk.settle("www")
    assert await desk.store.move("old", "www", dry_run=True) == Moved(1, windows_left=2)
    assert desk.counts() == {"old": (0, 3)}
    assert await desk.store.move("old", "www") == Moved(1, windows_left=2)
    assert desk.counts() == {"old": (0, 2), "www": (0, 1)}
    await desk.store.flush(held[0].id, desk.clock.now(), HeldReason.REMOVED)
    assert await desk.store.move("old", "www") == Moved(1, windows_left=1)


async def test_a_window_that_is_moved_to_another_route_is_sent_whole_and_takes_no_more(desk: Desk) -> None:
    desk.groupings |= {"old": debounce(), "www": debounce()}
    told = [await desk.tell(route="old") for _ in range(2)]
    own = await desk.tell(route="www")
    await desk.settle("www")
    assert await desk.store.move("old", "www") == Moved(1)
    await desk.settle("www")
    assert await desk.carrier(await desk.tell(route="www")) == own.id
    desk.wait(10)
    (found, _) = await desk.claim()
    assert found.id == told[0].id
    assert found.collected is not None
    assert [event.id for event in found.collected.events] == [delivery.event.id for delivery in told]


# -- in order --------------------------------------------------------------------------------------------------------


async def test_a_window_that_waits_for_its_lane_still_takes_events(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    desk.groupings["www"] = debounce()
    first = await desk.tell()
    desk.wait(10)
    taken = await desk.take(first)
    assert taken is not None
    second = [await desk.tell()]
    desk.wait(60)
    second.append(await desk.tell())
    desk.wait(60)
    assert await desk.carrier(second[1]) == second[0].id
    assert await desk.claimed() == [first.id]
    await desk.store.record(delivered(taken))
    assert await sent(desk, second[0]) == [delivery.event.id for delivery in second]


async def test_a_window_held_by_hand_keeps_its_lane_waiting_until_it_is_flushed(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    desk.groupings["www"] = debounce()
    held = await desk.tell()
    await desk.store.hold(held.id, desk.clock.now())
    del desk.groupings["www"]
    plain = await desk.tell()
    assert await desk.claimed() == []
    await desk.store.flush(held.id, desk.clock.now(), None)
    assert await desk.claimed() == [held.id]
    await desk.send(held)
    assert await desk.claimed() == [plain.id]


async def test_a_window_held_by_hand_goes_on_when_what_it_waited_for_is_moved_away(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    await desk.tell()
    desk.groupings["www"] = debounce()
    held = await desk.tell()
    await desk.store.hold(held.id, desk.clock.now())
    await desk.settle("new")
    assert await desk.store.move("www", "new") == Moved(1, windows_left=1)
    await desk.settle("www", "new")
    await desk.store.flush(held.id, desk.clock.now(), None)
    assert await desk.claimed() == [held.id]


async def test_a_window_is_never_taken_up_by_an_event_of_one_of_its_entries(desk: Desk) -> None:
    desk.groupings["www"] = debounce()
    carrier, other = await desk.tell(desk.about("7")), await desk.tell(desk.about("8"))
    del desk.groupings["www"]
    await desk.follow(www=Order.LATEST)
    new = await desk.tell(desk.about("7"))
    assert await desk.states(carrier, other, new) == ["pending", "merged", "pending"]
    desk.wait(10)
    assert await sent(desk, carrier) == [carrier.event.id, other.event.id]
