"""Which routes want an event: the list by models leaves out only what would not match."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import routing
from relay.config import load
from relay.event import Change, Description, Event
from relay.ids import EventId
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


def told(change: Change, event: str = "e") -> Event:
    return Event(EventId(1), "any", "generic", NOON, Description(event, (change,)), (), b"{}", b"")


@given(st.lists(filters, max_size=8), st.lists(st.tuples(changes, st.sampled_from("ef")), min_size=1, max_size=6))
def test_what_is_remembered_of_the_same_words_is_what_would_be_found(
    found: list[Filter], said: list[tuple[Change, str]]
) -> None:
    made = Routing(routes(found))
    for change, event in said * 2:
        wanted = made.match(Subject(Description(event, (change,)), "generic", "any"))
        assert list(made.wanting(told(change, event), "evt_1", dict)) == wanted


def test_what_differs_from_entry_to_entry_is_not_remembered() -> None:
    made = Routing(routes([Filter({"entry_id": ["7"]}), Filter(where="body.n == `1`")]))
    bodies = iter([{"n": 1}, {"n": 2}])
    found = [made.wanting(told(Change("m", entry_id=number)), "evt_1", lambda: next(bodies)) for number in ("8", "7")]
    assert [[route.name for route in each] for each in found] == [["r1"], ["r0"]]


def test_words_that_senders_make_up_take_no_more_room_than_there_is() -> None:
    made = Routing(routes([Filter()]))
    for number in range(1000):
        assert made.wanting(told(Change("m"), f"e{number}"), "evt_1", dict)
    made.wanting(told(Change("m" * 10_000)), "evt_1", dict)
    known = made._by_source["any"].known
    assert len(known) <= routing._MOST_KNOWN
    assert not [words for words in known if "m" * 10_000 in words]
