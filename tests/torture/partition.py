"""The network between relay and a destination breaks: wholly, in one direction, or so that only one side knows."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from tests.harness import RelayProcess, write_config
from tests.torture.crashes import end
from tests.torture.disk import Failed, run
from tests.torture.load import steadily
from tests.torture.row import Figure, Place, Skipped, needs
from tests.torture.sinks import ABRUPT, Arrival, Sinks, sinks

RATE = 50  # events a second
_SHORT, _LONG = 4.0, 60.0  # seconds
_PORT = 8080
_TIMEOUT = 1.0
_CAP = 2.0  # the longest backoff, in seconds
_LATE = 5.0  # seconds that delivery may take beyond the cap
_IDLE = 35.0  # seconds in which a connection that nobody uses is closed on any side
_PROBE = 60.0  # the second probe: a minute after the first
_ESTABLISHED = "01"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is dropped on the other side; nothing where its end of the connections is lost instead."""

    name: str
    hooks: tuple[str, ...]


FAULTS = (
    Fault("partition", ("input", "output")),
    Fault("answers are lost", ("output",)),
    Fault("requests are lost", ("input",)),
    Fault("half-open", ()),
)


@dataclass(frozen=True, slots=True)
class Far:
    """A network of its own, with a cable to this one."""

    name: str
    here: str
    there: str

    @property
    def prefix(self) -> list[str]:
        """Starts a program over there."""
        return ["ip", "netns", "exec", self.name]

    def cut(self, *hooks: str) -> None:
        """Drop all packets in these directions."""
        chains = (f"chain {hook} {{ type filter hook {hook} priority 0; policy drop; }};" for hook in hooks)
        run(*self.prefix, "nft", f"table ip torture {{ {' '.join(chains)} }}")

    def heal(self) -> None:
        """Let everything through."""
        run(*self.prefix, "nft", "flush ruleset")


