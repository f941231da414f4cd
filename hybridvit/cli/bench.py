"""`hybridvit bench`: how fast is it here?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridvit.atomic import write_text
from hybridvit.cli.output import check_outputs, ended
from hybridvit.cli.progress import status_line
from hybridvit.cli.table import aligned, pairs
from hybridvit.errors import UsageError, plural
from hybridvit.measure.options import DEFAULTS, BenchOptions

if TYPE_CHECKING:
    from hybridvit.measure.bench import BenchResult
    from hybridvit.measure.candidate import Candidate

TOLERANCE = 5.0  # percent


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is made of a result beside the text."""

    chart: Path | None = None
    """file for the charts, accuracy against latency and more: .html or .png."""
    csv: Path | None = None
    """file for the table with all columns; the first are timm's."""
    json: Path | None = None
    """file for the JSON line."""
    against: str | None = None
    """JSON of an earlier run, to compare with: exit code 9 if a candidate is slower now."""
    tolerance: float | None = None
    """how much slower than `against`, in percent, is not slower yet; by default 5."""


NOTHING = Output()


def bench(
    models: Sequence[str] = (),
    *,
    from_: str | None = None,
    options: BenchOptions = DEFAULTS,
    output: Output = NOTHING,
) -> int:
    """Time models against each other on this machine.

    Each candidate (a model in a runtime and a precision) is converted, opened in processes of its own, called until its
    time is stable, and then takes its turn in rounds, so that a machine that slows down misleads about none of them.
    Medians come with a 95 % interval, which holds what differs between processes: where two intervals overlap, neither
    is faster. What disturbed the measurement is said, page faults too; what cannot be measured is left out with the
    reason, and Ctrl-C keeps what was measured. The last line is one JSON object with everything.

    Models are those of `hybridvit list` and all of timm's by their names, folded alike; checkpoints; exported files.
    Weights of models by name are random: that changes no time. Published top-1 accuracies stand beside them.

    With --from nothing is measured: a result is read, such as that of a phone's browser (`hybridvit bench-page`),
    shown, and compared with another.

    Examples:
      hybridvit bench fastvit_t8
      hybridvit bench fastvit_t8 fastervit_0 repvit_m1_1 convnext_tiny --runtimes torch onnxruntime openvino \
--chart pareto.html
      hybridvit bench fastvit_sa12 --runtimes openvino --precisions fp32 bf16 int8 --batch 1 8 32 --csv sweep.csv
      hybridvit bench runs/digits/model.safetensors --json now.json --against before.json
      hybridvit bench --from phone.json --against earlier.json

    Args:
        models: names from `hybridvit list` or of timm, checkpoints, or exported files.
        from_: JSON of a result, to show and compare it instead of measuring.
    """
    if from_ is not None:
        return _show_earlier(from_, models, options, output)
    if not models:
        raise UsageError("`hybridvit bench` also needs MODELS, or --from FILE. See `hybridvit bench --help`.")
    from hybridvit.measure.against import SLOWER, check_comparable, compare
    from hybridvit.measure.bench import bench as run_bench

    check_outputs(output.csv, output.json, chart=output.chart)
    tolerance, before = _earlier(output)

    def check(candidates: "Sequence[Candidate]") -> None:
        if before is not None:
            check_comparable([each.record() for each in candidates], before)

    def save(result: "BenchResult") -> None:
        if output.json is not None:
            write_text(output.json, result.json() + "\n")

    with status_line() as show:
        result = run_bench(models, options, show=show, keep=save, planned=check)
    whole = result.to_dict()
    _print(whole, result.machine.lines(), result.warnings())
    if output.csv is not None:
        write_text(output.csv, result.csv())
    save(result)
    comparison = None if before is None else compare(whole, before, tolerance=tolerance)
    if comparison is not None:
        print("\n" + comparison.text())
    print(result.json())
    if output.chart is not None:
        from hybridvit.charts.tradeoff import draw

        draw(whole, output.chart)
    slower = SLOWER if comparison is not None and comparison.slower else 0
    return ended(is_complete=result.is_complete) or slower


def _earlier(output: Output) -> tuple[float, dict[str, Any] | None]:
    """How much slower is not slower yet, as a share, and the earlier result. Raises UsageError for either."""
    from hybridvit.measure.against import check_tolerance
    from hybridvit.measure.result import read_result

    percent = TOLERANCE if output.tolerance is None else output.tolerance
    if output.tolerance is not None and output.against is None:
        raise UsageError(
            f"--tolerance is {percent:g}, but there is nothing to compare with. Give an earlier result: --against FILE."
        )
    check_tolerance(percent / 100)
    return percent / 100, None if output.against is None else read_result(output.against)


