"""The samples that ship with relay: one real request of each kind for every source type, unsigned."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from importlib.resources import files
from importlib.resources.abc import Traversable

from multidict import CIMultiDict

from relay.event import Inbound
from relay.problems import did_you_mean
from relay.source import types


class UnknownSample(KeyError):
    """There is no sample of this name; the text lists those there are."""

    def __str__(self) -> str:
        return str(self.args[0])


def names(type_name: str) -> list[str]:
    """The names of a type's samples."""
    return sorted(path.name.removesuffix(".json") for path in _folder(type_name).iterdir())


def load(type_name: str, name: str | None = None) -> Inbound:
    """A sample as a request; the one that stands for its type where no name is given. Raises UnknownSample."""
    chosen = name if name is not None else str(types()[type_name].SAMPLE)
    known = names(type_name)
    if chosen not in known:
        hint = did_you_mean(chosen, known)
        raise UnknownSample(f"there is no sample '{chosen}' of {type_name}{hint}: there are {', '.join(known)}")
    sample = json.loads((_folder(type_name) / f"{chosen}.json").read_text("utf-8"))
    return Inbound(CIMultiDict([(header, value) for header, value in sample["headers"]]), sample["body"].encode())


def fresh(type_name: str, name: str | None, now: datetime) -> Inbound:
    """A sample as its sender would send it now, where its requests say when that is. Raises UnknownSample."""
    sample = load(type_name, name)
    renewed: Callable[[Inbound, datetime], Inbound] | None = getattr(types()[type_name], "fresh", None)
    return sample if renewed is None else renewed(sample, now)


def _folder(type_name: str) -> Traversable:
    # An alias has the samples of its type.
    return files("relay.sources") / "samples" / types()[type_name].__name__.rpartition(".")[2]
