"""A Contentstack webhook export as a config: one source, and a route for each destination of each webhook.

https://www.contentstack.com/docs/developers/apis/content-management-api/webhooks

What cannot be told in a config is said in it as a comment, and to who imports as a note. Nothing secret is copied:
passwords, tokens, header values that look like one, query values and the URLs of hooks become `${…}`, whether masked in
the export or not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from relay import yamltext
from relay.imports import channels
from relay.imports.destination import NOT_HELD, NotAnExport, WebhookDestination, one_line, plain_text
from relay.variables import Variables

__all__ = ["SOURCE", "Imported", "NotAnExport", "read"]

SOURCE = "contentstack"

_LONGEST_NAME = 60
# https://www.contentstack.com/docs/developers/set-up-webhooks/webhook-retry-policy
_RETRIES = ("5s", "25s", "125s", "625s")


@dataclass(slots=True)
class Imported:
    """A config, and what remains to be done by hand."""

    webhooks: int = 0
    routes: list[tuple[list[str], dict[str, Any]]] = field(default_factory=list)
    """Comments and keys of each."""
    variables: Variables = field(default_factory=Variables)
    notes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The config file."""
        variables = self.variables.made
        source = {SOURCE: {"type": "contentstack", "token": variables[0].reference}}
        lines = [
            f"# Made from {self.webhooks} {'webhook' if self.webhooks == 1 else 'webhooks'} of Contentstack.",
            "# There, one webhook takes their place: to relay's /in/contentstack, with all of their channels, the full",
            "# payload, automatic retries and bearer authentication.",
            "# Set before `relay check`:",
            *(f"#   {variable.name}" for variable in variables),
            "sources:",
            "  # The token that its bearer authentication sends; `public_key` proves Contentstack's signature besides.",
            *yamltext.lines(source, 1),
            "routes:",
        ]
        for comments, route in self.routes:
            lines += [f"  # {one_line(comment)}" for comment in comments]
            lines += yamltext.lines([route], 1)
        return "".join(f"{line}\n" for line in lines)


def read(document: object) -> Imported:
    """The config that an export comes to. Raises NotAnExport."""
    reading = _Reading()
    for place, webhook in _webhooks(document):
        reading.webhook(place, webhook)
    return reading.result


