"""What an ONNX file without a card takes and gives, as its graph says: enough to time it, not to prepare pictures."""

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.errors import UsageError
from hybridvit.export.spec import GraphSpec, Precision

DTYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
"""What a graph can take images in, by ONNX Runtime's word."""

SIZE = (224, 224)  # of a graph that takes any, unless another is asked for
ANY_SIDE = (1, 2**15)
CHANNELS = (1, 3, 4)


def described(session: Any, content: bytes, path: Path) -> tuple[ModelCard, GraphSpec]:
    """A card that knows the size alone, and the spec, of the file with `content` that `session` has opened.

    Raises UsageError for a graph that does not take images alone: float (batch, channels, height, width) or uint8
    (batch, height, width, channels).
    """
    taken = session.get_inputs()
    shape: list[Any] = list(taken[0].shape) if len(taken) == 1 else []  # numbers, or names of axes that are open
    has_axes = len(shape) == 4 and taken[0].type in DTYPES
    is_bytes = has_axes and taken[0].type == "tensor(uint8)"
    channels = shape.pop(3 if is_bytes else 1) if has_axes else None
    if not has_axes or (isinstance(channels, int) and channels not in CHANNELS):
        listed = "; ".join(f"{each.name}: {each.type} {each.shape}" for each in taken)
        raise UsageError(
            f"{path} takes {listed}, but a file from elsewhere can be timed if it takes images alone: float (batch, "
            "channels, height, width) or uint8 (batch, height, width, channels). Convert it to one of these."
        )
    batch, height, width = (each if isinstance(each, int) and each > 0 else None for each in shape)
    size = (height or SIZE[0], width or SIZE[1])
    spec = GraphSpec(
        image_size=size,
        channels=channels if isinstance(channels, int) else 3,
        batch=batch,
        range_px=None if height and width else ANY_SIDE,
        pixels="uint8" if is_bytes else "float32",
        precision=precision_of(content),
        answers=tuple(each.name for each in session.get_outputs()),
    )
    preprocessing = Preprocessing(image_size=size).for_channels(spec.channels)
    return ModelCard(architecture=path.name, preprocessing=preprocessing, form="folded", source="unknown"), spec


def precision_of(content: bytes) -> Precision:
    """That of most of the weights; fp32 where the package that reads them is not installed."""
    if find_spec("onnx") is None:
        return "fp32"
    import onnx

    kinds: dict[int, Precision] = {
        onnx.TensorProto.FLOAT16: "fp16",
        onnx.TensorProto.BFLOAT16: "bf16",
        onnx.TensorProto.INT8: "int8",
        onnx.TensorProto.UINT8: "int8",
    }
    sizes: Counter[int] = Counter()
    for tensor in onnx.ModelProto.FromString(content).graph.initializer:
        sizes[tensor.data_type] += int(np.prod(tensor.dims))
    return kinds.get(max(sizes, key=sizes.__getitem__), "fp32") if sizes else "fp32"
