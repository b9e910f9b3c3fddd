"""Relays that share one PostgreSQL are killed and stopped under load, and the database crashes: what they acknowledged
arrives, and nothing arrives twice that was not under way where it happened.

What arrived is explained attempt by attempt. An attempt that follows, or overlaps, another one of its delivery must
have a reason: the earlier one was told to come again, or the relay that made it was killed or stopped before it had
surely recorded what came of it.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import aiohttp
import psycopg

from relay.ids import Ids
from tests.harness import Received, RelayProcess, sink
from tests.postgres import Cluster, Database, cluster, missing
from tests.several import HEADER, Attempt, end, made
from tests.torture.row import Figure, Place, Skipped

LEASE, BEAT = 10.0, 2.0
SENT = 3.0  # seconds in which who can take over has sent what the dead one had in hand
ON_ITS_WAY = 0.2  # seconds after a kill in which what the dead one had sent may still arrive
SECONDS = 60.0  # of the quick run
SENDERS, RATE = 6, 90.0  # events a second, of all senders
SLOW = 12.0  # seconds in which a destination answers: longer than a lease
CROWDED, CROWDED_EVERY = 0.3, 12  # seconds of a destination that takes one at a time; of so many events one is for it
QUEUE = 64  # deliveries that may wait in a relay's memory for one that takes one at a time
RECORDED = 1.0  # seconds after an answer until its result is surely on disk, on a machine that does much else
_PATIENCE = 120.0

TEXT = """
log: {level: info}
sources: {any: {type: generic, verify: none, dedup: {key: body.id, window: 1h}, map: {model: body.to}}}
routes:
  - {name: plain, match: {model: all}, to: {url: 'URL/plain'}, concurrency: 16}
  - name: flaky
    match: {model: all}
    to: {url: 'URL/flaky'}
    concurrency: 16
    unhealthy_after: 1000000
    retry: {policy: fixed, every: 300ms, attempts: 1000, jitter: 0.5}
  - {name: slow, match: {model: slow}, to: {url: 'URL/slow', timeout: 30s}, concurrency: 64}
  - {name: crowded, match: {model: crowded}, to: {url: 'URL/crowded'}, concurrency: 1}
