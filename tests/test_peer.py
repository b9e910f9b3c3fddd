"""Whose address counts."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from multidict import CIMultiDict

from relay.address import parse_address
from relay.web.peer import TrustedProxies, client_address

NONE = TrustedProxies()
LOCAL = TrustedProxies((ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8")))


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        (NONE, "127.0.0.1", ["1.1.1.1"], "127.0.0.1"),
        (LOCAL, "2.2.2.2", ["1.1.1.1"], "2.2.2.2"),
        (LOCAL, "127.0.0.1", [], "127.0.0.1"),
        (LOCAL, "127.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        (LOCAL, "127.0.0.1", ["9.9.9.9, 1.1.1.1, 10.0.0.7"], "1.1.1.1"),
        (LOCAL, "127.0.0.1", ["9.9.9.9", "1.1.1.1"], "1.1.1.1"),
        (LOCAL, "127.0.0.1", ["1.1.1.1:4711"], "1.1.1.1"),
        (LOCAL, "127.0.0.1", ["[2001:db8::1]:80"], "2001:db8::1"),
        (LOCAL, "::ffff:127.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        (LOCAL, "127.0.0.1", ["1.1.1.1, unknown"], "127.0.0.1"),
        (LOCAL, "127.0.0.1", ["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_trusted_proxy(
    trusted: TrustedProxies, peer: str, forwarded: list[str], client: str
) -> None:
    headers = CIMultiDict([("X-Forwarded-For", value) for value in forwarded])
    for _ in range(2):  # also as it is remembered
        assert client_address(peer, headers, trusted) == client


def test_what_is_remembered_of_proxies_is_bounded() -> None:
    trusted = TrustedProxies((ip_network("127.0.0.1/32"),))
    for number in range(1, 2000):
        sender = f"2001:db8::{number:x}"
        for said in (sender, f"{'9' * 300}, {sender}"):
            assert client_address("127.0.0.1", CIMultiDict({"X-Forwarded-For": said}), trusted) == sender
    assert 0 < len(trusted.known) <= 256
    assert max(len(said) for _, said in trusted.known) < 20


def test_a_unix_peer_is_trusted_only_by_name() -> None:
    headers = CIMultiDict({"X-Forwarded-For": "1.1.1.1"})
    assert client_address(None, headers, LOCAL) == "unix"
    assert client_address(None, headers, TrustedProxies(unix=True)) == "1.1.1.1"


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3", "1.2.3.4.5", "::g"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_address(text) is None
