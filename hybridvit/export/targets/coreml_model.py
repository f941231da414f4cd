"""A deployed model with the ends that Core ML wants, and the proof of what was written without Core ML at hand."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridvit.errors import ExportError
from hybridvit.export.graph import DeployedModel
from hybridvit.export.parity import normalised, pictures
from hybridvit.export.spec import INPUT
from hybridvit.export.targets.coreml_program import constants
from hybridvit.export.watched import watched

HALF_ROUNDING, HALF_TINY = 2**-11, 2**-24  # of a weight in fp16: relative, and one step below its normal numbers
INT8_LEVELS = 127
PICTURES = 4


class PlanarModel(DeployedModel):
    """`deployed` for channels-first pixels, as Core ML hands an image on; with `labelled` also the probabilities.

    They come first, as the output that Core ML turns into class labels.
    """

    def __init__(self, deployed: DeployedModel, *, labelled: bool) -> None:
        torch.nn.Module.__init__(self)
        self.spec = replace(deployed.spec, pixels="float32")
        self.backbone, self.labelled = deployed.backbone, labelled
        self.eval()

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs of `deployed`, behind the probabilities if they are wanted."""
        made = super().outputs(images)
        return (made[0].softmax(1), *made) if self.labelled else made


def class_names(model: DeployedModel) -> list[str]:
    """The labels of a classifier of single images, each of them once; empty if it is none or they are unknown.

    Also for int8: coremltools 9.0 cannot compress the weights of a program with labels.
    """
    spec, names = model.spec, model.backbone.card.class_names
    if spec.outputs != ("logits",) or spec.top_k is not None or spec.batch != 1 or spec.precision == "int8":
        return []
    if len(names) != model.backbone.num_classes:
        return []
    count = Counter(names)
    return [name if count[name] == 1 else f"{name} ({index})" for index, name in enumerate(names)]


def write_answers(model: DeployedModel, limit: float, path: Path) -> None:
    """What `verify_on_mac.py` compares with: pictures as levels from 0 to 255, and PyTorch's answers in fp32."""
    spec, card = model.spec, model.backbone.card
    assert spec.batch is not None
    num = -(-PICTURES // spec.batch) * spec.batch
    levels = pictures(num, spec.channels, spec.image_size, np.random.default_rng(1)).astype(np.uint8)
    facts = {
        "architecture": card.architecture,
        "precision": spec.precision,
        "pixels": spec.pixels,
        "batch": spec.batch,
        "mean": card.preprocessing.mean,
        "std": card.preprocessing.std,
        "input": INPUT,
        "outputs": spec.outputs,
        "limit": limit,
    }
    with torch.no_grad():
        made = PlanarModel(model, labelled=False).outputs(_planar_input(model, levels))
    answers = dict(zip(spec.outputs, made, strict=True))
    arrays: dict[str, Any] = {f"output_{name}": output.numpy() for name, output in answers.items()}
    arrays |= {"facts": np.asarray(json.dumps(facts)), "levels": levels.transpose(0, 2, 3, 1)}  # n h w c
    np.savez_compressed(path, **arrays)


def compare_ends(description: Any, model: DeployedModel) -> None:
    """The names and shapes of a package's input and outputs. Raises ExportError."""
    spec = model.spec
    (given,) = description.input
    if given.type.HasField("imageType"):
        image = given.type.imageType
        sizes = {(image.height, image.width)} | {(each.height, each.width) for each in image.enumeratedSizes.sizes}
        is_free = image.HasField("imageSizeRange")
    else:
        array = given.type.multiArrayType
        shapes = {tuple(array.shape)} | {tuple(each.shape) for each in array.enumeratedShapes.shapes}
        sizes, is_free = {shape[2:] for shape in shapes}, array.HasField("shapeRange")
        if {shape[:2] for shape in shapes} != {(spec.batch, spec.channels)}:
            raise _wrong(f"its input has the shapes {sorted(shapes)}")
    outputs = {output.name for output in description.output}
    if given.name != INPUT or is_free or sizes != set(spec.sizes) or not outputs.issuperset(spec.outputs):
        raise _wrong(f"it takes '{given.name}' of {sorted(sizes)} and gives {sorted(outputs)}")


def compare_weights(model: DeployedModel, program: Any) -> tuple[int, float]:
    """Each weight of convolutions and linear layers against its namesake in the program, as closely as it is stored.

    Returns how many and the largest difference relative to the largest weight of a tensor. Raises ExportError.
    """
    precision, found = model.spec.precision, constants(program)
    num, worst = 0, 0.0
    used = _used(model)
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[0] not in used:
            continue
        expected = parameter.detach().numpy()
        rounding = _rounding(expected, precision)
        named = [found[key] for key in _names_of(name) if key in found]
        # coremltools keeps one of several equal tensors, under the name of the first
        for stored in named or [value for value in found.values() if value.size == expected.size]:
            difference = np.abs(stored.astype(np.float64).reshape(expected.shape) - expected)
            if (difference <= rounding).all():
                break
        else:
            if named:
                raise _wrong(f"'{name}' differs by up to {difference.max():.1e}")
            if used[name.rpartition(".")[0]]:
                raise _wrong(f"'{name}' is not in it")
            continue
        num += 1
        worst = max(worst, float(difference.max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny)))
    return num, worst


def _planar_input(model: DeployedModel, levels: np.ndarray) -> Tensor:
    """Levels from 0 to 255 (n, c, h, w) as the converted program takes them."""
    if model.spec.pixels == "uint8":
        return torch.from_numpy(levels).float()
    return torch.from_numpy(normalised(levels, model.backbone.card.preprocessing))


def _used(model: DeployedModel) -> dict[str, bool]:
    """The modules by name that take part in an answer, and whether they are layers; other weights are folded away."""
    used: dict[str, bool] = {}

    def see(name: str, module: torch.nn.Module, inputs: object, output: object) -> None:
        used[name] = isinstance(module, torch.nn.Conv2d | torch.nn.Linear)

    with torch.no_grad(), watched(model, see, torch.nn.Module):
        model(model.example(batch=1))
    return used


def _names_of(parameter: str) -> list[str]:
    """What coremltools may call a parameter."""
    name = f"p_{parameter.replace('.', '_')}"
    return [f"{name}{suffix}" for suffix in ("", "_to_fp16", "_quantized", "_to_fp16_quantized")]


def _rounding(weights: np.ndarray, precision: str) -> np.ndarray:
    """How far each weight may be from what is stored of it."""
    wide = np.abs(weights.astype(np.float64))
    if precision == "fp32":
        return np.zeros_like(wide)
    half = wide * HALF_ROUNDING + HALF_TINY
    if precision == "fp16" or weights.ndim < 2:
        return half
    largest = wide.reshape(len(wide), -1).max(1).reshape(-1, *[1] * (wide.ndim - 1))
    scale_rounding = 4 * largest * HALF_ROUNDING + INT8_LEVELS * HALF_TINY  # the scale is an fp16 number, perhaps tiny
    return np.maximum(half, largest * 0.5 / INT8_LEVELS + scale_rounding)


def _wrong(what: str) -> ExportError:
    return ExportError(
        f"The Core ML package that was written is not the model: {what}. It was not kept. Another version of "
        "coremltools may convert it rightly."
    )
