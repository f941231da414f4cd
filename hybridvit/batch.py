"""Samples and batches: what a model is shown, and where that lies in pictures. Importing it needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where a model's input lies in the picture that it was made from: what brings an answer back to it. In pixels."""

    picture_size: tuple[int, int]  # height, width of the upright picture
    crop: tuple[float, float, float, float]  # left, top, width, height in the picture
    input_size: tuple[int, int]  # height, width of the part of the input that shows it; the rest is padding

    @classmethod
    def whole(cls, height: int, width: int) -> "Frame":
        """Of an input that is the picture itself."""
        size = (height, width)
        return cls(picture_size=size, crop=(0.0, 0.0, float(width), float(height)), input_size=size)


class BadImage(NamedTuple):
    """A file that could not be decoded, and the message that says why."""

    path: str
    message: str


class Patch(NamedTuple):
    """A part of a normalised image that is written over, as random erasing does."""

    top: int
    left: int
    values: "Tensor"  # c h w


class Sample(NamedTuple):
    """One draw. `bad` lists the files that failed on the way; `image` is None if nothing came in their place."""

    image: "Tensor | None"  # c h w; uint8: the loader normalises it, and puts the patch in
    target: Any
    number: int  # of the sample that is shown, which is not the one asked for if it stands in for a bad file
    frame: Frame | None = None
    bad: tuple[BadImage, ...] = ()
    fault: str = ""  # why the source could not be read: the end of the run, whatever is tolerated
    patch: Patch | None = None


class Batch(NamedTuple):
    """What a model is shown at once. `paths[samples[i]]` of the data set is the file of image i."""

    inputs: "Tensor"  # b c h w
    targets: Any  # tensors, alone or in dicts, lists and tuples: made by the task's `collate`, read by its objective
    samples: "Tensor"  # b
    frames: tuple[Frame | None, ...] = ()

    def to(self, device: "torch.device", layout: "torch.memory_format") -> "Batch":
        """The batch on a device, the images in a memory layout."""
        inputs = self.inputs.to(device, memory_format=layout, non_blocking=True)
        return self._replace(inputs=inputs, targets=_moved(self.targets, device))


def _moved(value: Any, device: "torch.device") -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    return type(value)(_moved(item, device) for item in value) if isinstance(value, list | tuple) else value