def _show_earlier(path: str, models: Sequence[str], options: BenchOptions, output: Output) -> int:
    """Show the result at `path`, compare it, draw it; the exit code.

    Raises UsageError for what only measuring needs.
    """
    from hybridvit.charts.tradeoff_rows import machine_of
    from hybridvit.measure.against import SLOWER, compare
    from hybridvit.measure.result import as_csv, read_result

    if models or options != DEFAULTS or output.json is not None:
        raise UsageError(
            f"--from {path} shows what was measured, and measures nothing: leave out models, --json and what says how "
            "to measure. --against, --tolerance, --chart and --csv go with it."
        )
    check_outputs(output.csv, chart=output.chart)
    tolerance, before = _earlier(output)
    whole = read_result(path)
    if not whole["bench"]:
        raise UsageError(f"In {path} nothing was measured: {'; '.join(_left_out(whole)) or 'it was ended before'}.")
    comparison = None if before is None else compare(whole, before, tolerance=tolerance)
    _print(whole, machine_of(whole), [*whole["conditions"].get("warnings", ()), *whole.get("notes", ())])
    if comparison is not None:
        print("\n" + comparison.text())
    if output.csv is not None:
        write_text(output.csv, as_csv(whole["bench"]))
    if output.chart is not None:
        from hybridvit.charts.tradeoff import draw

        draw(whole, output.chart)
    return SLOWER if comparison is not None and comparison.slower else 0


def _print(whole: Mapping[str, Any], machine: Sequence[tuple[str, str]], warnings: Sequence[str]) -> None:
    print(table(whole["bench"]))
    print()
    print(pairs(machine))
    print(f"  {_settings_line(whole)}")
    for line in _left_out(whole):
        print(f"  Left out: {line}")
    for warning in warnings:
        print(f"  Note: {warning}")


def _left_out(whole: Mapping[str, Any]) -> list[str]:
    """What was not measured, each with its reason, once."""
    reasons = (
        f"{each['model']}, {each['runtime']}, {each['precision']}: {each['reason']}" for each in whole["skipped"]
    )
    return list(dict.fromkeys(reasons))


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Aligned text: each image size and batch apart, and within it the fastest first, and times relative to it."""
    from hybridvit.measure.result import of_one_load

    ordered = [(record, group[0]) for group in of_one_load(records) for record in group]
    optional = ("form", "device", "batch", "threads")
    several = [name for name in optional if len({record[name] for record in records}) > 1]
    left = ["model", "runtime", "precision", *(name for name in several if name in ("form", "device"))]
    numbers = [name for name in several if name not in left]
    header = (*left, "px", *numbers, "median ms", "95 % interval", "p90", "p99")
    lines = [(*header, "images/s", "MiB", "top-1 %", "relative")]
    for record, fastest in ordered:
        height, width = record["image_size"].split("x")
        lines.append(
            (
                *(str(record[name]) for name in left),
                height if height == width else record["image_size"],
                *(str(record[name]) for name in numbers),
                f"{record['median_ms']:.2f}",
                f"{record['low_ms']:.2f} - {record['high_ms']:.2f}",
                f"{record['p90_ms']:.2f}",
                f"{record['p99_ms']:.2f}",
                f"{record['images_per_s']:.1f}",
                "-" if record["memory_mib"] is None else f"{record['memory_mib']:.0f}",
                "-" if record["top1"] is None else f"{record['top1']:.1f}",
                f"{record['median_ms'] / fastest['median_ms']:.2f}x",
            )
        )
    return aligned(lines, left=len(left))


def _settings_line(result: Mapping[str, Any]) -> str:
    settings, first = result["settings"], result["bench"][0]
    pinned = ", each pinned to a core" if settings["threads_pinned_to_cores"] else ""
    protocol = f"; protocol {settings['protocol']}" if settings["protocol"] else ""
    processes = plural(settings["processes"], "process")
    return (
        f"{settings['threads']} threads{pinned}; {first['rounds']} rounds of {settings['calls_per_turn']} calls after "
        f"one that is not timed, in {processes} of each{protocol}"
    )
