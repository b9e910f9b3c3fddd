"""Listening sockets that systemd opened for relay (sd_listen_fds(3)), so that nobody is refused while it restarts.

Both sides may have any number of them, told apart by `FileDescriptorName=`: `public` and `admin`. What is handed over
wrongly is an error: a socket that nobody accepts on would let senders wait for ever.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping, Sequence
from dataclasses import field
from ipaddress import ip_address

from relay.immutable import immutable
from relay.schema import Config, TcpAddress, UnixAddress, is_loopback
from relay.systemd import is_number

_FIRST = 3  # SD_LISTEN_FDS_START


class BadHandOver(Exception):
    """Sockets were handed over that relay cannot serve. The message says which and what to do about it."""


@immutable
class HandedOver:
    """The listening sockets that systemd opened for relay. Where it opened some, the config's address is not used."""

    public: tuple[socket.socket, ...] = ()
    admin: tuple[socket.socket, ...] = ()
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Where they listen, by the key of the config whose place they take: `{"server.listen": ("127.0.0.1:8080",)}`."""

    @classmethod
    def of(cls, public: Sequence[socket.socket] = (), admin: Sequence[socket.socket] = ()) -> HandedOver:
        """These sockets, for the two sides."""
        taken = {"server.listen": public, "admin.listen": admin}
        names = {key: tuple(map(bound_to, sockets)) for key, sockets in taken.items() if sockets}
        return cls(tuple(public), tuple(admin), names)

    def differences(self, config: Config) -> tuple[str, ...]:
        """For each side: that the config names another address than systemd listens on."""
        wanted = {"server.listen": config.server.listen, "admin.listen": config.admin.listen}
        return tuple(
            f"{key} is {wanted[key]}, but systemd listens on {' and '.join(names)} for it (ListenStream= of the socket"
            " unit), and that counts: write the same address into both"
            for key, names in self.names.items()
            if not any(_same(wanted[key], name) for name in names)
        )


def handed_over() -> HandedOver:
    """The sockets that systemd opened for this process, none without it. Raises BadHandOver.

    What announces them is taken out of the environment, so that no child takes them for its own. Asked a second time,
    there are none.
    """
    said = {name: os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")}
    if not said["LISTEN_PID"] or not said["LISTEN_FDS"]:
        return HandedOver()
    for name in ("LISTEN_PID", "LISTEN_FDS"):
        if not is_number(said[name]):
            raise BadHandOver(f"{name} is {said[name]!r}, not a number: who starts relay sets it wrongly")
    if int(said["LISTEN_PID"]) != os.getpid():
        return HandedOver()  # for a parent of ours, who did not take them
    names = said["LISTEN_FDNAMES"].split(":") if said["LISTEN_FDNAMES"] else []
    found: dict[str, list[socket.socket]] = {"public": [], "admin": []}
    count = int(said["LISTEN_FDS"])
    for index in range(count):
        name = names[index] if index < len(names) else ""
        listening = _listening(_FIRST + index, name)
        if count == 1 and name not in found:
            name = "public"  # the only one of a unit that does not say
        if name not in found:
            where = bound_to(listening)
            for each in (listening, *found["public"], *found["admin"]):
                each.close()
            raise BadHandOver(
                f"systemd handed over a socket named {name!r} ({where}): FileDescriptorName= must be public or"
                " admin, so that relay knows whom to serve on it"
            )
        found[name].append(listening)
    return HandedOver.of(found["public"], found["admin"])


def _listening(descriptor: int, name: str) -> socket.socket:
    what = f"descriptor {descriptor}" + (f" ({name})" if name else "")
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise BadHandOver(f"{what} that systemd handed over is not a socket: relay takes ListenStream= alone")
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        raise BadHandOver(f"{what} was announced by LISTEN_FDS and cannot be used: {error.strerror}") from error
    listens = found.type == socket.SOCK_STREAM and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if found.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) or not listens:
        found.detach()
        raise BadHandOver(
            f"{what} that systemd handed over does not listen for TCP or unix connections: relay takes ListenStream="
            " with Accept=no"
        )
    return found


def bound_to(listening: socket.socket) -> str:
    """Where a socket listens, as the config writes it."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        path = os.fsdecode(name)
        return f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{path}"
    return str(TcpAddress(name[0], name[1]))


def _same(wanted: TcpAddress | UnixAddress, name: str) -> bool:
    """Whether the config means what a socket is bound to. A host name may stand for any address."""
    if isinstance(wanted, UnixAddress) or name.startswith("unix:"):
        return str(wanted) == name
    host, _, port = name.rpartition(":")
    bound = ip_address(host.strip("[]"))
    if wanted.port != int(port):
        return False
    if wanted.host is None:
        return bound.is_unspecified
    try:
        meant = ip_address(wanted.host)
    except ValueError:
        return bound.is_loopback or not is_loopback(wanted.host)
    return meant == bound or (meant.is_unspecified and bound.is_unspecified)
