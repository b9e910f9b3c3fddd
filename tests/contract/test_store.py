"""What every store must promise, whatever it is made of: to keep what it is given, and to find it again.

Lanes, windows, repeats and what people do have pages of their own. A new kind of store joins in `conftest`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from relay.clock import to_ms
from relay.delivery import Code, Failure, HeldReason, Rejection, Result, State, Trigger
from relay.event import Change, Description
from relay.ids import DELIVERY, EVENT, REJECTION, DeliveryId, EventId
from relay.store import Counts, LogQuery, Settled, Unavailable, WrongState
from tests.contract.desk import SECOND, Desk, again, attempt, delivered, failed
from tests.fakes import NOON

# -- add and claim ---------------------------------------------------------------------------------------------------


async def test_an_event_and_all_that_is_owed_for_it_are_found_again(desk: Desk) -> None:
    await desk.add("www", "search")
    assert desk.counts() == {"www": (1, 0), "search": (1, 0)}
    await desk.reopen()
    assert desk.counts() == {"www": (1, 0), "search": (1, 0)}
    assert len(await desk.claimed("www")) == len(await desk.claimed("search")) == 1


async def test_a_claimed_delivery_is_the_one_that_was_added(desk: Desk) -> None:
    changes = (Change("a", "draft", "create", "1"), Change("b", "draft", None, "2"))
    description = Description(
        "api-update", changes, NOON - 9 * SECOND, "live", "main", "de", {"uid": "x", "nested": {"n": [1, None]}}
    )
    event = desk.event(b"\x00not json\xff", description=description)
    delivery = desk.owe(event)
    await desk.put(event, [delivery])
    assert await desk.store.claim("www", None, desk.clock.now(), 10, ()) == [delivery]


async def test_what_nobody_says_stays_unsaid(desk: Desk) -> None:
    event = desk.event(b"", description=Description(None))
    delivery = desk.owe(event)
    await desk.put(event, [delivery])
    assert await desk.store.claim("www", None, desk.clock.now(), 10, ()) == [delivery]


async def test_concurrent_adds_are_all_stored(desk: Desk) -> None:
    added = await asyncio.gather(*(desk.add("www") for _ in range(100)))
    assert sorted(await desk.claimed()) == sorted(deliveries[0].id for deliveries in added)
    assert desk.counts() == {"www": (100, 0)}


async def test_one_event_that_cannot_be_stored_harms_no_other(desk: Desk) -> None:
    bad = desk.event(description=Description("half a \ud800 pair"))
    results = await asyncio.gather(
        *(desk.add("www") for _ in range(5)),
        desk.put(bad, [desk.owe(bad)]),
        *(desk.add("www") for _ in range(5)),
        return_exceptions=True,
    )
    assert [isinstance(result, Exception) for result in results] == [False] * 5 + [True] + [False] * 5
    assert desk.counts() == {"www": (10, 0)}
    assert await desk.store.event(bad.id) is None
    assert desk.store.trouble() is None


async def test_claim_gives_the_oldest_due_first_and_only_what_is_due(desk: Desk) -> None:
    event = desk.event()
    late, soon, never = (desk.owe(event, after=after * SECOND) for after in (2, 1, 60))
    await desk.put(event, [late, soon, never])
    assert await desk.claimed() == []
    desk.wait(2)
    assert await desk.claimed() == [soon.id, late.id]
    assert await desk.claimed(limit=1) == [soon.id]
    assert await desk.claimed("other") == []


async def test_claim_passes_over_what_the_caller_has(desk: Desk) -> None:
    ids = [(await desk.add("www"))[0].id for _ in range(5)]
    found = await desk.store.claim("www", None, desk.clock.now(), 2, {ids[0], ids[1], ids[3]})
    assert [delivery.id for delivery in found] == [ids[2], ids[4]]
    assert await desk.store.claim("www", None, desk.clock.now(), 9, set(ids)) == []


async def test_claim_takes_bodies_up_to_eight_mebibytes_but_always_one(desk: Desk) -> None:
    for size in (9 << 20, 4 << 20, 3 << 20, 2 << 20):
        await desk.add("www", body=b"x" * size)
    first = await desk.store.claim("www", None, desk.clock.now(), 10, ())
    assert [len(delivery.event.body) >> 20 for delivery in first] == [9]
    then = await desk.store.claim("www", None, desk.clock.now(), 10, {first[0].id})
    assert [len(delivery.event.body) >> 20 for delivery in then] == [4, 3]


async def test_empty_bodies_are_claimed_together(desk: Desk) -> None:
    for _ in range(3):
        await desk.add("www", body=b"")
    assert len(await desk.claimed()) == 3


async def test_a_body_that_rotted_is_never_handed_out_as_intact(desk: Desk) -> None:
    (rotten,), (sound,) = await desk.add("www", body=b"the very body"), await desk.add("www", body=b"another body")
    other = f"SELECT content FROM body WHERE event_id = {sound.event.id}"
    await desk.damage(f"UPDATE body SET content = ({other}) WHERE event_id = {rotten.event.id}")
    found = await desk.claim()
    assert [(each.id, each.event.sha256) for each in found] == [(rotten.id, b""), (sound.id, sound.event.sha256)]


async def test_a_body_that_is_gone_is_not_handed_out_as_intact(desk: Desk) -> None:
    (delivery,) = await desk.add("www")
    await desk.damage(f"DELETE FROM body WHERE event_id = {delivery.event.id}")
    (found,) = await desk.claim()
    assert (found.event.body, found.event.sha256) == (b"", b"")


async def test_next_due_is_the_next_time_something_becomes_due(desk: Desk) -> None:
    event = desk.event()
    await desk.put(event, [desk.owe(event, after=after * SECOND) for after in (0, 5, 9)])
    await desk.put(other := desk.event(), [desk.owe(other, "search", 3 * SECOND)])
    assert await desk.store.next_due("www", NOON) == NOON + 5 * SECOND
    assert await desk.store.next_due("www", NOON + 5 * SECOND) == NOON + 9 * SECOND
    assert await desk.store.next_due("www", NOON + 9 * SECOND) is None
    assert await desk.store.next_due("none", NOON) is None


# -- record ----------------------------------------------------------------------------------------------------------


async def test_a_delivered_one_is_done(desk: Desk) -> None:
    (delivery,) = await desk.add("www")
    await desk.store.record(delivered(delivery))
    assert await desk.claimed() == []
    assert desk.counts() == {}
    found = await desk.store.delivery(delivery.id)
    assert found is not None
    assert found.attempts == [attempt()]
    item = found.item
    assert (item.status, item.attempts, item.code, item.error, item.duration_ms) == ("delivered", 1, 200, None, 12)
    assert (item.created_at, item.updated_at, item.next_attempt_at) == (NOON, NOON + SECOND, None)


async def test_one_that_is_to_be_tried_again_waits_for_its_time(desk: Desk) -> None:
    (delivery,) = await desk.add("www")
    due = NOON + 60 * SECOND
    await desk.store.record(again(delivery, due))
    assert await desk.claimed() == []
    assert await desk.store.next_due("www", NOON) == due
    desk.wait(60)
    (found,) = await desk.store.claim("www", None, desk.clock.now(), 1, ())
    assert found == replace(delivery, due=due, attempts=1, tries=1, trigger=Trigger.RETRY)
    detail = await desk.store.delivery(delivery.id)
    assert detail is not None
    assert (detail.item.status, detail.item.code, detail.item.next_attempt_at) == ("pending", None, due)
    assert detail.item.error == Failure(Code.TIMEOUT, "no luck")
    assert detail.attempts == [attempt(1, None)]


async def test_a_result_recorded_twice_counts_once(desk: Desk) -> None:
    (delivery,) = await desk.add("www")
    result = again(delivery, NOON)
    await asyncio.gather(desk.store.record(result), desk.store.record(result))
    await desk.store.record(result)
    await desk.store.record(failed(delivery, 2))
    await desk.store.record(result)
    found = await desk.store.delivery(delivery.id)
    assert found is not None
    assert found.item.status == "failed"
    assert [made.n for made in found.attempts] == [1, 2]
    assert desk.counts() == {}


async def test_one_can_end_without_an_attempt(desk: Desk) -> None:
    (delivery,) = await desk.add("www")
    await desk.store.record(again(delivery, NOON))
    expired = Failure(Code.EXPIRED, "older than 1h")
    result = Result(replace(delivery, attempts=1), None, State.FAILED, None, 1, expired, NOON + SECOND)
    await desk.store.record(result)
    await desk.store.record(result)
    found = await desk.store.delivery(delivery.id)
    assert found is not None
    assert (found.item.status, found.item.error, found.item.attempts) == ("failed", expired, 1)
    assert len(found.attempts) == 1
    assert desk.counts() == {}


async def test_one_held_in_flight_stays_held_when_its_attempt_failed(desk: Desk) -> None:
    (delivery,) = await desk.add("www")
    await desk.store.settle([], {"www": HeldReason.DISABLED})
    await desk.store.record(again(delivery, NOON + 5 * SECOND))
    assert await desk.state(delivery) == "held"
    assert desk.counts() == {"www": (0, 1)}
    await desk.store.settle(["www"], {})
    (found,) = await desk.store.claim("www", None, NOON + 5 * SECOND, 1, ())
    assert (found.attempts, found.tries, found.due) == (1, 1, NOON + 5 * SECOND)


async def test_one_held_in_flight_is_done_when_its_attempt_ended_it(desk: Desk) -> None:
    (good,), (bad,) = await desk.add("www"), await desk.add("www")
    await desk.store.settle([], {"www": HeldReason.DISABLED})
    await asyncio.gather(desk.store.record(delivered(good)), desk.store.record(failed(bad)))
    assert (await desk.state(good), await desk.state(bad)) == ("delivered", "failed")
    assert desk.counts() == {}


async def test_what_has_ended_is_not_brought_back_by_a_late_result(desk: Desk) -> None:
    (delivery,), (other,) = await desk.add("www"), await desk.add("www")
    await desk.store.record(delivered(delivery))
    await asyncio.gather(desk.store.record(again(delivery, NOON, 2)), desk.store.record(delivered(other)))
    assert await desk.state(delivery) == "delivered"
    assert await desk.state(other) == "delivered"
    assert desk.counts() == {}
    found = await desk.store.delivery(delivery.id)
    assert found is not None
    assert len(found.attempts) == 2, "but the attempt was made, and is told of"


async def test_a_result_for_an_unknown_delivery_is_let_go(desk: Desk) -> None:
    event = desk.event()
    await desk.store.record(delivered(desk.owe(event)))
    assert desk.counts() == {}


# -- settle ----------------------------------------------------------------------------------------------------------


async def test_settle_holds_what_may_not_be_sent_and_says_how_much(desk: Desk) -> None:
    for routes in (("www", "search"), ("www", "old")):
        await desk.add(*routes)
    settled = await desk.store.settle(["www"], {"search": HeldReason.DISABLED})
    assert (settled.held, settled.released) == ({"search": 1, "old": 1}, {})
    assert desk.counts() == {"www": (2, 0), "search": (0, 1), "old": (0, 1)}
    assert await desk.claimed("search") == await desk.claimed("old") == []
    assert (await desk.store.settle(["www"], {"search": HeldReason.DISABLED})).held == {}
    found = await desk.store.search(LogQuery(status=("held",)))
    assert {item.route: item.held_reason for item in found.items} == {
        "search": HeldReason.DISABLED,
        "old": HeldReason.REMOVED,
    }


async def test_settle_releases_what_may_be_sent_again_due_as_before(desk: Desk) -> None:
    (delivery,) = await desk.add("www")
    await desk.store.settle([], {})
    await desk.store.settle([], {"www": HeldReason.DISABLED})
    await desk.reopen()
    settled = await desk.store.settle(["www"], {})
    assert (settled.held, settled.released) == ({}, {"www": 1})
    assert desk.counts() == {"www": (1, 0)}
    assert await desk.store.claim("www", None, NOON, 1, ()) == [delivery]


async def test_max_age_stands_still_while_held(desk: Desk) -> None:
    await desk.add("www")
    desk.wait(10)
    await desk.store.settle([], {"www": HeldReason.DISABLED})
    desk.wait(3600)
    await desk.store.settle(["www"], {})
    (found,) = await desk.store.claim("www", None, desk.clock.now(), 1, ())
    assert desk.clock.now() - found.first_due == 10 * SECOND
    assert found.due == NOON


async def test_a_large_backlog_is_settled_whole(desk: Desk) -> None:
    event = desk.event()
    await desk.put(event, [desk.owe(event) for _ in range(5000)])
    assert (await desk.store.settle([], {})).held == {"www": 5000}
    assert desk.counts() == {"www": (0, 5000)}
    assert (await desk.store.settle(["www"], {})).released == {"www": 5000}
    assert desk.counts() == {"www": (5000, 0)}


async def test_a_newer_settling_takes_the_place_of_one_that_is_under_way(desk: Desk) -> None:
    event = desk.event()
    await desk.put(event, [desk.owe(event) for _ in range(5000)])
    begun: list[asyncio.Task[Settled]] = []
    loop = asyncio.get_running_loop()

    def committed(seconds: float) -> None:
        if not begun and desk.counts()["www"][1]:
            begun.append(loop.create_task(desk.store.settle(["www"], {})))

    desk.store.on_commit(committed)
    before = await desk.store.settle([], {})
    assert 0 < before.held["www"] < 5000
    assert (await begun[0]).released == before.held
    assert desk.counts() == {"www": (5000, 0)}


async def test_the_store_is_asked_what_is_held_for_the_sake_of_its_route(desk: Desk) -> None:
    await desk.add("www", "search", "old")
    await desk.add("www")
    await desk.store.settle(["search"], {"www": HeldReason.PAUSED})
    assert await desk.store.held(["www"]) == {"www": 2}
    assert await desk.store.held(["www", "search", "none"]) == {"www": 2, "search": 0, "none": 0}
    assert await desk.store.held([]) == {}


# -- retry -----------------------------------------------------------------------------------------------------------


async def test_retry_makes_a_failed_one_new_but_for_its_attempts(desk: Desk) -> None:
    (delivery,) = await desk.add("www")
    await desk.store.record(failed(delivery))
    later = desk.wait(60)
    assert await desk.store.retry(delivery.id, later) == "www"
    assert desk.counts() == {"www": (1, 0)}
    await desk.reopen()
    (found,) = await desk.store.claim("www", None, later, 1, ())
    assert found == replace(delivery, due=later, first_due=later, attempts=1, tries=0, trigger=Trigger.MANUAL)
    await desk.store.record(delivered(found, 2))
    assert await desk.state(delivery) == "delivered"


async def test_retry_makes_a_pending_one_due_now(desk: Desk) -> None:
    (delivery,) = await desk.add("www")
    await desk.store.record(again(delivery, NOON + 3600 * SECOND))
    assert await desk.store.retry(delivery.id, NOON + SECOND) == "www"
    (found,) = await desk.store.claim("www", None, NOON + SECOND, 1, ())
    assert (found.due, found.tries) == (NOON + SECOND, 1)
    assert desk.counts() == {"www": (1, 0)}


async def test_retry_says_what_to_do_instead(desk: Desk) -> None:
    (done,), (held,) = await desk.add("www"), await desk.add("old")
    await desk.store.record(delivered(done))
    await desk.store.settle(["www"], {})
    with pytest.raises(WrongState, match="nothing to retry") as caught:
        await desk.store.retry(done.id, NOON)
    assert caught.value.state is State.DELIVERED
    with pytest.raises(WrongState, match="held") as caught:
        await desk.store.retry(held.id, NOON)
    assert caught.value.state is State.HELD
    with pytest.raises(KeyError):
        await desk.store.retry(DeliveryId(12345), NOON)
    assert desk.counts() == {"old": (0, 1)}


# -- reading ---------------------------------------------------------------------------------------------------------


async def test_an_event_is_read_as_it_was_stored(desk: Desk) -> None:
    event = desk.event(b"\xff\x00")
    await desk.put(event, [])
    found = await desk.store.event(event.id)
    assert found is not None
    assert found.description == event.as_json(desk.store.ids.text(EVENT, event.id))
    assert (found.headers, found.body) == (event.headers, b"\xff\x00")
    assert await desk.store.event(EventId(1)) is None


async def test_all_deliveries_of_an_event_are_found_oldest_first(desk: Desk) -> None:
    deliveries = await desk.add("www", "search")
    await desk.add("www")
    await desk.store.record(delivered(deliveries[1]))
    found = await desk.store.deliveries_of(deliveries[0].event.id)
    assert [detail.item.id for detail in found] == [desk.store.ids.text(DELIVERY, each.id) for each in deliveries]
    assert [len(detail.attempts) for detail in found] == [0, 1]
    assert await desk.store.deliveries_of(EventId(1)) == []
    assert await desk.store.delivery(DeliveryId(1)) is None


async def test_search_goes_through_pages_newest_first(desk: Desk) -> None:
    ids = [desk.store.ids.text(DELIVERY, (await desk.add("www"))[0].id) for _ in range(5)]
    seen: list[str] = []
    query = LogQuery(limit=2)
    for _ in range(3):
        page = await desk.store.search(query)
        seen += [item.id for item in page.items]
        query = replace(query, before=page.next)
    assert page.next is None
    assert seen == ids[::-1]
    page = await desk.store.search(LogQuery(limit=3, ascending=True))
    page = await desk.store.search(LogQuery(limit=3, ascending=True, before=page.next))
    assert [item.id for item in page.items] == ids[3:]


async def test_search_takes_any_value_of_a_filter_and_every_filter(desk: Desk) -> None:
    for source, model, route in (("blog", "page", "www"), ("blog", "post", "search"), ("shop", "page", "www")):
        event = desk.event(
            source=source, description=Description(f"{model}.publish", (Change(model, "draft", "publish", model[:2]),))
        )
        await desk.put(event, [desk.owe(event, route)])

    async def found(**filters: tuple[str, ...]) -> int:
        return len((await desk.store.search(LogQuery(**filters))).items)  # type: ignore[arg-type]

    assert await found() == 3
    assert await found(source=("blog",)) == 2
    assert await found(source=("blog", "shop"), model=("page",)) == 2
    assert await found(source=("shop",), model=("post",)) == 0
    assert await found(route=("search",)) == 1
    assert await found(event=("post.publish",)) == await found(entry_id=("po",)) == 1
    assert await found(type=("strapi",), stage=("draft",), action=("publish", "delete")) == 3
    assert await found(status=("pending",)) == await found(status=("pending", "failed")) == 3
    assert await found(status=("failed",)) == 0
    page = await desk.store.search(LogQuery(event_id=(event.id, EventId(1))))
    assert [item.event_id for item in page.items] == [desk.store.ids.text(EVENT, event.id)]


async def test_search_takes_a_range_of_time(desk: Desk) -> None:
    for _ in range(4):
        await desk.add("www")
        desk.wait(1)
    page = await desk.store.search(LogQuery(since=NOON + SECOND, until=NOON + 3 * SECOND))
    assert [item.created_at for item in page.items] == [NOON + 2 * SECOND, NOON + SECOND]


async def test_unmatched_events_and_rejected_requests_are_found_where_asked_for(desk: Desk) -> None:
    (delivery,) = await desk.add("www")
    rejection = rejected(desk)
    desk.store.reject(rejection)
    lonely = desk.event(source="shop")
    await desk.put(lonely, [])
    text = desk.store.ids.text

    async def found(**filters: tuple[str, ...]) -> list[str]:
        return [item.id for item in (await desk.store.search(LogQuery(**filters))).items]  # type: ignore[arg-type]

    wanted = [text(EVENT, lonely.id), text(REJECTION, rejection.id), text(DELIVERY, delivery.id)]
    assert await found(status=("pending", "unmatched", "rejected")) == wanted
    assert await found() == wanted[2:]
    assert await found(status=("unmatched",)) == wanted[:1]
    assert await found(status=("rejected",), source=("blog",)) == wanted[1:2]
    assert await found(status=("rejected", "unmatched"), source=("shop",)) == wanted[:1]
    assert await found(status=("rejected", "unmatched"), model=("page",)) == wanted[:1]
    assert await found(status=("rejected", "unmatched"), route=("www",)) == []
    page = await desk.store.search(LogQuery(status=("pending", "unmatched", "rejected"), limit=2))
    assert [item.id for item in page.items] == wanted[:2]
    page = await desk.store.search(LogQuery(status=("pending", "unmatched", "rejected"), before=page.next))
    assert [item.id for item in page.items] == wanted[2:]


def rejected(desk: Desk, source: str = "blog") -> Rejection:
    number = desk.store.ids.draw(to_ms(desk.clock.now()))
    return Rejection(number, source, desk.clock.now(), 401, "no signature", "192.0.2.1", (("X-Odd", "caf\udce9"),))


async def test_a_rejected_request_is_kept(desk: Desk) -> None:
    rejection = rejected(desk)
    desk.store.reject(rejection)
    await desk.add("www")
    assert await desk.store.rejection(rejection.id) == rejection
    assert await desk.store.rejection(1) is None
    page = await desk.store.search(LogQuery(status=("rejected",)))
    assert [(item.status, item.code, item.route) for item in page.items] == [("rejected", 401, None)]


async def test_of_rejections_that_wait_so_many_are_written_as_fit(desk: Desk) -> None:
    large = [replace(rejected(desk), headers=(("X-Long", "x" * 15_000),)) for _ in range(600)]
    for each in large:
        desk.store.reject(each)
    await desk.add("www")
    page = await desk.store.search(LogQuery(status=("rejected",), limit=1000))
    assert 200 < len(page.items) < 300
    assert await desk.store.rejection(large[0].id) is None
    assert await desk.store.rejection(large[-1].id) == large[-1], "the newest are"


async def test_of_an_answer_so_many_headers_are_kept(desk: Desk) -> None:
    [delivery] = await desk.add("www")
    taken = await desk.take(delivery)
    assert taken is not None
    result = delivered(taken)
    assert result.attempt is not None
    assert result.attempt.response is not None
    answer = replace(result.attempt.response, headers=tuple((f"X-{n}", "x" * 8000) for n in range(100)))
    await desk.store.record(replace(result, attempt=replace(result.attempt, response=answer)))
    [made] = (await desk.detail(delivery)).attempts
    assert made.response is not None
    assert made.response.headers[:-1] == answer.headers[:2]
    assert made.response.headers[-1] == ("…", "and 98 more, which would have made more than 16 KiB")


async def test_the_last_thousand_rejections_of_each_source_are_kept(desk: Desk) -> None:
    for _ in range(2):
        for _ in range(700):
            desk.store.reject(rejected(desk))
        await desk.add("www")
    other = rejected(desk, "shop")
    desk.store.reject(other)
    await desk.reopen()
    found = [await desk.store.search(LogQuery(status=("rejected",), source=("blog",), limit=1000))]
    assert len(found[0].items) == 1000
    assert found[0].next is None
    assert await desk.store.rejection(other.id) == other


async def test_status_knows_the_oldest_while_something_waits_and_only_then(desk: Desk) -> None:
    for _ in range(2):
        assert (await desk.store.status()).oldest_pending is None
        came = desk.wait(1)
        (delivery,) = await desk.add("www")
        status = await desk.store.status()
        assert (status.pending, status.oldest_pending) == (1, came)
        await desk.store.record(delivered(delivery))
    status = await desk.store.status()
    assert (status.pending, status.oldest_pending) == (0, None)


async def test_status_tells_of_what_waits(desk: Desk) -> None:
    status = await desk.store.status()
    assert (status.pending, status.held, status.oldest_pending, status.oldest_due) == (0, 0, None, None)
    await desk.add("www", "old")
    desk.wait(60)
    event = desk.event()
    await desk.put(event, [desk.owe(event, after=-90 * SECOND)])
    await desk.store.settle(["www"], {})
    status = await desk.store.status()
    assert (status.pending, status.held) == (2, 1)
    assert (status.oldest_pending, status.oldest_due) == (NOON, NOON - 30 * SECOND)
    assert status.oldest_by_route == {"www": NOON - 30 * SECOND}
    await desk.store.settle(["www", "old"], {})
    assert (await desk.store.status()).oldest_by_route == {"www": NOON - 30 * SECOND, "old": NOON}
    assert status.location
    assert status.backend
    assert status.version
    assert status.size_bytes > 0


async def test_what_an_operator_should_know_of_a_store_is_said_in_sentences(desk: Desk) -> None:
    assert all(isinstance(note, str) and " " in note for note in desk.store.notes())


async def test_ids_grow_also_over_a_restart_and_a_clock_set_back(desk: Desk) -> None:
    (delivery,) = await desk.add("www")
    text = desk.store.ids.text(DELIVERY, delivery.id)
    await desk.reopen()
    assert desk.store.ids.draw(to_ms(NOON - 3600 * SECOND)) > delivery.id
    assert desk.store.ids.number(text) == (DELIVERY, delivery.id)


async def test_a_closed_store_promises_nothing_more(desk: Desk) -> None:
    waiting = asyncio.gather(*(desk.add("www") for _ in range(3)))
    await asyncio.sleep(0)
    await asyncio.gather(desk.store.close(), desk.store.close())
    await waiting
    with pytest.raises(Unavailable):
        await desk.add("www")
    with pytest.raises(Unavailable):
        await desk.store.claim("www", None, NOON, 1, ())
    await desk.reopen()
    assert desk.store.counts() == {"www": Counts(3, 0)}


async def test_the_last_hour_is_told_by_the_minute(desk: Desk) -> None:
    desk.clock.advance(60 - desk.clock.now().second)
    began = desk.clock.now()
    [first, second] = await desk.add("www", "search")
    await desk.store.record(replace(delivered(first), at=began))
    await desk.store.record(replace(failed(second), at=began + timedelta(minutes=1)))
    desk.wait(60)
    await desk.put(desk.event())
    number = int(began.timestamp()) // 60
    told = await desk.store.pace(began - timedelta(minutes=5))
    assert [(each.number - number, each.events, each.delivered, each.failed) for each in told] == [
        (0, 1, 1, 0),
        (1, 1, 0, 1),
    ]


async def test_what_is_owed_anew_is_newer_than_all_that_was_stored_before(desk: Desk) -> None:
    """Who reads page after page, oldest first, must meet it, whenever its id was drawn."""
    [first] = await desk.add("www")
    early = desk.owed(first.event)
    [later] = await desk.add("www")
    await desk.store.owe(first.event.id, [early])
    page = await desk.store.search(LogQuery(ascending=True, before=later.id))
    assert [item.event_id for item in page.items] == [desk.store.ids.text(EVENT, first.event.id)]
