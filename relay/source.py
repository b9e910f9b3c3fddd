"""What a source is: one way of sending webhooks. Pure: no clock, no socket, no config file.

Each module in `relay/sources/` is one type (`type: storyblok` is `sources/storyblok.py`) and holds

- `Config`, a `SourceConfig` with `type: Literal["storyblok"]` and the proofs this type knows,
- `Adapter`, a `SourceAdapter` built as `Adapter(config)`,
- optionally `ALIASES`, other names of the type, and `SAMPLE`, the sample that stands for it.

Its samples are `relay/sources/samples/<type>/<event>.json`: `{"headers": [[name, value]…], "body": "…"}`, unsigned.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from types import ModuleType
from typing import ClassVar, Literal, Protocol

from relay.address import parse_address
from relay.event import Description, Headers, Inbound
from relay.fieldmap import FieldMap
from relay.fields import Network, PerTime, Section
from relay.jsontext import whole
from relay.limits import TokenBucket
from relay.secret import MASK


@dataclass(frozen=True, slots=True)
class Proof:
    """Which configured proofs held, such as `secret[1]`: shows when an old secret can be retired."""

    held: tuple[str, ...] = ()


class Rejected(Exception):
    """The request does not prove itself. The reason is for the operator only, never for the sender."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Ignored:
    """A genuine event that this source's config leaves out; `reason` is the word in the answer."""

    reason: str


class RateLimited(Exception):
    """The request proves itself but comes too fast; `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"again in {retry_after:.1f} s")
        self.retry_after = retry_after


class SourceConfig(Section):
    """Keys of every source. Subclasses add their proofs and say with `proofs()` which are configured."""

    later: ClassVar[frozenset[str]] = frozenset({"dedup", "expect_every", "notify"})

    type: str
    verify: Literal["none"] | None = None
    path: str | None = None
    allow_ips: tuple[Network, ...] | None = None
    respond: Literal[200, 202] = 200
    rate_limit: PerTime | None = None
    map: Mapping[str, str] | None = None

    def proofs(self) -> tuple[str, ...]:
        """The keys of the proofs that this source's config sets: none is an error unless `verify: none`."""
        raise NotImplementedError


class SourceAdapter(Protocol):
    """How one type of sender is verified and understood."""

    proof_headers: frozenset[str]
    """Lower-case names of the headers that carry proofs: stored as ***, and never passed on."""
    body_proofs: tuple[tuple[str, ...], ...]
    """Where proofs travel in the body, as paths of keys: blanked before hash, dedup and storage."""
    retries: bool
    """Whether the sender tries again after a refusal (a `rate_limit` on one that never does loses events)."""
    never: frozenset[str]
    """Fields of the description that no event of this sender has."""
    own_actions: bool
    """Whether its actions are told in relay's own words: `publish`, not `published`."""

    def verify(self, inbound: Inbound, now: datetime) -> Proof:
        """Check every configured proof over the raw bytes. Raises Rejected, or Malformed where the proof is in a
        body that cannot be parsed. Not called for `verify: none`."""
        ...

    def describe(self, inbound: Inbound) -> Description | Ignored:
        """What the event says, by `docs/senders/`. Raises Malformed for a body that the type cannot be."""
        ...

    def sign(self, inbound: Inbound, now: datetime) -> Inbound:
        """The request with the proofs that `verify` wants, as the sender would make them at `now`.

        Raises ValueError where only the sender can (a private key that relay does not hold).
        """
        ...


class Source:
    """A named inbound endpoint, built once per config."""

    def __init__(self, name: str, config: SourceConfig, adapter: SourceAdapter, type_name: str) -> None:
        self.name = name
        self.type = type_name
        self.path = config.path or f"/in/{name}"
        self.adapter = adapter
        self.respond = config.respond
        self.trusting = config.verify == "none"
        self._networks = config.allow_ips
        self._fields = FieldMap(config.map, adapter.proof_headers) if config.map else None
        self._rate = config.rate_limit
        self._bucket = TokenBucket(config.rate_limit) if config.rate_limit is not None else None

    def inherit(self, before: Source) -> None:
        """Go on with what the same source of the config before has used of its rate."""
        if self._rate == before._rate:
            self._bucket = before._bucket

    def allows(self, client: str) -> bool:
        """Whether a client address may send here."""
        if self._networks is None:
            return True
        address = parse_address(client)
        return address is not None and any(address in network for network in self._networks)

    def verify(self, inbound: Inbound, now: datetime) -> Proof:
        """Check the proofs, then the rate. Raises Rejected, Malformed or RateLimited."""
        proof = Proof() if self.trusting else self.adapter.verify(inbound, now)
        wait = self._bucket.take() if self._bucket is not None else 0.0
        if wait:
            raise RateLimited(wait)
        return proof

    def describe(self, inbound: Inbound) -> Description | Ignored:
        """What the event says, with the source's `map` applied. Raises Malformed."""
        description = self.adapter.describe(inbound)
        if self._fields is None or isinstance(description, Ignored):
            return description
        return self._fields.apply(description, inbound)

    def shown_headers(self, headers: Headers) -> tuple[tuple[str, str], ...]:
        """The headers as they are stored and shown: what proves the sender is ***."""
        proofs = self.adapter.proof_headers
        return tuple((name, MASK if name.lower() in proofs else whole(value)) for name, value in headers.items())


@cache
def types() -> dict[str, ModuleType]:
    """The modules of all source types by name, aliases included, found by their file names."""
    from relay import sources

    found: dict[str, ModuleType] = {}
    for info in pkgutil.iter_modules(sources.__path__):
        module = importlib.import_module(f"relay.sources.{info.name}")
        for name in (info.name, *getattr(module, "ALIASES", ())):
            found[name] = module
    return found
