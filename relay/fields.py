"""The kinds of value that a config holds: durations, sizes, rates, secrets, and the base of its sections.

Every check says what it expected and what it got; `config.py` adds file, line and column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from relay import jsontext
from relay.immutable import immutable
from relay.problems import did_you_mean, nearest
from relay.secret import Secret


class Unresolved(str):
    """A value that `check --no-secrets` did not look up. Checks of a value's content let it pass."""


class Section(BaseModel):
    """A mapping of the config: closed, immutable, and strict about types.

    Every mistake comes out as a ValidationError whose lines are in our words; their `type` says which place of the
    document they are about: UNKNOWN_KEY, MISSING_KEY or BAD_VALUE.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        defer_build=True,  # a config uses few of the types, and most sections only inside of another one
    )
    elsewhere: ClassVar[Mapping[str, str]] = {}
    """Keys that people put here, and where they belong."""
    nullable: ClassVar[frozenset[str]] = frozenset()
    """Keys that may be given without a value."""

    @model_validator(mode="wrap")
    @classmethod
    def _in_our_words(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, cls):
            return data
        if not isinstance(data, dict):
            raise misplaced((), f"expected a mapping, got {_kind(data)}")
        lines: list[InitErrorDetails] = []
        known = {}
        for key, value in data.items():
            if key in cls.model_fields and value is None and key not in cls.nullable:
                # `match:` with nothing after it, all commented out, must not come to mean "everything".
                lines.append(_line(BAD_VALUE, "has no value (leave the key out)", (key,)))
            elif key in cls.model_fields:
                known[key] = tuple(value) if isinstance(value, list) else value
            else:
                lines.append(_line(UNKNOWN_KEY, cls.unknown(key), (key,)))
        while True:
            try:
                section = handler(known)
                break
            except ValidationError as error:
                # A value that was not looked up is not judged: what has a default takes it.
                found = error.errors()
                unresolved = {line["loc"][0] for line in found if isinstance(line["input"], Unresolved)}
                optional = {key for key in unresolved & known.keys() if not cls.model_fields[str(key)].is_required()}
                if not optional:
                    lines.extend(_in_words(line) for line in found if line["type"] != "missing" or _absent(line, data))
                    break
                known = {key: value for key, value in known.items() if key not in optional}
        if lines:
            raise ValidationError.from_exception_data(cls.__name__, lines)
        return section

    @classmethod
    def unknown(cls, key: str) -> str:
        """What is wrong with a key that this section does not have."""
        if key in cls.elsewhere:
            return f"unknown key (did you mean '{cls.elsewhere[key]}'?)"
        return f"unknown key{did_you_mean(key, cls.model_fields)}"


UNKNOWN_KEY, MISSING_KEY, BAD_VALUE = "unknown_key", "missing_key", "bad_value"


def _absent(line: ErrorDetails, data: dict[str, object]) -> bool:
    """Whether a missing key is not even there without a value, which has been said then."""
    return len(line["loc"]) != 1 or line["loc"][0] not in data


def _line(kind: str, message: str, loc: tuple[int | str, ...]) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError(kind, "{message}", {"message": message}), loc=loc, input=None)


def misplaced(loc: tuple[int | str, ...], message: str) -> ValidationError:
    """A mistake in a key below the value that is being checked."""
    return all_misplaced([(loc, message)])


def all_misplaced(mistakes: Iterable[tuple[tuple[int | str, ...], str]]) -> ValidationError:
    """Several of them, each with where it is."""
    return ValidationError.from_exception_data("value", [_line(BAD_VALUE, message, loc) for loc, message in mistakes])


def missing(key: str) -> ValidationError:
    """A key that the value that is being checked lacks."""
    return ValidationError.from_exception_data("value", [_missing(key)])


def _missing(key: str) -> InitErrorDetails:
    return _line(MISSING_KEY, f"missing key '{key}'", ())


def _in_words(line: ErrorDetails) -> InitErrorDetails:
    """A line of pydantic's in our words."""
    kind, value, context = line["type"], line["input"], line.get("ctx", {})
    loc = line["loc"]
    match kind:
        case "unknown_key" | "missing_key" | "bad_value":
            return _line(kind, line["msg"], loc)
        case "missing":
            return _line(MISSING_KEY, f"missing key '{loc[-1]}'", loc[:-1])
        case "value_error":
            message = str(context["error"])
        case "string_type":
            message = f"expected a string, got {shown(value)}" + quote_hint(value)
        case "int_type" | "int_parsing" | "int_from_float":
            message = f"expected a whole number, got {shown(value)}"
        case "float_type" | "float_parsing":
            message = f"expected a number, got {shown(value)}"
        case "bool_type" | "bool_parsing":
            message = f"expected true or false, got {shown(value)}"
        case "tuple_type" | "list_type":
            message = f"expected a list, got {shown(value)}"
        case "dict_type" | "mapping_type" | "is_instance_of":
            message = f"expected a mapping, got {shown(value)}"
        case "greater_than_equal":
            message = f"expected at least {_plain(context['ge'])}, got {got(value)}"
        case "greater_than":
            message = f"expected more than {_plain(context['gt'])}, got {got(value)}"
        case "less_than_equal":
            message = f"expected at most {_plain(context['le'])}, got {got(value)}"
        case "finite_number":
            message = f"expected a finite number, got {got(value)}"
        case "literal_error":
            words = str(context["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
            message = f"expected {any_of(words)}, got {got(value)}{did_you_mean(value, words)}"
        case _:
            message = line["msg"][:1].lower() + line["msg"][1:]
    return _line(BAD_VALUE, message, loc)


def _plain(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def shown(value: object) -> str:
    """A value with its kind: `the number 5`, `a list`."""
    if isinstance(value, bool):
        return f"the boolean {got(value)}"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the string {got(value)}"
    return got(value)


def quote_hint(value: object) -> str:
    """What to do about a number or boolean where a string is wanted."""
    return " (quote it)" if isinstance(value, (bool, int, float)) else ""


def got(value: object) -> str:
    """A value as an error message shows it: never a secret one."""
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 40 else f"'{value[:37]}...'"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def word(*words: str) -> BeforeValidator:
    """A check for one of a few words, as metadata of a `str` or `Literal` field."""

    def check(value: object) -> object:
        if isinstance(value, Unresolved):
            return words[0]
        if value not in words:
            raise ValueError(f"expected {any_of(words)}, got {got(value)}{did_you_mean(value, words)}")
        return value

    return BeforeValidator(check)


_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = timedelta(days=3650)


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, Unresolved):
        return timedelta(0)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"expected a duration such as 500ms, 30s, 10m, 12h or 30d, got {got(value)}")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"expected at most 3650d, got {got(value)}")
    return timedelta(seconds=seconds)


