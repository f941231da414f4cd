"""Charts as one page to explore: plotly's script is inside it, so it works without a network, and it prints."""

import textwrap
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hybridvit.atomic import write_text
from hybridvit.charts.panels import BAR_GAP, Axis, BarPanel, Page, Panel, Series, Style
from hybridvit.report.html import page_template

WIDTH, HEIGHT, BAR_HEIGHT = 960, 590, 340  # px, of a figure
LEFT, RIGHT, TOP, BOTTOM = 64, 210, 34, 60  # px, around the chart; the legend is on the right, buttons above
FONT, SMALL = 13, 11  # px
CHARACTER = 0.56  # width of a letter over the size of the font, on average
HOVER_CHARACTERS = 90  # of a line under the mouse
BASE: dict[str, Any] = {
    "width": WIDTH,
    "template": "none",
    "paper_bgcolor": "#ffffff",
    "plot_bgcolor": "#ffffff",
    "font": {"family": "Arial, Helvetica, sans-serif", "size": FONT, "color": "#222222"},
    "margin": {"l": LEFT, "r": RIGHT, "t": TOP, "b": BOTTOM},
    "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": "#888888", "align": "left", "font": {"size": 12}},
    "legend": {"x": 1.01, "y": 1, "font": {"size": SMALL}, "tracegroupgap": 0, "itemsizing": "trace"},
}
CONFIG = {
    "displaylogo": False,
    "showSendToCloud": False,  # plotly 7 has a button that sends the chart away
    "plotlyServerURL": "",
    "responsive": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}


def write(page: Page, path: Path) -> None:
    """Write the page to `path`, atomically. Every text in it, names of models above all, is escaped."""
    write_text(path, render(page))


def render(page: Page) -> str:
    """The page as HTML."""
    import plotly.graph_objects as go
    import plotly.io
    from plotly.offline import get_plotlyjs

    figures = []
    for index, panel in enumerate(page.panels):
        content = _bars(panel) if isinstance(panel, BarPanel) else _chart(panel, page)
        figure = go.Figure(**content)
        html = plotly.io.to_html(
            figure, config=CONFIG, include_plotlyjs=False, full_html=False, div_id=f"chart-{index + 1}"
        )
        figures.append((panel.title, Markup(html)))
    template, style = page_template("hybridvit.charts", "panels.html.jinja")
    return template.render(page=page, figures=figures, style=style, plotly=Markup(get_plotlyjs()))


def _chart(panel: Panel, page: Page) -> dict[str, Any]:
    """Data and layout of a chart of points. A legend entry shows and hides what is in its group."""
    x_span, y_span = panel.spans()
    positions = iter(_positions(panel))
    groups = {series.group for series in panel.series}
    shapes = {series.style.shape for series in panel.series if series.style is not None}
    key = [
        series
        for series in page.key
        if series.group in groups or (not series.group and series.style and series.style.shape in shapes)
    ]
    if not any(series.group for series in key):  # what it explains is not drawn here
        key = []
    data = [
        _trace(series, [next(positions) for _ in series.points] if series.style else [], in_legend=not key)
        for series in panel.series
    ]
    layout = BASE | {
        "height": round(HEIGHT * panel.height),
        "xaxis": _axis(panel.x, x_span),
        "yaxis": _axis(panel.y, y_span),
    }
    return {"data": [_trace(series, [], in_legend=True) for series in key] + data, "layout": layout}


def _trace(series: Series, positions: Sequence[str], *, in_legend: bool) -> dict[str, Any]:
    """One series; without points it is a legend entry alone. An empty position leaves the label out."""
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": escape(series.name),
        "legendgroup": series.group or series.name,
        "showlegend": in_legend and bool(series.name),
        "x": [point.x for point in series.points] or [None],
        "y": [point.y for point in series.points] or [None],
        "mode": "+".join(["lines"] * (series.dash is not None) + ["markers", "text"] * (series.style is not None)),
        "hoverinfo": "skip" if series.style is None else "text",
    }
    if series.dash is not None:
        shape = "hv" if series.steps else "linear"
        trace["line"] = {"color": series.colour, "dash": series.dash, "width": series.width_px, "shape": shape}
    if series.style is not None:
        trace["marker"] = _marker(series.style)
        shown = zip(series.points, positions, strict=False)
        trace["text"] = [escape(point.label) if position else "" for point, position in shown]
        trace["textposition"] = [position or "top center" for position in positions] or "top center"
        colour, weight = series.style.ink
        trace["textfont"] = {"size": SMALL, "color": colour, "weight": weight}
        trace["hovertext"] = [_hover(point.details) for point in series.points]
        trace["cliponaxis"] = False
        trace |= _error_bars(series)
    return trace


