"""Line charts as SVG in the page's own colours.

Written by hand because a page is drawn at every validation: this takes a millisecond where a plotting library takes a
tenth of a second, follows light, dark and print by the style sheet's variables, and names each point under the mouse.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from markupsafe import Markup

from hybridvit.report.content import Curve

Point = tuple[float, float]

WIDTH, HEIGHT = 440.0, 250.0
TOP, RIGHT, BOTTOM = 10.0, 14.0, 38.0  # around the plot; the left margin follows the labels
CHARACTER = 6.8  # width of a digit at the size of the labels, at most
DASHES = ("", "6 4", "7 3 1.5 3", "1.5 3.5")  # the series are told apart without colour too
LEGEND_ROW = 20.0  # of a picture of its own
MOST_DOTS = 60  # points of a line; beyond that they would hide it


def chart(curve: Curve) -> Markup:
    """A legend and the chart, as HTML. Points that are not finite are gaps."""
    lines = _drawable(curve)
    if not lines:
        return Markup('<p class="note">Nothing to draw yet.</p>')
    svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        f"{WIDTH:g}", f"{HEIGHT:g}", curve.title, _plot(curve, lines)
    )
    return _legend(curve, lines) + svg


def picture(curve: Curve) -> str:
    """The chart with its title and legend as an SVG file of its own, in the page's light colours; empty: no points."""
    lines = _drawable(curve)
    if not lines:
        return ""
    rows = [
        Markup('<g style="--series:var(--series-{0})"><polyline points="26,{1} 50,{1}"{2}/></g>').format(
            number % 4 + 1, f"{LEGEND_ROW * (number + 2) - 4:g}", _dashed(number)
        )
        + _text(56, LEGEND_ROW * (number + 2), ": ".join([name, *_shown_last(curve, points)]), "start")
        for number, (name, points) in enumerate(lines.items())
    ]
    top = LEGEND_ROW * (len(lines) + 2)
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    light = style[style.index(":root") : style.index("}") + 1]
    rules = [line for line in style.splitlines() if line.startswith("svg ")]
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{2}" role="img" aria-label="{3}">'
            '<style>{4}</style><rect width="{0}" height="{1}" style="fill: var(--paper)"/>{5}{6}'
            '<g transform="translate(0 {7})">{8}</g></svg>\n'
        ).format(
            f"{WIDTH:g}",
            f"{top + HEIGHT:g}",
            f"{1.5 * WIDTH:g}",
            curve.title,
            Markup("\n".join([light, *rules])),
            _text(26, LEGEND_ROW, curve.title, "start", ' style="font-weight: 600; fill: var(--ink)"'),
            Markup("").join(rows),
            f"{top:g}",
            _plot(curve, lines),
        )
    )


def _drawable(curve: Curve) -> dict[str, list[Point]]:
    return {name: list(points) for name, points in curve.lines.items() if any(map(_is_finite, points))}


