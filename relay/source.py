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
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import cache, cached_property
from types import ModuleType
from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import BeforeValidator

from relay import dedup, query
from relay.address import parse_address
from relay.delivery import Mark
from relay.event import Description, Headers, Inbound
from relay.fieldmap import FieldMap
from relay.fields import Names, Network, PerTime, PositiveDuration, Section, Unresolved, compiled_by, got
from relay.immutable import immutable
from relay.jsontext import Malformed, whole
from relay.limits import TokenBucket
from relay.problems import did_you_mean
from relay.secret import MASK, Redactor
from relay.tally import Tally

MOST_CHANGES = 1_000
"""As many as one event is described by, each by itself: a body of 1 MiB can name half a million entries."""

_MOST_HARMLESS, _SHORT = 32, 128  # headers that a source remembers, characters of one


@immutable
class Proof:
    """Which configured proofs held, such as `secret[1]`: shows when an old secret can be retired."""

    held: tuple[str, ...] = ()


class Rejected(Exception):
    """The request does not prove itself. The reason is for the operator only, never for the sender."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@immutable
class Ignored:
    """A genuine event that this source's config leaves out; `reason` is the word in the answer."""

    reason: str


class RateLimited(Exception):
    """The request proves itself but comes too fast; `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"again in {retry_after:.1f} s")
        self.retry_after = retry_after


class DedupKey(Section):
    """What two requests have in common when one repeats the other, and for how long that is remembered."""

    key: Annotated[str, compiled_by(query.compile)]
    window: PositiveDuration


def _dedup(value: object) -> object:
    if isinstance(value, DedupKey):
        return value
    if isinstance(value, Unresolved):
        return "auto"
    if isinstance(value, dict):
        return DedupKey.model_validate(value)
    if value not in ("auto", "off"):
        hint = did_you_mean(value, ("auto", "off"))
        raise ValueError(f"expected auto, off or {{key: …, window: …}}, got {got(value)}{hint}")
    return value


class SourceConfig(Section):
    """Keys of every source. Subclasses add their proofs and say with `proofs()` which are configured."""

    omits: ClassVar[Mapping[str, frozenset[str]]] = {}
    """Fields of the description that events of some actions never have, with these actions."""

    type: str
    verify: Literal["none"] | None = None
    path: str | None = None
    allow_ips: tuple[Network, ...] | None = None
    respond: Literal[200, 202] = 200
    rate_limit: PerTime | None = None
    dedup: Annotated[Literal["auto", "off"] | DedupKey, BeforeValidator(_dedup)] = "auto"
    map: Mapping[str, str] | None = None
    expect_every: PositiveDuration | None = None
    notify: Names = ()

    @abstractmethod
    def proofs(self) -> tuple[str, ...]:
        """The keys of the proofs that this source's config sets: none is an error unless `verify: none`."""

    def ill_taken(self) -> Iterator[tuple[str, str]]:
        """Keys by which relay would give this sender answers that do harm there, and what harm."""
        yield from ()


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
        """What the event says, by `docs/senders/`. Raises Malformed for a body that the type cannot be.

        Where the body decides how many changes there are, more than MOST_CHANGES are `summed_up` before they are made.
        """
        ...

    def mark(self, inbound: Inbound, description: Description) -> Mark | None:
        """By what the sender's own repeats of a request are known, after its proofs were taken out of the body; None
        where nothing tells a repeat from a second event. Raises Malformed for a body that cannot be compared."""
        ...

    def sign(self, inbound: Inbound, now: datetime) -> Inbound:
        """The request with the proofs that `verify` wants, as the sender would make them at `now`.

        Raises ValueError where only the sender can (a private key that relay does not hold).
        """
        ...


def summed_up(description: Description, count: int) -> Description:
    """What is said of more changes than an event is described by: those that differ in their entry alone are one change
    about no entry, so that filters on all else find what they would have found. `extra` says how many there were.

    An adapter that knows the kinds of its changes beforehand describes one of each, and makes no more of them.
    """
    kinds = tuple(dict.fromkeys(replace(change, entry_id=None) for change in description.changes))
    if len(kinds) > MOST_CHANGES:
        kinds = (replace(description, changes=kinds).common,)
    return replace(description, changes=kinds, extra={**description.extra, "changes_count": count})


