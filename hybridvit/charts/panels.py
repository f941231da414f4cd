"""Charts as plain data, drawn alike on a page (`panels_html`) and as a picture (`panels_png`). No plotting library."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from hybridvit.charts.label_places import Place as LabelPlace
from hybridvit.charts.label_places import place_labels
from hybridvit.report.charts import tick_labels, ticks
from hybridvit.report.content import Table

Shape = Literal["circle", "diamond", "square"]
Glyph = Literal["", "dot", "cross", "x"]
Dash = Literal["solid", "dot", "dash"]
Place = tuple[float, float]

MARGIN = 0.06  # of the span of an axis, on both sides of the values
STEPS = (  # within a power of ten, coarse to fine
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0),
    tuple(1 + number / 10 for number in range(90)),
)
FEWEST_TICKS = 4
BAR_GAP = 0.2  # between groups of bars, of their distance


@dataclass(frozen=True, kw_only=True)
class Style:
    """How the points of a series look; told apart by shape and glyph where colour is not seen."""

    colour: str
    shape: Shape = "circle"
    glyph: Glyph = ""  # inside the shape
    filled: bool = False
    diameter_px: float = 9.0  # of 1/96 inch

    @property
    def ink(self) -> tuple[str, str]:
        """Colour and weight of labels; the series that stand out are the filled ones."""
        return (self.colour, "bold") if self.filled else ("#333333", "normal")


@dataclass(frozen=True, kw_only=True)
class Point:
    """A value in a chart, with what is known of it."""

    x: float
    y: float
    label: str = ""  # written beside it where there is room
    must_label: bool = False  # written even where there is not
    details: tuple[str, ...] = ()  # lines under the mouse
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one kind: marks if there is a style, a line if there is a dash, or both."""

    name: str  # in the legend; "" stays out of it
    points: tuple[Point, ...]
    colour: str = "#222222"  # of the line
    style: Style | None = None
    dash: Dash | None = None
    steps: bool = False  # the line holds its height until the next point
    width_px: float = 1.6
    group: str = ""  # series of one group are shown and hidden together


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A direction of a chart."""

    label: str
    log: bool = False
    at: tuple[float, ...] = ()  # the ticks; empty for round numbers

    def scaled(self, value: float) -> float:
        """The value as it is drawn: itself, or its decimal logarithm."""
        return math.log10(value) if self.log else value

    def span(self, values: Iterable[float], *, margin: float = MARGIN) -> tuple[float, float]:
        """The ends of the axis, as scaled, for these values and the ticks asked for."""
        scaled = [self.scaled(value) for value in (*values, *self.at)]
        low, high = min(scaled), max(scaled)
        room = margin * (high - low) or 0.2 * (1 if self.log else abs(low) or 1)
        return low - room, high + room

    def ticks(self, low: float, high: float) -> list[tuple[float, str]]:
        """(value, text) of the ticks between two ends, as scaled."""
        values = list(self.at)
        if not values and self.log:
            values = _log_ticks(low, high)
        elif not values:
            values = [value for value in ticks(low, high, most=7) if low <= value <= high]
        texts = [f"{value:.6g}" for value in values] if self.log or self.at else tick_labels(values)
        return list(zip(values, texts, strict=True))


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(low), math.ceil(high) + 1)
    for steps in STEPS:
        values = [round(step, 1) * 10.0**decade for decade in decades for step in steps]
        inside = [value for value in values if low <= math.log10(value) <= high]
        if len(inside) >= FEWEST_TICKS:
            break
    return inside[:: math.ceil(len(inside) / 9)]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart of points and lines."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    height: float = 1.0  # of the usual one

    def spans(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The ends of both axes, as scaled; intervals of points are inside."""
        points = [point for series in self.series for point in series.points]
        return (
            self.x.span(value for point in points for value in (point.x, *(point.x_interval or ()))),
            self.y.span(value for point in points for value in (point.y, *(point.y_interval or ()))),
        )

    def scaled(self, point: Point) -> Place:
        """Where a point is, as scaled."""
        return self.x.scaled(point.x), self.y.scaled(point.y)

    def to_pixels(self, area: Place) -> Callable[[Place], Place]:
        """What takes a place, as scaled, to pixels in a chart of `area` (width, height), y downwards."""
        (x_low, x_high), (y_low, y_high) = self.spans()

        def pixel(place: Place) -> Place:
            x, y = place
            return (x - x_low) / (x_high - x_low) * area[0], (y_high - y) / (y_high - y_low) * area[1]

        return pixel

    def label_places(self, area: Place, sizes: Sequence[Place], px: float, **spacing: Any) -> list[LabelPlace | None]:
        """Where the labels of all `marked` points go in a chart of `area`, in pixels of which `px` are 1/96 inch.

        `sizes` are those of the labels; `spacing` is as `place_labels` takes it.
        """
        pixel = self.to_pixels(area)
        return place_labels(
            [pixel(self.scaled(point)) for point, _ in self.marked],
            sizes,
            must=[point.must_label for point, _ in self.marked],
            radii=[style.diameter_px * px / 2 for _, style in self.marked],
            area=area,
            avoid=[pixel(sample) for series in self.series for sample in self.line_samples(series)],
            gap_px=3 * px,
            **spacing,
        )

    @property
    def marked(self) -> list[tuple[Point, Style]]:
        """The points that have marks, with their look."""
        return [(point, series.style) for series in self.series if series.style for point in series.points]

    def line_samples(self, series: Series, count: int = 24) -> list[Place]:
        """Places along the line of a series, as scaled: what labels should not be written over."""
        corners = [self.scaled(point) for point in series.points] if series.dash else []
        if series.steps:
            corners = [
                corner for before, after in pairwise(corners) for corner in (before, (after[0], before[1]))
            ] + corners[-1:]
        return [
            (x0 + (x1 - x0) * step / count, y0 + (y1 - y0) * step / count)
            for (x0, y0), (x1, y1) in pairwise(corners)
            for step in range(count + 1)
        ]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar; None for a value that there is not."""

    value: float | None
    label: str = ""
    details: tuple[str, ...] = ()
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class BarSeries:
    """The bars of one colour, one per group."""

    name: str
    colour: str
    bars: tuple[Bar, ...]
    hatch: bool = False


@dataclass(frozen=True, kw_only=True)
class BarPanel:
    """Groups of bars, side by side or on top of each other."""

    title: str
    x_label: str
    y_label: str
    groups: tuple[str, ...]
    series: tuple[BarSeries, ...]
    stacked: bool = False

    @property
    def has_legend(self) -> bool:
        """Whether its colours have to be told apart by name."""
        return sum(bool(series.name) for series in self.series) > 1

    def placed(self) -> Iterator[tuple[BarSeries, Bar, float, float, float]]:
        """Every bar that has a value: its series, its middle (group 0 is around 0), what it stands on, where it ends.

        It ends with its interval where it has one: its label goes above that, below that of a negative one.
        """
        count = 1 if self.stacked else len(self.series)
        floors = [0.0] * len(self.groups)
        for index, series in enumerate(self.series):
            for group, bar in enumerate(series.bars):
                if bar.value is None:
                    continue
                floor, end = floors[group], floors[group] + bar.value
                if bar.interval is not None:
                    end = max(bar.interval) if bar.value >= 0 else min(bar.interval)
                floors[group] = end if self.stacked else 0.0
                place = 0 if self.stacked else (index - (count - 1) / 2) * (1 - BAR_GAP) / count
                yield series, bar, group + place, floor, end


@dataclass(frozen=True, kw_only=True)
class Page:
    """Charts with what must be said under them: where, how, and what was left out."""

    title: str
    lead: str
    panels: Sequence[Panel | BarPanel]
    key: Sequence[Series] = ()  # marks and lines that mean the same in all panels of points
    notes: Sequence[str] = ()
    sources: Table | None = None
    numbers: Table | None = None  # everything that is drawn
    facts: Sequence[tuple[str, str]] = ()  # settings and conditions
    machine: Sequence[tuple[str, str]] = ()
