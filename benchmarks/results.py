"""docs/results.md and its charts, from the files under docs/measurements/; nothing is measured here.

    python benchmarks/cpu.py          # measures what is read here, on a CPU
    python benchmarks/gpu.py --output docs/measurements/gpu-models.json
    python benchmarks/results.py

What a file is missing for is said to be not measured.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cpu import REFERENCE

from hybridvit.charts.tradeoff import draw, draw_resolution, draw_stages, pareto_front
from hybridvit.charts.tradeoff_rows import RUNTIME_NAMES
from hybridvit.measure.mixers import reductions
from hybridvit.models.registry import VARIANTS

_PERCENT = re.compile(r"(\d+)%")
FOLDER, PAGE = Path("docs/measurements"), Path("docs/results.md")
DISTILLED = ", distilled"
OURS = ("fastvit", "fastervit", "swin_hat")
HEADER = """\
# What was measured, and what it says

Written by `python benchmarks/results.py` from the files in docs/measurements/, which `python benchmarks/cpu.py` writes;
do not edit. Latencies are of this library's benchmark: models take turns in rounds, folded, each in processes of its
own; PyTorch's threads wait as they do by default. Accuracies are the published ones, with their sources in the JSON.
Weights are random, which changes no time. Where 95 % intervals overlap, neither is faster.
"""


def page() -> str:
    """The Markdown; charts are drawn beside the JSON files."""
    parts = [HEADER]
    for title, name, lines in SECTIONS:
        result = _read(name)
        parts += [f"## {title}\n", *(["Not measured.\n"] if result is None else lines(result))]
    return "\n".join(parts)


def _read(name: str) -> dict[str, Any] | None:
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _models(result: Mapping[str, Any]) -> Iterator[str]:
    yield _machine(result)
    yield from _batches(result)
    result = {**result, "bench": list(_with_distilled(result["bench"]))}
    draw(result, FOLDER / "cpu-models.png")
    yield "![Top-1 against latency](measurements/cpu-models.png)\n"
    yield "FastViT stands here twice, with its plain and its distilled weights: one network, one time.\n"
    for (runtime,), records in _grouped(result["bench"], "runtime").items():
        known = [record for record in records if record["top1"] is not None]
        yield f"### {RUNTIME_NAMES[runtime]}, fp32, batch 1\n"
        yield "Ours among models trained on ImageNet-1k alone:\n"
        yield from (f"- {line}" for line in standing([each for each in known if each["top1_of"] == "plain"]))
        yield "\nOurs, with distilled weights where there are some, among all:\n"
        twins = {each["model"].removesuffix(DISTILLED) for each in known if each["model"].endswith(DISTILLED)}
        yield from (f"- {line}" for line in standing([each for each in known if each["model"] not in twins]))
        yield ""
        front = {point[2]["model"] for point in _front(known)}
        yield "| | weights | px | top-1 % | trained | median ms | 95 % interval | p99 | MiB | parameters M | madds G |"
        yield "|" + "---|" * 11
        for record in sorted(records, key=lambda record: record["median_ms"]):
            yield _row(record, is_on_front=record["model"] in front)
        yield "\nBold: on the Pareto front, no other of these is as fast and more accurate.\n"
    yield from _left_out(result)


def _batches(result: Mapping[str, Any]) -> Iterator[str]:
    """How the batches of models were joined to one table."""
    batches = result["batches"]
    yield (
        f"They do not fit into memory at once: they were measured in {len(batches)} batches with {REFERENCE} in each. "
        f"Times of a batch are multiplied by what makes {REFERENCE}'s median in that runtime the median of its medians "
        "over all batches; intervals are those inside a batch.\n"
    )
    runtimes = list(batches[0]["factors"])
    yield "| batch | models | " + " | ".join(f"factor, {RUNTIME_NAMES[runtime]}" for runtime in runtimes) + " |"
    yield "|---" * (len(runtimes) + 2) + "|"
    for number, batch in enumerate(batches, 1):
        factors = " | ".join(f"{batch['factors'][runtime]:.3f}" for runtime in runtimes)
        yield f"| {number} | {len(batch['models'])} | {factors} |"
    yield ""


def _left_out(result: Mapping[str, Any]) -> Iterator[str]:
    if result["skipped"]:
        yield "Left out:\n"
        yield from (
            f"- {each['model']}, {RUNTIME_NAMES[each['runtime']]}, {each['precision']}: {each['reason']}"
            for each in result["skipped"]
        )
        yield ""


def _successors(result: Mapping[str, Any]) -> Iterator[str]:
    yield _machine(result)
    yield from _batches(result)
    yield "Ours against timm's tower with the same weights, folded, fp32, batch 1, 256 px; above 1 ours is faster.\n"
    by_model = {model: records for (model,), records in _grouped(result["bench"], "model").items()}
    ways = list({(each["runtime"], each["precision"]): None for each in result["bench"]})
    yield "| tower | parameters M | madds G | " + " | ".join(RUNTIME_NAMES[runtime] for runtime, _ in ways) + " |"
    yield "|---" * (len(ways) + 3) + "|"
    for model, records in by_model.items():
        theirs = next((each for name, each in by_model.items() if name.startswith(f"{model}.")), None)
        if theirs is not None:
            cells = (_against(_of(records, way), _of(theirs, way)) for way in ways)
            size = f"{records[0]['parameters'] / 1e6:.1f} | {records[0]['multiply_adds'] / 1e9:.2f}"
            yield f"| {model} | {size} | " + " | ".join(cells) + " |"
    yield ""
    yield from _left_out(result)


def _against(ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> str:
    if ours is None or theirs is None:
        return ""
    return f"{ours['median_ms']:.1f} ms, {theirs['median_ms'] / ours['median_ms']:.2f}x"


def _tasks(result: Mapping[str, Any]) -> Iterator[str]:
    yield _machine(result)
    yield (
        "The network alone, folded, fp32, batch 1: median in milliseconds, and its 95 % interval. The detectors' "
        "weights are drawn so that they find as many objects as they can.\n"
    )
    ways = list({(each["runtime"], each["precision"]): None for each in result["bench"]})
    yield "| model | px | parameters M | madds G | " + " | ".join(RUNTIME_NAMES[runtime] for runtime, _ in ways) + " |"
    yield "|---" * (len(ways) + 4) + "|"
    for (model,), records in _grouped(result["bench"], "model").items():
        first = records[0]
        sizes = [first["image_size"].partition("x")[0], _number(first, "parameters", 1e6)]
        sizes.append(_number(first, "multiply_adds", 1e9, 2))
        yield f"| {model} | " + " | ".join([*sizes, *(_time(_of(records, way)) for way in ways)]) + " |"
    yield ""
    yield from _left_out(result)


def _time(record: Mapping[str, Any] | None) -> str:
    return "" if record is None else f"{record['median_ms']:.1f} ({record['low_ms']:.1f} - {record['high_ms']:.1f})"


def _number(record: Mapping[str, Any], name: str, unit: float = 1.0, digits: int = 1) -> str:
    return "-" if record[name] is None else f"{record[name] / unit:.{digits}f}"


def _with_distilled(records: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The records, and for those of ours with distilled weights published a second one with their accuracy."""
    for record in records:
        yield record
        if record["family"] in OURS:
            for tag, weights in VARIANTS[record["model"]].published.weights:
                if "dist" in tag:
                    name = record["model"] + DISTILLED
                    yield {
                        **record,
                        "model": name,
                        "top1": weights.top1,
                        "top1_of": "distilled",
                        "top1_source": weights.source,
                    }


