"""How many events a second relay carries from sender to destination, beside a bare forwarder that keeps nothing.

    python -m bench.end_to_end [--rounds 3] [--seconds 5] [--profile]

Load from wrk (64 connections, distinct token-verified Strapi events of 480 bytes), nginx as destination; relay with
`synchronous=FULL`, one route, `sign: standard`, default logging. Rounds alternate, so that what the machine does beside
hits both alike. Prints the median of each and their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOKEN = "my-very-secured-token"
SINK, BARE, PUBLIC, ADMIN = 19100, 19101, 19102, 19103
LUA = """
local base = tonumber(os.getenv("RELAY_BENCH_BASE")) or 0
local n = base
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer TOKEN"
wrk.headers["X-Strapi-Event"] = "entry.publish"
local filler = string.rep("x", 250)
request = function()
  n = n + 1
  local at = string.format("2026-11-23T%02d:%02d:%02d.%03dZ", math.floor(n / 3600000) % 24, math.floor(n / 60000) % 60,
    math.floor(n / 1000) % 60, n % 1000)  -- a millisecond later each, as Strapi says it
  return wrk.format(nil, nil, nil, '{"event":"entry.publish","createdAt":"' .. at .. '",' ..
    '"model":"article","uid":"api::article.article","entry":{"id":' .. n .. ',"documentId":"doc' .. n ..
    '","title":"' .. filler .. '","publishedAt":"2026-11-23T12:00:00.000Z","locale":"en"}}')
end
""".replace("TOKEN", TOKEN)
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder}; keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ return 200 "ok"; }}
            location /status {{ stub_status; }} }}
}}
"""
CONFIG = """
server: {{listen: "127.0.0.1:{public}"}}
admin: {{listen: "127.0.0.1:{admin}"}}
store: {{url: "sqlite:{folder}/relay.db"}}
sources: {{blog: {{type: strapi, token: {token}}}}}
routes:
  - name: r
    match: {{action: publish}}
    to: {{url: "http://127.0.0.1:{sink}/hook", auth: {{type: bearer, token: a-token-for-the-receiver}}}}
    sign: [{{scheme: standard, secret: whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3}}]
    concurrency: {concurrency}
"""


async def bare() -> None:
    """The yardstick: web.Server and ClientSession, 16 in flight, answers 200 at once, keeps nothing."""
    import aiohttp
    from aiohttp import web

    queue: asyncio.Queue[bytes] = asyncio.Queue(100_000)

    async def handle(request: web.BaseRequest) -> web.Response:
        await queue.put(await request.read())
        return web.Response(body=b'{"ok":true}', content_type="application/json")

    async def forward(session: aiohttp.ClientSession) -> None:
        while True:
            body = await queue.get()
            async with session.post(f"http://127.0.0.1:{SINK}/hook", data=body) as response:
                await response.read()

    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=jar) as session:
        runner = web.ServerRunner(web.Server(handle, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", BARE).start()
        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(forward(session))


class Sink:
    """How many requests nginx has answered, but for those to its own counter."""

    asked = 0

    def received(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{SINK}/status", timeout=5) as answer:
            numbers = re.findall(r"\d+", answer.read().decode().splitlines()[2])
        self.asked += 1
        return int(numbers[2]) - self.asked


SINK_COUNTER = Sink()


@contextmanager
def process(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens on a port, gone in the end."""
    started = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        for _ in range(500):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.02)
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def measure(path: str, port: int, pid: int, seconds: int, folder: Path) -> dict[str, float]:
    """One round: events a second from the first post to the last arrival, and CPU for each."""
    before, cpu, began = SINK_COUNTER.received(), cpu_seconds(pid), time.monotonic()
    script = folder / "load.lua"
    script.write_text(LUA)
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}{path}"]
    output = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"RELAY_BENCH_BASE": str(time.time_ns() // 1_000_000)}
    ).stdout
    posted = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    last, quiet, arrived_at = before, 0, time.monotonic()
    while quiet < 10 and last - before < posted:
        time.sleep(0.1)
        now = SINK_COUNTER.received()
        if now == last:
            quiet += 1
        else:
            last, quiet, arrived_at = now, 0, time.monotonic()
    count = last - before
    spent = cpu_seconds(pid) - cpu
    return {"posted": posted, "per_s": count / (arrived_at - began), "cpu_us": spent / max(count, 1) * 1e6}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=5)
    options.add_argument("--concurrency", type=int, default=16)
    options.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.bare:
        import uvloop

        uvloop.run(bare())
        return
    for tool in ("wrk", "nginx"):
        if shutil.which(tool) is None:
            sys.exit(f"the bench needs {tool} (Debian: apt-get install wrk nginx-light)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=SINK))
        text = CONFIG.format(
            public=PUBLIC, admin=ADMIN, folder=folder, token=TOKEN, sink=SINK, concurrency=given.concurrency
        )
        (folder / "config.yaml").write_text(text)
        serve = [sys.executable, "-m", "relay", "serve", "--config", str(folder / "config.yaml")]
        forwarder = [sys.executable, "-m", "bench.end_to_end", "--bare"]
        rounds: dict[str, list[dict[str, float]]] = {"bare": [], "relay": []}
        with (
            process(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)], SINK),
            process(forwarder, BARE) as bare_process,
            process(serve, PUBLIC) as relay,
        ):
            for _ in range(given.rounds):
                rounds["bare"].append(measure("/", BARE, bare_process.pid, given.seconds, folder))
                rounds["relay"].append(measure("/in/blog", PUBLIC, relay.pid, given.seconds, folder))
    result = {
        what: {key: statistics.median(one[key] for one in ones) for key in ("per_s", "cpu_us")}
        for what, ones in rounds.items()
    }
    for what, figures in result.items():
        print(f"{what:6} {figures['per_s']:8.0f} events/s {figures['cpu_us']:6.0f} us CPU per event")
    print(f"ratio  {result['relay']['per_s'] / result['bare']['per_s']:.2f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
