"""Filters that no event can satisfy are told of at `check`."""

from __future__ import annotations

import pytest

from relay.config import load

SOURCES = {
    "prismic": "{type: prismic, secret: a-secret-of-sixteen}",
    "storyblok": "{type: storyblok, secret: a-secret-of-sixteen}",
    "strapi": "{type: strapi, token: a-secret-of-sixteen}",
    "generic": "{type: generic, verify: none}",
    "mapped": "{type: generic, verify: none, map: {model: body.type, action: body.verb}}",
    "contentstack": "{type: contentstack, secret: a-secret-of-sixteen}",
    "placed": "{type: contentstack, secret: a-secret-of-sixteen, map: {environment: \"'live'\"}}",
    "renamed": "{type: contentstack, secret: a-secret-of-sixteen, map: {action: body.verb}}",
    "hygraph": "{type: hygraph, secret: a-secret-of-sixteen}",
}


def warnings(source: str, match: str) -> list[str]:
    """What is said of a route's match, from its path on."""
    names = source.split()
    sources = "".join(f"  {name}: {SOURCES[name]}\n" for name in names)
    text = f"sources:\n{sources}routes: [{{name: r, match: {match}, to: {{url: 'http://localhost/'}}}}]\n"
    return [f"{found.path}: {found.message}" for found in load(text.encode()).warnings]


@pytest.mark.parametrize(
    ("source", "match", "said"),
    [
        ("storyblok", "{locale: de}", "routes[0].match.locale: warning: no event of this route's sources has a locale"),
        ("storyblok prismic", "{locale: de}", "match.locale: warning: no event of this route's sources has a locale"),
        ("prismic", "{environment: [main]}", "warning: no event of this route's sources has an environment"),
        ("generic", "{model: post}", "warning: no event of this route's sources has a model"),
        ("storyblok", "{action: published}", "no action is called 'published' (did you mean 'publish'?)"),
        ("storyblok", "{action: [delete, '!publishd']}", "match.action: warning: no action is called 'publishd'"),
        ("storyblok", "{action: [publish, '!*']}", "the list takes nothing: '!*' excludes every value"),
        ("storyblok", "{any: [{action: publish}, {locale: de}]}", "routes[0].match.any[1].locale: warning: no event"),
    ],
)
def test_what_no_event_can_satisfy_is_warned_of(source: str, match: str, said: str) -> None:
    [warning] = warnings(source, match)
    assert said in warning


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("storyblok contentstack", "{locale: de}"),
        ("storyblok", "{locale: '*'}"),
        ("storyblok", "{locale: '!de'}"),
        ("mapped", "{model: post, action: published}"),
        ("storyblok", "{action: [publish, unpublish_fail, deploy_start, 'pub*', test]}"),
        ("storyblok", "{action: frobnicate}"),
        ("contentstack", "{locale: de, branch: main, environment: production}"),
        ("contentstack", "{any: [{environment: live, action: [publish, unpublish]}, {action: delete}]}"),
        ("contentstack", "{environment: ['*'], action: delete}"),
        ("contentstack", "{environment: '!staging', action: delete}"),
        ("contentstack", "{environment: live, action: ['!delete', '*']}"),
        ("contentstack", "{action: [publish, delete], any: [{environment: live}, {model: asset}]}"),
        ("contentstack hygraph", "{environment: live, action: delete}"),
        ("placed", "{environment: live, action: delete}"),
        ("renamed", "{environment: live, action: delete}"),
        ("storyblok mapped", "{action: published}"),
    ],
)
def test_what_some_event_may_satisfy_is_not(source: str, match: str) -> None:
    assert warnings(source, match) == []


@pytest.mark.parametrize(
    ("source", "match", "places"),
    [
        ("contentstack", "{environment: live, action: [publish, unpublish, delete]}", ["action 'delete'"]),
        ("contentstack", "{environment: live, action: [create, UPDATE]}", ["action 'create'", "action 'UPDATE'"]),
        ("contentstack strapi", "{environment: [live, '?*'], action: delete}", ["action 'delete'"]),
        ("contentstack", "{any: [{model: a, environment: live, action: delete}]}", ["any[0].action 'delete'"]),
        ("contentstack", "{environment: live, any: [{model: a}, {action: delete}]}", ["any[1].action 'delete'"]),
    ],
)
def test_actions_that_never_say_what_is_asked_for_beside_them_are_warned_of(
    source: str, match: str, places: list[str]
) -> None:
    told = "takes nothing: no such event of this route's sources has an environment, which is asked for besides"
    cure = "(give it an entry of its own in any)"
    expected = [f"routes[0].match.{place.replace(' ', ': warning: ')} {told} {cure}" for place in places]
    assert warnings(source, match) == expected
