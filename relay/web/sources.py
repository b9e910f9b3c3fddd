"""Sources: what came to them, why some was refused, and by which of their secrets requests prove themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from relay.fields import Section
from relay.metrics import GENUINE
from relay.proof import labels
from relay.runtime import Runtime
from relay.source import Source, SourceConfig
from relay.web import shape
from relay.web.answer import answer
from relay.web.desk import Desk
from relay.web.operation import Operation, Table, gives
from relay.web.schemas import array, closed, ref

LIST = Operation(
    "GET",
    "/sources",
    "listSources",
    "sources",
    "What came to each source, why some was refused, and when each of its secrets was last used.",
    {200: gives("The sources of the config.", closed({"sources": array(ref("Source"))}))},
)


class Sources:
    """The handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def table(self) -> Table:
        """What is answered here."""
        return [(LIST, self._list)]

    async def _list(self, request: web.Request) -> web.Response:
        runtime = self._desk.reloader.runtime
        return answer(200, {"sources": [self._shown(source, runtime) for source in runtime.sources.values()]})

    def _shown(self, source: Source, runtime: Runtime) -> dict[str, Any]:
        config, tally = runtime.config.sources[source.name], source.tally
        health = self._desk.listening.of(source.name)
        return {
            "name": source.name,
            "type": source.type,
            "path": source.path,
            "verify": list(config.proofs()),
            "last_event_at": shape.when(health.last_event_at),
            "silent_since": shape.when(health.silent_since),
            **{outcome: self._desk.metrics.events.labels(source.name, outcome).value for outcome in GENUINE},
            "rejected": dict(sorted(tally.rejected.items(), key=lambda counted: -counted[1])),
            "secrets": [{"proof": name, "last_used_at": shape.when(tally.used.get(name))} for name in proofs(config)],
        }


def proofs(config: SourceConfig) -> list[str]:
    """Each secret of a source by its name in the config, as adapters say which one held: `secret[1]`."""
    return [name for key in config.proofs() for name in _named(key, getattr(config, key))]


def _named(key: str, value: object) -> Iterator[str]:
    if isinstance(value, tuple):
        yield from labels(key, len(value))
    elif isinstance(value, Mapping):
        for name, values in value.items():
            yield from _named(f"{key}.{name}", values)
    elif isinstance(value, Section):
        for name in type(value).model_fields:
            if isinstance(secrets := getattr(value, name), tuple):
                yield from _named(key if name == "value" else f"{key}.{name}", secrets)