def _webhooks(document: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each webhook and where it stands: of `{"webhook": …}`, `{"webhooks": […]}`, or of one or a list of them."""
    place, value = "", document
    if isinstance(document, dict):
        for key in ("webhooks", "webhook"):
            if key in document:
                place, value = key, document[key]
                break
        else:
            if "destinations" not in document:
                raise NotAnExport("expected a webhook, or an object with webhook or webhooks")
    if isinstance(value, list) and not value:
        raise NotAnExport("there is no webhook in it")
    for number, item in enumerate(value if isinstance(value, list) else [value]):
        here = f"{place}[{number}]" if isinstance(value, list) else place
        webhook = item
        if isinstance(item, dict) and isinstance(item.get("webhook"), dict) and "destinations" not in item:
            here, webhook = f"{here}.webhook", item["webhook"]
        if not isinstance(webhook, dict):
            raise NotAnExport(f"{here or 'it'}: expected a webhook, which is an object")
        if not isinstance(webhook.get("destinations"), list):
            raise NotAnExport(f"{here or 'the webhook'}: expected a list of destinations")
        yield here, webhook


class _Reading:
    """One export on its way to a config."""

    def __init__(self) -> None:
        self.result = Imported()
        self._names: set[str] = set()
        chosen = "a token of your choice, by which Contentstack proves itself to relay"
        self.result.variables.new("CONTENTSTACK_TOKEN", chosen, NOT_HELD)

    def webhook(self, place: str, webhook: dict[str, Any]) -> None:
        """One webhook: a route for each of its destinations."""
        self.result.webhooks += 1
        title = plain_text(webhook.get("name")) or plain_text(webhook.get("uid")) or "webhook"
        match, remarks = self._match(place, webhook)
        several = len(webhook["destinations"]) > 1
        if not webhook["destinations"]:
            self.result.notes.append(f"webhook '{one_line(title)}' has no destination: it is left out")
        for number, destination in enumerate(webhook["destinations"]):
            here = f"{place}.destinations[{number}]".lstrip(".")
            if not isinstance(destination, dict) or not isinstance(destination.get("target_url"), str):
                raise NotAnExport(f"{here}: expected an object with a target_url")
            name = self._unique(_slug(title) + (f"-{number + 1}" if several else ""))
            self._route(name, title, webhook, destination, match, remarks)

    def _route(
        self,
        name: str,
        title: str,
        webhook: dict[str, Any],
        destination: dict[str, Any],
        match: dict[str, Any] | None,
        remarks: list[str],
    ) -> None:
        writing = WebhookDestination(name, self.result.variables, self.result.notes)
        for remark in remarks:
            writing.remark(remark)
        if match is None:
            writing.remark("none of its channels could be translated: say in match what it wants, then enable it")
        told = _people(webhook.get("notifiers"))
        if told:
            writing.comments.append(f"Contentstack tells of its failures: {', '.join(told)}")
        to = writing.to(destination)
        route: dict[str, Any] = {"name": name}
        if title != name:
            route["description"] = one_line(title)
        if webhook.get("disabled") is True or match is None or not writing.complete:
            route["enabled"] = False
        route["sources"] = [SOURCE]
        if match:
            route["match"] = match
        route["to"] = to
        if webhook.get("concise_payload") is True:
            route["payload"] = "concise"
        retry = _retry(webhook)
        if retry is not None:
            route["retry"] = retry
        self.result.routes.append((writing.comments, route))

    def _match(self, place: str, webhook: dict[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
        """What its channels and branches come to, None if nothing, and what could not be told in it."""
        named = webhook.get("channels")
        if named is not None and (not isinstance(named, list) or not all(isinstance(one, str) for one in named)):
            raise NotAnExport(f"{place or 'the webhook'}: expected channels to be a list of strings")
        branches = webhook.get("branches") or []
        if not isinstance(branches, list) or not all(isinstance(one, str) for one in branches):
            raise NotAnExport(f"{place or 'the webhook'}: expected branches to be a list of strings")
        if "$all" in branches:
            branches = []
        remarks = [_untold(f"(branch) {branch}") for branch in branches if not channels.is_name(branch)]
        scope = [branch for branch in branches if channels.is_name(branch)]
        if remarks and not scope:
            return None, remarks
        found = []
        for channel in named or []:
            match = channels.match_of(channel)
            if match is None:
                remarks.append(_untold(channel))
            else:
                found.append(match)
        matches = [within for match in found for within in channels.scoped(match, scope)]
        if len(matches) > len(found):
            remarks.append(
                'events that say no branch, such as those of items of a release, are taken from all: branch "!?*"'
            )
        unscoped = dict.fromkeys(match["model"] for match in found if channels.of_all_branches(match))
        if scope and unscoped:
            remarks.append(f"events about {', '.join(unscoped)} are taken from all branches: they do not say theirs")
        return channels.joined(matches) if matches else None, remarks

    def _unique(self, name: str) -> str:
        number, found = 1, name
        while found in self._names:
            number += 1
            found = f"{name}-{number}"
        self._names.add(found)
        return found


def _retry(webhook: Mapping[str, Any]) -> Any:
    policy = plain_text(webhook.get("retry_policy")).casefold()
    auto = webhook.get("retry")
    if policy == "automatic" or (not policy and isinstance(auto, dict) and auto.get("auto") is True):
        return {"policy": "schedule", "delays": list(_RETRIES)}
    return "none" if policy == "manual" or (isinstance(auto, dict) and auto.get("auto") is False) else None


def _people(value: object) -> list[str]:
    """Who is told, of one address, several with commas, or a list."""
    given = value if isinstance(value, list) else [value]
    return [one.strip() for text in given for one in plain_text(text).split(",") if one.strip()]


def _untold(channel: str) -> str:
    return f"not translated: the channel {channel}"


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_LONGEST_NAME].strip("-") or "webhook"
