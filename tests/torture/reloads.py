"""Storms of reloads."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp

from tests.harness import PATIENCE, Received, RelayProcess, sink, write_config
from tests.torture import insight
from tests.torture.crashes import end
from tests.torture.ledger import config
from tests.torture.row import Figure, Place
from tests.torture.steady import Steady


async def storm_of_reloads(place: Place) -> Figure:
    """A thousand SIGHUPs in ten seconds, the file being another one now and then."""
    storms, count, seconds = 2, 1000, 10.0
    async with sink() as destination:
        path = write_config(place.folder, config(destination.url))
        text = path.read_text()
        relay = RelayProcess(path, environ=insight.environ(place.folder))
        await relay.start()
        try:
            sent, statuses, held, last = 0, Counter[int](), [], {}
            for storm in range(storms):  # what the first one grows by is what a reload needs at all
                sender = Steady(relay.public, 200)
                async with asyncio.TaskGroup() as group:
                    group.create_task(sender.run())
                    began = time.monotonic()
                    for number in range(count):
                        if number % 100 == 0:
                            new = path.with_suffix(".new")
                            new.write_text(f"{text}# {storm} {number}\n")
                            new.replace(path)
                        relay.hup()
                        await asyncio.sleep(max(0.0, began + number * seconds / count - time.monotonic()))
                    last = await _taken(relay, path)
                    sender.ended = True
                sent, statuses = sent + sender.sent, statuses + sender.statuses
                await destination.wait_for(partial(_all, sent))
                held.append(await insight.settled(relay, place.folder))
            status = await relay.stop()
        finally:
            end(relay)
    before, after = held
    return Figure(
        f"{storms} times {count:,} SIGHUPs in {seconds:.0f} s under {sent:,} events:"
        f" answered {dict(statuses)},"
        f" generation {last['generation']}, the last file runs; {insight.growth(before, after)}",
        set(statuses) == {200} and status == 0 and insight.flat(before, after),
    )


def _all(sent: int, seen: list[Received]) -> bool:
    return len({request.id for request in seen}) >= sent


async def _taken(relay: RelayProcess, path: Path) -> dict[str, Any]:
    """Wait until the file as it is now is what runs."""
    wanted = sha256(path.read_bytes()).hexdigest()
    async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
        while True:
            async with session.get(relay.admin + "/health") as response:
                said: dict[str, Any] = json.loads(await response.read())["config"]
            if said["sha256"] == wanted:
                return said
            await asyncio.sleep(0.05)
