"""What the system lets relay have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from relay import ceilings, rendering
from tests.harness import LISTEN, relay_here
from tests.torture.wire import exchange, post

MIB = 1 << 20


def limits(folder: Path, groups: str, files: dict[str, str]) -> list[int]:
    """What is found under these control groups."""
    (folder / "cgroup").write_text(groups)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return list(ceilings._cgroup_limits(folder / "cgroup", folder))


def test_the_limits_of_the_groups_around_hold_too(tmp_path: Path) -> None:
    files = {"system.slice/relay.service/memory.max": "max\n", "system.slice/memory.max": "536870912\n"}
    assert limits(tmp_path, "0::/system.slice/relay.service\n", files) == [512 * MIB]


def test_a_memory_hierarchy_of_its_own_is_found_too(tmp_path: Path) -> None:
    groups = "9:name=systemd:/\n4:cpu,memory:/box\n0::/\n"
    files = {"memory/box/memory.limit_in_bytes": "134217728\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"}
    assert limits(tmp_path, groups, files) == [128 * MIB, 9223372036854771712]


def test_in_a_container_that_names_the_hosts_path_the_root_counts(tmp_path: Path) -> None:
    assert limits(tmp_path, "0::/docker/0123\n", {"memory.max": "268435456\n"}) == [256 * MIB]


def test_where_nothing_is_said_there_is_no_limit(tmp_path: Path) -> None:
    assert limits(tmp_path, "0::/\n", {}) == []


SAID = """
import json, os, resource
from pathlib import Path
from relay import ceilings
size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
found = [[ceilings.bodies(), ceilings.window(ceilings.bodies())]]
for more in (1024 << 20, 256 << 20, 64 << 20, 0):
    resource.setrlimit(resource.RLIMIT_AS, (size + more, resource.getrlimit(resource.RLIMIT_AS)[1]))
    found.append([ceilings.bodies(), ceilings.window(ceilings.bodies())])
print(json.dumps(found))
"""


def test_bodies_have_a_share_of_the_memory_that_is_left() -> None:
    done = subprocess.run([sys.executable, "-c", SAID], capture_output=True, text=True, check=True)
    (usual, _), (much, free), (some, held), (little, scarce), (none, least) = json.loads(done.stdout)
    assert (usual, much, free) == (64 * MIB, 64 * MIB, None)
    assert 24 * MIB < some <= 32 * MIB
    assert 4 * MIB < little <= 8 * MIB
    assert none < MIB
    assert (held, scarce, least) == (None, 32 << 10, 32 << 10)


def test_what_helpers_take_of_the_same_group_is_not_left_for_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(ceilings, "_cgroup_limits", lambda: iter([resident + 256 * MIB]))
    less = ceilings.bodies() - ceilings.bodies(rendering.USUAL_MEMORY)
    assert less == pytest.approx(rendering.USUAL_MEMORY / 8, rel=0.1)


@pytest.mark.parametrize(("payload", "helpers"), [("full", 0), ("{template: x}", rendering.USUAL_MEMORY)])
async def test_memory_is_set_aside_for_helpers_where_a_route_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: str, helpers: int
) -> None:
    asked: list[int] = []

    def bodies(helpers: int) -> int:
        asked.append(helpers)
        return MIB

    monkeypatch.setattr(ceilings, "bodies", bodies)
    text = f"routes: [{{name: r, payload: {payload}, to: {{url: 'http://127.0.0.1:9'}}}}]\n"
    async with relay_here(tmp_path, LISTEN + "sources: {open: {type: generic, verify: none}}\n" + text):
        assert asked == [helpers]


CONNECTED = """
import json, os, resource
from pathlib import Path
from relay import ceilings
resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
found = [ceilings.connections()]
for more in (4096 << 20, 512 << 20, 0):
    resource.setrlimit(resource.RLIMIT_AS, (size + more, resource.getrlimit(resource.RLIMIT_AS)[1]))
    found += [ceilings.connections(), ceilings.connections(secure=True)]
print(json.dumps(found))
"""


def test_so_many_senders_may_be_connected_as_have_room() -> None:
    done = subprocess.run([sys.executable, "-c", CONNECTED], capture_output=True, text=True, check=True)
    usual, much, much_secure, some, some_secure, none, none_secure = json.loads(done.stdout)
    assert usual == much == 20_000 - 512, "descriptors are what is scarce"
    assert 3000 < some <= 4096
    assert 375 < some_secure <= 512
    assert 3000 < much_secure <= 4096
    assert none == none_secure == 64


async def test_with_little_memory_bodies_as_large_as_allowed_are_taken_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceilings, "bodies", lambda helpers: 0)
    async with relay_here(tmp_path, LISTEN + "sources: {open: {type: generic, verify: none}}\n") as relay:
        assert (await exchange(relay.public, post("/in/open", b"x" * MIB))).statuses == (200,)
        assert (await exchange(relay.public, post("/in/open", b"x" * (MIB + 1)))).statuses == (413,)
