"""No sender is answered before its event is on disk: seen from outside, by the system calls of the real daemon."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import aiohttp
import pytest

from tests.fakes import until
from tests.harness import relay_process, sink

REQUESTS, CONNECTIONS = 1000, 8
_CALL = re.compile(r"^(?P<pid>\d+) +(?P<call>\w+)\((?P<rest>.*)$")
_RESUMED = re.compile(r"^(?P<pid>\d+) +<\.\.\. (?P<call>\w+) resumed>(?P<rest>.*)$")
_READS, _WRITES, _SYNCS = (
    {"read", "recvfrom", "recvmsg"},
    {"write", "writev", "sendto", "sendmsg"},
    {"fdatasync", "fsync"},
)


def can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_trace(), reason="needs strace and the right to trace")
async def test_in_each_of_a_thousand_requests_the_log_is_synced_between_reading_and_answering(tmp_path: Path) -> None:
    answered, unsynced = await seen(tmp_path)
    assert len(answered) == REQUESTS
    assert unsynced == []


async def seen(folder: Path) -> tuple[set[str], list[str]]:
    """A thousand requests to a daemon that is traced: those that were answered, and those too soon."""
    trace = folder / "trace"
    calls = ",".join(sorted(_READS | _WRITES | _SYNCS))
    prefix = ["strace", "-D", "-f", "-y", "-s", "512", "-e", f"trace={calls}", "-e", "signal=none", "-o", str(trace)]
    text = "sources: {any: {type: generic, verify: none}}\nroutes: [{name: r, to: {url: %s}}]\n"
    async with sink() as destination, relay_process(folder, text % destination.url, prefix) as relay:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:

            async def ask(first: int) -> None:
                for number in range(first, REQUESTS, CONNECTIONS):
                    async with session.post(f"{relay.public}/in/any", data=b"request-%06d;" % number) as response:
                        assert response.status == 200

            for first in range(CONNECTIONS):
                group.create_task(ask(first))
        await destination.wait_count(REQUESTS)
        assert relay.process is not None
        relay.process.terminate()
        await asyncio.to_thread(relay.process.wait)
        # strace runs beside (-D), so that the signal reaches relay; it has written all when the last thread is gone.
        await until(lambda: trace.read_text(errors="replace").count("exited with 0") >= 2)
    return judge(trace.read_text(errors="replace").splitlines())


def judge(lines: list[str]) -> tuple[set[str], list[str]]:
    """The requests that were answered, and those among them with no whole sync of the log in between."""
    began: dict[str, tuple[int, str]] = {}  # by thread: a call that has not returned yet
    asked: dict[str, tuple[int, str]] = {}  # by socket: where its request was read, and which
    synced: list[tuple[int, int]] = []  # where each sync of the log began and ended
    answered: set[str] = set()
    unsynced: list[str] = []
    for place, line in enumerate(lines):
        found = _CALL.match(line)
        if found is not None:
            call, rest, start = found["call"], found["rest"], place
            if rest.endswith("<unfinished ...>"):
                began[found["pid"]] = (place, rest)
                if call not in _WRITES:
                    continue
        else:
            found = _RESUMED.match(line)
            if found is None or found["pid"] not in began:
                continue
            start, head = began.pop(found["pid"])
            call, rest = found["call"], head + found["rest"]
            if call in _WRITES:
                continue  # judged when it began
        file = rest.partition(",")[0]
        if call in _SYNCS and "-wal>" in file and rest.rstrip().endswith("= 0"):
            synced.append((start, place))
        elif call in _READS and (request := re.search(r"request-\d{6}", rest)):
            asked[file] = (place, request[0])
        elif call in _WRITES and "HTTP/1.1 200" in rest and file in asked:
            read_at, request_id = asked.pop(file)
            answered.add(request_id)
            if not any(read_at < first and last < start for first, last in synced[-20:]):
                unsynced.append(request_id)
    return answered, unsynced


def test_the_judge_sees_an_answer_that_came_too_soon() -> None:
    good = [
        '1 read(9<socket:[1]>, "POST request-000001;", 99) = 20',
        "2 fdatasync(5</x/relay.db-wal> <unfinished ...>",
        "2 <... fdatasync resumed>) = 0",
        '1 write(9<socket:[1]>, "HTTP/1.1 200 OK", 15) = 15',
    ]
    assert judge(good) == ({"request-000001"}, [])
    assert judge([good[0], good[3]]) == ({"request-000001"}, ["request-000001"])
    assert judge([good[1], good[0], good[2], good[3]])[1] == ["request-000001"], (
        "a sync that began before does not count"
    )
    assert judge([good[0], good[1], good[3], good[2]])[1] == ["request-000001"], "nor one that is not over"
