"""The page of a profile: an icicle to zoom into, the roofs, a bar per stage, and the numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from hybridvit.atomic import write_text
from hybridvit.charts.icicle import Slice, icicle
from hybridvit.charts.roofline import Dot, roofline
from hybridvit.measure.profile.operators import OperatorTime
from hybridvit.measure.profile.result import Cost, Profile
from hybridvit.report.content import Figure, Table
from hybridvit.report.html import number, page_template

SERIES = {"1": 1, "2": 2, "3": 3, "4": 4}  # stage -> colour; stem and head are grey


@dataclass(frozen=True, kw_only=True)
class StageBars:
    """The shares of one stage, each of 1."""

    stage: str
    series: int
    shares: Sequence[tuple[str, float, str]]  # of what, share, the value in words


def write_page(found: Profile, machine: Sequence[tuple[str, str]], path: Path) -> None:
    """Write the page to `path`, atomically; `machine` is titles and texts about it."""
    template, style = page_template("hybridvit.charts", "profile.html.jinja")
    roofs = [("fp32", found.roof.fp32_flop_per_s), ("bf16", found.roof.bf16_flop_per_s)]
    dots = [
        Dot(
            label=f"stage {cost.stage}, {cost.name}",
            intensity=cost.intensity,
            flop_per_s=cost.flop_per_s,
            series=SERIES.get(cost.stage, 0),
        )
        for cost in found.costs
        if cost.multiply_adds
    ]
    page = template.render(
        found=found,
        style=style,
        figures=_figures(found),
        icicle=icicle(_slices(found)),
        roofline=roofline(dots, roofs, found.roof.bytes_per_s),
        bars=_bars(found),
        table=_table(found),
        machine=machine,
    )
    write_text(path, page)


def _slices(found: Profile) -> Slice:
    stages = []
    for stage, group in groupby(found.costs, lambda cost: cost.stage):
        costs = list(group)
        blocks = [_block(found, cost) for cost in costs]
        label = f"stage {stage}" if stage in SERIES else stage
        total = sum(each.ms for each in blocks)
        parts = blocks[0].parts if found.depth == "stage" else blocks
        stages.append(Slice(label=label, ms=total, series=SERIES.get(stage, 0), parts=parts))
    others = [Slice(label=name, ms=ms) for name, ms in found.others_ms.items()]
    between = Slice(label="between", ms=max(0.0, found.between_ms), note="in none of the parts")
    parts = [*stages, *others, between]
    return Slice(label=found.model, ms=sum(part.ms for part in parts), parts=parts)


def _block(found: Profile, cost: Cost) -> Slice:
    """A block and its operators, as wide as the block was when it was timed: a profiler slows all that it watches."""
    series = SERIES.get(cost.stage, 0)
    own = [each for each in found.operators if each.path == cost.path]
    total = sum(each.self_ms for each in own)
    parts = [
        Slice(label=_operator(each), ms=each.self_ms * cost.total_ms / total, note=f"{each.calls} calls", series=series)
        for each in sorted(own, key=lambda each: -each.self_ms)
        if total
    ]
    return Slice(label=cost.name, ms=cost.total_ms, note=cost.kind, series=series, parts=parts)


def _operator(each: OperatorTime) -> str:
    name = each.name.removeprefix("aten::")
    return f"backward {name}" if each.is_backward else name


def _bars(found: Profile) -> list[StageBars]:
    """Time, multiply-adds, parameters and saved memory of each stage: what FasterViT's Figure S.4 shows."""
    quantities = [
        ("time", lambda cost: cost.total_ms, lambda ms: f"{ms:.2f} ms"),
        ("multiply-adds", lambda cost: cost.multiply_adds, number),
        ("parameters", lambda cost: cost.parameters, number),
        ("bytes moved", lambda cost: cost.moved_bytes, _mib),
    ]
    if found.mode == "training":
        quantities.append(("kept for backward", lambda cost: cost.saved_bytes or 0, _mib))
    totals = [sum(value(cost) for cost in found.costs) or 1 for _, value, _ in quantities]
    bars = []
    for stage, group in groupby(found.costs, lambda cost: cost.stage):
        costs = list(group)
        own = [sum(value(cost) for cost in costs) for _, value, _ in quantities]
        shares = [
            (name, amount / total, in_words(amount))
            for (name, _, in_words), amount, total in zip(quantities, own, totals, strict=True)
        ]
        label = f"stage {stage}" if stage in SERIES else stage
        bars.append(StageBars(stage=label, series=SERIES.get(stage, 0), shares=shares))
    return bars


def _figures(found: Profile) -> list[Figure]:
    whole, roof = found.whole, found.roof
    what = "one call" if found.mode == "inference" else "one training step"
    share = 100 * found.measured_share
    figures = [
        Figure(value=f"{whole.median_ms:.2f} ms", label=what, note=f"{whole.low_ms:.2f} to {whole.high_ms:.2f}"),
        Figure(value=f"{share:.1f} %", label="parts together", note="of the whole, measured as one"),
        Figure(value=number(sum(cost.multiply_adds for cost in found.costs)), label="multiply-adds"),
        Figure(value=f"{roof.fp32_flop_per_s / 1e9:.0f} GFLOP/s", label="fp32 roof", note="of a matrix product"),
        Figure(value=f"{roof.bytes_per_s / 1e9:.1f} GB/s", label="memory roof", note="of a copy"),
    ]
    if found.saved_between_bytes is not None:
        saved = sum(cost.saved_bytes or 0 for cost in found.costs) + found.saved_between_bytes
        figures.insert(3, Figure(value=_mib(saved), label="kept for backward"))
    return figures


def _mib(num_bytes: float) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"


def _table(found: Profile) -> Table:
    training = found.mode == "training"
    head = ["stage", "part", "kind", "ms", *(["backward ms"] if training else []), "share", "multiply-adds M"]
    head += ["FLOP per byte", "GFLOP/s", "bound by", "of its roof", *(["kept MiB"] if training else [])]
    rows = []
    for cost in found.costs:
        attainable = found.roof.attainable(cost.intensity)
        row = [cost.stage, cost.name, cost.kind, f"{cost.forward.median_ms:.3f}"]
        row += [f"{cost.backward.median_ms:.3f}"] if cost.backward else []
        row += [f"{100 * cost.share:.1f} %", f"{cost.multiply_adds / 1e6:.1f}", f"{cost.intensity:.1f}"]
        row += [f"{cost.flop_per_s / 1e9:.1f}", found.roof.binds(cost.intensity)]
        row += [f"{100 * cost.flop_per_s / attainable:.0f} %" if attainable else "–"]
        row += [f"{cost.saved_bytes / 2**20:.2f}"] if cost.saved_bytes is not None else []
        rows.append(row)
    return Table(title="In numbers", head=head, rows=rows)
