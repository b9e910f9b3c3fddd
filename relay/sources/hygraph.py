"""Hygraph, once GraphCMS: `gcms-signature: sign=<base64>, env=<name>, t=<ms>`.

https://hygraph.com/docs/api-reference/basics/webhooks

`sign` is the HMAC-SHA256 of `{"Body":<the raw body as a JSON string>,"EnvironmentName":<env>,"TimeStamp":<t>}`, written
as JavaScript's `JSON.stringify` does. Hygraph may send minutes late and tries five times, and whether `t` is renewed is
not documented: so there is no tolerance unless one of 30 minutes or more is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

import orjson
from pydantic import AfterValidator

from relay import dedup, proof, proofschema
from relay.clock import from_ms, parse_rfc3339, to_ms
from relay.delivery import Mark
from relay.event import Change, Description, Inbound
from relay.fields import Duration, SecretTexts
from relay.jsontext import Malformed, at, said, whole
from relay.source import Proof, Rejected, SourceConfig

ALIASES = ("graphcms",)
SAMPLE = "publish"

_SIGNATURE = "gcms-signature"
_LEAST_TOLERANCE = timedelta(minutes=30)
_REPEATS = timedelta(minutes=30)


def _off_or_long(tolerance: timedelta) -> timedelta:
    if timedelta(0) < tolerance < _LEAST_TOLERANCE:
        raise ValueError("expected 0s (off) or at least 30m: Hygraph delivers and retries minutes later")
    return tolerance


class Config(SourceConfig):
    """A webhook of a Hygraph environment."""

    type: Literal["hygraph", "graphcms"]
    secret: SecretTexts | None = None
    tolerance: Annotated[Duration, AfterValidator(_off_or_long)] = timedelta(0)

    def proofs(self) -> tuple[str, ...]:
        return proofschema.configured(self, "secret")

    def ill_taken(self) -> Iterator[tuple[str, str]]:
        if self.rate_limit is not None:
            yield "rate_limit", "Hygraph sends nothing else until what this refuses is taken, or given up by it"


class _Signed(NamedTuple):
    sign: str
    env: str
    at_ms: int


@lru_cache(1)  # it is asked for the same one by the proof, the description and the mark
def _read(value: str) -> _Signed | None:
    """The header in any order, with or without spaces; None where a part is missing, repeated or not readable."""
    pairs = proof.parts(value)
    found = dict(pairs)
    if len(found) != len(pairs):
        return None
    at_ms = proof.number(found.get("t", ""))
    sign, env = found.get("sign"), found.get("env")
    if at_ms is None or not sign or not env:
        return None
    return _Signed(sign, env, at_ms)


class GcmsSignature:
    """The `gcms-signature` header."""

    def __init__(self, code: proof.Hmac, tolerance: timedelta) -> None:
        self._hmac = code
        self._tolerance = proof.whole_ms(tolerance)

    def hold(self, inbound: Inbound, now: datetime) -> str:
        signed = _read(proof.sole(inbound.headers, _SIGNATURE))
        if signed is None:
            raise Rejected(f"the {_SIGNATURE} header is not sign=…, env=…, t=…")
        message = _message(inbound.body, signed.env, signed.at_ms)
        held = self._hmac.held(message, (proof.raw(signed.sign),))
        if held is None:
            raise Rejected(f"the signature in {_SIGNATURE} does not fit")
        proof.check_time(signed.at_ms, now, self._tolerance)
        return held

    def sign(self, draft: proof.Draft, now: datetime) -> None:
        at_ms = to_ms(now)
        code = self._hmac.sign(_message(draft.body, "master", at_ms))
        draft.headers[_SIGNATURE] = f"sign={code}, env=master, t={at_ms}"


def _message(body: bytes, env: str, at_ms: int) -> bytes:
    # orjson escapes exactly what JSON.stringify does, and leaves U+2028, DEL and `<` alone as that does.
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Malformed("the body is not UTF-8") from None
    try:
        name = orjson.dumps(env)
    except TypeError:
        raise Rejected(f"the environment in {_SIGNATURE} is not UTF-8") from None
    return b'{"Body":%s,"EnvironmentName":%s,"TimeStamp":%d}' % (orjson.dumps(text), name, at_ms)


class Adapter:
    """Hygraph's signature and events."""

    retries = True
    never = frozenset({"branch", "locale"})
    own_actions = True
    body_proofs: tuple[tuple[str, ...], ...] = ()

    def __init__(self, config: Config) -> None:
        self._checks: list[proof.Check] = []
        if config.secret is not None:
            code = proof.Hmac("secret", proof.reveal(config.secret), encoding="base64")
            self._checks.append(GcmsSignature(code, config.tolerance))
        self.proof_headers = proofschema.masked(config, _SIGNATURE)

    def verify(self, inbound: Inbound, now: datetime) -> Proof:
        return proof.verify(self._checks, inbound, now)

    def sign(self, inbound: Inbound, now: datetime) -> Inbound:
        return proof.sign(self._checks, inbound, now)

    def describe(self, inbound: Inbound) -> Description:
        body = inbound.object()
        data = body.get("data")
        operation = said(body.get("operation"))
        stage = said(at(data, "stage"))
        header = proof.hint(inbound.headers, _SIGNATURE)
        signed = _read(header) if header is not None else None
        localizations = at(data, "localizations")
        locales = []
        if isinstance(localizations, list):
            locales = [locale for item in localizations if (locale := said(at(item, "locale"))) is not None]
        change = Change(
            said(at(data, "__typename")),
            stage.casefold() if stage is not None else None,
            operation.casefold() if operation is not None else None,
            said(at(data, "id")),
        )
        return Description(
            operation,
            (change,),
            occurred_at=(_moment(signed.at_ms) if signed else None) or parse_rfc3339(at(data, "updatedAt")),
            environment=whole(signed.env) if signed else None,
            extra={"locales": locales} if locales else {},
        )

    def mark(self, inbound: Inbound, description: Description) -> Mark | None:
        # Where a webhook sends no content, two updates of an entry differ in `t` alone.
        header = proof.hint(inbound.headers, _SIGNATURE)
        signed = _read(header) if header is not None else None
        if signed is None:
            return None
        env, at_ms = dedup.encoded(signed.env), str(signed.at_ms).encode()
        return dedup.known_by(env, at_ms, inbound.sha256, window=_REPEATS, at=description.occurred_at)


def concise(body: dict[str, Any]) -> dict[str, Any]:
    """Operation and entry, without the entry's fields."""
    data = body.get("data")
    given = data if isinstance(data, dict) else {}
    kept = {name: given[name] for name in ("__typename", "id", "stage") if name in given}
    return {"operation": body.get("operation"), "data": kept}


def _moment(at_ms: int) -> datetime | None:
    try:
        return from_ms(at_ms)
    except OverflowError:
        return None
