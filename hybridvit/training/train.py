"""From a recipe to a trained model in a run folder."""

import atexit
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed
from lightning_fabric import Fabric
from torch import nn

from hybridvit.atomic import write_text
from hybridvit.checkpoints import save_checkpoint
from hybridvit.data.loader import lost_worker
from hybridvit.errors import DatasetError, FoldError, UsageError
from hybridvit.evaluate.agreement import Agreement, agreement, full_precision
from hybridvit.evaluate.run import Watch, answering
from hybridvit.folding.fold import fold
from hybridvit.machine.facts import machine_card
from hybridvit.machine.memory import is_out_of_memory
from hybridvit.main_module import refuse_at_import
from hybridvit.quantity import Quantity
from hybridvit.recipe.file import recipe_text
from hybridvit.recipe.recipe import Recipe
from hybridvit.report.content import Report
from hybridvit.task import Objective, Task, find_task
from hybridvit.training.auto_batch import settle_micro_batch
from hybridvit.training.best import better_of, row_of
from hybridvit.training.engine.devices import batch_shape, build_fabric, leave_process_group
from hybridvit.training.engine.launch import launch
from hybridvit.training.engine.memory import out_of_memory
from hybridvit.training.engine.optimizer import check_optimizer
from hybridvit.training.engine.watch import PeerWatch
from hybridvit.training.fit import fitted, left_over
from hybridvit.training.loop import Loop, Position
from hybridvit.training.observe import Best, Observers
from hybridvit.training.record.progress import TrainingProgress
from hybridvit.training.record.record import Record
from hybridvit.training.record.weights_and_biases import require_wandb
from hybridvit.training.run.folder import Resume, open_run, recipe_of_run
from hybridvit.training.run.interrupt import StopRequest
from hybridvit.training.start import Material, Run, material_of, on_rank_zero, prepare_run

NUM_EXAMPLES = 12  # of each group, on the page


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished run leaves. Metrics are those of the best validation, whose weights the model file holds."""

    folder: Path
    model: Path  # of the best validation
    last: Path  # the weights of the last one, the better of raw and averaged
    recipe: Path
    metrics: Path
    report: Path
    history: tuple[dict[str, float], ...]  # one row per validation, as in metrics.csv
    weights: str  # "raw" or "averaged": which ones the model file holds, the better on validation
    step: int  # optimizer steps that these had seen
    epoch: float
    headline: Quantity  # what these numbers are of
    best: float  # of the weights in the model file
    raw: float
    averaged: float | None  # None: the recipe keeps no average
    agreement: Agreement | None  # of the weights in the model file, with their folded form; None: there is none
    content: Report | None = field(repr=False)  # of the report, on rank 0

    @property
    def folded(self) -> float | None:
        """The headline of the folded model."""
        return self.agreement.second.values[self.headline.name] if self.agreement is not None else None

    def summary(self) -> list[str]:
        """What the run came to, in lines for a person."""
        text = self.headline.text
        averaged = "" if self.averaged is None else f"   averaged {text(self.averaged)}"
        folded = "   folded: it cannot be"
        if self.agreement is not None and self.folded is not None:
            num_same, num_images = self.agreement.num_same, self.agreement.num_samples
            same = "all" if num_same == num_images else f"{num_same:,} of"
            folded = f"   folded {text(self.folded)} (same answer on {same} {num_images:,} images)"
        after = "" if self.step == self.history[-1]["step"] else f" of epoch {self.epoch:.4g}, the best validation"
        return [
            f"{self.headline.name}{after}: raw {text(self.raw)}{averaged}{folded}",
            f"{self.model} holds the {self.weights} weights. Curves, mistakes, all numbers: {self.report}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for result.json."""
        found = self.agreement
        return {
            "folder": str(self.folder),
            "model": str(self.model),
            "last": str(self.last),
            "recipe": str(self.recipe),
            "metrics": str(self.metrics),
            "history": list(self.history),
            "weights": self.weights,
            "step": self.step,
            "epoch": self.epoch,
            "headline": self.headline.name,
            "best": self.best,
            "raw": self.raw,
            "averaged": self.averaged,
            "folded": self.folded,
            "same_answers": found.num_same if found is not None else None,
            "num_images": found.num_samples if found is not None else None,
            "max_difference": found.max_difference if found is not None else None,
            "report": str(self.report),
        }