"""


@contextmanager
def shared() -> Iterator[Cluster]:
    """A PostgreSQL that keeps what it promised also when its machine fails. Raises Skipped where there is none."""
    if (reason := missing()) is not None:
        raise Skipped(reason)
    with cluster(fsync=True) as made:
        yield made


@dataclass
class Destination:
    """Notes each attempt, and whether anybody was there to hear its answer."""

    random: random.Random
    attempts: list[Attempt] = field(default_factory=list)

    async def answer(self, request: Received) -> int:
        attempt = Attempt(
            request.id, request.path, request.headers.get(HEADER, "?"), request.body, monotonic(), ended=float("inf")
        )
        self.attempts.append(attempt)
        if request.path == "/slow":
            await asyncio.sleep(SLOW)  # it is a slow one
        if request.path == "/crowded":
            await asyncio.sleep(CROWDED)  # so that others wait in each relay's memory
        attempt.status = self.status(request.path)
        attempt.ended = monotonic()
        return attempt.status

    def status(self, path: str) -> int:
        """What it answers."""
        return 503 if path == "/flaky" and self.random.random() < 0.2 else 200

    def delivered(self, path: str) -> set[int]:
        """The numbers of the events that it took."""
        return {number_of(each) for each in self.attempts if each.path == path and each.status == 200}


def number_of(attempt: Attempt) -> int:
    """Which event an attempt is about."""
    found: int = json.loads(attempt.body)["id"]
    return found


@dataclass
class Senders:
    """Each event is posted to one relay after another until one has acknowledged it."""

    relays: Sequence[RelayProcess]
    draw: random.Random
    acknowledged: dict[int, str] = field(default_factory=dict)
    """The ids of events, by their numbers."""
    routes: dict[int, list[str]] = field(default_factory=dict)
    answers: Counter[object] = field(default_factory=Counter)
    ended: bool = False
    away: set[str] = field(default_factory=set)
    """Relays that are known to be down: nothing is posted to them."""
    refused: list[str] = field(default_factory=list)
    """What those said, or did, who were not, instead of answering with 200."""
    rate: float = RATE
    slow_every: int = 40
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    async def _one(self, session: aiohttp.ClientSession) -> None:
        number = next(self.numbers)
        to = "slow" if self.slow_every and number % self.slow_every == 0 else "all"
        if self.slow_every and number % CROWDED_EVERY == 1:
            to = "crowded"
        body = json.dumps({"id": number, "to": to}).encode()
        while True:
            relay = self.draw.choice([each for each in self.relays if each.public not in self.away])
            try:
                async with session.post(f"{relay.public}/in/any", data=body) as response:
                    said = json.loads(await response.read())
                self.answers[response.status] += 1
                if response.status == 200:
                    self.acknowledged[number] = said["id"]
                    self.routes[number] = said["routes"]
                    return
                assert response.status >= 500, (response.status, said)
                self.refused.append(str(response.status))
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                self.answers[type(error).__name__] += 1
                self.refused.append(repr(error))
            await asyncio.sleep(0.05)  # as senders do before they try again

    async def _run(self, session: aiohttp.ClientSession) -> None:
        while not self.ended:
            began = monotonic()
            await self._one(session)
            await asyncio.sleep(max(0.0, began + SENDERS / self.rate - monotonic()))

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send all the while; leaving the context waits until each event that was begun with is acknowledged."""
        timeout = aiohttp.ClientTimeout(total=3)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            for _ in range(SENDERS):
                group.create_task(self._run(session))
            try:
                yield
            finally:
                self.ended = True


@dataclass
class Moment:
    """A relay was killed, or stopped until it was to go on."""

    relay: str
    what: str
    began: float
    ended: float
    hands: tuple[str, ...] = ()
    """The deliveries that it had in hand then."""
    back: float = float("inf")
    """When it was there again."""


def unexplained(attempts: Sequence[Attempt], moments: Sequence[Moment]) -> tuple[list[str], Counter[str]]:
    """The repeats that nothing explains, in words; how many are explained by what."""
    by_delivery: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_delivery[attempt.id].append(attempt)
    wrong, why = list[str](), Counter[str]()
    for id_, several in by_delivery.items():
        several.sort(key=lambda each: each.began)
        for place, later in enumerate(several[1:], start=1):
            for earlier in several[:place]:
                if earlier.status not in (None, 200) and earlier.ended <= later.began:
                    continue  # it was told to come again
                found = _reason(earlier, later, moments)
                if found is None:
                    near = [(each.what, round(each.began - earlier.began, 2), round(each.ended - earlier.began, 2))
                            for each in moments if each.relay == earlier.relay]  # fmt: skip
                    wrong.append(
                        f"{id_} {earlier.path}: by {earlier.relay}, answered {earlier.status} after"
                        f" {earlier.ended - earlier.began:.2f} s, then by {later.relay} at"
                        f" {later.began - earlier.began:.2f} s ({near})"
                    )
                else:
                    why[found] += 1
    return wrong, why


def _reason(earlier: Attempt, later: Attempt, moments: Sequence[Moment]) -> str | None:
    last = min(earlier.ended, later.began) + RECORDED
    for each in moments:
        if each.relay == earlier.relay and each.began <= last and each.ended >= earlier.began - 0.2:
            return each.what
    return None


