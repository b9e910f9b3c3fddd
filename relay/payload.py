"""What a route sends of an event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode

import orjson

from relay import jsontext, query, rendering, source
from relay.delivery import Code, Failure, Unready, Unsendable
from relay.event import Event
from relay.proof import raw
from relay.secret import Secret
from relay.window import Collected
from relay.work import TooMuch, Work


class Content(NamedTuple):
    """A body and its content type; None for no `Content-Type` header."""

    body: bytes
    type: str | None


class Payload(Protocol):
    """Renders an event, or the window that it is the last event of."""

    def __call__(self, event: Event, event_id: str, collected: Collected | None = None) -> Content:
        """`event_id` is the event's id as users see it. Raises Unsendable."""
        ...


JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
TEXT = "text/plain; charset=utf-8"


def full(event: Event, event_id: str, collected: Collected | None = None) -> Content:
    """The sender's body byte for byte, with its content type; of a batch all bodies, as a JSON array."""
    if collected is not None and collected.kind == "batch":
        return Content(b"[" + b",".join(map(_element, collected.events)) + b"]", JSON)
    return Content(event.body, header(event, "content-type") or "application/octet-stream")


def concise(event: Event, event_id: str, collected: Collected | None = None) -> Content:
    """The sender's body without the content's fields, where its type has such a form; else as `normalized`.

    Of a batch all of them, as a JSON array.
    """
    if collected is not None and collected.kind == "batch":
        pairs = zip(collected.events, collected.ids, strict=True)
        return Content(b"[" + b",".join(concise(*pair).body for pair in pairs) + b"]", JSON)
    shorten = getattr(source.types().get(event.type), "concise", None)
    body = document(event)
    if shorten is None or not isinstance(body, dict):
        return normalized(event, event_id, collected)
    return Content(_json(shorten(body)), JSON)


def normalized(event: Event, event_id: str, collected: Collected | None = None) -> Content:
    """The event's description; of a window the last one's, with all of them as `events`."""
    described = event.as_json(event_id)
    return Content(_json(described if collected is None else described | {"events": _described(collected)}), JSON)


def empty(event: Event, event_id: str, collected: Collected | None = None) -> Content:
    """Nothing: for hooks that only want to be called."""
    return Content(b"", None)


PAYLOADS: dict[str, Payload] = {"full": full, "concise": concise, "normalized": normalized, "empty": empty}


def selected(expression: str, apart: bool = False) -> Payload:
    """What a JMESPath expression selects, as JSON. `apart` has it worked out in a process of its own: it is whatever
    an operator wrote."""
    if apart:
        return _apart("jmespath", expression, {}, lambda body: Content(body, JSON))
    compiled = query.compile(expression)

    def render(event: Event, event_id: str, collected: Collected | None = None) -> Content:
        try:
            result = compiled.search(seen(event, event_id, collected))
            Work().weigh(result)
        except (query.QueryError, TooMuch) as error:
            raise failed(f"the jmespath fails: {error}") from None
        return Content(_json(result), JSON)

    return render


def templated(text: str, route: str, apart: bool = False) -> Payload:
    """What a template makes of it: JSON where that is what it makes, else text. `apart` as for `selected`."""
    if apart:
        return _apart("template", text, {"route": route}, _typed)
    from relay.template import TemplateFailed, compiled  # not imported where no route needs it: memory

    template = compiled(text)

    def render(event: Event, event_id: str, collected: Collected | None = None) -> Content:
        try:
            body = template.render({**seen(event, event_id, collected), "route": route}).encode()
        except TemplateFailed as error:
            raise failed(f"the template fails: {error}") from None
        return _typed(body)

    return render


def _typed(body: bytes) -> Content:
    """A text with the content type that it is."""
    if not body:
        return Content(body, None)
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return Content(body, TEXT)
    return Content(body, JSON)


def _apart(kind: str, text: str, names: Mapping[str, Any], typed: Callable[[bytes], Content]) -> Payload:
    """A payload that is rendered by a helper, within its bounds."""

    def render(event: Event, event_id: str, collected: Collected | None = None) -> Content:
        shown = {**seen(event, event_id, collected, parsed=False), **names}
        try:
            return typed(rendering.render(kind, text, shown, event.body))
        except rendering.CannotRender as error:
            raise failed(f"the {kind} fails: {error}") from None
        except rendering.NoHelper as error:
            failure = Failure(Code.INTERRUPTED, f"the {kind} could not be rendered: {error}")
            raise Unready(failure, begun=error.begun) from None

    return render


def form(fields: Mapping[str, str | Secret]) -> Payload:
    """A form: each field is a secret, or what an expression gives; one that gives nothing is left out."""
    given = {name: query.compile(text) for name, text in fields.items() if isinstance(text, str)}

    def render(event: Event, event_id: str, collected: Collected | None = None) -> Content:
        data = seen(event, event_id, collected)
        pairs = []
        for name, value in fields.items():
            said = value.reveal() if isinstance(value, Secret) else jsontext.scalar_text(given[name].search(data))
            if said is not None:
                pairs.append((name, raw(said)))
        return Content(urlencode(pairs).encode(), FORM)

    return render


def seen(event: Event, event_id: str, collected: Collected | None = None, *, parsed: bool = True) -> dict[str, Any]:
    """What payloads are made of; the body only if it is wanted `parsed`. Proofs in the headers are masked."""
    description = event.as_json(event_id)
    return {
        "event": description,
        "events": [description] if collected is None else _described(collected),
        "body": document(event) if parsed else None,
        "headers": query.headers_object(event.headers),
    }


def _described(collected: Collected) -> list[dict[str, Any]]:
    return [event.as_json(id_text) for event, id_text in zip(collected.events, collected.ids, strict=True)]


def _element(event: Event) -> bytes:
    """A body as an element of a JSON array: as it is, if it is JSON, else as a string."""
    try:
        jsontext.parse(event.body)
    except jsontext.Malformed:
        return _json(event.body.decode("utf-8", "replace"))
    return event.body.removeprefix(b"\xef\xbb\xbf")


def document(event: Event) -> Any:
    """The parsed body; None where it is not JSON. It is not stored: what was read back is parsed when it is needed."""
    if event.document is not None:
        return event.document
    try:
        return jsontext.parse(event.body)
    except jsontext.Malformed:
        return None


def failed(message: str) -> Unsendable:
    """The payload cannot be made."""
    return Unsendable(Failure(Code.TEMPLATE_ERROR, message))


def header(event: Event, lower_name: str) -> str | None:
    """The first value of an event's header."""
    length = len(lower_name)
    for name, value in event.headers:
        if len(name) == length and name.lower() == lower_name:
            return value
    return None


def _json(value: object) -> bytes:
    try:
        return jsontext.dumps(value)
    except jsontext.Malformed as error:
        raise failed(f"the payload cannot be made: {error}") from None
