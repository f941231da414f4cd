"""What is in a job's folder."""

import json
from pathlib import Path
from typing import Any

from pyarrow import dataset, parquet


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """All rows, by the name of the picture; each picture once."""
    rows = dataset.dataset(str(folder)).to_table().to_pylist()
    assert len({row["image"] for row in rows}) == len(rows)
    return sorted(rows, key=lambda row: row["image"])


def parts_of(folder: Path) -> dict[str, int]:
    """When each part was written, in nanoseconds, by its name."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("part-*"))}


def pace_of(output: Path, *, unit: int) -> float:
    """Images per second in steady state: of each worker from its first part to its last."""
    times: dict[str, list[int]] = {}
    for name, written_ns in parts_of(output).items():
        receipt = json.loads(parquet.read_metadata(output / name).metadata[b"hybridvit.receipt"])
        times.setdefault(receipt["worker"], []).append(written_ns)
    return sum(unit * (len(each) - 1) / ((max(each) - min(each)) / 1e9) for each in times.values() if len(each) > 1)
