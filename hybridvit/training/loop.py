"""The training loop of every task: one order of things, and one integer that says where it is.

The position is the number of optimizer steps done. Epoch, order, augmentation, mixing, drop-path and learning rate
are functions of it and of the seed, so a run that goes on from a checkpoint does what it would have done.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from hybridvit.data.loader import Batch, make_train_loader
from hybridvit.errors import CheckpointError, NonFiniteError
from hybridvit.training.interrupt import Stopped, StopRequest
from hybridvit.training.logbook import Logbook
from hybridvit.training.optimizer import learning_rate
from hybridvit.training.peers import PeerWatch
from hybridvit.training.progress import TrainingProgress
from hybridvit.training.recipe import Recipe
from hybridvit.training.run_folder import RunFolder
from hybridvit.training.snapshot import read_snapshot, save_snapshot
from hybridvit.training.step import Stepper
from hybridvit.training.task import Moment, Task


@dataclass
class Position:
    """Where a run is. All of it is saved; everything else about the position follows from `step`."""

    step: int = 0  # optimizer steps done
    validated_step: int = 0  # the last step that was validated
    loss_sum: float = 0.0  # training loss since then, over `loss_count` steps
    loss_count: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # one row per validation


class Loop:
    """Trains `task.model` to the end of its schedule.

    `model` and `optimizer` are what Fabric made of the task's; `task.model` shares their weights.
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
        ema: ModelEmaV3 | None,
        folder: RunFolder,
        stop: StopRequest,
        peers: PeerWatch,
        progress: TrainingProgress,
        logbook: Logbook | None,
    ) -> None:
        self.fabric, self.recipe, self.task, self.model, self.ema = fabric, recipe, task, model, ema
        self.optimizer, self.scheduler = optimizer, scheduler
        self.folder, self.peers, self.progress, self.logbook = folder, peers, progress, logbook
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
            return self._run(iter(loader))
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
        if self.fabric.global_rank == 0:
            save_snapshot(
                self.folder.checkpoints,
                self.position.step,
                self.state(),
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
        """All that a run needs to go on, as tensors and JSON values."""
        return {
            "position": vars(self.position),
            "world_size": self.fabric.world_size,
            "num_threads": torch.get_num_threads(),
            "identity": dict(self.task.identity),
            "model": self.task.model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
        }

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
        self.task.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"] or state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        _match_layout(self.optimizer)
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
            "images_per_second": round(self.progress.images_per_second, 1),
        }
        _from_rank_zero(self.task.model)
        row |= self.task.validate(self.task.model)
        if self.ema is not None:
            _from_rank_zero(self.ema.module)
            row |= {f"ema_{name}": value for name, value in self.task.validate(self.ema.module).items()}
        position.history.append(row)
        position.validated_step, position.loss_sum, position.loss_count = position.step, 0.0, 0
        if self.logbook is not None:
            self.logbook.validated(row)
        headline = self.task.headline
        average = f" (averaged weights {row[f'ema_{headline}']:.2f})" if self.ema is not None else ""
        self.progress.say(
            f"epoch {row['epoch']:g}  step {position.step}/{self.total_steps}  train loss {row['train_loss']:.3f}  "
            f"{headline} {row[headline]:.2f}{average}"
        )
        self.progress.pause()

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
        if self.ema is not None:
            self.ema.update(self.task.model, step=position.step)
        if self.logbook is not None and position.step % self.log_every == 0:
            self.logbook.train(position.step, loss=outcome.loss, lr=learning_rate(self.optimizer))
        self.progress.step(position.step, loss=outcome.loss, images=self.recipe.data.total_batch)


def total_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole schedule."""
    return (recipe.schedule.epochs + recipe.schedule.cooldown_epochs) * steps_per_epoch


def _from_rank_zero(module: nn.Module) -> None:
    """Give all ranks rank 0's BatchNorm statistics: each rank has its own, and validation must use one set."""
    if torch.distributed.is_initialized():
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _match_layout(optimizer: Any) -> None:
    """Lay the restored moments out as their weights are, as the optimizer does: mixed strides take slower kernels."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