Duration = Annotated[timedelta, BeforeValidator(_duration)]


def _positive(value: object) -> timedelta:
    duration = _duration(value)
    if not duration and not isinstance(value, Unresolved):
        raise ValueError(f"expected a duration above zero, got {got(value)}")
    return duration


PositiveDuration = Annotated[timedelta, BeforeValidator(_positive)]

_SIZE = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def _size(value: object) -> int:
    if isinstance(value, Unresolved):
        return 0
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"expected a size such as 64KiB or 1MiB, got {got(value)}")
    return int(match[1]) * _BYTES[match[2]]


Size = Annotated[int, BeforeValidator(_size)]


@immutable
class Rate:
    """So many in so many seconds."""

    count: int
    seconds: int

    @property
    def per_second(self) -> float:
        """The same in events a second."""
        return self.count / self.seconds


_RATE = re.compile(r"([0-9]{1,9})/(s|m|h)")


def _rate(value: object) -> Rate:
    if isinstance(value, Rate):
        return value
    if isinstance(value, Unresolved):
        return Rate(1, 1)
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError(f"expected a rate such as 10/s, 100/m or 1000/h, got {got(value)}")
    return Rate(int(match[1]), int(_SECONDS[match[2]]))


PerTime = Annotated[Rate, BeforeValidator(_rate)]


def _kind(value: object) -> str:
    """What a value is, for what may be secret: the value itself is not shown."""
    return got(value) if isinstance(value, (dict, list, tuple)) else jsontext.kind(value)


def _secret(value: object) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {_kind(value)}{quote_hint(value)}")
    if not value:
        raise ValueError("the secret is empty")
    return Secret(value)


