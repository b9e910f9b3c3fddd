"""The daemon as a real process: killed, reloaded, drained, started twice."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from relay import startup
from relay.delivery import HeldReason
from relay.store import Settled
from relay.stores.sqlite import SqliteStore
from relay.web.swift import Answer
from tests.cli.running import free_ports
from tests.harness import PATIENCE, Received, RelayProcess, relay_here, relay_process, sink, write_config

pytestmark = pytest.mark.long

ANY = "sources: {any: {type: generic, verify: none, map: {entry_id: body.id}}}\n"


def route(url: str, more: str = "") -> str:
    return f"{ANY}routes: [{{name: r, to: {{url: {url}}}{more}}}]\n"


async def post(session: aiohttp.ClientSession, url: str, number: int) -> int:
    async with session.post(f"{url}/in/any", data=b'{"id":%d}' % number) as response:
        await response.read()
        return response.status


async def ask(url: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return json.loads(await response.read())


async def test_a_delivery_survives_kill_9_between_its_attempts(tmp_path: Path) -> None:
    async with sink(lambda request: 503 if request.n <= 3 else 200) as destination:
        slow = ", retry: {policy: fixed, every: 150ms, attempts: 10, jitter: 0}"
        async with relay_process(tmp_path, route(destination.url, slow)) as relay, aiohttp.ClientSession() as session:
            assert await post(session, relay.public, 1) == 200
            await destination.wait_count(2)
            relay.kill()
            await relay.start()
            received = await destination.wait_for(lambda seen: len(seen) >= 4)
            async with asyncio.timeout(PATIENCE):
                while (items := (await ask(relay.admin + "/logs"))["items"])[0]["status"] != "delivered":
                    await asyncio.sleep(0.01)
            detail = await ask(f"{relay.admin}/logs/{items[0]['id']}")
            assert {request.id for request in received} == {items[0]["id"]}
            statuses = [attempt["response"]["status"] for attempt in detail["attempts"]]
            assert statuses[-1] == 200
            assert set(statuses[:-1]) == {503}
            assert [attempt["n"] for attempt in detail["attempts"]] == list(range(1, len(statuses) + 1))
            # The kill may have fallen between an answer and its record: then that attempt was made again.
            assert 4 <= len(received) <= len(statuses) + 1


async def test_fifty_kills_lose_nothing_that_was_answered_200(tmp_path: Path) -> None:
    cycles, concurrency = 50, 8
    acknowledged: set[int] = set()
    numbers = iter(range(1_000_000))
    draw = random.Random(7)

    async def load(session: aiohttp.ClientSession, url: str) -> None:
        while True:
            number = next(numbers)
            try:
                if await post(session, url, number) == 200:
                    acknowledged.add(number)
            except aiohttp.ClientError:
                return

    repeats_allowed = 0
    async with sink() as destination:
        text = route(destination.url, f", concurrency: {concurrency}")
        async with relay_process(tmp_path, text) as relay:
            for cycle in range(cycles):
                if cycle:
                    await relay.start()
                async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
                    for _ in range(8):
                        group.create_task(load(session, relay.public))
                    await asyncio.sleep(draw.uniform(0.02, 0.2))  # the moment of the kill is the test's random input
                    relay.kill()
                repeats_allowed += concurrency
            await relay.start()
            received = await destination.wait_for(
                lambda seen: acknowledged <= {json.loads(request.body)["id"] for request in seen}
            )
            assert len(acknowledged) > cycles
            ids = Counter(request.id for request in received)
            entries = {request.id: json.loads(request.body)["id"] for request in received}
            assert len(entries) == len(set(entries.values())), "one webhook-id for each event, over all restarts"
            assert sum(ids.values()) - len(ids) <= repeats_allowed
            assert max(ids.values()) <= 1 + cycles


async def test_reloads_under_load_valid_and_broken_in_turn_cost_no_answer(tmp_path: Path) -> None:
    statuses: Counter[int] = Counter()
    done = asyncio.Event()
    sent = 0
    async with sink() as destination:
        good = route(destination.url)
        async with relay_process(tmp_path, good) as relay, aiohttp.ClientSession() as session:
            path = relay.config
            valid = path.read_text()
            broken = valid.replace("routes:", "rowtes:")

            async def load() -> None:
                nonlocal sent
                while not done.is_set():
                    sent += 1
                    statuses[await post(session, relay.public, sent)] += 1
                    await asyncio.sleep(0.01)  # 100 events a second: the load, not a wait

            async with asyncio.TaskGroup() as group:
                group.create_task(load())
                generation = 1
                for turn in range(50):
                    temporary = path.with_suffix(".new")
                    temporary.write_text(broken if turn % 2 else valid + f"# {turn}\n")
                    temporary.replace(path)
                    at = (await ask(relay.admin + "/health"))["config"]["last_reload"]["at"]
                    relay.hup()
                    async with asyncio.timeout(PATIENCE):
                        while (config := (await ask(relay.admin + "/health"))["config"])["last_reload"]["at"] == at:
                            await asyncio.sleep(0.005)
                    generation += 1 - turn % 2
                    assert config["generation"] == generation
                    assert config["last_reload"]["ok"] is (turn % 2 == 0)
                    if turn % 2:
                        line = valid[: valid.index("routes:")].count("\n") + 1
                        expected = f"{path}:{line}:1: rowtes: unknown key (did you mean 'routes'?)"
                        assert config["last_reload"]["error"] == expected
                        assert (await ask(relay.admin + "/health"))["status"] == "degraded"
                done.set()
            assert statuses == {200: sent}
            received = await destination.wait_for(lambda seen: len({request.id for request in seen}) >= sent)
            assert len(received) == sent
        check = subprocess.run(
            [sys.executable, "-m", "relay", "check", "--config", str(path)], capture_output=True, text=True, check=False
        )
        assert check.returncode == 78
        assert check.stderr.startswith(f"{path}:{line}:1: rowtes: unknown key")


async def test_sigterm_lets_attempts_in_flight_finish_and_exits_0(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def answer(request: Received) -> int:
        await release.wait()
        return 200

    async with sink(answer) as destination:
        async with relay_process(tmp_path, route(destination.url)) as relay, aiohttp.ClientSession() as session:
            await post(session, relay.public, 1)
            await destination.wait_count(1)
            assert relay.process is not None
            relay.process.terminate()
            async with asyncio.timeout(PATIENCE):
                while not any(line.get("event") == "stopping" for line in relay.lines()):
                    await asyncio.sleep(0.01)
            release.set()
            assert await asyncio.to_thread(relay.process.wait, PATIENCE) == 0
            await relay.start()
            [item] = (await ask(relay.admin + "/logs"))["items"]
            assert (item["status"], item["attempts"]) == ("delivered", 1)
        assert len(destination.received) == 1


async def test_who_is_connected_when_relay_is_told_to_end_is_served_and_told_that_it_is_for_the_last_time(
    tmp_path: Path,
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"{}"

    async with relay_here(tmp_path, ANY) as relay, aiohttp.ClientSession() as plain, aiohttp.ClientSession() as chunked:
        assert relay.running is not None
        to = f"{relay.public}/in/any"
        for session in (plain, chunked):
            async with session.post(to, data=b"{}") as answer:
                assert (answer.status, answer.headers.get("Connection")) == (200, None)
        async with asyncio.TaskGroup() as group:
            group.create_task(relay.running.wind_down())
            await asyncio.sleep(0)  # it has begun
            for session, body in ((plain, b'{"n": 1}'), (chunked, chunks())):  # on the same connections
                async with session.post(to, data=body) as answer:
                    assert (answer.status, answer.headers.get("Connection")) == (200, "close")
            for session in (plain, chunked):
                with pytest.raises(aiohttp.ClientConnectorError):
                    await session.post(to, data=b"{}")


POST = b"POST /in/any HTTP/1.1\r\nHost: relay\r\nContent-Length: 2\r\n\r\n"


async def posted(public: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which an event was posted and answered, and nothing since."""
    address = urlsplit(public)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(POST + b"{}")
    assert (await reader.readuntil(b"false}")).startswith(b"HTTP/1.1 200 ")
    return reader, writer


