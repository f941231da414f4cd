"""The training loop of every task: one order of things, and one integer that says where it is.

The position is the number of optimizer steps done. Epoch, order, augmentation, mixing, drop-path and learning rate
are functions of it and of the seed, so a run that goes on from a checkpoint does what it would have done.
"""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn

from hybridvit.data.loader import Batch, make_train_loader
from hybridvit.errors import CheckpointError, NonFiniteError
from hybridvit.recipe.recipe import Recipe
from hybridvit.training.engine.average import WeightAverage
from hybridvit.training.engine.optimizer import learning_rate
from hybridvit.training.engine.sharding import gathered, is_sharded, load_whole, part_of
from hybridvit.training.engine.watch import PeerWatch
from hybridvit.training.record.logbook import Logbook
from hybridvit.training.record.progress import TrainingProgress
from hybridvit.training.run.folder import RunFolder
from hybridvit.training.run.interrupt import Stopped, StopRequest
from hybridvit.training.run.snapshot import read_snapshot, save_snapshot
from hybridvit.training.step import StepOutcome, Stepper
from hybridvit.training.task import Moment, Task

MOST_SKIPPED = 50  # in a row: a scale 2^50 times smaller than at the start would save no gradient either


@dataclass
class Position:
    """Where a run is. All of it is saved; everything else about the position follows from `step`."""

    step: int = 0  # optimizer steps done, those that were skipped included
    validated_step: int = 0  # the last step that was validated
    loss_sum: float = 0.0  # training loss since then, over `loss_count` steps
    loss_count: int = 0
    skipped: int = 0  # steps whose gradient left float16's range
    skipped_in_a_row: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # one row per validation


