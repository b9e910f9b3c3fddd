"""Filters that no event can satisfy are told of at `check`."""

from __future__ import annotations

import pytest

from relay.config import load

SOURCES = {
    "prismic": "{type: prismic, secret: a-secret-of-sixteen}",
    "storyblok": "{type: storyblok, secret: a-secret-of-sixteen}",
    "generic": "{type: generic, verify: none}",
    "mapped": "{type: generic, verify: none, map: {model: body.type, action: body.verb}}",
    "contentstack": "{type: contentstack, secret: a-secret-of-sixteen}",
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
        ("storyblok mapped", "{action: published}"),
    ],
)
def test_what_some_event_may_satisfy_is_not(source: str, match: str) -> None:
    assert warnings(source, match) == []
