"""The dashboard in a real browser: what people do with it, live rows, the keyboard, and what may never run in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.stage import CONFIG, Stage
from tests.harness import PATIENCE, sink

pytestmark = pytest.mark.long

_numbers = count(1)


@pytest.fixture(autouse=True)
def _nothing_amiss_in_the_console(driver: Chrome, stage: Stage) -> Iterator[None]:
    stage.mood.statuses.clear()
    wide(driver)
    console(driver)
    yield
    assert [line for line in console(driver) if "Content Security Policy" in line or "Uncaught" in line] == []


def console(driver: Chrome) -> list[str]:
    """What the browser wrote since it was asked last."""
    lines: list[dict[str, Any]] = driver.get_log("browser")  # type: ignore[no-untyped-call]
    return [line["message"] for line in lines]


def wide(driver: Chrome, width: int = 1280, height: int = 900) -> None:
    measures = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", measures)


def entry_id() -> str:
    """One that no other test has used."""
    return f"E-{next(_numbers)}"


def until(driver: Chrome, condition: Callable[[], Any]) -> Any:
    """Wait until it is so; an element that is gone meanwhile is looked for again."""
    waiting = WebDriverWait(driver, PATIENCE, 0.05, ignored_exceptions=[StaleElementReferenceException])
    return waiting.until(lambda _: _unless_gone(condition))


def _unless_gone(condition: Callable[[], Any]) -> Any:
    """Chromium has no name of its own for an element whose page was left while it was being asked about."""
    try:
        return condition()
    except WebDriverException as error:
        if "does not belong to the document" not in str(error.msg):
            raise
        return None


def said(driver: Chrome) -> str:
    return str(driver.execute_script("return document.body.innerText"))


def says(driver: Chrome, text: str) -> None:
    until(driver, lambda: text in said(driver))


def one(driver: Chrome, css: str) -> WebElement:
    return driver.find_element(By.CSS_SELECTOR, css)


def _reads(driver: Chrome, css: str, text: str) -> bool:
    return one(driver, css).text.strip() == text


def press(driver: Chrome, css: str) -> None:
    """Press a button and wait for the next page."""
    before = one(driver, "html")
    one(driver, css).click()
    until(driver, lambda: _gone(before))
    until(driver, lambda: driver.execute_script("return document.readyState") == "complete")


def _gone(element: WebElement) -> bool:
    try:
        element.is_enabled()
    except Exception:
        return True
    return False


def published(stage: Stage, **more: str) -> dict[str, Any]:
    """An article that was published; its entry, event and delivery to the chat."""
    entry = entry_id()
    answer = stage.shop(event="article.publish", model="article", action="publish", id=entry, **more)
    ended = ("delivered", "failed")
    [item] = stage.logs(
        f"?route=chat&entry_id={entry}", lambda items: items and all(item["status"] in ended for item in items)
    )
    return {"entry": entry, "event": answer["id"], "delivery": item["id"]}


# -- what people do --------------------------------------------------------------------------------------------------


def test_filters_narrow_the_log_and_can_be_shared_as_a_url(driver: Chrome, stage: Stage) -> None:
    stage.mood.statuses["/chat"] = 500
    failed = published(stage)
    stage.mood.statuses.clear()
    good = published(stage)
    driver.get(stage.url + "/ui/logs")
    assert good["entry"] in said(driver)
    one(driver, "input[value=failed]").find_element(By.XPATH, "..").click()
    one(driver, "#f-route").send_keys("chat")
    press(driver, "#filters .primary")
    assert driver.current_url.endswith("/ui/logs?status=failed&route=chat")  # empty fields are left out
    assert failed["entry"] in said(driver)
    assert good["entry"] not in said(driver)
    driver.get(driver.current_url)
    assert one(driver, "#f-route").get_attribute("value") == "chat"
    assert one(driver, "input[value=failed]").is_selected()


def test_a_failed_delivery_is_opened_and_tried_again(driver: Chrome, stage: Stage) -> None:
    stage.mood.statuses["/chat"] = 500
    failed = published(stage)
    stage.mood.statuses.clear()
    driver.get(stage.url + "/ui/logs?status=failed")
    one(driver, f"#row-{failed['delivery']} .what").click()
    says(driver, "Attempt 1")
    for text in ("HTTP 500", "Request", "Response", "webhook-id"):
        assert text in said(driver), text
    press(driver, "#top .primary")
    assert "It is tried again now." in said(driver)
    assert "told=" not in driver.current_url
    stage.logs(f"?entry_id={failed['entry']}&route=chat", lambda items: items[0]["status"] == "delivered")
    driver.refresh()
    assert one(driver, "#top .status").text == "delivered"
    assert "Attempt 2" in said(driver)


def test_a_route_is_paused_with_a_reason_and_resumed(driver: Chrome, stage: Stage) -> None:
    driver.get(stage.url + "/ui/routes/search")
    one(driver, "#reason").send_keys("a content freeze")
    press(driver, "form[action='/routes/search/pause'] button")
    assert "search is paused." in said(driver)
    assert "a content freeze" in said(driver)
    driver.get(stage.url)
    assert one(driver, "#route-search .status").text == "paused"
    press(driver, "#route-search form[action='/routes/search/resume'] button")
    assert "search sends again." in said(driver)
    assert one(driver, "#route-search .status").text == "healthy"


def test_a_test_of_a_route_shows_what_its_destination_answers(driver: Chrome, stage: Stage) -> None:
    stage.mood.statuses["/chat"] = 418
    driver.get(stage.url + "/ui/routes/chat")
    one(driver, "form[action='/routes/chat/test'] button").click()
    driver.switch_to.alert.accept()
    says(driver, "The test of chat failed: HTTP 418")


def test_a_test_asks_first_for_it_may_start_a_build(driver: Chrome, stage: Stage) -> None:
    before = len(stage.sink.received)
    for path in ("/", "/ui/routes/archive"):
        driver.get(stage.url + path)
        one(driver, "form[action='/routes/archive/test'] button").click()
        asked = driver.switch_to.alert
        assert "Send a test event by archive now?" in asked.text
        assert "a build hook starts a build" in asked.text
        asked.dismiss()
    assert "The test of" not in said(driver)
    assert [received for received in stage.sink.received[before:] if received.path == "/archive"] == []


def test_a_window_is_sent_now(driver: Chrome, stage: Stage) -> None:
    entry = entry_id()
    stage.shop(model="article", action="archive", id=entry)
    [item] = stage.logs(f"?entry_id={entry}", bool)
    driver.get(stage.url + "/ui/windows")
    press(driver, f"#window-{item['id']} .primary")
    assert "The window is sent now." in said(driver)
    stage.logs(f"?entry_id={entry}", lambda items: items[0]["status"] == "delivered")
    assert driver.find_elements(By.ID, f"window-{item['id']}") == []


def test_dropping_a_window_asks_first(driver: Chrome, stage: Stage) -> None:
    entry = entry_id()
    stage.shop(model="article", action="archive", id=entry)
    [item] = stage.logs(f"?entry_id={entry}", bool)
    driver.get(stage.url + "/ui/windows")
    cancel = f"#window-{item['id']} .danger"
    one(driver, cancel).click()
    driver.switch_to.alert.dismiss()
    assert stage.logs(f"?entry_id={entry}", bool)[0]["status"] == "pending"
    one(driver, cancel).click()
    driver.switch_to.alert.accept()
    says(driver, "The window was dropped.")
    stage.logs(f"?entry_id={entry}", lambda items: items[0]["status"] == "cancelled")


def test_an_entry_is_found_from_any_page_and_says_whether_it_went_out(driver: Chrome, stage: Stage) -> None:
    found = published(stage)
    stage.logs(f"?entry_id={found['entry']}&route=search", lambda items: items[0]["status"] == "delivered")
    driver.get(stage.url + "/ui/windows")
    one(driver, "body").send_keys("/")
    search = driver.switch_to.active_element
    assert search.get_attribute("id") == "find"
    search.send_keys(found["entry"], Keys.ENTER)
    says(driver, "What happened")
    assert "It is on its way" in said(driver)  # the site's build waits for more
    for text in ("rebuild-www goes out in", "(200)", "publish article"):
        assert text in " ".join(said(driver).split()), text


# -- live ------------------------------------------------------------------------------------------------------------


def test_a_delivery_appears_in_the_log_without_a_reload_and_goes_on(driver: Chrome, stage: Stage) -> None:
    driver.get(stage.url + "/ui/logs?route=chat,archive")
    until(driver, lambda: one(driver, "#live").text == "Live")
    driver.execute_script("window.same = true")
    entry = entry_id()
    stage.shop(model="article", action="archive", id=entry)
    [item] = stage.logs(f"?entry_id={entry}", bool)
    row = f"#row-{item['id']}"
    until(driver, lambda: driver.find_elements(By.CSS_SELECTOR, row))
    assert one(driver, f"{row} .status").text == "pending"
    assert entry in one(driver, row).text
    stage.do(stage.relay.ask("POST", f"/windows/{item['id']}/flush"))
    until(driver, lambda: one(driver, f"{row} .status").text == "delivered")
    assert driver.execute_script("return window.same") is True
    # What the stream wrote is what a reload writes.
    live = one(driver, f"{row} .result").text.partition(" · ")[0], one(driver, f"{row} .c-way").text
    driver.refresh()
    assert live == (one(driver, f"{row} .result").text.partition(" · ")[0], one(driver, f"{row} .c-way").text)


def test_the_overview_follows_what_happens(driver: Chrome, stage: Stage) -> None:
    driver.get(stage.url)
    until(driver, lambda: one(driver, "#live").text == "Live")
    says(driver, published(stage)["entry"])


def test_a_page_is_brought_up_to_date_in_place_and_keeps_focus_and_folds(driver: Chrome, stage: Stage) -> None:
    driver.get(stage.url + "/ui/logs/" + published(stage)["delivery"])
    fold = one(driver, "#headers-of-event")
    fold.find_element(By.TAG_NAME, "summary").click()
    button = one(driver, "form[action$='/replay'] button")
    driver.execute_script("arguments[0].focus()", button)
    found = published(stage)
    driver.get(stage.url)
    driver.execute_script("window.same = true; document.querySelector('#route-chat button').focus()")
    until(driver, lambda: found["entry"] in said(driver))
    later = published(stage)
    until(driver, lambda: later["entry"] in said(driver))  # also without a stream the page is read anew
    assert driver.execute_script("return window.same && document.activeElement.closest('#route-chat') !== null")


# -- what strangers send ---------------------------------------------------------------------------------------------

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><style>*{display:none}"
ODD = f"{SCRIPT}</title></template></textarea>\x1b[31m\u202eabc\u0000\ud800'\"{{{{7*7}}}}"


def hostile(stage: Stage) -> dict[str, str]:
    """An event that is nothing but attempts to run; the pages that show it."""
    stage.mood.statuses["/chat"] = 500
    long = "w" * 900_000
    answer = stage.shop(event=ODD, model="article", action="publish", stage=ODD, id=ODD, text=ODD, **{ODD: ODD})
    wide_one = stage.shop(
        event=long[:100_000], model="page", action="publish", stage=long[:1000], id=long[:400], x=long
    )
    items = stage.logs(f"?event_id={answer['id']},{wide_one['id']}&route=chat", lambda found: len(found) == 2)
    return {
        "overview": "/",
        "log": "/ui/logs",
        "event": f"/ui/logs/{answer['id']}",
        "wide event": f"/ui/logs/{wide_one['id']}",
        "wide entry": f"/ui/entries?entry_id={long[:400]}",
        **{f"delivery {number}": f"/ui/logs/{item['id']}" for number, item in enumerate(items)},
    }


def test_a_hostile_payload_is_text_and_breaks_nothing_on_a_narrow_screen(driver: Chrome, stage: Stage) -> None:
    pages = hostile(stage)
    for width in (360, 1280):
        wide(driver, width)
        for name, path in pages.items():
            driver.get(stage.url + path)
            assert driver.title != "owned"
            assert driver.execute_script("return document.images.length") == 0, name
            assert driver.execute_script("return document.scripts.length") == 1, name
            room = driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
            assert room[0] <= room[1] == width, (name, room)
    driver.get(stage.url + pages["event"])
    assert "<script>document.title='owned'</script>" in said(driver)
    assert "\\x1b[31m\\u202eabc" in said(driver)


def test_a_hostile_payload_is_text_in_live_rows_too(driver: Chrome, stage: Stage) -> None:
    driver.get(stage.url + "/ui/logs")
    until(driver, lambda: one(driver, "#live").text == "Live")
    answer = stage.shop(event=ODD, model=ODD, action="publish", stage=ODD, id=ODD)
    [item] = stage.logs(f"?event_id={answer['id']}&route=search", bool)
    until(driver, lambda: driver.find_elements(By.ID, f"row-{item['id']}"))
    assert "<script>" in one(driver, f"#row-{item['id']}").text
    assert (driver.title, driver.execute_script("return document.images.length")) == ("Log · relay", 0)
    # Short enough to be whole in each cell.
    image = "<img src=x>"
    answer = stage.shop(event=image, model=image, action="publish", stage=image, id=image)
    [item] = stage.logs(f"?event_id={answer['id']}&route=search", bool)
    row = f"#row-{item['id']}"
    until(driver, partial(driver.find_elements, By.CSS_SELECTOR, f"{row} .status"))
    assert one(driver, row).text.count(image) >= 2
    assert not driver.find_elements(By.CSS_SELECTOR, f"{row} img")
    assert driver.execute_script("return document.images.length") == 0


def test_what_is_long_pushes_nothing_out_of_sight(driver: Chrome, stage: Stage) -> None:
    stage.mood.statuses["/chat"] = 500
    entry = "e" * 300
    answer = stage.shop(event="v" * 300, model="m" * 300, action="publish", stage="s" * 300, id=entry)
    stage.logs(f"?event_id={answer['id']}&route=search", lambda items: items and items[0]["status"] == "delivered")
    nobody = stage.shop(event="v" * 300, id="w" * 300)
    for width in (360, 700, 1280):
        wide(driver, width)
        for path in ("/", "/ui/logs", f"/ui/logs/{answer['id']}", f"/ui/logs/{nobody['id']}", "/ui/routes/search",
                     "/ui/windows", "/ui/entries", f"/ui/entries?entry_id={entry}"):  # fmt: skip
            driver.get(stage.url + path)
            beyond = driver.execute_script(
                "return [document.documentElement, ...document.querySelectorAll('.scroll, .card, table')]"
                ".filter(e => e.scrollWidth > e.clientWidth + 1)"
                ".map(e => [e.className || e.tagName, e.scrollWidth, e.clientWidth])"
            )
            assert beyond == [], (width, path)
    wide(driver)
    driver.get(f"{stage.url}/ui/logs?event_id={answer['id']}")
    widths = driver.execute_script(
        "return [...document.querySelectorAll('#log tr:first-child td')].map(e => e.offsetWidth)"
    )
    assert min(width for width in widths if width) > 60, widths


NAMED = """
  - {name: p-netlify-www-production, match: {action: visit}, to: {url: SINK/p}}
  - {name: a-name-that-is-longer-than-any-column-could-be-and-goes-on, match: {action: visit}, to: {url: SINK/p}}
