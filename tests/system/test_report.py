"""The report: everything inside one file, every text escaped, every part optional."""

import dataclasses
import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from hybridvit.demo import walkthrough
from hybridvit.demo.demos import DEMOS
from hybridvit.errors import UsageError
from hybridvit.report import Answer, Bar, Change, Confusion, Curve, Figure, Gallery, Report, Table, render, write_report
from hybridvit.report.html import number

NASTY = '<script>alert("x")</script>&\'"'


class Page(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"


@pytest.fixture
def report(tmp_path: Path) -> Report:
    path = tmp_path / f"{NASTY.replace('/', '-')}.png"
    Image.new("RGB", (300, 200), "red").save(path)
    return Report(
        title=f"T {NASTY}",
        lead=f"L {NASTY}",
        figures=[Figure(value="98 %", label=NASTY, note=NASTY)],
        curves=[
            Curve(
                title=f"C {NASTY}",
                x_label=NASTY,
                y_label=NASTY,
                lines={NASTY: [(1, 2), (2, 1)], "b": [(1, 1)]},
                marks=[(1.5, NASTY)],
            ),
            Curve(title="D", x_label="epoch", y_label="%", lines={"a": [(1, 2), (2, 1)]}),
        ],
        confusion=Confusion(class_names=["a", NASTY], counts=[[3, 1], [0, 4]]),
        galleries=[
            Gallery(
                title=NASTY, answers=[Answer(image=path, file=NASTY, said=NASTY, truth=NASTY, note=NASTY, right=False)]
            ),
            Gallery(title="b", answers=[Answer(image=Image.new("RGB", (8, 8)), file=NASTY, said=NASTY, right=True)]),
        ],
        tables=[Table(title=NASTY, head=[NASTY], rows=[[NASTY]], note=NASTY)],
        bars=[Bar(label=NASTY, median_ms=2, p90_ms=3, low_ms=1.5, high_ms=2.5)],
        bars_note=NASTY,
        changes=[Change(quantity=NASTY, before=4_026_232, after=3_992_392)],
        folding_note=NASTY,
        results=Table(title=NASTY, head=[NASTY, "x"], rows=[[NASTY, "1"]], note=NASTY),
        history=Table(title=NASTY, head=[NASTY], rows=[[NASTY]], note=NASTY),
        settings=Table(title=NASTY, head=[NASTY], rows=[[NASTY]], note=NASTY),
        events=Table(title=NASTY, head=[NASTY], rows=[[NASTY]], note=NASTY),
        facts=[(NASTY, NASTY)],
        commands_title=NASTY,
        machine=[(NASTY, NASTY)],
        commands=[(NASTY, NASTY)],
    )


def test_the_page_is_well_formed_and_loads_nothing(report: Report) -> None:
    text = render(report)
    page = Page(text)
    assert page.open == []
    assert {"link", "script", "iframe", "object"}.isdisjoint(page.elements)
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data"):
            assert value.startswith(("data:image/png;base64,", "#")), value
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "default-src 'none'" in text


def test_every_text_is_escaped(report: Report) -> None:
    text = render(report)
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert") >= 35


def test_colours_of_charts_follow_the_page(report: Report) -> None:
    charts = "".join(re.findall(r"<svg.*?</svg>", render(report), flags=re.DOTALL))
    assert "var(--series-1)" in charts
    assert not re.search(r"#[0-9a-f]{6}|rgb\(", charts)


def test_a_curve_over_shares_has_ticks_between_and_no_last_value() -> None:
    shares = Curve(title="", x_label="recall", y_label="", lines={"all": [(0.0, 0.9), (1.0, 0.25)]}, shows_last=False)
    page = render(Report(title="", lead="", curves=[shares]))
    legend = page[page.index('<ul class="legend">') : page.index("</ul>")]
    assert "all" in legend
    assert "0.25" not in legend
    assert ">0.4</text>" in page
    newest = render(Report(title="", lead="", curves=[dataclasses.replace(shares, shows_last=True)]))
    assert "all <b>0.25</b>" in newest


def test_ranges_are_numbers_and_texts_are_not() -> None:
    table = Table(title="", head=("a", "b", "c"), rows=[("-50.30 to -44.10", "–", "1 to none"), ("–", "9.5 %", "2")])
    assert table.numeric == {0, 1}


def test_it_reads_on_phones_in_the_dark_and_on_paper(report: Report) -> None:
    text = render(report)
    assert 'name="viewport"' in text
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width: 34rem"):
        assert rule in text


def test_empty_parts_are_left_out() -> None:
    text = render(Report(title="Only this", lead="and this"))
    assert Page(text).elements.count("h2") == 0


def test_many_classes_are_listed_by_their_worst_mistakes() -> None:
    names = [f"class {index}" for index in range(40)]
    counts = [[9 if row == column else 0 for column in range(40)] for row in range(40)]
    counts[3][17] = 6
    text = render(Report(title="t", lead="l", confusion=Confusion(class_names=names, counts=counts)))
    assert 'class="matrix"' not in text
    assert re.search(r">6</td><td>class 3</td><td>class 17<", text)


def test_long_class_names_stand_on_end_over_their_column_and_none_squeezes_its_row() -> None:
    names = ["pug", "American Staffordshire terrier"]
    text = render(Report(title="t", lead="l", confusion=Confusion(class_names=names, counts=[[1, 0], [0, 1]])))
    assert '<th scope="col"><span>pug</span></th>' in text
    assert '<th scope="col"><span class="long">American Staffordshire terrier</span></th>' in text
    assert '<th scope="row"><span>American Staffordshire terrier</span></th>' in text
    for rule in ("writing-mode: vertical-rl", "width: max-content; max-width: 9rem", "position: sticky"):
        assert rule in text


def test_large_pictures_shrink_tiny_ones_keep_their_pixels_and_rows_keep_their_height() -> None:
    from hybridvit.report.pictures import THUMBNAIL_PX, photo

    def shown(width: int, height: int) -> tuple[int, int, bool]:
        made = photo(Image.new("L", (width, height)))
        kind, _, encoded = made.address.partition(",")
        assert kind == "data:image/png;base64"
        return (*Image.open(BytesIO(b64decode(encoded))).size, made.is_wide)

    assert shown(3000, 2000) == (THUMBNAIL_PX, round(THUMBNAIL_PX * 2 / 3), False)
    assert shown(8, 8) == (THUMBNAIL_PX, THUMBNAIL_PX, False)
    assert shown(900, 224) == (512, 127, True)
    assert shown(256, 64) == (512, THUMBNAIL_PX, True)


@pytest.mark.parametrize(
    ("value", "text"),
    [(4_026_232, "4,026,232"), (690_149_376, "690.1 M"), (1_937_219_584, "1.94 G"), (0.12345, "0.123"), (12.0, "12")],
)
def test_numbers_are_readable(value: float, text: str) -> None:
    assert number(value) == text


def test_writing_is_atomic_and_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"folder .* does not exist"):
        write_report(Report(title="t", lead="l"), tmp_path / "none" / "r.html")
    write_report(Report(title="t", lead="l"), tmp_path / "r.html")
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


@pytest.mark.nightly  # each of its steps has tests of its own
def test_the_demo_goes_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(walkthrough, "MEASURED", dataclasses.replace(walkthrough.MEASURED, seconds=0.1))
    small = {"model": "fastvit_debug", "schedule.epochs": "1", "schedule.warmup_epochs": "0"}
    report = walkthrough.walk_through(DEMOS["digits"], Path("runs/demo"), small)
    kept = {path.name for path in report.parent.iterdir()}
    assert {"model.safetensors", "model-folded.safetensors", "model.onnx", "recipe.yaml", "metrics.csv"} <= kept
    assert "tensorboard" in kept
    text = report.read_text(encoding="utf-8")
    for heading in ("Learning curves", "Which classes are taken for which", "Pictures", "Latency", "Machine"):
        assert f"<h2>{heading}</h2>" in text
    assert "ONNX Runtime, folded" in text
