"""Run the Core ML package beside this script on every compute unit of a Mac, and compare it with PyTorch.

    pip install coremltools pillow
    python MODEL.verify_on_mac.py

It needs nothing else: pictures and the answers of PyTorch to them are in MODEL.verify_on_mac.npz. The exit code is 0 if
all agree, 1 if not. hybridvit writes this script because a package cannot run on the Linux machine that made it.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SUFFIX = ".verify_on_mac.py"
COMPUTE_UNITS = ("CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL")
WARMUP, REPEATS = 10, 50


def main(script: Path) -> int:
    """Print one line per compute unit; returns the exit code."""
    import coremltools as ct

    package = script.with_name(script.name.removesuffix(SUFFIX) + ".mlpackage")
    answers = np.load(script.with_suffix(".npz"))
    facts = json.loads(str(answers["facts"]))
    inputs = as_inputs(answers["levels"], facts)
    print(f"{package.name}: {facts['architecture']}, {facts['precision']}, {len(answers['levels'])} images")
    print(f"{'compute units':<14}{'error':>10}{'limit':>10}{'same top-1':>12}{'median ms':>11}{'p90 ms':>9}")
    failed = False
    for units in COMPUTE_UNITS:
        model = ct.models.MLModel(str(package), compute_units=getattr(ct.ComputeUnit, units))
        given = [model.predict({facts["input"]: each}) for each in inputs]
        error, same = compare(given, answers, facts)
        passed = error <= facts["limit"] and same == 1  # an error that is no number does not pass
        failed |= not passed
        median_ms, p90_ms = latency(model, {facts["input"]: inputs[0]})
        print(
            f"{units:<14}{error:>10.1e}{facts['limit']:>10.0e}{same:>12.0%}{median_ms:>11.2f}{p90_ms:>9.2f}"
            f"{'' if passed else '   FAILED'}"
        )
    print("FAILED: an answer differs from PyTorch's by more than the limit." if failed else "All agree with PyTorch.")
    return 1 if failed else 0


def as_inputs(levels: np.ndarray, facts: dict[str, Any]) -> list[Any]:
    """What the package takes, from levels (n, height, width, channels) of 0 to 255."""
    if facts["pixels"] == "uint8":
        from PIL import Image

        return [Image.fromarray(each[..., 0] if each.shape[-1] == 1 else each) for each in levels]
    mean, std = (np.asarray(facts[name], np.float64) for name in ("mean", "std"))
    images = ((levels / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)  # n c h w
    return [images[start : start + facts["batch"]] for start in range(0, len(images), facts["batch"])]


def compare(given: list[dict[str, Any]], answers: Any, facts: dict[str, Any]) -> tuple[float, float]:
    """The largest difference relative to the largest value of an output, and the share of equal first answers."""
    worst, same = 0.0, 1.0
    for name in facts["outputs"]:
        expected = answers[f"output_{name}"]
        output = np.concatenate([np.asarray(each[name]).reshape(-1, *expected.shape[1:]) for each in given])
        if name == "indices":
            same = min(same, float((output[:, 0] == expected[:, 0]).mean()))
            continue
        largest = max(np.abs(expected).max(), np.finfo(np.float32).tiny)
        error = np.abs(output.astype(np.float64) - expected).max() / largest
        worst = max(worst, float(error)) if np.isfinite(error) else float("inf")
        if name == "logits":
            same = float((output.argmax(1) == expected.argmax(1)).mean())
    return worst, same


def latency(model: Any, inputs: dict[str, Any]) -> tuple[float, float]:
    """Median and 90th percentile of one call in milliseconds, from Python."""
    for _ in range(WARMUP):
        model.predict(inputs)
    times_ms = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        model.predict(inputs)
        times_ms.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times_ms), sorted(times_ms)[int(0.9 * REPEATS)]


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve()))
