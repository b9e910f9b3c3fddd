"""Where attempts may never connect. Judged on the final address of each connection, not on names: a name may resolve
to anything, differently each time, and addresses have many spellings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from relay.immutable import immutable

Network = IPv4Network | IPv6Network

CLASSES: dict[str, tuple[Network, ...]] = {
    # Where clouds hand out a machine's credentials: link-local but for these.
    "metadata": tuple(
        map(
            ip_network,
            ("169.254.169.254/32", "169.254.170.2/32", "fd00:ec2::254/128", "100.100.100.200/32", "168.63.129.16/32"),
        )
    ),
    "link-local": tuple(map(ip_network, ("169.254.0.0/16", "fe80::/10"))),
    # Linux connects 0.0.0.0 and :: to itself.
    "loopback": tuple(map(ip_network, ("127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128"))),
    "private": tuple(
        map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10"))
    ),
}
_MULTICAST: tuple[Network, ...] = tuple(
    map(ip_network, ("224.0.0.0/4", "255.255.255.255/32", "ff00::/8"))
)  # never a destination: a TCP connection cannot be made to a group
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052
_NAT64_LOCAL = ip_network("64:ff9b:1::/48")  # RFC 8215
_6TO4 = ip_network("2002::/16")  # RFC 3056
_TEREDO = ip_network("2001::/32")  # RFC 4380
_MAPPED = ip_network("::ffff:0:0/96")
_TRANSLATED = ip_network("::ffff:0:0:0/96")  # RFC 2765
_COMPATIBLE = ip_network("::/96")
_LAST = (_MAPPED, _NAT64, _TRANSLATED)
"""They carry an IPv4 address in their last 32 bits."""


@immutable
class Egress:
    """The addresses that are denied, by class or network."""

    denied: tuple[tuple[str, tuple[Network, ...]], ...]

    @classmethod
    def of(cls, words: Iterable[str | Network]) -> Egress:
        """The policy of a config's `deny`: words of CLASSES, and networks."""
        found: list[tuple[str, tuple[Network, ...]]] = [("multicast", _MULTICAST)]
        for word in words:
            found.append((word, CLASSES[word]) if isinstance(word, str) else (str(word), (word,)))
        return cls(tuple(found))

    def refuses(self, address: str) -> str | None:
        """Which rule denies an address, or None. What is not an address is denied."""
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return "not an address"
        for form in _forms(parsed):
            for name, networks in self.denied:
                if any(form in network for network in networks):
                    return name
        return None


def _forms(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """The address, and the IPv4 address that it carries: packets to one end at the other."""
    if isinstance(address, IPv4Address):
        return [address]
    low = int(address) & 0xFFFFFFFF
    found: list[IPv4Address | IPv6Address] = [address]
    if any(address in network for network in _LAST) or (address in _COMPATIBLE and low > 1):
        found.append(IPv4Address(low))
    elif address in _NAT64_LOCAL:
        found += _translated(int(address))
    elif address in _6TO4:
        found.append(IPv4Address((int(address) >> 80) & 0xFFFFFFFF))
    elif address in _TEREDO:
        found.append(IPv4Address(low ^ 0xFFFFFFFF))
    return found


def _translated(address: int) -> Iterator[IPv4Address]:
    """What a network's own prefix may carry: each decides for itself how long that is. RFC 6052 section 2.2: after 96
    bits it is at the end, after 48, 56 and 64 in two parts around the bits 64 to 71."""
    last = address & 0xFFFFFFFF
    if not address >> 32 & 0xFFFFFFFF:  # nothing in between
        yield IPv4Address(last)
        return
    for found in (
        (address >> 64 & 0xFFFF) << 16 | address >> 40 & 0xFFFF,
        (address >> 64 & 0xFF) << 24 | address >> 32 & 0xFFFFFF,
        address >> 24 & 0xFFFFFFFF,
        last,
    ):
        if found >> 24:  # no translator has a way to 0.0.0.0/8
            yield IPv4Address(found)