def _marker(style: Style) -> dict[str, Any]:
    symbol = "-".join([style.shape, *([style.glyph] if style.glyph in ("cross", "x") else [])])
    if style.filled:
        line = {"color": "#ffffff", "width": 0.8}
        return {"symbol": symbol, "color": style.colour, "size": style.diameter_px, "opacity": 1, "line": line}
    symbol += "-open-dot" if style.glyph == "dot" else ""
    inside = style.colour if style.glyph == "dot" else "#ffffff"
    line = {"color": style.colour, "width": 1.6}
    return {"symbol": symbol, "color": inside, "size": style.diameter_px, "opacity": 1, "line": line}


def _error_bars(series: Series) -> dict[str, Any]:
    bars = {}
    for axis in ("x", "y"):
        intervals = [getattr(point, f"{axis}_interval") for point in series.points]
        if any(intervals):
            values = [getattr(point, axis) for point in series.points]
            bars[f"error_{axis}"] = _errors(values, intervals, series.style.colour if series.style else "")
    return bars


def _errors(values: Sequence[float], intervals: Sequence[tuple[float, float] | None], colour: str) -> dict[str, Any]:
    ends = [interval or (value, value) for value, interval in zip(values, intervals, strict=True)]
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, (_, high) in zip(values, ends, strict=True)],
        "arrayminus": [value - low for value, (low, _) in zip(values, ends, strict=True)],
        "color": colour,
        "thickness": 1.1,
        "width": 0,
    }


def _positions(panel: Panel) -> list[str]:
    """Where the label of each point is, as plotly calls it; "" where there is no room."""
    area = (WIDTH - LEFT - RIGHT, round(HEIGHT * panel.height) - TOP - BOTTOM)
    sizes = [(CHARACTER * SMALL * len(point.label), 1.15 * SMALL if point.label else 0.0) for point, _ in panel.marked]
    places = panel.label_places(area, sizes, 1, distances_px=(0,))
    return [f"{place.level} {place.side}" if place is not None else "" for place in places]


def _axis(axis: Axis, span: tuple[float, float]) -> dict[str, Any]:
    values, texts = zip(*axis.ticks(*span), strict=True)
    return {
        "title": {"text": escape(axis.label)},
        "type": "log" if axis.log else "linear",
        "range": list(span),
        "tickvals": list(values),
        "ticktext": list(texts),
        "gridcolor": "#dddddd",
        "zeroline": False,
        "linecolor": "#555555",
        "ticks": "outside",
    }


def _bars(panel: BarPanel) -> dict[str, Any]:
    """Data and layout of a chart of bars."""
    named = panel.has_legend
    data = []
    for series in panel.series:
        values = [0.0 if bar.value is None else bar.value for bar in series.bars]
        trace = {
            "type": "bar",
            "name": escape(series.name),
            "showlegend": named and bool(series.name),
            "x": list(panel.groups),
            "y": [bar.value for bar in series.bars],
            "hoverinfo": "text",
            "hovertext": [_hover((series.name, *bar.details)) for bar in series.bars],
            "marker": {"color": series.colour, "pattern": {"shape": "/" if series.hatch else "", "size": 6}},
        }
        if any(bar.interval for bar in series.bars):
            trace["error_y"] = _errors(values, [bar.interval for bar in series.bars], "#222222")
        data.append(trace)
    layout = BASE | {
        "height": BAR_HEIGHT,
        "margin": BASE["margin"] | ({} if named else {"r": 20}),
        "barmode": "stack" if panel.stacked else "group",
        "bargap": BAR_GAP,
        "annotations": _bar_labels(panel),
        "xaxis": {"title": {"text": escape(panel.x_label)}, "type": "category", "linecolor": "#555555"},
        "yaxis": {"title": {"text": escape(panel.y_label)}, "gridcolor": "#dddddd", "zerolinecolor": "#555555"},
    }
    return {"data": data, "layout": layout}


def _bar_labels(panel: BarPanel) -> list[dict[str, Any]]:
    """Beside each bar and its interval: plotly's own labels lie on the intervals."""
    return [
        {
            "text": escape(bar.label),
            "y": end,
            "showarrow": False,
            "font": {"size": SMALL},
            "x": x,
            "yanchor": "bottom" if end >= floor else "top",
        }
        for _, bar, x, floor, end in panel.placed()
        if bar.label
    ]


def _hover(lines: Sequence[str]) -> str:
    """Lines of text for the box under the mouse, the first one bold, long ones broken."""
    first, *others = [line for line in lines if line] or [""]
    broken = [part for line in others for part in textwrap.wrap(line, HOVER_CHARACTERS)]
    return "<br>".join([f"<b>{escape(first)}</b>", *map(escape, broken)])
