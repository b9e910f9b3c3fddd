"""What of a message may be shown: no proofs, no secrets, and no echo of them in an answer. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from functools import lru_cache

from relay.delivery import Response
from relay.headernames import Chosen
from relay.secret import MASK, Redactor

SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"})

_RUN = re.compile("[A-Za-z0-9]+")
_LONG, _FEW = 12, 16
_LONG_RUN = re.compile(f"[A-Za-z0-9]{{{_LONG}}}")
_MOST_HIDDEN, _MOST_HARMLESS, _SHORT = 32, 64, 128
"""For how many sets of hidden headers how many others are remembered, and how long these are."""
_MOST_ANSWERS, _SHORT_ANSWER = 64, 512


def is_harmless(response: Response, sent: Iterable[tuple[str, str]], redact: Redactor, hidden: frozenset[str]) -> bool:
    """Whether an answer is known to hold neither secrets nor room for the values of these headers: most are, to the
    second, the one before."""
    if (hidden, response.headers, response.body) not in redact.harmless_answers or response.truncated:
        return False
    for _, value in sent:  # noqa: SIM110 - see Redactor
        if _LONG_RUN.search(value) is None:
            return False
    return True


def may_echo(response: Response, sent: Iterable[str]) -> bool:
    """Whether an answer can hold one of these values at all: a quick look, since nearly none does.

    However a value is written, the longest run of letters and digits in it stays as it is; in base64 the letters in the
    middle depend on where it begins.
    """
    if response.truncated:
        return True  # half of one may stand at the end
    body = response.body
    short = _has_no_room(response)
    for value in sent:
        if short and _LONG_RUN.search(value) is not None:
            continue  # there is no room for it
        run = max(_RUN.findall(value), key=len, default="")
        for _, told in response.headers:
            if run in told:
                return True
        if len(body) < len(run):
            continue
        raw = value.encode()
        coded = (base64.b64encode(raw[start:])[8:20] for start in range(3))
        if run.encode() in body or any(one in body for one in coded):
            return True
    return False


def _has_no_room(response: Response) -> bool:
    """Whether no long run of letters and digits can stand in it."""
    return len(response.body) < _LONG and len(response.headers) <= _FEW and _longest(response.headers) < _LONG


@lru_cache(16)
def _longest(headers: tuple[tuple[str, str], ...]) -> int:
    """How long a run of letters and digits is at most that stands in a value of these headers."""
    return max((len(run) for _, value in headers for run in _RUN.findall(value)), default=0)


def without_secrets(response: Response, redact: Redactor, hidden: frozenset[str] = frozenset()) -> Response:
    """An answer with the secrets that a redactor knows, and all values of proofs and of the headers in `hidden`, as
    ***."""
    text = response.body.decode("utf-8", "surrogateescape")
    # Nearly always there is none, and all headers but one or two are those of the answer before.
    known = redact.harmless.get(hidden, ())
    new = [header for header in (*response.headers, ("", text)) if header not in known]
    if (not new or _are_harmless(new, redact, hidden)) and not response.truncated:
        if _has_no_room(response):
            _remember(response, redact, hidden)
        return response
    headers = without_proofs(response.headers, hidden)
    if redact.finds("\n".join([*[value for _, value in headers], text])):
        headers = tuple((name, redact(value)) for name, value in headers)
        text = redact(text)
    if response.truncated:
        text = redact.cut(text)
    return Response(response.status, headers, text.encode("utf-8", "surrogateescape"), response.truncated)


def _are_harmless(headers: list[tuple[str, str]], redact: Redactor, hidden: frozenset[str]) -> bool:
    """Whether there is nothing to mask in them; if so they are remembered, within bounds: strangers choose them."""
    if _proofs(hidden).of([name for name, _ in headers]) or redact.finds("\n".join([value for _, value in headers])):
        return False
    if hidden not in redact.harmless and len(redact.harmless) >= _MOST_HIDDEN:
        redact.harmless.clear()
    known = redact.harmless.setdefault(hidden, set())
    if len(known) >= _MOST_HARMLESS:
        known.clear()
    known.update([header for header in headers[:_MOST_HARMLESS] if len(header[0]) + len(header[1]) <= _SHORT])
    return True


def _remember(response: Response, redact: Redactor, hidden: frozenset[str]) -> None:
    """Within bounds, as above."""
    if sum([len(name) + len(value) for name, value in response.headers]) <= _SHORT_ANSWER:
        known = redact.harmless_answers
        if len(known) >= _MOST_ANSWERS:
            known.clear()
        known.add((hidden, response.headers, response.body))


def without_proofs(headers: Iterable[tuple[str, str]], hidden: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Headers with the values of proofs, and of the headers in `hidden`, as ***."""
    headers = tuple(headers)
    proofs = _proofs(hidden).of([name for name, _ in headers])
    if not proofs:
        return headers
    return tuple([(name, MASK) if name in proofs else (name, value) for name, value in headers])


@lru_cache(256)
def _proofs(hidden: frozenset[str]) -> Chosen:
    """The headers that are not for showing, some routes' own among them."""
    return Chosen(lambda name: is_proof(name) or name.lower() in hidden)


def is_proof(name: str) -> bool:
    """Whether a header is one of credentials or a signature, whoever's: its value is not for showing."""
    name = name.lower()
    return name in SECRET_HEADERS or "signature" in name
