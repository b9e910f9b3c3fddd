"""What relay itself runs out of is not the destination's fault."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from relay import rendering
from relay.clock import rfc3339
from relay.store import Store
from relay.stores.sqlite import open_store
from tests.contract.desk import Desk
from tests.fakes import ManualClock
from tests.faults.names import Names
from tests.faults.routes import ended, one_route
from tests.harness import Relay, relay_here, sink


@contextlib.contextmanager
def no_files_left() -> Iterator[None]:
    """This process can open no further file or socket, whichever of its own it closes meanwhile."""
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, usual[1]))  # 0, 1 and 2 stay open
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)


async def ready(relay: Relay) -> None:
    """Open the connections that a test needs itself."""
    await relay.get("/logs?status=failed")
    assert (await relay.post("/nowhere"))[0] == 404


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_without_a_file_descriptor_an_attempt_does_not_count_and_is_made_again(tmp_path: Path, host: str) -> None:
    async with sink() as destination:
        clock = ManualClock()
        url = destination.url.replace("127.0.0.1", host)
        async with relay_here(tmp_path, one_route(url), clock) as relay:
            await ready(relay)
            with no_files_left():
                with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                    os.dup(0)
                detail = await ended(relay)
            delivery = detail["delivery"]
            assert delivery["status"] == "pending", "it would have failed, had it counted: there is no retry"
            assert delivery["error"]["code"] == "connect_error"
            assert "relay itself has run out of file descriptors" in delivery["error"]["message"]
            assert delivery["next_attempt_at"] == rfc3339(clock.now() + timedelta(seconds=2))
            [route] = (await relay.get("/health"))["routes"]
            assert (route["consecutive_failures"], destination.received) == (0, [])
            await relay.ask("POST", f"/logs/{delivery['id']}/retry")  # sooner than it would be by itself
            await relay.logs_when(lambda items: items[0]["status"] == "delivered")


async def test_a_name_that_is_not_found_for_want_of_a_file_descriptor_may_well_be_there(
    tmp_path: Path, names: Names
) -> None:
    async with relay_here(tmp_path, one_route("http://nxdomain.test/"), ManualClock()) as relay:
        await ready(relay)
        with no_files_left():
            delivery = (await ended(relay))["delivery"]
        assert (delivery["status"], delivery["error"]["code"]) == ("pending", "connect_error")
        await relay.ask("POST", f"/logs/{delivery['id']}/retry")
        [item] = await relay.logs_when(len, "?status=failed")
        assert item["error"]["code"] == "dns_error"


async def test_without_a_file_descriptor_for_a_token_an_attempt_does_not_count_either(tmp_path: Path) -> None:
    auth = "auth: {type: oauth2, token_url: 'http://127.0.0.1:9/', client_id: relay, client_secret: 0123456789abcdef}"
    async with relay_here(tmp_path, one_route("http://127.0.0.1:9/", auth), ManualClock()) as relay:
        await ready(relay)
        with no_files_left():
            delivery = (await ended(relay))["delivery"]
        assert (delivery["status"], delivery["error"]["code"]) == ("pending", "auth_error")
        assert "relay itself has run out of file descriptors" in delivery["error"]["message"]


TEMPLATE = "payload: {template: '{{ event.source }}'}, retry: none"


async def test_without_a_file_descriptor_for_a_helper_a_payload_is_made_later(tmp_path: Path) -> None:
    rendering._helpers.end()
    async with sink() as destination:
        clock = ManualClock()
        async with relay_here(tmp_path, one_route(destination.url, route=TEMPLATE), clock) as relay:
            await ready(relay)
            with no_files_left():
                delivery = (await ended(relay))["delivery"]
            assert (delivery["status"], delivery["error"]["code"]) == ("pending", "interrupted")
            assert delivery["error"]["message"] == (
                "the template could not be rendered: no helper can be started: Too many open files"
            )
            assert delivery["next_attempt_at"] == rfc3339(clock.now() + timedelta(seconds=2))
            [route] = (await relay.get("/health"))["routes"]
            assert (route["state"], route["consecutive_failures"]) == ("healthy", 0)
            await relay.ask("POST", f"/logs/{delivery['id']}/retry")
            [received] = await destination.wait_count(1)
            assert received.body == b"any"


def made(attempts: int, items: list[dict[str, Any]]) -> bool:
    return bool(items[0]["attempts"] == attempts)


async def test_what_ends_its_helper_each_time_is_not_tried_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "helper"
    program.write_text("#!/bin/sh\nhead -c 8 >/dev/null; kill -KILL $$\n")
    program.chmod(0o755)
    rendering._helpers.end()
    monkeypatch.setattr(sys, "executable", str(program))
    clock = ManualClock()
    async with relay_here(tmp_path, one_route("http://127.0.0.1:9/", route=TEMPLATE), clock) as relay:
        delivery = (await ended(relay))["delivery"]
        waited = []
        for attempts in range(2, 12):
            assert delivery["status"] == "pending"
            waited.append(round((datetime.fromisoformat(delivery["next_attempt_at"]) - clock.now()).total_seconds()))
            clock.advance(waited[-1])
            assert relay.running is not None
            relay.running.dispatcher._schedule._woken.set()  # it looks every few seconds, and whenever it is woken
            [delivery] = await relay.logs_when(partial(made, attempts))
        assert waited == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
        assert (delivery["status"], delivery["error"]["code"]) == ("failed", "interrupted")
        assert delivery["error"]["message"] == "the template could not be rendered: its helper was ended by signal 9"
        [route] = (await relay.get("/health"))["routes"]
        assert (route["state"], route["consecutive_failures"]) == ("healthy", 0)


async def test_the_store_opens_at_the_start_whatever_it_needs(tmp_path: Path) -> None:
    clock = ManualClock()

    async def open_it() -> Store:
        return await open_store(tmp_path / "relay.db", clock=clock)

    store = await open_it()
    desk = Desk(store, clock, open_it)
    with no_files_left():
        [delivery] = await desk.add("www")
        [claimed] = await desk.claim()
        assert claimed.id == delivery.id
        assert await desk.state(delivery) == "pending"
        assert (await store.status()).pending == 1
    await store.close()
