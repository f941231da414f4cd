"""Pages in the system's Chromium: one browser for all tests of a process, and a fresh profile for each page."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

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
def launch(chromium: str) -> Iterator[Callable]:
    """Starts the browser, without a window, and with more flags if some are given."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:  # there can be one at a time
        started = []

        def launched(*flags: str):
            started.append(playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, *flags]))
            return started[-1]

        yield launched
        for each in started:
            each.close()


@pytest.fixture(scope="session")
def browser(launch: Callable):
    """The browser of all tests."""
    return launch()


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


@pytest.fixture(scope="session")
def ort_web() -> None:
    """ONNX Runtime Web is in the cache, or npm puts it there."""
    from hybridvit.bench_page.ort_web import ort_web_files
    from hybridvit.errors import UsageError

    try:
        ort_web_files()
    except UsageError as error:
        missing("node", str(error))


@pytest.fixture(scope="session")
def bench_pages(tmp_path_factory: pytest.TempPathFactory, ort_web: None) -> Callable[..., Path]:
    """Writes the page of these models, each with weights that make every layer count: "small", "small-int8" and names.

    A model is converted once, and so is a page of the same models.
    """
    from exported import exported

    from hybridvit.bench_page import write_page

    root, pages = tmp_path_factory.mktemp("pages"), dict[tuple[str, ...], Path]()

    def page_of(*names: str) -> Path:
        if names not in pages:
            files = [exported(name, root) for name in names]
            pages[names] = write_page(root / "-".join(names), files).folder
        return pages[names]

    return page_of
