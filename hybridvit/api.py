"""What the command line does, as Python functions: `hybridvit.train(...)` and its kin, for programs and notebooks.

They return what the commands print, raise HybridViTError where a command says "Error:", and end no process but one that
runs the top level of a script once more to do a part of its work (main_module.py).
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hybridvit.errors import ImageDecodeError, UsageError
from hybridvit.export.options import DEFAULTS as EXPORT_DEFAULTS
from hybridvit.export.options import ExportOptions
from hybridvit.loading import Device
from hybridvit.measure.options import DEFAULTS as BENCH_DEFAULTS
from hybridvit.measure.options import BenchOptions
from hybridvit.recipe.file import load_recipe
from hybridvit.recipe.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np

    from hybridvit.batch import Batch
    from hybridvit.data.inputs import FrameAt
    from hybridvit.data.tiles import Tiling
    from hybridvit.evaluate.corruptions.run import CorruptedScores
    from hybridvit.evaluate.run import Answerer, Evaluation
    from hybridvit.export.pipeline import ExportReport
    from hybridvit.export.quantise.plan import QuantisationPlan
    from hybridvit.export.runners import Runner
    from hybridvit.measure.bench import BenchResult
    from hybridvit.models.whole import WholeModel
    from hybridvit.scores import Result
    from hybridvit.task import Outputs, Predictions, Task
    from hybridvit.training.train import RunResult

__all__ = ["bench", "dry_run", "evaluate", "evaluate_corrupted", "export", "predict", "train"]

Place = str | os.PathLike[str]
NOTHING: Mapping[str, Any] = {}


def train(
    recipe: Place | Recipe,
    keys: Mapping[str, Any] = NOTHING,
    *,
    resume: bool | Literal["auto"] = False,
    allow_changes: bool = False,
    allow_data_change: bool = False,
    progress: bool = True,
) -> "RunResult":
    """Train as a recipe says: `hybridvit.train("digits", {"schedule.epochs": 20})`.

    Args:
        recipe: the name of one that comes with the package, a YAML file, or a recipe that was read already.
        keys: values for keys of the recipe, by dotted name, as on the command line.
        resume: False moves an earlier run in the same folder aside; True goes on with it; "auto" goes on if there is
            something.
        allow_changes: go on although the recipe differs from the run's.
        allow_data_change: go on although the images differ from the run's; their classes must be the same.
        progress: show a bar (in a terminal) or lines on stderr.

    Returns the run: its folder, its model file, its report, and what the weights are worth. Where loader processes are
    not forked (Windows, macOS, Python 3.14) a script needs the `if __name__ == "__main__":` that multiprocessing asks
    for. Raises as `hybridvit.training.train.train`.
    """
    from hybridvit.training.train import train as run

    return run(
        _recipe(recipe, keys),
        resume=resume,
        allow_changes=allow_changes,
        allow_data_change=allow_data_change,
        progress=progress,
    )


def dry_run(recipe: Place | Recipe, keys: Mapping[str, Any] = NOTHING, *, say: Callable[[str], None] = print) -> None:
    """Try a recipe in seconds, on the debug size of its family and generated images; see `train` for the arguments.

    `say` is given one line for each stage. Raises what a run would raise.
    """
    from hybridvit.training.trial.dry_run import dry_run as run

    run(_recipe(recipe, keys), say=say)


def evaluate(
    model: "Place | WholeModel | Runner",
    data: Place,
    *,
    batch: int | None = None,
    workers: int = 0,
    on_bad_image: Literal["error", "skip"] = "error",
    image_column: str = "",
    label_column: str = "",
    way: str = "",
    tile: int | None = None,
    overlap: float | None = None,
    write_pred: Place | None = None,
    zero_shot: Place | None = None,
    device: Device = "auto",
    say: Callable[[str], None] = lambda _: None,
) -> "Evaluation":
    """Measure a model on a folder of labelled images: `hybridvit.evaluate("m.onnx", "photos/val").scores.values`.

    Args:
        model: a checkpoint, an exported file, a model with a card, or a runner.
        data: a folder in a layout of the model's task, such as one of class folders, or a table (.csv, .tsv, .parquet)
            of paths and labels; classes are matched by name with those that the model was trained on.
        batch: images computed at once, 32 by default; with `tile`, tiles of an image, 1 by default.
        workers: processes that decode images; 0 decodes in this one.
        on_bad_image: "error": a file that cannot be decoded ends the run; "skip": it counts neither way.
        image_column: of a table, the column of the paths; "" finds it by its name.
        label_column: of a table, the column of the labels; "" finds it by its name.
        way: another way to ask the model, where its task has any, such as multi_scale (the mean over sizes, mirrored
            too) or slide (over overlapping parts of the size that it was trained on).
        tile: side in pixels of the overlapping tiles that larger images are cut into.
        overlap: the least part of a tile that its neighbour shows too, 0.2 by default.
        write_pred: file to write the answers to, in the form in which others judge them, where the task has one.
        zero_shot: of an image tower, .safetensors file with the texts of the classes (docs/mci.md).
        device: where PyTorch computes; "auto" takes a GPU if there is one. A runner stays where it is.
        say: told what is left out of the folder.

    Raises as `hybridvit.loading.open_runner`; DatasetError for a folder or a table that cannot be used, UsageError for
    columns of a folder.
    """
    from hybridvit.data.loader import make_eval_loader
    from hybridvit.evaluate.run import evaluate as run
    from hybridvit.evaluate.tiled import answering_by_tiles, checked, in_own_size
    from hybridvit.export.embeddings import check_answers
    from hybridvit.task import find_task

    tiling = _tiling(tile, overlap, way)
    runner = _runner(model, device, zero_shot)
    card, task = runner.card, find_task(runner.card.task)
    check_answers(runner, model if isinstance(model, str | os.PathLike) else f"This {card.architecture}")
    if tiling is not None:
        checked(task, model if isinstance(model, str | os.PathLike) else card.architecture)
    columns = {"image_column": image_column, "label_column": label_column}
    shown = card if tiling is None else in_own_size(card)
    samples = task.labelled(os.fspath(data), shown, on_bad_image=on_bad_image, **columns)
    for remark in samples.remarks:
        say(remark)
    at_once = 1 if tiling is not None else 32 if batch is None else batch
    loader = make_eval_loader(samples, collate=task.collate, batch_size=at_once, workers=workers)
    written = None if write_pred is None else task.predictions(samples, card, Path(write_pred))
    try:
        if tiling is not None:
            by_tiles = answering_by_tiles(tiling, runner, task, card, at_once=batch or 1)
            found = run(_kept(by_tiles, written), task, loader, shown)
        else:
            with _answering(runner, task) as answer:
                asked = task.in_way(answer, way, card) if way else answer
                found = run(_kept(asked, written), task, loader, card)
        if written is not None:
            written.write()
        return found
    finally:
        loader.close()


def evaluate_corrupted(
    model: "Place | WholeModel | Runner",
    data: Place,
    corruptions: Sequence[str] = ("common",),
    *,
    severities: Sequence[int] = (1, 2, 3, 4, 5),
    corruption_seed: int = 0,
    batch: int | None = None,
    workers: int = 0,
    on_bad_image: Literal["error", "skip"] = "error",
    image_column: str = "",
    label_column: str = "",
    way: str = "",
    device: Device = "auto",
    say: Callable[[str], None] = lambda _: None,
) -> "CorruptedScores":
    """The headline of a model's task on labelled images as they are, and corrupted: names or groups such as "noise".

    Any task's data set that `evaluate` opens, and its arguments. Each decoded picture is corrupted in its own size,
    before the card's preparation, and targets stay as they are. Raises as `evaluate`; UsageError for unknown names,
    severities outside 1 to 5, and where the extra `robustness` is missing.
    """
    from hybridvit.evaluate.corruptions.run import CorruptionChoice
    from hybridvit.evaluate.corruptions.run import evaluate_corrupted as run
    from hybridvit.task import find_task

    choice = CorruptionChoice.of(corruptions, severities, seed=corruption_seed)
    runner = _runner(model, device)
    card, task = runner.card, find_task(runner.card.task)
    columns = {"image_column": image_column, "label_column": label_column}
    samples = task.labelled(os.fspath(data), card, on_bad_image=on_bad_image, **columns)
    for remark in samples.remarks:
        say(remark)
    root = str(Path(data).parent if Path(data).is_file() else Path(data))
    options: Any = {"root": root, "batch_size": 32 if batch is None else batch, "workers": workers, "say": say}
    with _answering(runner, task) as answer:
        asked = task.in_way(answer, way, card) if way else answer
        return run(asked, task, samples, card, choice, **options)


def _tiling(tile: int | None, overlap: float | None, way: str) -> "Tiling | None":
    from hybridvit.data.tiles import tiling_of

    tiling = tiling_of(tile, overlap)
    if tiling is not None and way:
        raise UsageError(f"--way {way} and --tile {tile} both say how a picture is shown. Give one of them.")
    return tiling


def _kept(answer: "Answerer", written: "Predictions | None") -> "Answerer":
    """The answerer, whose answers are taken in on the way."""

    def taken_in(batch: "Batch") -> "Outputs":
        outputs = answer(batch)
        if written is not None:
            written.update(outputs, batch)
        return outputs

    return taken_in


@contextmanager
def _answering(runner: "Runner", task: "Task") -> "Iterator[Answerer]":
    from hybridvit.evaluate.run import answering
    from hybridvit.export.runners import TorchRunner

    if not isinstance(runner, TorchRunner):
        yield lambda batch: runner(batch.inputs)
        return
    with answering(runner.model, task) as answer:
        yield answer


def predict(
    model: Place,
    images: Place | Sequence[Place],
    *,
    top: int | None = None,
    batch: int | None = None,
    tile: int | None = None,
    overlap: float | None = None,
    every: int = 1,
    frames: int | None = None,
    pictures: Place | None = None,
    output: Place | None = None,
    embeddings: Place | None = None,
    zero_shot: Place | None = None,
    threads: int | None = None,
    device: Device = "auto",
    said: Mapping[str, Any] = NOTHING,
) -> "dict[Path | str | FrameAt, Result | ImageDecodeError]":
    """The answer to each image by its path, in order; for one that cannot be decoded, why.

    An address is its own key, a frame of a video is a `FrameAt` with the names `video`, `frame` and `seconds`.
    `hybridvit.Predictor` keeps a model open for many calls, and takes encoded bytes and Pillow's images too.

    Args:
        model: a checkpoint or an exported file.
        images: image and video files, folders (searched to any depth), patterns, http(s) addresses of pictures, cameras
            ("camera:0"); one or several.
        top: answers per image, the most probable first; by default 5, or what the file gives if that is less, and of
            several labels those above 50 %.
        batch: images computed at once, by default as many as the file's runtime computes fastest; with `tile`, tiles of
            an image, 1 by default.
        tile: side in pixels of the overlapping tiles that larger images are cut into.
        overlap: the least part of a tile that its neighbour shows too, 0.2 by default.
        every: of videos and cameras, show the model the first and every Nth frame after it.
        frames: at most so many frames of each video; a camera needs it.
        pictures: folder to write images and videos to with the answers drawn on them.
        output: .parquet or .jsonl file to write the answers to.
        embeddings: of an image tower, answer with embeddings, and write them to this .safetensors, .npy, .parquet or
            .jsonl file.
        zero_shot: of an image tower, .safetensors file with the texts of the classes to name (docs/mci.md).
        threads: CPU threads; by default the runtime decides.
        device: where PyTorch computes; "auto" takes a GPU if there is one.
        said: what the model's task is told of the pictures, such as {"side": "left"} of hands.

    Raises as `hybridvit.loading.open_runner`; DatasetError where there is no image; UsageError for a camera without
    `frames`, for tiles that the model's task does not join, and for a package that is not installed.
    """
    from hybridvit.answers.run import Answering, answered
    from hybridvit.data.inputs import is_camera
    from hybridvit.task import TaskOptions

    wanted = [images] if isinstance(images, str | os.PathLike) else images
    options = Answering(
        top=top,
        batch=batch,
        tile=tile,
        overlap=overlap,
        every=every,
        frames=frames,
        pictures=None if pictures is None else Path(pictures),
        output=None if output is None else Path(output),
        embeddings=None if embeddings is None else Path(embeddings),
        zero_shot=None if zero_shot is None else Path(zero_shot),
    )
    found: dict[Path | str | FrameAt, Result | ImageDecodeError] = {}
    with answered(model, wanted, options, device=device, threads=threads, said=TaskOptions(said)) as (answers, inputs):
        if frames is None and any(map(is_camera, inputs)):
            raise UsageError("A camera gives pictures without end. Say how many: frames=100.")
        for answer in answers:
            found[answer.shown.where] = answer.result
    return found


def export(
    model: "Place | WholeModel",
    path: Place | None = None,
    *,
    to: str = "onnx",
    options: ExportOptions = EXPORT_DEFAULTS,
    images: "np.ndarray | Sequence[np.ndarray]" = (),
    quantisation: "QuantisationPlan | None" = None,
) -> "ExportReport":
    """Write a model for another runtime, proven equal: `hybridvit.export("model.safetensors", to="openvino")`.

    Args:
        model: a checkpoint, or a model with a card; it is folded first.
        path: the file to write; by default beside the checkpoint (here, if that is on the hub), with the suffix of the
            target.
        to: onnx, openvino, coreml, coreai, executorch, litert or tensorrt.
        options: precision, batch, sizes, and what the ends of the graph are.
        images: (n, channels, height, width), or (channels, height, width) each, preprocessed as the card says, to
            compare on besides random ones.
        quantisation: for int8, of `hybridvit.export.quantise.plan.plan_from_folder`.

    Raises as `hybridvit.export.pipeline.export`.
    """
    from hybridvit.checkpoints import load
    from hybridvit.export.pipeline import export as run
    from hybridvit.export.targets import exporter_for
    from hybridvit.hub import hub_place
    from hybridvit.loading import is_exported

    if not isinstance(model, str | os.PathLike):
        if path is None:
            raise UsageError("A model in memory lies in no folder, so where to write it is not known. Give a path.")
        return run(model, Path(path), to=to, options=options, images=images, quantisation=quantisation)
    if is_exported(model):
        raise UsageError(f"{os.fspath(model)} is exported already. Give the weights it came from.")
    place = hub_place(model)
    source = Path(place.name if place else model)
    beside = source.with_name(source.name.partition(".")[0] + exporter_for(to).suffix)
    target = beside if path is None else Path(path)
    return run(load(model), target, to=to, options=options, images=images, quantisation=quantisation)


def bench(
    models: "Place | WholeModel | Sequence[Place | WholeModel]",
    options: BenchOptions = BENCH_DEFAULTS,
    *,
    show: Callable[[str], None] = lambda _: None,
) -> "BenchResult":
    """Time models against each other on this machine: `hybridvit.bench(["fastvit_t8", "resnet50"]).records()`.

    Args:
        models: names of ours or of timm, checkpoints, exported files, or models with a card; one or several.
        options: what to measure and how: `hybridvit.BenchOptions(runtimes=["torch"], batch=[1, 8])`.
        show: told what is going on.

    Every candidate is timed in processes of its own, so a script (a notebook does not) needs the
    `if __name__ == "__main__":` that multiprocessing asks for. Raises as `hybridvit.measure.bench.bench`.
    """
    from hybridvit.measure.bench import bench as run

    several = models if isinstance(models, Sequence) and not isinstance(models, str) else [models]
    return run([os.fspath(each) if isinstance(each, os.PathLike) else each for each in several], options, show=show)


def _recipe(recipe: Place | Recipe, keys: Mapping[str, Any]) -> Recipe:
    if not isinstance(recipe, Recipe):
        return load_recipe(os.fspath(recipe), keys)
    if keys:
        raise UsageError(
            f"The recipe is read already, and {', '.join(keys)} would change it. Give its name or file instead, or "
            "dataclasses.replace its values."
        )
    return recipe


def _runner(model: "Place | WholeModel | Runner", device: Device, zero_shot: Place | None = None) -> "Runner":
    from hybridvit.evaluate.run import ready
    from hybridvit.export.runners import Runner, TorchRunner
    from hybridvit.loading import open_runner, present_device

    if isinstance(model, str | os.PathLike):
        return open_runner(model, device=device, zero_shot=zero_shot)
    if zero_shot is not None:
        raise UsageError(
            "zero_shot makes the model of a file name classes. Give the file, or the model that "
            "hybridvit.models.zero_shot.with_text_matrix makes."
        )
    if isinstance(model, Runner):
        return model
    return TorchRunner(ready(model), model.card, device=present_device(device))
