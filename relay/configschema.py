"""The config's JSON Schema (2020-12), for completion and checking in editors, made of the models that read the config.

It says what can be said by shape: keys, kinds of values, words, and which keys a `type`, `preset`, `scheme` or `policy`
brings. What only shows by meaning (names that must exist, values that exclude each other) is for `relay check`.

A value of the config is checked by functions of ours before pydantic sees it, so what it may look like is known by the
function: `_FORMS`. Wherever a text is wanted, it may also hold a `${…}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from relay import (
    fields,
    notifier,
    payload,
    payloadschema,
    preset,
    retryschema,
    routeschema,
    signschema,
    source,
    wireschema,
)
from relay import schema as sections

Json = dict[str, Any]

_REFERENCE = r"\$\{"
_DURATION = r"[0-9]{1,12}(\.[0-9]{1,6})?(ms|s|m|h|d)"
_RATE = r"[0-9]{1,9}/(s|m|h)"
_STATUS: Json = {
    "anyOf": [
        {"type": "integer", "minimum": 100, "maximum": 599},
        {"type": "string", "pattern": rf"^[1-5](xx|[0-9]{{2}}(-[1-5][0-9]{{2}})?)$|{_REFERENCE}"},
    ]
}


def _text(pattern: str) -> Json:
    """A string of this form, or one that gets it from outside."""
    return {"type": "string", "pattern": f"^({pattern})$|{_REFERENCE}"}


def _words(words: Iterable[str]) -> Json:
    return {"anyOf": [{"enum": list(words)}, {"type": "string", "pattern": _REFERENCE}]}


def _or(*forms: Json) -> Json:
    return {"anyOf": list(forms)}


_STATUSES = _or(_STATUS, {"type": "array", "items": _STATUS})
_HTTP_URL = _text("https?://.+")

# By the function that checks the value; what is not here is what its inner type says.
_FORMS: dict[Callable[..., Any], Json] = {
    fields._duration: _text(_DURATION),
    fields._positive: _text(_DURATION),
    fields._size: _text("[0-9]{1,12}(B|KiB|MiB|GiB)"),
    fields._rate: _text(_RATE),
    fields._secret: {"type": "string", "minLength": 1},
    fields._network: _text("[0-9A-Fa-f:.]+(/[0-9]{1,3})?"),
    fields._header_name: _text(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"),
    fields._header_value: {"type": "string", "pattern": r"^[^\x00-\x08\x0a-\x1f\x7f]*$"},
    sections._mode: _or(_text("0?[0-7]{3}"), {"type": "integer", "minimum": 0, "maximum": 0o777}),
    sections._proxy: _text("unix|[0-9A-Fa-f:.]+(/[0-9]{1,3})?"),
    sections._denied: _text("metadata|link-local|loopback|private|[0-9A-Fa-f:.]+(/[0-9]{1,3})?"),
    sections._token: {"type": ["string", "null"]},
    sections._store_url: _text("sqlite:(?!//)(?!:memory:$).+|postgres(ql)?://([^@/ ]*@)?[^@ ]*"),
    wireschema._url: _HTTP_URL,
    wireschema._proxy: _text("none|http://.+"),
    routeschema._pattern: {"type": "string", "minLength": 1},
    routeschema._method: _text("[A-Z][A-Z-]*"),
    routeschema._age: _text(f"none|{_DURATION}"),
    routeschema._pace: _text(f"none|{_RATE}"),
    routeschema._failures: _or(_words(["never"]), {"type": "integer", "minimum": 1, "maximum": 1_000_000}),
    routeschema._name: _text("[a-z0-9-]+"),
    retryschema._some: _STATUSES,
    retryschema.statuses: _STATUSES,
}
_LISTED = "_listed"
"""What checks are called that take one value or a list of them; some source types have their own."""
_MAY_BE_EMPTY = (fields._names, routeschema._by)
"""The same, and the list may be empty."""


class _Generator(GenerateJsonSchema):
    """pydantic's own, which knows what our checks take."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> Json:
        check: Any = schema["function"]["function"]
        if check in _FORMS:
            return dict(_FORMS[check])
        if check in _MAY_BE_EMPTY or check.__name__ == _LISTED:
            inner = self.generate_inner(schema["schema"])
            several = inner if check in _MAY_BE_EMPTY else {**inner, "minItems": 1}
            return _or(inner["items"], several)
        if check is fields.filled:
            return {**self.generate_inner(schema["schema"]), "minItems": 1}
        if check is sections._address:
            return _or(_text(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]*):[0-9]{1,5}"), self.of(sections.UnixAddress))
        if check is payloadschema._kind:
            made = [self.of(model) for model in (payloadschema.Template, payloadschema.Jmespath)]
            return _or(_words(payload.PAYLOADS), *made)
        if check is retryschema._retry:
            by_policy = self._chosen("policy", retryschema._POLICIES, usual="exponential")
            return _or(_words([*retryschema._POLICIES, *retryschema.RETRY_PRESETS]), by_policy)
        if check is signschema._sign:
            return self._chosen("scheme", signschema.SIGNS)
        if check is routeschema._to:
            return self._destination()
        return self.generate_inner(schema["schema"])

    def _destination(self) -> Json:
        """`to`: a preset's keys where one is named, else those of any destination."""
        presets = {name: preset.model(name) for name in preset.names()}
        chosen = self._chosen("preset", presets, required=False)
        chosen["allOf"].append({"if": {"not": {"required": ["preset"]}}, "then": self.of(routeschema.To)})
        return chosen

    def _chosen(
        self, key: str, models: Mapping[str, type[BaseModel]], *, required: bool = True, usual: str | None = None
    ) -> Json:
        """A mapping whose `key` names its model; `usual` is the one that is meant where the key is not there."""
        chosen: Json = {"type": "object", "properties": {key: _words(models)}}
        if required and usual is None:
            chosen["required"] = [key]
        chosen["allOf"] = [
            {"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": self.of(model)}
            for name, model in models.items()
        ]
        if usual is not None:
            chosen["allOf"].append({"if": {"not": {"required": [key]}}, "then": self.of(models[usual])})
        return chosen

    def of(self, model: type[BaseModel]) -> Json:
        """A reference to a section."""
        return self.generate_inner(model.__pydantic_core_schema__)

    def model_schema(self, schema: core_schema.ModelSchema) -> Json:
        """A section: no key but its own, each with what the documentation says of it."""
        model: type[BaseModel] = schema["cls"]
        made = super().model_schema(schema)
        made["title"] = label(model)
        for key, form in made.get("properties", {}).items():
            said = _said(model, key)
            if said is not None:
                form["description"] = said
        if issubclass(model, preset.HookPreset):
            # `url` means the same.
            made["required"] = [key for key in made["required"] if key != "hook"]
            made["anyOf"] = [{"required": ["hook"]}, {"required": ["url"]}]
            made["properties"]["url"] = {**made["properties"]["hook"]}
        return made

    # A key without a value is a mistake, whatever it means when it is not there.
    def nullable_schema(self, schema: core_schema.NullableSchema) -> Json:
        return self.generate_inner(schema["schema"])

    # Defaults are told in words: pydantic would write durations and the like in forms that no config has.
    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Json:
        return self.generate_inner(schema["schema"])

    def literal_schema(self, schema: core_schema.LiteralSchema) -> Json:
        words = schema["expected"]
        return _words(words) if len(words) > 1 and all(isinstance(one, str) for one in words) else {"enum": words}

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> Json:
        return _text(_DURATION)

    def is_instance_schema(self, schema: core_schema.IsInstanceSchema) -> Json:
        return {"type": "string"}  # what we make of texts ourselves: URLs, secrets

    def dict_schema(self, schema: core_schema.DictSchema) -> Json:
        names, values = self.generate_inner(schema["keys_schema"]), self.generate_inner(schema["values_schema"])
        made: Json = {"type": "object", "additionalProperties": values}
        return {**made, "propertyNames": names} if "pattern" in names else made

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def label(model: type[BaseModel]) -> str:
    """What a section is called: by its class, or by the file that it is alone in."""
    package, _, module = model.__module__.removeprefix("relay.").rpartition(".")
    return f"{package}.{module}" if package and model.__qualname__ in ("Config", "Keys") else model.__qualname__


