"""`hybridvit evaluate`: how often is the model right?"""

from json import dumps
from typing import TYPE_CHECKING, Any, Literal

from hybridvit import api
from hybridvit.cli.progress import remark
from hybridvit.cli.table import aligned, pairs
from hybridvit.errors import UsageError
from hybridvit.evaluate.corruptions.names import SEVERITIES
from hybridvit.export.runners import TorchRunner
from hybridvit.loading import Device, open_runner
from hybridvit.task import Task, find_task

if TYPE_CHECKING:
    from hybridvit.evaluate.run import Evaluation


def evaluate(
    checkpoint: str,
    data: str,
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
    corruptions: list[str] | None = None,
    severities: list[int] | None = None,
    corruption_seed: int = 0,
    json: bool = False,
    device: Device = "auto",
    trust_changed: bool = False,
) -> None:
    """Measure the accuracy of a checkpoint, or of an exported model, on a folder of labelled images.

    The folder has a layout of the model's task: of a classifier one folder per class. A table has a path and a label in
    each row. Classes are matched by name with those that the checkpoint was trained on.

    Examples:
      hybridvit evaluate runs/digits/model.safetensors runs/data/digits/test
      hybridvit evaluate fastvit_t8.pth.tar imagenet/val --workers 4 --json
      hybridvit evaluate segmenter.safetensors scenes/val --corruptions noise fog --severities 1 3 5
      hybridvit evaluate model.safetensors scans/test.csv --image_column scan --label_column diagnosis

    Args:
        checkpoint: .safetensors, .pth, .pth.tar, .ckpt, or what `hybridvit export` wrote, which its own runtime runs.
        data: folder of class folders with images, or a table (.csv, .tsv, .parquet) of paths and labels.
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
        corruptions: evaluate on corrupted pictures too, and tell what is lost: names, or all (19), common (the 15 of
            ImageNet-C's mean), noise, blur, weather, digital, extra. Needs hybridvit[robustness].
        severities: of the corruptions, from 1, the least, to 5; all by default.
        corruption_seed: of all that is random in them; each picture has numbers of its own.
        json: one line of JSON, with precision, recall and F1 of every class.
        device: where to compute; auto takes a GPU if there is one.
        trust_changed: take an exported file that was changed on purpose (simplified, converted to fp16).
    """
    runner = open_runner(checkpoint, device=device, trust_changed=trust_changed)
    card, task = runner.card, find_task(runner.card.task)
    columns: Any = {"image_column": image_column, "label_column": label_column}
    shown: Any = {"batch": batch, "workers": workers, "way": way, "tile": tile, "overlap": overlap}
    shown["write_pred"] = write_pred
    if corruptions is None and (severities is not None or corruption_seed):
        raise UsageError("--severities and --corruption_seed are for --corruptions, which is not given. Add it.")
    if corruptions is not None:
        for option, value in (("tile", tile), ("overlap", overlap), ("write_pred", write_pred)):
            if value is not None:
                raise UsageError(f"--{option} does not go with --corruptions. Leave one of them out.")
        asked: Any = {"severities": severities or SEVERITIES, "corruption_seed": corruption_seed}
        common: Any = {"batch": batch, "workers": workers, "way": way, "on_bad_image": on_bad_image, "say": remark}
        scores = api.evaluate_corrupted(runner, data, corruptions, **asked, **common, **columns)
        if json:
            print(dumps({"checkpoint": checkpoint, "data": data} | scores.to_dict()))
        else:
            print(f"{card.architecture} on {data}: {scores.quantity.heading}, {scores.num_images:,} images each")
            print(aligned(scores.rows()))
        return
    found = api.evaluate(runner, data, on_bad_image=on_bad_image, say=remark, **columns, **shown)
    if json:
        print(dumps({"checkpoint": checkpoint, "data": data} | _json_values(found)))
        return
    if write_pred is not None:
        remark(f"The answers are in {write_pred}")
    form = f"{card.form} form" if isinstance(runner, TorchRunner) else runner.runtime
    print(f"{card.architecture} ({form}) on {data}")
    print(pairs(_lines(task, found)))


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
