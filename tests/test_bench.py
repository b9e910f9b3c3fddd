"""The bench runs, with tiny amounts: its figures are nobody's business here, that all of them are there is."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.idle import idle
from bench.place import Goal, Table, in_turns
from bench.senders import LARGE, TOKEN, post, strapi
from bench.sink import nginx
from bench.steps import step_of
from bench.throughput import SOURCES, route
from tests.harness import PATIENCE, sink, write_config
from tests.postgres import needed

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
needs_tools = pytest.mark.skipif(
    shutil.which("wrk") is None or shutil.which("nginx") is None, reason="needs wrk and nginx"
)


@needs_tools
def test_a_run_prints_a_table_and_writes_the_same_figures_as_json(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = ["--rounds", "1", "--seconds", "1", "--scale", "0.0001", "--only", "routes,pending"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *options, "--json", str(file), "--directory", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text())
    assert {"routes", "pending"} == set(figures["benches"])
    one, many, matching = figures["benches"]["routes"]
    assert min(row["deliveries/s"] for row in (one, many, matching)) > 0
    assert {"date", "commit", "cpu", "fdatasync us"} <= set(figures)
    assert f"| {many['what']}" in done.stdout
    assert len(figures["goals"]) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"], "it leaves nothing behind"


@needs_tools
@pytest.mark.soak  # twenty seconds
def test_many_sources_idle_connections_and_large_bodies_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = ["--rounds", "1", "--seconds", "1", "--only", "breadth"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *options, "--json", str(file), "--directory", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    one, many, beside, forwarder, relay = json.loads(file.read_text())["benches"]["breadth"]
    assert min(row["events/s"] for row in (one, many, beside)) > 0
    assert 0 < beside["MiB per 1,000 idle"] < 100
    assert min(row[key] for row in (forwarder, relay) for key in ("MiB/s", "CPU ms per event", "highest RSS MiB")) > 0
    assert [goal["wanted"] for goal in json.loads(file.read_text())["goals"]] == [0.9, 0.9, 256]


@needs_tools
@pytest.mark.soak  # forty seconds, most of them for starting a server and four relays
def test_relays_on_one_postgresql_are_measured_beside_one_on_sqlite(tmp_path: Path) -> None:
    needed()
    file = tmp_path / "figures.json"
    options = ["--store", "postgresql", "--rounds", "1", "--seconds", "1", "--scale", "0.0001"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *options, "--json", str(file), "--directory", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text())
    sqlite, one, two = figures["benches"]["postgresql"]
    for row in (sqlite, one, two):
        figured = ("events/s", "CPU us per event: relay", "RSS MiB: relay", "post to sink p50 ms", "transactions")
        assert min(row[key] for key in figured) > 0
    for row in (one, two):
        assert min(row[key] for key in ("PostgreSQL", "fsyncs per event", "WAL bytes per event")) > 0
    assert two["events/s each"] * 2 == pytest.approx(two["events/s"])
    assert sqlite["PostgreSQL"] is None
    assert "d1's bytes on disk per event" in done.stdout


@needs_tools
@pytest.mark.parametrize("kind", ["strapi", "large"])
async def test_events_go_to_each_source_with_its_token_and_none_is_sent_twice(tmp_path: Path, kind: str) -> None:
    tokens = {f"/in/blog{n}": f"token-{n}" for n in range(7)}
    async with sink() as seen:
        posted = await post(seen.url, 1, tmp_path, kind, 2, tokens)
    received = seen.received[: posted.count]
    assert {(each.path, each.headers["Authorization"]) for each in received} == {
        (path, f"Bearer {token}") for path, token in tokens.items()
    }
    assert len({each.body for each in received}) == len(received) > len(tokens)
    for each in received[:20]:
        assert json.loads(each.body)["entry"]["locale"] == "en"
        assert kind != "large" or LARGE - 50 < len(each.body) <= LARGE


@needs_tools
async def test_a_small_body_is_what_a_sender_without_wrk_makes(tmp_path: Path) -> None:
    async with sink() as seen:
        await post(f"{seen.url}/in/blog", 1, tmp_path, connections=1)
    first = seen.received[0]
    assert first.body == strapi(json.loads(first.body)["entry"]["id"])
    assert first.headers["Authorization"] == f"Bearer {TOKEN}"
    assert first.path == "/in/blog"


@needs_tools
async def test_a_body_that_is_still_on_its_way_is_not_counted(tmp_path: Path) -> None:
    async with nginx(tmp_path, whole=True) as counted:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(counted.url).port)
        writer.write(b"POST /whole HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"x" * 199_999)
        await writer.drain()
        assert counted.received() == 0
        writer.write(b"x")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        assert counted.received() == 1
        writer.close()


async def test_idle_connections_stay_and_those_that_are_closed_are_noticed() -> None:
    async with sink() as seen, idle(f"{seen.url}/in/blog") as connected:
        await connected.connect(100)
        assert await connected.post() == 100
        assert await connected.post() == 100
        assert len({each.body for each in seen.received}) == 200
        assert connected.lost() == 0
        assert seen.server is not None
        transport = seen.server.connections[0].transport
        assert transport is not None
        transport.close()
        async with asyncio.timeout(PATIENCE):
            while connected.lost() != 1:
                await asyncio.sleep(0.001)


def test_too_few_descriptors_are_said_and_more_are_taken_where_they_may_be_had() -> None:
    limits = "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 500))"
    asked = "descriptors(400); print(resource.getrlimit(resource.RLIMIT_NOFILE)); descriptors(501)"
    done = subprocess.run(
        [sys.executable, "-c", f"import resource; from bench.process import descriptors; {limits}; {asked}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "(400, 500)\n"
    assert "Skipped: needs 501 file descriptors, and 500 may be had (ulimit -Hn)" in done.stderr


async def test_relay_in_one_process_takes_in_and_sends_on_all_that_its_simulated_senders_post(tmp_path: Path) -> None:
    async with sink() as seen:
        config = write_config(tmp_path, SOURCES + "routes:\n" + route("r", f"{seen.url}/hook"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.inside", str(config), "70", "1"),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err
    assert min(json.loads(out).values()) > 0
    assert sorted(each.body for each in seen.received) == sorted(strapi(number) for number in range(140))


def test_a_goal_that_is_missed_says_so() -> None:
    assert str(Goal("d/b", 0.5, 0.75)) == "MISSED d/b: 0.5, wanted at least 0.75"
    assert str(Goal("ready", 0.5, 2, at_least=False)).startswith("met ")


def test_a_table_is_one_of_markdown_too() -> None:
    text = Table("T", [{"what": "a", "figure": 12345.6}, {"what": "bb", "figure": None}]).text()
    assert text.splitlines()[2:] == ["| what | figure |", "|------|-------:|", "| a    | 12,346 |", "| bb   |        |"]


async def test_parts_are_measured_by_turns_each_second_round_the_other_way_about() -> None:
    order: list[str] = []

    def part(name: str) -> Callable[[], Awaitable[int]]:
        async def measure() -> int:
            order.append(name)
            return len(order)

        return measure

    found = await in_turns(2, {name: part(name) for name in "ab"})
    assert order == ["a", "b", "b", "a"]
    assert found == {"a": [1, 4], "b": [2, 3]}


def test_a_sample_counts_for_the_innermost_step() -> None:
    handle = "Ingest.handle (/x/relay/web/ingest.py:71)"
    accept = "Pipeline.accept (/x/relay/pipeline.py:91)"
    assert step_of([handle]) == "read"
    assert step_of([handle, accept, "SignedBody.verify (/x/relay/proof.py:9)", "digest (hmac.py:198)"]) == "verify"
    assert step_of(["Runner.run (asyncio/runners.py:118)"]) == "other"