@cache
def _texts() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(resources.files("relay").joinpath("configtexts.json").read_text())
    return found


def _said(model: type[BaseModel], key: str) -> str | None:
    """What docs/configuration.md says of a key: in the section's own table, or in that of what it builds on."""
    for kind in model.__mro__:
        if issubclass(kind, BaseModel) and key in _texts().get(label(kind), {}):
            return _texts()[label(kind)][key]
    return None


def config_schema() -> Json:
    """The whole."""
    made = _Top().generate(sections.Config.__pydantic_core_schema__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "relay",
        **{key: value for key, value in made.items() if key not in ("title", "$schema")},
    }


class _Top(_Generator):
    """Where sources and notifiers are known by their `type`."""

    def model_schema(self, schema: core_schema.ModelSchema) -> Json:
        made = super().model_schema(schema)
        if schema["cls"] is sections.Config:
            own: Json = made["properties"]
            for key, types in (("sources", source.types()), ("notifiers", notifier.types())):
                models = {name: module.Config for name, module in types.items()}
                own[key]["additionalProperties"] = self._chosen("type", models)
            own["sources"]["propertyNames"] = {"pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]*$"}
            for key, form in own.items():
                own[key] = _or_nothing(form)
        return made


def _or_nothing(form: Json) -> Json:
    """A key of the top may have no value: all of it may be commented out."""
    if "type" in form:
        return {**form, "type": [form["type"], "null"]}
    said = form.pop("description", None)
    return {"description": said, **_or(form, {"type": "null"})}
