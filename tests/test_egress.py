"""Where attempts may never connect: every spelling of an address."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from relay.egress import CLASSES, Egress

DEFAULT = Egress.of(["metadata", "link-local"])
STRICT = Egress.of(["metadata", "link-local", "loopback", "private"])


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("0.0.0.0", "loopback"),
        ("::", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:7f00:1", "loopback"),
        ("::127.0.0.1", "loopback"),
        ("::ffff:0:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b:1::10.0.0.1", "private"),
        ("64:ff9b:1:a9fe:a9:fe00::", "metadata"),
        ("64:ff9b:1:a9fe:1:200::", "link-local"),
        ("64:ff9b:1:1fa9:fe:a9fe::", "metadata"),
        ("64:ff9b:1:fffe:a9:fea9:fe00:0", "metadata"),
        ("64:ff9b:1:a9fe:a9:fe00:808:808", "metadata"),
        ("2002:7f00:1::", "loopback"),
        ("2002:a9fe:a9fe::1", "metadata"),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", "loopback"),
        ("169.254.169.254", "metadata"),
        ("::ffff:169.254.169.254", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("10.1.2.3", "private"),
        ("172.31.255.255", "private"),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "private"),
        ("fd12:3456::1", "private"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "multicast"),
        ("not an address", "not an address"),
        ("172.32.0.1", None),
        ("8.8.8.8", None),
        ("100.128.0.1", None),
        ("2606:4700::1111", None),
        ("64:ff9b::8.8.8.8", None),
        ("64:ff9b:1::8.8.8.8", None),
        ("64:ff9b:1:7f00::8.8.8.8", None),
        ("64:ff9b:1:808:8:800::", None),
        ("64:ff9b:1:0:8:808:800:0", None),
        ("2002:808:808::1", None),
    ],
)
def test_an_address_is_judged_in_all_its_forms(address: str, rule: str | None) -> None:
    assert STRICT.refuses(address) == rule


def test_by_default_own_services_are_allowed_and_metadata_is_not() -> None:
    assert DEFAULT.refuses("127.0.0.1") is None
    assert DEFAULT.refuses("10.0.0.1") is None
    assert DEFAULT.refuses("169.254.169.254") == "metadata"
    assert DEFAULT.refuses("169.254.7.7") == "link-local"


def test_a_network_can_be_denied() -> None:
    policy = Egress.of([ip_network("203.0.113.0/24")])
    assert policy.refuses("203.0.113.9") == "203.0.113.0/24"
    assert policy.refuses("::ffff:203.0.113.9") == "203.0.113.0/24"
    assert policy.refuses("203.0.114.9") is None


def test_metadata_is_denied_even_where_link_local_is_not() -> None:
    assert Egress.of(["metadata"]).refuses("169.254.169.254") == "metadata"
    assert set(CLASSES) == {"metadata", "link-local", "loopback", "private"}
