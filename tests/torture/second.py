"""A second relay is started on the file of one that runs."""

from __future__ import annotations

import time
from datetime import datetime

from tests.harness import LISTEN, RelayProcess, sink, write_config
from tests.torture.crashes import end
from tests.torture.ledger import Ledger, config
from tests.torture.row import Figure, Place

_WAITS = 10.0  # seconds: so long it waits for one that is just ending, as at a restart
_STARTED = 5.0  # seconds for a start beside other trials
_SOON = 2.0  # seconds
_AT_ONCE = 5.0  # seconds of a start, on a busy machine, that did not have to wait


async def refused(place: Place) -> Figure:
    """While the first takes events; then the first is killed, and another is started."""
    ledger, mine, other = Ledger(), place.folder / "first", place.folder / "second"
    mine.mkdir()
    other.mkdir()
    async with sink() as destination:
        store = f"store: {{url: 'sqlite:{mine / 'relay.db'}'}}\n{LISTEN}{config(destination.url)}"
        first = RelayProcess(write_config(mine, store))
        second = RelayProcess(write_config(other, store))
        try:
            await first.start()
            assert first.process is not None
            async with ledger.senders(first.public, sink=destination):
                before = len(ledger.acknowledged)
                began, clock = time.monotonic(), time.time()
                started = await _starts(second)
                took = time.monotonic() - began
                served, unharmed = len(ledger.acknowledged) - before, first.process.poll() is None
                first.kill()
            assert second.process is not None
            status = second.process.poll()
            said = list(second.lines())
            waiting = [line for line in said if line.get("event") == "store_locked"]
            told = min((_moment(str(line["timestamp"])) - clock for line in waiting), default=_WAITS)
            held = next((line for line in second.log.read_text().splitlines() if line.startswith("relay: ")), "")
            began = time.monotonic()
            freed = await _starts(second)
            free = time.monotonic() - began
            lost = ledger.lost(mine / "relay.db")
            arrived = await ledger.arrived(destination)
        finally:
            end(first)
            end(second)
    return Figure(
        f"said after {told:.1f} s that it waits, and ended with {status} after {took:.1f} s (it waits {_WAITS:g} s):"
        f" '{held}'; meanwhile the first answered {served:,} with 200, {len(lost)} lost, {arrived}; after its kill -9"
        f" another had started within {free:.1f} s",
        not started
        and status == 1
        and f"pid {first.process.pid}," in held
        and told < _STARTED
        and took - told < _WAITS + _SOON
        and served > 0
        and unharmed
        and not ledger.refused
        and freed
        and free < _AT_ONCE
        and not lost
        and arrived.kept,
    )


async def _starts(relay: RelayProcess) -> bool:
    try:
        await relay.start()
    except AssertionError:  # it ended
        return False
    return True


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