@dataclass
class Trial:
    """Three relays, what is done to them, and what was seen."""

    folder: Path
    database: Database
    destination: Destination
    relays: list[RelayProcess]
    draw: random.Random
    moments: list[Moment] = field(default_factory=list)
    stale: dict[str, int] = field(default_factory=dict)
    outages: list[tuple[float, float]] = field(default_factory=list)
    _troubled: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    ended: bool = False

    def name(self, at: int) -> str:
        return "abc"[at]

    def hands(self, at: int) -> tuple[str, ...]:
        """The deliveries that the database says a relay has in hand."""
        process = self.relays[at].process
        assert process is not None
        rows = patiently(
            self.database,
            "SELECT d.id, (SELECT value FROM meta WHERE key = 'store') FROM delivery d JOIN process p ON p.id = d.owner"
            f" WHERE d.state = 'pending' AND p.name LIKE '%:{process.pid}'",
        )
        return tuple(Ids(int(store)).text("dlv_", number) for number, store in rows)

    async def kill(self, at: int, away: float) -> None:
        relay, began = self.relays[at], monotonic()
        relay.kill()
        killed = Moment(self.name(at), "kill", began, monotonic())
        self.moments.append(killed)
        killed.hands = await asyncio.to_thread(self.hands, at)
        await asyncio.sleep(away)
        await start(relay)
        killed.back = monotonic()

    async def stop(self, at: int, away: float) -> None:
        process = self.relays[at].process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        stopped = Moment(self.name(at), "stop", monotonic(), float("inf"))
        self.moments.append(stopped)
        stopped.hands = await asyncio.to_thread(self.hands, at)
        await asyncio.sleep(stopped.began + away - monotonic())
        process.send_signal(signal.SIGCONT)
        stopped.ended = stopped.back = monotonic()
        stopped.what = f"stop {'>' if stopped.ended - stopped.began > LEASE else '<'} lease"

    async def trouble(self, at: int, long: float) -> None:
        """What befalls one relay, again and again."""
        await asyncio.sleep(self.draw.uniform(2, 6))
        while not self.ended:
            async with self._troubled:
                if self.ended:
                    return
                draw = self.draw.random()
                if draw < 0.45:
                    await self.kill(at, self.draw.uniform(0.2, 2))
                elif draw < 0.7:
                    await self.stop(at, self.draw.uniform(0.5, 6))
                else:
                    await self.stop(at, long + self.draw.uniform(0, 3))
            await asyncio.sleep(self.draw.uniform(2, 8))

    async def crash(self) -> None:
        """The database dies and starts again."""
        began = monotonic()
        await asyncio.to_thread(self.database.cluster.restart, immediate=True)
        self.outages.append((began, monotonic()))

    async def watch(self) -> None:
        """How many results were refused, by whom."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while True:
                for relay in self.relays:
                    try:
                        async with session.get(f"{relay.admin}/health") as response:
                            for each in json.loads(await response.read())["relays"]:
                                before = self.stale.get(each["name"], 0)
                                self.stale[each["name"]] = max(before, each["stale_results"])
                    except (aiohttp.ClientError, TimeoutError, ValueError, OSError):
                        continue
                await asyncio.sleep(0.5)

    def takeovers(self) -> list[tuple[float, float]]:
        """For each kill that left something in hand: how long the last of it took to be sent, and by how much that was
        later than somebody could have seen to it."""
        alone, found = list(left_alone(self.moments, self.outages)), []
        for moment in self.moments:
            if moment.what != "kill":
                continue
            first: dict[str, Attempt] = {}
            for attempt in self.destination.attempts:
                its_own = attempt.relay == moment.relay and attempt.began < moment.ended + ON_ITS_WAY
                if attempt.id in moment.hands and attempt.began > moment.began and not its_own:
                    first.setdefault(attempt.id, attempt)
            if first:
                late = max(each.began - self._could(each, alone) for each in first.values())
                found.append((max(each.began for each in first.values()) - moment.began, late))
        return found

    def _could(self, sent: Attempt, alone: Sequence[Alone]) -> float:
        """When that could have been sent, since it was last in the hand of one that was killed, or stopped."""
        before = [each for each in self.moments if sent.id in each.hands and each.began < sent.began]
        since = max(
            each.ended if each.what == "stop < lease" and each.ended <= sent.began else each.began for each in before
        )
        waiting = QUEUE * CROWDED if sent.path == "/crowded" else 0.0
        return min(each.seen(since) for each in alone) + waiting


@dataclass(frozen=True, slots=True)
class Alone:
    """While one relay was neither killed nor stopped, and the database was there."""

    began: float
    ended: float
    fresh: bool
    """Whether it had just been started, and the database had not: it goes by the database's clock then."""

    def seen(self, since: float) -> float:
        """When it surely knew that one was dead that said until then that it lives; never, where it was disturbed."""
        found = max(self.began, since) + LEASE + 2 * BEAT
        if self.fresh and since + LEASE <= self.began:
            found = self.began + BEAT
        return found if found <= self.ended else float("inf")


