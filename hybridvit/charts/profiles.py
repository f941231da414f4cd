"""Two figures of the papers, measured here: FastViT's Figure 3 and FasterViT's Figure S.4."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridvit.charts.chart_file import check_chart_path, write_page
from hybridvit.charts.panels import Axis, Bar, BarPanel, BarSeries, Page, Panel, Point, Series, Style
from hybridvit.charts.tradeoff_rows import (
    Record,
    by_setup,
    interval_of,
    interval_text,
    setup_name,
    setup_names,
    side_px,
)
from hybridvit.errors import UsageError

BEFORE, AFTER = "pooling", "RepMixer"
STYLES = {
    BEFORE: Style(colour="#4d4d4d", shape="square", diameter_px=8.5),
    AFTER: Style(colour="#0072b2", filled=True, diameter_px=10),
}
PAPER = "#999999"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MIB = 2**20
Reduction = tuple[float, tuple[float, float] | None]  # in %, with the range that the intervals allow
FP32_BYTES = 4


def draw_resolution(
    points: Sequence[Record],
    path: Path,
    title: str = "Pooling and RepMixer as token mixers",
    published: Mapping[int, float] | None = None,
) -> None:
    """Latency of `pooling` and `RepMixer` over the image side, and what RepMixer saves (FastViT, Figure 3).

    `points` are records of the two models in any number of setups, each with a panel; `published` is the paper's
    reduction in % by image side in px, by default {384: 25.1, 1024: 43.9}. The interval of a measured reduction is
    made from the ends of both medians' intervals, so it is wider than 95 %. Raises UsageError for a wrong path, and
    where no setup has both models at one size.
    """
    check_chart_path(path)
    published = {384: 25.1, 1024: 43.9} if published is None else published
    setups = by_setup(points)
    saved = {setup: _reductions(records) for setup, records in setups.items()}
    if not any(saved.values()):
        raise UsageError(
            f"Of {len(points)} measured rows no two are '{BEFORE}' and '{AFTER}' in one runtime at one image size, so "
            "there is nothing to compare. Measure both."
        )
    setups = {setup: records for setup, records in setups.items() if saved[setup]}
    sides = sorted({round(side) for setup in setups for side in saved[setup]})
    compared = [side for side in sides if side in published] or sides
    printed: dict[int, Reduction] = {side: (value, None) for side, value in published.items()}
    bars = [_reduction_bars("paper (iPhone 12 Pro)", PAPER, compared, printed)]
    for index, (setup, name) in enumerate(zip(setups, setup_names(list(setups)), strict=True)):
        found = {round(side): values for side, values in saved[setup].items()}
        bars.append(_reduction_bars(name, COLOURS[index % len(COLOURS)], compared, found))
    page = Page(
        title=title,
        lead="The same network with one token mixer or the other. Median latency with its 95 % interval where that is "
        "wider than the mark; the interval of a reduction spans both medians' intervals.",
        panels=[
            *(_mixer_panel(setup_name(setup), records) for setup, records in setups.items()),
            BarPanel(
                title="What RepMixer saves",
                x_label="image side, px",
                y_label="latency lower by, %",
                groups=tuple(f"{side}" for side in compared),
                series=tuple(bars),
            ),
        ],
        key=[
            Series(name=name, points=(), style=style, colour=style.colour, dash="solid", group=name)
            for name, style in STYLES.items()
        ],
        notes=[
            "Published: "
            + ", ".join(f"{value:.1f} % at {side} px" for side, value in published.items())
            + " (FastViT, section 3.1 with Figure 3)."
        ]
        if published
        else [],
    )
    write_page(page, path)


def _reductions(records: Sequence[Record]) -> dict[float, Reduction]:
    """By image side: how much lower RepMixer's latency is in %, and the range that the intervals allow."""
    by_model: dict[str, dict[float, Record]] = {BEFORE: {}, AFTER: {}}
    for record in records:
        by_model.get(record["model"], {})[side_px(record)] = record
    reductions = {}
    for side in sorted(by_model[BEFORE].keys() & by_model[AFTER].keys()):
        before, after = by_model[BEFORE][side], by_model[AFTER][side]
        ends = interval_of(before), interval_of(after)
        interval = None
        if ends[0] and ends[1]:
            interval = 100 * (1 - ends[1][1] / ends[0][0]), 100 * (1 - ends[1][0] / ends[0][1])
        reductions[side] = 100 * (1 - after["median_ms"] / before["median_ms"]), interval
    return reductions