def standing(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """For each of ours: on the front of `records`, or how many of them are better, and the best of these."""
    front = {point[2]["model"] for point in _front(records)}
    for ours in sorted((each for each in records if each["family"] in OURS), key=lambda each: each["median_ms"]):
        what = f"{ours['model']} ({ours['median_ms']:.1f} ms, {ours['top1']:.1f} %)"
        better = [
            each
            for each in records
            if each["median_ms"] <= ours["median_ms"]
            and each["top1"] >= ours["top1"]
            and (each["median_ms"], each["top1"]) != (ours["median_ms"], ours["top1"])
        ]
        if ours["model"] in front:
            yield f"{what} is on the front."
        else:
            best = max(better, key=lambda each: (each["top1"], -each["median_ms"]), default=None)
            assert best is not None
            others = "1 other is" if len(better) == 1 else f"{len(better)} others are"
            yield (
                f"{what} is not on the front: {others} as fast and as accurate or more, "
                f"the best {best['model']} ({best['median_ms']:.1f} ms, {best['top1']:.1f} %, {best['top1_of']})."
            )


def _front(records: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, Mapping[str, Any]]]:
    return pareto_front((record["median_ms"], record["top1"], record) for record in records)


def _row(record: Mapping[str, Any], *, is_on_front: bool) -> str:
    mark = "**" if is_on_front else ""
    cells = (
        "ours" if record["family"] in OURS else "",
        f"{mark}{record['model']}{mark}",
        record["image_size"].partition("x")[0],
        _number(record, "top1"),
        record["top1_of"] or "-",
        f"{record['median_ms']:.2f}",
        f"{record['low_ms']:.2f} - {record['high_ms']:.2f}",
        f"{record['p99_ms']:.2f}",
        _number(record, "memory_mib", digits=0),
        _number(record, "parameters", 1e6),
        _number(record, "multiply_adds", 1e9, 2),
    )
    return "| " + " | ".join(cells) + " |"


