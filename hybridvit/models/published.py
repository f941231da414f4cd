"""The form in which each family states what others published of its models."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from hybridvit.card import IMAGENET_MEAN, IMAGENET_STD, CropMode, Preprocessing


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where published weights come from, and what they reach."""

    hub_id: str  # repository on the Hugging Face hub
    url: str  # the authors' own file, training form
    licence: str
    file: str = ""  # in the repository; empty where that has timm's layout
    folded_url: str = ""  # the authors' own file, folded; empty if there is none
    top1: float | None = None  # ImageNet-1k accuracy in %, by the authors; None for an image tower
    zero_shot_top1: float | None = None  # that of a whole image-and-text model by the texts of the classes
    preprocessing: Preprocessing | None = None  # where it is another than the variant's
    prefixes: tuple[str, ...] = ()  # what stands before the names in the authors' files, where no others have that
    source: str


@dataclass(frozen=True, kw_only=True)
class Latency:
    """A published time per batch."""

    milliseconds: float
    device: str
    batch: int
    source: str


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the authors state of one variant. Numbers of this library are measured, never copied from here."""

    image_size_px: int
    crop_fraction: float
    crop_mode: CropMode = "center"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    embedding_width: int | None = None  # of the projection that an image tower ends in; None for a classifier
    parameters_millions: float | None = None
    multiply_adds_billions: float | None = None
    top1: float | None = None  # of the paper
    top1_distilled: float | None = None
    latencies: tuple[Latency, ...] = ()
    source: str = ""
    weights: tuple[tuple[str, Weights], ...] = ()  # (tag, weights); the first is the default

    def weights_of(self, file_name: str, prefix: str = "") -> Weights | None:
        """The published weights in a file, by what stands before its tensors' names or by the name that its authors
        gave it; None for any other file.
        """
        for _, weights in self.weights:
            names = {
                PurePosixPath(url).name for url in (weights.url, weights.folded_url) if url and not weights.prefixes
            }
            if file_name in names or (prefix and prefix in weights.prefixes):
                return weights
        return None
