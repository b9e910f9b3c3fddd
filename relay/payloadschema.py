"""The kinds of `payload`: words, and sections for what is made to order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator

from relay import payload, query
from relay.fields import Section, Unresolved, any_of, compiled_by, got
from relay.payload import Payload
from relay.problems import did_you_mean
from relay.secret import Secret


class Made(Section):
    """A payload made to order."""

    @abstractmethod
    def build(self, route: str, apart: bool) -> Payload:
        """The payload itself, for the route of this name; rendered `apart` where an operator wrote it."""

    @abstractmethod
    def texts(self) -> tuple[str, ...]:
        """What it is made by."""


def _template(text: str) -> None:
    from relay import template  # not imported where no route needs it: memory

    template.compiled(text)


class Template(Made):
    """A Jinja2 template."""

    template: Annotated[str, compiled_by(_template)]

    def build(self, route: str, apart: bool) -> Payload:
        return payload.templated(self.template, route, apart)

    def texts(self) -> tuple[str, ...]:
        return (self.template,)


class Jmespath(Made):
    """A JMESPath expression."""

    jmespath: Annotated[str, compiled_by(query.compile)]

    def build(self, route: str, apart: bool) -> Payload:
        return payload.selected(self.jmespath, apart)

    def texts(self) -> tuple[str, ...]:
        return (self.jmespath,)


class Form(Made):
    """A form, as presets need it: fields with a secret, or with a JMESPath expression. It is no key of the config."""

    form: Mapping[str, Secret | str]

    def build(self, route: str, apart: bool) -> Payload:
        return payload.form(self.form)

    def texts(self) -> tuple[str, ...]:
        return tuple(text for text in self.form.values() if isinstance(text, str))


_WORDS = tuple(payload.PAYLOADS)
_MADE: dict[str, type[Made]] = {"template": Template, "jmespath": Jmespath}


def _kind(value: object) -> object:
    if isinstance(value, Made):
        return value
    if isinstance(value, Unresolved):
        return "full"
    if isinstance(value, dict):
        kind = next((key for key in value if key in _MADE), None)
        if kind is not None:
            return _MADE[kind].model_validate(value)
    if not isinstance(value, str) or value not in _WORDS:
        near = next(iter(value), None) if isinstance(value, dict) else value
        hint = did_you_mean(near, [*_WORDS, *_MADE])
        raise ValueError(f"expected {any_of((*_WORDS, '{template: …}', '{jmespath: …}'))}, got {got(value)}{hint}")
    return value


Kind = Annotated[Literal["full", "concise", "normalized", "empty"] | Made, BeforeValidator(_kind)]


def build(kind: str | Made, route: str, apart: bool) -> Payload:
    """The payload of a kind, compiled; what is `apart` takes long, and is not to be called on the event loop."""
    return kind.build(route, apart) if isinstance(kind, Made) else payload.PAYLOADS[kind]
