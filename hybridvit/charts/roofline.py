"""The roofline plot (Williams et al., 2009): FLOP/s of each part over its FLOP per byte, under the machine's roofs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 640.0, 340.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 12.0, 40.0


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One part; both numbers are above 0."""

    label: str
    intensity: float  # FLOP per byte
    flop_per_s: float
    series: int  # its colour and shape: 1 to 4, 0 for grey


def roofline(dots: Sequence[Dot], roofs: Sequence[tuple[str, float]], bytes_per_s: float) -> Markup:
    """The plot as SVG; `roofs` are named rates in FLOP/s, all over the same line of the memory."""
    x_low, x_high = _decades([dot.intensity for dot in dots] + [roof / bytes_per_s for _, roof in roofs])
    y_low, y_high = _decades([dot.flop_per_s for dot in dots] + [roof for _, roof in roofs])

    def across(intensity: float) -> float:
        return LEFT + (math.log10(intensity) - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def up(rate: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(rate) - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [_grid_x(across(10.0**power), power) for power in range(x_low, x_high + 1)]
    parts += [_grid_y(up(10.0**power), power) for power in range(y_low, y_high + 1)]
    for number, (name, roof) in enumerate(roofs):
        corner = roof / bytes_per_s
        start = max(10.0**x_low, 10.0**y_low / bytes_per_s)
        line = [(start, start * bytes_per_s), (corner, roof), (10.0**x_high, roof)]
        points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line)
        dash = Markup(' stroke-dasharray="6 4"') if number else Markup("")
        parts.append(Markup('<polyline class="roof" points="{}"{}/>').format(points, dash))
        parts.append(_text(WIDTH - RIGHT - 4, up(roof) - 5, name, "end"))
    parts += [_dot(across(dot.intensity), up(dot.flop_per_s), dot) for dot in dots]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "FLOP per byte moved (unfused)", "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(_text(12, middle, "GFLOP/s", "middle", Markup(' transform="rotate(-90 12 {:g})"').format(middle)))
    return Markup('<svg class="roofline" viewBox="0 0 {:g} {:g}" role="img" aria-label="Roofline">{}</svg>').format(
        WIDTH, HEIGHT, Markup("").join(parts)
    )


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten around all values."""
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 0.02)


def _grid_x(x: float, power: int) -> Markup:
    line = Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1:g}" y2="{2:g}"/>').format(
        x, TOP, HEIGHT - BOTTOM
    )
    return line + _text(x, HEIGHT - BOTTOM + 16, f"{10.0**power:g}", "middle")


def _grid_y(y: float, power: int) -> Markup:
    line = Markup('<line class="grid" x1="{:g}" x2="{:g}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, y, y)
    return line + _text(LEFT - 6, y + 4, f"{10.0 ** (power - 9):g}", "end")


def _dot(x: float, y: float, dot: Dot) -> Markup:
    said = f"{dot.label}: {dot.flop_per_s / 1e9:.1f} GFLOP/s at {dot.intensity:.1f} FLOP per byte"
    return Markup('<circle class="series-{}" cx="{:.1f}" cy="{:.1f}" r="5"><title>{}</title></circle>').format(
        dot.series, x, y, said
    )


def _text(x: float, y: float, text: str, anchor: str, more: Markup | None = None) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}"{}>{}</text>').format(x, y, anchor, more or "", text)
