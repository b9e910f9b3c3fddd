"""Every preset makes the request that its service documents, and keeps the contract of `relay.preset`.

What is compared is rendered by the code that sends: a config is loaded and built, a source's sample described, and the
route's destination asked for its request. A new preset is found by its file name; it only has to be compared with its
documentation in `DOCUMENTED`.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import pytest
from multidict import CIMultiDict
from yarl import URL

from relay import preset, samples
from relay.bodyproof import without_proofs
from relay.config import ConfigError, Loaded, effective, load
from relay.delivery import Code, Delivered, Delivery, Failure, Refused, Response, Retryable, Unsendable
from relay.destination import Destination, Outbound
from relay.event import Description, Event, Inbound
from relay.ids import DeliveryId, EventId
from relay.payload import FORM
from relay.preset import DELETED, NOBODYS, UPSERTED, HookPreset, IndexPreset
from relay.retryschema import RETRY_PRESETS
from relay.routing import Route
from relay.runtime import Runtime, build
from relay.secret import Redactor, Secret
from relay.window import Collected
from tests.cli.running import run
from tests.harness import Received, Relay, relay_here, sink

NOW = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
CONTENT_SYSTEMS = ("storyblok", "strapi", "contentstack", "prismic", "hygraph")
INDEXED = {"action": [*UPSERTED, *DELETED]}
INDICES = [name for name in preset.names() if issubclass(preset.model(name), IndexPreset)]
HOOKS = [name for name in preset.names() if issubclass(preset.model(name), HookPreset)]


# --- from a config and a sender's request to ours ---------------------------------------------------------------------


def config(to: dict[str, Any], source: dict[str, Any] | None = None, **route: Any) -> bytes:
    """A config with one source and one route. JSON is YAML."""
    cms = {"type": "strapi", "verify": "none", **(source or {})}
    return json.dumps({"sources": {"cms": cms}, "routes": [{"name": "out", "to": to, **route}]}).encode()


ANYWHERE = {"url": "https://example.com/hook"}
PLAIN = build(load(config(ANYWHERE), environ={}), 1, NOW)


def built(to: dict[str, Any], source: dict[str, Any] | None = None, **route: Any) -> Runtime:
    return of_text(config(to, source, **route))


@cache
def of_text(text: bytes) -> Runtime:
    return build(load(text, environ={}), 1, NOW, PLAIN)  # with its TLS context: making one takes longer than all else


def route(runtime: Runtime) -> Route:
    return runtime.routing.routes["out"]


def destination(runtime: Runtime) -> Destination:
    return route(runtime).destination


def event(runtime: Runtime, inbound: Inbound) -> Event:
    """A request as the source's adapter understands it."""
    source = runtime.sources["cms"]
    inbound = without_proofs(inbound, source.adapter.body_proofs)
    description = source.describe(inbound)
    assert isinstance(description, Description)
    return Event(
        id=EventId(1),
        source=source.name,
        type=source.type,
        received_at=NOW,
        description=description,
        headers=source.shown_headers(inbound.headers),
        body=inbound.body,
        sha256=sha256(inbound.body).digest(),
        document=inbound.document_or_none(),
    )


def rendered(runtime: Runtime, inbound: Inbound) -> Outbound:
    delivery = Delivery(DeliveryId(2), "out", event(runtime, inbound), NOW, NOW)
    return destination(runtime).render(delivery, "dlv_1", "evt_1", NOW)


def refused(runtime: Runtime, inbound: Inbound) -> str:
    """Why no request is made: a `template_error`, which is not tried again."""
    with pytest.raises(Unsendable) as caught:
        rendered(runtime, inbound)
    assert caught.value.failure.code is Code.TEMPLATE_ERROR
    return caught.value.failure.message


SAID = ("model", "stage", "action", "entry_id", "event", "locale", "environment", "branch")
FREELY = {"type": "generic", "map": {name: f"body.{name}" for name in SAID}}
"""A source that describes its events as they say themselves."""


def saying(**said: Any) -> Inbound:
    return Inbound(CIMultiDict({"Content-Type": "application/json"}), json.dumps(said).encode())


def own_headers(outbound: Outbound) -> dict[str, str]:
    """What a request has but for the headers that all of ours have."""
    always = re.compile(r"user-agent|webhook-(id|timestamp)|x-relay-\w+")
    return {name.lower(): value for name, value in outbound.headers if not always.fullmatch(name.lower())}


def body_of(outbound: Outbound) -> Any:
    """The body as its type says."""
    kind = own_headers(outbound).get("content-type")
    if kind == "application/json":
        return json.loads(outbound.body)
    if kind == FORM:
        return dict(parse_qsl(outbound.body.decode(), strict_parsing=True))
    assert (kind, outbound.body) == (None, b"")
    return None


# --- what the services document ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Documented:
    """A request as a service's documentation has it, for what happened in a sample."""

    link: str
    to: dict[str, Any]
    url: str
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    sample: tuple[str, str] = ("strapi", "entry.publish")


PUBLISHED = "publish: article dwcxgaahe121bm6mrnl0ul4a from cms, stage published, locale en"
POST = {
    "__typename": "Post",
    "coverImage": {"__typename": "Asset", "id": "ckadrcx4g00pw01525c5d2e57"},
    "createdAt": "2021-11-24T22:27:58.702044+00:00",
    "createdBy": {"__typename": "User", "id": "u1"},
    "id": "ckadrcx4g00pw01525c5d2e56",
    "localizations": [{"locale": "en", "title": "Hello"}, {"locale": "de", "title": "Grüezi <b>&</b>"}],
    "publishedAt": None,
    "stage": "PUBLISHED",
    "updatedAt": "2021-11-29T18:21:57.652216+00:00",
}
NAMED_ONLY = {
    "model": "story",
    "stage": "published",
    "locale": None,
    "environment": None,
    "updated_at": "2026-11-23T20:00:00.000Z",
    "id": "166888799188279",
}
ALGOLIA = {"application": "ALGOLIAAPPLICATIONID", "index": "ALGOLIA_INDEX_NAME", "key": "ALGOLIA_API_KEY_OF_24"}
ALGOLIA_HEADERS = {"x-algolia-api-key": "ALGOLIA_API_KEY_OF_24", "x-algolia-application-id": "ALGOLIAAPPLICATIONID"}
MEILISEARCH = {"url": "https://ms.example.com", "index": "movies", "key": "aSampleMasterKey-0123456"}
MEILISEARCH_HEADERS = {"authorization": "Bearer aSampleMasterKey-0123456"}
TYPESENSE = {"url": "http://localhost:8108", "collection": "companies", "key": "TYPESENSE_API_KEY_OF_26"}
TYPESENSE_HEADERS = {"x-typesense-api-key": "TYPESENSE_API_KEY_OF_26"}
JSON = {"content-type": "application/json"}