"""


def test_names_of_routes_break_only_where_they_must(driver: Chrome, tmp_path: Path) -> None:
    named = Stage(tmp_path, CONFIG + NAMED).start()
    reason = "+".join(["a freeze of all content until the newsroom has moved"] * 3).replace(" ", "+")
    try:
        named.do(named.relay.ask("POST", f"/routes/chat/pause?reason={reason}"))
        for width, most in ((1100, 1), (1280, 1), (800, 2)):
            wide(driver, width)
            driver.get(named.url)
            lines = driver.execute_script(
                "return [...document.querySelectorAll('#routes tbody th a')].map(name => {"
                " const range = document.createRange(); range.selectNodeContents(name);"
                " return [name.textContent, range.getClientRects().length]; })"
            )
            long = [name for name, number in lines if number > most]
            assert long == [name for name, _ in lines if len(name) > 40], (width, lines)
            room = driver.execute_script(
                "const around = document.querySelector('#routes').parentNode;"
                " return [around.scrollWidth, around.clientWidth]"
            )
            assert room[0] <= room[1] + 1, (width, room)
    finally:
        driver.get("about:blank")
        named.stop()


def test_that_a_page_is_live_is_a_word_on_a_phone_too(driver: Chrome, stage: Stage) -> None:
    wide(driver, 390)
    driver.get(stage.url)
    until(driver, lambda: one(driver, "#live").text == "Live")
    mark, search = one(driver, "#live"), one(driver, ".find")
    assert int(driver.execute_script("return parseInt(getComputedStyle(arguments[0]).fontSize)", mark)) >= 12
    assert search.rect["y"] <= mark.rect["y"] <= search.rect["y"] + search.rect["height"]  # not on a line of its own


SICK = """
  - name: sick
    match: {action: visit}
    to: {url: SINK/sick}
    unhealthy_after: 1
    retry: {policy: fixed, every: 1s, attempts: 9, jitter: 0}
