"""Events as senders make them, and wrk that posts them: no Python on the senders' side.

Strapi's bodies are made as they are sent, each with a time one millisecond later than the last, for Strapi's repeats
are known by their body. Storyblok's bear an HMAC, which Lua in wrk lacks: a file of bodies and signatures is made
beforehand, and gone through again and again, for Storyblok never repeats itself and relay takes no two of its events
for one.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import os
import re
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.process import needs

TOKEN = "my-very-secured-token"
SECRET = "4f0c9a5f6be0c1c6b7f1d5f3a7a0c9d2e8b41f60"
CONNECTIONS = 64
SIGNED = 50_000
_FILLER = "x" * 250
_ROOM = 1_000_000  # numbers that one load may use up

_HEAD = """
local n = tonumber(os.getenv("BENCH_FIRST"))
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
done = function(summary)
  local e = summary.errors
  io.write(string.format("bench %d %d %d\\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""
_STRAPI = """
wrk.headers["Authorization"] = "Bearer TOKEN"
wrk.headers["X-Strapi-Event"] = "entry.publish"
local filler = "FILLER"
request = function()
  n = n + 1
  local s = math.floor(n / 1000)
  return wrk.format(nil, nil, nil, string.format('{"event":"entry.publish",' ..
    '"createdAt":"2026-11-%02dT%02d:%02d:%02d.%03dZ","model":"article","uid":"api::article.article",' ..
    '"entry":{"id":%d,"documentId":"doc%d","title":"%s","publishedAt":"2026-11-23T12:00:00.000Z","locale":"en"}}',
    1 + math.floor(s / 86400) % 28, math.floor(s / 3600) % 24, math.floor(s / 60) % 60, s % 60, n % 1000, n, n, filler))
end
"""
_STORYBLOK = """
wrk.headers["x-storyblok-topic"] = "story.published"
local signed = {}
for line in io.lines(os.getenv("BENCH_SIGNED")) do signed[#signed + 1] = line end
request = function()
  n = n + 1
  local line = signed[n % #signed + 1]
  wrk.headers["webhook-signature"] = line:sub(1, 40)
  return wrk.format(nil, nil, nil, line:sub(41))
end
"""
_ALERT = """
local filler = "FILLER"
request = function()
  n = n + 1
  return wrk.format(nil, nil, nil, string.format('[{"labels":{"alertname":"publish","model":"article","n":"%d"},' ..
    '"annotations":{"title":"%s"}}]', n, filler))
end
"""
_SCRIPTS = {"strapi": _STRAPI, "storyblok": _STORYBLOK, "alert": _ALERT}

_numbers = itertools.count(1, _ROOM)


def fresh() -> int:
    """The first of a million numbers that no other load has used or will use."""
    return next(_numbers)


@dataclass(frozen=True, slots=True)
class Posted:
    """What wrk says of a load: how many were answered, and when it began and ended by the monotonic clock."""

    count: int
    began: float
    seconds: float


async def post(url: str, seconds: float, folder: Path, kind: str = "strapi", connections: int = CONNECTIONS) -> Posted:
    """Post as fast as answers come. Raises where one is not a 2xx."""
    needs("wrk")
    script = folder / f"{kind}.lua"
    script.write_text(_HEAD + _SCRIPTS[kind].replace("TOKEN", TOKEN).replace("FILLER", _FILLER))
    environ = {**os.environ, "BENCH_FIRST": str(fresh())}
    if kind == "storyblok":
        environ["BENCH_SIGNED"] = str(await asyncio.to_thread(_signed, folder))
    process = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(script), url),
        stdout=asyncio.subprocess.PIPE,
        env=environ,
    )
    out = (await process.communicate())[0].decode()
    ended = time.monotonic()
    found = re.search(r"bench (\d+) (\d+) (\d+)", out)
    if found is None or int(found[3]):
        raise RuntimeError(f"wrk could not post all: {out}")
    took = int(found[2]) / 1e6
    # wrk's clock begins when its connections are made, after the script is read, and ends when it does.
    return Posted(int(found[1]), ended - took, took)


def strapi(number: int) -> bytes:
    """One body as the script above makes it."""
    seconds = number // 1000
    day, hour, minute = 1 + seconds // 86400 % 28, seconds // 3600 % 24, seconds // 60 % 60
    moment = f"2026-11-{day:02}T{hour:02}:{minute:02}:{seconds % 60:02}.{number % 1000:03}Z"
    return (
        f'{{"event":"entry.publish","createdAt":"{moment}","model":"article","uid":"api::article.article",'
        f'"entry":{{"id":{number},"documentId":"doc{number}","title":"{_FILLER}",'
        f'"publishedAt":"2026-11-23T12:00:00.000Z","locale":"en"}}}}'
    ).encode()


def storyblok(number: int) -> bytes:
    """A body of the same size."""
    return (
        f'{{"text":"The user joy@example.com published the Story Home {number} (articles/home-{number})\\n{_FILLER}",'
        f'"action":"published","space_id":184738,"story_id":{166888790000000 + number},'
        f'"full_slug":"articles/home-{number}"}}'
    ).encode()


@cache
def _signed(folder: Path) -> Path:
    file = folder / "storyblok.signed"
    with file.open("wb") as out:
        for number in range(SIGNED):
            body = storyblok(number)
            out.write(hmac.digest(SECRET.encode(), body, "sha1").hex().encode() + body + b"\n")
    return file
