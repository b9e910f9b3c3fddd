"""JMESPath is refused at load where it could only fail, and fails in one way afterwards."""

from __future__ import annotations

from contextlib import suppress

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import query
from relay.query import QueryError


@pytest.mark.parametrize(
    ("text", "data", "expected"),
    [
        ("body.entry.locale", {"body": {"entry": {"locale": "en"}}}, "en"),
        ('headers."x-event"', {"headers": {"x-event": "push"}}, "push"),
        ("'publish'", {}, "publish"),
        ("a == `1` && !(b.c)", {"a": 1}, True),
        ("!a || b", {"b": 2}, True),
        ("!a == b", {"b": True}, True),
        ("!a[*].b", {"a": [{"b": 1}]}, False),
        ("!a | @", {}, True),
        ("not_null(a, b)", {"b": 2}, 2),
        ("join(', ', a[?b != 'x'].b)", {"a": [{"b": "x"}, {"b": "y"}]}, "y"),
    ],
)
def test_an_expression_selects(text: str, data: object, expected: object) -> None:
    assert query.compile(text).search(data) == expected


@pytest.mark.parametrize("text", ["a", "a.b", "a.b.c", '"a.b"', '"a".b', "@", "a.b[0]", "a.*", "a.b || c", "a.{b: b}"])
@given(
    data=st.recursive(
        st.none() | st.integers() | st.text("ab") | st.booleans(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "c", "a.b"]), inner),
        max_leaves=8,
    )
)
def test_a_path_selects_what_jmespath_does(text: str, data: object) -> None:
    assert query.compile(text).search(data) == jmespath.search(text, data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.[", "Invalid jmespath expression"),
        ("", "empty"),
        ("a b", "Unexpected token"),
        ("a.lenght(b)", "unknown function lenght()"),
        ("length(a, b)", "length() takes 1 argument, got 2"),
        ("contains(a)", "contains() takes 2 arguments, got 1"),
        ("not_null()", "not_null() takes at least 1 argument, got 0"),
        ("a[?starts_with(b)]", "starts_with() takes 2 arguments"),
        ("{x: sort_by(a)}", "sort_by() takes 2 arguments"),
        ("(" * 3000 + "a" + ")" * 900, "nested too deeply"),
        ("a" * 5000, "longer than 4096"),
    ],
)
def test_an_expression_that_can_only_fail_is_refused(text: str, message: str) -> None:
    with pytest.raises(QueryError) as caught:
        query.compile(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("!a.b", "!(a.b)"),
        ("!event.extra.via_release", "!(event.extra.via_release)"),
        ("a == 'x' && !b.c && d", "a == 'x' && !(b.c) && d"),
        ("x[?!a.b]", "x[?!(a.b)]"),
        ("!f.g || !h.i", "!(f.g) || !(h.i)"),
        ("!!a.b", "!!(a.b)"),
        ("!length(a).b", "!(length(a).b)"),
        ("!a.b == c", "!(a.b) == c"),
        ("!a[?b]", "!(a[?b])"),
        ("!a[]", "!(a[])"),
        ("!a.*", "!(a.*)"),
        ("(!a).b", "!(a.b)"),
    ],
)
def test_the_trap_of_not_is_refused_with_the_mended_form(text: str, mended: str) -> None:
    with pytest.raises(QueryError) as caught:
        query.compile(text)
    assert str(caught.value).endswith(f"write {mended}")
    query.compile(mended)


@pytest.mark.parametrize("text", ["length(a)", "abs(a)", "sum(a)", "max_by(a, &b)"])
def test_an_expression_that_raises_on_an_event_is_a_query_error(text: str) -> None:
    with pytest.raises(QueryError):
        query.compile(text).search({"a": True})


def test_a_document_that_is_too_deep_for_an_expression_is_a_query_error() -> None:
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(QueryError):
        query.compile("to_string(@)").search(deep)


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_jmespaths_false_values(value: object) -> None:
    assert not query.truthy(value)


@pytest.mark.parametrize("value", [True, 0, 0.0, "a", [0], {"a": None}])
def test_jmespaths_true_values(value: object) -> None:
    assert query.truthy(value)


def test_headers_are_in_lower_case_and_repeated_ones_joined() -> None:
    assert query.headers_object([("X-A", "1"), ("x-b", "2"), ("x-a", "3")]) == {"x-a": "1, 3", "x-b": "2"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('headers."X-Id"', ["x-id"]),
        ("[headers.a, body.headers.b, join(headers.c, `[]`)]", ["a", "c"]),
        ("body.id || headers.a", ["a"]),
        ("headers", []),
    ],
)
def test_the_headers_that_an_expression_names(text: str, names: list[str]) -> None:
    assert sorted(query.headers_named(text)) == names


@pytest.mark.parametrize(
    ("text", "sees"),
    [
        ("event.locale == 'en' && contains(['a', `\"body\"`], event.model)", False),
        ("event.*", False),
        ("body.id", True),
        ("event.locale == 'en' || length(body.entry) > `1`", True),
        ("@.event", True),
        ("contains(to_string(@), 'x')", True),
        ("*.entry", True),
        ("headers.a", False),
    ],
)
def test_whether_an_expression_may_depend_on_a_key(text: str, sees: bool) -> None:
    assert query.compile(text).may_see(("body",)) is sees


@given(text=st.text(max_size=30) | st.text("ab.!()[]?*&|@'`{}: 1,", max_size=20))
def test_no_text_raises_anything_else(text: str) -> None:
    with suppress(QueryError):
        query.compile(text).search({"a": {"b": 1}})