class Loop:
    """Trains `task.model` to the end of its schedule.

    `model` and `optimizer` are what Fabric made of the task's; `task.model` shares their weights. `whole` gives a model
    with all of its weights for one whose weights may be shared out over the ranks.
    """

    def __init__(
        self,
        *,
        fabric: Fabric,
        recipe: Recipe,
        task: Task,
        model: _FabricModule,
        optimizer: _FabricOptimizer,
        scheduler: Scheduler,
        ema: WeightAverage | None,
        whole: Callable[[nn.Module], nn.Module],
        folder: RunFolder,
        stop: StopRequest,
        peers: PeerWatch,
        progress: TrainingProgress,
    ) -> None:
        self.fabric, self.recipe, self.task, self.model, self.ema = fabric, recipe, task, model, ema
        self.whole = whole
        self.optimizer, self.scheduler = optimizer, scheduler
        self.folder, self.peers, self.progress = folder, peers, progress
        self.logbook = Logbook()
        self.logging_state: dict[str, str] = {}  # what the loggers need to go on in the same place
        self.position = Position()
        self.saved_step = 0
        self.steps_per_epoch = per_epoch = len(task.images) // recipe.data.total_batch
        self.total_steps = total_steps(recipe, per_epoch)
        self.stepper = Stepper(
            fabric=fabric, recipe=recipe, task=task, model=model, optimizer=optimizer, stop=stop, peers=peers
        )
        self.validate_every = max(1, round(recipe.validate_every * per_epoch))
        self.save_every = max(1, round(recipe.save_every * per_epoch))
        self.log_every = max(1, per_epoch // 50)
        self._stopping = 0  # the signal all ranks agreed on

    @property
    def finished(self) -> bool:
        return self.position.step >= self.total_steps

    def run(self) -> Position:
        """Train to the end. Raises Stopped after a signal, NonFiniteError before a step that would do harm."""
        loader = make_train_loader(
            self.task.images,
            batch_size=self.stepper.batch_size,
            accumulate=self.stepper.accumulate,
            first_step=self.position.step,
            num_steps=self.total_steps,
            rank=self.fabric.global_rank,
            world_size=self.fabric.world_size,
            seed=self.recipe.seed,
            workers=self.recipe.data.workers,
            pin_memory=self.fabric.device.type == "cuda",
            # A fork copies the locks of the process group's threads, but not the threads that would open them.
            start_method="spawn" if self.fabric.world_size > 1 else None,
        )
        try:
            return self._run(self.progress.pace.timed(iter(loader)))
        finally:
            loader.close()

    def _run(self, stream: Iterator[Batch]) -> Position:
        while True:
            if self._validation_is_due() and not self._stopping:
                self._validate()
            if self._save_is_due():
                self.save()
            if self._stopping:
                message = (
                    f"Stopped by {signal.Signals(self._stopping).name} after step {self.position.step} of "
                    f"{self.total_steps}; everything is saved in {self.folder.path}. Go on with --resume."
                )
                self.progress.say(message)
                raise Stopped(self._stopping, message)
            if self.finished:
                return self.position
            self._train_step(stream)

    def save(self) -> None:
        """Write the whole state. Every rank calls it; rank 0 writes.

        Raises NonFiniteError for weights that are not finite: such a state never takes the place of a good one.
        """
        self.peers.reached(f"the checkpoint of step {self.position.step}")
        self._refuse_poisoned()
        state = self.state()
        if self.fabric.global_rank == 0:
            save_snapshot(
                self.folder.checkpoints,
                self.position.step,
                state,
                keep=self.recipe.keep,
                world_size=self.fabric.world_size,
            )
        self.saved_step = self.position.step
        self.fabric.barrier()
        self.progress.pause()

    def _refuse_poisoned(self) -> None:
        averaged = self.ema.module.state_dict() if self.ema is not None else {}
        for name, tensor in [*self.task.model.state_dict().items(), *averaged.items()]:
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise NonFiniteError(
                    f"After step {self.position.step} the weights are not finite ('{name}' is the first of them), at "
                    f"learning rate {learning_rate(self.optimizer):g}. Nothing of it is saved: lower --optim.lr or set "
                    "--optim.clip_norm, and resume from the last checkpoint."
                )

    def state(self) -> dict[str, Any]:
        """All that a run needs to go on, as tensors and JSON values; the tensors are whole on rank 0."""
        state = {
            "position": vars(self.position),
            "world_size": self.fabric.world_size,
            "num_threads": torch.get_num_threads(),
            "identity": dict(self.task.identity),
            "model": self.task.model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "optimizer": self.optimizer.optimizer.state_dict(),
            "scaler": self.stepper.state(),
            "logging": self.logging_state,
        }
        return gathered(state, keep=self.fabric.global_rank == 0) if is_sharded(self.task.model) else state

    def restore(self, *, allow_data_change: bool = False) -> None:
        """Take up the state in the run folder's snapshot.

        Raises CheckpointError if it was trained on other images, unless these may have changed, or other classes.
        """
        if self.folder.snapshot is None:
            raise CheckpointError(f"{self.folder.path} has no checkpoint to go on from.")
        state = read_snapshot(self.folder.snapshot)
        self._compare_data(state["identity"], dict(self.task.identity), allow_data_change)
        self.position = Position(**state["position"])
        self.saved_step = self.position.step
        load_whole(self.task.model, state["model"])
        if self.ema is not None:
            load_whole(self.ema.module, state["ema"] or state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        _match_layout(self.optimizer)
        self.stepper.load_state(state.get("scaler", {}))
        self.stepper.rehearse = self.fabric.world_size > 2 and self.recipe.strategy == "ddp"
        self.logging_state = state.get("logging", {})
        self.progress.start_at(self.position.step)
        if state["world_size"] != self.fabric.world_size and self.fabric.global_rank == 0:
            self.progress.say(
                f"This run had {state['world_size']} processes and now has {self.fabric.world_size}: it sees the same "
                "images in the same steps, but BatchNorm's statistics are per process, so the weights will differ."
            )
        if state["num_threads"] != torch.get_num_threads() and self.fabric.device.type == "cpu":
            self.progress.say(
                f"The number of threads was {state['num_threads']} and is now {torch.get_num_threads()}: sums are "
                "taken in another order, so the weights differ in their last bits (OMP_NUM_THREADS sets the number)."
            )

    def _compare_data(self, saved: dict[str, Any], present: dict[str, Any], allow_change: bool) -> None:
        for key in sorted(saved.keys() | present.keys()):
            if saved.get(key) == present.get(key):
                continue
            change = f"other {key.replace('_', ' ')} ({_short(saved.get(key))}) than there are now"
            images = key.endswith("_images")
            if not (images and allow_change):
                allow = ", take the change on with --allow_data_change" if images else ""
                raise CheckpointError(
                    f"The run was trained with {change} ({_short(present.get(key))}). Put back what was there{allow}, "
                    "or start a new run."
                )
            if self.fabric.global_rank == 0:
                self.progress.say(f"The run was trained with {change}; it goes on with the present ones.")

    def _validation_is_due(self) -> bool:
        step = self.position.step
        return step > self.position.validated_step and (step % self.validate_every == 0 or self.finished)

    def _save_is_due(self) -> bool:
        step = self.position.step
        due = step % self.save_every == 0 or self.finished or bool(self._stopping)
        return step > self.saved_step and due

    def _validate(self) -> None:
        position = self.position
        self.peers.reached(f"the validation after step {position.step}")
        row: dict[str, float] = {
            "step": position.step,
            "epoch": position.step / self.steps_per_epoch,
            "lr": learning_rate(self.optimizer),
            "train_loss": position.loss_sum / max(position.loss_count, 1),
            "images_per_second": round(self.progress.pace.lap("validation").images_per_second, 1),
        }
        if self.stepper.scales:
            row["skipped_steps"] = position.skipped
        row |= self.task.validate(self.whole(self.task.model))
        if self.ema is not None:
            row |= {f"ema_{name}": value for name, value in self.task.validate(self.whole(self.ema.module)).items()}
        position.history.append(row)
        position.validated_step, position.loss_sum, position.loss_count = position.step, 0.0, 0
        self.logbook.validated(row)
        self.progress.validated(row, self.task.headline)

    def _train_step(self, stream: Iterator[Batch]) -> None:
        position = self.position
        self.scheduler.step_update(position.step)
        averaged = self.ema.module if self.ema is not None else None
        moment = Moment(step=position.step, total_steps=self.total_steps, averaged=averaged)
        outcome = self.stepper.take(stream, moment)
        self._stopping = outcome.signum
        position.step += 1
        position.loss_sum += outcome.loss
        position.loss_count += 1
        self._count_skipped(outcome.skipped)
        if self.ema is not None and not outcome.skipped:
            self.ema.update(step=position.step)
        self.progress.step(position.step, loss=outcome.loss, images=self.recipe.data.total_batch)
        if position.step % self.log_every == 0:
            self._log_step(outcome)

    def _log_step(self, outcome: StepOutcome) -> None:
        pace = self.progress.pace
        lap = pace.lap("step")
        self.logbook.step(
            {
                "step": self.position.step,
                "epoch": self.position.step / self.steps_per_epoch,
                "loss": outcome.loss,
                "lr": learning_rate(self.optimizer),
                "grad_norm": outcome.norm,
                "images_per_second": round(lap.images_per_second, 1),
                "data_wait": round(lap.data_wait, 4),
                "seconds": round(self.logbook.seconds_before + pace.session_seconds, 1),
            }
        )

    def _count_skipped(self, skipped: bool) -> None:
        position = self.position
        position.skipped += skipped
        position.skipped_in_a_row = position.skipped_in_a_row + 1 if skipped else 0
        if position.skipped_in_a_row >= MOST_SKIPPED:
            raise NonFiniteError(
                f"The last {MOST_SKIPPED} steps up to {position.step} were skipped: their gradient is not finite at "
                "any scale of the loss, so it is not float16's range that is too small. Lower --optim.lr, set "
                "--optim.clip_norm, or train with --precision bf16-mixed or 32-true, and resume from the last "
                "checkpoint."
            )


def total_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole schedule."""
    return (recipe.schedule.epochs + recipe.schedule.cooldown_epochs) * steps_per_epoch


def _match_layout(optimizer: Any) -> None:
    """Lay the restored moments out, and share them out, as their weights are: mixed strides take slower kernels."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(part_of(value, parameter))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
