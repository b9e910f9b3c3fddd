"""Pictures of every page, for `make screenshots`: an hour of real samples, in light, dark and on a phone."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.browser.stage import Stage, browser, missing
from tests.fakes import ManualClock

KEPT = {"overview-light", "overview-dark", "delivery-light", "entry-light", "log-filtered-dark", "overview-phone"}
"""What the documentation shows."""
_TALLEST = 1240
_WIDE, _PHONE = (1280, 900), (390, 844)
_PLAY = (
    ("storyblok", "story.published"), ("strapi", "entry.publish"), ("contentstack", "entry.publish"),
    ("hygraph", "publish"), ("strapi", "entry.update"), ("prismic", "document-published"),
    ("storyblok", "asset.created"), ("contentstack", "entry.update"), ("hygraph", "update"),
)  # fmt: skip


class PlayedClock(ManualClock):
    """Goes on by itself, and is put forward between the acts."""

    def monotonic(self) -> float:
        return super().monotonic() + monotonic()


def play(stage: Stage, clock: ManualClock) -> dict[str, str]:
    """An hour of a newsroom: most of it goes well. Gives the pages worth a picture."""
    for minute in range(60):
        busy = 1 + (minute * 7 % 5) + (4 if 20 <= minute < 32 else 0)
        if minute == 44:
            stage.mood.statuses["/search"] = 503
        if minute == 52:
            stage.mood.statuses["/chat"] = 500
        for number in range(busy):
            article = 4100 + (minute * 3 + number) % 23
            action = ("update", "publish", "update", "create")[(minute + number) % 4]
            stage.shop(event=f"article.{action}", model="article", action=action, stage="published", id=f"A-{article}")
        if minute % 7 == 3:
            source, sample = _PLAY[minute // 7 % len(_PLAY)]
            stage.send(source, sample)
        if minute == 50:
            stage.do(_refused(stage))
        for _ in range(6):
            stage.do(_later(clock, 10))
    stage.shop(event="order.shipped", model="order", action="ship", id="O-77")
    for number in range(3):
        stage.shop(event="article.archive", model="article", action="archive", id=f"A-{4100 + number}")
    stage.shop(event="article.publish", model="article", action="publish", stage="published", id="A-4107")
    sent = stage.send("contentstack", "entry.publish")
    stage.do(_later(clock, 1))
    stage.do(stage.relay.ask("POST", "/routes/chat/pause?reason=content+freeze+until+noon"))
    failed = stage.logs("?route=search&status=pending", bool)
    known = max(failed, key=lambda item: int(item["attempts"]))
    rejected = stage.logs("?status=rejected", bool)[0]
    unmatched = stage.logs("?status=unmatched", bool)[0]
    return {
        "overview": "/",
        "log": "/ui/logs",
        "log-filtered": "/ui/logs?status=failed,rejected,unmatched&since=30m",
        "delivery": f"/ui/logs/{known['id']}",
        "event": f"/ui/logs/{sent['id']}",
        "rejected": f"/ui/logs/{rejected['id']}",
        "unmatched": f"/ui/logs/{unmatched['event_id']}",
        "entry": "/ui/entries?entry_id=A-4107",
        "route": "/ui/routes/search",
        "windows": "/ui/windows",
        "retry": "/ui/retry?route=chat",
        "error": "/ui/logs?since=yesterday",
    }


async def _later(clock: ManualClock, seconds: float) -> None:
    await asyncio.sleep(0.03)  # what is being sent is sent in the minute in which it began
    clock.advance(seconds)


async def _refused(stage: Stage) -> None:
    for _ in range(3):
        await stage.relay.post("/in/strapi", b'{"event": "entry.publish"}', {"Authorization": "Bearer not-the-token"})


def take(driver: Chrome, stage: Stage, pages: dict[str, str], folder: Path, look: str, size: tuple[int, int]) -> None:
    """A picture of each page, as tall as it needs, within bounds."""
    scheme = "dark" if look == "dark" else "light"
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    for name, path in pages.items():
        width, height = size
        measures = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": look == "phone"}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", measures)
        driver.get(stage.url + path)
        driver.find_element(By.ID, "main")
        tall = int(driver.execute_script("return document.documentElement.scrollHeight"))
        measures["height"] = max(height, min(tall, _TALLEST))
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", measures)
        driver.save_screenshot(str(folder / f"{name}-{look}.png"))


def main(folder: Path, everything: bool) -> None:
    """Take them all; the documentation keeps some."""
    reason = missing()
    if reason is not None:
        sys.exit(reason)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as where:
        clock = PlayedClock(datetime.now(UTC) - timedelta(minutes=61))
        stage = Stage(Path(where), clock=clock).start()
        try:
            pages = play(stage, clock)
            with browser(Path(where) / "profile") as driver:
                for look, size in (("light", _WIDE), ("dark", _WIDE), ("phone", _PHONE)):
                    wanted = {name: path for name, path in pages.items() if everything or f"{name}-{look}" in KEPT}
                    take(driver, stage, wanted, folder, look, size)
        finally:
            stage.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--all" in sys.argv)
