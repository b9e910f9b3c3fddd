"""Three relays on one PostgreSQL, one of them with a clock that is ahead, are killed and stopped while entries are
published to any of them: lanes stay in order, nothing older follows something newer, windows tell of each event once.

Each entry has a sender that posts one event after another, each after the 200 of the one before, each to any relay.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp

from tests.harness import RelayProcess, sink
from tests.several import Attempt, end, made
from tests.torture.clocks import faked
from tests.torture.row import Figure, Place
from tests.torture.shared import LEASE, Destination, Trial, fates, settled, shared

SECONDS = 40.0  # of the quick run
ENTRIES = "abcdefghijklmnop"
AHEAD = "+0.02"  # seconds

TEXT = """
log: {level: info}
sources:
  any: {type: generic, verify: none, dedup: {key: body.n, window: 1h}, map: {entry_id: body.id, action: body.action}}
routes:
  - name: entry
    to: {url: 'URL/entry'}
    order: entry
    concurrency: 16
    unhealthy_after: 1000000
    retry: {policy: fixed, every: 100ms, attempts: 4, jitter: 0.5}
  - name: latest
    to: {url: 'URL/latest'}
    order: latest
    concurrency: 16
    unhealthy_after: 1000000
    retry: {policy: fixed, every: 100ms, attempts: 1000}
  - name: debounced
    to: {url: 'URL/debounced'}
    payload: normalized
    debounce: {wait: 200ms, max_wait: 1s, by: [entry_id]}
  - {name: batched, to: {url: 'URL/batched'}, batch: {max: 5, wait: 500ms}}