"""


def test_live_rows_say_what_they_wait_for(driver: Chrome, tmp_path: Path) -> None:
    ward = Stage(tmp_path, CONFIG + SICK).start()
    ward.mood.statuses["/sick"] = 503
    try:
        driver.get(ward.url + "/ui/logs")
        until(driver, lambda: one(driver, "#live").text == "Live")
        ward.shop(model="patient", action="visit", id=entry_id())
        says(driver, "waits for its route to answer: the next probe goes out in")
        assert "due now" not in said(driver)
    finally:
        driver.get("about:blank")
        ward.stop()


def test_live_rows_say_why_they_are_held_and_what_they_are_part_of(driver: Chrome, stage: Stage) -> None:
    driver.get(stage.url + "/ui/logs?route=archive,chat")
    until(driver, lambda: one(driver, "#live").text == "Live")
    first, second = entry_id(), entry_id()
    stage.shop(model="article", action="archive", id=first)
    stage.shop(model="article", action="archive", id=second)
    [window] = stage.logs(f"?entry_id={first}", bool)
    [merged] = stage.logs(f"?entry_id={second}", bool)
    stage.do(stage.relay.ask("POST", f"/windows/{window['id']}/hold"))
    stage.do(stage.relay.ask("POST", "/routes/chat/pause"))
    try:
        entry = entry_id()
        stage.shop(event="article.publish", model="article", action="publish", id=entry)
        [held] = stage.logs(f"?entry_id={entry}&route=chat&status=held", bool)
        rows = {
            held["id"]: "held until its route is resumed",
            window["id"]: "held by hand: Send now sends it",
            merged["id"]: "merged into another one",
        }
        for _ in ("live", "anew"):
            for id_text, words in rows.items():
                until(driver, partial(_reads, driver, f"#row-{id_text} .c-result", words))
            driver.refresh()
    finally:
        stage.do(stage.relay.ask("POST", "/routes/chat/resume"))
        stage.do(stage.relay.ask("POST", f"/windows/{window['id']}/cancel"))


def test_every_page_fits_a_phone(driver: Chrome, stage: Stage) -> None:
    found = published(stage)
    stage.shop(model="article", action="archive", id=entry_id())
    wide(driver, 360)
    for path in ("/", "/ui/logs", "/ui/windows", "/ui/retry", "/ui/routes/search", f"/ui/logs/{found['delivery']}",
                 f"/ui/entries?entry_id={found['entry']}", "/ui/logs?since=x"):  # fmt: skip
        driver.get(stage.url + path)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 360, path


# -- without a mouse, without scripts --------------------------------------------------------------------------------


def test_the_keyboard_reaches_everything_and_shows_where_it_is(driver: Chrome, stage: Stage) -> None:
    driver.get(stage.url)
    one(driver, "body").send_keys(Keys.TAB)
    assert driver.switch_to.active_element.text == "Skip to the content"
    reached = set()
    for _ in range(200):
        now = driver.execute_script(
            "const e = document.activeElement, s = getComputedStyle(e);"
            "return [e.outerHTML.slice(0, 200) + [...document.querySelectorAll(e.tagName)].indexOf(e),"
            " s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0, e.tagName]"
        )
        if now[2] == "BODY":
            break
        assert now[1], f"no ring around {now[0]}"
        reached.add(now[0])
        driver.switch_to.active_element.send_keys(Keys.TAB)
    there = driver.execute_script(
        "return [...document.querySelectorAll('a, button, input, summary')].filter(e => e.checkVisibility()).length"
    )
    assert len(reached) >= there - 1
    ring = one(driver, "#route-search form[action$='/pause'] button")
    driver.execute_script("arguments[0].focus()", ring)
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    says(driver, "search is paused.")
    stage.do(stage.relay.ask("POST", "/routes/search/resume"))


def test_all_of_it_works_without_scripts(driver: Chrome, stage: Stage) -> None:
    found = published(stage)
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get(f"{stage.url}/ui/logs/{found['delivery']}")
        one(driver, "form[action$='/replay'] button").click()
        until(driver, lambda: "New deliveries to" in one(driver, "main").text)
        driver.get(stage.url + "/ui/logs?status=&route=chat&since=")
        assert found["entry"] in one(driver, "#log").text
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


# -- other sites -----------------------------------------------------------------------------------------------------

EVIL = """<!doctype html><title>another site</title>
<form id="form" method="post" action="TARGET/routes/search/pause"><button>win a prize</button></form>
<script>
  fetch('TARGET/routes/search/pause', {method: 'POST', credentials: 'include', mode: 'no-cors'})
    .then(() => fetch('TARGET/config', {credentials: 'include'})).then(r => r.text(), e => 'refused: ' + e)
    .then(text => document.title = text);
