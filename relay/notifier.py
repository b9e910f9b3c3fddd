"""What a notifier is: one way of telling people how relay is doing.

Each module in `relay/notifiers/` is one type (`type: email` is `notifiers/email.py`) and holds `Config`, a
`NotifierConfig` with `type: Literal["email"]` and the keys that this type knows; it builds the notifier.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from relay.fields import Section
from relay.immutable import immutable
from relay.secret import Redactor

if TYPE_CHECKING:
    from relay.client import Transport
    from relay.clock import Clock
    from relay.egress import Egress


class Kind(StrEnum):
    """What people are told of: the first five are about routes, the others about sources."""

    UNHEALTHY = "unhealthy"
    RECOVERED = "recovered"
    PAUSED = "paused"
    DELIVERY_FAILED = "delivery_failed"
    QUEUE_FULL = "queue_full"
    SOURCE_SILENT = "source_silent"
    SOURCE_HEARD = "source_heard"
    SOURCE_REJECTED = "source_rejected"

    @property
    def about(self) -> str:
        """`route` or `source`: the two have names of their own, which may be the same."""
        return "source" if self.value.startswith("source_") else "route"


@immutable
class Message:
    """What is told, in words. No secrets, no control characters but the ends of the text's lines."""

    kind: Kind
    subject: str
    """The route's or source's name."""
    title: str
    """One line that says it all."""
    text: str
    """A few plain lines: what happened, since when, why, how often, and what can be done."""
    at: datetime
    """When it happened."""
    count: int = 1
    """How many facts it stands for: what is not told singly is told together."""
    done: tuple[str, ...] = ()
    """Where one notifier tells several: who has got it already, or never will."""
    never: tuple[str, ...] = ()
    """Who never will, and why."""


class NotSent(Exception):
    """A message was not taken. The reason holds no secret.

    `again` says whether another try may help, `after` how long the other side asks to be left alone; `rest` is what to
    tell with it, where some have got the message.
    """

    def __init__(
        self, reason: str, *, again: bool = True, after: timedelta | None = None, rest: Message | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again = again
        self.after = after
        self.rest = rest


class Notifier(Protocol):
    """One way of telling people, ready for use."""

    async def send(self, message: Message) -> None:
        """Make one try, which ends within a limit of its own. Raises NotSent and nothing else.

        A message whose try has failed may have arrived all the same: it is told at least once.
        """
        ...


@immutable
class Means:
    """By what a notifier gets out."""

    transport: Transport
    clock: Clock
    egress: Egress
    """For what does not go by the transport."""
    redact: Redactor
    """Masks the config's secrets in what other sides say."""


class NotifierConfig(Section):
    """Keys of every notifier. Subclasses add their own."""

    type: str

    @abstractmethod
    def build(self, means: Means) -> Notifier:
        """The notifier itself."""

    @property
    def host(self) -> str | None:
        """The one that it connects to; None where there is none, or it cannot be read here."""
        return None

    @property
    def hidden(self) -> tuple[str, ...]:
        """What nobody may see of it, besides its secrets: parts of a URL."""
        return ()

    @property
    def exposed(self) -> tuple[str, str] | None:
        """The key of a way on which its secrets travel unencrypted, and the host that it leads to."""
        return None


_NAMED = re.compile(r"name (it|its certificate) as to\.tls\.ca to trust it")


def of_notifiers(message: str) -> str:
    """What is said of a failed connection, for those who have no `to` to mend it in."""
    return _NAMED.sub(r"add \1 to what this machine trusts", message)


class _Types(Mapping[str, ModuleType]):
    """The modules by name, each imported when it is asked for: mail alone takes thirty others along."""

    def __init__(self) -> None:
        from relay import notifiers

        self._names = tuple(info.name for info in pkgutil.iter_modules(notifiers.__path__))

    def __getitem__(self, name: str) -> ModuleType:
        if name not in self._names:
            raise KeyError(name)
        return importlib.import_module(f"relay.notifiers.{name}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@cache
def types() -> Mapping[str, ModuleType]:
    """The modules of all notifier types by name, found by their file names."""
    return _Types()
