"""`hybridvit evaluate`: how often is the model right?"""

from collections.abc import Mapping
from json import dumps
from typing import TYPE_CHECKING, Any, Literal

from hybridvit import api
from hybridvit.cli.evaluate_suites import evaluate_suites
from hybridvit.cli.table import aligned, pairs
from hybridvit.errors import UsageError, plural
from hybridvit.evaluate.corruptions.names import SEVERITIES
from hybridvit.evaluate.corruptions.options import NO_CORRUPTIONS, CorruptionOptions
from hybridvit.evaluate.suites.options import NO_SUITES, SuiteOptions
from hybridvit.export.embeddings import check_answers
from hybridvit.export.runners import TorchRunner
from hybridvit.loading import Device, open_runner
from hybridvit.stderr import remark
from hybridvit.task import Task, find_task

if TYPE_CHECKING:
    from hybridvit.evaluate.run import Evaluation


def evaluate(
    files: list[str],
    *,
    batch: int | None = None,
    workers: int = 0,
    on_bad_image: Literal["error", "skip"] = "error",
    image_column: str = "",
    label_column: str = "",
    way: str = "",
    tile: int | None = None,
    overlap: float | None = None,
    write_pred: str | None = None,
    zero_shot: str | None = None,
    json: bool = False,
    device: Device = "auto",
    trust_changed: bool = False,
    suites: SuiteOptions = NO_SUITES,
    corrupted: CorruptionOptions = NO_CORRUPTIONS,
) -> None:
    """Measure the accuracy of a checkpoint, or of an exported model, on a folder of labelled images.

    `evaluate FILE DATA`; or `evaluate FILE... --suites ...` for several files on robustness suites of ImageNet, all
    answered on the same images, with intervals, calibration and differences to the first file; a run that was stopped
    goes on where it was.

    The folder has a layout of the model's task: of a classifier one folder per class. A table has a path and a label in
    each row. Classes are matched by name with those that the checkpoint was trained on.

    Examples:
      hybridvit evaluate runs/digits/model.safetensors runs/data/digits/test
      hybridvit evaluate fastvit_t8.pth.tar imagenet/val --workers 4 --json
      hybridvit evaluate segmenter.safetensors scenes/val --corruptions noise fog --severities 1 3 5
      hybridvit evaluate model.safetensors scans/test.csv --image_column scan --label_column diagnosis
      hybridvit evaluate mobileclip_s0.pt photos/val --zero_shot texts.safetensors
      hybridvit evaluate m.safetensors m.onnx m-int8.onnx --suites imagenet=imagenet/val real a=imagenet-a r=imagenet-r

    Args:
        files: .safetensors, .pth, .pth.tar, .ckpt, or what `hybridvit export` wrote, which its own runtime runs; then
            the data, a folder of class folders with images, or a table (.csv, .tsv, .parquet) of paths and labels; with
            --suites one or several files and no data.
        batch: images computed at once, 32 by default; with --tile, tiles of an image, 1 by default.
        workers: processes that decode images; 0 decodes in this one.
        on_bad_image: error: a file that cannot be decoded ends the run; skip: it counts neither way, and is reported.
        image_column: of a table, the column of the paths; left out where the name tells.
        label_column: of a table, the column of the labels; left out where the name tells.
        way: another way to ask the model, where its task has any, such as multi_scale (the mean over
            sizes, mirrored too) or slide (over overlapping parts of the size that it was trained on).
        tile: cut larger images into overlapping tiles with a side of so many pixels, and join the answers.
        overlap: the least part of a tile that its neighbour shows too; 0.2 by default.
        write_pred: file to write the answers to in the form in which others judge them, where the task has one: of
            hands FreiHAND's pred.json, or a pred.zip of it.
        zero_shot: of an image tower such as fastvit_mci0, a .safetensors file with the texts of the classes, which are
            named as the folders (docs/mci.md).
        json: one line of JSON, with precision, recall and F1 of every class.
        device: where to compute; auto takes a GPU if there is one.
        trust_changed: take an exported file that was changed on purpose (simplified, converted to fp16).
    """
    suites.check()
    corrupted.check(is_of_one=not suites.is_asked)
    of_one: dict[str, Any] = {"image_column": image_column, "label_column": label_column, "way": way}
    in_parts: dict[str, Any] = {"tile": tile, "overlap": overlap, "write_pred": write_pred}
    if suites.is_asked:
        _refuse(of_one | in_parts, "--suites")
        run: Any = {"workers": workers, "on_bad_image": on_bad_image, "device": device, "trust_changed": trust_changed}
        run |= {"zero_shot": zero_shot}
        evaluate_suites(files, suites, batch=32 if batch is None else batch, as_json=json, **run)
        return
    checkpoint, data = _file_and_data(files)
    runner = open_runner(checkpoint, device=device, trust_changed=trust_changed, zero_shot=zero_shot)
    check_answers(runner, checkpoint)
    card, task = runner.card, find_task(runner.card.task)
    shown: Any = of_one | {"batch": batch, "workers": workers, "on_bad_image": on_bad_image, "say": remark}
    if corrupted.corruptions is not None:
        _refuse(in_parts, "--corruptions")
        scores = api.evaluate_corrupted(
            runner,
            data,
            corrupted.corruptions,
            severities=corrupted.severities or SEVERITIES,
            corruption_seed=corrupted.corruption_seed,
            **shown,
        )
        if json:
            print(dumps({"checkpoint": checkpoint, "data": data} | scores.to_dict()))
        else:
            print(f"{card.architecture} on {data}: {scores.quantity.heading}, {scores.num_images:,} images each")
            print(aligned(scores.rows()))
        return
    found = api.evaluate(runner, data, **shown, **in_parts)
    if json:
        print(dumps({"checkpoint": checkpoint, "data": data} | _json_values(found)))
        return
    if write_pred is not None:
        remark(f"The answers are in {write_pred}")
    form = f"{card.form} form" if isinstance(runner, TorchRunner) else runner.runtime
    print(f"{card.architecture} ({form}) on {data}")
    print(pairs(_lines(task, found)))


