"""The form in which the papers' tables are kept: the figures as printed, and the name to measure a system by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TableName = Literal[
    "fastvit-2",
    "fastvit-5",
    "fastvit-6",
    "fastvit-7",
    "fastervit-1",
    "fastervit-3",
    "fastervit-s2",
    "timm-robustness",
]


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One system of a table of results."""

    system: str  # as printed
    image_size_px: int
    parameters_millions: float
    multiply_adds_billions: float
    top1: float  # in %
    gpu_ms: float | None = None  # None: printed as "-"
    phone_ms: float | None = None
    images_per_s: int | None = None
    group: str = ""  # the heading it stands under
    model: str | None = None  # name to measure it by: ours, timm's with its tag, or an alias of PEERS
    note: str = ""  # why there is no such model, or how it differs


@dataclass(frozen=True, kw_only=True)
class ArchitectureRow:
    """One variant of FastViT's table of architectures."""

    system: str
    model: str
    stem_width: int
    blocks: tuple[int, int, int, int]
    mlp_ratio: int
    last_mixer: Literal["RepMixer", "Attention"]
    parameters_millions: float
    multiply_adds_billions: float
    image_size_px: int = 256


@dataclass(frozen=True, kw_only=True)
class RobustnessRow:
    """One system of a table of robustness."""

    system: str  # as printed
    values: Mapping[str, float]  # top-1 in % by suite, on "imagenet" the clean one; of suite "c" mCE
    model: str | None = None  # the same in this library
    parameters_millions: float | None = None
    multiply_adds_billions: float | None = None


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table: its rows, and what its figures were measured on. Columns of speed are those that rows have."""

    name: TableName
    title: str
    source: str
    rows: tuple[PaperRow, ...] = ()
    architectures: tuple[ArchitectureRow, ...] = ()
    robustness: tuple[RobustnessRow, ...] = ()
    gpu: str = ""  # what gpu_ms was measured on
    phone: str = ""
    throughput: str = ""
