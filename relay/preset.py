"""What a destination preset is: a service that relay knows how to call.

Each module in `relay/destinations/` is one preset (`preset: github-dispatch` is `destinations/github_dispatch.py`) and
holds `Config`: a `Preset` (or `HookPreset`, or `IndexPreset`) with `preset: Literal["github-dispatch"]` and the
service's own keys. It is a `To` that fills itself in: what the service wants stands where the route does not say.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, NamedTuple, Self
from urllib.parse import quote

from pydantic import AfterValidator, BeforeValidator
from yarl import URL

from relay import authschema, fields
from relay.authschema import Auth
from relay.destination import Target
from relay.event import Change, Event
from relay.fields import SecretText, Unresolved, misplaced
from relay.payload import failed
from relay.payloadschema import Jmespath, Made
from relay.routeschema import To
from relay.secret import MASK
from relay.wireschema import NOWHERE, Url, parsed_url, shown_url


def _segment(value: str) -> str:
    if value in ("", ".", "..") and not isinstance(value, Unresolved):
        raise ValueError(f"expected a name, got {fields.got(value)}")
    return value


Segment = Annotated[str, AfterValidator(_segment)]
"""A name that stands, quoted, between two slashes of a URL."""


class Filling(NamedTuple):
    """What a preset puts where the route does not say. Headers and query are merged by name, the route's win."""

    url: URL
    method: str = "POST"
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    auth: Auth | None = None


class Preset(To):
    """A service that relay knows how to call."""

    preset: str
    url: Url = NOWHERE

    @abstractmethod
    def filling(self) -> Filling:
        """What the service wants. Raises ValidationError for keys that do not fit together."""

    def filled(self) -> Self:
        """The whole destination."""
        filling = self.filling()
        own = {name.lower() for name in self.headers}
        update: dict[str, Any] = {
            "headers": {name: value for name, value in filling.headers.items() if name.lower() not in own}
            | dict(self.headers),
            "query": {**filling.query, **self.query},
        }
        given = self.model_fields_set
        update |= {key: getattr(filling, key) for key in ("url", "method", "auth") if key not in given}
        return self.model_copy(update=update)


_HOOK_PATH = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[A-Za-z0-9_~.%/-]+")
_LONG_ENOUGH = 16  # to be a secret by itself: the last segment of a path may also be a word


class HookPreset(Preset):
    """A service that is called by a URL that nobody else may know."""

    base: ClassVar[str | None]
    """What stands before the part of the hook's URL that is the hook's own; None where a whole URL is needed."""

    hook: SecretText
    """The hook's URL, or what follows `base`."""

    def filling(self) -> Filling:
        return Filling(self._hook_url())

    def _hook_url(self) -> URL:
        text = self.hook.reveal()
        if isinstance(text, Unresolved):
            return NOWHERE
        if "://" not in text and self.base is not None and _HOOK_PATH.fullmatch(text):
            text = self.base + text.lstrip("/")
        try:
            return parsed_url(text)
        except ValueError:
            part = "" if self.base is None else f", or what follows {self.base} in it"
            raise misplaced(("hook",), f"expected the hook's URL{part}") from None

    def show(self, url: URL) -> str:
        return shown_url(url.with_path(f"/{MASK}", keep_query=True))

    @property
    def hidden(self) -> tuple[str, ...]:
        path = self.url.raw_path
        last = path.rpartition("/")[2]
        return tuple(text for text in (path.strip("/"), last) if len(text) >= _LONG_ENOUGH)


UPSERTED = ("publish", "update", "create")
DELETED = ("unpublish", "delete")

NOBODYS = "relay-test-5f0c2d9e"  # no entry has it by chance
"""The id of a document that is in no index."""

# The entry as its sender shows it; what a sender only names becomes what is known of it.
_ENTRY = (
    "body.entry || body.media || body.data.entry || body.data.asset || body.data || "
    "{model: event.model, stage: event.stage, locale: event.locale, environment: event.environment, "
    "updated_at: event.occurred_at || event.received_at}"
)


