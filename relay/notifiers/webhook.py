"""An HTTP request: JSON as it stands below, or what a chat service wants.

{"kind": "unhealthy", "subject": "www", "title": "…", "text": "…", "at": "2026-11-23T20:00:00.123Z", "count": 1}
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from relay import __version__, jsontext, preset
from relay.authschema import Basic, FixedAuth
from relay.client import Reply
from relay.clock import rfc3339
from relay.delivery import Code
from relay.destination import HOP_BY_HOP, Limits, Outbound
from relay.effective import is_secret_header
from relay.fields import PositiveDuration, SecretText, Unresolved, all_misplaced, any_of, got, misplaced
from relay.notifier import Means, Message, Notifier, NotifierConfig, NotSent, of_notifiers
from relay.preset import HookPreset
from relay.problems import did_you_mean
from relay.retry import parse_retry_after
from relay.routeschema import Headers
from relay.secret import Redactor
from relay.unreachable import Unreachable
from relay.wireschema import NOWHERE, parsed_url

_LONGEST = timedelta(seconds=60)
_LONGEST_CONNECT = 5.0
_KEPT = 1024  # bytes of an answer: enough for the word in which services say what is wrong
_SHOWN = 200
_AGAIN = frozenset({408, 425, 429})
_OWN = HOP_BY_HOP | {"host", "content-length"}


def _notice(name: str) -> str | None:
    """The template of what is said to people in `lines`; None where a service shows no text."""
    notice: str | None = getattr(preset.model(name), "notice", None)
    return notice


def _preset(value: object) -> object:
    if isinstance(value, Unresolved):
        return None
    if not isinstance(value, str) or value not in preset.names() or _notice(value) is None:
        words = [name for name in preset.names() if _notice(name) is not None]
        raise ValueError(f"expected {any_of(words)}, got {got(value)}{did_you_mean(value, words)}")
    return value


class _Hook(HookPreset):
    """Any URL that nobody else may know."""

    base = None

    preset: Literal["none"]


class Config(NotifierConfig):
    """Where to, and in what form."""

    type: Literal["webhook"]
    url: SecretText
    preset: Annotated[str | None, BeforeValidator(_preset)] = None
    headers: Headers = Field(default_factory=dict)
    auth: FixedAuth | None = None
    timeout: PositiveDuration = timedelta(seconds=10)

    @model_validator(mode="wrap")
    @classmethod
    def _whole(cls, data: object, handler: ModelWrapValidatorHandler[Config]) -> Config:
        section = handler(data)
        mistakes: list[tuple[tuple[str, ...], str]] = []
        if section.timeout > _LONGEST:
            mistakes.append((("timeout",), "expected at most 60s"))
        for name in section.headers:
            if name.lower() in _OWN:
                mistakes.append((("headers", name), f"'{name}' is written by relay"))
            elif name.lower() == "authorization" and section.auth is not None:
                mistakes.append((("headers", name), f"'{name}' is also written by auth"))
        try:
            section._to()
        except ValidationError as error:
            mistakes.append((("url",), error.errors()[0]["msg"]))
        if mistakes:
            raise all_misplaced(mistakes)
        return section

    def _to(self) -> HookPreset:
        """The destination that the URL means. Raises ValidationError."""
        text = self.url.reveal()
        if isinstance(text, Unresolved):
            return _Hook(preset="none", hook=self.url, url=NOWHERE)
        if self.preset is None:
            try:
                return _Hook(preset="none", hook=self.url, url=parsed_url(text))
            except ValueError as error:
                raise misplaced(("url",), str(error).replace("to.auth", "auth")) from None
        try:
            filled = preset.model(self.preset).model_validate({"preset": self.preset, "hook": self.url}).filled()
        except ValidationError as error:
            raise misplaced(("url",), error.errors()[0]["msg"]) from None
        assert isinstance(filled, HookPreset)
        return filled

    @property
    def host(self) -> str | None:
        url = self._to().url
        return url.host if url.host != NOWHERE.host else None

    @property
    def hidden(self) -> tuple[str, ...]:
        to = self._to()
        return (*to.hidden, *(value for value in to.url.query.values() if value))

    @property
    def exposed(self) -> tuple[str, str] | None:
        url = self._to().url
        return ("url", url.host or "") if url.scheme == "http" else None

    def build(self, means: Means) -> Notifier:
        return Webhook(self, self._to(), means)


class Webhook:
    """Posts messages to a URL."""

    def __init__(self, config: Config, to: HookPreset, means: Means) -> None:
        self._url = to.url
        self._means = means
        self._notice = _notice(config.preset) if config.preset is not None else None
        self._limits = Limits(config.timeout.total_seconds(), _LONGEST_CONNECT, _KEPT)
        headers = {"Content-Type": "application/json", "User-Agent": f"relay/{__version__}"}
        own = {name.lower() for name in config.headers}
        self._headers = [(name, value) for name, value in headers.items() if name.lower() not in own]
        self._headers += config.headers.items()
        if config.auth is not None:
            self._headers.append(("Authorization", config.auth.header))
        self._own = Redactor(_secrets(config))

    async def send(self, message: Message) -> None:
        """See Notifier."""
        request = Outbound("POST", self._url, list(self._headers), self._body(message))
        try:
            reply = await self._means.transport.send(request, self._limits)
        except Unreachable as error:
            failure = error.failure
            reason = self._masked(of_notifiers(failure.message))
            raise NotSent(reason, again=failure.code is not Code.BLOCKED_ADDRESS) from None
        if not 200 <= reply.response.status < 300:
            raise self._refused(reply)

    def _body(self, message: Message) -> bytes:
        if self._notice is None:
            return jsontext.dumps(
                {
                    "kind": message.kind.value,
                    "subject": message.subject,
                    "title": message.title,
                    "text": message.text,
                    "at": rfc3339(message.at),
                    "count": message.count,
                }
            )
        from relay.template import compiled  # not imported where nobody needs it: memory

        return compiled(self._notice).render({"lines": [message.title, *message.text.splitlines()]}).encode()

    def _refused(self, reply: Reply) -> NotSent:
        response, now = reply.response, self._means.clock.now()
        later = parse_retry_after(reply.retry_after, now)
        said = response.body.decode("utf-8", "replace")
        said = self._masked(self._own.cut(said) if response.truncated else said)
        said = " ".join("".join(c if c.isprintable() else " " for c in said).split())[:_SHOWN]
        reason = f"HTTP {response.status}{f': {said}' if said else ''}"
        again = response.status in _AGAIN or response.status >= 500
        return NotSent(reason, again=again, after=later - now if later is not None else None)

    def _masked(self, text: str) -> str:
        return self._means.redact(self._own(text))


def _secrets(config: Config) -> Sequence[str]:
    found = [config.url.reveal(), *config.hidden]
    found += [value for name, value in config.headers.items() if is_secret_header(name)]
    match config.auth:
        case None:
            pass
        case Basic(username=username, password=password):
            found += [password.reveal(), f"{username}:{password.reveal()}"]
        case bearer:
            found.append(bearer.token.reveal())
    return found
