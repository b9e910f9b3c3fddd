"""Sockets that systemd hands over, and all that can be wrong with them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay import handover
from relay.config import load
from relay.handover import BadHandOver, HandedOver, bound_to, handed_over
from relay.schema import Config

ANNOUNCED = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        yield made


def announce(monkeypatch: pytest.MonkeyPatch, at: int, count: str = "1", names: str = "", pid: str = "") -> None:
    """As systemd does, but for descriptors from `at`: 3 is in use here."""
    monkeypatch.setattr(handover, "_FIRST", at)
    monkeypatch.setenv("LISTEN_PID", pid or str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)
    monkeypatch.setenv("LISTEN_FDNAMES", names)


def taken(listening: socket.socket) -> int:
    """A descriptor of its own, which handed_over may keep."""
    return os.dup(listening.fileno())


def names(found: HandedOver) -> dict[str, tuple[str, ...]]:
    for each in (*found.public, *found.admin):
        each.close()
    return dict(found.names)


@pytest.mark.parametrize(
    ("name", "key"),
    [("public", "server.listen"), ("admin", "admin.listen"), ("", "server.listen"), ("relay.socket", "server.listen")],
)
def test_a_socket_serves_the_side_that_it_is_named_for_and_a_lone_one_the_public(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket, name: str, key: str
) -> None:
    announce(monkeypatch, taken(listening), names=name)
    assert names(handed_over()) == {key: (bound_to(listening),)}


def test_no_child_sees_what_announced_them_and_they_are_taken_once(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket
) -> None:
    descriptor = taken(listening)
    os.set_inheritable(descriptor, True)
    announce(monkeypatch, descriptor, names="public")
    found = handed_over()
    assert not os.get_inheritable(descriptor)
    assert not set(ANNOUNCED) & os.environ.keys()
    assert names(handed_over()) == {}
    names(found)


@pytest.mark.parametrize("pid", ["1", "999999999"])
def test_those_of_another_process_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket, pid: str
) -> None:
    announce(monkeypatch, listening.fileno(), names="public", pid=pid)
    assert handed_over() == HandedOver()
    assert not set(ANNOUNCED) & os.environ.keys()


@pytest.mark.parametrize(("count", "pid"), [("two", ""), ("-1", ""), ("1" * 40, ""), ("1", "me"), ("²", "")])
def test_numbers_that_are_none_are_an_error(monkeypatch: pytest.MonkeyPatch, count: str, pid: str) -> None:
    announce(monkeypatch, 900, count=count, pid=pid)
    with pytest.raises(BadHandOver, match="not a number"):
        handed_over()


def test_a_descriptor_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    announce(monkeypatch, 900, count="999999999")
    with pytest.raises(BadHandOver, match="descriptor 900 was announced by LISTEN_FDS and cannot be used: Bad file"):
        handed_over()


def test_what_is_not_a_socket_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        announce(monkeypatch, file.fileno(), names="public")
        with pytest.raises(BadHandOver, match=r"descriptor \d+ \(public\) that systemd handed over is not a socket"):
            handed_over()


def test_a_socket_that_does_not_listen_for_streams_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as made:
            made.bind(("127.0.0.1", 0))
            announce(monkeypatch, made.fileno(), names="public")
            with pytest.raises(BadHandOver, match="does not listen for TCP or unix connections"):
                handed_over()


def test_one_of_several_without_a_name_that_relay_knows_is_an_error(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        first = 500  # with the next one free too
        os.dup2(listening.fileno(), first)
        os.dup2(other.fileno(), first + 1)
        announce(monkeypatch, first, count="2", names="public:metrics")
        with pytest.raises(BadHandOver, match=rf"'metrics' \({bound_to(other)}\): FileDescriptorName= must be"):
            handed_over()


def config(listen: str) -> Config:
    text = f"server: {{listen: {listen}}}\nsources: {{a: {{type: generic, verify: none}}}}\nroutes: []\n"
    return load(text.encode(), environ={}).config


@pytest.mark.parametrize(
    ("bound", "listen", "same"),
    [
        ("127.0.0.1:8080", "'127.0.0.1:8080'", True),
        ("127.0.0.1:8080", "'localhost:8080'", True),
        ("[::1]:8080", "'localhost:8080'", True),
        ("[::1]:8080", "'[::1]:8080'", True),
        ("[::]:8080", "':8080'", True),
        ("[::]:8080", "'0.0.0.0:8080'", True),
        ("10.0.0.1:8080", "'relay.example.com:8080'", True),
        ("unix:/run/in.sock", "{unix: /run/in.sock}", True),
        ("127.0.0.1:8081", "'127.0.0.1:8080'", False),
        ("127.0.0.2:8080", "'127.0.0.1:8080'", False),
        ("0.0.0.0:8080", "'127.0.0.1:8080'", False),
        ("10.0.0.1:8080", "'localhost:8080'", False),
        ("127.0.0.1:8080", "':8080'", False),
        ("unix:/run/in.sock", "'127.0.0.1:8080'", False),
        ("127.0.0.1:8080", "{unix: /run/in.sock}", False),
        ("unix:/run/other.sock", "{unix: /run/in.sock}", False),
    ],
)
def test_where_config_and_socket_differ_an_operator_is_told(bound: str, listen: str, same: bool) -> None:
    told = HandedOver(names={"server.listen": (bound,)}).differences(config(listen))
    assert (told == ()) is same
    assert all(bound in line for line in told)


def test_a_unix_socket_is_named_by_its_path(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, socket.socket(socket.AF_UNIX) as abstract:
        made.bind(str(tmp_path / "in.sock"))
        abstract.bind(f"\0relay-{os.getpid()}")
        assert bound_to(made) == f"unix:{tmp_path}/in.sock"
        assert bound_to(abstract) == f"unix:@relay-{os.getpid()}"
