"""Who is at the other end of a connection."""

from __future__ import annotations

from dataclasses import field
from ipaddress import IPv4Network, IPv6Network

from relay.address import parse_address
from relay.event import Headers
from relay.immutable import immutable

UNIX = "unix"
_MOST_KNOWN, _LONGEST_KNOWN = 256, 200  # what is remembered, and characters of it: strangers write it


@immutable
class TrustedProxies:
    """Whose `X-Forwarded-For` is believed."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False
    known: dict[tuple[str, str], str] = field(default_factory=dict, compare=False, repr=False)
    """Whom they spoke for lately: to find it takes a hundred times as long, and each event asks for it."""

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
    if not (trusted.networks or trusted.unix):
        return peer
    said = ",".join(headers.getall("X-Forwarded-For", ()))
    found = trusted.known.get((peer, said))
    if found is None:
        found = _sender(peer, said, trusted)
        if len(said) <= _LONGEST_KNOWN:
            if len(trusted.known) >= _MOST_KNOWN:
                trusted.known.clear()
            trusted.known[peer, said] = found
    return found


def _sender(peer: str, said: str, trusted: TrustedProxies) -> str:
    if peer not in trusted:
        return peer
    for hop in reversed(said.split(",")):
        address = parse_address(hop)
        if address is None:
            return peer  # a proxy we trust does not write this: do not guess
        if str(address) not in trusted:
            return str(address)
        peer = str(address)
    return peer
