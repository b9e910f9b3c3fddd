"""Processes that are measured: started, looked at from outside, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from bench.place import Skipped
from tests.harness import RelayProcess, write_config

ROOT = Path(__file__).parent.parent
HOST = "127.0.0.1"
_PATIENCE = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def started(
    command: Sequence[str], port: int, log: Path, environ: Mapping[str, str] | None = None
) -> AsyncIterator[int]:
    """A process, as soon as it listens on a port; gives its pid."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, env={**os.environ, **(environ or {})})
    try:
        async with asyncio.timeout(_PATIENCE):
            while True:
                with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
                    break
                if process.poll() is not None:
                    raise RuntimeError(f"{command[0]} ended with {process.returncode}: {log.read_text()[-2000:]}")
                await asyncio.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, _PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.asynccontextmanager
async def yardstick(kind: str, folder: Path, sink: str) -> AsyncIterator[tuple[str, int]]:
    """One of the servers of `bench.yardsticks`: where it takes events, and its pid."""
    port = free_port()
    command = [sys.executable, "-m", "bench.yardsticks", kind, str(port), sink, str(folder / f"{kind}.db")]
    async with started(command, port, folder / f"{kind}.log") as pid:
        yield f"http://{HOST}:{port}/in/blog", pid


@contextlib.asynccontextmanager
async def relay(folder: Path, config: str, prefix: list[str] | None = None) -> AsyncIterator[tuple[RelayProcess, int]]:
    """`relay serve` as an operator starts it, its log lines written to a file; and its pid."""
    made = RelayProcess(write_config(folder, config), prefix)
    try:
        await made.start()
        assert made.process is not None
        yield made, made.process.pid
    finally:
        if made.process is not None and made.process.poll() is None:
            made.kill()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def cpu_by_thread(pid: int) -> dict[int, float]:
    """The same of each thread."""
    found: dict[int, float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            found[int(task.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    return found


def rss_mib(pid: int, what: str = "VmRSS") -> float:
    """Resident memory; VmHWM is its highest so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what)) / 1024


def needs(program: str, package: str = "") -> None:
    """Raises Skipped where a program is missing."""
    from shutil import which

    if which(program) is None:
        raise Skipped(f"needs {program} (Debian: apt-get install {package or program})")


def descriptors(wanted: int) -> None:
    """Raises Skipped where this process and those it starts may not have so many; has them take no less from now on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise Skipped(f"needs {wanted:,} file descriptors, and {hard:,} may be had (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
