"""What the page is told of one exported file: its row in results, its input, and what ONNX Runtime answers here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridvit.bench_page.fixed_input import fixed_input
from hybridvit.bench_page.operators import operators_of
from hybridvit.digest import sha256_of
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.export.seal import Trust
from hybridvit.export.spec import GraphSpec, Precision
from hybridvit.export.targets import load_runner
from hybridvit.models.registry import VARIANTS

if TYPE_CHECKING:
    from hybridvit.card import ModelCard
    from hybridvit.export.runners import ExportedRunner

SEED = 1
MOST_COMPARED = 4096  # numbers of an output, evenly over it: all logits, and some of the pixels of a map
LIMITS: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 5e-2, "int8": 5e-2}
"""By how much a browser may differ from ONNX Runtime here, of the largest output."""
NOT_ON_WEBGPU = frozenset(
    ("TopK", "NonMaxSuppression", "QuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
     "DynamicQuantizeLinear", "RoiAlign", "NonZero")
)  # fmt: skip
"""Operators that ONNX Runtime Web 1.30 has no WebGPU kernel for, of those that exports write."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A file that the page is to measure, by a name of its own."""

    name: str
    path: Path
    known: Mapping[str, Any] | None = None  # fields of its record that the file does not tell: counts, top1 ...


def entry_of(asked: Asked, *, trust_changed: bool = False) -> dict[str, Any]:
    """The row of the manifest for one file, without the place it will be copied to.

    Raises UsageError for a file that cannot be measured in a browser, CheckpointError for one that cannot be read or
    answers something that is no number.
    """
    path = asked.path
    runner = load_runner(path, trust=Trust(changed=trust_changed, foreign=True))
    spec, lacking = runner.spec, sorted(NOT_ON_WEBGPU & operators_of(path.read_bytes()))
    check_spec(spec, path)
    images = fixed_input(spec.shape(1, spec.image_size), pixels=spec.pixels, seed=SEED)
    return {
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "record": _record(asked, runner),
        "input": {"shape": list(images.shape), "dtype": spec.pixels, "seed": SEED},
        "reference": [_sample(name, output, path) for name, output in _answered(runner, images).items()],
        "limit": LIMITS[spec.precision],
        "not_on_webgpu": f"WebGPU has no {' and no '.join(lacking)}" if lacking else "",
    }


def check_spec(spec: GraphSpec, path: Path) -> None:
    """Raise UsageError for a graph that does not take one image, or gives a choice of classes instead of logits."""
    if spec.batch not in (None, 1):
        raise UsageError(
            f"{path} takes {spec.batch} images at a time, but the page measures one. Export it again with --batch 1."
        )
    if spec.top_k is not None:
        raise UsageError(
            f"{path} gives the {spec.top_k} most probable classes, but browsers have no TopK on WebGPU, and answers "
            "are compared by logits. Export it again without --top_k."
        )


def _answered(runner: "ExportedRunner", images: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(runner.spec.outputs, runner.run(images), strict=True))


def _sample(name: str, output: np.ndarray, path: Path) -> dict[str, Any]:
    """An output in a few numbers: each `step`-th of all, as float32 writes them."""
    step = math.ceil(output.size / MOST_COMPARED)
    values = output.ravel()[:: max(step, 1)].astype(np.float32)
    if not np.isfinite(values).all():
        raise CheckpointError(f"{path} answers numbers that are not finite in '{name}'. Export it again.")
    return {"name": name, "size": output.size, "step": max(step, 1), "values": [float(str(each)) for each in values]}


def _record(asked: Asked, runner: "ExportedRunner") -> dict[str, Any]:
    """The columns of a benchmark that need no clock."""
    card, spec = runner.card, runner.spec
    variant = VARIANTS.get(card.architecture)
    height, width = spec.image_size
    return {
        "model": asked.name,
        "family": variant.family if variant else "",
        "form": "folded",
        "precision": spec.precision,
        "batch": 1,
        "image_size": f"{height}x{width}",
        **({"returns": "pyramid"} if spec.returns == "pyramid" else {}),
        "parameters": None,
        "multiply_adds": None,
        "activations": None,
        **_published(card, spec),
        **(asked.known or {}),
    }


def _published(card: "ModelCard", spec: GraphSpec) -> dict[str, Any]:
    """The accuracy that the authors state of the weights inside, where these are published ones and still the same."""
    variant = VARIANTS.get(card.architecture)
    is_same = spec.precision != "int8" and spec.image_size == card.preprocessing.image_size and spec.gives_answers
    for tag, weights in variant.published.weights if variant and is_same else ():
        if card.source in (weights.hub_id, f"{weights.hub_id}/{weights.file}"):
            training = "distilled" if "dist" in tag else "more data" if "21k" in tag else "plain"
            return {"top1": weights.top1, "top1_of": training, "top1_source": weights.source}
    return {"top1": None, "top1_of": "", "top1_source": ""}