@pytest.mark.parametrize(
    "between", [b"", b"GET /health HTTP/1.1\r\nHost: relay\r\n\r\n"], ids=["of one kind", "of two"]
)
async def test_requests_in_a_row_are_all_answered_when_relay_is_told_to_end(tmp_path: Path, between: bytes) -> None:
    async with relay_here(tmp_path, ANY) as relay:
        assert relay.running is not None
        reader, writer = await posted(relay.public)
        async with asyncio.TaskGroup() as group:
            group.create_task(relay.running.wind_down())
            await asyncio.sleep(0)  # it has begun
            writer.write(POST + b"{}" + between + POST + b"[]" + POST + b"{}")
            async with asyncio.timeout(PATIENCE):
                answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]
        assert {each[:3] for each in answers} == {b"200"}
        last = [b"Connection: close" in each for each in answers]
        assert last == ([False, False, False, True] if between else [False, False, True])
        writer.close()


async def test_a_body_that_is_still_coming_when_relay_is_told_to_end_is_taken_in(tmp_path: Path) -> None:
    async with relay_here(tmp_path, ANY) as relay:
        assert relay.running is not None
        address = urlsplit(relay.public)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(POST + b"{")
        async with asyncio.timeout(PATIENCE):
            while not any(not each.idle for each in relay.running.public._handler.open):
                await asyncio.sleep(0)
        await relay.running.wind_down()
        async with asyncio.TaskGroup() as group:
            group.create_task(relay.running.public.close(PATIENCE))
            await asyncio.sleep(0)  # it has begun
            writer.write(b"}")
            async with asyncio.timeout(PATIENCE):
                answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close" in answer
        writer.close()


