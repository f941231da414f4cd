"""What an exported file takes and gives: the ends of its graph and the numbers inside, as one value."""

import json
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from hybridvit.errors import CheckpointError

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Pixels = Literal["float32", "uint8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
OF_BACKBONE = ("features", "pyramid", "embeddings", "map")  # what a file can return instead of the answers of a task
INPUT = "images"  # name of the graph's input


@dataclass(frozen=True, kw_only=True)
class GraphSpec:
    """One exported graph. Sizes are (height, width) in pixels.

    The input is float32 (batch, channels, height, width), preprocessed as the card says; or uint8 (batch, height,
    width, channels) as decoders and cameras give it, normalised inside.
    """

    image_size: tuple[int, int]  # the only one, unless `range_px` or `image_sizes` allow others
    channels: int = 3
    batch: int | None = None  # None: any
    range_px: tuple[int, int] | None = None  # smallest and largest side, if height and width are dynamic
    image_sizes: tuple[tuple[int, int], ...] = ()  # if a file takes several sizes, all of them; `image_size` is one
    pixels: Pixels = "float32"
    precision: Precision = "fp32"
    returns: str = "logits"  # what the task calls its answers, or one of `OF_BACKBONE`
    answers: tuple[str, ...] = ("logits",)  # the names of these answers
    top_k: int | None = None  # with "logits": the most probable classes and nothing else
    argmax: str = ""  # instead of logits the number of the largest for each pixel, by this name
    strides: tuple[int, ...] = ()  # of the maps of a pyramid
    opset: int | None = None  # of ONNX; None: the default

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in order."""
        if self.top_k is not None:
            return ("probabilities", "indices")
        if self.returns == "pyramid":
            return tuple(f"stride_{stride}" for stride in self.strides)
        if self.argmax:
            return (self.argmax,)
        return self.answers if self.gives_answers else (self.returns,)

    @property
    def gives_answers(self) -> bool:
        """Whether it gives what the task is about, in whatever form, and not what the backbone makes of an image."""
        return self.returns not in OF_BACKBONE

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The sizes it takes; only the card's if any in `range_px` will do."""
        return self.image_sizes or (self.image_size,)

    def takes_size(self, size: tuple[int, int]) -> bool:
        """Whether it can be given images of (height, width) pixels."""
        if self.range_px is None:
            return size in self.sizes
        return all(self.range_px[0] <= side <= self.range_px[1] for side in size)

    def shape(self, batch: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The shape of a batch as the graph takes it."""
        return (batch, *size, self.channels) if self.pixels == "uint8" else (batch, self.channels, *size)

    @property
    def takes(self) -> str:
        """The input in words."""
        if self.range_px is not None:
            sides, between = "height x width", f", each side from {self.range_px[0]} to {self.range_px[1]}"
        else:
            sides, between = " or ".join(f"{height} x {width}" for height, width in self.sizes), ""
        batch = "batch" if self.batch is None else str(self.batch)
        if self.pixels == "uint8":
            return f"{batch} x {sides} x {self.channels}{between}, uint8 pixels"
        return f"{batch} x {self.channels} x {sides}{between}, fp32"

    @property
    def gives(self) -> str:
        """The outputs in words."""
        if self.top_k is not None:
            return f"probabilities and indices of the {self.top_k} most probable classes"
        return ", ".join(self.outputs)

    def metadata(self) -> dict[str, str]:
        """The spec as an entry of a file's metadata."""
        return {"hybridvit.graph": json.dumps(asdict(self))}

    @classmethod
    def read(cls, metadata: Mapping[str, str], path: object) -> "GraphSpec":
        """The inverse of `metadata`. Raises CheckpointError when `path` does not say what it takes."""
        try:
            values = dict(json.loads(metadata["hybridvit.graph"]))
            image_size, range_px = values.pop("image_size"), values.pop("range_px")
            spec = cls(
                image_size=_pair(image_size),
                range_px=None if range_px is None else _pair(range_px),
                image_sizes=tuple(_pair(size) for size in values.pop("image_sizes")),
                strides=tuple(operator.index(stride) for stride in values.pop("strides")),
                answers=tuple(str(name) for name in values.pop("answers", ("logits",))),
                **values,
            )
            for name, known in (("pixels", get_args(Pixels)), ("precision", PRECISIONS)):
                if getattr(spec, name) not in known:
                    raise ValueError(f"{name} cannot be {str(getattr(spec, name))[:40]}")
            for name in ("returns", "argmax"):
                if not isinstance(getattr(spec, name), str):
                    raise ValueError(f"{name} cannot be {str(getattr(spec, name))[:40]}")
            for name in ("channels", "batch", "top_k", "opset"):
                if (value := getattr(spec, name)) is not None and operator.index(value) < 1:
                    raise ValueError(f"{name} cannot be {value}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{path} does not say which images it takes ({error}): it was changed, is incomplete or was written by "
                "another version. Export it again."
            ) from error
        return spec


def _pair(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"a size cannot be {str(value)[:40]}")
    return operator.index(value[0]), operator.index(value[1])
