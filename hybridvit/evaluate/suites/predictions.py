"""The answer of every file to every image, as a table."""

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from hybridvit.atomic import replacing
from hybridvit.errors import UsageError
from hybridvit.evaluate.suites.labels import subset_indices
from hybridvit.evaluate.suites.run import PartResult

HEAD = ("file", "part", "protocol", "image", "answer", "right", "right_top5", "confidence")
_Line = tuple[str, str, str, str, int, bool, bool, float]


def check_predictions(path: Path) -> None:
    """Raise UsageError, before the work, for Parquet where pyarrow is missing."""
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise UsageError(
            f"{path} needs pyarrow, which is not installed: pip install 'hybridvit[parquet]', or write .csv.gz."
        )


def write_predictions(path: Path, results: Sequence[PartResult]) -> None:
    """Write .csv.gz or .parquet, atomically, part by part; answers are indices of the model's classes."""
    if path.suffix == ".parquet":
        _write_parquet(path, results)
        return
    with replacing(path) as temporary, gzip.open(temporary, "wb") as packed:
        file = io.TextIOWrapper(packed, encoding="utf-8", newline="")
        writer = csv.writer(file)
        writer.writerow(HEAD)
        for result in results:
            writer.writerows(_lines(result))
        file.flush()


def _lines(result: PartResult) -> Iterator[_Line]:
    answers, part = result.answers(), result.part
    indices = answers.answer if part.subset is None else subset_indices(part.subset)[answers.answer]
    for place, sample in enumerate(answers.samples):
        yield (
            *(result.subject.path, part.title, result.protocol, part.identities[sample], int(indices[place])),
            *(bool(answers.top1[place]), bool(answers.top5[place]), float(answers.confidence[place])),
        )


def _write_parquet(path: Path, results: Sequence[PartResult]) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = (*(pyarrow.string(),) * 4, pyarrow.int32(), pyarrow.bool_(), pyarrow.bool_(), pyarrow.float64())
    schema = pyarrow.schema(list(zip(HEAD, kinds, strict=True)))
    with replacing(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
        for result in results:
            columns = [list(column) for column in zip(*_lines(result), strict=True)]
            writer.write_table(pyarrow.table(columns, schema=schema))