def train(
    recipe: Recipe,
    *,
    resume: Resume = False,
    allow_changes: bool = False,
    allow_data_change: bool = False,
    progress: bool = True,
    task: Task | None = None,
) -> RunResult:
    """Train as the recipe says, and leave the run in `recipe.output`.

    On a CPU, a run that was stopped and resumed is equal to the last bit to one that was not, with the same numbers of
    processes and threads, and any number of workers.

    Args:
        resume: False moves an earlier run aside; True goes on with it; "auto" goes on if there is something.
        allow_changes: go on although the recipe differs from the run's.
        allow_data_change: go on although the images differ from the run's; their classes must be the same.
        progress: show a bar (in a terminal) or lines on stderr.
        task: what to learn; the recipe's if None.

    Raises:
        UsageError, DatasetError, CheckpointError, DiskFull, OutOfMemory: as their names say; nothing half-written
            stays.
        NonFiniteError: a step was refused; the checkpoints before it are untouched.
        ProcessLost: another process of the run is gone, stuck, or ended with an error.
        Stopped: after SIGTERM or SIGINT, when everything is saved; a SystemExit with 143 or 130.
    """
    refuse_at_import()
    task = task or find_task(recipe.task)
    if recipe.dry_run:
        raise UsageError(
            "This recipe asks for a dry run, and train() trains. Call dry_run(recipe), or set it to false."
        )
    with StopRequest() as stop:
        fabric = build_fabric(recipe)
        launch(fabric, stop, recipe.timeout_seconds)
        if fabric.world_size > 1:
            atexit.register(leave_process_group)
        with PeerWatch(fabric, stop, recipe.timeout_seconds) as peers:
            bar = TrainingProgress(task.headline, shown=progress and fabric.global_rank == 0)
            material = material_of(recipe, task)
            earlier = on_rank_zero(fabric, lambda: recipe_of_run(Path(recipe.output).expanduser())) if resume else None
            recipe, objective = _settled(recipe, fabric, task, material, earlier, bar.said)
            folder = on_rank_zero(
                fabric, lambda: open_run(recipe, resume=resume, allow_changes=allow_changes, say=bar.said)
            )
            peers.folder = folder.path
            try:
                run = prepare_run(recipe, fabric, task, material, objective, folder=folder, stop=stop, peers=peers)
                with _explained(run):
                    return _train(run, bar, allow_data_change)
            finally:
                if fabric.global_rank == 0:
                    folder.lock.release()


def _settled(
    recipe: Recipe, fabric: Fabric, task: Task, material: Material, earlier: Recipe | None, say: Callable[[str], None]
) -> tuple[Recipe, Objective]:
    """The recipe as these images and devices take it, with its objective; what should be known about it is said."""
    num_images = len(material.splits.train)
    recipe = fitted(recipe, num_images, fabric.world_size, earlier=earlier, say=say)
    recipe, objective = settle_micro_batch(recipe, fabric, task, material, earlier=earlier, say=say)
    _check(recipe, num_images, fabric)
    if over := left_over(num_images, recipe.data.total_batch):
        say(over)
    if recipe.freeze and recipe.pretrained is False:
        say(f"freeze is '{recipe.freeze}', but the weights are random and stay so: set 'pretrained'.")
    return recipe, objective


