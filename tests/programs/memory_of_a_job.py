"""How much memory the driver of a job of very many images takes: memory_of_a_job.py MODEL FOLDER COUNT.

The images are names in a table, of files that are not there: each is a row that says so. Prints the images that were
answered, and by how many bytes the driver's memory grew beyond what a job of ten thousand takes.
"""

import sys
from pathlib import Path

import pyarrow
from peak import peak_bytes
from pyarrow import parquet

from hybridvit.jobs.options import Resources, Wanted
from hybridvit.jobs.run import run_job


def write_table(folder: Path, count: int) -> Path:
    """A table of so many names, written by part."""
    table = folder / f"{count}.parquet"
    schema = pyarrow.schema({"path": pyarrow.string()})
    with parquet.ParquetWriter(table, schema) as writer:
        for first in range(0, count, 10_000):
            names = [f"none-{number:08}.jpg" for number in range(first, min(first + 10_000, count))]
            writer.write_table(pyarrow.table({"path": names}, schema))
    return table


def run(model: Path, folder: Path, count: int) -> int:
    """A job of so many; how many rows it has."""
    wanted, resources = Wanted(allow_bad=1.0), Resources(workers="1", batch=4)
    table = write_table(folder, count)
    return run_job(model, [table], folder / f"{count}", wanted=wanted, resources=resources).summary["rows"]


def main(model: Path, folder: Path, count: int) -> None:
    """A small job, and a large one."""
    run(model, folder, 10_000)
    before = peak_bytes()
    rows = run(model, folder, count)
    print(rows, peak_bytes() - before)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
