"""`hybridvit profile`: where the time and the memory of a model go."""

import json as json_lines
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hybridvit.atomic import write_text
from hybridvit.cli.output import check_outputs
from hybridvit.cli.progress import status_line
from hybridvit.cli.size import Size
from hybridvit.cli.table import aligned, pairs
from hybridvit.errors import UsageError, plural

if TYPE_CHECKING:
    from hybridvit.measure.profile.result import Cost, Profile

BAR = 20  # characters of the largest share
MOST_OPERATORS = 12  # rows of the second table


def profile(
    model: str,
    *,
    mode: Literal["inference", "training"] = "inference",
    depth: Literal["stage", "block", "operator"] = "block",
    batch: int = 1,
    image_size: Size | None = None,
    threads: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    rounds: int | None = None,
    columns: list[str] | None = None,
    page: Path | None = None,
    trace: Path | None = None,
    stacks: Path | None = None,
    json: Path | None = None,
) -> None:
    """Tell where the time and the memory of a model go, by stage, by block and by operator.

    In inference the folded model: each part is timed on what the parts before it give, in the same rounds as the whole
    model. In training whole steps of the model as it is trained, forward and backward, and what they keep in memory.
    Each part stands beside what this machine could reach at most: how fast it multiplies, how fast it moves bytes.

    Examples:
      hybridvit profile fastvit_sa12
      hybridvit profile fastervit_0 --mode training --batch 8 --page profile.html
      hybridvit profile runs/digits/model.safetensors --depth operator --trace trace.json.gz --stacks stacks.txt

    Args:
        model: a name from `hybridvit list`, or a checkpoint.
        mode: inference of the folded model, or a training step (fp32, channels last, AdamW, cross-entropy).
        depth: rows by stage or by block; operator adds the operators of the blocks.
        batch: images per call; all numbers are for a batch.
        image_size: height x width in pixels; by default the model's own.
        threads: CPU threads; by default all cores that this process may use.
        device: cpu or cuda.
        rounds: calls of each part, by default 50, or training steps, by default 10; at least 8.
        columns: of the table, in this order; by default all that the mode has. Names are those in its head.
        page: file for the page to look at (.html): blocks to zoom into, roofs, bars.
        trace: file for the trace of one call or step (.json.gz), which Perfetto opens; with --depth operator.
        stacks: file for the folded stacks of the operators, which speedscope opens; with --depth operator.
        json: file for the JSON line.
    """
    _check(depth, page, trace, stacks, json, columns, mode)
    from hybridvit.machine.facts import machine_card
    from hybridvit.measure.profile.profile import ProfileOptions, profile_model

    options = ProfileOptions(
        mode=mode, depth=depth, batch=batch, image_size=image_size, threads=threads, device=device, rounds=rounds
    )
    with status_line() as show:
        found = profile_model(model, options, trace=trace, stacks=stacks, show=show)
    print("\n".join(lead(found)))
    shown = columns or _columns_of(mode)
    bars = [place for place, column in enumerate(("stage", "part", *shown)) if column == "bar"]
    print(aligned(_rows(found, shown), left=2, left_too=bars))
    print()
    print("\n".join(summary(found)))
    if found.operators:
        print()
        print(aligned(_operator_rows(found)))
    print()
    print(pairs(machine_card().lines()))
    for warning in found.conditions.warnings():
        print(f"  Note: {warning}")
    if page is not None:
        from hybridvit.charts.profile_page import write_page

        write_page(found, machine_card().lines(), page)
    line = json_lines.dumps({"profile": found.to_dict(), "machine": machine_card().to_dict()}, ensure_ascii=False)
    if json is not None:
        write_text(json, line + "\n")
    print(line)


def lead(found: "Profile") -> list[str]:
    """What was profiled, and how."""
    height, width = found.image_size
    form = "folded, fp32" if found.mode == "inference" else "a training step, fp32, channels last, AdamW"
    calls = f"{found.rounds} rounds" if found.mode == "inference" else f"{found.rounds} steps"
    place = found.device if found.device != "cpu" else plural(found.threads, "thread")
    return [f"{found.model}, {found.mode}, batch {found.batch}, {height}x{width} px, {form}; {place}, {calls}"]


def summary(found: "Profile") -> list[str]:
    """The sums against the measured whole, memory, and the roofs."""
    whole, roof = found.whole, found.roof
    others = "".join(f", {name} {value:.2f} ms" for name, value in found.others_ms.items())
    what = "model" if found.mode == "inference" else "step"
    lines = [
        f"Whole {what} {whole.median_ms:.2f} ms ({whole.low_ms:.2f} - {whole.high_ms:.2f}); its parts together "
        f"{100 * found.measured_share:.1f} %{others}.",
    ]
    if found.saved_between_bytes is not None:
        saved = sum(cost.saved_bytes or 0 for cost in found.costs)
        lines.append(
            f"Kept for the backward pass: {_mib(saved + found.saved_between_bytes)} MiB, of these "
            f"{_mib(found.saved_between_bytes)} MiB between the parts and for the loss."
        )
    lines.append(
        f"Roofs: {roof.fp32_flop_per_s / 1e9:.0f} GFLOP/s in fp32, {roof.bf16_flop_per_s / 1e9:.0f} in bf16, "
        f"{roof.bytes_per_s / 1e9:.1f} GB/s; fp32 is bound by memory below {roof.ridge:.1f} FLOP per byte."
    )
    return lines