</script>"""


def test_another_site_can_neither_act_nor_read_with_the_browsers_credentials(driver: Chrome, tmp_path: Path) -> None:
    token = "a-token-for-the-admin-side"
    guarded = Stage(tmp_path, CONFIG.replace("admin: {", f"admin: {{token: {token}, ", 1)).start()
    bearer = {"headers": {"Authorization": f"Bearer {token}"}}
    try:
        driver.get(guarded.url.replace("://", f"://me:{token}@"))
        assert "Routes" in said(driver)  # from now on the browser adds the token by itself

        async def state() -> str:
            return str((await guarded.relay.get("/routes/search", **bearer))["state"])

        async def evil(visit: Callable[[str], None]) -> None:
            from aiohttp import web

            page = EVIL.replace("TARGET", guarded.url)
            async with sink(lambda request: web.Response(text=page, content_type="text/html")) as site:
                await asyncio.to_thread(visit, site.url.replace("127.0.0.1", "localhost"))
                await asyncio.to_thread(visit, site.url)

        def visit(site: str) -> None:
            driver.get(site)
            until(driver, lambda: driver.title.startswith("refused"))
            one(driver, "button").click()
            says(driver, "cross-origin requests are refused")

        asyncio.run(evil(visit))
        assert guarded.do(state()) == "healthy"
        driver.get(guarded.url)
        press(driver, "#route-search form[action$='/pause'] button")  # the same, from our own page
        assert guarded.do(state()) == "paused"
    finally:
        guarded.stop()