"""


class _Failing(Destination):
    def status(self, path: str) -> int:
        if path == "/entry":  # one in twenty is given up on
            return self.random.choices([200, 503, 422], [75, 20, 5])[0]
        return self.random.choices([200, 503], [80, 20])[0] if path == "/latest" else 200


class _Entries:
    """The senders."""

    def __init__(self, relays: Sequence[RelayProcess], draw: random.Random) -> None:
        self._relays = relays
        self._draw = draw
        self._number = 0
        self.ended = False
        self.sent: dict[str, list[int]] = defaultdict(list)
        self.ids: dict[int, str] = {}

    async def run(self, session: aiohttp.ClientSession, entry: str) -> None:
        while not self.ended:
            self._number += 1
            number = self._number
            await self._post(session, entry, number)
            self.sent[entry].append(number)
            await asyncio.sleep(self._draw.uniform(0.01, 0.15))  # between two things that an editor does

    async def _post(self, session: aiohttp.ClientSession, entry: str, number: int) -> None:
        body = json.dumps({"id": entry, "n": number, "action": "publish"}).encode()
        while True:
            relay = self._draw.choice(self._relays)
            try:
                async with session.post(f"{relay.public}/in/any", data=body) as response:
                    said = json.loads(await response.read())
                if response.status == 200:
                    self.ids[number] = said["id"]
                    return
            except (aiohttp.ClientError, TimeoutError, ValueError):
                pass
            await asyncio.sleep(0.05)  # as senders do before they try again


async def in_order(place: Place) -> Figure:
    """Show 3 of the issue, with kills and stops."""
    draw = random.Random(33)
    destination = _Failing(random.Random(5))
    with shared() as postgres, postgres.database() as database:
        async with sink(destination.answer) as receiving:

            def environ(number: int) -> dict[str, str]:
                return faked(AHEAD) if number == 2 else {}

            relays = made(place.folder, database.url, TEXT.replace("URL", receiving.url), environ=environ)
            trial = Trial(place.folder, database, destination, relays, draw)
            senders = _Entries(relays, random.Random(3))
            try:
                await asyncio.gather(*(relay.start() for relay in relays))
                timeout = aiohttp.ClientTimeout(total=1.5)
                async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
                    for at in range(len(relays)):
                        group.create_task(trial.trouble(at, LEASE + 4))
                    for entry in ENTRIES:
                        group.create_task(senders.run(session, entry))
                    await asyncio.sleep(SECONDS * place.count)
                    trial.ended = senders.ended = True
                await settled(database)
                states = fates(database)
            finally:
                for relay in relays:
                    end(relay)
    return _figure(place.folder, trial, senders, destination.attempts, states)


def _figure(
    folder: Path, trial: Trial, senders: _Entries, attempts: Sequence[Attempt], states: dict[str, int]
) -> Figure:
    wrong = [
        *_entry_order([each for each in attempts if each.path == "/entry"], senders),
        *_latest([each for each in attempts if each.path == "/latest"], senders),
        *_once([each for each in attempts if each.path == "/debounced"], senders.ids, _debounced),
        *_once([each for each in attempts if each.path == "/batched"], senders.ids, _batched),
    ]
    (folder / "unexplained").write_text("\n".join(wrong))
    kinds = Counter(moment.what for moment in trial.moments)
    requests = Counter(each.path for each in attempts)
    text = (
        f"{len(senders.ids):,} events of {len(ENTRIES)} entries, the clock of one relay 20 ms ahead, {dict(kinds)};"
        f" {dict(requests)} attempts; {states}; wrong: {len(wrong)} {'; '.join(wrong[:5])}"
    )
    return Figure(text, not wrong and set(states) <= {"delivered", "failed", "merged"} and bool(kinds))


def _told(attempt: Attempt) -> tuple[str, int]:
    said = json.loads(attempt.body)
    return said["id"], said["n"]


def _entry_order(attempts: Sequence[Attempt], senders: _Entries) -> list[str]:
    """Of each entry no earlier one is tried after a later one, and each at least once."""
    seen: dict[str, list[int]] = defaultdict(list)
    wrong = []
    for attempt in sorted(attempts, key=lambda each: each.began):
        entry, number = _told(attempt)
        if seen[entry] and number < seen[entry][-1]:
            wrong.append(f"entry: {entry} {number} by {attempt.relay} after {seen[entry][-1]}")
        seen[entry].append(number)
    for entry, numbers in senders.sent.items():
        if missing := set(numbers) - set(seen[entry]):
            wrong.append(f"entry: {entry} never saw {sorted(missing)[:5]}")
    return wrong


def _latest(attempts: Sequence[Attempt], senders: _Entries) -> list[str]:
    """Of each entry nothing older is sent after something newer has been delivered, and the newest is delivered."""
    delivered: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for attempt in attempts:
        if attempt.status == 200:
            entry, number = _told(attempt)
            delivered[entry].append((attempt.ended, number))
    wrong = []
    for attempt in attempts:
        entry, number = _told(attempt)
        newer = [each for ended, each in delivered[entry] if each > number and ended < attempt.began]
        if newer:
            wrong.append(f"latest: {entry} {number} by {attempt.relay} after {min(newer)}")
    for entry, numbers in senders.sent.items():
        if max((number for _, number in delivered[entry]), default=0) != numbers[-1]:
            wrong.append(f"latest: {entry} ended with another one than {numbers[-1]}")
    return wrong


def _debounced(body: bytes) -> list[str]:
    return [str(event["id"]) for event in json.loads(body)["events"]]


def _batched(body: bytes) -> list[int]:
    found = [each["n"] for each in json.loads(body)]
    assert len(found) <= 5
    return found


def _once(attempts: Sequence[Attempt], ids: dict[int, str], told: Callable[[bytes], Sequence[object]]) -> list[str]:
    """Each event is told of in one request, and it is the same one where that came again."""
    by_event: dict[object, set[str]] = defaultdict(set)
    bodies: dict[str, bytes] = {}
    wrong = []
    for attempt in attempts:
        if bodies.setdefault(attempt.id, attempt.body) != attempt.body:
            wrong.append(f"{attempt.path}: {attempt.id} came again with other events")
        for event in told(attempt.body):
            by_event[event].add(attempt.id)
    wrong += [
        f"{attempts[0].path}: {event} in {len(each)} windows" for event, each in by_event.items() if len(each) > 1
    ]
    wanted: set[object] = set(ids.values()) if told is _debounced else set(ids)
    if missing := wanted - set(by_event):
        wrong.append(f"{attempts[0].path}: {len(missing)} never told of")
    return wrong
