"""Pictures that live inside the page: curves as SVG in the page's own colours, photos as small PNGs."""

import base64
import io
import re
from pathlib import Path
from typing import Any

from markupsafe import escape
from PIL import Image

from hybridvit.data.decode import decode_image
from hybridvit.report.content import Curve

THUMBNAIL_PX = 128
# Colours that matplotlib draws with, each replaced by a variable of the style sheet: so charts follow light, dark
# and print. The series are told apart by dashes too.
INK, GRID = "#010101", "#020202"
SERIES = ("#030303", "#040404", "#050505", "#060606")
VARIABLES = {INK: "var(--ink)", GRID: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)
}
DASHES = ("-", "--", "-.", ":")


def curve_svg(curve: Curve, name: str) -> str:
    """Draw `curve` as an <svg> element. `name` must be unique in the page: it keeps the ids of charts apart."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "axes.edgecolor": GRID,
        "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK, "grid.color": GRID,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    }  # fmt: skip
    with matplotlib.rc_context(style):
        canvas = Canvas(figsize=(5.0, 3.2), layout="constrained")
        axes = canvas.add_subplot()
        for index, (label, points) in enumerate(curve.lines.items()):
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                label=label,
                color=SERIES[index % len(SERIES)],
                linestyle=DASHES[index % len(DASHES)],
                linewidth=1.8,
                marker="o" if len(points) == 1 else None,
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(curve.x_label)
        axes.set_ylabel(curve.y_label)
        axes.grid(axis="y", linewidth=0.6)
        if len(curve.lines) > 1:
            axes.legend(loc="best")
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _embed(buffer.getvalue(), name, curve.title)


def photo(path: Path) -> str:
    """The image at `path` as a data: address: large ones reduced to THUMBNAIL_PX, tiny ones with visible pixels."""
    image = decode_image(path)
    times = THUMBNAIL_PX // max(image.size)
    if times > 1:  # else the browser would blur what the model saw
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _embed(svg: str, name: str, title: str) -> str:
    """Make a stand-alone SVG a part of the page: no prologue, own ids, colours and font of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font: \1px var(--font)", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