@contextmanager
def _explained(run: Run) -> Iterator[None]:
    """Turn what torch raises when memory or a loader process is gone into errors that say so; end the workers."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise out_of_memory(run.recipe, run.fabric.world_size) from error
        if (lost := lost_worker(error)) is not None:
            raise lost from error
        raise
    finally:
        run.validation.close()


def _train(run: Run, bar: TrainingProgress, allow_data_change: bool) -> RunResult:
    record = Record(run, say=bar)
    observers = Observers(record, bar)
    loop = Loop(run, observers)
    if run.folder.snapshot is not None:
        loop.restore(allow_data_change=allow_data_change)
    if run.leads:
        write_text(run.folder.recipe, recipe_text(run.recipe))
    with observers:
        position = loop.train()
        if loop.ended_early:
            text = f"Ended early: the last {run.recipe.early_stop} validations were not better than the best."
            record.events.add(text, "end")
            bar.said(text)
        best = _keep(run, loop)
        bar.said("comparing with the folded model")
        found = _compared_with_folded(run, best, record, watch=bar.validating)
        result = _result(run, position, found, record.finish(agreement=found))
        if run.leads:
            told = result.to_dict() | {"machine": dict(machine_card().lines())}
            write_text(run.folder.result, json.dumps(told, indent=1))
    if run.leads:
        for line in result.summary():
            bar.said(line)
    run.fabric.barrier()
    return result


def _keep(run: Run, loop: Loop) -> nn.Module:
    """Write the weights of the last and of the best validation; the model with the latter, whole on every process."""
    position = loop.position
    assert position.best is not None
    last = run.whole(_weights_of(run, better_of(None, position.history[-1], run.task.headline)))
    if run.leads:
        save_checkpoint(last, run.folder.last)
    model = last
    if position.best.step != position.history[-1]["step"]:
        model = run.whole(_weights_of(run, position.best))
        if loop.best_weights is not None:
            model.load_state_dict(loop.best_weights)
        if run.fabric.world_size > 1:
            for tensor in model.state_dict().values():
                torch.distributed.broadcast(tensor, src=0)
    if run.leads:
        save_checkpoint(model, run.folder.model)
    return model


def _weights_of(run: Run, best: Best) -> nn.Module:
    return run.average.module if run.average is not None and best.weights == "averaged" else run.model


def _compared_with_folded(run: Run, model: nn.Module, record: Record, *, watch: Watch) -> Agreement | None:
    """The trained model against its folded form, both in 32 bits, on all validation samples; every process calls it.

    None, and an event, if it cannot be folded exactly.
    """
    was_training = model.training
    try:
        folded = fold(model.eval())
    except FoldError as error:
        record.events.add(f"The model could not be folded: {error}")
        return None
    finally:
        model.train(was_training)
    with answering(model, run.task) as first, answering(folded, run.task) as second, full_precision():
        return agreement(first, second, run.task, run.validation, run.card, num_examples=NUM_EXAMPLES, watch=watch)


def _check(recipe: Recipe, num_images: int, fabric: Fabric) -> None:
    """Refuse what cannot run before the output folder is touched."""
    batch_shape(recipe, fabric.world_size)
    if num_images < recipe.data.total_batch:
        raise DatasetError(
            f"data.total_batch is {recipe.data.total_batch}, but the training set has {num_images} images, so "
            "an epoch would have no step. Lower data.total_batch, or add --fit."
        )
    check_optimizer(recipe)
    if recipe.wandb:
        require_wandb()


def _result(run: Run, position: Position, found: Agreement | None, content: Report | None) -> RunResult:
    best, name = position.best, run.task.headline.name
    assert best is not None
    row = row_of(best, position.history)
    return RunResult(
        folder=run.folder.path,
        model=run.folder.model,
        last=run.folder.last,
        recipe=run.folder.recipe,
        metrics=run.folder.metrics,
        report=run.folder.report,
        history=tuple(position.history),
        weights=best.weights,
        step=best.step,
        epoch=best.epoch,
        headline=run.task.headline,
        best=best.value,
        raw=row[name],
        averaged=row.get(f"ema_{name}"),
        agreement=found,
        content=content,
    )
