"""The papers' tables of results, and the models that stand in them.

The figures, as printed, errors included, are rows of CSV files in paper_tables/; "FLOPs" are multiply-adds. A row's
note says how the model to measure differs from the printed system, or why there is none.
"""

import csv
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from hybridvit.errors import UsageError, nearest
from hybridvit.peers.paper_row import ArchitectureRow, PaperRow, PaperTable, RobustnessRow, TableName

_FASTVIT, _FASTERVIT = "Vasu et al., FastViT, ICCV 2023", "Hatamizadeh et al., FasterViT, ICLR 2024"
_TITLES: dict[TableName, str] = {
    "fastvit-2": "FastViT, Table 2: architectures",
    "fastvit-5": "FastViT, Table 5: ImageNet-1k",
    "fastvit-6": "FastViT, Table 6: ImageNet-1k, with distillation",
    "fastvit-7": "FastViT, Table 7: robustness",
    "fastervit-1": "FasterViT, Table 1: ImageNet-1k",
    "fastervit-3": "FasterViT, Table 3: pre-trained on ImageNet-21k",
    "fastervit-s2": "FasterViT, Table S.2: robustness",
    "timm-robustness": "timm: robustness",
}
_SOURCES: dict[TableName, str] = {
    "fastervit-s2": f"{_FASTERVIT}, Table S.2",
    "timm-robustness": "timm's results/*.csv (Apache-2.0), commit aa4b5850 of 2026-08-08; FastViT at 256 px with a "
    "crop of 0.9 (ma36 0.95), others at 224 px unless said",
}
_SUITES = ("imagenet", "v2-matched", "real", "c", "a", "r", "sketch")
_GPU, _PHONE = "RTX 2080Ti, TensorRT, batch 8", "iPhone 12 Pro, Core ML, batch 1"  # FastViT, section 4.1
_THROUGHPUT = "A100, batch 128"  # FasterViT


def _cells(name: TableName) -> Iterator[dict[str, Any]]:
    """The rows of a file by column, numbers as numbers, without the empty cells."""
    with (Path(__file__).parent / "paper_tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {column: _value(text) for column, text in row.items() if text}


def _value(text: str) -> int | float | str:
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    return text


def _table(name: TableName) -> PaperTable:
    of_fastvit = name.startswith("fastvit-")
    source = _SOURCES.get(name) or f"{_FASTVIT if of_fastvit else _FASTERVIT}, Table {name[-1]}"
    table = PaperTable(name=name, title=_TITLES[name], source=source)
    if name == "fastvit-2":
        rows = [row | {"blocks": tuple(int(number) for number in row["blocks"].split())} for row in _cells(name)]
        return replace(table, architectures=tuple(ArchitectureRow(**row) for row in rows))
    if name in ("fastvit-7", "fastervit-s2", "timm-robustness"):
        return replace(table, robustness=tuple(_robustness(row) for row in _cells(name)))
    table = replace(table, rows=tuple(PaperRow(**row) for row in _cells(name)))
    return replace(table, gpu=_GPU, phone=_PHONE) if of_fastvit else replace(table, throughput=_THROUGHPUT)


def _robustness(row: dict[str, Any]) -> RobustnessRow:
    others = {column: value for column, value in row.items() if column not in _SUITES}
    return RobustnessRow(**others, values={suite: row[suite] for suite in _SUITES if suite in row})


TABLES: dict[str, PaperTable] = {name: _table(name) for name in get_args(TableName)}


def find_tables(names: list[str] | None) -> list[PaperTable]:
    """The tables of these names, all by default. Raises UsageError for an unknown one, with the nearest."""
    if names == []:
        raise UsageError(f"No table is named, but at least one must be. Tables: {', '.join(TABLES)}.")
    for name in names or ():
        if name not in TABLES:
            raise UsageError(f"There is no table '{name}'. {nearest(name, TABLES)}.")
    return [TABLES[name] for name in names or TABLES]


def models_by_size(tables: list[PaperTable]) -> dict[int, list[str]]:
    """What there is to measure, without repetition: the names by side in pixels. Tables of architectures need none."""
    found: dict[int, dict[str, None]] = {}
    for table in tables:
        for row in table.rows:
            if row.model is not None:
                found.setdefault(row.image_size_px, {})[row.model] = None
    return {side: list(models) for side, models in sorted(found.items())}
