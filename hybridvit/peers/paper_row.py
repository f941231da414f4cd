"""The form in which the papers' tables are kept: the figures as printed, and the name to measure a system by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hybridvit.peers.timm_names import MISSING

TableName = Literal["fastvit-2", "fastvit-5", "fastvit-6", "fastervit-1", "fastervit-3"]


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
class PaperTable:
    """One table: its rows, and what its figures were measured on. Columns of speed are those that rows have."""

    name: TableName
    title: str
    source: str
    rows: tuple[PaperRow, ...] = ()
    architectures: tuple[ArchitectureRow, ...] = ()
    gpu: str = ""  # what gpu_ms was measured on
    phone: str = ""
    throughput: str = ""


def paper_row(
    system: str,
    image_size_px: int,
    parameters: float,
    multiply_adds: float,
    top1: float,
    model: str | None,
    remarks: Mapping[str, str],
    **speeds: Any,
) -> PaperRow:
    """A row from its figures: in millions, billions and per cent; `speeds` are fields of a row.

    Its note is the remark on `model`, or why there is none.
    """
    return PaperRow(
        system=system,
        image_size_px=image_size_px,
        parameters_millions=parameters,
        multiply_adds_billions=multiply_adds,
        top1=top1,
        model=model,
        note=remarks.get(model, "") if model else MISSING[system.rstrip("*")],
        **speeds,
    )
