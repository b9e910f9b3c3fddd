"""What every store must promise of what is past its time: it goes, and nothing else does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from relay.clock import to_ms
from relay.delivery import Delivery, HeldReason, Mark, Rejection
from relay.ids import RejectionId
from relay.lane import Order
from relay.store import Haste, LogQuery, Pruned, WrongState
from relay.stores import surveyed
from relay.stores._sql import prunable, tables
from relay.window import debounce
from tests.contract.conftest import Backend
from tests.contract.desk import SECOND, Desk, again, delivered, failed
from tests.fakes import NOON

DAY = timedelta(days=1)
FOR_EVER = 10_000 * DAY


async def ids(desk: Desk, *status: str) -> list[str]:
    return [item.id for item in (await desk.store.search(LogQuery(status=status))).items]


async def prune(desk: Desk, retention: timedelta = DAY, bodies: timedelta = FOR_EVER) -> Pruned:
    """What is counted before is what is then removed."""
    would = await desk.store.prunable(desk.clock.now(), retention, bodies)
    done = await desk.store.prune(desk.clock.now(), retention, bodies)
    assert would == replace(done, pages=0)
    return done


async def ended(desk: Desk, *routes: str) -> list[Delivery]:
    deliveries = await desk.add(*routes)
    for delivery in deliveries:
        await desk.store.record(delivered(delivery))
    return deliveries


async def test_what_ended_long_enough_ago_goes_with_all_that_belongs_to_it(desk: Desk) -> None:
    old = await ended(desk, "www", "search")
    desk.wait(DAY.total_seconds())
    new = await ended(desk, "www")
    await desk.store.record(delivered(new[0]))
    desk.wait(2)
    done = await prune(desk)
    assert (done.events, done.deliveries, done.bodies) == (1, 2, 0)
    for delivery in old:
        assert await desk.store.delivery(delivery.id) is None
    assert await desk.store.event(old[0].event.id) is None
    assert await desk.store.event(new[0].event.id) is not None
    assert await prune(desk) == Pruned()


async def test_an_event_stays_until_the_last_of_its_deliveries_has_been_over_for_long(desk: Desk) -> None:
    one, other = await desk.add("www", "search")
    await desk.store.record(delivered(one))
    await desk.store.record(again(other, NOON + DAY))
    desk.wait(10 * DAY.total_seconds())
    assert await prune(desk) == Pruned()
    await desk.store.cancel(other.id, desk.clock.now())
    assert await prune(desk) == Pruned()
    desk.wait(DAY.total_seconds() + 1)
    assert (await prune(desk)).deliveries == 2


async def test_what_is_unfinished_is_never_pruned_however_old(desk: Desk) -> None:
    pending, held = await desk.add("www", "gone")
    await desk.settle("www")
    desk.wait(1000 * DAY.total_seconds())
    assert await prune(desk, bodies=DAY) == Pruned()
    assert await desk.states(pending, held) == ["pending", "held"]
    [found] = await desk.claim("www")
    assert found.event.body


async def test_what_was_merged_ends_with_what_it_was_merged_into(desk: Desk) -> None:
    desk.groupings["www"] = debounce(SECOND, 10 * SECOND, (), timedelta())
    carrier, merged = await desk.tell(), await desk.tell()
    await desk.store.hold(carrier.id, desk.clock.now())
    desk.wait(10 * DAY.total_seconds())
    assert await prune(desk, bodies=DAY) == Pruned(), "the window is still to be sent, with all its events"
    await desk.store.cancel(carrier.id, desk.clock.now())
    assert await prune(desk) == Pruned()
    desk.wait(DAY.total_seconds() + 1)
    assert (await prune(desk)).deliveries == 2
    assert await desk.store.delivery(merged.id) is None


async def test_bodies_may_go_earlier_and_the_rest_stays(desk: Desk) -> None:
    [delivery] = await ended(desk, "www")
    [waits] = await desk.add("www")
    unmatched = desk.event()
    await desk.put(unmatched)
    desk.wait(2 * DAY.total_seconds())
    done = await prune(desk, retention=10 * DAY, bodies=DAY)
    assert (done.events, done.bodies) == (0, 2)
    detail = await desk.detail(delivery)
    assert detail.item.status == "delivered"
    response = detail.attempts[0].response
    assert response is not None
    assert (response.status, response.body, response.truncated) == (200, b"", True)
    for event, body in ((delivery.event, None), (unmatched, None), (waits.event, waits.event.body)):
        stored = await desk.store.event(event.id)
        assert stored is not None
        assert stored.body == body


async def test_events_that_no_route_wanted_and_refused_requests_go_too(desk: Desk) -> None:
    await desk.put(desk.event())
    old = RejectionId(desk.store.ids.draw(int(NOON.timestamp() * 1000)))
    desk.store.reject(Rejection(old, "blog", NOON, 401, "no", "::1", ()))
    desk.wait(DAY.total_seconds() + 1)
    await desk.put(desk.event())
    await prune(desk)
    assert len(await ids(desk, "unmatched")) == 1
    assert await ids(desk, "rejected") == []
    assert await desk.store.rejection(old) is None


async def test_a_repeat_of_what_was_pruned_is_a_new_event(desk: Desk) -> None:
    mark = Mark(b"entry 7", b"v1", 10 * DAY)
    first = await desk.tell(mark=mark)
    await desk.send(first)
    desk.wait(2 * DAY.total_seconds())
    await prune(desk)
    event = desk.about()
    added = await desk.store.add(event, [desk.owed(event)], mark)
    assert (added.event, added.duplicate) == (event.id, False)


async def test_a_repeat_of_what_can_no_longer_be_sent_is_a_new_event(desk: Desk) -> None:
    """Its sender was told to send it again: it is its new body that is sent."""
    mark = Mark(b"entry 7", b"v1", 10 * DAY)
    first = await desk.tell(mark=mark)
    [delivery] = await desk.claim()
    await desk.store.record(failed(delivery))
    desk.wait(2 * DAY.total_seconds())
    assert (await prune(desk, retention=10 * DAY, bodies=DAY)).bodies == 1
    event, again = desk.about(), desk.about()
    added = await asyncio.gather(*(desk.store.add(each, [desk.owed(each)], mark) for each in (event, again)))
    assert [(each.event, each.duplicate) for each in added] == [(event.id, False), (event.id, True)]
    assert (await desk.claim())[0].event == event
    assert [each.item.status for each in await desk.store.deliveries_of(first.event.id)] == ["failed"]


async def test_a_repeat_of_what_was_delivered_is_one_also_without_its_body(desk: Desk) -> None:
    mark = Mark(b"entry 7", b"v1", 10 * DAY)
    first = await desk.tell(mark=mark)
    await desk.send(first)
    desk.wait(2 * DAY.total_seconds())
    assert (await prune(desk, retention=10 * DAY, bodies=DAY)).bodies == 1
    event = desk.about()
    added = await desk.store.add(event, [desk.owed(event)], mark)
    assert (added.event, added.duplicate) == (first.event.id, True)


async def test_pruning_goes_on_in_steps_between_which_others_write(desk: Desk) -> None:
    """Also through what stays, and whatever comes meanwhile."""
    stays = [await desk.tell() for _ in range(30)]
    for _ in range(1500):
        [delivery] = await desk.add("search")
        await desk.store.record(failed(delivery))
    desk.wait(2 * DAY.total_seconds())
    heard: list[Pruned] = []
    pruning = asyncio.ensure_future(desk.store.prune(desk.clock.now(), DAY, DAY, heard.append))  # noqa: TID251
    written = 0
    while not pruning.done():
        await desk.add("www")
        written += 1
    done = await pruning
    assert (done.events, done.deliveries) == (1500, 1500)
    assert len(heard) > 5
    assert heard == sorted(heard, key=lambda each: each.events)
    assert written > 5
    assert set(await desk.states(*stays)) == {"pending"}
    assert desk.counts() == {"www": (30 + written, 0)}


async def test_pruning_ends_where_no_more_is_wanted(desk: Desk) -> None:
    for _ in range(200):
        [delivery] = await desk.add("search")
        await desk.store.record(failed(delivery))
    desk.wait(2 * DAY.total_seconds())
    heard: list[Pruned] = []

    def haste() -> Haste:
        return Haste.NO_MORE if heard else Haste.GENTLY

    done = await desk.store.prune(desk.clock.now(), DAY, DAY, heard.append, haste)
    assert [done] == heard
    assert 0 < done.events < 200
    assert (await prune(desk)).events == 200 - done.events


async def test_what_may_be_retried_meanwhile_is_looked_at_again(desk: Desk) -> None:
    await desk.follow(www=Order.ENTRY)
    one = await desk.tell()
    await desk.store.record(failed((await desk.take(one)) or one))
    desk.wait(2 * DAY.total_seconds())
    pruning = asyncio.ensure_future(desk.store.prune(desk.clock.now(), DAY, FOR_EVER))  # noqa: TID251
    await desk.store.retry(one.id, desk.clock.now())
    await pruning
    found = await desk.store.delivery(one.id)
    assert (found is None) or found.item.status == "pending"
    await desk.settle("www", kept={"www": HeldReason.DISABLED})
    assert sum(pending + held for pending, held in desk.counts().values()) == (0 if found is None else 1)


async def test_nothing_older_follows_what_may_have_been_pruned(desk: Desk) -> None:
    await desk.follow(index=Order.LATEST)
    event = desk.about()
    old = [desk.owed(event, "index"), desk.owed(event, "frozen")]
    await desk.store.add(event, old)
    await desk.store.record(failed(await desk.take(old[0].delivery) or old[0].delivery))
    deletion = await desk.tell(desk.about(stage=None, action="delete"), "index")
    await desk.send(deletion)
    desk.wait(2 * DAY.total_seconds())
    assert (await prune(desk)).events == 1, "the deletion; the old event is still owed to somebody"
    with pytest.raises(WrongState, match="may have been pruned"):
        await desk.store.retry(old[0].delivery.id, desk.clock.now())
    assert await desk.store.retry(old[1].delivery.id, desk.clock.now()) == "frozen"


async def test_large_bodies_are_removed_a_few_at_a_time(desk: Desk) -> None:
    for _ in range(40):
        [delivery] = await desk.add("www", body=b"x" * 200_000)
        await desk.store.record(delivered(delivery))
    desk.wait(2 * DAY.total_seconds())
    heard: list[int] = []
    await desk.store.prune(desk.clock.now(), DAY, DAY, lambda so_far: heard.append(so_far.events))
    assert heard[-1] == 40
    assert max(after - before for before, after in pairwise([0, *heard])) <= 2


# --- counted only -----------------------------------------------------------------------------------------------------


async def end(desk: Desk, *deliveries: Delivery) -> None:
    """They are delivered now."""
    for delivery in deliveries:
        taken = await desk.take(delivery)
        assert taken is not None
        await desk.store.record(replace(delivered(taken), at=desk.clock.now()))


async def test_what_would_go_is_counted_and_nothing_goes(desk: Desk) -> None:
    """By `prune` above in all tests; here with something of all kinds at once, ten days old, three, and new."""
    ids_of = desk.store.ids
    for days in (7, 3, 0):
        collects = f"collects {days}"
        desk.groupings[collects] = debounce(SECOND, 10 * SECOND, (), timedelta())
        at = desk.clock.now()
        await end(desk, *await desk.add("www", "search"))
        kept, over = await desk.add("www", "slow")  # and the other one waits
        await end(desk, kept)
        forgotten = desk.event()
        await desk.put(desk.event())
        await desk.put(forgotten)
        await desk.store.forget(forgotten.id)
        desk.store.reject(Rejection(RejectionId(ids_of.draw(to_ms(at))), "blog", at, 401, "no", "::1", ()))
        sent, *_ = [await desk.tell(route=collects) for _ in range(3)]
        desk.wait(20)
        await end(desk, sent)
        held, *_ = [await desk.tell(route=collects) for _ in range(2)]
        await desk.store.cancel(held.id, desk.clock.now()) if days == 3 else await desk.store.hold(held.id, at)
        if days == 3:
            await desk.store.cancel(over.id, desk.clock.now())
        else:
            await desk.settle("www", "search", collects, kept={"slow": HeldReason.DISABLED})
        desk.wait(days * DAY.total_seconds())
    kinds = ("", "unmatched", "rejected")
    before = [await ids(desk, *status.split()) for status in kinds]
    heard: list[Pruned] = []
    counted = await desk.store.prunable(desk.clock.now(), 5 * DAY, DAY, heard.append)
    assert counted == Pruned(events=6, deliveries=5, bodies=8)
    assert heard[-1] == counted
    assert [await ids(desk, *status.split()) for status in kinds] == before
    assert await desk.store.prunable(desk.clock.now(), 5 * DAY, 5 * DAY) == replace(counted, bodies=0)
    assert replace(await prune(desk, 5 * DAY, DAY), pages=0) == counted
    assert await desk.store.prunable(desk.clock.now(), 5 * DAY, DAY) == Pruned()


async def test_what_goes_first_is_gone_for_what_is_counted_after_it(desk: Desk) -> None:
    """What was merged into something newer ended with that; once that is gone, when it was merged."""
    await desk.follow(index=Order.LATEST)
    old = []
    for _ in range(2):
        event = desk.about()
        owed = [desk.owed(event, "index"), desk.owed(event, "www")]
        await desk.store.add(event, owed)
        await end(desk, owed[0].delivery)
        old.append(owed[1].delivery)
    deletion = await desk.tell(desk.about(stage=None, action="delete"), "index")
    await end(desk, deletion)
    desk.wait(7 * DAY.total_seconds())
    await end(desk, *old)
    desk.wait(3 * DAY.total_seconds())
    assert await desk.carrier(await desk.replay(old[1].event, "index")) == deletion.id
    done = await prune(desk, 5 * DAY, DAY)
    assert (done.events, done.deliveries, done.bodies) == (1, 1, 1), "the body of what was replayed just now stays"


async def test_more_is_counted_than_is_looked_at_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prunable, "LOOKED_AT", 4)
    for _ in range(3):
        await ended(desk, "www", "search")
        await desk.put(desk.event())
        await desk.tell(route="waits")
    desk.wait(2 * DAY.total_seconds())
    assert (await prune(desk, 5 * DAY, DAY)).bodies == 6
    await end(desk, *await desk.add("www"))
    assert await prune(desk) == Pruned(events=6, deliveries=6)


# --- what else must hold afterwards -----------------------------------------------------------------------------------


def faults(backend: Backend) -> dict[str, int]:
    """What `relay db check` finds."""
    with surveyed(backend.url) as survey:
        return {fault.name: fault.count for fault in survey.faults(True, lambda done, total: None)}


async def merged_into_a_newer_one(desk: Desk) -> tuple[Delivery, Delivery]:
    """What an old event was owed: by a route where it was merged into a newer one, which was delivered, and by another
    one, where it is still to be sent."""
    await desk.follow(index=Order.LATEST)
    event = desk.about()
    owed = [desk.owed(event, "index"), desk.owed(event, "www")]
    await desk.store.add(event, owed)
    newer = await desk.tell(desk.about(), "index")
    await end(desk, newer)
    old, beside = (each.delivery for each in owed)
    assert await desk.carrier(old) == newer.id
    return old, beside


async def test_a_carrier_that_was_pruned_is_not_missed(desk: Desk, backend: Backend) -> None:
    _, beside = await merged_into_a_newer_one(desk)
    desk.wait(2 * DAY.total_seconds())
    await desk.store.record(replace(failed(beside), at=desk.clock.now()))
    desk.wait(1.5 * DAY.total_seconds())
    assert (await prune(desk, 3 * DAY)).events == 1, "the newer event alone"
    assert faults(backend) == {}


async def test_a_carrier_that_was_replayed_and_pruned_is_not_missed(desk: Desk, backend: Backend) -> None:
    """It is newer than any event that was pruned."""
    await desk.follow(index=Order.LATEST)
    first = desk.about()
    owed = [desk.owed(first, "index"), desk.owed(first, "www")]
    second = desk.about()
    await desk.store.add(first, owed)
    newer = await desk.tell(second, "index")
    await end(desk, newer)
    await desk.tell(desk.about(entry="8"), "other")
    desk.wait(DAY.total_seconds())
    again = await desk.replay(second, "index")
    replayed = await desk.replay(first, "index")
    await end(desk, again)
    assert await desk.carrier(replayed) == again.id
    desk.wait(2 * DAY.total_seconds())
    await desk.store.record(replace(failed(owed[1].delivery), at=desk.clock.now()))
    desk.wait(1.5 * DAY.total_seconds())
    assert (await prune(desk, 3 * DAY)).events == 1, "the newer event alone"
    assert faults(backend) == {}


async def test_a_carrier_that_is_lost_is_missed(desk: Desk, backend: Backend) -> None:
    await ended(desk, "www")
    desk.wait(2 * DAY.total_seconds())
    assert (await prune(desk)).events == 1
    old, _ = await merged_into_a_newer_one(desk)
    assert faults(backend) == {}
    await desk.damage(f"DELETE FROM delivery WHERE id = {await desk.carrier(old)}")
    assert faults(backend)["merged"] == 1


async def test_what_an_older_relay_pruned_is_not_missed_and_what_is_lost_since_is(desk: Desk, backend: Backend) -> None:
    """It wrote down no more than the newest event."""
    _, beside = await merged_into_a_newer_one(desk)
    desk.wait(2 * DAY.total_seconds())
    assert (await prune(desk)).events == 1
    await desk.damage(f"DELETE FROM meta WHERE key = '{tables.PRUNED_DELIVERIES_UP_TO}'")
    assert faults(backend) == {}
    await end(desk, beside)
    await desk.store.prune(desk.clock.now(), DAY, FOR_EVER)
    assert faults(backend) == {}
    old, _ = await merged_into_a_newer_one(desk)
    await desk.damage(f"DELETE FROM delivery WHERE id = {await desk.carrier(old)}")
    assert faults(backend)["merged"] == 1
