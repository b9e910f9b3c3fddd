"""docs/reference/configuration.md: every key of the config, out of the models and their JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from pydantic_core import PydanticUndefined

from relay import notifier, preset, source
from relay.configschema import config_schema, label
from relay.fields import Section
from relay.retryschema import Statuses
from relay.schema import Defaults
from relay.secret import Secret
from relay.wireschema import NOWHERE

_HEAD = """# Every key of the config

Made by `make schema` out of what relay checks a config with; `docs/config.schema.json` is the same for editors. What a
key is for, with examples, is in [the guide](../configuration.md).

A *duration* is a number with `ms`, `s`, `m`, `h` or `d`; a *size* one with `B`, `KiB`, `MiB` or `GiB`; a *rate* is
`10/s`, `100/m` or `1000/h`. A *secret* is never shown. Every text may hold `${…}`:
[values from elsewhere](../configuration.md#values-from-elsewhere). `[]` is each entry of a list, `NAME` a name of your
own. **Needed** is what has no default.
"""


def reference() -> str:
    """The page."""
    schema = config_schema()
    forms = {"Config": schema, **schema["$defs"]}
    models = {label(model): model for model in _models()}
    places: dict[str, list[str]] = {}
    _walk(schema, "", forms, places)
    found = {name: _places(places.get(name, [])) for name in forms}
    order = {key: number for number, key in enumerate(schema["properties"])}
    names = sorted(forms, key=lambda name: (order.get(re.split(r"\W", found[name][0])[0], -1), found[name][0]))
    firsts = [found[name][0] for name in names]
    parts = [_HEAD]
    for name in names:
        model = models["Config" if name == "Config" else forms[name]["title"]]
        parts += _section(forms[name], model, found[name], firsts.count(found[name][0]) > 1)
    return "\n".join(parts) + "\n"


def _places(found: list[str]) -> list[str]:
    """The one that most people want first: not that of all routes together."""
    return sorted(found, key=lambda place: (place.startswith("defaults"), len(place))) or [""]


def _models(base: type[Section] = Section) -> Iterator[type[Section]]:
    source.types()
    notifier.types()
    for name in preset.names():
        preset.model(name)
    for child in base.__subclasses__():
        yield child
        yield from _models(child)


def _walk(form: Any, path: str, forms: Mapping[str, Any], places: dict[str, list[str]]) -> None:
    """Where each section may stand: along the references of the schema."""
    if isinstance(form, list):
        for one in form:
            _walk(one, path, forms, places)
    if not isinstance(form, dict):
        return
    if "$ref" in form:
        name = form["$ref"].rpartition("/")[2]
        if path not in places.setdefault(name, []):
            places[name].append(path)
            _walk(forms[name], path, forms, places)
    for key, inner in form.get("properties", {}).items():
        _walk(inner, f"{path}.{key}".lstrip("."), forms, places)
    if isinstance(form.get("additionalProperties"), dict):
        _walk(form["additionalProperties"], f"{path}.NAME", forms, places)
    _walk(form.get("items"), f"{path}[]", forms, places)
    for key in ("anyOf", "allOf"):
        _walk(form.get(key), path, forms, places)
    _walk(form.get("then"), path, forms, places)


def _section(form: dict[str, Any], model: type[Section], places: list[str], several: bool) -> list[str]:
    keys = form.get("properties", {})
    lines = [f"\n## {_heading(places[0], keys, several)}\n"]
    if len(places) > 1:
        lines.append("Stands at " + ", ".join(f"`{place}`" for place in places) + ".\n")
    lines += ["| key | takes | default | bounds |", "|---|---|---|---|"]
    for key, inner in keys.items():
        needed = key in form.get("required", ())
        info = model.model_fields.get(key)
        usual: Any = info.get_default(call_default_factory=True) if info else None
        if needed:
            default = "**needed**"
        elif places[0].startswith("routes[]") and model.__name__ in ("Route", "To") and key in Defaults.model_fields:
            default = "that of `defaults`"
        elif "octal" in _kind(inner):
            default = f'`"{usual:04o}"`'
        else:
            default = _size(usual) if _kind(inner) == "size" else _written(usual)
        lines.append(f"| `{key}` | {_kind(inner)} | {default} | {_bounds(inner)} |".replace("  ", " "))
    return lines


def _heading(place: str, keys: Mapping[str, Any], several: bool) -> str:
    """A place, and of several forms of a section the word that chooses this one."""
    chosen = [
        (key, _words(keys[key])[0])
        for key in ("type", "preset", "scheme", "policy")
        if key in keys and _words(keys[key])
    ]
    if not place:
        return "The top"
    if several and chosen and place != "routes[].match":
        return "{}, {}: {}".format(place, *chosen[0])
    return f"{place}, {next(iter(keys))}" if several and len(keys) == 1 else place


def _words(form: dict[str, Any]) -> list[str]:
    return [word for one in (form, *form.get("anyOf", ())) for word in one.get("enum", ()) if isinstance(word, str)]


def _kind(form: dict[str, Any]) -> str:
    """As the guide names it."""
    said = re.search(r"\(([^()]*(?:\([^()]*\))?[^()]*)\)$", form.get("description", ""))
    text = said[1] if said else form.get("description", "")
    kind = re.sub(r", default .*$", "", text) or "text"
    return _plain(kind if kind[:2].isupper() else kind[:1].lower() + kind[1:])


def _bounds(form: dict[str, Any]) -> str:
    """What the schema knows of a value."""
    found = []
    for one in (form, *form.get("anyOf", ())):
        found.append(" ".join(f"`{word}`" for word in one.get("enum", ()) if isinstance(word, str)))
        if (one.get("minimum"), one.get("maximum")) == (0, 0o777):
            continue
        if "minimum" in one or "maximum" in one:
            found.append(f"{one.get('minimum', '')} to {one.get('maximum', '')}".removesuffix(" to "))
        if "minLength" in one:
            found.append("not empty")
        if one.get("minItems"):
            found.append("at least one")
    return _plain(", ".join(dict.fromkeys(text for text in found if text)))


def _plain(text: str) -> str:
    return text.replace("|", r"\|")


def _written(value: Any) -> str:
    """A default as one would write it."""
    if value == NOWHERE:
        return "the preset's"
    if isinstance(value, Statuses):
        return f"`{', '.join(value.texts)}`"
    if value is None or value is PydanticUndefined or isinstance(value, Secret):
        return "none"
    if isinstance(value, timedelta):
        ms = round(value.total_seconds() * 1000)
        unit = next(unit for unit in ("d", "h", "m", "s", "ms") if ms % _MS[unit] == 0) if ms else "s"
        return f"`{ms // _MS[unit]}{unit}`"
    if isinstance(value, bool):
        return f"`{json.dumps(value)}`"
    if isinstance(value, (int, float)):
        return f"`{value}`"
    if isinstance(value, str):
        return f"`{value}`" if value else "none"
    if isinstance(value, Mapping | Section) or (isinstance(value, (list, tuple, frozenset)) and not value):
        return "none" if not isinstance(value, Section) else "its own defaults"
    if isinstance(value, (list, tuple)):
        return "`[" + ", ".join(str(one) for one in value) + "]`"
    return f"`{value}`"


def _size(value: int) -> str:
    unit, power = next(
        (unit, power) for unit, power in (("MiB", 20), ("KiB", 10), ("B", 0)) if value % (1 << power) == 0
    )
    return f"`{value >> power}{unit}`"


_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
