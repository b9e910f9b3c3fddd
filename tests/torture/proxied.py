"""The forms of request smuggling once more, through nginx: what it makes of them, and what relay makes of that.

It keeps one connection to relay, over which all senders' requests go. Bytes that it takes for part of one request, and
relay for the next one, would be an event that nobody sent, or the answer to somebody else's request.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import pwd
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.cli.running import free_ports
from tests.harness import PATIENCE, RelayProcess, relay_process
from tests.torture.row import Figure, Place, Seen, needs, of_forms
from tests.torture.smuggling import REFUSED, SOURCES, TAKEN
from tests.torture.wire import exchange, post

# Whether nginx reads a body to its end before it asks relay, and says its length, or passes it on in chunks.
_WAYS = {"whole": "on", "as it comes": "off"}
_CONFIG = """
worker_processes 1; daemon off; user {user} {group}; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_header_timeout 1s; client_body_timeout 1s; client_max_body_size 8m; large_client_header_buffers 8 64k;
  upstream relay {{ server {relay}; keepalive 1; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://relay; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_request_buffering {buffering}; proxy_read_timeout 5s;
    }}
  }}
}}
"""
_ESTABLISHED = "01"
_QUIET = 0.1  # seconds; what comes later still is seen by the request behind it


@contextlib.asynccontextmanager
async def nginx(folder: Path, relay: str, buffering: str) -> AsyncIterator[str]:
    """It in front of relay: its URL."""
    needs("nginx", package="nginx-light")
    folder.mkdir()
    [port] = free_ports(1)
    user = pwd.getpwuid(os.geteuid()).pw_name
    group = grp.getgrgid(os.getegid()).gr_name
    path = folder / "nginx.conf"
    address = urlsplit(relay).netloc
    path.write_text(
        _CONFIG.format(folder=folder, relay=address, port=port, buffering=buffering, user=user, group=group)
    )
    with (folder / "said").open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            "nginx", "-c", str(path), "-p", str(folder), "-e", str(folder / "error.log"), stdout=said, stderr=said
        )
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                assert process.returncode is None, (folder / "said").read_text()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _upstream(relay: RelayProcess) -> set[str]:
    """The far ends of the connections to relay's public side that are open now."""
    port = f":{urlsplit(relay.public).port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {line[1] for line in lines if line[2].endswith(port) and line[3] == _ESTABLISHED}


async def framing(place: Place) -> Figure:
    """Each form, and behind each an honest request, whose answer must be its own."""
    seen, reused = [], 0
    for way, buffering in _WAYS.items():
        folder = place.folder / buffering
        folder.mkdir()
        async with relay_process(folder, SOURCES) as relay, nginx(folder / "nginx", relay.public, buffering) as url:
            known = 0  # events so far
            for number, (form, data) in enumerate((REFUSED | TAKEN).items()):
                answer = await exchange(url, data, quiet=_QUIET)
                before = _upstream(relay)
                body = b"x" * (1000 + number)
                *events, last = (await _taken_until(relay, await _honest(url, body)))[known:]
                known += len(events) + 1
                own, taken = last == len(body), answer.statuses.count(200)
                reused += taken == 1 and len(before) == 1 and before == _upstream(relay)
                held = taken <= 1 and events == [2] * taken and all(map(_refusal_or_200, answer.statuses))
                told = f"{answer}, {len(events)} events; the next request got {'its own' if own else 'ANOTHER'} answer"
                seen.append(Seen(f"behind nginx, {way}: {form}", told, held and own))
    # Where none went over the same connection, nothing was tried.
    return of_forms(
        seen,
        f"after {reused} that nginx let through somebody else's request went over the same connection, and got its own"
        " answer",
        passed=reused >= len(TAKEN),
    )


def _refusal_or_200(status: int) -> bool:
    """501 and 505 are words of nginx's for what it does not know; by 502 and 504 it would complain of relay."""
    return status == 200 or 400 <= status < 500 or status in (501, 505)


async def _honest(url: str, body: bytes) -> str:
    """Send an event as it should be; the id that its sender is told."""
    answer = await exchange(url, post("/in/open", body, "Connection: close"))
    assert answer.statuses == (200,), answer.raw[:500]
    told: str = json.loads(answer.raw.partition(b"\r\n\r\n")[2])["id"]
    return told


async def _taken_until(relay: RelayProcess, last: str) -> list[int]:
    """The sizes of all events up to one, as relay's log has them, which is written a moment later."""
    async with asyncio.timeout(PATIENCE):
        while True:
            events = [line for line in relay.lines() if line.get("event") == "event_accepted"]
            for place, event in enumerate(events, 1):
                if event["event_id"] == last:
                    return [each["bytes"] for each in events[:place]]
            await asyncio.sleep(0.005)