def answers() -> dict[int, object]:
    """Those to requests that are in memory, by their addresses."""
    gc.collect()
    found = [each for each in gc.get_objects() if isinstance(each, Answer)]
    return {id(each): each for each in (*found, *(each for each in gc.get_objects() if full(each)))}


def full(value: object) -> bool:
    return isinstance(value, web.Response) and value.body is not None


async def test_idle_connections_keep_none_of_their_answers(tmp_path: Path) -> None:
    """Of thousands of them, each would keep some KiB; on the admin side whatever somebody had asked for."""
    async with relay_here(tmp_path, ANY) as relay, aiohttp.ClientSession() as plain, aiohttp.ClientSession() as session:
        before = answers().keys()
        async with plain.post(f"{relay.public}/in/any", data=b"{}") as answer:
            assert answer.status == 200
        for url in (f"{relay.public}/health", f"{relay.admin}/logs", f"{relay.admin}/health"):
            async with session.get(url) as answer:
                await answer.read()
        assert answers().keys() <= before


async def test_an_idle_connection_is_closed_when_relay_is_told_to_end(tmp_path: Path) -> None:
    async with relay_here(tmp_path, ANY) as relay:
        assert relay.running is not None
        reader, writer = await posted(relay.public)
        await relay.running.wind_down()
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()


async def test_a_relay_that_stops_refuses_who_connects_and_a_second_sigterm_ends_it_at_once(tmp_path: Path) -> None:
    async def answer(request: Received) -> int:
        if request.n == 1:
            await asyncio.Event().wait()  # the drain would wait for this for 20 s
        return 200

    async with sink(answer) as destination:
        async with relay_process(tmp_path, route(destination.url)) as relay:
            async with aiohttp.ClientSession() as session:
                await post(session, relay.public, 1)
                await destination.wait_count(1)
            assert relay.process is not None
            relay.process.terminate()
            address = urlsplit(relay.public)
            async with asyncio.timeout(PATIENCE):
                with contextlib.suppress(ConnectionRefusedError):
                    while True:
                        with contextlib.suppress(ConnectionResetError):  # it was in the queue of the socket that closes
                            _, writer = await asyncio.open_connection(address.hostname, address.port)
                            writer.close()
            assert relay.process.poll() is None
            relay.process.terminate()
            assert await asyncio.to_thread(relay.process.wait, 5) == -signal.SIGTERM
            await relay.start()
            first, again = await destination.wait_count(2)
            assert first.id == again.id


