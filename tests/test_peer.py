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
    assert client_address(peer, headers, trusted) == client


def test_a_unix_peer_is_trusted_only_by_name() -> None:
    headers = CIMultiDict({"X-Forwarded-For": "1.1.1.1"})
    assert client_address(None, headers, LOCAL) == "unix"
    assert client_address(None, headers, TrustedProxies(unix=True)) == "1.1.1.1"


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3", "1.2.3.4.5", "::g"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_address(text) is None
