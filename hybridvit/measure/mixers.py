"""FastViT's Figure 3 on this machine: pooling against RepMixer in one network, over image sizes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hybridvit.measure.bench import bench
from hybridvit.measure.options import DEFAULTS, BenchOptions
from hybridvit.measure.result import BenchResult
from hybridvit.measure.subject import Subject

SIDES_PX = (224, 384, 512, 768, 1024)
PAPER = {384: 25.1, 1024: 43.9}
"""Side in pixels -> by how many percent RepMixer lowered the latency on an iPhone 12 Pro (FastViT, section 3.2.1)."""
_METAFORMER_S12: dict[str, Any] = {  # 1.8 billion multiply-adds at 224 px with either mixer
    "widths": (64, 128, 320, 512),
    "stem": "dense",
    "downsample": "dense",
    "ffn_kernel": None,
    "head": "plain",
    "overparameterised": (),
}
POOLING, REPMIXER = "pooling", "RepMixer"


def subjects() -> tuple[Subject, Subject]:
    """MetaFormer-S12 with either mixer, BatchNorm in both: folded, they differ in the mixer alone."""
    shared: dict[str, Any] = {"kind": "ours", "family": "fastvit", "image_size": (224, 224), "source": "fastvit_s12"}
    return (
        Subject(name=POOLING, options=_METAFORMER_S12 | {"mixers": ("pooling",) * 4}, **shared),
        Subject(name=REPMIXER, options=_METAFORMER_S12 | {"mixers": ("repmixer",) * 4}, **shared),
    )


def measure_mixers(
    sides_px: Sequence[int] | None = None,
    options: BenchOptions = DEFAULTS,
    *,
    show: Callable[[str], None] = lambda _: None,
) -> BenchResult:
    """Time both at every side (pixels, by default SIDES_PX), batch 1, in place of the image sizes of `options`."""
    return bench(subjects(), replace(options, image_size=[(side, side) for side in sides_px or SIDES_PX]), show=show)


def reductions(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By how many percent RepMixer takes less time than pooling: one dict per runtime, precision and side.

    Its interval is the widest that the intervals of both medians allow.
    """
    by_key: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for record in records:
        place = record["runtime"], record["precision"], int(record["image_size"].partition("x")[0])
        by_key.setdefault(place, {})[record["model"]] = record
    found = []
    for (runtime, precision, side), both in by_key.items():
        if POOLING in both and REPMIXER in both:
            pooling, mixer = both[POOLING], both[REPMIXER]
            found.append(
                {
                    "runtime": runtime,
                    "precision": precision,
                    "side_px": side,
                    "pooling_ms": pooling["median_ms"],
                    "repmixer_ms": mixer["median_ms"],
                    "less_percent": 100 * (1 - mixer["median_ms"] / pooling["median_ms"]),
                    "least_percent": 100 * (1 - mixer["high_ms"] / pooling["low_ms"]),
                    "most_percent": 100 * (1 - mixer["low_ms"] / pooling["high_ms"]),
                    "paper_percent": PAPER.get(side),
                }
            )
    return found
