"""Listening on a path: what is left of a relay that crashed is removed, what somebody listens on is not."""

from __future__ import annotations

import socket
from pathlib import Path

import aiohttp
import pytest

from relay.web.listener import CannotListen
from tests.harness import relay_here

ANY = "sources: {any: {type: generic, verify: none}}\n"


def listening_on(path: Path) -> str:
    return f'server: {{listen: {{unix: {path}}}}}\nadmin: {{listen: "127.0.0.1:0"}}\n{ANY}'


async def live(path: Path) -> int:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
        async with session.get("http://relay/health") as response:
            return response.status


async def refused(folder: Path, text: str, why: str) -> None:
    folder.mkdir(exist_ok=True)
    with pytest.raises(CannotListen, match=f"cannot listen on unix:.*/in.sock: {why}"):
        async with relay_here(folder, text):
            pass


async def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
        crashed.listen()
    async with relay_here(tmp_path, listening_on(path)):
        assert await live(path) == 200


async def test_the_socket_of_another_relay_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    async with relay_here(tmp_path, listening_on(path)):
        await refused(tmp_path / "second", listening_on(path), "Address already in use")
        assert await live(path) == 200


async def test_a_listener_that_has_no_room_for_another_caller_is_one_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as caller:
        busy.bind(str(path))
        busy.listen(0)
        caller.connect(str(path))
        await refused(tmp_path, listening_on(path), "Address already in use")


async def test_where_it_cannot_be_told_the_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        await refused(tmp_path, listening_on(path), "Protocol wrong type for socket")
        assert path.is_socket()