def _precisions(result: Mapping[str, Any]) -> Iterator[str]:
    yield _machine(result)
    yield (
        "Times as fast as the ordinary way: timm's model where it has it, else ours, in PyTorch, eager, folded, fp32, "
        "batch 1, in the same run. What lower precision costs in accuracy: see the lab log and `hybridvit choose`.\n"
    )
    ways = sorted({(each["runtime"], each["precision"]) for each in result["bench"]}, key=_way_order)
    yield "| model | " + " | ".join(f"{RUNTIME_NAMES[runtime]}, {precision}" for runtime, precision in ways) + " |"
    yield "|---" * (len(ways) + 1) + "|"
    by_model = {model: records for (model,), records in _grouped(result["bench"], "model").items()}
    for model, records in by_model.items():
        theirs = next((name for name in by_model if name.startswith(f"{model}.")), model)
        slow = _of(by_model[theirs], ("torch", "fp32"))
        if slow is None or records[0]["family"] not in OURS or "." in model:
            continue
        cells = []
        for way in ways:
            record = _of(records, way)
            ratio = "" if record is None else slow["median_ms"] / record["median_ms"]
            cells.append("" if record is None else f"{record['median_ms']:.2f} ms, {ratio:.2f}x")
        yield f"| {model} (ordinary: {slow['median_ms']:.1f} ms) | " + " | ".join(cells) + " |"
    yield ""


def _of(records: Sequence[Mapping[str, Any]], way: tuple[str, str]) -> Mapping[str, Any] | None:
    return next((each for each in records if (each["runtime"], each["precision"]) == way), None)


def _way_order(way: tuple[str, str]) -> tuple[int, str]:
    return list(RUNTIME_NAMES).index(way[0]), {"fp32": "0", "bf16": "1"}.get(way[1], "2")


def _mixers(result: Mapping[str, Any]) -> Iterator[str]:
    yield _machine(result)
    draw_resolution(result["bench"], FOLDER / "cpu-mixers.png", "Pooling against RepMixer in MetaFormer-S12, batch 1")
    yield "![Latency against image size](measurements/cpu-mixers.png)\n"
    yield "| runtime | px | pooling ms | RepMixer ms | less time | interval | paper, iPhone 12 Pro |"
    yield "|" + "---|" * 7
    for each in reductions(result["bench"]):
        paper = "" if each["paper_percent"] is None else f"{each['paper_percent']} %"
        runtime = RUNTIME_NAMES[each["runtime"]]
        yield (
            f"| {runtime} | {each['side_px']} | {each['pooling_ms']:.2f} | {each['repmixer_ms']:.2f} "
            f"| {each['less_percent']:.1f} % | {each['least_percent']:.1f} to {each['most_percent']:.1f} % | {paper} |"
        )
    yield ""