def _file_and_data(files: list[str]) -> tuple[str, str]:
    if len(files) != 2:
        raise UsageError(
            "`hybridvit evaluate` takes a file and the data, or files and --suites, but was given "
            f"{plural(len(files), 'word')} and no --suites. See `hybridvit evaluate --help`."
        )
    return files[0], files[1]


def _refuse(given: Mapping[str, object], beside: str) -> None:
    """Raise UsageError for options that do not go with another one."""
    if asked := [name for name, value in given.items() if value not in (None, "")]:
        raise UsageError(f"--{asked[0]} does not go with {beside}. Leave one of them out.")


def _json_values(found: "Evaluation") -> dict[str, Any]:
    values = {name: round(value, 6) for name, value in found.scores.values.items()}
    counts = {"num_images": found.num_samples, "num_skipped": found.num_skipped, "seconds": round(found.seconds, 3)}
    return values | counts | dict(found.scores.details)


def _lines(task: Task, found: "Evaluation") -> list[tuple[str, str]]:
    lines = []
    for quantity in (each for each in task.quantities if each.name in found.scores.values):
        text = quantity.text(found.scores.values[quantity.name]) + (f", {quantity.note}" if quantity.note else "")
        right = found.scores.per_image
        if quantity is task.headline and right is not None and right.dtype == bool:
            text += f", {right.sum():,} of {found.num_samples:,} right"
        lines.append((quantity.heading, text))
    speed = f"{found.seconds:.1f} s, {found.num_samples / found.seconds:.0f} images/s with decoding"
    return [*lines, ("Skipped", f"{found.num_skipped} images that could not be decoded"), ("Time", speed)]
