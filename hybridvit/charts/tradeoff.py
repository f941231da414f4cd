"""What `hybridvit bench` measured, as charts: accuracy against latency and parameters, latency against image size.

Accuracies are published ones, each with its source; latencies are measured. Colour and glyph are the family, the
outer shape says how the published weights were trained.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hybridvit.charts.chart_file import check_chart_path, write_page
from hybridvit.charts.latency_bars import latency_panels
from hybridvit.charts.panels import Axis, Page, Panel, Point, Series, Style
from hybridvit.charts.profiles import draw_resolution, draw_stages
from hybridvit.charts.tradeoff_rows import (
    Record,
    as_deployed,
    by_setup,
    facts_of,
    interval_of,
    interval_text,
    machine_of,
    notes_of,
    numbers_table,
    setup_name,
    setup_of,
    side_px,
    sources_of,
    sources_table,
    top1_of,
)
from hybridvit.charts.tradeoff_styles import family_name, is_ours, shape_of, short_labels, styles_of, training_key
from hybridvit.errors import UsageError, plural

__all__ = ["check_chart_path", "draw", "draw_resolution", "draw_stages", "pareto_front"]

Pair = TypeVar("Pair", bound=tuple[Any, ...])

ACCURACY = Axis(label="ImageNet-1k top-1, published, %")
FRONT = Series(name="Pareto front", points=(), colour="#222222", dash="solid", steps=True, group="front")
PLAIN_FRONT = Series(
    name="Pareto front of ImageNet-1k alone",
    points=(),
    colour="#222222",
    dash="dot",
    steps=True,
    width_px=1.3,
    group="front of plain training",
)
LEAD = (
    "Accuracy is the published one; latency was measured on the machine described below: the median, with its 95 % "
    "interval as a bar where it is wider than the mark. Higher and further left is better."
)
LEAD_OF_SPEED = "Latency was measured on the machine described below: the median, with its 95 % interval as a line."


def pareto_front(points: Iterable[Pair]) -> list[Pair]:
    """The (cost, accuracy, ...) that no other beats: none is as cheap and better, nor as good and cheaper.

    Sorted by cost. Of points equal in both all stay, in the order given; what is not finite is left out.
    """
    finite = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    front: list[Pair] = []
    for point in sorted(finite, key=lambda point: (point[0], -point[1])):
        if not front or point[1] > front[-1][1] or point[:2] == front[-1][:2]:
            front.append(point)
    return front


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw a result file's content to `path`: .html, which needs no network, or .png.

    One panel of accuracy against latency for each runtime, precision and batch, one of accuracy against parameters,
    one of latency against image size for each setup in which a model was measured at several, and bars of latencies
    for models that are in none of these, such as one's own. Raises UsageError for another suffix, a missing folder or
    package, and where there is nothing to draw.
    """
    check_chart_path(path)
    write_page(tradeoff_page(result), path)


