"""A relay with sources, destinations and events of all kinds, and Debian's chromium to look at it with."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from relay.clock import Clock, SystemClock
from relay.sending import post, request_for
from tests.harness import PATIENCE, Received, Relay, relay_here, sink

CHROMIUM, DRIVER = "chromium", "chromedriver"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-color-profile=srgb",
    "--hide-scrollbars",
)  # fmt: skip

CONFIG = """
admin: {listen: "127.0.0.1:0"}
server: {listen: "127.0.0.1:0"}
sources:
  storyblok: {type: storyblok, secret: a-secret-of-storyblok}
  strapi: {type: strapi, token: a-token-of-strapi}
  contentstack: {type: contentstack, secret: a-secret-of-contentstack}
  prismic: {type: prismic, secret: a-secret-of-prismic}
  hygraph: {type: hygraph, secret: a-secret-of-hygraph}
  shop:
    type: generic
    verify: none
    dedup: off
    map: {event: body.event, model: body.model, stage: body.stage, action: body.action, entry_id: body.id}
routes:
  - name: rebuild-www
    description: Rebuild the site when published content changes
    match: {action: [publish, unpublish]}
    to: {url: SINK/build}
    payload: empty
    debounce: {wait: 20s, max_wait: 5m}
  - name: search
    description: Keep the search index up to date
    match: {model: ["!asset", "!media"], action: [create, update, delete, publish, unpublish]}
    to: {url: SINK/search, method: PUT, auth: {type: bearer, token: a-token-of-search}}
    payload: normalized
    sign: [{scheme: standard, secret: whsec_ZXhhbXBsZS1zaWduaW5nLXNlY3JldC0wMDE=}]
    retry: {policy: schedule, delays: [5s, 1m, 10m, 1h], jitter: 0}
  - name: chat
    match: {action: publish, model: [product, article, page]}
    to: {url: SINK/chat}
    payload: {template: "{{ {'text': event.model ~ ' ' ~ event.entry_id ~ ' is online'} | tojson }}"}
    retry: none
    unhealthy_after: 1000
  - name: archive
    sources: [shop]
    match: {action: archive}
    to: {url: SINK/archive}
    batch: {max: 50, wait: 30m}
"""

T = TypeVar("T")


@dataclass
class Mood:
    """What the destinations answer, by path."""

    statuses: dict[str, int]

    def __call__(self, received: Received) -> int:
        return self.statuses.get(received.path, 200)


class Stage:
    """A relay in a thread of its own, so that a browser can be waited for."""

    def __init__(self, folder: Path, config: str = CONFIG, clock: Clock | None = None) -> None:
        self._folder, self._config, self._clock = folder, config, clock
        self._loop = asyncio.new_event_loop()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._turn, daemon=True)
        self.mood = Mood({})
        self.relay: Relay

    def _turn(self) -> None:
        try:
            self._loop.run_until_complete(self._run())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    async def _run(self) -> None:
        self._over = asyncio.Event()
        try:
            async with sink(self.mood) as there:
                text = self._config.replace("SINK", there.url)
                async with relay_here(self._folder, text, self._clock) as relay:
                    self.relay, self.sink = relay, there
                    self._ready.set_result(None)
                    await self._over.wait()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise

    def start(self) -> Stage:
        """Begin; the relay takes events when this returns."""
        self._thread.start()
        self._ready.result(PATIENCE)
        return self

    def stop(self) -> None:
        """End."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE)

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        """Have something done in the relay's thread."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE)

    @property
    def url(self) -> str:
        """The dashboard."""
        return self.relay.admin

    def send(self, source: str, sample: str | None = None) -> dict[str, Any]:
        """A genuine, signed sample."""

        async def sending() -> dict[str, Any]:
            assert self.relay.running is not None
            runtime = self.relay.running.reloader.runtime
            found = runtime.sources[source]
            now = (self._clock or SystemClock()).now()
            _, answer = await post(self.relay.public, found.path, request_for(found, sample, None, now))
            assert isinstance(answer, dict)
            return answer

        return self.do(sending())

    def shop(self, **said: Any) -> dict[str, Any]:
        """An event of the shop, in our own words."""
        status, answer = self.do(self.relay.post("/in/shop", json.dumps(said).encode()))
        assert status == 200, answer
        return answer

    def logs(self, query: str, enough: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
        """The log, once it is so."""
        return self.do(self.relay.logs_when(enough, query))


def missing() -> str | None:
    """Why there is no browser, if there is none."""
    for tool, package in ((CHROMIUM, "chromium"), (DRIVER, "chromium-driver")):
        if shutil.which(tool) is None:
            return f"{tool} is not installed: it is in Debian's package {package}"
    return None


@contextmanager
def browser(profile: Path, *flags: str) -> Iterator[webdriver.Chrome]:
    """Chromium with a profile of its own."""
    options = Options()
    options.binary_location = str(shutil.which(CHROMIUM))
    for flag in (*FLAGS, f"--user-data-dir={profile}", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(str(shutil.which(DRIVER))))
    driver.set_page_load_timeout(PATIENCE)
    driver.set_window_size(1280, 900)
    try:
        yield driver
    finally:
        driver.quit()
