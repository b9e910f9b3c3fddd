"""The clock of the machine is set while relay runs."""

from __future__ import annotations

import asyncio
import json
import sysconfig
import time
from pathlib import Path

import aiohttp

from tests.harness import PATIENCE, Received, RelayProcess, sink, write_config
from tests.torture.crashes import end
from tests.torture.row import Figure, Place, Skipped

JUMPS = (("as it was", 0), ("a day back", -1), ("as it was again", 0), ("a day on", 1), ("forty days on", 40))
_LIBRARIES = ("/usr/lib/{}/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")
_DAY = 86_400


async def clocks(place: Place) -> Figure:
    """The clock is set a day back, a day ahead, forty days ahead, while retries wait and history is kept."""
    offset = place.folder / "offset"
    offset.write_text("+0")
    times: list[float] = []

    def answer(request: Received) -> int:
        if request.path == "/ill":
            times.append(time.monotonic())
            return 503
        return 200

    async with sink(answer) as destination:
        text = (
            "sources: {any: {type: generic, verify: none, map: {entry_id: body.id}}}\n"
            "defaults: {retry: {policy: fixed, every: 1s, attempts: 1000, jitter: 0}, unhealthy_after: 1000}\n"
            "routes:\n"
            f"  - {{name: ill, to: {{url: '{destination.url}/ill'}}}}\n"
            f"  - {{name: well, to: {{url: '{destination.url}/'}}}}\n"
        )
        fake = {
            **_preloaded(),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
        }
        relay = RelayProcess(write_config(place.folder, text), environ=fake)
        await relay.start()
        said = []
        try:
            async with aiohttp.ClientSession() as session:
                async with session.post(f"{relay.public}/in/any", data=b'{"id":1}') as response:
                    assert response.status == 200
            good = True
            for name, days in JUMPS:
                offset.write_text(f"{days * _DAY:+d}")
                began, seen = time.monotonic(), len(times)
                async with asyncio.timeout(PATIENCE):
                    while len(times) < seen + 4:
                        await asyncio.sleep(0.01)
                gaps = [
                    late - early for early, late in zip([began, *times[seen:]], times[seen : seen + 4], strict=False)
                ]
                said.append(f"{name} {max(gaps):.1f} s")
                good = good and max(gaps) < 4 and min(gaps[1:]) > 0.5
            kept = await _delivered(relay)
        finally:
            end(relay)
    return Figure(
        f"a retry each second came after at most: {', '.join(said)};"
        f" what was delivered is {'still' if kept else 'NOT'} in the logs",
        good and kept,
    )


def faked(offset: str) -> dict[str, str]:
    """The environment of a process whose wall clock is set so many seconds ahead, as `+0.02`. Raises Skipped."""
    return _preloaded() | {"FAKETIME": offset}


def _preloaded() -> dict[str, str]:
    library = next((name for name in map(_library, _LIBRARIES) if Path(name).exists()), None)
    if library is None:
        raise Skipped("needs libfaketime: apt-get install faketime")
    return {"LD_PRELOAD": library, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def _library(pattern: str) -> str:
    return pattern.format(sysconfig.get_config_var("MULTIARCH") or "")


async def _delivered(relay: RelayProcess) -> bool:
    async with aiohttp.ClientSession() as session, session.get(relay.admin + "/logs?route=well") as response:
        return [item["status"] for item in json.loads(await response.read())["items"]] == ["delivered"]
