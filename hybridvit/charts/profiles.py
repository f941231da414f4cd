"""Two figures of the papers, measured here: FastViT's Figure 3 and FasterViT's Figure S.4."""

from collections.abc import Mapping, Sequence
from itertools import cycle
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
from hybridvit.measure.mixers import PAPER, POOLING, REPMIXER, reductions

STYLES = {
    POOLING: Style(colour="#4d4d4d", shape="square", diameter_px=8.5),
    REPMIXER: Style(colour="#0072b2", filled=True, diameter_px=10),
}
OF_PAPER = "#999999"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MIB = 2**20
FP32_BYTES = 4


def draw_resolution(points: Sequence[Record], path: Path, title: str = "Pooling and RepMixer as token mixers") -> None:
    """Latency of `pooling` and `RepMixer` over the image side, and what RepMixer saves (FastViT, Figure 3).

    `points` are records of the two models in any number of setups, each with a panel. The interval of a measured
    reduction is made from the ends of both medians' intervals, so it is wider than 95 %. Raises UsageError for a wrong
    path, and where no setup has both models at one size.
    """
    check_chart_path(path)
    setups = by_setup(points)
    saved = {setup: {each["side_px"]: each for each in reductions(records)} for setup, records in setups.items()}
    saved = {setup: found for setup, found in saved.items() if found}
    if not saved:
        raise UsageError(
            f"Of {len(points)} measured rows no two are '{POOLING}' and '{REPMIXER}' in one runtime at one image size, "
            "so there is nothing to compare. Measure both."
        )
    sides = sorted({side for found in saved.values() for side in found})
    compared = [side for side in sides if side in PAPER] or sides
    bars = [_reduction_bars("paper (iPhone 12 Pro)", OF_PAPER, [(side, PAPER.get(side), None) for side in compared])]
    for colour, name, found in zip(cycle(COLOURS), setup_names(list(saved)), saved.values(), strict=False):
        rows = [(side, found.get(side, {}).get("less_percent"), _range(found.get(side))) for side in compared]
        bars.append(_reduction_bars(name, colour, rows))
    page = Page(
        title=title,
        lead="The same network with one token mixer or the other. Median latency with its 95 % interval where that is "
        "wider than the mark; the interval of a reduction spans both medians' intervals.",
        panels=[
            *(_mixer_panel(setup_name(setup), setups[setup]) for setup in saved),
            BarPanel(
                title="What RepMixer saves",
                x_label="image side, px",
                y_label="latency lower by, %",
                groups=tuple(map(str, compared)),
                series=tuple(bars),
            ),
        ],
        key=[
            Series(name=name, points=(), style=style, colour=style.colour, dash="solid", group=name)
            for name, style in STYLES.items()
        ],
        notes=[
            f"Published: {', '.join(f'{value:.1f} % at {side} px' for side, value in PAPER.items())} (FastViT, section "
            "3.1 with Figure 3)."
        ],
    )
    write_page(page, path)


def _range(reduction: Mapping[str, Any] | None) -> tuple[float, float] | None:
    return None if reduction is None else (reduction["least_percent"], reduction["most_percent"])


def _reduction_bars(
    name: str, colour: str, rows: Sequence[tuple[int, float | None, tuple[float, float] | None]]
) -> BarSeries:
    """Bars of (side, % saved, interval); None where nothing is known."""
    bars = []
    for side, value, interval in rows:
        spread = f" ({interval[0]:.1f} to {interval[1]:.1f})" if interval else ""
        known = value is not None
        bars.append(
            Bar(
                value=value,
                label=f"{value:.1f}" if known else "",
                interval=interval,
                details=(f"lower by {value:.1f} %{spread} at {side} px",) if known else (),
            )
        )
    return BarSeries(name=name, colour=colour, bars=tuple(bars), hatch=colour == OF_PAPER)


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
    weights = [stage["parameters"] * FP32_BYTES / MIB for stage in stages]
    activations = [stage["activation_bytes"] / MIB for stage in stages]
    totals = [sum(pair) for pair in zip(weights, activations, strict=True)]
    memory = [f"{value:.3g} ({share})" for value, share in _shares(totals)]
    panels = (
        ("Latency", "ms", [_stage_bars(latencies, COLOURS[0], [interval_of(stage) for stage in stages])]),
        ("Multiply-adds", "billions", [_stage_bars([stage["multiply_adds"] / 1e9 for stage in stages], COLOURS[1])]),
        (
            "Memory",
            "MiB",
            [
                _memory_bars("weights in fp32", COLOURS[2], weights, [""] * len(stages)),
                _memory_bars("activations", COLOURS[4], activations, memory, hatch=True),
            ],
        ),
    )
    page = Page(
        title=title,
        lead="Each bar's number has its share of the whole in brackets. Latency: median with its 95 % interval.",
        panels=[
            BarPanel(title=name, x_label="", y_label=unit, groups=groups, series=tuple(series), stacked=len(series) > 1)
            for name, unit, series in panels
        ],
    )
    write_page(page, path)


def _stage_bars(
    values: Sequence[float], colour: str, intervals: Sequence[tuple[float, float] | None] | None = None
) -> BarSeries:
    texts = [f"{value:.3g} ({share})" for value, share in _shares(values)]
    return BarSeries(
        name="",
        colour=colour,
        bars=tuple(
            Bar(value=value, label=text, details=(text,), interval=interval)
            for value, text, interval in zip(values, texts, intervals or [None] * len(values), strict=True)
        ),
    )


def _memory_bars(
    name: str, colour: str, values: Sequence[float], labels: Sequence[str], *, hatch: bool = False
) -> BarSeries:
    bars = tuple(
        Bar(value=value, label=label, details=(f"{name.partition(' ')[0]} {value:.3g} MiB",))
        for value, label in zip(values, labels, strict=True)
    )
    return BarSeries(name=name, colour=colour, bars=bars, hatch=hatch)


def _shares(values: Sequence[float]) -> list[tuple[float, str]]:
    """Each value with its share of all."""
    whole = sum(values) or 1.0
    return [(value, "<1 %" if 0 < value < 0.005 * whole else f"{100 * value / whole:.0f} %") for value in values]
