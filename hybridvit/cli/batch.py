"""`hybridvit batch`: what is on very many images, on one machine or many?"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from hybridvit.cli.progress import status_line
from hybridvit.errors import ImageDecodeError
from hybridvit.jobs.options import Resources, Wanted
from hybridvit.jobs.tally import Standing, duration
from hybridvit.stderr import remark

HERE, PLAIN = Resources(), Wanted()
_IN_LOGS_S, _ON_TERMINALS_S = 30.0, 0.5


def batch(
    model: str,
    inputs: list[str],
    *,
    output: str,
    resources: Resources = HERE,
    wanted: Wanted = PLAIN,
) -> int:
    """Answer to very many images, in a folder of Parquet files.

    The same command goes on where an earlier one ended, however it ended: each image is in the table exactly once. An
    image that cannot be decoded is a row with "error", and so is one on which processes die. With --engine ray the
    machines of a cluster share the work; they all need the output folder.

    Examples:
      hybridvit batch model.onnx photos --output answers
      hybridvit batch model.onnx 'photos/**/*.jpg' more.parquet#image shards/*.tar --output answers
      hybridvit batch model.onnx s3://bucket/photos --output s3://bucket/answers
      hybridvit batch model.safetensors photos --output answers --gpus_per_worker 1
      hybridvit batch model.onnx /shared/photos --output /shared/answers --engine ray --address auto
      hybridvit batch features.onnx photos --output vectors --returns features

    Args:
        model: .safetensors, .pth, or any file that `hybridvit export` wrote, or its URL.
        inputs: images, folders (searched to any depth), patterns in quotes, tar files, Parquet files with a column of
            bytes or paths (FILE.parquet#COLUMN), and URLs of these.
        output: folder to write, or an s3:// URL; it must be new, empty, or of the same command.
    """
    from hybridvit.jobs.run import run_job

    with status_line(in_logs=True) as show:
        outcome = run_job(model, inputs, output, resources=resources, wanted=wanted, watch=Shown(show).tell, say=remark)
    summary, target = outcome.summary, Path(output) if "://" not in output else output
    if not outcome.is_new:
        remark(f"{target} is finished: nothing to do.")
    print(f"{target}: {summary['rows']:,} images, {summary['bad']:,} bad")
    if outcome.is_new and summary["rows_now"]:
        print(f"{summary['images_per_second']:.1f} images/s, {duration(summary['seconds'])}")
    if outcome.has_too_many_bad:
        print(
            f"{summary['bad']:,} of {summary['rows']:,} images are bad, more than --allow_bad {wanted.allow_bad:g}. "
            'They are the rows with "error".',
            file=sys.stderr,
        )
    return ImageDecodeError.exit_code if outcome.has_too_many_bad else 0


class Shown:
    """Where a job stands, as often as one can read it: in a terminal always, in a log now and then."""

    def __init__(self, show: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._show, self._clock = show, clock
        self._every_s = _ON_TERMINALS_S if sys.stderr.isatty() else _IN_LOGS_S
        self._next = 0.0 if sys.stderr.isatty() else self._clock() + self._every_s

    def tell(self, standing: Standing) -> None:
        """The watch of a job."""
        if self._clock() >= self._next:
            self._next = self._clock() + self._every_s
            self._show(str(standing))
