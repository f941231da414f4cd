"""From a recipe to a trained model in a run folder."""

import atexit
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import ModelParallelStrategy
from lightning_fabric.wrappers import _FabricOptimizer
from torch import nn

from hybridvit.atomic import write_text
from hybridvit.data.loader import lost_worker
from hybridvit.errors import DatasetError, HybridViTError, UsageError
from hybridvit.recipe.file import recipe_text
from hybridvit.recipe.recipe import Recipe
from hybridvit.report.content import Report
from hybridvit.training.classify.final_check import FinalCheck
from hybridvit.training.engine.auto_batch import TaskBuilder, settle_micro_batch
from hybridvit.training.engine.average import WeightAverage
from hybridvit.training.engine.devices import batch_shape, build_fabric, leave_process_group, memory_format
from hybridvit.training.engine.launch import launch
from hybridvit.training.engine.memory import is_out_of_memory, out_of_memory
from hybridvit.training.engine.optimizer import build_optimizer, build_schedule, check_optimizer
from hybridvit.training.engine.sharding import WholeCopy, shard
from hybridvit.training.engine.watch import PeerWatch
from hybridvit.training.loop import Loop, Position, total_steps
from hybridvit.training.record.progress import TrainingProgress
from hybridvit.training.record.record import Record
from hybridvit.training.record.weights_and_biases import require_wandb
from hybridvit.training.run.folder import Resume, RunFolder, open_run
from hybridvit.training.run.interrupt import StopRequest
from hybridvit.training.task import Task


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished run leaves. Metrics are those of the last validation."""

    folder: Path
    model: Path
    recipe: Path
    metrics: Path
    history: tuple[dict[str, float], ...]  # one row per validation, as in metrics.csv
    weights: str  # "raw" or "averaged": which ones the model file holds, the better on validation
    headline: str  # name of the metric that these numbers are of, in percent
    best: float  # of the weights in the model file
    raw: float
    averaged: float | None  # None: the recipe keeps no average
    folded: float | None  # of the weights in the model file; None, as what follows: they could not be folded
    same_answers: int | None  # validation images on which the folded model answers the same
    num_images: int | None  # to validate on
    max_difference: float | None  # of a logit after folding, relative to the largest
    report: Path
    content: Report | None = dataclasses.field(repr=False)  # of the report, on rank 0

    def summary(self) -> list[str]:
        """What the run came to, in lines for a person."""
        averaged = "" if self.averaged is None else f"   averaged {self.averaged:.2f}"
        folded = "   folded: it cannot be"
        if self.folded is not None and self.same_answers is not None and self.num_images is not None:
            same = "all" if self.same_answers == self.num_images else f"{self.same_answers:,} of"
            folded = f"   folded {self.folded:.2f} (same answer on {same} {self.num_images:,} images)"
        return [
            f"{self.headline}: raw {self.raw:.2f}{averaged}{folded}",
            f"{self.model} holds the {self.weights} weights. Curves, mistakes, all numbers: {self.report}",
        ]


def train(
    recipe: Recipe,
    *,
    resume: Resume = False,
    allow_changes: bool = False,
    allow_data_change: bool = False,
    progress: bool = True,
    build_task: TaskBuilder | None = None,
) -> RunResult:
    """Train as the recipe says, and leave the run in `recipe.output`.

    On a CPU, a run that was stopped and resumed is equal to the last bit to one that was not, with the same numbers of
    processes and threads, and any number of workers.

    Args:
        resume: False moves an earlier run aside; True goes on with it; "auto" goes on if there is something.
        allow_changes: go on although the recipe differs from the run's.
        allow_data_change: go on although the images differ from the run's; their classes must be the same.
        progress: show a bar (in a terminal) or lines on stderr.
        build_task: what to learn; classification if None.

    Raises:
        UsageError, DatasetError, CheckpointError, DiskFull, OutOfMemory: as their names say; nothing half-written
            stays.
        NonFiniteError: a step was refused; the checkpoints before it are untouched.
        ProcessLost: another process of the run is gone, stuck, or ended with an error.
        Stopped: after SIGTERM or SIGINT, when everything is saved; a SystemExit with 143 or 130.
    """
    if build_task is None:
        from hybridvit.training.classify.task import ClassifyTask

        build_task = ClassifyTask
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
            say = _say(progress and fabric.global_rank == 0)
            recipe, task = settle_micro_batch(recipe, fabric, build_task, resume=resume, say=say)
            try:
                _check(recipe, task, fabric)
                folder = _open_on_all_ranks(recipe, fabric, resume, allow_changes, progress)
                peers.folder = folder.path
                try:
                    return _train(recipe, fabric, task, folder, stop, peers, progress, allow_data_change)
                except (RuntimeError, MemoryError) as error:
                    if is_out_of_memory(error):
                        raise out_of_memory(recipe, fabric.world_size) from error
                    if (lost := lost_worker(error)) is not None:
                        raise lost from error
                    raise
                finally:
                    if fabric.global_rank == 0:
                        folder.release()
            finally:
                task.close()


def _train(
    recipe: Recipe,
    fabric: Fabric,
    task: Task,
    folder: RunFolder,
    stop: StopRequest,
    peers: PeerWatch,
    progress: bool,
    allow_data_change: bool,
) -> RunResult:
    task.model.to(device=fabric.device, memory_format=memory_format(recipe, fabric.device))  # type: ignore[call-overload]  # torch's stub lacks this form
    if recipe.grad_checkpointing:
        task.model.set_grad_checkpointing()  # type: ignore[operator]  # torch types every attribute as tensor or module
    if recipe.sync_batchnorm and fabric.world_size > 1:
        task.model = nn.SyncBatchNorm.convert_sync_batchnorm(task.model)
    # In this order: sharing out replaces the weights, and of a shared-out model there are no copies.
    ema = WeightAverage(task.model, recipe.ema) if recipe.ema.decay else None
    whole_copy = WholeCopy(task.model, needed=recipe.strategy == "fsdp")
    compiled = cast(nn.Module, torch.compile(task.model, dynamic=False)) if recipe.compile else task.model
    model = fabric.setup_module(compiled)
    if ema is not None:
        if isinstance(fabric.strategy, ModelParallelStrategy):
            shard(ema.module, fabric.strategy.device_mesh, forward_only=True)
        ema.follow(task.model)
    optimizer = build_optimizer(recipe, task.model)
    steps_per_epoch = len(task.images) // recipe.data.total_batch
    scheduler = build_schedule(recipe, optimizer, steps_per_epoch)
    leads = fabric.global_rank == 0
    bar = TrainingProgress(
        total_steps=total_steps(recipe, steps_per_epoch),
        steps_per_epoch=steps_per_epoch,
        steps_per_validation=max(1, round(recipe.validate_every * steps_per_epoch)),
        shown=progress and leads,
    )
    task.watch = bar.validating
    loop = Loop(
        fabric=fabric,
        recipe=recipe,
        task=task,
        model=model,
        optimizer=cast(_FabricOptimizer, fabric.setup_optimizers(optimizer)),
        scheduler=scheduler,
        ema=ema,
        whole=lambda module: whole_copy.of(module, fabric.device),
        folder=folder,
        stop=stop,
        peers=peers,
        progress=bar,
    )
    if folder.snapshot is not None:
        loop.restore(allow_data_change=allow_data_change)
    if leads:
        write_text(folder.recipe, recipe_text(recipe))
    record = Record(loop, say=bar.say)
    with bar:
        with record:
            position = loop.run()
        weights, _ = _better(task, position)
        best = whole_copy.of(ema.module if ema is not None and weights == "averaged" else task.model, fabric.device)
        if leads:
            task.keep(best, folder.model)
        check = record.check_folded(best)
        report = record.finish(weights=weights, check=check)
    result = _result(folder, task, position, check, report)
    if leads:
        write_text(folder.result, json.dumps(_result_record(result), indent=1))
        for line in result.summary():
            bar.say(line)
    fabric.barrier()
    return result


def _check(recipe: Recipe, task: Task, fabric: Fabric) -> None:
    """Refuse what cannot run before the output folder is touched."""
    batch_shape(recipe, fabric.world_size)
    if len(task.images) < recipe.data.total_batch:
        raise DatasetError(
            f"data.total_batch is {recipe.data.total_batch}, but the training set has {len(task.images)} images, so "
            "an epoch would have no step. Lower data.total_batch."
        )
    check_optimizer(recipe)
    if recipe.wandb:
        require_wandb()


def _open_on_all_ranks(
    recipe: Recipe, fabric: Fabric, resume: Resume, allow_changes: bool, progress: bool
) -> RunFolder:
    """Rank 0 opens the folder; all ranks get the folder, or raise the same error."""
    outcome: RunFolder | HybridViTError | None = None
    if fabric.global_rank == 0:
        try:
            outcome = open_run(recipe, resume=resume, allow_changes=allow_changes, say=_say(progress))
        except HybridViTError as error:
            outcome = error
    outcome = fabric.broadcast(outcome)
    if isinstance(outcome, HybridViTError):
        raise outcome
    if outcome is None:
        raise UsageError(f"The first process did not open the run folder {recipe.output}. Start the run again.")
    return outcome


def _say(progress: bool) -> Callable[[str], None]:
    return TrainingProgress(total_steps=1, steps_per_epoch=1, shown=progress).say


def _better(task: Task, position: Position) -> tuple[str, float]:
    """Which weights are better on validation, and their headline metric; the raw ones of equals."""
    last = position.history[-1]
    raw, averaged = last[task.headline], last.get(f"ema_{task.headline}", float("-inf"))
    return ("averaged", averaged) if averaged > raw else ("raw", raw)


def _result(
    folder: RunFolder, task: Task, position: Position, check: FinalCheck | None, content: Report | None
) -> RunResult:
    last = position.history[-1]
    weights, best = _better(task, position)
    return RunResult(
        folder=folder.path,
        model=folder.model,
        recipe=folder.recipe,
        metrics=folder.metrics,
        report=folder.report,
        history=tuple(position.history),
        weights=weights,
        headline=task.headline,
        best=best,
        raw=last[task.headline],
        averaged=last.get(f"ema_{task.headline}"),
        folded=check.after if check is not None else None,
        same_answers=check.same_answers if check is not None else None,
        num_images=check.num_images if check is not None else None,
        max_difference=check.max_difference if check is not None else None,
        content=content,
    )


def _result_record(result: RunResult) -> dict[str, Any]:
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    del values["content"]  # report.html has it
    return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
