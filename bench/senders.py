"""Events as senders make them, and wrk that posts them: no Python on the senders' side.

Strapi's bodies, small and large, are made as they are sent, each with a time one millisecond later than the last, for
Strapi's repeats are known by their body. They go to one source, or to many by turns. Storyblok's bear an HMAC, which
Lua in wrk lacks: a file of bodies and signatures is made beforehand, and gone through again and again, for Storyblok
never repeats itself and relay takes no two of its events for one.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from bench.process import needs

TOKEN = "my-very-secured-token"
SECRET = "4f0c9a5f6be0c1c6b7f1d5f3a7a0c9d2e8b41f60"
CONNECTIONS = 64
SIGNED = 50_000
LARGE = 1 << 20
"""Bytes of a large body, or a few less: the most that relay takes where nothing else is said."""
_FILLER = "x" * 250
_ROOM = 1_000_000  # numbers that one load may use up
_MOST = 1_000_000_000  # no number is so large

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
_SMALL = """
local rest = 'FILLER","publishedAt":"2026-11-23T12:00:00.000Z","locale":"en"}}'
"""
_LARGE = """
local file = io.open(os.getenv("BENCH_REST"), "rb")
local rest = file:read("*a")
file:close()
"""
_STRAPI = """
wrk.headers["X-Strapi-Event"] = "entry.publish"
local paths, proofs = {}, {}
for path, token in os.getenv("BENCH_SOURCES"):gmatch("(%S+) (%S+)") do
  paths[#paths + 1], proofs[#proofs + 1] = path, "Bearer " .. token
end
request = function()
  n = n + 1
  local source = n % #paths + 1
  wrk.headers["Authorization"] = proofs[source]
  local s = math.floor(n / 1000)
  return wrk.format(nil, paths[source], nil, string.format('{"event":"entry.publish",' ..
    '"createdAt":"2026-11-%02dT%02d:%02d:%02d.%03dZ","model":"article","uid":"api::article.article",' ..
    '"entry":{"id":%d,"documentId":"doc%d","title":"',
    1 + math.floor(s / 86400) % 28, math.floor(s / 3600) % 24, math.floor(s / 60) % 60, s % 60, n % 1000, n, n) .. rest)
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
_SCRIPTS = {"strapi": _SMALL + _STRAPI, "large": _LARGE + _STRAPI, "storyblok": _STORYBLOK, "alert": _ALERT}

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


async def post(
    url: str,
    seconds: float,
    folder: Path,
    kind: str = "strapi",
    connections: int = CONNECTIONS,
    sources: Mapping[str, str] | None = None,
) -> Posted:
    """Post as fast as answers come. Raises where one is not a 2xx.

    Strapi's events go to many sources by turns where these are given, each by its path and with its token.
    """
    needs("wrk")
    script = folder / f"{kind}.lua"
    script.write_text(_HEAD + _SCRIPTS[kind].replace("FILLER", _FILLER))
    tokens = sources or {urlsplit(url).path: TOKEN}
    environ = {
        **os.environ,
        "BENCH_FIRST": str(fresh()),
        "BENCH_SOURCES": "\n".join(f"{path} {token}" for path, token in tokens.items()),
    }
    if kind == "storyblok":
        environ["BENCH_SIGNED"] = str(await asyncio.to_thread(_signed, folder))
    if kind == "large":
        environ["BENCH_REST"] = str(await asyncio.to_thread(_rest, folder))
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
    rest = f'{_FILLER}","publishedAt":"2026-11-23T12:00:00.000Z","locale":"en"}}}}'
    return (_opening(number) + rest).encode()


def _opening(number: int) -> str:
    seconds = number // 1000
    day, hour, minute = 1 + seconds // 86400 % 28, seconds // 3600 % 24, seconds // 60 % 60
    moment = f"2026-11-{day:02}T{hour:02}:{minute:02}:{seconds % 60:02}.{number % 1000:03}Z"
    return (
        f'{{"event":"entry.publish","createdAt":"{moment}","model":"article","uid":"api::article.article",'
        f'"entry":{{"id":{number},"documentId":"doc{number}","title":"'
    )


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


@cache
def _rest(folder: Path) -> Path:
    """What all large bodies have in common: the entry's text, in as many components as editors make of a long page."""
    paragraph = "“It’s ready”, she said — and the café’s page went live.\n\n## What’s new\n\n" + _FILLER + "\n"
    head = 'A long page","blocks":['
    tail = '],"publishedAt":"2026-11-23T12:00:00.000Z","locale":"en"}}'
    room = LARGE - len((_opening(_MOST) + head + tail).encode())
    blocks: list[bytes] = []
    while True:
        block = _block(len(blocks) + 1, paragraph)
        if room < 2 * (len(block) + 1):  # the last one is as long as there is room
            break
        blocks.append(block)
        room -= len(block) + 1
    last = len(blocks) + 1
    blocks.append(_block(last, "x" * (room - len(_block(last, "")))))
    file = folder / "large.rest"
    file.write_bytes(head.encode() + b",".join(blocks) + tail.encode())
    return file


def _block(number: int, text: str) -> bytes:
    block = {"id": number, "__component": "shared.rich-text", "body": text}
    return json.dumps(block, ensure_ascii=False, separators=(",", ":")).encode()
