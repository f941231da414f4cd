"""The whole way once: train, evaluate, fold, export, measure, predict, and a report to look at."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from hybridvit import api
from hybridvit.answers.run import Answering
from hybridvit.checkpoints import load, save_checkpoint
from hybridvit.cli.bench import table
from hybridvit.cli.predict import predict
from hybridvit.data.preprocess import prepare
from hybridvit.data.samples import Samples
from hybridvit.demo.demos import Demo
from hybridvit.demo.report import with_deployment
from hybridvit.errors import command_line
from hybridvit.evaluate.run import Evaluation, evaluate_model
from hybridvit.export.pipeline import ExportReport, export
from hybridvit.folding.fold import fold
from hybridvit.folding.report import fold_report
from hybridvit.measure.bench import bench
from hybridvit.measure.counts import count, graph_nodes
from hybridvit.measure.options import BenchOptions
from hybridvit.models.whole import WholeModel
from hybridvit.recipe.file import load_recipe
from hybridvit.report.html import write_report
from hybridvit.task import Task, find_task
from hybridvit.training.record.page import clock
from hybridvit.training.train import train

MEASURED = BenchOptions(
    runtimes=("torch", "onnxruntime"), forms=("folded", "training"), rounds=300, seconds=20.0, processes=1
)
STEPS = 7


def walk_through(demo: Demo, output: Path, overrides: Mapping[str, str]) -> Path:
    """Run everything into `output` (an earlier run there is moved aside) and return the path of the report."""
    recipe = load_recipe(demo.recipe, {"output": str(output), **overrides})
    task = find_task(recipe.task)
    began = time.perf_counter()
    with step(1, "Images"):
        data = Path(recipe.data.root)
        data.parent.mkdir(parents=True, exist_ok=True)
        splits = task.open(recipe)  # writes them
        print(f"{len(splits.train):,} images to train on and {len(splits.validation):,} to test, in {data}")
    with step(2, f"Train {recipe.model}, recipe '{demo.recipe}'"):
        run = train(recipe)
        trained_s = time.perf_counter() - began
    with step(3, "Evaluate on the test images"):
        model = load(run.model)
        evaluation = _evaluated(model, splits.validation, task)
    paths = list(splits.validation.paths)
    images = np.stack([prepare(path, model.card.preprocessing) for path in paths])
    with step(4, "Fold"):
        folded = fold(model)
        assert isinstance(folded, WholeModel)
        folding = fold_report(model, folded, torch.from_numpy(images))
        save_checkpoint(folded, output / "model-folded.safetensors")
        print(folding)
    with step(5, "Export to ONNX and compare on the test images"):
        exported = _exported(model, output / "model.onnx", images)
    with step(6, "Measure"):
        size = model.card.preprocessing.image_size
        measured = bench([model], MEASURED)
        print(table(measured.records()))
    with step(7, "Predict with the exported model"):
        predict(str(exported.path), paths[:: len(paths) // 3][:3], options=Answering(top=2))
        if demo.drawn:
            api.predict(exported.path, paths[: demo.drawn], pictures=output / "drawn")
            print(f"Drawn: {len(paths[: demo.drawn])} pictures in {output / 'drawn'}")
    before, after = count(model, size), count(folded, size)
    report = run.report
    assert run.content is not None  # this process is the only one, so it leads
    write_report(
        with_deployment(
            run.content,
            title=f"{recipe.model} {demo.title}",
            lead=(
                demo.lead.format(
                    time=clock(trained_s), cores=measured.machine.cores, tested=f"{evaluation.num_samples:,}"
                )
                + f" The {run.weights} weights of epoch {run.epoch:g}, the best of all validations, on these images."
            ),
            headline=task.headline,
            evaluation=evaluation,
            folding=folding,
            nodes=(graph_nodes(model, size), graph_nodes(folded, size)),
            multiply_adds=(before.multiply_adds, after.multiply_adds),
            exported=exported,
            measured=measured,
            commands=commands(demo, output, data / recipe.data.val if demo.example else data),
        ),
        report,
    )
    print(f"\nDone in {clock(time.perf_counter() - began)}. The report: {report.resolve()}")
    return report


def _exported(model: WholeModel, path: Path, images: np.ndarray) -> ExportReport:
    """Write the file, and print how close it comes on `images`."""
    exported = export(model, path, images=images)
    parity = exported.parity
    print(
        f"{exported.path}: largest difference {parity.found} (limit {parity.limit:.0e}), "
        f"same answer on {parity.num_same} of {parity.real_images} test images"
    )
    return exported


def _evaluated(model: WholeModel, test: Samples, task: Task) -> Evaluation:
    """What the model is worth on the test images."""
    found = evaluate_model(model, test, task, model.card)
    values = ", ".join(f"{each.title} {each.text(found.scores.values[each.name])}" for each in task.quantities)
    print(f"{values}, on {found.num_samples} images")
    return found


@contextmanager
def step(number: int, title: str) -> Iterator[None]:
    """Announce a step, and say how long it took."""
    print(f"\n[{number}/{STEPS}] {title}", flush=True)
    began = time.perf_counter()
    yield
    print(f"      {time.perf_counter() - began:.1f} s", flush=True)


def commands(demo: Demo, output: Path, test: Path) -> list[tuple[str, str]]:
    """How to do each part again by hand."""
    model, file = output / "model.safetensors", output / "model.onnx"
    words: dict[str, tuple[object, ...]] = {
        "Train": ("train", demo.recipe, "--output", output),
        "Evaluate": ("evaluate", model, test),
        "Fold": ("fold", model),
        "Export": ("export", model, "--images", test),
        "Measure": ("bench", model),
        "Predict": ("predict", file, test / demo.example),
    }
    return [("All of this", f"make {demo.make}")] + [
        (what, command_line("hybridvit", *each)) for what, each in words.items()
    ]