class IndexPreset(Preset):
    """A search index that follows the content: upserted on publish and update, deleted on unpublish and delete."""

    id_key: ClassVar[str]
    """The document's key for its id."""
    ids: ClassVar[re.Pattern[str]] = re.compile(r"(?!\.{1,2}$).+", re.DOTALL)
    """The ids that a document can have."""
    taken: ClassVar[Mapping[str, str]] = {}
    """Those of them at whose place the service has something else, and what that is."""

    key: Annotated[SecretText, BeforeValidator(authschema._token)]

    @abstractmethod
    def upsert(self, entry_id: str) -> Target:
        """The request that adds or replaces a document."""

    @abstractmethod
    def delete(self, entry_id: str) -> Target:
        """The request that takes it away."""

    @property
    def order(self) -> str | None:
        return "latest"  # an older state of an entry must never come after a newer one

    @property
    def document(self) -> str:
        """The document, as JMESPath."""
        return f"merge({_ENTRY}, {{{self.id_key}: event.entry_id}})"

    @property
    def payload(self) -> str | Made | None:
        return Jmespath(jmespath=self.document)

    @property
    def tested(self) -> Change:
        # To delete what is not there changes nothing, and takes the URL, the index and a key that may write there.
        return Change(action="delete", entry_id=NOBODYS)

    def aim(self) -> Callable[[Event], Target] | None:
        def aim(event: Event) -> Target:
            change = event.description.common
            action, entry_id = change.action, change.entry_id
            if action not in UPSERTED and action not in DELETED:
                known = fields.any_of((*UPSERTED, *DELETED))
                hint = "say it with the source's action" if action == "change" else "narrow match.action"
                raise failed(f"{self.preset} takes the actions {known}, not {action or 'none'}: {hint}")
            if not entry_id:
                raise failed(f"{self.preset} needs an event about one entry, and this one names none or several")
            if self.ids.fullmatch(entry_id) is None:
                raise failed(f"{self.preset} has no place for a document with the id {fields.got(entry_id)}")
            if entry_id in self.taken:
                why = self.taken[entry_id]
                raise failed(f"{self.preset} has no place for a document with the id '{entry_id}': {why}")
            return self.delete(entry_id) if action in DELETED else self.upsert(entry_id)

        return aim

    def place(self, path: str, *parts: str, query: Mapping[str, str] | None = None) -> URL:
        """A URL of the service: the path with each `{}` filled in."""
        base = str(self.url.with_query(None)).rstrip("/")
        url = URL(base + path.format(*(quote(part, safe="") for part in parts)), encoded=True)
        return url.extend_query({**self.url.query, **(query or {}), **self.query})

    def requests(self) -> Mapping[str, str]:
        shown = {}
        for actions, target in ((UPSERTED, self.upsert("ENTRY_ID")), (DELETED, self.delete("ENTRY_ID"))):
            shown[", ".join(actions)] = f"{target.method} {self.show(target.url)}"
        return shown


_MESSAGE = """\
{%- macro said(text) -%}
{{ (text | string).split() | join(' ') | truncate(LONGEST, true, '…', 0) | ESCAPE }}
{%- endmacro -%}
{%- set text %}{{ said(event.action or event.event or 'event') }}: {{ said(event.model or 'content') }}
{%- if event.entry_id %} {{ said(event.entry_id) }}{% endif %} from {{ said(event.source) }}
{%- for name in ['stage', 'locale', 'environment', 'branch'] if event[name] %}, {{ name }} {{ said(event[name]) }}
{%- endfor %}{% if events | length > 1 %}, and {{ events | length - 1 }} more{% endif %}{% endset -%}
"""


def message(escape: str, longest: int) -> str:
    """The beginning of a template: it sets `text` to what happened in one line, each part cut and escaped."""
    return _MESSAGE.replace("ESCAPE", escape).replace("LONGEST", str(longest))


@cache
def names() -> tuple[str, ...]:
    """The names of all presets, found by their file names."""
    from relay import destinations

    return tuple(sorted(info.name.replace("_", "-") for info in pkgutil.iter_modules(destinations.__path__)))


def model(name: str) -> type[Preset]:
    """The keys of a preset."""
    module = importlib.import_module(f"relay.destinations.{name.replace('-', '_')}")
    config: type[Preset] = module.Config
    return config


def of(value: dict[str, Any]) -> To:
    """The destination that a mapping with a `preset` means. Raises ValidationError."""
    name = value["preset"]
    if isinstance(name, Unresolved):
        return To(url=NOWHERE)
    if not isinstance(name, str) or name not in names():
        raise fields.unchosen(value, "preset", {each: model(each) for each in names()})
    kind = model(name)
    if issubclass(kind, HookPreset) and "url" in value and "hook" not in value:
        value = {**value, "hook": value["url"]}
    return kind.model_validate(value).filled()
