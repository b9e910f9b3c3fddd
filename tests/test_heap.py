"""Threads share one heap."""

from __future__ import annotations

import platform
from itertools import pairwise
from pathlib import Path

import pytest

from relay import heap
from tests.harness import relay_process

_RESERVED = 64 << 20  # what glibc sets aside for the heap of a thread, at a multiple of it


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
async def test_no_thread_of_relay_has_a_heap_of_its_own(tmp_path: Path) -> None:
    text = "sources: {open: {type: generic, verify: none}}\nroutes: [{name: r, to: {url: 'http://a.test/'}}]\n"
    async with relay_process(tmp_path, text) as relay:
        assert relay.process is not None
        process = Path(f"/proc/{relay.process.pid}")
        assert len([*(process / "task").iterdir()]) > 3
        assert _heaps(process / "maps") == []


def test_where_malloc_is_another_one_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_libc", object)
    heap.share()
    heap.give_back()


def _heaps(maps: Path) -> list[str]:
    """The heaps of threads: the part in use, and behind it what is set aside."""
    lines = [line.split() for line in maps.read_text().splitlines()]
    found = []
    for (used, may, *_), (free, may_not, *_) in pairwise(lines):
        begin, middle = (int(address, 16) for address in used.split("-"))
        again, end = (int(address, 16) for address in free.split("-"))
        if (
            begin % _RESERVED == 0
            and middle == again
            and end - begin == _RESERVED
            and (may, may_not) == ("rw-p", "---p")
        ):
            found.append(used)
    return found
