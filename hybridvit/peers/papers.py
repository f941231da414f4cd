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
from hybridvit.peers.paper_row import ArchitectureRow, PaperRow, PaperTable, TableName

_FASTVIT, _FASTERVIT = "Vasu et al., FastViT, ICCV 2023", "Hatamizadeh et al., FasterViT, ICLR 2024"
_TITLES: dict[TableName, str] = {
    "fastvit-2": "FastViT, Table 2: architectures",
    "fastvit-5": "FastViT, Table 5: ImageNet-1k",
    "fastvit-6": "FastViT, Table 6: ImageNet-1k, with distillation",
    "fastervit-1": "FasterViT, Table 1: ImageNet-1k",
    "fastervit-3": "FasterViT, Table 3: pre-trained on ImageNet-21k",
}
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
    table = PaperTable(
        name=name, title=_TITLES[name], source=f"{_FASTVIT if of_fastvit else _FASTERVIT}, Table {name[-1]}"
    )
    if name == "fastvit-2":
        rows = [row | {"blocks": tuple(int(number) for number in row["blocks"].split())} for row in _cells(name)]
        return replace(table, architectures=tuple(ArchitectureRow(**row) for row in rows))
    table = replace(table, rows=tuple(PaperRow(**row) for row in _cells(name)))
    return replace(table, gpu=_GPU, phone=_PHONE) if of_fastvit else replace(table, throughput=_THROUGHPUT)


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