def _plot(curve: Curve, lines: dict[str, list[Point]]) -> Markup:
    """What stands inside the chart's SVG."""
    finite = [point for points in lines.values() for point in points if _is_finite(point)]
    x_low, x_high = _range([x for x, _ in finite])
    values = [y for _, y in finite] + ([0.0] if curve.from_zero else [])
    y_ticks = ticks(*_range(values))
    y_low, y_high = y_ticks[0], y_ticks[-1]
    labels = tick_labels(y_ticks)
    left = 26.0 + CHARACTER * max(map(len, labels))

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (x - x_low) / (x_high - x_low) * (WIDTH - left - RIGHT)
        up = HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        return round(across, 1), round(up, 1)

    parts = [_grid(left, [(place(x_low, y)[1], label) for y, label in zip(y_ticks, labels, strict=True)])]
    inside = [x for x in ticks(x_low, x_high, most=6, whole=x_high > 1 and x_high - x_low >= 1) if x_low <= x <= x_high]
    parts += [
        _text(place(x, y_low)[0], HEIGHT - BOTTOM + 16, label, "middle")
        for x, label in zip(inside, tick_labels(inside), strict=True)
    ]
    parts.append(_text((left + WIDTH - RIGHT) / 2, HEIGHT - 6, curve.x_label, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(_text(12, middle, curve.y_label, "middle", f' transform="rotate(-90 12 {middle:g})"'))
    for x, label in curve.marks:
        if x_low <= x <= x_high:
            parts.append(_mark(place(x, y_low)[0], label))
    for number, (name, points) in enumerate(lines.items()):
        placed = [(place(*point), point) if _is_finite(point) else None for point in points]
        parts.append(_line(placed, number, name))
    return Markup("").join(parts)


def ticks(low: float, high: float, *, most: int = 5, whole: bool = False) -> list[float]:
    """About `most` round numbers, evenly spaced, from at or below `low` to at or above `high`; `whole`: integers."""
    raw = (high - low) / most
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * (1 - 1e-9))
    if whole:
        step = max(1.0, float(math.ceil(step)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [count * step for count in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """The same number of decimals on all, as few as tell them apart; powers of ten for the very small and large."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest and not 1e-2 <= largest < 1e6:
        return [_power(value) for value in values]
    step = min((after - before for before, after in pairwise(values)), default=largest or 1.0)
    decimals = next((number for number in range(8) if abs(round(step, number) - step) < 1e-6 * step), 8)
    return [f"{value:,.{decimals}f}" for value in values]


def _power(value: float) -> str:
    return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-").replace("e+0", "e") if value else "0"


def short(value: float) -> str:
    """A value as a legend shows it: four digits."""
    if not math.isfinite(value):
        return str(value)
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _range(values: Sequence[float]) -> Point:
    low, high = min(values), max(values)
    if high - low > 1e-12 * max(abs(low), abs(high)):
        return low, high
    half = 0.5 if float(low).is_integer() else abs(low) / 2  # one value only: in the middle
    return low - half, high + half


def _is_finite(point: Point) -> bool:
    return all(map(math.isfinite, point))


def _line(placed: Sequence[tuple[Point, Point] | None], number: int, name: str) -> Markup:
    colour = f"var(--series-{number % 4 + 1})"
    paths = [
        Markup('<polyline points="{}"/>').format(" ".join(f"{x:g},{y:g}" for (x, y), _ in piece))
        for piece in _pieces(placed)
        if len(piece) > 1
    ]
    shown = [point for point in placed if point is not None]
    dots = [
        Markup('<circle cx="{:g}" cy="{:g}" r="2.6"><title>{}</title></circle>').format(
            *at, f"{name}: {short(y)} at {short(x)}"
        )
        for at, (x, y) in (shown if len(shown) <= MOST_DOTS else shown[-1:])
    ]
    return Markup('<g style="--series:{}"{}>{}{}</g>').format(
        Markup(colour),
        _dashed(number),
        Markup("").join(paths),
        Markup("").join(dots),
    )


def _pieces(placed: Sequence[tuple[Point, Point] | None]) -> Iterator[list[tuple[Point, Point]]]:
    """Runs of points without a gap."""
    piece: list[tuple[Point, Point]] = []
    for point in placed:
        if point is None:
            yield piece
            piece = []
        else:
            piece.append(point)
    yield piece


def _grid(left: float, rows: Sequence[tuple[float, str]]) -> Markup:
    return Markup("").join(
        Markup('<line class="grid" x1="{:g}" x2="{:g}" y1="{:g}" y2="{:g}"/>').format(left, WIDTH - RIGHT, y, y)
        + _text(left - 6, y + 4, label, "end")
        for y, label in rows
    )


def _mark(x: float, label: str) -> Markup:
    anchor, at = ("end", x - 4) if x > WIDTH / 2 else ("start", x + 4)
    line = Markup('<line class="mark" x1="{0:g}" x2="{0:g}" y1="{1:g}" y2="{2:g}"/>').format(x, TOP, HEIGHT - BOTTOM)
    return line + _text(at, TOP + 9, label, anchor)


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> Markup:
    return Markup('<text x="{:g}" y="{:g}" text-anchor="{}"{}>{}</text>').format(x, y, anchor, Markup(more), text)


def _legend(curve: Curve, lines: dict[str, list[Point]]) -> Markup:
    items = []
    for number, (name, points) in enumerate(lines.items()):
        last = Markup("").join(Markup(" <b>{}</b>").format(value) for value in _shown_last(curve, points))
        items.append(
            Markup(
                '<li><svg viewBox="0 0 24 8" style="--series:var(--series-{})" aria-hidden="true">'
                '<polyline points="1,4 23,4"{}/></svg>{}{}</li>'
            ).format(number % 4 + 1, _dashed(number), name, last)
        )
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def _shown_last(curve: Curve, points: Sequence[Point]) -> list[str]:
    """The last value of a line as its legend has it; none where it says nothing."""
    return [short(next(y for x, y in reversed(points) if _is_finite((x, y))))] if curve.shows_last else []


def _dashed(number: int) -> Markup:
    """The attribute that gives the series of this number its dashes."""
    dash = DASHES[number % len(DASHES)]
    return Markup(' stroke-dasharray="{}"').format(dash) if dash else Markup("")