@contextmanager
def far() -> Iterator[Far]:
    """A network namespace, joined to this one by a pair of veth."""
    needs("ip", root=True, package="iproute2")
    needs("nft", package="nftables")
    # From what RFC 2544 sets aside for tests: a /30 for each process.
    net, place = f"198.18.{os.getpid() >> 6 & 255}", (os.getpid() & 63) * 4
    made = Far(f"torture{os.getpid()}", f"{net}.{place + 1}", f"{net}.{place + 2}")
    cable, end_there = f"tort{os.getpid()}", "eth0"
    try:
        run("ip", "netns", "add", made.name)
    except Failed as error:
        raise Skipped(f"no network namespace can be made here: {error}") from error
    try:
        try:
            run("ip", "link", "add", cable, "type", "veth", "peer", "name", end_there, "netns", made.name)
            made.heal()
        except Failed as error:
            raise Skipped(f"needs veth and nftables in the kernel: {error}") from error
        run("ip", "address", "add", f"{made.here}/30", "dev", cable)
        run("ip", "link", "set", cable, "up")
        run(*made.prefix, "ip", "address", "add", f"{made.there}/30", "dev", end_there)
        run(*made.prefix, "ip", "link", "set", end_there, "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "delete", made.name], check=False, capture_output=True)


def connections(net_tcp: str) -> set[tuple[str, str]]:
    """Of `/proc/net/tcp`: the two ends of what is established and owned by a process."""
    lines = [line.split() for line in net_tcp.splitlines()[1:]]
    return {(line[1], line[2]) for line in lines if line[3] == _ESTABLISHED and line[9] != "0"}


def stuck(relay: RelayProcess, there: Far) -> int:
    """Sockets of relay's to the other side that are not connected to one there."""
    assert relay.process is not None
    owned = set()
    for descriptor in Path(f"/proc/{relay.process.pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            owned.add(target[len("socket:[") : -1])
    remote = bytes(int(part) for part in reversed(there.there.split("."))).hex().upper() + f":{_PORT:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = {(line[1], line[2]) for line in lines if line[2] == remote and line[9] in owned}
    theirs = {(far_end, near) for near, far_end in connections(run(*there.prefix, "cat", "/proc/net/tcp"))}
    return len(ours - theirs)


@dataclass(frozen=True, slots=True)
class Came:
    """What came of one fault."""

    posted: int
    repeats: int
    one_id_each: bool
    late: float  # seconds from its end until the last event had arrived


def _config(folder: Path, there: Far, keys: str) -> Path:
    return write_config(
        folder,
        "sources: {any: {type: generic, verify: none}}\n"
        f"routes: [{{name: r, to: {{url: 'http://{there.there}:{_PORT}/', timeout: {_TIMEOUT:g}s,"
        f" connect_timeout: {_TIMEOUT:g}s}}, retry: {{policy: exponential, first: 200ms, factor: 2, max: {_CAP:g}s,"
        f" attempts: 1000}}, {keys}}}]\n",
    )


def _body(number: int) -> bytes:
    return b'{"id":%d}' % number


def _all(meant: set[int]) -> Callable[[list[Arrival]], bool]:
    return lambda seen: meant <= {each.number for each in seen}


async def _amid(fault: Fault, relay: RelayProcess, there: Far, far_sink: Sinks, seconds: float) -> tuple[int, float]:
    """Events come in before, during and after the fault: how many, and when it was mended."""
    count = round(RATE * (seconds + 2))
    async with asyncio.TaskGroup() as group:
        group.create_task(steadily(relay.public, RATE, count, _body))
        await far_sink.wait_for(lambda seen: len(seen) >= RATE // 2)
        there.cut(*fault.hooks)
        await asyncio.sleep(seconds)  # as long as the fault is to last
        there.heal()
        healed = monotonic()
    return count, healed


async def _half_open(relay: RelayProcess, there: Far, far_sink: Sinks, seconds: float) -> tuple[int, float]:
    """The other side goes and comes back, and relay is not told: its idle connections lead nowhere. Then events come
    again."""
    await steadily(relay.public, RATE, RATE, _body)
    await far_sink.wait_for(_all(set(range(RATE))))
    there.cut("input", "output")
    far_sink.end()
    async with _sink(there, far_sink.file.parent) as again:
        there.heal()
        assert stuck(relay, there), "no connection was left half open"
        count = round(RATE * (1 + min(seconds, _SHORT)))
        await steadily(relay.public, RATE, count - RATE, _body, RATE)
        over = monotonic()  # the fault lasts until each connection was tried
        await again.wait_for(_all(set(range(count))))
        await _closed(relay, there)
    return count, over


def _sink(there: Far, folder: Path) -> AbstractAsyncContextManager[Sinks]:
    return sinks(folder, "far", [ABRUPT], address=there.there, port=_PORT, prefix=there.prefix)


async def _closed(relay: RelayProcess, there: Far) -> None:
    """Wait until relay has no socket to the other side that is not known there. Raises TimeoutError."""
    async with asyncio.timeout(_IDLE):
        while stuck(relay, there):
            await asyncio.sleep(0.05)


async def _broken(there: Far, folder: Path, fault: Fault, seconds: float, keys: str) -> Came:
    folder.mkdir()
    relay = RelayProcess(_config(folder, there, keys))
    try:
        await relay.start()
        async with _sink(there, folder) as far_sink:
            if fault.hooks:
                count, healed = await _amid(fault, relay, there, far_sink, seconds)
                seen = await far_sink.wait_for(_all(set(range(count))), _PROBE + _IDLE)
                await _closed(relay, there)
            else:
                count, healed = await _half_open(relay, there, far_sink, seconds)
                seen = far_sink.arrivals()
    finally:
        there.heal()
        end(relay)
    first: dict[int, float] = {}
    ids: dict[int, set[str]] = {}
    for each in seen:
        first.setdefault(each.number, each.at)
        ids.setdefault(each.number, set()).add(each.id)
    return Came(
        count, len(seen) - len(first), all(len(found) == 1 for found in ids.values()), max(first.values()) - healed
    )


async def broken(place: Place) -> Figure:
    """All of these, one after another."""
    said, passed = [], True
    # A short one is over before a route that was found unhealthy is probed: of that the long run has the figure.
    long = place.count > 1
    seconds, keys, cap = (_LONG, "enabled: true", _PROBE) if long else (_SHORT, "unhealthy_after: 1000000", _CAP)
    with far() as there:
        for fault in FAULTS:
            came = await _broken(there, place.folder / fault.name, fault, seconds, keys)
            passed = passed and came.one_id_each and came.late <= cap + _LATE
            said.append(
                f"{fault.name}: {came.posted} of {came.posted} delivered, the last {max(came.late, 0):.1f} s after the"
                f" end, {came.repeats} repeats"
            )
    return Figure(f"{seconds:g} s each; {'; '.join(said)}; no socket stuck", passed)
