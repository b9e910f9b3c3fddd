"""Who is at the other end of a connection."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from relay.address import parse_address
from relay.event import Headers
from relay.immutable import immutable

UNIX = "unix"


@immutable
class TrustedProxies:
    """Whose `X-Forwarded-For` is believed."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False

    def __contains__(self, address: str) -> bool:
        if address == UNIX:
            return self.unix
        parsed = parse_address(address)
        return parsed is not None and any(parsed in network for network in self.networks)

    def __bool__(self) -> bool:
        return self.unix or bool(self.networks)


def client_address(remote: str | None, headers: Headers, trusted: TrustedProxies) -> str:
    """The client's address: the peer's, or what trusted proxies say, from the right the first untrusted one."""
    peer = remote or UNIX
    if not (trusted.networks or trusted.unix) or peer not in trusted:
        return peer
    hops = ",".join(headers.getall("X-Forwarded-For", ())).split(",")
    for hop in reversed(hops):
        address = parse_address(hop)
        if address is None:
            return peer  # a proxy we trust does not write this: do not guess
        if str(address) not in trusted:
            return str(address)
        peer = str(address)
    return peer
