"""What a run is made of, from the recipe's samples and model to its optimizer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import ModelParallelStrategy
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from timm.scheduler.scheduler import Scheduler
from torch import nn

from hybridvit.card import ModelCard
from hybridvit.data.loader import Loader, make_eval_loader
from hybridvit.data.samples import Samples
from hybridvit.data.seeding import seed_everything
from hybridvit.errors import HybridViTError
from hybridvit.evaluate.run import Evaluation, Watch, answering, evaluate, ready
from hybridvit.recipe.recipe import Recipe
from hybridvit.task import Objective, Place, Splits, Task
from hybridvit.training.engine.average import WeightAverage
from hybridvit.training.engine.devices import batch_shape, memory_format
from hybridvit.training.engine.freezing import freeze_parts
from hybridvit.training.engine.optimizer import build_optimizer, build_schedule
from hybridvit.training.engine.sharding import WholeCopy, shard
from hybridvit.training.engine.watch import PeerWatch
from hybridvit.training.run.folder import RunFolder
from hybridvit.training.run.interrupt import StopRequest

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a run begins with: its samples, and a model that nothing was done to."""

    splits: Splits
    model: nn.Module
    card: ModelCard


@dataclass(kw_only=True)
class Run:
    """A training on this process, ready for a step."""

    recipe: Recipe
    fabric: Fabric
    task: Task
    splits: Splits
    card: ModelCard
    model: nn.Module  # whose weights are trained
    wrapped: _FabricModule  # the same, as Fabric calls it
    objective: Objective
    optimizer: _FabricOptimizer
    scheduler: Scheduler
    average: WeightAverage | None
    whole_copy: WholeCopy
    validation: Loader
    folder: RunFolder
    stop: StopRequest
    peers: PeerWatch

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.fabric.global_rank == 0

    @property
    def steps_per_epoch(self) -> int:
        return len(self.splits.train) // self.recipe.data.total_batch

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole schedule."""
        schedule = self.recipe.schedule
        return schedule.length(self.steps_per_epoch) + schedule.cooldown_epochs * self.steps_per_epoch

    @property
    def steps_per_validation(self) -> int:
        return max(1, round(self.recipe.validate_every * self.steps_per_epoch))

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON values that must be the same on resume; those named *_images may be allowed to differ."""
        return {
            "classes": list(self.splits.train.class_names),
            "training_images": self.splits.train.fingerprint,
            "validation_images": self.splits.validation.fingerprint,
            **self.objective.identity,
        }

    def whole(self, model: nn.Module) -> nn.Module:
        """`model`, or a copy with all of its weights where they are shared out over the processes."""
        return self.whole_copy.of(model, self.fabric.device)

    def validate(self, model: nn.Module, watch: Watch) -> Evaluation:
        """A model that has all its weights, on the validation samples: folded, in the precision of the run."""
        with answering(ready(model), self.task) as answer, self.fabric.autocast():
            return evaluate(answer, self.task, self.validation, self.card, watch=watch)


def material_of(recipe: Recipe, task: Task) -> Material:
    """The recipe's samples and model; equal in all processes."""
    seed_everything("model", recipe.seed)
    splits = task.open(recipe)
    model = task.start(recipe, splits)
    return Material(splits=splits, model=model, card=cast(ModelCard, model.card))


def objective_of(
    recipe: Recipe, fabric: Fabric, task: Task, card: ModelCard, samples: Samples | None = None
) -> Objective:
    """What the recipe minimises, on this process; `samples` are those to train on."""
    micro_batch, _ = batch_shape(recipe, fabric.world_size)
    layout = memory_format(recipe, fabric.device)
    place = Place(
        device=fabric.device, layout=layout, micro_batch=micro_batch, autocast=fabric.autocast, samples=samples
    )
    return task.objective(recipe, card, place)


def placed(model: nn.Module, recipe: Recipe, fabric: Fabric) -> nn.Module:
    """The model on this process's device, as the recipe lays it out and freezes it."""
    model.to(device=fabric.device, memory_format=memory_format(recipe, fabric.device))  # type: ignore[call-overload]  # torch's stub lacks this form
    freeze_parts(model, recipe.freeze)
    if recipe.grad_checkpointing:
        model.set_grad_checkpointing()  # type: ignore[operator]  # torch types every attribute as tensor or module
    return model


def prepare_run(
    recipe: Recipe,
    fabric: Fabric,
    task: Task,
    material: Material,
    objective: Objective,
    *,
    folder: RunFolder,
    stop: StopRequest,
    peers: PeerWatch,
) -> Run:
    """Everything between the model and the first step. The material's model is the run's from now on."""
    model = placed(material.model, recipe, fabric)
    if recipe.sync_batchnorm and fabric.world_size > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    # In this order: sharing out replaces the weights, and of a shared-out model there are no copies.
    average = WeightAverage(model, recipe.ema) if recipe.ema.decay else None
    whole_copy = WholeCopy(model, needed=recipe.strategy == "fsdp")
    compiled = cast(nn.Module, torch.compile(model, dynamic=False)) if recipe.compile else model
    wrapped = fabric.setup_module(compiled)
    if average is not None:
        if isinstance(fabric.strategy, ModelParallelStrategy):
            shard(average.module, fabric.strategy.device_mesh, forward_only=True)
        average.follow(model)
    optimizer = build_optimizer(recipe, model)
    steps_per_epoch = len(material.splits.train) // recipe.data.total_batch
    micro_batch, _ = batch_shape(recipe, fabric.world_size)
    return Run(
        recipe=recipe,
        fabric=fabric,
        task=task,
        splits=material.splits,
        card=material.card,
        model=model,
        wrapped=wrapped,
        objective=objective,
        scheduler=build_schedule(recipe, optimizer, steps_per_epoch),
        optimizer=cast(_FabricOptimizer, fabric.setup_optimizers(optimizer)),
        average=average,
        whole_copy=whole_copy,
        validation=make_eval_loader(
            material.splits.validation,
            collate=task.collate,
            batch_size=micro_batch,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            workers=recipe.data.workers,
            layout=memory_format(recipe, fabric.device),
            pin_memory=fabric.device.type == "cuda",
            start_method=start_method(fabric),
        ),
        folder=folder,
        stop=stop,
        peers=peers,
    )


def start_method(fabric: Fabric) -> Any:
    """How loader processes are started: a fork copies the locks of the process group's threads, but not the threads."""
    return "spawn" if fabric.world_size > 1 else None


def on_rank_zero(fabric: Fabric, do: Callable[[], Outcome]) -> Outcome:
    """What `do` gives on the first process, on all of them; what it raises there is raised on all."""
    outcome: Outcome | HybridViTError | None = None
    if fabric.global_rank == 0:
        try:
            outcome = do()
        except HybridViTError as error:
            outcome = error
    outcome = fabric.broadcast(outcome)
    if isinstance(outcome, HybridViTError):
        raise outcome
    return cast(Outcome, outcome)