class Source:
    """A named inbound endpoint, built once per config."""

    def __init__(
        self, name: str, config: SourceConfig, adapter: SourceAdapter, type_name: str, redact: Redactor | None = None
    ) -> None:
        self.name = name
        self.redact = redact or Redactor()
        """Masks what a sender says of its content: it knows all secrets of the config, not this source's alone, but for
        those that may be words."""
        self.type = type_name
        self.path = config.path or f"/in/{name}"
        self.adapter = adapter
        self.respond = config.respond
        self.trusting = config.verify == "none"
        self.expect_every = config.expect_every
        self.notify = config.notify
        self.tally = Tally()
        self._proofs = [getattr(config, key) for key in config.proofs()]
        self.networks = config.allow_ips
        """From where it may be sent to; None for anywhere."""
        self._fields = FieldMap(config.map, adapter.proof_headers) if config.map else None
        self._shown = _Shown(adapter.proof_headers)
        self._auto = config.dedup == "auto"
        self._key: dedup.Key | None = None
        if isinstance(config.dedup, DedupKey):
            self._key = dedup.Key(config.dedup.key, config.dedup.window, adapter.proof_headers)
        self._rate = config.rate_limit
        self._bucket = TokenBucket(config.rate_limit) if config.rate_limit is not None else None

    def inherit(self, before: Source) -> None:
        """Go on with what is known of the same source of the config before, and with what it has used of its rate."""
        if self._rate == before._rate:
            self._bucket = before._bucket
        self.tally = before.tally
        if self._proofs != before._proofs:
            self.tally.used.clear()  # `secret[0]` may be another one now

    def allows(self, client: str) -> bool:
        """Whether a client address may send here."""
        if self.networks is None:
            return True
        address = parse_address(client)
        return address is not None and any(address in network for network in self.networks)

    def verify(self, inbound: Inbound, now: datetime) -> Proof:
        """Check the proofs, then the rate. Raises Rejected, Malformed or RateLimited."""
        proof = Proof() if self.trusting else self.adapter.verify(inbound, now)
        self.tally.proved(proof.held, now)
        wait = self._bucket.take() if self._bucket is not None else 0.0
        if wait:
            raise RateLimited(wait)
        return proof

    def describe(self, inbound: Inbound) -> Description | Ignored:
        """What the event says, with the source's `map` applied. Raises Malformed."""
        description = self.adapter.describe(inbound)
        if isinstance(description, Ignored):
            return description
        if len(description.changes) > MOST_CHANGES:
            description = summed_up(description, len(description.changes))
        if self._fields is None:
            return description
        return self._fields.apply(description, inbound)

    def mark(self, inbound: Inbound, description: Description) -> Mark | None:
        """By what a repeat of a described request would be known; None where nothing is a repeat of it."""
        mark = None
        if self._key is not None:
            mark = self._key.mark(inbound)
        elif self._auto and not description.common.is_test:  # who presses a button twice means it twice
            try:
                mark = self.adapter.mark(inbound, description)
            except Malformed:
                return None
        return dedup.of_source(self.name, mark) if mark is not None else None

    def shown_headers(self, headers: Headers) -> tuple[tuple[str, str], ...]:
        """The headers as they are stored and shown: what proves the sender is ***."""
        return tuple(map(self._shown.__getitem__, headers.items()))


class _Shown(dict[tuple[str, str], tuple[str, str]]):
    """Headers as they are shown. Those shown as they came are remembered: most are those of the request before."""

    def __init__(self, proofs: frozenset[str]) -> None:
        self._proofs = proofs

    def __missing__(self, header: tuple[str, str]) -> tuple[str, str]:
        name, value = header
        if name.lower() in self._proofs:
            return name, MASK
        if not value.isascii():
            return name, whole(value)
        if len(name) + len(value) <= _SHORT:  # strangers choose them
            if len(self) >= _MOST_HARMLESS:
                self.clear()
            self[header] = header
        return header


class _Types(Mapping[str, ModuleType]):
    """The modules by name, each imported when it is asked for. What other names there are only the modules can say, all
    of them: so they are asked where a name is nobody's own."""

    def __init__(self) -> None:
        from relay import sources

        self._names = tuple(info.name for info in pkgutil.iter_modules(sources.__path__))
        self._known: dict[str, ModuleType] = {}

    def __getitem__(self, name: str) -> ModuleType:
        known = self._known.get(name)
        if known is None:
            own = name in self._names
            known = importlib.import_module(f"relay.sources.{name}") if own else self._all[name]
            self._known[name] = known
        return known

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @cached_property
    def _all(self) -> Mapping[str, ModuleType]:
        modules = ((name, self[name]) for name in self._names)
        return {each: module for name, module in modules for each in (name, *getattr(module, "ALIASES", ()))}


@cache
def types() -> Mapping[str, ModuleType]:
    """The modules of all source types by name, aliases included, found by their file names."""
    return _Types()
