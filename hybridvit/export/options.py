"""What a file is to be, whatever its target: one value for the command line, a process and `export`."""

from dataclasses import dataclass
from typing import Literal

from hybridvit.export.spec import Precision

Batch = int | Literal["dynamic"] | None


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The options of an export; sizes are (height, width) in pixels.

    Which of them a target has is told by `resolve`, before anything is computed.
    """

    precision: Precision = "fp32"
    """Of the numbers inside; inputs and outputs are the same with each."""
    batch: Batch = None
    """Images per call, or "dynamic"; by default what suits the target."""
    image_size: tuple[int, int] | None = None
    """By default the card's; positions that depend on it become constants."""
    image_sizes: tuple[tuple[int, int], ...] = ()
    """Several sizes in one file, where the target can do that."""
    dynamic_size: bool | tuple[int, int] = False
    """Any height and width from a smallest to a largest side: those given, or with True the widest range that is
    proven, up to 2048 pixels from 32, or for a FasterViT from where the carriers' map always has more than one window
    (113 for windows of 7), since below that the model computes something else. `image_size` is then only what the card
    says to preprocess to."""
    uint8: bool = False
    """Take pixels as they are decoded, uint8 (batch, height, width, channels); the normalisation is inside."""
    returns: str | None = None
    """By default the answers of the model's task: logits, segmentation, detections; of an image tower, such as
    fastvit_mci0, its embeddings (batch, width), of length 1. Or what its backbone gives: the pooled features (batch,
    num_features), the map that these are the mean of (batch, num_features, height, width), or the pyramid of feature
    maps."""
    top_k: int | None = None
    """Give the probabilities and indices of so many classes instead of all logits."""
    argmax: bool = False
    """Of a segmentation the number of the class of each pixel, uint8 up to 256 classes, instead of all logits."""
    opset: int | None = None
    """ONNX alone: the opset of the operators, from 17; older runtimes and readers need older ones. By default 20."""
    limit: float | None = None
    """Largest difference from PyTorch / largest output; by default that of the precision, see `Exporter.limits`."""


DEFAULTS = ExportOptions()
