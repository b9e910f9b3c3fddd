"""What relays carry on one PostgreSQL, beside relay on SQLite in the same run: one process, and two that share it.

The server is a private one with its own settings but for `shared_buffers`, and `fsync` on. What it costs is counted by
the kernel (CPU, memory), by PostgreSQL itself (statements, WAL, syncs) and, for round trips, by strace in a round of
its own: each write to the server's socket is one, for relay waits for the answer before it writes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import which
from statistics import median

from bench.clocked import Arrivals, clocked
from bench.latency import Times, paced
from bench.latency import row as latency_row
from bench.place import Goal, Place, Row, Skipped, Table, in_turns
from bench.process import cpu_seconds, needs, relay, rss_mib
from bench.senders import CONNECTIONS, Posted, post
from bench.sink import Sink, nginx
from bench.throughput import SOURCES, route, syncs
from tests.harness import RelayProcess
from tests.postgres import Cluster, Database, cluster, missing

BUFFERS = "512MB"
SQLITE, ONE, TWO = "d: relay on SQLite", "d1: one relay on PostgreSQL", "d2: two relays on PostgreSQL"
_NUMBER = {SQLITE: 1, ONE: 1, TWO: 2}
_WARM = 2.0
_TRACED = 3.0
_SETTLED = 3.0
"""Seconds after which a backend that goes on writing now and then has told what it has counted: it does once a
second, and relay writes something every two."""
_HOTTEST = 12
_COMMITS = re.compile(r"^relay_store_commit_seconds_count (\S+)", re.MULTILINE)
_STATEMENTS = """
    SELECT regexp_replace(s.query, '\\s+', ' ', 'g'), s.calls, s.total_exec_time * 1000, s.wal_bytes::bigint
    FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = '{name}'
