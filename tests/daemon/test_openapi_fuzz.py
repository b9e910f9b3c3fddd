"""Requests that nobody would make, out of `/openapi.json`: none is a 5xx, none is answered otherwise than described."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, strategies
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from relay.web import logquery
from tests.daemon.test_admin import OPERATE, bearer, body
from tests.daemon.test_openapi import ENDLESS, ENTRIES, filled, reading

pytestmark = pytest.mark.long

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
ONLY_KNOWN_LATER = "cursor takes|no filter: |(since|until) takes|code takes a range"
"""Why what is as described may be a 400 still: nobody gave out that cursor; times, and which end of a
range comes first, are described in words alone."""
ANY_NAME = ("GET /routes/{name}", "POST /routes/{name}/resume", "POST /routes/{name}/test")
"""Requests that take nothing but a name, of which each is as good as another."""
EXAMPLES = 25  # of each request, of what it takes and of what it does not


def fuzz(url: str, known: dict[str, list[str]]) -> dict[str, set[int]]:
    """Send made-up requests, most of them about something that exists; the statuses of each request's answers."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=bearer(OPERATE))
    schema.config.generation.update(with_security_parameters=False)
    seen: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if operation.path in ENDLESS:
            continue
        [noun] = operation.tags or []
        takes = bool(operation.path_parameters or operation.query)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)[: 1 + takes]:
            send(
                operation,
                mode,
                values(url, operation.path, known.get(noun, [])),
                seen.setdefault(operation.label, set()),
            )
    return seen


ABLE = {
    "/logs/{id}/retry": "status=failed,cancelled,pending",
    "/logs/{id}/cancel": "status=pending,held",
}
"""What it can be done to."""


def values(url: str, path: str, known: list[str]) -> strategies.SearchStrategy[str]:
    """Names of what exists; every other one of what the request can be about now."""
    able = known
    if path.startswith("/windows/"):
        able = [window["id"] for window in get(f"{url}/windows")["items"]]
    elif path in ABLE:
        able = [item["id"] for item in get(f"{url}/logs?limit=1000&{ABLE[path]}")["items"]]
    return strategies.one_of(strategies.sampled_from(able or known), strategies.sampled_from(known))


def get(url: str) -> Any:
    with urlopen(Request(url, headers=bearer(OPERATE))) as response:
        return json.loads(response.read())


def send(operation: Any, mode: GenerationMode, real: strategies.SearchStrategy[str], seen: set[int]) -> None:
    made = operation.as_strategy(generation_mode=mode)

    @hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @hypothesis.given(strategies.data())
    def requests(data: Any) -> None:
        case = data.draw(made)
        named = [name for name in case.path_parameters or {} if data.draw(strategies.integers(0, 3))]
        for name in named:
            case.path_parameters[name] = data.draw(real)
        if mode is GenerationMode.POSITIVE and "to" in case.query:
            case.query["to"] = data.draw(real)
        # With a path that is right after all, the request may be.
        checks = CHECKS if named or mode is GenerationMode.POSITIVE else [*CHECKS, negative_data_rejection]
        response = case.call_and_validate(checks=checks, headers=bearer(OPERATE))
        if response.status_code == 400 and mode is GenerationMode.POSITIVE:
            assert re.match(ONLY_KNOWN_LATER, response.json()["detail"]), response.json()
        seen.add(response.status_code)

    try:
        requests()
    except Unsatisfiable:  # any name may be one, so that nothing is none
        assert mode is GenerationMode.NEGATIVE
        assert operation.label in ANY_NAME, operation.label


# The relay of this very process draws its retries' jitter meanwhile; hypothesis takes that for ours.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning")
async def test_no_request_that_can_be_made_up_breaks_the_admin_side_or_its_description(tmp_path: Path) -> None:
    async with reading(tmp_path, *ENTRIES) as ask:
        await filled(ask, tmp_path)
        for number in range(2 * EXAMPLES):
            await ask.running.post("/in/any", body(model="window", id=str(number)))
        found = (await ask("GET", f"/logs?limit=1000&status={','.join(logquery.STATUSES)}"))["items"]
        known = {
            "logs": [*(item["id"] for item in found), *(item["event_id"] for item in found if item["event_id"])],
            "deliveries": [item["id"] for item in found if item["id"].startswith("dlv_")],
            "windows": [item["id"] for item in found if item["route"] == "windows"],
            "events": [item["event_id"] for item in found if item["event_id"]],
            "routes": ["good", "ill", "windows", "gone"],
        }
        seen = await asyncio.to_thread(fuzz, ask.running.admin, known)
        described = {f"{method.upper()} {path}" for path, item in ask.document["paths"].items() for method in item}
        assert seen.keys() == described - {"GET /openapi.json", *(f"GET {path}" for path in ENDLESS)}
        assert {label: min(statuses) for label, statuses in seen.items()} == dict.fromkeys(seen, 200)
        assert set().union(*seen.values()) >= {200, 400, 404, 409}
