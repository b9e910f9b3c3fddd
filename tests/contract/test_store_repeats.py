"""What every store must promise of requests that come again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from relay.delivery import Added, Delivery, Mark
from relay.event import Description, Event
from relay.lane import Order
from relay.window import batch
from tests.contract.desk import SECOND, Desk, delivered, expired, failed

Become = Callable[[Desk, Delivery], Awaitable[None]]


def mark(key: bytes = b"entry 7", value: bytes = b"v1", seconds: float = 60) -> Mark:
    return Mark(key, value, seconds * SECOND)


async def accept(desk: Desk, mark: Mark | None, *routes: str, event: Event | None = None) -> tuple[Event, Added]:
    """A request that these routes are owed, if it is no repeat."""
    event = event or desk.about()
    return event, await desk.store.add(event, [desk.owed(event, route) for route in routes], mark)


async def test_a_repeat_is_answered_with_the_first_ones_id_and_routes_and_not_stored(desk: Desk) -> None:
    first, added = await accept(desk, mark(), "www", "search")
    assert (added.event, added.routes, added.duplicate) == (first.id, ("www", "search"), False)
    desk.wait(59)
    event, repeat = await accept(desk, mark(), "www", "other")
    assert (repeat.event, repeat.routes, repeat.duplicate) == (first.id, ("www", "search"), True)
    assert (repeat.ready, repeat.looks, repeat.later, repeat.full) == ((), frozenset(), (), ())
    assert await desk.store.event(event.id) is None
    assert desk.counts() == {"www": (1, 0), "search": (1, 0)}


async def test_what_has_no_mark_repeats_nothing(desk: Desk) -> None:
    for known in (mark(), None, None):
        _, added = await accept(desk, known, "www")
        assert not added.duplicate
    assert desk.counts() == {"www": (3, 0)}


async def test_another_key_is_another_event(desk: Desk) -> None:
    await accept(desk, mark(b"7"), "www")
    _, added = await accept(desk, mark(b"8"), "www")
    assert not added.duplicate


async def test_publish_unpublish_publish_is_three_events(desk: Desk) -> None:
    for value in (b"publish", b"unpublish", b"publish"):
        event, added = await accept(desk, mark(value=value), "www")
        assert (added.event, added.duplicate) == (event.id, False)
    _, repeat = await accept(desk, mark(value=b"publish"), "www")
    assert (repeat.event, repeat.duplicate) == (event.id, True), "of the last one"


async def test_past_the_window_a_repeat_is_an_event(desk: Desk) -> None:
    await accept(desk, mark(), "www")
    desk.wait(60)
    event, added = await accept(desk, mark(), "www")
    assert (added.event, added.duplicate) == (event.id, False)
    desk.wait(59)
    _, repeat = await accept(desk, mark(), "www")
    assert repeat.event == event.id, "the window counts from the last one that was stored"


async def test_a_repeat_does_not_make_the_window_longer(desk: Desk) -> None:
    await accept(desk, mark(), "www")
    desk.wait(40)
    assert (await accept(desk, mark(), "www"))[1].duplicate
    desk.wait(40)
    assert not (await accept(desk, mark(), "www"))[1].duplicate


async def test_a_repeat_is_known_over_a_restart(desk: Desk) -> None:
    first, _ = await accept(desk, mark(), "www")
    await desk.reopen()
    _, repeat = await accept(desk, mark(), "www")
    assert (repeat.event, repeat.duplicate) == (first.id, True)


async def test_of_what_comes_together_one_is_the_first(desk: Desk) -> None:
    done = await asyncio.gather(*(accept(desk, mark(key), "www") for key in (b"7", b"8") for _ in range(10)))
    for some in (done[:10], done[10:]):
        (first,) = [event.id for event, added in some if not added.duplicate]
        assert {added.event for _, added in some} == {first}
    assert desk.counts() == {"www": (2, 0)}


async def test_what_comes_together_repeats_only_the_one_before_it(desk: Desk) -> None:
    values = (b"publish", b"unpublish", b"publish", b"publish")
    done = await asyncio.gather(*(accept(desk, mark(value=value), "www") for value in values))
    assert [added.duplicate for _, added in done] == [False, False, False, True]
    assert done[3][1].event == done[2][0].id
    assert desk.counts() == {"www": (3, 0)}


async def test_only_what_was_stored_counts(desk: Desk) -> None:
    bad = desk.event(description=Description("half a \ud800 pair"))
    done = await asyncio.gather(
        accept(desk, mark(), "www", event=bad), accept(desk, mark(), "www"), return_exceptions=True
    )
    assert isinstance(done[0], Exception)
    assert not isinstance(done[1], BaseException)
    event, added = done[1]
    assert (added.event, added.duplicate) == (event.id, False)


async def pending(desk: Desk, first: Delivery) -> None: ...


async def held(desk: Desk, first: Delivery) -> None:
    await desk.settle()


async def delivered_one(desk: Desk, first: Delivery) -> None:
    await desk.store.record(delivered(first))


async def merged(desk: Desk, first: Delivery) -> None:
    await desk.follow(www=Order.LATEST)
    await desk.tell()
    assert await desk.state(first) == "merged"


async def failed_one(desk: Desk, first: Delivery) -> None:
    await desk.store.record(failed(first))


async def expired_one(desk: Desk, first: Delivery) -> None:
    await desk.store.record(expired(first))


async def cancelled(desk: Desk, first: Delivery) -> None:
    await desk.store.cancel(first.id, desk.clock.now())


@pytest.mark.parametrize("become", [pending, held, delivered_one, merged])
async def test_what_is_taken_care_of_is_not_delivered_again(desk: Desk, become: Become) -> None:
    event, _ = await accept(desk, mark(), "www", "search")
    (one,), (other,) = await desk.claim("www"), await desk.claim("search")
    await desk.store.cancel(other.id, desk.clock.now())
    await become(desk, one)
    _, repeat = await accept(desk, mark(), "www", "search")
    assert (repeat.event, repeat.routes, repeat.duplicate) == (event.id, ("www", "search"), True)


@pytest.mark.parametrize("become", [failed_one, expired_one, cancelled])
async def test_where_nothing_came_of_the_first_one_it_is_delivered_anew(desk: Desk, become: Become) -> None:
    first, _ = await accept(desk, mark(), "www")
    (delivery,) = await desk.claim()
    await become(desk, delivery)
    event, repeat = await accept(desk, mark(), "www", "search")
    assert (repeat.event, repeat.routes, repeat.duplicate) == (first.id, ("www", "search"), False)
    assert (repeat.ready, repeat.looks) == ((), frozenset({"www", "search"}))
    assert await desk.store.event(event.id) is None
    (found,) = await desk.claim()
    assert (found.event, found.attempts) == (first, 0)
    assert [detail.item.route for detail in await desk.store.deliveries_of(first.id)] == ["www", "www", "search"]
    assert desk.counts() == {"www": (1, 0), "search": (1, 0)}
    assert (await accept(desk, mark(), "www"))[1].duplicate


async def test_where_the_first_one_matched_nothing_it_is_routed_anew(desk: Desk) -> None:
    first, _ = await accept(desk, mark())
    assert (await accept(desk, mark()))[1].duplicate is False, "a filter that still matches nothing"
    _, repeat = await accept(desk, mark(), "www")
    assert (repeat.event, repeat.routes, repeat.duplicate) == (first.id, ("www",), False)
    assert [found.event for found in await desk.claim()] == [first]


async def test_of_repeats_that_come_together_one_is_routed_anew(desk: Desk) -> None:
    first, _ = await accept(desk, mark())
    done = await asyncio.gather(*(accept(desk, mark(), "www") for _ in range(5)))
    assert sorted(added.duplicate for _, added in done) == [False, True, True, True, True]
    assert {added.event for _, added in done} == {first.id}
    assert desk.counts() == {"www": (1, 0)}


async def test_what_is_routed_anew_joins_the_queue_as_its_route_wants_it(desk: Desk) -> None:
    first, _ = await accept(desk, mark())
    desk.groupings["www"] = batch(9, 10 * SECOND, 0 * SECOND)
    desk.most["full"] = 1
    desk.paused.add("paused")
    await desk.follow(search=Order.ENTRY)
    await desk.tell(route="full")
    ahead = await desk.tell(route="search")
    _, repeat = await accept(desk, mark(), "www", "full", "search", "paused")
    assert (repeat.full, repeat.looks) == (("full",), frozenset())
    assert [name for name, _ in repeat.later] == ["www"]
    assert [each.events for each in await desk.store.windows()] == [(first.id,)]
    assert await desk.claimed("search") == [ahead.id]
    assert desk.counts() == {"www": (1, 0), "full": (1, 0), "search": (2, 0), "paused": (0, 1)}


async def test_an_event_that_was_forgotten_is_not_what_a_repeat_repeats(desk: Desk) -> None:
    first, _ = await accept(desk, mark())
    await desk.store.forget(first.id)
    event, added = await accept(desk, mark(), "www")
    assert (added.event, added.duplicate) == (event.id, False)
    assert (await desk.claim())[0].event == event