def left_alone(
    moments: Sequence[Moment], outages: Sequence[tuple[float, float]], relays: str = "abc"
) -> Iterator[Alone]:
    """When each of the relays was."""
    for relay in relays:
        own = [(each.began, each.back, each.what == "kill") for each in moments if each.relay == relay]
        since, fresh = float("-inf"), False
        for began, back, killed in sorted(own + [(*each, False) for each in outages]):
            if began > since:
                yield Alone(since, began, fresh)
            if back > since:
                since = back
                fresh = killed and not any(back - LEASE - BEAT < up <= back for _, up in outages)
        yield Alone(since, float("inf"), fresh)


async def start(relay: RelayProcess) -> None:
    """Start it, as a service manager does: again where it could not, since the database was away."""
    while True:
        try:
            await relay.start()
            return
        except AssertionError:
            assert relay.process is not None
            if relay.process.wait() != 1:
                raise
            await asyncio.sleep(0.2)


def patiently(database: Database, sql: str) -> list[tuple[Any, ...]]:
    """What psql would say, once the database is there."""
    until = monotonic() + _PATIENCE
    while True:
        try:
            return database.sql(sql)
        except psycopg.OperationalError:
            if monotonic() > until:
                raise
            sleep(0.05)


def fates(database: Database) -> dict[str, int]:
    """How many deliveries are in which state."""
    return dict(patiently(database, "SELECT state, count(*) FROM delivery GROUP BY state"))


async def settled(database: Database, patience: float = _PATIENCE) -> None:
    """Wait until nothing waits to be sent."""
    async with asyncio.timeout(patience):
        while await asyncio.to_thread(lambda: fates(database).get("pending", 0)):
            await asyncio.sleep(0.2)


async def killed_and_stopped(place: Place) -> Figure:
    """Show 2 of the issue."""
    draw = random.Random(18)
    destination = Destination(random.Random(5))
    seconds = SECONDS * place.count
    with shared() as postgres, postgres.database() as database:
        async with sink(destination.answer) as receiving:
            relays = made(place.folder, database.url, TEXT.replace("URL", receiving.url))
            trial = Trial(place.folder, database, destination, relays, draw)
            senders = Senders(relays, random.Random(3))
            try:
                await asyncio.gather(*(relay.start() for relay in relays))
                async with asyncio.TaskGroup() as watching:
                    watch = watching.create_task(trial.watch())
                    async with senders.sending():
                        async with asyncio.TaskGroup() as group:
                            for at in range(len(relays)):
                                group.create_task(trial.trouble(at, LEASE + 4))
                            for _ in range(2):
                                await asyncio.sleep(seconds / 3)
                                await trial.crash()
                            await asyncio.sleep(seconds / 3)
                            trial.ended = True
                        # Once where nothing else happens: what it is sending is others' when it goes on.
                        await trial.stop(0, LEASE + 5)
                    ended = monotonic()
                    await settled(database)
                    quiet = monotonic() - ended
                    await asyncio.sleep(1)  # the last refusals are on their way to /health
                    watch.cancel()
                states = fates(database)
                bodies = database.sql("SELECT count(*), count(DISTINCT id) FROM event")
            finally:
                for relay in relays:
                    end(relay)
    return _figure(trial, senders, states, bodies[0][0], quiet)


