"""What filters take: as tables, and properties that hold for every filter and event."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.event import Change, Description
from relay.pattern import CHANGE_KEYS, EVENT_KEYS, Clause, Filter, Patterns, Subject
from relay.query import QueryError


def subject(*changes: Change, type: str = "strapi", document: Any = None, **fields: Any) -> Subject:  # noqa: A002
    description = Description(fields.pop("event", "entry.publish"), changes or (Change(),), **fields)
    return Subject(
        description,
        type,
        "blog",
        document,
        (("X-Strapi-Event", "entry.publish"), ("X-Two", "a"), ("x-two", "b")),
        lambda: {"event": description.event, "locale": description.locale, "extra": {}},
    )


@pytest.mark.parametrize(
    ("patterns", "value", "taken"),
    [
        (["post"], "post", True),
        (["post"], "POST", True),
        (["POST"], "post", True),
        (["STRASSE"], "straße", True),
        (["post"], "posts", False),
        (["page", "post"], "post", True),
        (["post*"], "posts", True),
        (["post*"], "blogpost", False),
        (["p?st"], "past", True),
        (["p?st"], "pst", False),
        (["p[ao]st"], "past", True),
        (["p[!ao]st"], "past", False),
        (["P[A-Z]ST"], "past", True),
        (["a.c"], "abc", False),
        (["api::*"], "api::address.address", True),
        (["*"], "two\nlines", True),
        (["!draft"], "published", True),
        (["!draft"], "draft", False),
        (["!d*"], "draft", False),
        (["post", "!post"], "post", False),
        (["p*", "!page"], "post", True),
        (["p*", "!page"], "page", False),
        (["p*", "!page"], "story", False),
        (["!a", "!b"], "c", True),
        (["!*"], "c", False),
    ],
)
def test_a_list_takes_what_a_positive_pattern_matches_and_no_negative_one_does(
    patterns: list[str], value: str, taken: bool
) -> None:
    assert Patterns(patterns).takes(value) is taken


@pytest.mark.parametrize(
    ("patterns", "taken"),
    [
        (["*"], True),
        (["**"], False),
        (["?*"], False),
        (["post"], False),
        (["post", "*"], True),
        (["!post"], True),
        (["!?*"], True),
        (["!*"], False),
        (["*", "!post"], True),
        (["p*", "!post"], False),
    ],
)
def test_a_missing_value_matches_no_positive_pattern_but_a_bare_star(patterns: list[str], taken: bool) -> None:
    assert Patterns(patterns).takes(None) is taken


@pytest.mark.parametrize(
    ("action", "taken"),
    [
        (["publish"], True),
        (["unpublish"], True),
        (["Publish", "delete"], True),
        (["pub*"], True),
        (["*publish"], True),
        (["change"], True),
        (["*"], True),
        (["delete"], False),
        (["!publish"], True),
        (["!publish", "!unpublish"], True),
        (["!change"], False),
        (["publish", "!change"], False),
        (["*publish", "!unpublish"], True),
        (["publish", "!c*"], False),
    ],
)
def test_change_satisfies_a_filter_that_lists_publish_or_unpublish(action: list[str], taken: bool) -> None:
    assert Filter({"action": action}).matches(subject(Change(action="change"))) is taken


def test_change_means_publish_only_as_an_action() -> None:
    assert not Filter({"model": ["publish"]}).matches(subject(Change(model="change")))


@pytest.mark.parametrize("action", ["publish_fail", "publish_start", "unpublish_fail"])
def test_a_failure_or_a_mere_start_is_no_publish(action: str) -> None:
    assert not Filter({"action": ["publish", "unpublish"]}).matches(subject(Change(action=action)))


@pytest.mark.parametrize(
    ("filter_", "taken"),
    [
        (Filter(), False),
        (Filter({"action": ["test"]}), True),
        (Filter({"action": ["TEST"]}), True),
        (Filter({"action": ["publish", "test"]}), True),
        (Filter({"action": ["*"]}), False),
        (Filter({"action": ["*", "test"]}), True),
        (Filter({"action": ["te*"]}), False),
        (Filter({"action": ["?*"]}), False),
        (Filter({"action": ["!publish"]}), False),
        (Filter({"action": ["test", "!t*"]}), False),
        (Filter({"model": ["test"]}), False),
        (Filter({}, [{"action": ["test"]}]), True),
        (Filter({}, [{"action": ["publish"]}, {"action": ["test"]}]), True),
        (Filter({}, [{"action": ["test"], "model": ["page"]}, {"stage": ["*"]}]), False),
        (Filter({"action": ["test"]}, [{"stage": ["*"]}]), True),
        (Filter({}, [{"stage": ["*"]}]), False),
    ],
)
def test_a_test_event_goes_only_where_action_names_test(filter_: Filter, taken: bool) -> None:
    assert filter_.matches(subject(Change(action="test"))) is taken


def test_no_match_takes_everything_else() -> None:
    assert Filter().matches(subject())
    assert Filter().matches(subject(Change("post", "draft", "update", "1")))


def test_one_change_must_satisfy_all_keys_of_a_change() -> None:
    wanted = Filter({"model": ["post"], "action": ["publish"]})
    assert not wanted.matches(subject(Change("post", action="delete"), Change("page", action="publish")))
    assert wanted.matches(subject(Change("post", action="delete"), Change("post", action="publish")))


def test_alternatives_hold_within_the_same_change() -> None:
    wanted = Filter({"model": ["post"]}, [{"action": ["publish"], "stage": ["published"]}, {"action": ["delete"]}])
    assert wanted.matches(subject(Change("post", "published", "publish")))
    assert wanted.matches(subject(Change("post", "draft", "delete")))
    assert not wanted.matches(subject(Change("post", "draft", "publish")))
    assert not wanted.matches(subject(Change("post", "draft", "update"), Change("page", None, "delete")))


def test_alternatives_may_ask_for_fields_of_the_event() -> None:
    wanted = Filter({}, [{"locale": ["en"]}, {"model": ["post"], "locale": ["de"]}])
    assert wanted.matches(subject(locale="en"))
    assert wanted.matches(subject(Change("post"), locale="de"))
    assert not wanted.matches(subject(Change("page"), locale="de"))


@pytest.mark.parametrize("key", EVENT_KEYS)
def test_keys_of_the_event_are_compared_with_the_event(key: str) -> None:
    field = {key: "wanted"}
    assert Filter({key: ["WANT*"]}).matches(subject(**field))
    assert not Filter({key: ["other"]}).matches(subject(**field))


@pytest.mark.parametrize(
    ("where", "taken"),
    [
        ("body.entry.locale == 'en'", True),
        ("body.entry.locale == 'de'", False),
        ("body.entry.count", True),
        ("body.entry.empty", False),
        ("body.entry.no", False),
        ("body.entry.list", False),
        ("body.missing", False),
        ("!(event.extra.via_release)", True),
        ("headers.\"x-strapi-event\" == 'entry.publish'", True),
        ("headers.\"x-two\" == 'a, b'", True),
        ("event.event == 'entry.publish'", True),
    ],
)
def test_where_must_come_out_true_in_jmespaths_sense(where: str, taken: bool) -> None:
    entry = {"locale": "en", "count": 0, "empty": "", "no": False, "list": []}
    assert Filter(where=where).matches(subject(document={"entry": entry})) is taken


def test_a_where_over_a_body_that_is_no_json_sees_null() -> None:
    assert Filter(where="body == `null`").matches(subject())


def test_a_where_that_raises_does_not_match_says_so_and_is_counted() -> None:
    wanted = Filter(where="length(body.entry) > `1`")
    heard: list[str] = []
    wanted.on_error = heard.append
    broken = subject(document={"entry": 5})
    assert not wanted.matches(broken)
    assert len(heard) == 1
    [*_, clause] = wanted.explain(broken)
    assert clause.key == "where"
    assert not clause.matched
    assert clause.note == heard[0]
    assert "length" in heard[0]
    assert len(heard) == 1, "explaining counts nothing"


@pytest.mark.parametrize("where", ["lengthh(body)", "length(body, body)", "!body.entry", "body.["])
def test_a_where_that_can_only_fail_is_refused_when_it_is_compiled(where: str) -> None:
    with pytest.raises(QueryError):
        Filter(where=where)


def test_the_event_is_only_built_for_where() -> None:
    def build() -> dict[str, Any]:
        raise AssertionError("not wanted")

    lazy = Subject(Description(None), "strapi", "blog", event_json=build)
    assert Filter({"type": ["strapi"]}).matches(lazy)
    assert not Filter({"type": ["github"]}, where="event").matches(lazy)


def test_the_data_of_where_is_built_once_for_all_filters() -> None:
    built: list[int] = []
    shared = Subject(Description(None), "strapi", "blog", event_json=lambda: built.append(1) or {"a": 1})  # type: ignore[func-returns-value]
    assert Filter(where="event.a").matches(shared)
    assert Filter(where="event.a == `1`").matches(shared)
    assert built == [1]


def test_an_explanation_shows_each_key_with_the_value_it_saw() -> None:
    wanted = Filter({"model": ["post"], "locale": ["en", "de"]})
    assert wanted.explain(subject(Change("page"), locale="de")) == [
        Clause("locale", ("en", "de"), ("de",), True),
        Clause("model", ("post",), ("page",), False, 0),
    ]


def test_an_explanation_is_about_the_change_that_satisfies_or_comes_closest() -> None:
    wanted = Filter({"model": ["post"], "action": ["publish"]})
    page, post, both = Change("page", action="move"), Change("post", action="delete"), Change("post", action="publish")
    assert {clause.change for clause in wanted.explain(subject(page, post, both))} == {2}
    assert {clause.change for clause in wanted.explain(subject(page, post))} == {1}


def test_an_explanation_lists_the_clauses_of_each_alternative() -> None:
    wanted = Filter({}, [{"action": ["publish"]}, {"action": ["delete"], "locale": ["en"]}])
    [clause] = wanted.explain(subject(Change(action="delete"), locale="en"))
    assert (clause.key, clause.matched) == ("any", True)
    assert [[inner.matched for inner in entry] for entry in clause.alternatives] == [[False], [True, True]]


def test_an_explanation_says_why_a_test_event_is_not_taken() -> None:
    [clause] = Filter().explain(subject(Change(action="test")))
    assert not clause.matched
    assert "test" in (clause.note or "")


# --- properties -------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(["post", "page", "publish", "unpublish", "change", "test", "delete", "Draft", "é", ""])
GLOBS = st.one_of(
    WORDS.filter(bool), st.sampled_from(["*", "?*", "p*", "*t", "[a-p]*", "[!p]*", "te?t", "**", "["])
).flatmap(lambda text: st.sampled_from([text, "!" + text]))
LISTS = st.lists(GLOBS, min_size=1, max_size=3)
KEYS = st.dictionaries(st.sampled_from([*CHANGE_KEYS, *EVENT_KEYS]), LISTS, max_size=4)
VALUES = st.none() | WORDS
CHANGES = st.builds(Change, VALUES, VALUES, VALUES, VALUES)
SUBJECTS = st.builds(
    lambda changes, event, locale, branch, document: subject(
        *changes, event=event, locale=locale, branch=branch, document=document
    ),
    st.lists(CHANGES, min_size=1, max_size=3),
    VALUES,
    VALUES,
    VALUES,
    st.none() | st.dictionaries(st.just("a"), st.integers() | st.text(max_size=2), max_size=1),
)
FILTERS = st.builds(
    Filter,
    KEYS,
    st.lists(KEYS, max_size=2),
    st.sampled_from([None, "body.a", "length(body.a) > `0`", "event.locale == 'post'"]),
)


@given(FILTERS, SUBJECTS)
def test_explain_and_matches_agree(filter_: Filter, what: Subject) -> None:
    assert filter_.matches(what) == all(clause.matched for clause in filter_.explain(what))


@given(FILTERS, SUBJECTS)
def test_each_clause_of_any_agrees_with_its_alternatives(filter_: Filter, what: Subject) -> None:
    for clause in filter_.explain(what):
        if clause.key == "any":
            assert clause.matched == any(all(inner.matched for inner in entry) for entry in clause.alternatives)


@given(KEYS, SUBJECTS)
def test_a_filter_with_keys_takes_no_more_than_one_without(keys: dict[str, list[str]], what: Subject) -> None:
    if Filter(keys).matches(what) and all(change.action != "test" for change in what.description.changes):
        assert Filter().matches(what)


@given(st.lists(GLOBS, min_size=1, max_size=3), st.text())
def test_case_never_matters(patterns: list[str], value: str) -> None:
    assert Patterns([p.upper() if "[" not in p else p for p in patterns]).takes(value) == Patterns(patterns).takes(
        value.casefold()
    )


@given(st.text(min_size=1).filter(lambda text: not text.startswith("!") and not re.search(r"[*?\[]", text)))
def test_a_word_matches_itself(word: str) -> None:
    assert Patterns([word]).takes(word)
    assert not Patterns(["!" + word]).takes(word)


@given(SUBJECTS)
def test_any_of_one_alternative_is_the_same_as_its_keys(what: Subject) -> None:
    keys = {"model": ["p*"], "locale": ["!post"], "action": ["publish", "test"]}
    assert Filter(keys).matches(what) == Filter({}, [keys]).matches(what)
