"""Export in a process of its own: converters clash inside one, print what they like, and may end it.

The child is `python -m hybridvit.export.apart JOB RESULT`, two JSON files.
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridvit import errors
from hybridvit.atomic import TEMPORARY, write_text
from hybridvit.errors import ExportError, HybridViTError, OutOfMemory

if TYPE_CHECKING:
    from hybridvit.export.summary import ExportSummary

CHILD = (sys.executable, "-m", "hybridvit.export.apart")
EXPORT_OPTIONS = (
    "to", "precision", "batch", "image_size", "image_sizes", "dynamic_size", "uint8", "returns", "top_k", "limit",
)  # fmt: skip
LAST_LINES = 5  # of what a converter printed before it died
ENDING_SECONDS = 10  # for a child to put away what it has begun


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """One checkpoint for one target, with the options of `hybridvit.export.pipeline.export`."""

    checkpoint: str
    output: str
    to: str
    images: tuple[str, ...] = ()  # files to compare on
    precision: str = "fp32"
    batch: int | str | None = None
    image_size: tuple[int, int] | None = None
    image_sizes: tuple[tuple[int, int], ...] = ()
    dynamic_size: bool = False
    uint8: bool = False
    returns: str = "logits"
    top_k: int | None = None
    limit: float | None = None
    calibration: str | None = None  # int8: a labelled folder; see `plan_from_folder` for the rest
    labelled: str | None = None
    calibration_images: int = 128
    max_drop: float | None = None
    keep: tuple[str, ...] = ()


def run_apart(job: ExportJob, *, show: Callable[[str], None] = lambda _: None) -> "ExportSummary":
    """Carry out `job` in a child process and return the summary of its report; `show` is given what it printed.

    Raises the error of the child; ExportError or OutOfMemory if it died.
    """
    with tempfile.TemporaryDirectory(prefix="hybridvit-export-") as folder:
        asked, answered, printed = (Path(folder, name) for name in ("job.json", "result.json", "log.txt"))
        asked.write_text(json.dumps(asdict(job)), encoding="utf-8")
        with printed.open("wb") as log:
            child = subprocess.Popen(
                [*CHILD, str(asked), str(answered)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                code = child.wait()
            except BaseException:
                child.send_signal(signal.SIGINT)
                try:
                    child.wait(ENDING_SECONDS)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
                raise
        text = printed.read_text(encoding="utf-8", errors="replace")
        show(text)
        if not answered.exists():
            _clear(Path(job.output))
            raise _death(job, code, text)
        result = json.loads(answered.read_text(encoding="utf-8"))
    if "error" in result:
        raise getattr(errors, result["error"])(result["message"])
    from hybridvit.export.summary import ExportSummary

    return ExportSummary(**result)


def _death(job: ExportJob, code: int, text: str) -> HybridViTError:
    if code == -signal.SIGKILL:
        return OutOfMemory(
            f"The export to '{job.to}' was killed, as happens when memory runs out. Nothing was written. Close other "
            "programs, or use a machine with more memory."
        )
    how = f"was ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    last = " / ".join(line.strip() for line in text.strip().splitlines()[-LAST_LINES:]) or "nothing"
    return ExportError(
        f"The export to '{job.to}' {how}; nothing was written. The last it said: {last}. Another version of the "
        "converter or of torch may do it; --debug shows all it printed."
    )


def _clear(output: Path) -> None:
    """Remove what a child that died could not: the temporary files beside its output."""
    for left in output.parent.glob(f".{output.stem}{TEMPORARY}*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _carry_out(job: ExportJob) -> "ExportSummary":
    import numpy as np

    from hybridvit.checkpoints import load
    from hybridvit.data.preprocess import prepare
    from hybridvit.export.pipeline import export
    from hybridvit.export.quantise.plan import plan_from_folder
    from hybridvit.export.summary import summary

    model = load(job.checkpoint)
    prepared = model.card.preprocessing
    prepared = replace(prepared, image_size=job.image_size or prepared.image_size)
    images = np.stack([prepare(path, prepared) for path in job.images]) if job.images else None
    plan = None
    if job.calibration is not None:
        plan = plan_from_folder(
            job.calibration,
            model.card,
            labelled=job.labelled,
            num_calibration=job.calibration_images,
            max_drop=job.max_drop,
            keep=job.keep,
        )
    options = {name: value for name, value in vars(job).items() if name in EXPORT_OPTIONS}
    return summary(export(model, job.output, images=images, quantisation=plan, **options))


def main() -> None:
    """The child: read a job, write its result; errors that users cause are results too."""
    asked, answered = (Path(word) for word in sys.argv[1:])
    job = ExportJob(**_with_tuples(json.loads(asked.read_text(encoding="utf-8"))))
    try:
        result = asdict(_carry_out(job))
    except HybridViTError as error:
        result = {"error": type(error).__name__, "message": str(error)}
    write_text(answered, json.dumps(result))


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(each) for key, each in value.items()}
    return tuple(_with_tuples(each) for each in value) if isinstance(value, list) else value


if __name__ == "__main__":
    main()
