"""The files of the service's page: small, without anything from elsewhere, and in colours that can be read."""

import asyncio
import re
from itertools import product

import httpx
import pytest

from hybridvit.serve.app import create_app
from hybridvit.serve.limits import Limits
from hybridvit.serve.models import Models
from hybridvit.serve.pages import PAGE

NAMES = {each.name for each in PAGE.iterdir() if each.is_file()}
TEXTS = {name: PAGE.joinpath(name).read_text(encoding="utf-8") for name in NAMES if not name.startswith("example-")}
MOST_BYTES, MOST_EXAMPLE_BYTES = 40_000, 60_000
LEAST_CONTRAST, LEAST_OF_EDGES = 4.5, 3.0  # WCAG 2.2, of text (1.4.3) and of what shows where controls are (1.4.11)
TEXT_ON = (
    *product(("ink", "soft", "accent"), ("paper", "panel", "well", "tint")),
    ("on-accent", "accent"),
    ("ink", "bad-tint"),
    ("bad", "bad-tint"),
    ("bad", "well"),
    ("good", "good-tint"),
)
EDGE_ON = tuple(product(("edge", "accent"), ("paper", "panel")))


def test_the_page_is_small():
    assert sum(len(text.encode()) for text in TEXTS.values()) <= MOST_BYTES
    assert sum(len(PAGE.joinpath(name).read_bytes()) for name in NAMES - TEXTS.keys()) <= MOST_EXAMPLE_BYTES


def test_nothing_comes_from_elsewhere_and_nothing_is_inline():
    for name, text in TEXTS.items():
        assert not re.search(r"(?:src|href|from|import|url)\W{1,3}https?:", text), name
        assert "innerHTML" not in text, name
    markup = TEXTS["index.html"]
    assert not re.search(r"\s(?:style|on\w+)=", markup)
    assert re.findall(r"<script[^>]*>(.*?)</script>", markup, re.S) == [""]
    assert "<style" not in markup


def test_every_file_that_the_page_asks_for_is_there():
    asked = set(re.findall(r"assets/([\w.-]+)", TEXTS["index.html"]))
    asked |= {name for text in TEXTS.values() for name in re.findall(r'from "\./([\w.-]+)"', text)}
    asked |= set(re.findall(r'data-file="([\w.-]+)"', TEXTS["index.html"]))

    assert asked | {"index.html"} == NAMES


def test_every_file_is_served_isolated_by_its_type_and_not_sent_again():
    async def asked() -> list[tuple[str, httpx.Response, httpx.Response]]:
        models = Models([], Limits())
        transport = httpx.ASGITransport(create_app(models))
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            answers = []
            for name in NAMES:
                first = await client.get("/" if name == "index.html" else f"/assets/{name}")
                answers.append(
                    (name, first, await client.get(first.url, headers={"If-None-Match": first.headers["etag"]}))
                )
        await models.stop()
        return answers

    kinds = {"html": "text/html", "js": "text/javascript", "css": "text/css", "png": "image/png", "jpg": "image/jpeg"}
    for name, first, again in asyncio.run(asked()):
        assert first.content == PAGE.joinpath(name).read_bytes()
        assert first.headers["content-type"].partition(";")[0] == kinds[name.rpartition(".")[2]]
        assert (again.status_code, again.content) == (304, b"")
        for answer in (first, again):
            assert answer.headers["content-security-policy"].startswith("default-src 'self'; ")
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
            assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
            assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(scheme):
    colours = palettes()[scheme]

    for least, pairs in ((LEAST_CONTRAST, TEXT_ON), (LEAST_OF_EDGES, EDGE_ON)):
        weak = {pair: contrast(*(colours[name] for name in pair)) for pair in pairs}
        assert {pair: round(value, 2) for pair, value in weak.items() if value < least} == {}


def palettes() -> dict[str, dict[str, str]]:
    """The colours of both schemes by name."""
    light, dark = re.findall(r":root \{(.*?)\}", TEXTS["style.css"], re.S)
    return {key: dict(re.findall(r"--([\w-]+): (#\w{6});", text)) for key, text in (("light", light), ("dark", dark))}


def contrast(one: str, other: str) -> float:
    """Of two colours (#rrggbb), 1 to 21, as WCAG 2.2 defines the ratio."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.2)."""
    levels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    return sum(weight * level for weight, level in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