DOCUMENTED: dict[str, list[Documented]] = {
    "netlify": [
        Documented(
            link="https://docs.netlify.com/build/configure-builds/build-hooks/#parameters",
            to={
                "hook": "5c23354f454e1350f8543e78",
                "trigger_branch": "testing",
                "trigger_title": "triggered by This Awesome Service",
                "clear_cache": True,
            },
            url="https://api.netlify.com/build_hooks/5c23354f454e1350f8543e78?trigger_branch=testing"
            "&trigger_title=triggered+by+This+Awesome+Service&clear_cache=true",
        ),
        Documented(
            link="https://docs.netlify.com/build/configure-builds/build-hooks/",
            to={"hook": "https://api.netlify.com/build_hooks/5c23354f454e1350f8543e78"},
            url="https://api.netlify.com/build_hooks/5c23354f454e1350f8543e78",
        ),
    ],
    "vercel": [
        Documented(
            link="https://vercel.com/docs/deploy-hooks",
            to={"hook": "QmcwKGEbAyFtfybXBxvuSjFT54dc5dRLmAYNB5jxxXsbeZ/hUg65Lj4CV"},
            url="https://api.vercel.com/v1/integrations/deploy/"
            "QmcwKGEbAyFtfybXBxvuSjFT54dc5dRLmAYNB5jxxXsbeZ/hUg65Lj4CV",
        )
    ],
    "cloudflare-pages": [
        Documented(
            link="https://developers.cloudflare.com/pages/configuration/deploy-hooks/#using-your-deploy-hook",
            to={"hook": "66e0f5a5-6f9d-4b0a-8f5d-3f0c7c1de2aa"},
            url="https://api.cloudflare.com/client/v4/pages/webhooks/deploy_hooks/66e0f5a5-6f9d-4b0a-8f5d-3f0c7c1de2aa",
        )
    ],
    "github-dispatch": [
        Documented(
            link="https://docs.github.com/rest/repos/repos#create-a-repository-dispatch-event",
            to={"repo": "octocat/Hello-World", "token": "ghp_YOUR-TOKEN-0123", "event_type": "on-demand-test"},
            url="https://api.github.com/repos/octocat/Hello-World/dispatches",
            headers={
                **JSON,
                "accept": "application/vnd.github+json",
                "authorization": "Bearer ghp_YOUR-TOKEN-0123",
                "x-github-api-version": "2022-11-28",
            },
            body={
                "event_type": "on-demand-test",
                "client_payload": {
                    "id": "evt_1",
                    "source": "cms",
                    "event": "entry.publish",
                    "action": "publish",
                    "model": "article",
                    "stage": "published",
                    "entry_id": "dwcxgaahe121bm6mrnl0ul4a",
                    "locale": "en",
                    "environment": None,
                    "changes": [
                        {
                            "model": "article",
                            "stage": "published",
                            "action": "publish",
                            "entry_id": "dwcxgaahe121bm6mrnl0ul4a",
                        }
                    ],
                },
            },
        )
    ],
    "gitlab-trigger": [
        Documented(
            link="https://docs.gitlab.com/ci/triggers/#pass-cicd-variables-in-the-api-call",
            to={
                "server": "https://gitlab.example.com",
                "project": "123456",
                "token": "glptt-TOKEN-0123456",
                "variables": {"UPLOAD_TO_S3": "true"},
            },
            url="https://gitlab.example.com/api/v4/projects/123456/trigger/pipeline",
            headers={"content-type": "application/x-www-form-urlencoded"},
            body={
                "token": "glptt-TOKEN-0123456",
                "ref": "main",
                "variables[RELAY_ID]": "evt_1",
                "variables[RELAY_SOURCE]": "cms",
                "variables[RELAY_EVENT]": "entry.publish",
                "variables[RELAY_ACTION]": "publish",
                "variables[RELAY_MODEL]": "article",
                "variables[RELAY_STAGE]": "published",
                "variables[RELAY_ENTRY_ID]": "dwcxgaahe121bm6mrnl0ul4a",
                "variables[RELAY_LOCALE]": "en",
                "variables[UPLOAD_TO_S3]": "true",
            },
        ),
        Documented(
            link="https://docs.gitlab.com/api/rest/#namespaced-paths",
            to={"project": "diaspora/diaspora", "token": "glptt-TOKEN-0123456", "ref": "release/1.0's\\é"},
            url="https://gitlab.com/api/v4/projects/diaspora%2Fdiaspora/trigger/pipeline",
            headers={"content-type": "application/x-www-form-urlencoded"},
            body={
                "token": "glptt-TOKEN-0123456",
                "ref": "release/1.0's\\é",
                "variables[RELAY_ID]": "evt_1",
                "variables[RELAY_SOURCE]": "cms",
                "variables[RELAY_EVENT]": "test-trigger",
                "variables[RELAY_ACTION]": "test",
            },
            sample=("prismic", "test-trigger"),
        ),
    ],
    "slack": [
        Documented(
            link="https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks",
            to={"hook": "T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"},
            url="https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
            headers=JSON,
            body={"text": PUBLISHED, "mrkdwn": False, "unfurl_links": False, "unfurl_media": False},
        )
    ],
    "discord": [
        Documented(
            link="https://docs.discord.com/developers/resources/webhook#execute-webhook",
            to={"hook": "223704706495545344/3d89bb7572e0fb30d8128367b3b1b44fecd1726de135cbe28a41f8b2f777c372"},
            url="https://discord.com/api/webhooks/"
            "223704706495545344/3d89bb7572e0fb30d8128367b3b1b44fecd1726de135cbe28a41f8b2f777c372",
            headers=JSON,
            body={"content": PUBLISHED, "allowed_mentions": {"parse": []}},
        )
    ],
    "teams": [
        Documented(
            link="https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using"
            "#send-adaptive-cards-using-an-incoming-webhook",
            to={"hook": "https://prod-00.westeurope.logic.azure.com:443/workflows/0123abcd/triggers/manual/paths/invoke"
                "?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=AbC-dEf_01234%2B56789"},
            url="https://prod-00.westeurope.logic.azure.com/workflows/0123abcd/triggers/manual/paths/invoke"
            "?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=AbC-dEf_01234%2B56789",
            headers=JSON,
            body={
                "type": "message",
                "attachments": [
                    {
                        "contentType": "application/vnd.microsoft.card.adaptive",
                        "contentUrl": None,
                        "content": {
                            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                            "type": "AdaptiveCard",
                            "version": "1.2",
                            "body": [{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": PUBLISHED}]}],
                        },
                    }
                ],
            },
        )
    ],
    "algolia": [
        Documented(
            link="https://www.algolia.com/doc/rest-api/search/add-or-update-object",
            to=ALGOLIA,
            method="PUT",
            url="https://algoliaapplicationid.algolia.net/1/indexes/ALGOLIA_INDEX_NAME/ckadrcx4g00pw01525c5d2e56",
            headers={**JSON, **ALGOLIA_HEADERS},
            body={**POST, "objectID": "ckadrcx4g00pw01525c5d2e56"},
            sample=("hygraph", "publish"),
        ),
        Documented(
            link="https://www.algolia.com/doc/rest-api/search/delete-object",
            to=ALGOLIA,
            method="DELETE",
            url="https://algoliaapplicationid.algolia.net/1/indexes/ALGOLIA_INDEX_NAME/ckadrcx4g00pw01525c5d2e56",
            headers=ALGOLIA_HEADERS,
            sample=("hygraph", "unpublish"),
        ),
    ],
    "meilisearch": [
        Documented(
            link="https://www.meilisearch.com/docs/reference/api/documents/add-or-replace-documents",
            to=MEILISEARCH,
            url="https://ms.example.com/indexes/movies/documents?primaryKey=id",
            headers={**JSON, **MEILISEARCH_HEADERS},
            body=[POST],
            sample=("hygraph", "publish"),
        ),
        Documented(
            link="https://www.meilisearch.com/docs/reference/api/documents/delete-a-document",
            to={**MEILISEARCH, "url": "https://example.com/behind/a/path/"},
            method="DELETE",
            url="https://example.com/behind/a/path/indexes/movies/documents/ckadrcx4g00pw01525c5d2e56",
            headers=MEILISEARCH_HEADERS,
            sample=("hygraph", "delete"),
        ),
    ],
    "typesense": [
        Documented(
            link="https://typesense.org/docs/latest/api/documents.html#upsert-a-single-document",
            to=TYPESENSE,
            url="http://localhost:8108/collections/companies/documents?action=upsert",
            headers={**JSON, **TYPESENSE_HEADERS},
            body=NAMED_ONLY,
            sample=("storyblok", "story.published"),
        ),
        Documented(
            link="https://typesense.org/docs/latest/api/documents.html#delete-a-single-document",
            to=TYPESENSE,
            method="DELETE",
            url="http://localhost:8108/collections/companies/documents/123?ignore_not_found=true",
            headers=TYPESENSE_HEADERS,
            sample=("storyblok", "story.deleted"),
        ),
    ],
}  # fmt: skip


def place(url: URL) -> tuple[str, str | None, int | None, str]:
    return url.scheme, url.host, url.port, url.raw_path


def test_every_preset_is_compared_with_its_documentation_here() -> None:
    assert set(DOCUMENTED) == set(preset.names())


@pytest.mark.parametrize(
    ("name", "documented"), [(name, one) for name, several in DOCUMENTED.items() for one in several]
)
def test_the_request_is_the_one_that_the_service_documents(name: str, documented: Documented) -> None:
    kind, sample = documented.sample
    runtime = built({"preset": name, **documented.to}, {"type": kind})
    outbound = rendered(runtime, samples.load(kind, sample))
    expected = URL(documented.url, encoded=True)
    assert outbound.method == documented.method, documented.link
    assert place(outbound.url) == place(expected), documented.link
    assert dict(outbound.url.query) == dict(expected.query), documented.link
    assert own_headers(outbound) == documented.headers, documented.link
    assert body_of(outbound) == documented.body, documented.link


# --- what holds for every preset --------------------------------------------------------------------------------------


def keys(name: str) -> dict[str, str]:
    """What a preset cannot do without. Each secret is one that can be found again."""
    found = {}
    for key, info in preset.model(name).model_fields.items():
        if key == "preset" or not info.is_required():
            continue
        if info.annotation is Secret:
            found[key] = f"canary-{key}-0123456789"
        elif info.annotation is URL:
            found[key] = "https://service.example.com/base"
        else:
            found[key] = "acme/www" if key == "repo" else "acme"
    if "hook" in found:
        found["hook"] = f"https://hooks.example.com/v1/{found['hook']}"
    return found


def to(name: str, **more: Any) -> dict[str, Any]:
    return {"preset": name, **keys(name), **more}


def of_each(name: str) -> Inbound:
    """A request that every preset takes, from Hygraph."""
    return samples.load("hygraph", name)


@pytest.mark.parametrize("name", preset.names())
def test_a_presets_secret_is_used_and_never_shown(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(config(to(name), {"type": "hygraph"}))
    runtime = of_text(path.read_bytes())
    outbound = rendered(runtime, of_each("publish"))
    ended = run("routes", "--expanded", "--config", path)
    assert ended.code == 0
    sent = f"{outbound.url} {outbound.headers} {outbound.body!r}"
    shown = [
        json.dumps(effective(runtime.config)),
        ended.out,
        run("routes", "--config", path).out,
        repr(destination(runtime).shown(outbound)),
        destination(runtime).shown_url,
        runtime.redact(sent),
    ]
    secrets = re.findall(r"canary-\w+-\d+", json.dumps(keys(name)))
    assert secrets
    for secret in secrets:
        assert secret in sent
        assert [text for text in shown if secret in text] == []


@pytest.mark.parametrize("name", HOOKS)
def test_of_a_hooks_url_only_the_host_is_shown(name: str) -> None:
    runtime = built(to(name, query={"tag": "a-tag-that-is-long"}))
    assert destination(runtime).shown_url == "https://hooks.example.com/***?tag=***"
    assert effective(runtime.config)["routes"][0]["to"]["url"] == "https://hooks.example.com/***"


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize(
    ("path", "echo"),
    [
        ("v1/canary-hook-0123456789", "no hook v1/canary-hook-0123456789"),
        ("v1/canary-hook-0123456789", "no hook canary-hook-0123456789"),
        ("v1/canary-hook-0123456789/Lj4CV", "/v1/canary-hook-0123456789/Lj4CV"),  # as Vercel's end
    ],
)
def test_a_hook_that_its_service_echoes_is_masked(name: str, path: str, echo: str) -> None:
    answer = Response(404, (("X-Path", echo),), echo.encode(), truncated=False)
    sent = Outbound("POST", URL(f"https://hooks.example.com/{path}"), [], b"")
    masked = destination(built(to(name, hook=f"https://hooks.example.com/{path}"))).masked(answer, sent)
    assert "canary" not in repr(masked)


@pytest.mark.parametrize("name", HOOKS)
def test_the_hook_may_be_given_as_the_url(name: str) -> None:
    given = to(name)
    given["url"] = given.pop("hook")
    by_url, by_hook = built(given, {"type": "hygraph"}), built(to(name), {"type": "hygraph"})
    assert rendered(by_url, of_each("publish")) == rendered(by_hook, of_each("publish"))
    assert destination(by_url).shown_url == "https://hooks.example.com/***"


@pytest.mark.parametrize("name", preset.names())
def test_what_the_route_says_is_stronger_than_the_preset(name: str) -> None:
    theirs = built(to(name)).config.routes[0].to.headers
    headers = {header.swapcase(): "the-routes-own" for header in theirs} | {"X-Site": "www"}
    mine = to(
        name,
        url="https://elsewhere.example.com/mine",
        method="PATCH",
        headers=headers,
        query={"mine": "yes"},
        auth={"type": "basic", "username": "relay", "password": "a-password-of-mine"},
    )
    runtime = built(mine, {"type": "hygraph"}, payload={"template": '{"event_type": "mine"}'})
    outbound = rendered(runtime, of_each("publish"))
    assert (outbound.method, outbound.body) == ("PATCH", b'{"event_type": "mine"}')
    assert (outbound.url.host, outbound.url.path.startswith("/mine")) == ("elsewhere.example.com", True)
    assert outbound.url.query["mine"] == "yes"
    assert own_headers(outbound) == {
        "content-type": "application/json",
        "authorization": "Basic cmVsYXk6YS1wYXNzd29yZC1vZi1taW5l",
        **{header.lower(): value for header, value in headers.items()},
    }
    assert effective(runtime.config)["routes"][0]["to"]["headers"].keys() == headers.keys()


@pytest.mark.parametrize("name", preset.names())
def test_headers_and_query_of_a_route_come_on_top_of_the_presets(name: str) -> None:
    plain = rendered(built(to(name), {"type": "hygraph"}), of_each("publish"))
    more = to(name, headers={"X-Site": "www"}, query={"site": "www"})
    both = rendered(built(more, {"type": "hygraph"}), of_each("publish"))
    assert own_headers(both) == {**own_headers(plain), "x-site": "www"}
    assert dict(both.url.query) == {**plain.url.query, "site": "www"}


def problems(text: bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, environ={})
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


@pytest.mark.parametrize(("name", "key"), [(name, key) for name in preset.names() for key in keys(name)])
def test_an_unknown_key_is_answered_with_the_one_that_was_meant(name: str, key: str) -> None:
    assert problems(config(to(name, **{f"{key}s": "x"}))) == [
        f"routes[0].to.{key}s: unknown key (did you mean '{key}'?)"
    ]


@pytest.mark.parametrize(("name", "key"), [(name, key) for name in preset.names() for key in keys(name)])
def test_a_missing_key_is_named(name: str, key: str) -> None:
    given = to(name)
    del given[key]
    assert problems(config(given)) == [f"routes[0].to: missing key '{key}'"]


@pytest.mark.parametrize(("name", "key"), [(name, key) for name in preset.names() for key in keys(name)])
def test_a_value_from_outside_is_not_judged_where_it_is_not_looked_up(name: str, key: str) -> None:
    text = config(to(name, **{key: "${OUTSIDE}"}))
    assert load(text, environ={}, no_secrets=True, try_samples=True).warnings == ()
    assert "OUTSIDE" in problems(text)[0]


@pytest.mark.parametrize("name", [name for name in preset.names() if name not in HOOKS and name != "gitlab-trigger"])
def test_a_secret_that_no_header_can_hold_is_an_error(name: str) -> None:
    [key] = {"key", "token"} & set(keys(name))
    [problem] = problems(config(to(name, **{key: "canary-0123456789\n"})))
    assert problem.startswith(f"routes[0].to.{key}: a token cannot hold white space")
    assert "canary" not in problem


# --- on what the content systems send ---------------------------------------------------------------------------------


def source(kind: str) -> dict[str, Any]:
    """Prismic's own word for what happened to a document is `change`, whatever it was."""
    return {"type": kind, "action": "publish"} if kind == "prismic" else {"type": kind}


def checked(text: bytes) -> Loaded:
    """As `relay check` does it."""
    return load(text, environ={}, try_samples=True)


@pytest.mark.parametrize("kind", CONTENT_SYSTEMS)
@pytest.mark.parametrize("name", preset.names())
def test_relay_check_has_nothing_to_say_of_a_preset_with_a_content_system(name: str, kind: str) -> None:
    assert checked(config(to(name), source(kind), match=INDEXED)).warnings == ()


@pytest.mark.parametrize("kind", CONTENT_SYSTEMS)
@pytest.mark.parametrize("name", preset.names())
def test_whatever_happens_to_one_entry_becomes_a_request(name: str, kind: str) -> None:
    runtime = built(to(name), source(kind))
    methods = set()
    for sample in samples.names(kind):
        inbound = samples.load(kind, sample)
        change = event(runtime, inbound).description.common
        if change.entry_id is not None and change.action in INDEXED["action"]:
            methods.add(rendered(runtime, inbound).method)
    assert len(methods) == (2 if name in INDICES else 1)


@pytest.mark.parametrize("name", INDICES)
def test_relay_check_warns_of_an_index_that_is_asked_to_follow_what_it_cannot(name: str) -> None:
    [warning] = checked(config(to(name), {"type": "prismic"})).warnings
    assert warning.path == "routes[0].to"
    assert "not change: say it with the source's action" in warning.message


# --- github-dispatch --------------------------------------------------------------------------------------------------


def dispatch(text: str) -> Runtime:
    return built(to("github-dispatch"), payload={"template": text})


def client_payload(count: int) -> str:
    return json.dumps({"event_type": "x", "client_payload": {f"key{number}": 1 for number in range(count)}})


def of_size(size: int) -> str:
    frame = '{"event_type": "x", "client_payload": {"a": ""} }'
    return frame.replace('""', f'"{"a" * (size - len(frame))}"')


def test_github_gets_ten_keys_and_no_more() -> None:
    """https://docs.github.com/rest/repos/repos#create-a-repository-dispatch-event: "The maximum number of top-level
    properties is 10." """
    sample = samples.load("strapi")
    assert len(body_of(rendered(dispatch(client_payload(10)), sample))["client_payload"]) == 10
    assert "client_payload has 11 keys, and may have 10" in refused(dispatch(client_payload(11)), sample)


def test_github_gets_less_than_64_kib() -> None:
    """https://docs.github.com/rest/repos/repos#create-a-repository-dispatch-event: "The total size of the JSON payload
    must be less than 64KB." """
    sample = samples.load("strapi")
    assert len(rendered(dispatch(of_size((64 << 10) - 1)), sample).body) == (64 << 10) - 1
    assert "must have less than 64 KiB" in refused(dispatch(of_size(64 << 10)), sample)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<xml/>", "it is not JSON"),
        ("[]", "it has no event_type"),
        ('{"client_payload": {}}', "it has no event_type"),
        ('{"event_type": 5}', "it has no event_type"),
        ('{"event_type": "x", "client_payload": []}', "client_payload is not an object"),
    ],
)
def test_github_gets_nothing_that_is_no_dispatch(text: str, reason: str) -> None:
    assert refused(dispatch(text), samples.load("strapi")) == f"GitHub would refuse the payload: {reason}"


async def test_what_github_would_refuse_is_not_sent(tmp_path: Path) -> None:
    async with sink() as github:
        text = config(
            to("github-dispatch", url=f"{github.url}/repos/acme/www/dispatches"),
            payload={"template": client_payload(11)},
        )
        async with relay_here(tmp_path, written(json.loads(text))) as relay:
            await take(relay, "entry.publish")
            [item] = await relay.logs_when(lambda items: items and items[0]["status"] == "failed")
            assert (item["error"]["code"], item["attempts"], item["next_attempt_at"]) == ("template_error", 1, None)
            assert github.received == []


# --- gitlab-trigger ---------------------------------------------------------------------------------------------------


def test_a_variable_for_gitlab_goes_out_as_it_is_and_is_masked_where_it_is_a_secret(tmp_path: Path) -> None:
    secret = "it's \\a `canary` \\n"
    (tmp_path / "secret").write_text(secret)
    runtime = built(to("gitlab-trigger", variables={"DEPLOY_KEY": f"${{file:{tmp_path / 'secret'}}}"}))
    assert body_of(rendered(runtime, samples.load("strapi")))["variables[DEPLOY_KEY]"] == secret
    assert "canary`" not in json.dumps(effective(runtime.config))


def test_a_variable_for_gitlab_whose_name_tells_of_a_secret_is_hidden(tmp_path: Path) -> None:
    variables = {"SECRET_VAR": "canary-of-the-variable", "STAGE": "a-stage-anyone-may-see"}
    path = tmp_path / "config.yaml"
    path.write_bytes(config(to("gitlab-trigger", variables=variables)))
    loaded = load(path, environ={})
    body = rendered(of_text(path.read_bytes()), samples.load("strapi")).body.decode()
    exported = run("export", "out", "--config", path)
    assert "canary-of-the-variable" in body
    shown = [
        json.dumps(effective(loaded.config)),
        run("routes", "--expanded", "--config", path).out,
        exported.out,
        Redactor(loaded.secrets)(body),
    ]
    assert [text for text in shown if "canary" in text or "a-stage-anyone-may-see" not in text] == []
    assert "to be set: OUT_VARIABLES_SECRET_VAR" in exported.err


# --- messages ---------------------------------------------------------------------------------------------------------

UNRULY = [
    "<!channel> <!here> <@U024BE7LH> <#C024BE7LR> <https://evil.example|x>",
    "<at>All</at> @everyone @here <@&1> <@1> <t:1:R>",
    "*b* _i_ ~s~ `c` ||h|| **b** __u__ ~~s~~ ```c```",
    "# h\n> q\n>>> q\n- l\n1. l\n-# s",
    "[x](https://evil.example/?a=1&b=2) https://evil.example",
    "\\ \\* &lt; &amp; &#64; :joy: {{DATE(2017-02-14T06:00:00Z)}} ${x} {% x %}",
    "a\r\nb\tc\u2028d\u0085e",
]


def message_of(name: str, text: str) -> dict[str, Any]:
    """What a preset says when the whole description is one text."""
    said: dict[str, Any] = body_of(rendered(built(to(name), FREELY), saying(**dict.fromkeys(SAID, text))))
    return said


def plain(text: str) -> str:
    """The message for a text that is taken as it is."""
    line = " ".join(text.split())
    folded = " ".join(text.casefold().split())  # stages and actions are in lower case
    return f"{folded}: {line} {line} from cms, stage {folded}, locale {line}, environment {line}, branch {line}"


@pytest.mark.parametrize("text", UNRULY)
def test_a_text_in_slack_calls_nobody_and_looks_as_it_was_sent(text: str) -> None:
    """https://docs.slack.dev/messaging/formatting-message-text#escaping: `&`, `<` and `>` begin and end what Slack
    gives a meaning; https://api.slack.com/reference/messaging/payload: `mrkdwn` is for the rest."""
    message = message_of("slack", text)
    assert "<" not in message["text"]
    assert ">" not in message["text"]
    assert re.search(r"&(?!amp;|lt;|gt;)", message["text"]) is None
    assert html.unescape(message.pop("text")) == plain(text)
    assert message == {"mrkdwn": False, "unfurl_links": False, "unfurl_media": False}


@pytest.mark.parametrize("text", UNRULY)
def test_a_text_in_discord_calls_nobody_and_looks_as_it_was_sent(text: str) -> None:
    """https://docs.discord.com/developers/resources/message#allowed-mentions-object: an empty `parse` suppresses all
    mentions; https://support.discord.com/hc/articles/210298617: a backslash takes a mark's meaning away."""
    message = message_of("discord", text)
    assert message["allowed_mentions"] == {"parse": []}
    assert re.search(r"[\\`*_~|<>\[\](){}#@]", re.sub(r"\\.", "", message["content"])) is None
    assert re.sub(r"\\(.)", r"\1", message["content"]) == plain(text)


@pytest.mark.parametrize("text", UNRULY)
def test_a_text_in_teams_calls_nobody_and_looks_as_it_was_sent(text: str) -> None:
    """https://learn.microsoft.com/adaptive-cards/authoring-cards/text-features: "RichTextBlock does not support
    markdown"; https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/cards-format: a mention
    needs an entity in `msteams`."""
    [attachment] = message_of("teams", text)["attachments"]
    card = attachment["content"]
    assert card.keys() == {"$schema", "type", "version", "body"}
    assert card["body"] == [{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": plain(text)}]}]


@pytest.mark.parametrize("text", ["*" * 10_000, "&" * 10_000, "😀" * 10_000])
def test_a_message_fits_however_long_its_parts_are(text: str) -> None:
    """https://docs.discord.com/developers/resources/webhook#execute-webhook: "up to 2000 characters";
    https://api.slack.com/changelog/2018-04-truncating-really-long-messages: what is longer than 40,000 is cut off;
    https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook: "The
    message size limit is 28 KB." """
    content = message_of("discord", text)["content"]
    assert len(content.encode("utf-16-le")) // 2 <= 2000
    assert "…" in content
    assert len(message_of("slack", text)["text"]) <= 40_000
    assert len(json.dumps(message_of("teams", text)).encode()) <= 28 << 10


@pytest.mark.parametrize("name", ["slack", "discord", "teams"])
def test_a_message_of_an_event_that_says_nothing_is_still_a_sentence(name: str) -> None:
    assert "event: content from cms" in json.dumps(body_of(rendered(built(to(name), FREELY), saying())))


# --- indices ----------------------------------------------------------------------------------------------------------


def index(name: str) -> Runtime:
    return built(to(name), FREELY)


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("action", ["publish", "update", "create"])
def test_an_index_takes_what_is_published_updated_or_created(name: str, action: str) -> None:
    outbound = rendered(index(name), saying(action=action, entry_id="7"))
    assert outbound.method == built(to(name)).config.routes[0].to.method != "DELETE"
    document = body_of(outbound)
    [found] = document if isinstance(document, list) else [document]
    model = preset.model(name)
    assert issubclass(model, IndexPreset)
    assert found[model.id_key] == "7"


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("action", ["unpublish", "delete"])
def test_an_index_loses_what_is_unpublished_or_deleted(name: str, action: str) -> None:
    outbound = rendered(index(name), saying(action=action, entry_id="7"))
    assert (outbound.method, body_of(outbound)) == ("DELETE", None)
    assert outbound.url.raw_path.endswith("/7")


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("action", ["move", "publish_fail", "change", "test", None])
def test_an_index_refuses_what_is_neither(name: str, action: str | None) -> None:
    reason = refused(index(name), saying(action=action, entry_id="7"))
    assert f"takes the actions publish, update, create, unpublish or delete, not {action or 'none'}" in reason


@pytest.mark.parametrize("name", INDICES)
def test_an_index_refuses_an_event_without_one_single_entry(name: str) -> None:
    assert "names none or several" in refused(index(name), saying(action="publish"))
    assert "names none or several" in refused(index(name), saying(action="delete", entry_id=""))
    several = built(to(name), source("prismic"))
    assert "names none or several" in refused(several, samples.load("prismic", "document-several"))


ODD_IDS = ["a b", "a/b", "../../a", "50%", "%2F", "a?b=c#d", "a;b,c&d", "ü", "{}", "*", "a:b@c"]


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("entry_id", ["7", "Az_-09", *ODD_IDS])
def test_an_entry_id_is_one_segment_of_the_path_or_refused(name: str, entry_id: str) -> None:
    model = preset.model(name)
    assert issubclass(model, IndexPreset)
    gone = saying(action="delete", entry_id=entry_id)
    if model.ids.fullmatch(entry_id) is None:
        assert f"no place for a document with the id '{entry_id}'" in refused(index(name), gone)
        return
    usual = rendered(index(name), saying(action="delete", entry_id="7")).url
    url = rendered(index(name), gone).url
    before, _, segment = url.raw_path.rpartition("/")
    assert (before, unquote(segment)) == (usual.raw_path.removesuffix("/7"), entry_id)
    assert (segment, url.raw_query_string) == (quote(entry_id, safe=""), usual.raw_query_string)


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("entry_id", [".", ".."])
@pytest.mark.parametrize("action", ["publish", "delete"])
def test_an_entry_id_never_climbs_up_the_path(name: str, entry_id: str, action: str) -> None:
    assert "no place for a document" in refused(index(name), saying(action=action, entry_id=entry_id))


@pytest.mark.parametrize("action", ["publish", "delete"])
def test_an_entry_never_becomes_the_settings_of_an_algolia_index(action: str) -> None:
    """https://www.algolia.com/doc/rest-api/search/set-settings"""
    reason = refused(index("algolia"), saying(action=action, entry_id="settings"))
    assert "no place for a document with the id 'settings': that is where the settings of the index are" in reason
    for other in ("setting", "Settings", "settings/7", "semanticSearch/settings"):
        path = rendered(index("algolia"), saying(action=action, entry_id=other)).url.raw_path
        assert path.endswith(f"/{quote(other, safe='')}")


def test_algolia_and_typesense_take_any_other_id() -> None:
    for name in ("algolia", "typesense"):
        model = preset.model(name)
        assert issubclass(model, IndexPreset)
        assert [entry_id for entry_id in ODD_IDS if model.ids.fullmatch(entry_id) is None] == []


@pytest.mark.parametrize("entry_id", ["a/b", "a b", "ü", "a.b", "x" * 512])
@pytest.mark.parametrize("action", ["publish", "delete"])
def test_what_meilisearch_would_drop_after_its_202_is_refused(entry_id: str, action: str) -> None:
    """https://www.meilisearch.com/docs/resources/internals/primary_key#formatting-the-document-id"""
    assert "no place for a document" in refused(index("meilisearch"), saying(action=action, entry_id=entry_id))
    assert rendered(index("meilisearch"), saying(action=action, entry_id="_Aabc012_" + "x" * 502))


@pytest.mark.parametrize("name", INDICES)
def test_the_name_of_an_index_is_quoted(name: str) -> None:
    [key] = {"index", "collection"} & set(keys(name))
    url = rendered(built(to(name, **{key: "a/b ü"}), FREELY), saying(action="delete", entry_id="7")).url
    assert "/a%2Fb%20%C3%BC/" in url.raw_path


@pytest.mark.parametrize("name", INDICES)
def test_the_expanded_route_shows_both_requests_of_an_index(name: str) -> None:
    runtime = index(name)
    requests = effective(runtime.config)["routes"][0]["to"]["requests"]
    for actions, action in (("publish, update, create", "create"), ("unpublish, delete", "delete")):
        sent = destination(runtime).shown(rendered(runtime, saying(action=action, entry_id="ENTRY_ID")))
        assert requests[actions] == f"{sent.method} {sent.url}"


# --- end to end -------------------------------------------------------------------------------------------------------

HOOK = "services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"
KEY = "a-key-for-the-index-0123"


def written(document: Any) -> str:
    """A config to which the harness can add its sections."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in document.items())


async def take(relay: Relay, sample: str) -> None:
    inbound = samples.load("strapi", sample)
    status, _ = await relay.post("/in/cms", inbound.body, list(inbound.headers.items()))
    assert status == 200


async def details(relay: Relay, count: int) -> dict[tuple[str, str], dict[str, Any]]:
    """Everything about each delivery, by route and action, once all have arrived."""
    items = await relay.logs_when(lambda items: [item["status"] for item in items] == ["delivered"] * count)
    return {(item["route"], item["action"]): await relay.get(f"/logs/{item['id']}") for item in items}


def requested(detail: dict[str, Any]) -> tuple[str, str]:
    [attempt] = detail["attempts"]
    return attempt["request"]["method"], attempt["request"]["url"]


async def test_a_message_is_delivered_and_its_hook_is_not_logged(tmp_path: Path) -> None:
    async with sink() as slack:
        text = written(json.loads(config({"preset": "slack", "url": f"{slack.url}/{HOOK}"})))
        async with relay_here(tmp_path, text) as relay:
            await take(relay, "entry.publish")
            [request] = await slack.wait_count(1)
            assert (request.method, request.path) == ("POST", f"/{HOOK}")
            assert json.loads(request.body)["text"] == PUBLISHED
            [detail] = (await details(relay, 1)).values()
            assert requested(detail) == ("POST", f"{slack.url}/***")
            assert "XXXXXXXX" not in json.dumps(detail)


async def test_indices_follow_what_is_published_and_unpublished_and_their_key_is_not_logged(tmp_path: Path) -> None:
    entry_id = "dwcxgaahe121bm6mrnl0ul4a"
    async with sink() as service:
        names = {
            "algolia": {"application": "APP", "index": "posts"},
            "meilisearch": {"index": "posts"},
            "typesense": {"collection": "posts"},
        }
        routes = [
            {"name": name, "to": {"preset": name, "url": f"{service.url}/{name}", "key": KEY, **keys}}
            for name, keys in names.items()
        ]
        text = written({"sources": {"cms": {"type": "strapi", "verify": "none"}}, "routes": routes})
        async with relay_here(tmp_path, text) as relay:
            await take(relay, "entry.publish")
            await service.wait_count(3)  # or the order, latest, would merge what still waits
            await take(relay, "entry.unpublish")
            received = await service.wait_count(6)

            def seen(request: Received) -> tuple[str, str, bool]:
                return request.method, request.path, bool(request.body)

            assert {seen(request) for request in received} == {
                ("PUT", f"/algolia/1/indexes/posts/{entry_id}", True),
                ("DELETE", f"/algolia/1/indexes/posts/{entry_id}", False),
                ("POST", "/meilisearch/indexes/posts/documents?primaryKey=id", True),
                ("DELETE", f"/meilisearch/indexes/posts/documents/{entry_id}", False),
                ("POST", "/typesense/collections/posts/documents?action=upsert", True),
                ("DELETE", f"/typesense/collections/posts/documents/{entry_id}?ignore_not_found=true", False),
            }
            carriers = {"algolia": "X-Algolia-API-Key", "typesense": "X-TYPESENSE-API-KEY"}
            for request in received:
                carrier = carriers.get(request.path.split("/")[1], "Authorization")
                assert request.headers[carrier].removeprefix("Bearer ") == KEY
            logged = await details(relay, 6)
            assert {about: requested(detail) for about, detail in logged.items()} == {
                ("algolia", "publish"): ("PUT", f"{service.url}/algolia/1/indexes/posts/{entry_id}"),
                ("algolia", "unpublish"): ("DELETE", f"{service.url}/algolia/1/indexes/posts/{entry_id}"),
                ("meilisearch", "publish"): (
                    "POST",
                    f"{service.url}/meilisearch/indexes/posts/documents?primaryKey=***",
                ),
                ("meilisearch", "unpublish"): (
                    "DELETE",
                    f"{service.url}/meilisearch/indexes/posts/documents/{entry_id}",
                ),
                ("typesense", "publish"): (
                    "POST",
                    f"{service.url}/typesense/collections/posts/documents?action=***",
                ),
                ("typesense", "unpublish"): (
                    "DELETE",
                    f"{service.url}/typesense/collections/posts/documents/{entry_id}?ignore_not_found=***",
                ),
            }
            assert KEY not in json.dumps(list(logged.values()))


@pytest.mark.parametrize("name", INDICES)
async def test_a_test_of_an_index_deletes_what_is_not_there_with_the_routes_own_key(name: str, tmp_path: Path) -> None:
    async with sink() as service:
        given = {**to(name), "url": service.url, "headers": {"X-Team": "www"}}
        text = written(json.loads(config(given, match={"action": ["publish", "unpublish"]})))
        async with relay_here(tmp_path, text) as relay:
            async with relay.session.post(f"{relay.admin}/routes/out/test") as answer:
                made = await answer.json()
        [received] = service.received
    assert (made["error"], made["response"]["status"]) == (None, 200)
    deleted = rendered(built(given, FREELY), saying(action="delete", entry_id=NOBODYS))
    assert (received.method, received.path, received.body) == ("DELETE", deleted.url.raw_path_qs, b"")
    assert received.headers["X-Relay-Event"] == "relay.test"
    assert received.headers["X-Team"] == "www"
    for header, value in own_headers(deleted).items():
        assert received.headers[header] == value


async def test_an_odd_entry_id_arrives_as_it_was_quoted(tmp_path: Path) -> None:
    async with sink() as service:
        given = {"preset": "algolia", "url": service.url, "application": "APP", "index": "posts", "key": KEY}
        async with relay_here(tmp_path, written(json.loads(config(given, FREELY)))) as relay:
            for entry_id in ODD_IDS:
                await relay.post("/in/cms", saying(action="delete", entry_id=entry_id).body)
            received = await service.wait_count(len(ODD_IDS))
            assert sorted(request.path for request in received) == sorted(
                f"/1/indexes/posts/{quote(entry_id, safe='')}" for entry_id in ODD_IDS
            )


# --- the presets of `retry` -------------------------------------------------------------------------------------------

DOWN = Retryable(Failure(Code.HTTP_STATUS, "HTTP 500"))
HOUR = 3600
RETRIES: dict[str, tuple[str, list[float]]] = {
    # "Webhooks will not be retried"
    "storyblok": ("https://www.storyblok.com/docs/guide/in-depth/webhooks", []),
    # "If your server responds with anything other than a 200 response, the delivery will be attempted every 10 minutes
    # up to 5 times."
    "prismic": ("https://prismic.io/docs/webhooks", [600] * 4),
    # The table of "Next Resend Interval (seconds)"
    "contentstack": (
        "https://www.contentstack.com/docs/developers/set-up-webhooks/webhook-retry-policy",
        [5, 25, 125, 625],
    ),
    # The "Example retry schedule"
    "standard-webhooks": (
        "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"
        "#deliverability-and-reliability",
        [5, 300, 1800, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR],
    ),
}


def retrying(**keys: Any) -> Route:
    return route(built(ANYWHERE, **keys))


def test_every_preset_of_retry_is_compared_with_its_documentation_here() -> None:
    assert set(RETRIES) == set(RETRY_PRESETS)


@pytest.mark.parametrize("name", RETRIES)
def test_a_preset_of_retry_waits_as_its_documentation_says(name: str) -> None:
    link, seconds = RETRIES[name]
    policy = retrying(retry=name).retry
    waits = [policy.after(DOWN, number, NOW, lambda: 0.5) for number in range(1, len(seconds) + 1)]
    assert waits == [NOW + timedelta(seconds=each) for each in seconds], link
    assert policy.after(DOWN, len(seconds) + 1, NOW) is None, link


def test_only_standard_webhooks_asks_for_jitter() -> None:
    """ "It's recommended to also add some level of random jitter": https://github.com/standard-webhooks/standard-webhooks
    /blob/main/spec/standard-webhooks.md#deliverability-and-reliability"""
    earliest = {name: retrying(retry=name).retry.after(DOWN, 1, NOW, lambda: 0.0) for name in RETRIES}
    assert earliest == {
        "storyblok": None,
        "prismic": NOW + timedelta(minutes=10),
        "contentstack": NOW + timedelta(seconds=5),
        "standard-webhooks": NOW + timedelta(seconds=4),
    }


def outcome(of: Route, status: int) -> object:
    return of.destination.judge(Response(status, (), b"", truncated=False), None, NOW)


def test_prismic_counts_anything_but_200_as_a_failure_and_gives_up_on_nothing() -> None:
    """https://prismic.io/docs/webhooks: "anything other than a 200 response" """
    prismic = retrying(retry="prismic")
    assert outcome(prismic, 200) == Delivered()
    others = [status for status in range(100, 600) if status not in (200, 410)]
    assert {type(outcome(prismic, status)) for status in others} == {Retryable}
    assert isinstance(outcome(prismic, 410), Refused)  # gone for good, whatever the policy


@pytest.mark.parametrize("name", [name for name in RETRIES if name != "prismic"])
def test_the_others_count_any_2xx_as_a_success(name: str) -> None:
    assert {type(outcome(retrying(retry=name), status)) for status in range(200, 300)} == {Delivered}


def test_a_routes_own_success_is_stronger_than_that_of_prismics_preset() -> None:
    own = route(built({**ANYWHERE, "success": "2xx"}, retry="prismic"))
    assert outcome(own, 204) == Delivered()


@pytest.mark.parametrize("name", ["slack", "discord", "teams"])
def test_the_message_of_a_window_tells_how_many_more_there_are(name: str) -> None:
    runtime = built({"preset": name, "hook": "https://127.0.0.1/hooks/0123456789abcdef"}, debounce={"wait": "1s"})
    last = event(runtime, samples.load("strapi", "entry.publish"))
    for others, said in ((0, False), (39, True)):
        events = (last,) * (others + 1)
        collected = Collected("debounce", events, ("evt_1",) * len(events))
        delivery = Delivery(DeliveryId(2), "out", last, NOW, NOW, collected=collected)
        body = destination(runtime).render(delivery, "dlv_1", "evt_1", NOW).body
        assert (b"and 39 more" in body) is said
