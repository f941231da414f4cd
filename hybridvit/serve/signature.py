"""What a model takes and gives as tensors, by the names of its graph."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hybridvit.export.spec import INPUT
from hybridvit.serve.tensors import datatype_of
from hybridvit.serve.worker import Opened

ANY = -1  # a side of any length


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or an output; ANY stands for sides that vary."""

    name: str
    datatype: str  # as the Open Inference Protocol calls it
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The ends of a model. An input of UINT8 is (batch, height, width, channels), one of FP32 (b c h w)."""

    input: TensorSpec
    outputs: tuple[TensorSpec, ...]


def signature_of(opened: Opened, outputs: Mapping[str, np.ndarray]) -> Signature:
    """The ends of a file that has answered one image with `outputs`."""
    spec, preprocessing = opened.spec, opened.card.preprocessing
    batch = spec.batch if spec is not None and spec.batch is not None else ANY
    is_one_size = len(spec.sizes) == 1 and spec.range_px is None if spec is not None else False
    size = (spec.image_size if spec is not None else preprocessing.image_size) if is_one_size else (ANY, ANY)
    if spec is not None and spec.pixels == "uint8":
        taken = TensorSpec(name=INPUT, datatype="UINT8", shape=(batch, *size, spec.channels))
    else:
        channels = spec.channels if spec is not None else len(preprocessing.mean)
        taken = TensorSpec(name=INPUT, datatype="FP32", shape=(batch, channels, *size))
    return Signature(
        input=taken,
        outputs=tuple(
            TensorSpec(name=name, datatype=datatype_of(each.dtype), shape=(batch, *_rest(each.shape, is_one_size)))
            for name, each in outputs.items()
        ),
    )


def _rest(shape: tuple[int, ...], is_one_size: bool) -> tuple[int, ...]:
    """The sides behind the batch; those of maps vary with the image's size."""
    return shape[1:] if is_one_size else tuple(side if place == 0 else ANY for place, side in enumerate(shape[1:]))
