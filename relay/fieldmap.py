"""A source's `map`: fields of the description that the operator takes from the request by JMESPath."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from relay import query
from relay.clock import parse_rfc3339
from relay.event import Change, Description, Inbound
from relay.fields import any_of
from relay.jsontext import Malformed, said
from relay.secret import MASK

_OF_EVENT = ("event", "environment", "branch", "locale", "occurred_at")
_OF_CHANGE = ("model", "stage", "action", "entry_id")
_FOLDED = frozenset({"stage", "action"})


class FieldMap:
    """Expressions over `{body, headers}`, each for one field. Raises ValueError for one that can only fail.

    `masked` are names of headers that carry proofs, in lower case: expressions see *** there, as everyone else does.
    """

    def __init__(self, expressions: Mapping[str, str], masked: frozenset[str] = frozenset()) -> None:
        self._masked = masked
        self._event: dict[str, query.Query] = {}
        self._change: dict[str, query.Query] = {}
        for field, text in expressions.items():
            if field not in _OF_EVENT and field not in _OF_CHANGE:
                raise ValueError(f"{field}: expected {any_of((*_OF_EVENT, *_OF_CHANGE))}")
            try:
                compiled = query.compile(text)
            except query.QueryError as error:
                raise ValueError(f"{field}: {error}") from None
            (self._event if field in _OF_EVENT else self._change)[field] = compiled
        paths = [compiled.path for compiled in (*self._event.values(), *self._change.values())]
        self._body_alone = all(path is not None and path[0] == "body" for path in paths)

    def apply(self, description: Description, inbound: Inbound) -> Description:
        """The description with the mapped fields replaced; what the expression does not find is not said."""
        try:
            document = inbound.document()
        except Malformed:
            document = None
        data = {"body": document}
        if not self._body_alone:
            data["headers"] = query.headers_object(
                (name, MASK if name.lower() in self._masked else value) for name, value in inbound.headers.items()
            )
        changes = description.changes
        if self._change:
            values = {field: _text(field, expression, data) for field, expression in self._change.items()}
            # Changes that came out equal say one thing.
            changes = tuple(dict.fromkeys(_with(change, values) for change in changes))
        told = {field: _text(field, expression, data) for field, expression in self._event.items()}
        return Description(
            event=told.get("event", description.event),
            changes=changes,
            occurred_at=(parse_rfc3339(told["occurred_at"]) if "occurred_at" in told else description.occurred_at),
            environment=told.get("environment", description.environment),
            branch=told.get("branch", description.branch),
            locale=told.get("locale", description.locale),
            extra=description.extra,
        )


def _with(change: Change, values: Mapping[str, str | None]) -> Change:
    changed = replace(change, **values)
    # What a sender says is a test stays one: `action: "'publish'"` means what it says of content, and no button that
    # somebody presses to try the connection is to start a build.
    return replace(changed, action=change.action) if change.is_test else changed


def _text(field: str, expression: query.Query, data: object) -> str | None:
    try:
        text = said(expression.search(data))
    except query.QueryError:
        return None
    return text.casefold() if text is not None and field in _FOLDED else text
