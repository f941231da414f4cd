"""Charts as one PNG for print and for a README: matplotlib, 200 dpi, all sizes in inches."""

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybridvit.atomic import replacing
from hybridvit.charts.label_places import Place
from hybridvit.charts.panels import BAR_GAP, BarPanel, Page, Panel, Series, Style

DPI = 200
MOST_PX = 60_000  # of a side; the library stops at 65,536
WIDTH, LEFT, RIGHT = 7.6, 0.72, 0.16
HEIGHT, BAR_HEIGHT = 4.5, 2.5  # of the charts alone
ABOVE, BELOW, GAP = 0.34, 0.44, 0.22  # title, ticks with label, and space after a chart
LINE = 0.14  # of the text below the charts
CHARACTERS = 150  # of a line of that text
POINTS_PER_PX = 72 / 96
FONT, SMALL = 8.5, 7.0

SHAPES = {"circle": "o", "diamond": "D", "square": "s"}
GLYPHS = {"dot": ".", "cross": "+", "x": "x"}
DASHES: dict[str, Any] = {"solid": "-", "dot": (0, (1, 1.8)), "dash": (0, (5, 2))}
RC: Any = {
    "font.size": FONT, "axes.titlesize": FONT + 1, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222", "xtick.color": "#444444", "ytick.color": "#444444", "grid.color": "#dddddd",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "hatch.linewidth": 0.6, "text.parse_math": False,
}  # fmt: skip


