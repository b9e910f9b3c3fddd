"""nginx as the destination: answers 200 and counts, in C.

It answers as soon as it has a request's head, which is as good as the whole of a small one. Of large ones the `whole`
is read first: then nginx asks itself for the answer, over a connection that it keeps, and so counts each of them twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench.process import HOST, free_port, needs, started

_NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
worker_rlimit_nofile 20000; events {{ worker_connections 10000; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder}; keepalive_requests 100000000; client_body_buffer_size 64k;
  upstream itself {{ server 127.0.0.1:{port}; keepalive 64; }}
  server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ return 200 "ok"; }}
            location /whole {{
              client_max_body_size 8m; client_body_buffer_size 8m; proxy_pass http://itself/hook; proxy_method GET;
              proxy_pass_request_body off; proxy_pass_request_headers off; proxy_http_version 1.1;
              proxy_set_header Connection ""; proxy_set_header Content-Length "";
            }}
            location /status {{ stub_status; }} }}
}}
"""
_LOOK_EVERY = 0.02
_QUIET = 0.2
_SILENCE = 5.0  # seconds after which nothing more is expected


class Sink:
    """Counts the requests that it has answered, but for those for its own counter."""

    def __init__(self, port: int, whole: bool = False) -> None:
        self.url = f"http://{HOST}:{port}/{'whole' if whole else 'hook'}"
        self._each = 2 if whole else 1
        self._connection = http.client.HTTPConnection(HOST, port, timeout=5)
        self._asked = 0

    def received(self) -> int:
        """How many so far."""
        while True:
            self._connection.request("GET", "/status")
            try:
                said = self._connection.getresponse().read().decode()
                break
            except ConnectionError:  # nginx ends what is idle where many want to connect: such a request it did not see
                self._connection.close()
        numbers = re.findall(r"\d+", said.splitlines()[2])
        self._asked += 1
        return (int(numbers[2]) - self._asked) // self._each

    def close(self) -> None:
        """Look no more."""
        self._connection.close()

    async def wait_for(self, count: int) -> tuple[int, float]:
        """Until so many have come in all, or no more come: how many, and when the last was seen."""
        last, seen_at = self.received(), time.monotonic()
        while last < count and time.monotonic() - seen_at < _SILENCE:
            await asyncio.sleep(_LOOK_EVERY)
            now = self.received()
            if now != last:
                last, seen_at = now, time.monotonic()
        return last, seen_at

    async def quiet(self) -> None:
        """Until nothing more comes: also what its senders did not wait for any more when their time was over."""
        last = -1
        while (now := self.received()) != last:
            last = now
            await asyncio.sleep(_QUIET)


@contextlib.asynccontextmanager
async def nginx(folder: Path, whole: bool = False) -> AsyncIterator[Sink]:
    """One in a folder of its own; on request it counts what it has read the whole of."""
    needs("nginx", "nginx-light")
    place = folder / "nginx"
    place.mkdir()
    port = free_port()
    config = place / "nginx.conf"
    config.write_text(_NGINX.format(folder=place, port=port))
    async with started(["nginx", "-c", str(config), "-p", str(place)], port, place / "log"):
        with contextlib.closing(Sink(port, whole)) as made:
            yield made
