"""Names to addresses, whatever some name server does."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from relay.resolver import MOST_ADDRESSES, MOST_LOOKUPS, Resolver
from relay.unreachable import OwnLimit


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Names under .hang never come back until the event is set."""
    release = threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any, **options: Any) -> Any:
        if host.endswith(".hang"):
            release.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return real(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield release
    release.set()


async def test_a_name_in_etc_hosts_resolves() -> None:
    found = await Resolver().resolve("localhost", 80)
    assert {"127.0.0.1", "::1"} >= {entry["host"] for entry in found} != set()
    assert {entry["port"] for entry in found} == {80}


async def test_fifty_hanging_names_do_not_delay_a_good_one(hanging: threading.Event) -> None:
    looking = Resolver()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(_fails(looking.resolve(f"{number}.hang"))) for number in range(50)]
        await asyncio.sleep(0)
        assert await looking.resolve("localhost", 80)
        assert not any(task.done() for task in waiting)
        hanging.set()


async def test_past_its_bound_a_lookup_fails_at_once_and_later_ones_work_again(hanging: threading.Event) -> None:
    looking = Resolver()
    async with asyncio.TaskGroup() as group:
        for number in range(MOST_LOOKUPS):
            group.create_task(_fails(looking.resolve(f"{number}.hang")))
        await asyncio.sleep(0)
        with pytest.raises(OwnLimit, match="other lookups are waiting"):
            await looking.resolve("localhost", 80)
        hanging.set()
    assert await looking.resolve("localhost", 80)


async def test_of_many_addresses_the_first_of_each_family_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET6, f"2001:db8::{number:x}") for number in range(100)]
    found += [(socket.AF_INET, f"192.0.2.{number}") for number in range(100)]

    def getaddrinfo(*rest: Any, **options: Any) -> Any:
        return [(family, socket.SOCK_STREAM, 6, "", (address, 80, 0, 0)) for family, address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    kept = [entry["host"] for entry in await Resolver().resolve("many.example", 80)]
    assert kept == [
        *(f"2001:db8::{number:x}" for number in range(MOST_ADDRESSES)),
        *(f"192.0.2.{number}" for number in range(MOST_ADDRESSES)),
    ]


async def test_a_lookup_that_gets_no_thread_is_not_counted_as_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    looking = Resolver()

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(MOST_LOOKUPS):
            with pytest.raises(OwnLimit, match="no further thread"):
                await looking.resolve("localhost", 80)
    assert await looking.resolve("localhost", 80)


async def test_what_is_no_name_does_not_resolve() -> None:
    with pytest.raises(socket.gaierror):
        await Resolver().resolve("a" * 70 + ".example", 80)


async def _fails(lookup: Any) -> None:
    with pytest.raises(OSError, match="try again"):
        await lookup
