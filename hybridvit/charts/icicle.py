"""An icicle of times: the whole on top, below it what it consists of; a click zooms in. Written as SVG by hand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

ROW_PX = 30
NARROWEST = 1e-4  # share of the whole below which a cell is left out: a pixel of a screen is more


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A time, in milliseconds, and the times that it consists of."""

    label: str
    ms: float
    note: str = ""  # more to say under the mouse
    series: int = 0  # its colour: 1 to 4 of the page's, 0 for grey
    parts: Sequence["Slice"] = ()


def icicle(root: Slice) -> Markup:
    """The chart as HTML; its script is in the page (`data-start` and `data-width` are shares of the whole)."""
    cells = list(_cells(root, root.ms, 0.0, 0))
    height = ROW_PX * (1 + max(level for _, _, _, level in cells))
    drawn = Markup("").join(_cell(each, start, width, level, root.ms) for each, start, width, level in cells)
    return Markup('<svg class="icicle" width="100%" height="{}" role="group" aria-label="{}">{}</svg>').format(
        height, f"What {root.label} consists of", drawn
    )


def _cells(each: Slice, whole_ms: float, start: float, level: int) -> Iterator[tuple[Slice, float, float, int]]:
    width = each.ms / whole_ms
    yield each, start, width, level
    for part in each.parts:
        if part.ms / whole_ms >= NARROWEST:
            yield from _cells(part, whole_ms, start, level + 1)
        start += max(0.0, part.ms) / whole_ms


def _cell(each: Slice, start: float, width: float, level: int, whole_ms: float) -> Markup:
    said = f"{each.label}: {each.ms:.3f} ms, {100 * each.ms / whole_ms:.1f} %{'. ' + each.note if each.note else ''}"
    return Markup(
        '<svg class="cell" tabindex="0" data-start="{:.6f}" data-width="{:.6f}" data-level="{}" '
        'x="{:.4f}%" width="{:.4f}%" y="{}" height="{}"><title>{}</title>'
        '<rect width="100%" height="100%" class="series-{}"/><text x="5" y="19">{}</text></svg>'
    ).format(start, width, level, 100 * start, 100 * width, level * ROW_PX, ROW_PX, said, each.series, each.label)
