"""Where the CPU time of an event goes, by step, and which lines cost most.

py-spy looks at the stacks of a running relay from outside, several hundred times a second, without stopping it
(`--nonblocking`). A sample counts for the step of the innermost frame that belongs to one. How much CPU time each
thread took in these seconds the kernel says; the samples only divide it, thread by thread, for a thread that has just
begun to wait is now and then taken for one that works. The profiler costs relay nothing but what it takes of the
machine's processors. `other` is the event loop itself, and what no step claims.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path

from bench.place import Place, Skipped, Table
from bench.process import cpu_by_thread, relay
from bench.senders import Posted, post
from bench.sink import nginx
from bench.throughput import SOURCES, carried, route

RATE = 400  # looks a second
HOTTEST = 20
_THREAD = re.compile(r"^thread \((\d+)\)")
_FRAME = re.compile(r"^(?P<function>.+) \((?P<file>[^()]+):(?P<line>\d+)\)$")

STEPS = ("read", "verify", "describe", "match", "store", "render", "sign", "send", "record", "log", "dispatch", "other")

# By file, and by function where a file has a part in several; the first that fits.
_RULES = tuple(
    (re.compile(file), re.compile(function), step)
    for file, function, step in (
        (r"relay/(journal|logline|outlet)\.py|/structlog/", ".*", "log"),
        (r"relay/signing\.py", ".*", "sign"),
        (r"relay/(proof|bodyproof|secret)\.py", ".*", "verify"),
        (r"relay/", r"^verify$", "verify"),
        (r"relay/(routing|pattern|query)\.py", ".*", "match"),
        (r"relay/stores/", r"^(_?record\w*|update_row|attempt_row|_insert_attempts|_changes)$", "record"),
        (r"relay/stores/", r"^(add|_?begin|_commit|_write|_transaction)$", "store"),
        (r"relay/stores/(_sql|sqlite)/joining", ".*", "store"),
        (r"relay/(client|direct|answering|plainanswer)\.py|aiohttp/(client|connector)", ".*", "send"),
        (r"relay/masking\.py", ".*", "send"),
        (r"relay/destination\.py", r"^(exchange|judge|masked)$", "send"),
        (r"relay/(payload|template|rendering|window|destination)\.py|relay/destinations/", ".*", "render"),
        (r"relay/(jsontext|source|event|dedup|fields)\.py|relay/sources/", ".*", "describe"),
        (r"relay/pipeline\.py", r"^(_event|_owe)$", "store"),
        (r"relay/pipeline\.py", r"^(attempt|_send|_decide)$", "send"),
        (r"relay/pipeline\.py", r"^accept$", "describe"),
        (r"relay/(dispatcher|attempts|probes|reading|courier|stock|schedule|settling)\.py", ".*", "dispatch"),
        (r"relay/(oversight|health|metrics|lane)\.py", ".*", "dispatch"),
        (r"relay/stores/", ".*", "store"),
        (r"relay/web/|aiohttp/web", ".*", "read"),
    )
)


def step_of(stack: list[str]) -> str:
    """The step of the innermost frame that belongs to one."""
    for frame in reversed(stack):
        found = _FRAME.match(frame)
        if found is None:
            continue
        for file, function, step in _RULES:
            if file.search(found["file"]) and function.search(found["function"]):
                return step
    return "other"


async def steps(place: Place) -> Table:
    """Strapi's events, as fast as they come."""
    spy = Path(sys.executable).parent / "py-spy"
    if not spy.exists():
        raise Skipped("needs py-spy, which is in the development environment")
    async with nginx(place.folder) as sink:
        config = SOURCES + "routes:\n" + route("r", sink.url)
        async with relay(place.sub("relay"), config) as (made, pid):
            load = partial(_posting, f"{made.public}/in/blog", place)
            await carried(load, pid, sink, 1.0)
            plain = await carried(load, pid, sink, place.seconds)
            raw = place.folder / "stacks"
            profiler = await asyncio.create_subprocess_exec(
                *(
                    str(spy),
                    "record",
                    "--nonblocking",
                    "--threads",
                    "--format",
                    "raw",
                    "--full-filenames",
                    "--rate",
                    str(RATE),
                ),
                *("--duration", "unlimited", "--output", str(raw), "--pid", str(pid)),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            before = cpu_by_thread(pid)
            looked = await carried(load, pid, sink, place.seconds)
            spent = {thread: cpu - before.get(thread, 0.0) for thread, cpu in cpu_by_thread(pid).items()}
            with contextlib.suppress(ProcessLookupError):
                profiler.send_signal(signal.SIGINT)  # what was accepted is sent on for a while: only now all is seen
            if await profiler.wait():
                raise Skipped("py-spy may not look into another process here: it needs root, or ptrace_scope 0")
    samples: dict[int, list[tuple[list[str], int]]] = {}
    for line in raw.read_text().splitlines():
        text, _, count = line.rpartition(" ")
        head, *frames = text.split(";")
        found = _THREAD.match(head)
        if found is not None and frames:
            samples.setdefault(int(found[1]), []).append((frames, int(count)))
    by_step: dict[str, float] = defaultdict(float)
    by_line: dict[str, float] = defaultdict(float)
    inclusive: dict[str, float] = defaultdict(float)
    each = sum(spent.values()) / looked.events * 1e6
    for thread, cpu in spent.items():
        stacks = samples.get(thread, [])
        looks = sum(count for _, count in stacks)
        if not looks:
            by_step["other"] += cpu / looked.events * 1e6
        for stack, seen in stacks:
            us = seen / looks * cpu / looked.events * 1e6
            by_step[step_of(stack)] += us
            by_line[_short(stack[-1])] += us
            for name in {re.sub(r":\d+\)$", ")", _short(frame)) for frame in stack}:
                if "(relay/" in name and "(relay/cli/" not in name and "(relay/__main__" not in name:
                    inclusive[name] += us
    total = sum(seen for stacks in samples.values() for _, seen in stacks)
    table = Table("CPU time by step")
    table.rows = [
        {"step": step, "share %": by_step[step] / each * 100, "CPU us per event": by_step[step]} for step in STEPS
    ]
    table.rows.append({"step": "all", "share %": 100.0, "CPU us per event": each})
    table.notes.append(
        f"{total} samples; CPU us per event without the profiler {plain.cpu_us:.0f}, with it {looked.cpu_us:.0f};"
        f" events/s {plain.per_s:.0f} and {looked.per_s:.0f}"
    )
    for title, counted in (
        ("lines by their own time", by_line),
        ("relay's functions with all that they call", inclusive),
    ):
        table.notes.append(f"\n{title}, us per event:\n")
        table.notes += [
            f"    {us:6.1f}  {what}" for what, us in sorted(counted.items(), key=lambda item: -item[1])[:HOTTEST]
        ]
    return table


async def _posting(url: str, place: Place, seconds: float) -> Posted:
    return await post(url, seconds, place.folder)


def _short(frame: str) -> str:
    return re.sub(r"\([^()]*/(?:site-packages|lib/python3\.\d+|(?=relay/))", "(", frame).replace("(/", "(")
