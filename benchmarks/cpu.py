"""The times of docs/results.md on a CPU: docs/measurements/cpu-*.json. `python benchmarks/results.py` makes the page.

    python benchmarks/cpu.py                                  # all parts, which takes hours
    python benchmarks/cpu.py --parts models                   # classifiers of ours and others, in fp32
    python benchmarks/cpu.py --parts successors tasks         # image towers; segmenters, detectors, hands
    python benchmarks/cpu.py --parts precisions mixers stages

All candidates of one part do not fit into memory at once, so `models` and `successors` are measured in batches. Each
batch has the reference model too, and its times are multiplied by what makes the reference's median in the same runtime
the median of its medians over all batches. The factors are in the file and on the page.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from comparison import commit
from torch import nn

import hybridvit
from hybridvit.checkpoints import save_checkpoint
from hybridvit.machine.facts import machine_card
from hybridvit.machine.threads import POLICY
from hybridvit.measure.bench import bench
from hybridvit.measure.mixers import measure_mixers, reductions
from hybridvit.measure.options import BenchOptions
from hybridvit.measure.stages import profile_stages
from hybridvit.measure.subject import Subject, find_subject
from hybridvit.models.with_head import WithHead

FOLDER = Path("docs/measurements")
REFERENCE = "fastvit_sa12"
RUNTIMES = ("torch", "onnxruntime", "openvino")
FP32 = BenchOptions(runtimes=RUNTIMES, precisions=("fp32",), rounds=30, calls=2, processes=2)
PER_BATCH = 6  # models beside the reference: 7 in three runtimes, in two processes each, take 20 GiB
TOWERS = ("fastvit_mci0", "fastvit_mci1", "fastvit_mci2", "fastvit_mci3", "fastvit_mci4")
TAGS = (".apple_mclip", ".apple_mclip2_dfndr2b")  # timm's
TIMES = ("median_ms", "low_ms", "high_ms", "p90_ms", "p99_ms")
TASKS = (  # what, side in pixels, options of create_model, runtimes that can
    ("Semantic FPN, 150 classes", 512, {"task": "segment", "num_classes": 150}, (*RUNTIMES, "executorch")),
    ("hand mesh", 224, {"task": "hand", "head_options": {"assets": "generated"}}, (*RUNTIMES, "executorch")),
    ("Mask R-CNN, 80 classes", 512, {"task": "detect", "head": "mask_rcnn", "num_classes": 80}, RUNTIMES),
    ("DINO, 80 classes", 512, {"task": "detect", "head": "dino", "num_classes": 80}, RUNTIMES),
)
CLASS_STD = {"mask_rcnn": 0.5, "dino": 0.05}
"""Of the weights of a detector's class layers: with fresh ones it finds nothing, and of nothing PyTorch computes no
masks, where a file always computes as many; and all proposals score alike, so that rounding chooses among them."""


def models() -> dict[str, Any]:
    """Classifiers of ours and others."""
    names = (Path(__file__).parent / "models.txt").read_text(encoding="utf-8").split()
    return in_batches([name for name in names if name != REFERENCE])


def successors() -> dict[str, Any]:
    """The image towers of MobileCLIP and its successors, and timm's of the same weights."""
    import timm

    there = set(timm.list_models("fastvit_mci*", pretrained=True))
    theirs = [name + next(tag for tag in TAGS if name + tag in there) for name in TOWERS]
    pairs = [name for pair in zip(TOWERS, theirs, strict=True) for name in pair]
    return in_batches(pairs, per_batch=4)  # the largest take 4 GiB to open


def in_batches(names: Sequence[str], *, per_batch: int = PER_BATCH) -> dict[str, Any]:
    """`names` and the reference in every runtime; neighbours in the list stay together."""
    parts = [names[start : start + per_batch] for start in range(0, len(names), per_batch)]
    return joined([bench([REFERENCE, *part], FP32, show=say).to_dict() for part in parts])