def _reduction_bars(name: str, colour: str, sides: Sequence[int], found: Mapping[int, Reduction]) -> BarSeries:
    bars = []
    for side in sides:
        if side not in found:
            bars.append(Bar(value=None))
            continue
        value, interval = found[side]
        spread = f" ({interval[0]:.1f} to {interval[1]:.1f})" if interval else ""
        text = f"lower by {value:.1f} %{spread} at {side} px"
        bars.append(Bar(value=value, label=f"{value:.1f}", interval=interval, details=(text,)))
    return BarSeries(name=name, colour=colour, bars=tuple(bars), hatch=colour == PAPER)


def _mixer_panel(name: str, records: Sequence[Record]) -> Panel:
    lines = {model: sorted((r for r in records if r["model"] == model), key=side_px) for model in STYLES}
    sides = tuple(sorted({side_px(record) for line in lines.values() for record in line}))
    return Panel(
        title=name,
        x=Axis(label="image side, px", log=True, at=sides),
        y=Axis(label="median latency, ms", log=True),
        height=0.7,
        series=tuple(
            Series(
                name=model,
                points=tuple(
                    Point(
                        x=side_px(record),
                        y=record["median_ms"],
                        label=f"{record['median_ms']:.3g}",
                        details=(
                            f"{model}, {record['image_size']}",
                            f"{record['median_ms']:.2f} ms ({interval_text(record)})",
                        ),
                        y_interval=interval_of(record),
                    )
                    for record in line
                ),
                style=STYLES[model],
                colour=STYLES[model].colour,
                dash="solid",
                group=model,
            )
            for model, line in lines.items()
        ),
    )


def draw_stages(stages: Sequence[Mapping[str, Any]], path: Path, title: str = "Profile by stage") -> None:
    """Latency, multiply-adds and memory of each stage of a model (FasterViT, Figure S.4).

    A stage is {"stage", "median_ms", "low_ms", "high_ms", "multiply_adds", "parameters", "activation_bytes"}, in the
    order of the model; memory is that of its weights in fp32 and of its activations. Raises UsageError for a wrong
    path or no stages.
    """
    check_chart_path(path)
    if not stages:
        raise UsageError("The list of stages is empty, so there is nothing to draw. Give at least one measured stage.")
    names = tuple(str(stage["stage"]) for stage in stages)
    groups = tuple(f"stage {name}" if name.isdigit() else name for name in names)
    latencies = [float(stage["median_ms"]) for stage in stages]
    page = Page(
        title=title,
        lead="Each bar's number has its share of the whole in brackets. Latency: median with its 95 % interval.",
        panels=[
            BarPanel(
                title="Latency",
                x_label="",
                y_label="ms",
                groups=groups,
                series=(_stage_bars(latencies, COLOURS[0], [interval_of(stage) for stage in stages]),),
            ),
            BarPanel(
                title="Multiply-adds",
                x_label="",
                y_label="billions",
                groups=groups,
                series=(_stage_bars([stage["multiply_adds"] / 1e9 for stage in stages], COLOURS[1]),),
            ),
            _memory_panel(stages, groups),
        ],
    )
    write_page(page, path)


def _stage_bars(
    values: Sequence[float], colour: str, intervals: Sequence[tuple[float, float] | None] | None = None
) -> BarSeries:
    whole = sum(values) or 1.0
    texts = [f"{value:.3g} ({_percent(value, whole)})" for value in values]
    return BarSeries(
        name="",
        colour=colour,
        bars=tuple(
            Bar(value=value, label=text, details=(text,), interval=interval)
            for value, text, interval in zip(values, texts, intervals or [None] * len(values), strict=True)
        ),
    )


def _percent(part: float, whole: float) -> str:
    return "<1 %" if 0 < part < 0.005 * whole else f"{100 * part / whole:.0f} %"


def _memory_panel(stages: Sequence[Mapping[str, Any]], groups: tuple[str, ...]) -> BarPanel:
    weights = [stage["parameters"] * FP32_BYTES / MIB for stage in stages]
    activations = [stage["activation_bytes"] / MIB for stage in stages]
    totals = [sum(pair) for pair in zip(weights, activations, strict=True)]
    return BarPanel(
        title="Memory",
        x_label="",
        y_label="MiB",
        groups=groups,
        stacked=True,
        series=(
            BarSeries(
                name="weights in fp32",
                colour=COLOURS[2],
                bars=tuple(Bar(value=value, details=(f"weights {value:.3g} MiB",)) for value in weights),
            ),
            BarSeries(
                name="activations",
                colour=COLOURS[4],
                hatch=True,
                bars=tuple(
                    Bar(
                        value=value,
                        label=f"{total:.3g} ({_percent(total, sum(totals) or 1.0)})",
                        details=(f"activations {value:.3g} MiB",),
                    )
                    for value, total in zip(activations, totals, strict=True)
                ),
            ),
        ),
    )
