"""The form in which each family states what others published of its models."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where published weights come from, and what they reach."""

    hub_id: str  # repository on the Hugging Face hub, in timm's format
    url: str  # the authors' own file, training form
    folded_url: str  # the authors' own file, folded
    licence: str
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
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    parameters_millions: float | None = None
    multiply_adds_billions: float | None = None
    top1: float | None = None  # of the paper
    top1_distilled: float | None = None
    latencies: tuple[Latency, ...] = ()
    source: str = ""
    weights: tuple[tuple[str, Weights], ...] = ()  # (tag, weights); the first is the default
