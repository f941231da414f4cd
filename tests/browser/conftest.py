"""Pages in the system's Chromium: one browser for all tests of a process, and a fresh profile for each page."""

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from required import missing

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE, DESKTOP = (390, 844), (1280, 800)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser: $CHROMIUM, or the first of the usual names on the PATH."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    return found or missing("browser", "apt-get install chromium, or set CHROMIUM")


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator:
    """The browser, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def open_page(browser) -> Iterator[Callable]:
    """Opens an address at a size (width, height) in a profile of its own, light or dark.

    After the test no page may have had an error on its console, or one that nobody caught.
    """
    contexts, errors = [], []

    def opened(address: str, size: tuple[int, int] = DESKTOP, *, dark: bool = False, **options):
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light", **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        return page

    opened.errors = errors  # type: ignore[attr-defined]  # a test that provokes errors empties it
    yield opened
    for context in contexts:
        context.close()
    assert not errors