def tradeoff_page(result: Mapping[str, Any]) -> Page:
    """The charts and the text of `draw`."""
    records: list[Record] = result["bench"]
    drawn = as_deployed(records)
    look = _look(drawn)
    known = [record for record in drawn if top1_of(record) is not None]
    panels = [
        _accuracy_panel(f"Accuracy and latency: {setup_name(setup)}", rows, _latency_axis(setup), "median_ms", look)
        for setup, rows in by_setup(known).items()
    ]
    sized = list({(record["model"], top1_of(record)): record for record in reversed(known)}.values())[::-1]
    sized = [record for record in sized if record.get("parameters")]
    if sized:
        axis = Axis(label="parameters, millions", log=True)
        panels.append(_accuracy_panel("Accuracy and parameters", sized, axis, "parameters", look))
    panels += _resolution_panels(drawn, look)
    shown_models = {record["model"] for record in known} | {line.name for panel in panels for line in panel.series}
    bars = latency_panels(drawn, {record["model"] for record in drawn} - shown_models)
    if not panels and not bars:
        raise UsageError("The result has no measured row, so there is nothing to draw. Measure at least one model.")
    shown = {record.get("family") or "" for record in known}
    families = [
        Series(name=family_name(family), points=(), style=style, group=family or "other")
        for family, style in look.styles.items()
        if family in shown
    ]
    fronts = [
        front
        for front in (FRONT, PLAIN_FRONT)
        if any(front.group == line.group for panel in panels for line in panel.series)
    ]
    models, runtimes = ({record[key] for record in records} for key in ("model", "runtime"))
    return Page(
        title=f"{'Accuracy and speed' if known else 'Speed'} of {plural(len(models), 'model')} in "
        f"{plural(len(runtimes), 'runtime')}",
        lead=LEAD if known else LEAD_OF_SPEED,
        panels=[*panels, *bars],
        key=[*training_key(record.get("top1_of") or "plain" for record in known), *fronts, *families],
        notes=notes_of(records, drawn, result.get("skipped") or []),
        sources=sources_table(known, look.sources) if known else None,
        numbers=numbers_table(records, look.sources),
        facts=facts_of(result),
        machine=machine_of(result),
    )


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What is the same in all panels."""

    styles: dict[str, Style]  # by family
    labels: dict[str, str]  # by model
    sources: dict[str, int]

    def style(self, record: Record) -> Style:
        return dataclasses.replace(
            self.styles[record.get("family") or ""], shape=shape_of(record.get("top1_of") or "plain")
        )


def _look(records: Sequence[Record]) -> _Look:
    return _Look(
        styles=styles_of(record.get("family") or "" for record in records),
        labels=short_labels({record["model"]: record.get("top1_of") or "plain" for record in records}),
        sources=sources_of(records),
    )


def _latency_axis(setup: tuple[Any, ...]) -> Axis:
    batch = setup[2]
    return Axis(label="median latency, ms" if batch == 1 else f"median latency of a batch of {batch}, ms", log=True)


def _accuracy_panel(title: str, records: Sequence[Record], axis: Axis, cost: str, look: _Look) -> Panel:
    """Accuracy against `cost`, the key of a record, with the front of all and that of plain training."""
    unit = 1e6 if cost == "parameters" else 1.0
    points = [(record[cost] / unit, top1, record) for record in records if (top1 := top1_of(record)) is not None]
    front = pareto_front(points)
    plain = pareto_front(point for point in points if (point[2].get("top1_of") or "plain") == "plain")
    on_front = {id(point[2]) for point in front}
    sizes: dict[str, set[str]] = {}
    for record in records:
        sizes.setdefault(record["model"], set()).add(record["image_size"])
    series: dict[tuple[str, str], list[Point]] = {}
    for x, y, record in points:
        label = look.labels[record["model"]]
        if len(sizes[record["model"]]) > 1:
            label += f" @{record['image_size'].split('x')[0]}"
        point = Point(
            x=x,
            y=y,
            label=label,
            must_label=is_ours(record) or id(record) in on_front,
            details=_details(record, look),
            x_interval=interval_of(record) if cost == "median_ms" else None,
        )
        series.setdefault((record.get("family") or "", record.get("top1_of") or "plain"), []).append(point)
    lines = [FRONT] if len(front) > 1 else []
    lines += [PLAIN_FRONT] if len(plain) > 1 and plain != front else []
    return Panel(
        title=title,
        x=axis,
        y=ACCURACY,
        series=(
            *(
                dataclasses.replace(line, points=tuple(Point(x=x, y=y) for x, y, _ in corners))
                for line, corners in zip(lines, (front, plain), strict=False)
            ),
            *(
                Series(
                    name=family_name(family),
                    points=tuple(sorted(series[family, training], key=lambda point: point.x)),
                    style=dataclasses.replace(style, shape=shape_of(training)),
                    group=family or "other",
                )
                for family, style in reversed(look.styles.items())  # ours last: on top
                for training in sorted(training for of, training in series if of == family)
            ),
        ),
    )


def _details(record: Record, look: _Look) -> tuple[str, ...]:
    """What is shown under the mouse."""
    tail = "".join(f", {key[:3]} {record[key]:.2f}" for key in ("p90_ms", "p99_ms") if record.get(key))
    lines = [
        record["model"],
        f"median {record['median_ms']:.2f} ms (95 % interval {interval_text(record)}){tail}",
        f"{setup_name(setup_of(record))}, {record.get('form', '')}, {record['image_size'].replace('x', ' x ')} px",
    ]
    if record.get("images_per_s"):
        lines.append(f"{record['images_per_s']:,.0f} images per second")
    if (top1 := top1_of(record)) is not None:
        source = record.get("top1_source") or "source not given"
        lines.append(f"top-1 {top1:.1f} %, {record.get('top1_of') or 'plain'} [{look.sources[source]}] {source}")
    counts = [
        f"{record[key] / unit:.{decimals}f} {text}"
        for key, unit, decimals, text in (
            ("parameters", 1e6, 1, "M parameters"),
            ("multiply_adds", 1e9, 2, "G multiply-adds"),
            ("activations", 1e6, 1, "M activations"),
        )
        if record.get(key)
    ]
    return (*lines, ", ".join(counts)) if counts else tuple(lines)


def _resolution_panels(records: Sequence[Record], look: _Look) -> list[Panel]:
    """Latency against image size, for the models that were measured at several."""
    panels = []
    for setup, rows in by_setup(records).items():
        lines: dict[str, list[Record]] = {}
        for record in rows:
            lines.setdefault(record["model"], []).append(record)
        lines = {model: same for model, same in lines.items() if len({side_px(record) for record in same}) > 1}
        if not lines:
            continue
        sides = tuple(sorted({side_px(record) for same in lines.values() for record in same}))
        panels.append(
            Panel(
                title=f"Latency and image size: {setup_name(setup)}",
                x=Axis(label="image side, px (of a square of as many pixels)", log=True, at=sides),
                y=_latency_axis(setup),
                series=tuple(_resolution_line(model, same, look) for model, same in lines.items()),
                height=0.75,
            )
        )
    return panels


def _resolution_line(model: str, records: Sequence[Record], look: _Look) -> Series:
    ordered = sorted(records, key=side_px)
    style = look.style(ordered[0])
    return Series(
        name=model,
        points=tuple(
            Point(
                x=side_px(record),
                y=record["median_ms"],
                label=look.labels[model] if record is ordered[-1] else "",
                must_label=True,
                details=_details(record, look),
                y_interval=interval_of(record),
            )
            for record in ordered
        ),
        style=style,
        colour=style.colour,
        dash="solid",
        group=model,
    )
