"""Which routes want an event: the list by models leaves out only what would not match."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import routing
from relay.config import load
from relay.event import Change, Description
from relay.pattern import Filter, Subject
from relay.routing import Route, Routing
from relay.runtime import build
from tests.fakes import NOON

CONFIG = b"sources: {any: {type: generic, verify: none}}\nroutes: [{name: r, to: {url: 'http://a.test/'}}]\n"
[PLAIN] = build(load(CONFIG), 1, NOON).routing.routes.values()

MODELS = ["article", "Article", "page", "straße", "STRASSE", "!page", "*", "art*", "!*"]
keys = st.fixed_dictionaries(
    {}, optional={"model": st.lists(st.sampled_from(MODELS), min_size=1, max_size=3), "action": st.just(["publish"])}
)
filters = st.builds(lambda given, any_: Filter(given, any=any_), keys, st.lists(keys, max_size=2))
named = st.sampled_from([None, "article", "ARTICLE", "page", "strasse", "other"])
changes = st.builds(Change, named, action=st.just("publish"))
subjects = st.builds(
    lambda found: Subject(Description("e", tuple(found)), "generic", "any"), st.lists(changes, min_size=1, max_size=3)
)


def routes(found: list[Filter]) -> list[Route]:
    return [replace(PLAIN, name=f"r{number}", filter=each) for number, each in enumerate(found)]


@given(st.lists(filters, max_size=8), subjects)
def test_the_same_routes_are_found_as_by_asking_each_in_the_order_of_the_config(
    found: list[Filter], subject: Subject
) -> None:
    all_of_them = routes(found)
    wanted = [route.name for route in all_of_them if route.filter.matches(subject)]
    assert [route.name for route in Routing(all_of_them).match(subject)] == wanted


@given(st.lists(filters, max_size=8), subjects)
def test_also_where_the_lists_would_be_too_long(found: list[Filter], subject: Subject) -> None:
    all_of_them = routes(found)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(routing, "_MOST_LISTED", -1)
        made = Routing(all_of_them)
    assert made.match(subject) == [route for route in all_of_them if route.filter.matches(subject)]


def test_a_route_for_another_model_is_not_even_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Routing(routes([Filter({"model": [f"model{number}"]}) for number in range(1000)] + [Filter()]))
    asked, ask = [], Filter.matches

    def counted(self: Filter, subject: Subject) -> bool:
        asked.append(self)
        return ask(self, subject)

    monkeypatch.setattr(Filter, "matches", counted)
    subject = Subject(Description("e", (Change("model7", action="publish"),)), "generic", "any")
    assert [route.name for route in made.match(subject)] == ["r7", "r1000"]
    assert len(asked) == 2
