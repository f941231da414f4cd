"""The form in which each family states what others published of its models."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from hybridvit.card import CropMode


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where published weights come from, and what they reach."""

    hub_id: str  # repository on the Hugging Face hub
    url: str  # the authors' own file, training form
    licence: str
    file: str = ""  # in the repository; empty where that has timm's layout
    folded_url: str = ""  # the authors' own file, folded; empty if there is none
    top1: float  # ImageNet-1k accuracy in %, by the authors
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
    parameters_millions: float | None = None
    multiply_adds_billions: float | None = None
    top1: float | None = None  # of the paper
    top1_distilled: float | None = None
    latencies: tuple[Latency, ...] = ()
    source: str = ""
    weights: tuple[tuple[str, Weights], ...] = ()  # (tag, weights); the first is the default

    def licence_of(self, file_name: str) -> str:
        """The licence of a published file, by the name that its authors gave it; "" for any other file."""
        licences = {
            PurePosixPath(url).name: weights.licence
            for _, weights in self.weights
            for url in (weights.url, weights.folded_url)
            if url
        }
        return licences.get(file_name, "")