async def test_a_second_relay_on_the_same_file_exits_1_and_names_the_first(tmp_path: Path) -> None:
    async with relay_process(tmp_path, ANY) as relay:
        assert relay.process is not None
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "relay", "serve", "--config", str(relay.config), stderr=subprocess.PIPE
        )
        _, stderr = await asyncio.wait_for(second.communicate(), 10 + PATIENCE)
        assert second.returncode == 1
        assert str(relay.process.pid) in stderr.decode()
        assert (await ask(relay.admin + "/health"))["status"] == "ok"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The store is another relay's."""
    with (folder / "relay.db.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.asynccontextmanager
async def starting(folder: Path) -> AsyncIterator[RelayProcess]:
    """A relay process that nobody has waited for."""
    relay = RelayProcess(write_config(folder, ANY))
    relay.launch()
    assert relay.process is not None
    try:
        yield relay
    finally:
        relay.kill()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_relay_that_is_told_to_end_waits_for_no_store(tmp_path: Path, signum: signal.Signals) -> None:
    with locked(tmp_path):
        async with starting(tmp_path) as relay:
            await relay.said("store_locked")
            assert relay.process is not None
            relay.process.send_signal(signum)
            assert await asyncio.to_thread(relay.process.wait, 5) == 0  # it would wait for 10 s
            said = [(line["event"], line.get("signal")) for line in relay.lines()]
            assert said == [("store_locked", None), ("stopping", signum.name), ("stopped", None)]


@contextlib.contextmanager
def busy(folder: Path) -> Iterator[None]:
    """The store's file is there, and nobody else can write to it now."""
    with contextlib.closing(sqlite3.connect(folder / "relay.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def opening(relay: RelayProcess) -> None:
    """Wait until it has locked its store, which it then opens."""
    assert relay.process is not None
    lock = relay.config.with_name("relay.db.lock")
    async with asyncio.timeout(PATIENCE):
        while not (lock.exists() and lock.read_text().startswith(f"{relay.process.pid}\n")):
            await asyncio.sleep(0.005)


async def test_a_relay_that_is_told_to_end_while_it_opens_its_store_ends_when_it_has_with_the_lock_until_then(
    tmp_path: Path,
) -> None:
    async with relay_process(tmp_path, ANY) as first:
        assert await first.stop() == 0
    with contextlib.ExitStack() as held:
        held.enter_context(busy(tmp_path))
        async with starting(tmp_path) as relay:
            await opening(relay)
            assert relay.process is not None
            relay.process.terminate()
            await relay.said("stopping")
            with (tmp_path / "relay.db.lock").open() as lock, pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.close()
            assert await asyncio.to_thread(relay.process.wait, PATIENCE) == 0
            assert [line["event"] for line in relay.lines(relay.offset)] == ["stopping", "stopped"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_a_relay_that_opens_its_store_at_once(
    tmp_path: Path, signum: signal.Signals
) -> None:
    async with relay_process(tmp_path, ANY) as first:
        assert await first.stop() == 0
    with busy(tmp_path):
        async with starting(tmp_path) as relay:
            await opening(relay)
            assert relay.process is not None
            relay.process.terminate()
            await relay.said("stopping")
            relay.process.send_signal(signum)
            assert await asyncio.to_thread(relay.process.wait, PATIENCE) == -signum


async def test_a_reload_that_is_asked_for_during_the_start_comes_after_it(tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        held.enter_context(locked(tmp_path))
        async with starting(tmp_path) as relay:
            await relay.said("store_locked")
            relay.hup()
            relay.hup()
            held.close()
            assert (await relay.said("config_loaded"))["generation"] == 2
            assert await relay.stop() == 0
            events = [line["event"] for line in relay.lines()]
            assert events.count("config_loaded") == 1
            assert events.index("started") < events.index("config_loaded")


def serve(config: Path, *prefix: str) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-m", "relay", "serve", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_a_foreign_file_is_refused_with_78_and_left_as_it_was(tmp_path: Path) -> None:
    config = write_config(tmp_path, ANY)
    (tmp_path / "relay.db").write_bytes(b"These are my holiday photos. " * 400)
    before = (tmp_path / "relay.db").read_bytes()
    ended = serve(config)
    assert ended.returncode == 78
    assert "relay.db" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "relay.db").read_bytes() == before


def test_a_wrong_config_is_refused_with_78(tmp_path: Path) -> None:
    config = write_config(tmp_path, "sources: {a: {type: storyblock}}\n")
    ended = serve(config)
    assert ended.returncode == 78
    assert "did you mean 'storyblok'?" in ended.stderr


def test_an_address_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = write_config(tmp_path, f'server: {{listen: "127.0.0.1:{port}"}}\nadmin: {{listen: "127.0.0.1:0"}}\n')
        ended = serve(config)
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_address_on_which_it_has_no_right_to_listen_is_for_the_operator(tmp_path: Path) -> None:
    folder = tmp_path / "not-ours"
    folder.mkdir(mode=0o500)
    public = f"server: {{listen: {{unix: '{folder}/public'}}}}\n"
    config = write_config(tmp_path, public + "admin: {listen: '127.0.0.1:0'}\n")
    ended = serve(config, "setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else serve(config)
    assert ended.returncode == 78
    assert f"cannot listen on unix:{folder}/public: Permission denied" in ended.stderr


def test_an_address_that_is_none_of_this_machines_may_become_one(tmp_path: Path) -> None:
    config = write_config(tmp_path, "server: {listen: '192.0.2.1:8080'}\nadmin: {listen: '127.0.0.1:0'}\n")
    ended = serve(config)
    assert ended.returncode == 1
    assert "cannot listen on 192.0.2.1:8080" in ended.stderr


async def test_with_its_standard_streams_closed_it_serves_all_the_same(tmp_path: Path) -> None:
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    public, admin = free_ports(2)
    async with sink() as destination:
        listen = f"server: {{listen: '127.0.0.1:{public}'}}\nadmin: {{listen: '127.0.0.1:{admin}'}}\n"
        config = write_config(tmp_path, listen + route(destination.url))
        command = [*closed, sys.executable, "-m", "relay", "serve", "--config", str(config)]
        process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
        try:
            async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
                while True:
                    assert process.poll() is None
                    with contextlib.suppress(aiohttp.ClientConnectionError):
                        if await post(session, f"http://127.0.0.1:{public}", 1) == 200:
                            break
                    await asyncio.sleep(0.02)
            await destination.wait_count(1)
            process.terminate()
            assert await asyncio.to_thread(process.wait, PATIENCE) == 0
        finally:
            process.kill()


async def test_the_service_manager_is_told_of_ready_reloading_and_stopping(tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(PATIENCE)

        async def hear(word: str) -> str:
            while True:
                message = (await asyncio.to_thread(manager.recv, 4096)).decode()
                if word in message:
                    return message

        environ = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "400000"}
        async with relay_process(tmp_path, ANY, environ=environ) as relay:
            assert "STATUS=generation 1" in await hear("READY=1")
            await hear("WATCHDOG=1")
            relay.hup()
            assert "MONOTONIC_USEC=" in await hear("RELOADING=1")
            assert "STATUS=generation 2" in await hear("READY=1")
            relay.config.write_text("nonsense: 1\n")
            relay.hup()
            assert "config REJECTED" in await hear("READY=1")
            assert await relay.stop() == 0
            await hear("STOPPING=1")


async def test_the_service_manager_is_told_that_start_up_goes_on_while_what_waits_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    settle = SqliteStore.settle

    async def slow(store: SqliteStore, active: Collection[str], kept: Mapping[str, HeldReason]) -> Settled:
        begun.set()
        await go_on.wait()
        return await settle(store, active, kept)

    monkeypatch.setattr(SqliteStore, "settle", slow)
    monkeypatch.setattr(startup, "_PATIENCE", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        async def start() -> None:
            async with relay_here(tmp_path, ANY):
                pass

        async with asyncio.TaskGroup() as group:
            group.create_task(start())
            await begun.wait()
            manager.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while manager.recv(4096):  # what was said before
                    pass
            manager.settimeout(PATIENCE)
            assert b"EXTEND_TIMEOUT_USEC=20000" in await asyncio.to_thread(manager.recv, 4096)
            go_on.set()


async def test_it_serves_sockets_that_systemd_hands_over(tmp_path: Path) -> None:
    config = write_config(tmp_path, ANY)
    with socket.socket() as public, socket.socket() as admin:
        for listening in (public, admin):
            listening.bind(("127.0.0.1", 0))
            listening.listen()

        def as_systemd_does() -> None:
            first, second = os.dup(public.fileno()), os.dup(admin.fileno())
            os.dup2(first, 3)
            os.dup2(second, 4)
            os.environ["LISTEN_PID"] = str(os.getpid())

        # LISTEN_PID must be the daemon's own pid: a shell sets it and becomes the daemon.
        command = f'export LISTEN_PID=$$; exec "{sys.executable}" -m relay serve --config "{config}"'
        environ = {**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "public:admin"}
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            env=environ,
            preexec_fn=as_systemd_does,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{admin.getsockname()[1]}"
            health = await ask(f"{url}/health")  # the kernel queues it until relay accepts
            assert health["status"] == "ok"
            at = public.getsockname()[1]
            assert f"server.listen is 127.0.0.1:0, but systemd listens on 127.0.0.1:{at} " in health["checks"]["listen"]
            async with aiohttp.ClientSession() as session:
                assert await post(session, f"http://127.0.0.1:{public.getsockname()[1]}", 1) == 200
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0


async def test_the_log_has_one_line_for_each_event_and_each_attempt(tmp_path: Path) -> None:
    async with sink(lambda request: 503 if request.n == 1 else 200) as destination:
        fast = ", retry: {policy: fixed, every: 10ms, attempts: 5, jitter: 0}"
        async with relay_process(tmp_path, route(destination.url, fast)) as relay, aiohttp.ClientSession() as session:
            await post(session, relay.public, 1)
            await destination.wait_count(2)
            await relay.stop()
            lines = list(relay.lines())
            accepted = [line for line in lines if line["event"] == "event_accepted"]
            attempts = [line for line in lines if line["event"] == "attempt"]
            assert [(line["source"], line["bytes"], line["client"]) for line in accepted] == [("any", 8, "127.0.0.1")]
            assert [(line["n"], line["status"], line["state"]) for line in attempts] == [
                (1, 503, "pending"),
                (2, 200, "delivered"),
            ]
            assert lines[-1]["event"] == "stopped"