def joined(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One result of several, with all times as if the reference had taken the same in each; its row is kept once."""
    medians = [
        {each["runtime"]: each["median_ms"] for each in result["bench"] if each["model"] == REFERENCE}
        for result in results
    ]
    whole = {name: statistics.median(each[name] for each in medians) for name in medians[0]}
    factors = [{name: whole[name] / each[name] for name in each} for each in medians]
    rows = [
        scaled(row, factor[row["runtime"]])
        for number, (result, factor) in enumerate(zip(results, factors, strict=True))
        for row in result["bench"]
        if row["model"] != REFERENCE or number == 0
    ]
    batches = [
        {
            "models": list(dict.fromkeys(row["model"] for row in result["bench"])),
            "reference_ms": median,
            "factors": {name: round(value, 4) for name, value in factor.items()},
            "conditions": result["conditions"],
        }
        for result, median, factor in zip(results, medians, factors, strict=True)
    ]
    return one_after_another(results) | {"bench": rows, "batches": batches}


def one_after_another(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One result with the rows, and with what disturbed them, of several runs on one machine."""
    said = [text for result in results for text in result["conditions"].get("warnings", ())]
    return results[0] | {
        "bench": [row for result in results for row in result["bench"]],
        "skipped": [each for result in results for each in result["skipped"]],
        "conditions": {"warnings": list(dict.fromkeys(said))},
        "complete": all(result["complete"] for result in results),
    }


def scaled(row: dict[str, Any], factor: float) -> dict[str, Any]:
    """A row whose times are `factor` times as long."""
    changed: dict[str, Any] = {name: round(row[name] * factor, 4) for name in TIMES}
    changed["images_per_s"] = round(row["images_per_s"] / factor, 2)
    changed["turns_ms"] = [[round(turn * factor, 4) for turn in turns] for turns in row["turns_ms"]]
    return row | changed


def precisions() -> dict[str, Any]:
    """Every runtime and precision of four models, and timm's same models as they are called in PyTorch."""
    names = ("fastvit_t8", REFERENCE, "fastvit_ma36", "fastervit_0")
    theirs = [find_subject(f"{name}.apple_in1k") for name in names if name.startswith("fastvit")]
    options = BenchOptions(
        runtimes=("torch", "torch-compile", "onnxruntime", "openvino", "executorch"),
        precisions=("fp32", "bf16", "int8"),
        rounds=30,
        processes=1,  # to compile each twice takes longer than to measure
    )
    return bench([*names, *(replace(each, runtimes=("torch",)) for each in theirs)], options, show=say).to_dict()


def mixers() -> dict[str, Any]:
    """FastViT's Figure 3."""
    result = measure_mixers(options=BenchOptions(runtimes=RUNTIMES, rounds=12, processes=2), show=say).to_dict()
    return result | {"reductions": reductions(result["bench"])}


def stages() -> dict[str, Any]:
    """FasterViT's Figure S.4."""
    model = "fastervit_2"
    return {
        "model": model,
        "batch": 1,
        **profile_stages(model).to_dict(),
        "machine": machine_card(timed=True).to_dict(),
    }


def tasks() -> dict[str, Any]:
    """Segmenters, detectors and hands on two backbones, each task in the runtimes that can."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for what, side, more, runtimes in TASKS:
            subjects = [saved(Path(folder), name, what, side, more) for name in ("fastvit_t8", REFERENCE)]
            options = replace(FP32, runtimes=runtimes, seconds=150)
            results.append(bench(subjects, options, show=say).to_dict())
    return one_after_another(results)


def saved(folder: Path, name: str, what: str, side: int, options: Mapping[str, Any]) -> Subject:
    """A model of a task on a backbone, as a file."""
    torch.manual_seed(0)
    path = folder / f"{name}, {what}.safetensors"
    model = cast(WithHead, hybridvit.create_model(name, image_size=side, **options).eval())
    if std := CLASS_STD.get(str(options.get("head"))):
        for layer in model.head.class_layers:
            nn.init.normal_(cast(nn.Linear, model.head.get_submodule(layer)).weight, std=std)
    save_checkpoint(model, path)
    return replace(find_subject(str(path)), name=path.stem, image_size=(side, side))


def say(text: str) -> None:
    """What goes on, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    each.__name__: each for each in (models, successors, tasks, precisions, mixers, stages)
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parts = parser.parse_args().parts
    if POLICY in os.environ:
        parser.error(f"{POLICY} is set, and the tables are of threads that wait as by default. Unset it.")
    for part in parts:
        found = {"commit": commit()} | PARTS[part]()
        (FOLDER / f"cpu-{part}.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
