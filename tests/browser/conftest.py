"""One browser and one relay for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from tests.browser.stage import Stage, browser, missing


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="session")
def stage(driver: Chrome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("relay")).start()
    try:
        yield made
    finally:
        made.stop()
