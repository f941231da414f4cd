"""`hybridvit mixers` and `hybridvit stages`: two figures of the papers, measured here."""

import json as json_lines
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hybridvit.atomic import write_text
from hybridvit.cli.output import check_outputs, ended
from hybridvit.cli.progress import status_line
from hybridvit.cli.size import Size
from hybridvit.cli.table import aligned, pairs
from hybridvit.measure.options import BenchOptions


def mixers(
    *,
    runtimes: list[str] | None = None,
    image_sizes: list[int] | None = None,
    threads: int | None = None,
    rounds: int = 30,
    seconds: float | None = None,
    processes: int | None = None,
    device: Literal["cpu", "cuda"] | None = None,
    chart: Path | None = None,
    json: Path | None = None,
) -> int:
    """Time pooling against RepMixer over image sizes: FastViT's Figure 3 on this machine.

    One network, MetaFormer-S12 (1.8 billion multiply-adds at 224 px), with either mixer, folded, batch 1. The paper's
    phone took 25.1 % less time with RepMixer at 384 px and 43.9 % less at 1024 px.

    Examples:
      hybridvit mixers
      hybridvit mixers --runtimes torch onnxruntime openvino --chart mixers.png

    Args:
        runtimes: as in `hybridvit bench`.
        image_sizes: sides in pixels; by default 224 384 512 768 1024.
        threads: CPU threads; by default all cores that this process may use.
        rounds: turns of each candidate, at least 8.
        seconds: stop after this time for each size, but not before 8 rounds.
        processes: that each candidate is opened in; by default 3.
        device: cpu or cuda, for PyTorch, by default cpu; runtimes that compute elsewhere are then left out.
        chart: file for the picture: .html or .png.
        json: file for the JSON line.
    """
    from hybridvit.measure.mixers import measure_mixers, reductions

    check_outputs(json, chart=chart)
    with status_line() as show:
        options = BenchOptions(
            runtimes=runtimes, threads=threads, device=device, rounds=rounds, seconds=seconds, processes=processes
        )
        result = measure_mixers(image_sizes, options, show=show)
    whole = result.to_dict()
    found = reductions(whole["bench"])
    print(aligned(_reduction_lines(found)))
    print()
    print(pairs(result.machine.lines()))
    for warning in result.warnings():
        print(f"  Note: {warning}")
    if chart is not None:
        from hybridvit.charts.tradeoff import draw_resolution

        draw_resolution(whole["bench"], chart, "Pooling against RepMixer in MetaFormer-S12, batch 1")
    _finish({**whole, "reductions": found}, json)
    return ended(is_complete=result.is_complete)


def _reduction_lines(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = [
        ("runtime", "px", "pooling ms", "RepMixer ms", "less time", "95 % interval", "paper, iPhone 12 Pro")
    ]
    for each in found:
        paper = each["paper_percent"]
        lines.append(
            (
                each["runtime"],
                str(each["side_px"]),
                f"{each['pooling_ms']:.2f}",
                f"{each['repmixer_ms']:.2f}",
                f"{each['less_percent']:.1f} %",
                f"{each['least_percent']:.1f} - {each['most_percent']:.1f} %",
                "" if paper is None else f"{paper} %",
            )
        )
    return lines


def stages(
    model: str,
    *,
    batch: int = 1,
    image_size: Size | None = None,
    threads: int | None = None,
    rounds: int = 50,
    device: Literal["cpu", "cuda"] = "cpu",
    chart: Path | None = None,
    json: Path | None = None,
) -> None:
    """Tell what each stage of a model costs: time, multiply-adds, parameters and memory (FasterViT's Figure S.4).

    The folded model in PyTorch in fp32; each part is timed on what the parts before it give, in the same rounds.

    Examples:
      hybridvit stages fastervit_2
      hybridvit stages fastvit_sa12 --image_size 512 --chart stages.png

    Args:
        model: a name from `hybridvit list`, or a checkpoint.
        batch: images per call; times are per call.
        image_size: height x width in pixels; by default the model's own.
        threads: CPU threads; by default all cores that this process may use.
        rounds: calls of each part, at least 8.
        device: cpu or cuda.
        chart: file for the picture: .html or .png.
        json: file for the JSON line.
    """
    from hybridvit.machine.facts import machine_card
    from hybridvit.measure.stages import profile_stages

    check_outputs(json, chart=chart)
    found = profile_stages(model, batch=batch, image_size=image_size, threads=threads, device=device, rounds=rounds)
    whole_ms = sum(cost.median_ms for cost in found.costs)
    lines = [("stage", "median ms", "95 % interval", "share", "multiply-adds G", "parameters M", "activations MiB")]
    for cost in found.costs:
        lines.append(
            (
                cost.stage,
                f"{cost.median_ms:.2f}",
                f"{cost.low_ms:.2f} - {cost.high_ms:.2f}",
                f"{100 * cost.median_ms / whole_ms:.0f} %",
                f"{cost.multiply_adds / 1e9:.3f}",
                f"{cost.parameters / 1e6:.2f}",
                f"{cost.activation_bytes / 2**20:.1f}",
            )
        )
    print(f"{model}, batch {batch}, PyTorch, fp32, folded")
    print(aligned(lines))
    print()
    print(pairs(machine_card().lines()))
    for warning in found.conditions.warnings():
        print(f"  Note: {warning}")
    if chart is not None:
        from hybridvit.charts.tradeoff import draw_stages

        draw_stages([cost.to_dict() for cost in found.costs], chart, f"{model}, batch {batch}: what each stage costs")
    _finish({"model": model, "batch": batch, **found.to_dict(), "machine": machine_card().to_dict()}, json)


def _finish(result: dict[str, Any], path: Path | None) -> None:
    """The JSON line, on stdout and in the file."""
    line = json_lines.dumps(result, ensure_ascii=False)
    if path is not None:
        write_text(path, line + "\n")
    print(line)