SecretText = Annotated[Secret, BeforeValidator(_secret)]


def _listed(value: object) -> object:
    if value == [] or value == ():
        raise ValueError("expected at least one value, got an empty list")
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


SecretTexts = Annotated[tuple[SecretText, ...], BeforeValidator(_listed)]
"""One secret or a list of them, all valid: old and new during a rotation."""

Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]
"""One string or a list of strings."""


def _names(value: object) -> object:
    names = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return tuple(dict.fromkeys(names)) if all(isinstance(name, str) for name in names) else names


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""One name or a list of names, which may be empty: nobody."""


def _network(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, Unresolved):
        return ip_network("0.0.0.0/0")
    try:
        if isinstance(value, str):
            return ip_network(value)
    except ValueError as error:
        raise ValueError(f"expected a network such as 10.0.0.0/8, got {got(value)}: {error}") from None
    raise ValueError(f"expected a network such as 10.0.0.0/8, got {got(value)}")


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NO_TEXT = re.compile("[\ud800-\udfff]")  # what Python makes of a variable's bytes that are not UTF-8
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def _header_name(value: object) -> str:
    if not isinstance(value, str) or (_TOKEN.fullmatch(value) is None and not isinstance(value, Unresolved)):
        raise ValueError(f"expected a header name, got {got(value)}")
    return value


def _header_value(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {_kind(value)}{quote_hint(value)}")
    if _CONTROL.search(value):
        raise ValueError("a header value cannot hold CR, LF, NUL or another control character")
    if _NO_TEXT.search(value):
        raise ValueError("a header value must be UTF-8, which this is not")
    return value


HeaderName = Annotated[str, BeforeValidator(_header_name)]
HeaderValue = Annotated[str, BeforeValidator(_header_value)]


def compiled_by(check: Callable[[str], object]) -> WrapValidator:
    """A text that this takes, which says by ValueError what is wrong with it. The text itself is kept."""

    def checked(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        if isinstance(value, Unresolved):
            return value
        text = handler(value)
        check(text)
        return text

    return WrapValidator(checked)


def _unjudged(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    return value if isinstance(value, Unresolved) else handler(value)


UNJUDGED = WrapValidator(_unjudged)
"""A value that was not looked up is kept as such, for who must know."""


def any_of(words: Iterable[Any]) -> str:
    """`a, b or c`."""
    *most, last = [str(word) for word in words]
    return f"{', '.join(most)} or {last}" if most else last


def filled(value: object) -> object:
    """A list that is not empty."""
    if value == () or value == []:
        raise ValueError("expected at least one entry, got an empty list")
    return value


def chosen(value: dict[str, Any], key: str, models: Mapping[str, type[Section]]) -> Section:
    """The section of the model that a mapping's `key` names. Raises ValidationError."""
    if key not in value:
        others = [_line(UNKNOWN_KEY, message, (stranger,)) for stranger, message in strangers(value, None, models)]
        raise ValidationError.from_exception_data("value", [_missing(key), *others])
    name = value[key]
    if isinstance(name, str) and name in models:
        return models[name].model_validate(value)
    raise unchosen(value, key, models)


def unchosen(value: dict[str, Any], key: str, models: Mapping[str, type[Section]]) -> ValidationError:
    """A mapping's `key` names none of the models."""
    name = value[key]
    lines = [_line(BAD_VALUE, f"expected {any_of(models)}, got {got(name)}{did_you_mean(name, models)}", (key,))]
    lines += [_line(UNKNOWN_KEY, message, (stranger,)) for stranger, message in strangers(value, name, models)]
    return ValidationError.from_exception_data("value", lines)


def strangers(value: dict[str, Any], name: object, models: Mapping[str, type[Section]]) -> Iterator[tuple[str, str]]:
    """The keys that none of these models has, each with what is wrong with it, where `name` names none of the models.
    No more can be known of the others: they are right or wrong with the model that was meant."""
    near = nearest(name, models) if isinstance(name, str) else None
    everybodys = {each for model in models.values() for each in model.model_fields}
    for key in value:
        if key not in everybodys:
            yield key, models[near].unknown(key) if near is not None else f"unknown key{did_you_mean(key, everybodys)}"