def _stages(result: Mapping[str, Any]) -> Iterator[str]:
    title = f"{result['model']}, batch {result['batch']}, PyTorch, fp32: what each stage costs"
    draw_stages(result["stages"], FOLDER / "cpu-stages.png", title)
    yield f"![{title}](measurements/cpu-stages.png)\n"
    yield f"Commit {result['commit']}.\n"
    yield "| stage | median ms | multiply-adds G | parameters M | activations MiB |"
    yield "|---|---|---|---|---|"
    for each in result["stages"]:
        yield (
            f"| {each['stage']} | {each['median_ms']:.2f} | {each['multiply_adds'] / 1e9:.3f} "
            f"| {each['parameters'] / 1e6:.2f} | {each['activation_bytes'] / 2**20:.1f} |"
        )
    yield ""


def _gpu(result: Mapping[str, Any]) -> Iterator[str]:
    yield _machine(result)
    for (precision, batch), records in _grouped(result["bench"], "precision", "batch").items():
        yield f"### {precision}, batch {batch}\n"
        yield "| model | runtime | median ms | images/s | MiB | top-1 % |"
        yield "|---|---|---|---|---|---|"
        for each in sorted(records, key=lambda record: record["median_ms"]):
            top1 = "-" if each["top1"] is None else f"{each['top1']:.1f}"
            memory = "-" if each["memory_mib"] is None else f"{each['memory_mib']:.0f}"
            yield (
                f"| {each['model']} | {RUNTIME_NAMES[each['runtime']]} | {each['median_ms']:.2f} "
                f"| {each['images_per_s']:,.0f} | {memory} | {top1} |"
            )
        yield ""


def _machine(result: Mapping[str, Any]) -> str:
    machine, settings = result["machine"], result["settings"]
    versions = ", ".join(
        f"{name} {machine['versions'][name]}"
        for name in ("torch", "timm", "onnxruntime", "openvino", "executorch")
        if name in machine["versions"]
    )
    rounds = result["bench"][0]["rounds"]
    processes = sorted({each["processes"] for each in result["bench"]})
    each_in = " to ".join(str(number) for number in dict.fromkeys((processes[0], processes[-1])))
    said = "".join(f" {warning}" for warning in _each_once(result["conditions"].get("warnings", ())))
    gpu = "" if machine["gpu"] == "none" else f"; {machine['gpu']}"
    return (
        f"{machine['processor']}, {machine['cores']} cores ({' '.join(machine['instruction_sets'])}){gpu}; {versions}; "
        f"{settings['threads']} threads, {rounds} rounds of {settings['calls_per_turn']} calls, each candidate in "
        f"{each_in} process{'es' * (processes != [1])}; commit "
        f"{result['commit']}.{said}\n"
    )


def _each_once(warnings: Sequence[str]) -> Iterator[str]:
    """What several batches say alike as one sentence, with the range of its percentages."""
    shares: dict[str, list[int]] = {}
    for warning in warnings:
        shares.setdefault(_PERCENT.sub("{}", warning), []).extend(map(int, _PERCENT.findall(warning)))
    for sentence, found in shares.items():
        low, high = min(found, default=0), max(found, default=0)
        yield sentence.format(f"{low}%" if low == high else f"{low} to {high}%")


def _grouped(records: Sequence[Mapping[str, Any]], *names: str) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(tuple(record[name] for name in names), []).append(record)
    return groups


SECTIONS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], Iterator[str]]], ...] = (
    ("CPU: accuracy against latency", "cpu-models", _models),
    ("CPU: the image towers of MobileCLIP", "cpu-successors", _successors),
    ("CPU: segmenters, detectors, hands", "cpu-tasks", _tasks),
    ("CPU: lower precision, and every runtime", "cpu-precisions", _precisions),
    ("FastViT's Figure 3: pooling against RepMixer", "cpu-mixers", _mixers),
    ("FasterViT's Figure S.4: what each stage costs", "cpu-stages", _stages),
    ("GPU (`make bench-gpu`)", "gpu-models", _gpu),
)
"""The title of each, the file that it is of, and what makes its lines."""

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PAGE.write_text(page(), encoding="utf-8")