def _figure(trial: Trial, senders: Senders, states: dict[str, int], events: int, quiet: float) -> Figure:
    destination = trial.destination
    lost = _lost(senders, destination)
    wrong, why = unexplained(destination.attempts, trial.moments)
    (trial.folder / "unexplained").write_text("\n".join(wrong))
    takeovers = sorted(trial.takeovers())
    kinds = Counter(moment.what for moment in trial.moments)
    stale = sum(trial.stale.values())
    several = _several_ids(destination.attempts)
    took = ", ".join(f"{each:.1f}" for each, _ in takeovers) or "none"
    latest = max((late for _, late in takeovers), default=0.0)
    text = (
        f"{len(senders.acknowledged):,} acknowledged ({dict(senders.answers)}), {len(lost):,} lost, {events:,} stored;"
        f" {dict(kinds)}, {len(trial.outages)} crashes of the database;"
        f" {len(destination.attempts):,} attempts, repeats by {dict(why)}, {len(wrong)} unexplained,"
        f" {several} events with several ids; takeover after {took} s,"
        f" {abs(latest):.1f} s {'after' if latest > 0 else 'before'} somebody surely could at the latest;"
        f" {stale} stale results refused; quiet {quiet:.1f} s after the last event; {states}"
    )
    good = not lost and not wrong and not several and bool(takeovers) and latest <= SENT and stale > 0
    return Figure(text, good and set(states) == {"delivered"})


def _lost(senders: Senders, destination: Destination) -> list[tuple[int, str]]:
    delivered = {route: destination.delivered(f"/{route}") for route in ("plain", "flaky", "slow", "crowded")}
    return [
        (number, route)
        for number, routes in senders.routes.items()
        for route in routes
        if number not in delivered[route]
    ]


def _several_ids(attempts: Sequence[Attempt]) -> int:
    """Events of which one destination saw several deliveries."""
    ids: dict[tuple[str, int], set[str]] = defaultdict(set)
    for attempt in attempts:
        ids[attempt.path, number_of(attempt)].add(attempt.id)
    return sum(len(each) > 1 for each in ids.values())


OUTAGE = 15.0  # seconds: longer than a lease
BACK = 5.0  # seconds until all takes events again, after the database does


async def _asked(session: aiohttp.ClientSession, relay: RelayProcess) -> tuple[int, str]:
    """What a sender is answered, and how the relay says that it is."""
    async with session.post(f"{relay.public}/in/any", data=b'{"id": 0, "to": "nobody"}') as response:
        status = response.status
    async with session.get(f"{relay.admin}/health") as response:
        return status, json.loads(await response.read())["status"]


async def _all(relays: Sequence[RelayProcess], wanted: tuple[int, Sequence[str]]) -> float:
    """How long it took until all relays answered so. Raises TimeoutError."""
    began = monotonic()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session:
        async with asyncio.timeout(_PATIENCE):
            for relay in relays:
                while (found := await _asked(session, relay))[0] != wanted[0] or found[1] not in wanted[1]:
                    await asyncio.sleep(0.05)
    return monotonic() - began


async def database_lost(place: Place) -> Figure:
    """The database is away for longer than a lease, again and again; nobody restarts anything."""
    destination = Destination(random.Random(5))
    gone, back = list[float](), list[float]()
    with shared() as postgres, postgres.database() as database:
        async with sink(destination.answer) as receiving:
            relays = made(place.folder, database.url, TEXT.replace("URL", receiving.url))
            senders = Senders(relays, random.Random(3))
            try:
                await asyncio.gather(*(relay.start() for relay in relays))
                async with senders.sending():
                    for _ in range(place.count):
                        await asyncio.sleep(5)  # of load
                        await asyncio.to_thread(postgres.stop, immediate=True)
                        gone.append(await _all(relays, (503, ["failing"])))
                        await asyncio.sleep(OUTAGE - gone[-1])
                        await asyncio.to_thread(postgres.start)
                        back.append(await _all(relays, (200, ["ok", "degraded"])))
                    await asyncio.sleep(5)
                await settled(database)
                states = fates(database)
                alive = sum(relay.process is not None and relay.process.poll() is None for relay in relays)
            finally:
                for relay in relays:
                    end(relay)
    figure, good = _outcome(senders, destination, states, place)
    text = (
        f"away {len(gone)} times for {OUTAGE:g} s: 503 and 'failing' from all within {max(gone):.1f} s, 200 from all"
        f" {max(back):.1f} s after its return, {alive} of 3 never restarted; {figure}"
    )
    return Figure(text, good and max(back) <= BACK and alive == len(relays) and senders.answers[503] > 0)


