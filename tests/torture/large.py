"""Large bodies, many at once, and little memory: in a control group, in which the kernel kills what takes too much."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

from tests.harness import PATIENCE, RelayProcess, relay_process
from tests.torture.row import Figure, Place, Seen, Skipped, of_forms
from tests.torture.sinks import SLUGGISH, sinks
from tests.torture.wire import exchange, memory, peak, post

BODIES = 200
SIZE = 1 << 20
LIMIT = 128 << 20
ROUTES = 20
LEAST = 6  # of the large ones must be taken at once, where they need no more memory than their bytes
TAKEN = 20  # bodies that go to many routes: who is refused comes again
_ARRIVE = 180.0  # seconds for what was taken, to all routes
_SOURCES = "sources: {any: {type: generic, verify: none, map: {model: body.to, entry_id: body.id}}}\n"


def _text(number: int) -> bytes:
    """As large, and hardly more when it is parsed."""
    start = b'{"id":%d,"to":"large","a":"' % number
    return start + b"x" * (SIZE - len(start) - 2) + b'"}'


def _objects(number: int) -> bytes:
    """Parsed, it takes 25 times its bytes."""
    start = b'{"id":%d,"to":"large","a":[' % number
    return start + b",".join([b"{}"] * ((SIZE - len(start) - 2) // 3)) + b"]}"


async def texts(place: Place) -> Figure:
    """Each but for its last byte, then the rest."""
    return await _taken(place, "a text", _text, LEAST)


async def objects(place: Place) -> Figure:
    """The same with documents that are much larger when they are parsed."""
    return await _taken(place, "350,000 objects", _objects, 1)


async def _taken(place: Place, what: str, body: Callable[[int], bytes], least: int) -> Figure:
    async with _cgroup(LIMIT) as group, relay_process(place.folder, _SOURCES, prefix=group.prefix) as relay:
        many = await _many(relay, group, body)
    return of_forms(many.seen(f"{BODIES} bodies of 1 MiB at once, each {what}", least), many.text, passed=many.lived)


async def routed(place: Place) -> Figure:
    """And each goes to many routes, to destinations that take their time."""
    async with sinks(place.folder, "slow", [SLUGGISH] * ROUTES) as slow, _cgroup(LIMIT) as group:
        lines = [f"  - {{name: r{place}, to: {{url: '{url}'}}}}" for place, url in enumerate(slow.urls)]
        text = _SOURCES + "routes:\n" + "\n".join(lines) + "\n"
        async with relay_process(place.folder, text, prefix=group.prefix) as relay:
            many = await _many(relay, group, _text)
            taken = many.taken | await _again(relay, set(range(1, BODIES + 1)) - many.taken, TAKEN - len(many.taken))
            wanted = {(number, int(url.rpartition(":")[2])) for number in taken for url in slow.urls}
            with suppress(TimeoutError):
                await slow.wait_for(lambda seen: wanted <= {(each.number, each.port) for each in seen}, _ARRIVE)
            came = wanted & {(each.number, each.port) for each in slow.arrivals()}
            lived = many.lived and _lives(relay)
            told = f"{peak(relay):.0f} MiB at most" if lived else "killed"
    form = f"{BODIES} bodies of 1 MiB at once, each to {ROUTES} slow routes"
    arrived = Seen(
        f"{form}: deliveries",
        f"{len(came)} of {len(wanted)} arrived, {told}",
        lived and came == wanted and len(taken) >= TAKEN,
    )
    return of_forms([*many.seen(form, LEAST), arrived], f"{many.text}; {arrived.answer}", passed=lived)


@dataclass(frozen=True, slots=True)
class _Many:
    """What became of the large bodies, and of a small event meanwhile and after."""

    statuses: Counter[int]
    taken: set[int]
    meanwhile: tuple[int, ...]
    after: tuple[int, ...]
    lived: bool
    memory: str

    @property
    def told(self) -> str:
        return ", ".join(
            f"{count} answered {status or 'by closing'}" for status, count in sorted(self.statuses.items())
        )

    @property
    def text(self) -> str:
        return f"{self.told}; {self.memory}"

    def seen(self, form: str, least: int) -> list[Seen]:
        answered = set(self.statuses) <= {0, 200, 413, 503} and self.statuses[0] <= BODIES // 4
        return [
            Seen(form, self.told, self.lived and answered and len(self.taken) >= least),
            Seen("a small event meanwhile", str(self.meanwhile), self.meanwhile in ((200,), (503,))),
            Seen("a small event after", str(self.after), self.after == (200,)),
        ]


async def _many(relay: RelayProcess, group: _Group, body: Callable[[int], bytes]) -> _Many:
    empty = memory(relay)
    address = urlsplit(relay.public)
    senders = [await asyncio.open_connection(address.hostname, address.port) for _ in range(BODIES)]
    small = post("/in/any", b'{"to":"small"}')
    sent = asyncio.Barrier(BODIES + 1)
    rest = asyncio.Event()

    async def send(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        """Whoever is refused reads that at once, as a sender should: it may be lost with the connection later."""
        answer = tasks.create_task(_status(reader))
        data = post("/in/any", body(number))
        try:
            drained = tasks.create_task(_write(writer, data[:-1]))
            await asyncio.wait({drained, answer}, return_when=asyncio.FIRST_COMPLETED)
            drained.cancel()
            await sent.wait()
            await rest.wait()
            if not answer.done():
                await _write(writer, data[-1:])
            return await answer
        finally:
            writer.close()

    async with asyncio.timeout(90), asyncio.TaskGroup() as tasks:
        sending = [tasks.create_task(send(number, *pair)) for number, pair in enumerate(senders, 1)]
        await sent.wait()
        meanwhile = await _exchange(relay, small)
        rest.set()
    statuses = [task.result() for task in sending]
    after = await _exchange(relay, small)
    lived = _lives(relay)
    top = f"{peak(relay):.0f} MiB at most ({group.most()} with its files)" if lived else "killed"
    text = f"{empty:.0f} MiB before, {top} of {LIMIT >> 20} allowed"
    taken = {number for number, status in enumerate(statuses, 1) if status == 200}
    return _Many(Counter(statuses), taken, meanwhile, after, lived, text)


async def _again(relay: RelayProcess, numbers: set[int], count: int) -> set[int]:
    """Send these one after the other until so many have been taken; which."""
    taken = set[int]()
    with suppress(ConnectionError, TimeoutError):  # fewer, where it is no longer there
        async with asyncio.timeout(60):
            for number in cycle(sorted(numbers)):
                if len(taken) >= count:
                    break
                if number not in taken:
                    answer = await exchange(relay.public, post("/in/any", _text(number)), quiet=0.01)
                    taken |= {number} if answer.statuses == (200,) else set()
    return taken


async def _exchange(relay: RelayProcess, data: bytes) -> tuple[int, ...]:
    try:
        return (await exchange(relay.public, data)).statuses
    except ConnectionError:  # nobody is there
        return ()


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    with suppress(ConnectionError):  # refused before its end: what came back says how
        writer.write(data)
        await writer.drain()


async def _status(reader: asyncio.StreamReader) -> int:
    try:
        return int((await reader.readuntil(b"\r\n")).split()[1])
    except (ConnectionError, asyncio.IncompleteReadError):
        return 0


def _lives(relay: RelayProcess) -> bool:
    assert relay.process is not None
    return relay.process.poll() is None


@dataclass(frozen=True, slots=True)
class _Group:
    """A control group with a limit on memory."""

    path: Path
    peak: str

    @property
    def prefix(self) -> list[str]:
        """What starts a command in it."""
        return ["sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh"]

    def most(self) -> str:
        """MiB, what of files the kernel keeps in memory counted."""
        try:
            return f"{int((self.path / self.peak).read_text()) >> 20}"
        except OSError:  # older than Linux 5.19
            return "?"


# of version 1, and of version 2: where groups are made, the limits (of the second kind none may be there), the highest
_VERSIONS: Sequence[tuple[str, str, str, str]] = (
    ("memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes"),
    ("", "memory.max", "memory.swap.max", "memory.peak"),
)


@asynccontextmanager
async def _cgroup(limit: int) -> AsyncIterator[_Group]:
    """One of its own. Raises Skipped where this machine does not let us have it."""
    for hierarchy, most, swap, highest in _VERSIONS:
        path = Path("/sys/fs/cgroup") / hierarchy / f"relay-torture-{os.getpid()}"
        try:
            path.mkdir()
        except OSError:
            continue
        try:
            try:
                (path / most).write_text(str(limit))
            except OSError:
                continue
            if (path / swap).exists():
                (path / swap).write_text(str(limit if hierarchy else 0))
            yield _Group(path, highest)
            return
        finally:
            async with asyncio.timeout(PATIENCE):
                while path.exists():
                    try:
                        path.rmdir()
                    except OSError:
                        await asyncio.sleep(0.05)
    raise Skipped("needs the right to make a control group with a limit on memory (version 1, or 2 with memory.max)")