Cell = Callable[["Profile", "Cost"], str]
COLUMNS: dict[str, Cell] = {
    "ms": lambda _, cost: f"{cost.forward.median_ms:.3f}",
    "interval": lambda _, cost: f"{cost.forward.low_ms:.3f} - {cost.forward.high_ms:.3f}",
    "backward": lambda _, cost: "" if cost.backward is None else f"{cost.backward.median_ms:.3f}",
    "share": lambda _, cost: f"{100 * cost.share:.1f} %",
    "bar": lambda found, cost: _bar(found, cost),
    "M-madds": lambda _, cost: f"{cost.multiply_adds / 1e6:.1f}",
    "k-params": lambda _, cost: f"{cost.parameters / 1e3:.1f}",
    "MiB-moved": lambda _, cost: _mib(cost.moved_bytes),
    "FLOP/byte": lambda _, cost: f"{cost.intensity:.1f}",
    "GFLOP/s": lambda _, cost: f"{cost.flop_per_s / 1e9:.1f}",
    "roof": lambda found, cost: found.roof.binds(cost.intensity),
    "of-roof": lambda found, cost: _of_roof(found, cost),
    "MiB-saved": lambda _, cost: _mib(cost.saved_bytes),
    "MiB-weights": lambda _, cost: _mib(cost.weight_bytes),
    "MiB-gradients": lambda _, cost: _mib(cost.gradient_bytes),
    "MiB-optimizer": lambda _, cost: _mib(cost.optimizer_bytes),
}
ONLY_TRAINING = ("backward", "MiB-saved", "MiB-gradients", "MiB-optimizer")


def _columns_of(mode: str) -> list[str]:
    return [name for name in COLUMNS if mode == "training" or name not in ONLY_TRAINING]


def _rows(found: "Profile", columns: list[str]) -> list[tuple[str, ...]]:
    rows = [("stage", "part", *columns)]
    rows += [(cost.stage, cost.name, *(COLUMNS[name](found, cost) for name in columns)) for cost in found.costs]
    between = {"ms": f"{found.between_ms:.3f}", "share": f"{100 * found.between_ms / found.whole.median_ms:.1f} %"}
    if found.saved_between_bytes is not None:
        between["MiB-saved"] = _mib(found.saved_between_bytes)
    others = {name: {"ms": f"{ms:.3f}", "share": _share(found, ms)} for name, ms in found.others_ms.items()}
    for name, cells in ({"between": between} | others).items():
        rows.append((name, "", *(cells.get(column, "") for column in columns)))
    return rows


def _operator_rows(found: "Profile") -> list[tuple[str, ...]]:
    """The operators that take longest over all parts."""
    times: dict[str, tuple[float, int]] = {}
    for each in found.operators:
        name = f"backward {each.name}" if each.is_backward else each.name
        ms, calls = times.get(name, (0.0, 0))
        times[name] = ms + each.self_ms, calls + each.calls
    total = sum(ms for ms, _ in times.values())
    most = sorted(times.items(), key=lambda item: -item[1][0])
    rows: list[tuple[str, ...]] = [("operator", "self ms, profiled", "share", "calls")]
    rows += [
        (name, f"{ms:.3f}", f"{100 * ms / total:.1f} %", str(calls)) for name, (ms, calls) in most[:MOST_OPERATORS]
    ]
    rest = most[MOST_OPERATORS:]
    if rest:
        ms, calls = sum(ms for _, (ms, _) in rest), sum(calls for _, (_, calls) in rest)
        rows.append((f"{len(rest)} others", f"{ms:.3f}", f"{100 * ms / total:.1f} %", str(calls)))
    return rows


def _check(
    depth: str, page: Path | None, trace: Path | None, stacks: Path | None, json: Path | None,
    columns: list[str] | None, mode: str,
) -> None:  # fmt: skip
    for name, path in (("trace", trace), ("stacks", stacks)):
        if path is not None and depth != "operator":
            raise UsageError(f"--{name} holds operators, and --depth is {depth}. Add --depth operator.")
    for name, path, suffix in (("page", page, ".html"), ("trace", trace, ".json.gz")):
        if path is not None and not path.name.endswith(suffix):
            raise UsageError(f"--{name} is '{path}', but what is written is {suffix}. Use {path}{suffix}.")
    known = _columns_of(mode)
    for column in columns or ():
        if column not in known:
            raise UsageError(f"There is no column '{column}' in {mode}. Use some of: {' '.join(known)}.")
    check_outputs(json, page, trace, stacks)


def _share(found: "Profile", ms: float) -> str:
    return f"{100 * ms / found.whole.median_ms:.1f} %"


def _bar(found: "Profile", cost: "Cost") -> str:
    largest = max(each.total_ms for each in found.costs)
    return "█" * max(1, round(BAR * cost.total_ms / largest))


def _of_roof(found: "Profile", cost: "Cost") -> str:
    attainable = found.roof.attainable(cost.intensity)
    return f"{100 * cost.flop_per_s / attainable:.0f} %" if attainable else ""


def _mib(num_bytes: int | None) -> str:
    return "" if num_bytes is None else f"{num_bytes / 2**20:.2f}"