"""
_SIZES = """
    SELECT c.relname, pg_relation_size(c.oid) + coalesce(pg_relation_size(c.reltoastrelid), 0), pg_indexes_size(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'relay' AND c.relkind = 'r'
"""

Running = Sequence[tuple[RelayProcess, int]]
"""Relays that share one store."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a server has counted so far, for one database where it tells them apart."""

    statements: Mapping[str, tuple[int, float, int]]
    """Of each: how often, microseconds, bytes of WAL."""
    syncs: int
    wal: int
    pages: int
    """Full images of pages in the WAL."""

    @property
    def calls(self) -> int:
        return sum(calls for calls, _, _ in self.statements.values())


class Server:
    """The cluster, looked at from outside."""

    def __init__(self, made: Cluster) -> None:
        self._made = made
        self._pid = int((made.data / "postmaster.pid").read_text().split()[0])
        self.counts = bool(made.psql("SELECT 1 FROM pg_extension WHERE extname = 'pg_stat_statements'"))

    def counted(self, database: Database) -> Counted:
        found = self._made.psql(_STATEMENTS.format(name=database.name)) if self.counts else []
        statements: dict[str, tuple[int, float, int]] = {}
        for query, *figures in found:
            known = statements.get(query, (0, 0.0, 0))
            calls, us, wal = (have + more for have, more in zip(known, figures, strict=True))
            statements[query] = (calls, us, wal)
        [(wal_syncs, pages, wal)] = self._made.psql(
            "SELECT wal_sync, wal_fpi, (pg_current_wal_insert_lsn() - '0/0')::bigint FROM pg_stat_wal"
        )
        return Counted(statements, wal_syncs, int(wal), pages)

    def cpu_seconds(self) -> float:
        """Of all its processes, also of those that have ended."""
        fields = _stat(self._pid)
        ended = (int(fields[13]) + int(fields[14])) / 100
        return ended + cpu_seconds(self._pid) + sum(map(cpu_seconds, self._children()))

    def pss_mib(self) -> float:
        """Memory, with what its processes share counted once."""
        found = 0
        for pid in (self._pid, *self._children()):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                found += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
        return found / 1024

    def _children(self) -> list[int]:
        found = []
        for each in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if int(_stat(int(each.name))[1]) == self._pid:
                    found.append(int(each.name))
        return found


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@contextlib.asynccontextmanager
async def server() -> AsyncIterator[tuple[Cluster, Server]]:
    """A PostgreSQL of its own, which counts its statements where it can."""
    reason = missing()
    if reason is not None:
        raise Skipped(reason)
    with cluster(fsync=True, settings={"shared_buffers": BUFFERS, "max_wal_size": "1GB"}) as made:
        if made.psql("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_stat_statements'"):
            made.psql("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
            made.restart()
            made.psql("CREATE EXTENSION pg_stat_statements")
        yield made, Server(made)


@dataclass(frozen=True, slots=True)
class Round:
    """One load on all relays of a store."""

    events: int
    per_s: float
    relay_us: float
    server_us: float | None
    rss: float
    pss: float | None
    commits: float
    """Of the writers, per event."""
    before: Counted | None
    after: Counted | None

    def each(self, what: Callable[[Counted], float]) -> float | None:
        """How much of something for each event."""
        if self.before is None or self.after is None:
            return None
        return (what(self.after) - what(self.before)) / self.events


async def posted_to(relays: Running, folder: Path, seconds: float) -> list[Posted]:
    """The senders' connections, split between the relays."""
    loads = []
    for number, (made, _) in enumerate(relays):
        own = folder / f"senders-{number}"
        own.mkdir(exist_ok=True)
        loads.append(post(f"{made.public}/in/blog", seconds, own, connections=CONNECTIONS // len(relays)))
    return await asyncio.gather(*loads)


async def carried(
    relays: Running, folder: Path, sink: Sink, seconds: float, by: Server | None = None, on: Database | None = None
) -> Round:
    """A round, of which the sink has received all."""
    before = by.counted(on) if by is not None and on is not None else None
    commits = sum(map(_commits, relays))
    arrived, relay_s = sink.received(), sum(cpu_seconds(pid) for _, pid in relays)
    server_s = by.cpu_seconds() if by is not None else 0.0
    posted = await posted_to(relays, folder, seconds)
    wanted = sum(each.count for each in posted)
    total, last = await sink.wait_for(arrived + wanted)
    count = total - arrived
    if count < wanted:
        raise RuntimeError(f"of {wanted} only {count} arrived")
    relay_s = sum(cpu_seconds(pid) for _, pid in relays) - relay_s
    server_s = by.cpu_seconds() - server_s if by is not None else 0.0
    commits = sum(map(_commits, relays)) - commits
    after = None
    if by is not None and on is not None:
        await asyncio.sleep(_SETTLED)
        after = by.counted(on)
    return Round(
        count,
        count / (last - min(each.began for each in posted)),
        relay_s / count * 1e6,
        server_s / count * 1e6 if by is not None else None,
        sum(rss_mib(pid) for _, pid in relays),
        by.pss_mib() if by is not None else None,
        commits / count,
        before,
        after,
    )


def _commits(each: tuple[RelayProcess, int]) -> float:
    with urllib.request.urlopen(f"{each[0].admin}/metrics", timeout=10) as answer:
        found = _COMMITS.search(answer.read().decode())
    return float(found[1]) if found else 0.0


@contextlib.asynccontextmanager
async def all_of_them(
    place: Place, name: str, url: str, databases: Mapping[str, Database]
) -> AsyncIterator[dict[str, Running]]:
    """The relays of each part, all sending to one URL."""
    config = SOURCES + "routes:\n" + route("r", url)
    async with contextlib.AsyncExitStack() as stack:
        found: dict[str, Running] = {}
        for part, number in _NUMBER.items():
            on = databases.get(part)
            store = f"store: {{url: '{on.url}'}}\n" if on is not None else ""
            found[part] = [
                await stack.enter_async_context(relay(place.sub(f"{name}-{part[:2]}-{each}"), store + config))
                for each in range(number)
            ]
        yield found


async def shared(place: Place) -> Table:
    """The comparison."""
    needs("wrk")
    async with server() as (made, by), contextlib.AsyncExitStack() as stack:
        databases = {part: stack.enter_context(made.database()) for part in (ONE, TWO)}
        sink = await stack.enter_async_context(nginx(place.folder))
        async with all_of_them(place, "load", sink.url, databases) as relays:
            parts = {
                part: partial(
                    carried,
                    relays[part],
                    place.folder,
                    sink,
                    by=by if part in databases else None,
                    on=databases.get(part),
                )
                for part in _NUMBER
            }
            for warm in parts.values():
                await warm(min(_WARM, place.seconds))
            found = await in_turns(place.rounds, {name: partial(part, place.seconds) for name, part in parts.items()})
        trips = await _round_trips(place, made, by)
        rate = min(median(each.per_s for each in rounds) for rounds in found.values()) / 2
        arrivals = await stack.enter_async_context(clocked(place.folder))
        async with all_of_them(place, "paced", arrivals.url, databases) as relays:
            times = await in_turns(
                place.rounds,
                {part: partial(_paced, relays[part], rate, place, arrivals) for part in _NUMBER},
            )
        table = Table("On one PostgreSQL")
        table.rows = [_row(part, rounds, times[part], trips) for part, rounds in found.items()]
        syncs_here = (await syncs(place, "d")).get("d")
        table.rows[0]["fsyncs per event"] = syncs_here
        _judge(table, found, rate, trips, place)
        table.notes += _statements(found[ONE]) + _sizes(databases[ONE])
    return table


def _row(part: str, rounds: Sequence[Round], times: Sequence[Times], trips: float | None) -> Row:
    """Medians, of the figures per event also."""

    def of(what: Callable[[Round], float | None]) -> float | None:
        figures = [figure for each in rounds if (figure := what(each)) is not None]
        return median(figures) if figures else None

    number = _NUMBER[part]
    per_s = median(each.per_s for each in rounds)
    commits = median(each.commits for each in rounds)
    paces = latency_row(part, 0, times)
    return {
        "what": part,
        "events/s": per_s,
        "lowest": min(each.per_s for each in rounds),
        "highest": max(each.per_s for each in rounds),
        "events/s each": per_s / number,
        "CPU us per event: relay": of(lambda each: each.relay_us),
        "PostgreSQL": of(lambda each: each.server_us),
        "RSS MiB: relay": max(each.rss for each in rounds) / number,
        "PSS MiB: PostgreSQL": max((each.pss for each in rounds if each.pss is not None), default=None),
        "post to sink p50 ms": paces["post to sink p50 ms"],
        "p99 ms": paces["post to sink p99 ms"],
        "fsyncs per event": of(lambda each: each.each(lambda counted: counted.syncs)),
        "transactions": commits,
        "statements": of(lambda each: each.each(lambda counted: counted.calls) or None),
        "round trips": None if trips is None or part == SQLITE else trips * commits,
        "WAL bytes per event": of(lambda each: each.each(lambda counted: counted.wal)),
    }


def _judge(table: Table, found: Mapping[str, Sequence[Round]], rate: float, trips: float | None, place: Place) -> None:
    per_s = {part: median(each.per_s for each in rounds) for part, rounds in found.items()}
    for part in (ONE, TWO):
        line = next(each for each in table.rows if each["what"] == part)
        for what in ("statements", "round trips"):
            value = line[what]
            if isinstance(value, (int, float)):
                table.goals.append(Goal(f"{what} per event, {part[:2]}", value, 2.0, at_least=False))
    table.notes += [
        f"d1/d {per_s[ONE] / per_s[SQLITE]:.2f}, d2/d1 {per_s[TWO] / per_s[ONE]:.2f}, d2/d"
        f" {per_s[TWO] / per_s[SQLITE]:.2f}; medians of {place.rounds} alternating rounds of {place.seconds:g} s; wrk"
        f" with {CONNECTIONS} connections, split between two relays; latency at {rate:,.0f} events/s in all.",
        f"PostgreSQL as it is installed, but for shared_buffers = {BUFFERS}: fsync, full_page_writes and"
        " synchronous_commit are on.",
        "Senders, sink, PostgreSQL and relays share the processors of this machine: where these are busy with one"
        " relay, two carry no more. What more processors would carry is reckoned from the CPU per event.",
    ]
    if trips is None:
        table.notes.append("Round trips are counted by strace, which is not installed, or may not trace.")
    else:
        table.notes.append(
            f"Round trips: writes to the server's socket, {trips:.1f} for each transaction of the writer in a traced"
            " round of its own, times its transactions per event."
        )


async def _paced(relays: Running, rate: float, place: Place, sink: Arrivals) -> Times:
    """A round at a pace, split between the relays."""
    found = await asyncio.gather(
        *(
            paced(f"{made.public}/in/blog", rate / len(relays), place.seconds, place.folder, sink.beside())
            for made, _ in relays
        )
    )
    return Times(
        [ms for times in found for ms in times.post_to_sink],
        [ms for times in found for ms in times.answer_to_sink],
        [ms for times in found for ms in times.post_to_answer],
    )


async def _round_trips(place: Place, made: Cluster, by: Server) -> float | None:
    """Writes to the server's socket for each transaction of the writer."""
    if which("strace") is None:
        return None
    folder = place.sub("trips")
    trace = folder / "trace"
    prefix = ["strace", "-D", "-f", "-yy", "--seccomp-bpf", "-e", "trace=sendto", "-e", "signal=none", "-o", str(trace)]
    sent = re.compile(rf"sendto\(\d+<TCP:\[[^\]]*->127\.0\.0\.1:{made.port}\]>")
    with made.database() as database:
        async with nginx(folder) as sink:
            config = f"store: {{url: '{database.url}'}}\n{SOURCES}routes:\n{route('r', sink.url)}"
            try:
                async with relay(folder, config, prefix) as one:
                    before, commits = len(sent.findall(trace.read_text())), _commits(one)
                    await carried([one], folder, sink, min(_TRACED, place.seconds))
                    commits = _commits(one) - commits
                    await asyncio.sleep(0.1)  # strace writes behind
                    return (len(sent.findall(trace.read_text())) - before) / commits
            except AssertionError:  # no right to trace
                return None


def _statements(rounds: Sequence[Round]) -> list[str]:
    """What one relay asked of the server, by the time that it took there."""
    totals: dict[str, list[float]] = {}
    events = pages = wal = 0
    for each in rounds:
        if each.before is None or each.after is None:
            continue
        events += each.events
        pages += each.after.pages - each.before.pages
        wal += each.after.wal - each.before.wal
        for query, figures in each.after.statements.items():
            known = each.before.statements.get(query, (0, 0.0, 0))
            total = totals.setdefault(query, [0, 0, 0])
            for place, (now, then) in enumerate(zip(figures, known, strict=True)):
                total[place] += now - then
    if not totals:
        return []
    said = [f"\nd1's statements: us, times and bytes of WAL per event ({pages / events:.3f} full pages):\n"]
    for query, (calls, us, bytes_) in sorted(totals.items(), key=lambda item: -item[1][1])[:_HOTTEST]:
        said.append(f"    {us / events:7.2f} {calls / events:7.3f} {bytes_ / events:7.0f}  {query.strip()[:90]}")
    return said


def _sizes(database: Database) -> list[str]:
    """What one relay's events take of the disk."""
    [(events,)] = database.sql("SELECT count(*) FROM relay.event")
    found = sorted(database.sql(_SIZES), key=lambda row: -row[1] - row[2])
    table, index = (sum(row[place] for row in found) / events for place in (1, 2))
    said = [f"\nd1's bytes on disk per event, after {events:,}: {table + index:,.0f}, of indexes {index:,.0f}:\n"]
    return said + [
        f"    {name:10} {rows / events:7.0f} {indexes / events:7.0f}" for name, rows, indexes in found if rows >= events
    ]