async def failed_over(place: Place) -> Figure:
    """The primary dies, and a synchronous replica is promoted in its place."""
    destination = Destination(random.Random(5))
    with shared() as postgres, postgres.database() as database:
        replica = postgres.replica(synchronous=True)
        async with sink(destination.answer) as receiving:
            url = postgres.url(database.name, replica)
            relays = made(place.folder, url, TEXT.replace("URL", receiving.url))
            senders = Senders(relays, random.Random(3))
            try:
                await asyncio.gather(*(relay.start() for relay in relays))
                async with senders.sending():
                    await asyncio.sleep(5)  # of load
                    await asyncio.to_thread(postgres.stop, immediate=True)
                    await _all(relays, (503, ["failing"]))
                    await asyncio.to_thread(replica.promote)
                    replica.psql("ALTER SYSTEM RESET synchronous_standby_names")
                    replica.psql("SELECT pg_reload_conf()")
                    back = await _all(relays, (200, ["ok", "degraded"]))
                    await asyncio.sleep(5)
                promoted = Database(replica, database.name)
                await settled(promoted)
                states = fates(promoted)
            finally:
                for relay in relays:
                    end(relay)
        figure, good = _outcome(senders, destination, states, place)
    return Figure(f"200 from all {back:.1f} s after the replica was promoted; {figure}", good and back <= BACK)


async def restarted(place: Place) -> Figure:
    """One relay after another is restarted, as for an upgrade; who sends is told which one is away."""
    destination = Destination(random.Random(5))
    with shared() as postgres, postgres.database() as database:
        async with sink(destination.answer) as receiving:
            relays = made(place.folder, database.url, TEXT.replace("URL", receiving.url))
            senders = Senders(relays, random.Random(3), slow_every=0)
            statuses = list[int]()
            try:
                await asyncio.gather(*(relay.start() for relay in relays))
                async with senders.sending():
                    for _ in range(2 * place.count):
                        for relay in relays:
                            await asyncio.sleep(1)  # of load
                            senders.away = {relay.public}
                            statuses.append(await relay.stop())
                            await relay.start()
                            senders.away = set()
                await settled(database)
                states = fates(database)
            finally:
                for relay in relays:
                    end(relay)
    figure, good = _outcome(senders, destination, states, place)
    refused = f"{len(senders.refused)} refused by those that were up"
    text = f"{len(statuses)} restarts, {Counter(statuses)[0]} ended with 0; {refused}; {figure}"
    return Figure(text, good and not any(statuses) and not senders.refused)


def _outcome(senders: Senders, destination: Destination, states: dict[str, int], place: Place) -> tuple[str, bool]:
    """What became of what was acknowledged, where no relay was killed or stopped."""
    lost = _lost(senders, destination)
    wrong, _ = unexplained(destination.attempts, [])
    (place.folder / "unexplained").write_text("\n".join(wrong))
    several = _several_ids(destination.attempts)
    text = (
        f"{len(senders.acknowledged):,} acknowledged ({dict(senders.answers)}), {len(lost):,} lost, {len(wrong)} sent"
        f" twice, {several} events with several ids; {states}"
    )
    return text, not lost and not wrong and not several and set(states) == {"delivered"}