def write(page: Page, path: Path) -> None:
    """Draw the page to `path`, atomically: the key first, then the charts, then the text."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    paragraphs = _paragraphs(page)
    with matplotlib.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a file name in another script
        columns = _key_columns(page.key)
        key_lines = -(-len(page.key) // columns) if page.key else 0
        head = 0.47 + LINE * len(textwrap.wrap(page.lead, CHARACTERS)) + 0.19 * key_lines
        heights = [ABOVE + BELOW + GAP + _chart_height(panel) for panel in page.panels]
        foot = LINE * (sum(len(lines) + 0.5 for lines in paragraphs) + 1)
        tall = head + sum(heights) + foot
        figure: Any = Figure(figsize=(WIDTH, tall), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        _draw_head(figure, page, tall, columns)
        top = tall - head
        for panel, height in zip(page.panels, heights, strict=True):
            bottom = top - height + BELOW + GAP
            box = (LEFT / WIDTH, bottom / tall, (WIDTH - LEFT - RIGHT) / WIDTH, _chart_height(panel) / tall)
            axes = figure.add_axes(box)
            if isinstance(panel, BarPanel):
                _draw_bars(axes, panel)
            else:
                _draw_points(axes, panel)
            top -= height
        for lines in paragraphs:
            figure.text(0.16 / WIDTH, top / tall, "\n".join(lines), va="top", fontsize=SMALL, linespacing=1.35)
            top -= LINE * (len(lines) + 0.5)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=min(DPI, int(MOST_PX / tall)), metadata={"Software": None})


def _chart_height(panel: Panel | BarPanel) -> float:
    return BAR_HEIGHT if isinstance(panel, BarPanel) else HEIGHT * panel.height


def _paragraphs(page: Page) -> list[list[str]]:
    texts = list(page.notes)
    if page.sources is not None:
        texts.append(f"{page.sources.title}: " + "; ".join(": ".join(row[:2]) for row in page.sources.rows) + ".")
    texts += [f"{title}: {text}" for title, text in (*page.facts, *page.machine)]
    return [textwrap.wrap(text, CHARACTERS) for text in texts]


def _key_columns(key: Sequence[Series]) -> int:
    longest = max((len(series.name) for series in key), default=1)
    return max(1, min(5, int((WIDTH - 0.3) / (0.38 + 0.057 * longest))))


def _draw_head(figure: Any, page: Page, tall: float, columns: int) -> None:
    from matplotlib.lines import Line2D

    figure.text(0.16 / WIDTH, 1 - 0.12 / tall, page.title, va="top", fontsize=FONT + 4, weight="bold")
    lead = "\n".join(textwrap.wrap(page.lead, CHARACTERS))
    figure.text(0.16 / WIDTH, 1 - 0.37 / tall, lead, va="top", fontsize=SMALL, color="#444444", linespacing=1.35)
    rows = -(-len(page.key) // columns)
    top = tall - 0.5 - LINE * (lead.count("\n") + 1)
    for index, series in enumerate(page.key):
        x = (0.3 + (WIDTH - 0.3) / columns * (index // rows)) / WIDTH
        y = (top - 0.19 * (index % rows)) / tall
        if series.style is not None:
            for marker in _markers(series.style):
                figure.add_artist(Line2D([x], [y], **marker, clip_on=False))
        if series.dash is not None:
            ends = [x - 0.12 / WIDTH, x + 0.12 / WIDTH]
            figure.add_artist(
                Line2D(ends, [y, y], color=series.colour, linestyle=DASHES[series.dash], linewidth=series.width_px)
            )
        figure.text(x + 0.17 / WIDTH, y, series.name, va="center_baseline", fontsize=SMALL + 0.5)


def _markers(style: Style) -> list[dict[str, Any]]:
    """The shape, and the glyph on it, as options of a line of one point."""
    size = style.diameter_px * POINTS_PER_PX * (0.85 if style.shape == "diamond" else 1)
    shape = {
        "marker": SHAPES[style.shape], "markersize": size, "markeredgecolor": "white" if style.filled else style.colour,
        "markerfacecolor": style.colour if style.filled else "white", "markeredgewidth": 0.6 if style.filled else 1.2,
        "linestyle": "none",
    }  # fmt: skip
    if not style.glyph:
        return [shape]
    glyph = {
        "marker": GLYPHS[style.glyph], "markersize": size * (0.75 if style.glyph == "dot" else 0.85),
        "color": style.colour, "markeredgewidth": 0.9, "linestyle": "none",
    }  # fmt: skip
    return [shape, glyph]


def _draw_points(axes: Any, panel: Panel) -> None:
    spans = panel.spans()
    axes.set(xlim=spans[0], ylim=spans[1], xlabel=panel.x.label, ylabel=panel.y.label)
    axes.set_title(panel.title)
    for axis, kind, span in ((axes.xaxis, panel.x, spans[0]), (axes.yaxis, panel.y, spans[1])):
        values, texts = zip(*kind.ticks(*span), strict=True)
        axis.set_ticks([kind.scaled(value) for value in values], texts)
    axes.grid()
    for order, series in enumerate(panel.series):
        places = [panel.scaled(point) for point in series.points]
        if series.dash is not None and places:
            axes.plot(
                *zip(*places, strict=True),
                color=series.colour,
                linestyle=DASHES[series.dash],
                linewidth=series.width_px * POINTS_PER_PX,
                drawstyle="steps-post" if series.steps else "default",
                zorder=2,
            )
        if series.style is None:
            continue
        for point, (x, y) in zip(series.points, places, strict=True):
            bar = {"color": series.style.colour, "linewidth": 0.9, "zorder": 2.5}
            if point.x_interval is not None:
                axes.plot([panel.x.scaled(end) for end in point.x_interval], [y, y], **bar)
            if point.y_interval is not None:
                axes.plot([x, x], [panel.y.scaled(end) for end in point.y_interval], **bar)
            for marker in _markers(series.style):
                axes.plot([x], [y], **marker, zorder=3 + order * 1e-3 + series.style.filled)
    _draw_labels(axes, panel)


def _draw_labels(axes: Any, panel: Panel) -> None:
    from matplotlib.patheffects import withStroke

    area = ((WIDTH - LEFT - RIGHT) * DPI, _chart_height(panel) * DPI)
    texts = [axes.text(0, 0, point.label, fontsize=SMALL) for point, _ in panel.marked]
    for text, (_, style) in zip(texts, panel.marked, strict=True):
        text.set(color=style.ink[0], weight=style.ink[1])
    renderer = axes.figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in texts]
    sizes = [(box.width, box.height) if text.get_text() else (0.0, 0.0) for text, box in zip(texts, boxes, strict=True)]
    distances = [DPI / 96 * distance for distance in (0, 5, 11, 18, 26, 36)]
    places = panel.label_places(area, sizes, DPI / 96, distances_px=distances)
    at = [panel.to_pixels(area)(panel.scaled(point)) for point, _ in panel.marked]
    for text, place, (_, style), origin in zip(texts, places, panel.marked, at, strict=True):
        if place is None:
            text.remove()
            continue
        left, _, _, bottom = place.box
        text.set_transform(axes.transAxes)
        text.set(position=(left / area[0], 1 - bottom / area[1]), va="bottom", ha="left", zorder=6)
        text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])  # lines end before it
        if place.distance_px > 5 * DPI / 96:
            _lead(axes, place, origin, area, style)


def _lead(axes: Any, place: Place, origin: tuple[float, float], area: tuple[float, float], style: Style) -> None:
    """A thin line from a point to the nearest place of its label."""
    left, top, right, bottom = place.box
    end = (min(max(origin[0], left), right), min(max(origin[1], top), bottom))
    x, y = ([pair[axis] / area[axis] for pair in (origin, end)] for axis in (0, 1))
    axes.plot(x, [1 - value for value in y], transform=axes.transAxes, color=style.ink[0], linewidth=0.4, zorder=2)


def _draw_bars(axes: Any, panel: BarPanel) -> None:
    width = 0.92 * (1 - BAR_GAP) / (1 if panel.stacked else len(panel.series))
    named: set[str] = set()
    for series, bar, x, floor, end in panel.placed():
        axes.bar(
            x, bar.value, width, bottom=floor, color=series.colour, hatch="////" if series.hatch else None,
            edgecolor="white", linewidth=0, label="" if series.name in named else series.name,
        )  # fmt: skip
        named.add(series.name)
        if bar.interval is not None:
            axes.plot([x] * 2, bar.interval, color="#222222", linewidth=0.9)
        if bar.label:
            up = end >= floor
            axes.annotate(
                bar.label, (x, end), (0, 2 if up else -2), textcoords="offset points", ha="center",
                va="bottom" if up else "top", fontsize=SMALL,
            )  # fmt: skip
    axes.axhline(0, color="#555555", linewidth=0.7)
    axes.set_xticks(range(len(panel.groups)), panel.groups)
    axes.set(xlabel=panel.x_label, ylabel=panel.y_label)
    axes.set_title(panel.title)
    axes.margins(y=0.16)
    axes.grid(axis="y")
    if panel.has_legend:
        axes.legend(fontsize=SMALL, frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1, 1), borderpad=0.1)
