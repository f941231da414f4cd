"""The training loop of every task: one order of things, and one integer that says where it is.

The position is the number of optimizer steps done. Epoch, order, augmentation, mixing, drop-path and learning rate
are functions of it and of the seed, so a run that goes on from a checkpoint does what it would have done.
"""

import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from hybridvit.batch import Batch
from hybridvit.data.loader import lost_worker, make_train_loader
from hybridvit.errors import CheckpointError, NonFiniteError
from hybridvit.task import Moment
from hybridvit.training.best import better_of, validations_since
from hybridvit.training.engine.devices import memory_format
from hybridvit.training.engine.optimizer import learning_rate
from hybridvit.training.engine.sharding import gathered, is_sharded, load_whole, part_of
from hybridvit.training.observe import Beginning, Best, Observer, Step
from hybridvit.training.pace import Pace
from hybridvit.training.run.interrupt import Stopped
from hybridvit.training.run.snapshot import read_snapshot, save_snapshot
from hybridvit.training.start import Run, start_method
from hybridvit.training.step import StepOutcome, Stepper

MAY_CHANGE = ("training_images", "validation_images")  # of a run's identity, where that is asked for
MOST_SKIPPED = 50  # in a row: a scale 2^50 times smaller than at the start would save no gradient either


@dataclass
class Position:
    """Where a run is. All of it is saved; everything else about the position follows from `step`."""

    step: int = 0  # optimizer steps done, those that were skipped included
    validated_step: int = 0  # the last step that was validated
    loss_sum: float = 0.0  # training loss since then, over `loss_count` steps
    loss_count: int = 0
    term_sums: dict[str, float] = field(default_factory=dict)  # of what the loss is the sum of, likewise
    skipped: int = 0  # steps whose gradient left float16's range
    skipped_in_a_row: int = 0
    seconds: float = 0.0  # of training, in all sessions; what was lost between a checkpoint and a kill is not counted
    history: list[dict[str, float]] = field(default_factory=list)  # one row per validation
    best: Best | None = None  # of them


class Loop:
    """Trains a run to the end of its schedule, and tells `observers`."""

    def __init__(self, run: Run, observers: Observer) -> None:
        self.run, self.observers = run, observers
        self.position = Position()
        self.best_weights: dict[str, Tensor] | None = None
        """Those of the best validation, on the CPU of the first process; None before it, and on the others."""
        self.saved_step = 0
        self.stepper = Stepper(run)
        self.pace = Pace()
        self.save_every = max(1, round(run.recipe.save_every * run.steps_per_epoch))
        self.log_every = max(1, run.steps_per_epoch // 50)
        self._seconds_before = 0.0
        self._stopping = 0  # the signal all ranks agreed on

    @property
    def seconds(self) -> float:
        """Of training, in all sessions."""
        return self._seconds_before + self.pace.session_seconds

    @property
    def finished(self) -> bool:
        return self.position.step >= self.run.total_steps or self.ended_early

    @property
    def ended_early(self) -> bool:
        """Whether the last `early_stop` validations were not better than the best before them."""
        best, patience = self.position.best, self.run.recipe.early_stop
        return bool(patience and best and validations_since(best, self.position.history) >= patience)

    def train(self) -> Position:
        """Train to the end. Raises Stopped after a signal, NonFiniteError before a step that would do harm."""
        run = self.run
        self.observers.begun(
            Beginning(
                step=self.position.step,
                total_steps=run.total_steps,
                steps_per_epoch=run.steps_per_epoch,
                steps_per_validation=run.steps_per_validation,
                history=tuple(self.position.history),
                best=self.position.best,
                seconds=self._seconds_before,
            )
        )
        self.pace.pause()
        loader = make_train_loader(
            run.splits.train,
            collate=run.task.collate,
            batch_size=self.stepper.batch_size,
            accumulate=self.stepper.accumulate,
            first_step=self.position.step,
            num_steps=run.total_steps,
            rank=run.fabric.global_rank,
            world_size=run.fabric.world_size,
            seed=run.recipe.seed,
            workers=run.recipe.data.workers,
            layout=memory_format(run.recipe, run.fabric.device),
            pin_memory=run.fabric.device.type == "cuda",
            start_method=start_method(run.fabric),
        )
        try:
            return self._train(self.pace.timed(iter(loader)))
        except RuntimeError as error:  # asked here: a closed loader knows no workers
            if (lost := lost_worker(error)) is not None:
                raise lost from error
            raise
        finally:
            loader.close()

    def _train(self, stream: Iterator[Batch]) -> Position:
        while True:
            if self._validation_is_due() and not self._stopping:
                self._validate()
            if self._save_is_due():
                self.save()
            if self._stopping:
                message = (
                    f"Stopped by {signal.Signals(self._stopping).name} after step {self.position.step} of "
                    f"{self.run.total_steps}; everything is saved in {self.run.folder.path}. Go on with --resume."
                )
                self.observers.said(message)
                raise Stopped(self._stopping, message)
            if self.finished:
                return self.position
            self._train_step(stream)

    def save(self) -> None:
        """Write the whole state. Every rank calls it; rank 0 writes.

        Raises NonFiniteError for weights that are not finite: such a state never takes the place of a good one.
        """
        run = self.run
        run.peers.reached(f"the checkpoint of step {self.position.step}")
        self._refuse_poisoned()
        self.position.seconds = round(self.seconds, 1)
        state = self.state()
        if run.leads:
            save_snapshot(
                run.folder.checkpoints,
                self.position.step,
                state,
                keep=run.recipe.keep,
                world_size=run.fabric.world_size,
            )
        self.saved_step = self.position.step
        run.fabric.barrier()
        self.pace.pause()

    def _refuse_poisoned(self) -> None:
        average = self.run.average
        averaged = average.module.state_dict() if average is not None else {}
        for name, tensor in [*self.run.model.state_dict().items(), *averaged.items()]:
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise NonFiniteError(
                    f"After step {self.position.step} the weights are not finite ('{name}' is the first of them), at "
                    f"learning rate {learning_rate(self.run.optimizer):g}. Nothing of it is saved: lower --optim.lr or "
                    f"set --optim.clip_norm, and {self.run.folder.way_on}."
                )

    def state(self) -> dict[str, Any]:
        """All that a run needs to go on, as tensors and JSON values; the tensors are whole on rank 0."""
        run, best = self.run, self.position.best
        state = {
            "position": asdict(self.position),
            "world_size": run.fabric.world_size,
            "num_threads": torch.get_num_threads(),
            "identity": dict(run.identity),
            "model": run.model.state_dict(),
            "ema": run.average.module.state_dict() if run.average is not None else None,
            # Those of this very step are there already.
            "best": self.best_weights if best is not None and best.step != self.position.step else None,
            "optimizer": run.optimizer.optimizer.state_dict(),
            "scaler": self.stepper.state(),
            "logging": self.observers.state(),
        }
        return gathered(state, keep=run.leads) if is_sharded(run.model) else state

    def restore(self, *, allow_data_change: bool = False) -> None:
        """Take up the state in the run folder's snapshot.

        Raises CheckpointError if it was trained on other images, unless these may have changed, or other classes.
        """
        run = self.run
        if run.folder.snapshot is None:
            raise CheckpointError(f"{run.folder.path} has no checkpoint to go on from.")
        state = read_snapshot(run.folder.snapshot)
        self._compare_data(state["identity"], dict(run.identity), allow_data_change)
        self._restore_best(state)
        self.saved_step, self._seconds_before = self.position.step, self.position.seconds
        load_whole(run.model, state["model"])
        if run.average is not None:
            load_whole(run.average.module, state["ema"] or state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        _match_layout(run.optimizer)
        self.stepper.load_state(state.get("scaler", {}))
        self.stepper.rehearse = run.fabric.world_size > 2 and run.recipe.strategy == "ddp"
        self.observers.load_state(state.get("logging", {}))
        self._say_what_differs(state)

    def _restore_best(self, state: dict[str, Any]) -> None:
        """Take up the position and the weights of its best validation."""
        saved = state["position"]
        best = Best(**saved["best"]) if saved.get("best") else None
        position = self.position = Position(**(saved | {"best": best}))
        if best is None and position.history and position.validated_step == position.step:  # an earlier version's
            position.best = best = better_of(None, position.history[-1], self.run.task.headline)
            self.observers.said(
                f"The checkpoint of step {position.step} is of a version that kept no best weights: the best of the "
                "validations from here on are kept."
            )
        if best is not None and self.run.leads:
            present = state["ema"] if best.weights == "averaged" else state["model"]
            self.best_weights = state.get("best") or present

    def _say_what_differs(self, state: dict[str, Any]) -> None:
        fabric = self.run.fabric
        if state["world_size"] != fabric.world_size and self.run.leads:
            self.observers.said(
                f"This run had {state['world_size']} processes and now has {fabric.world_size}: it sees the same "
                "images in the same steps, but BatchNorm's statistics are per process, so the weights will differ."
            )
        if state["num_threads"] != torch.get_num_threads() and fabric.device.type == "cpu":
            self.observers.said(
                f"The number of threads was {state['num_threads']} and is now {torch.get_num_threads()}: sums are "
                "taken in another order, so the weights differ in their last bits (OMP_NUM_THREADS sets the number)."
            )

    def _compare_data(self, saved: dict[str, Any], present: dict[str, Any], allow_change: bool) -> None:
        for key in sorted(saved.keys() | present.keys()):
            if saved.get(key) == present.get(key):
                continue
            change = f"other {key.replace('_', ' ')} ({_short(saved.get(key))}) than there are now"
            images = key in MAY_CHANGE
            if not (images and allow_change):
                allow = ", take the change on with --allow_data_change" if images else ""
                raise CheckpointError(
                    f"The run was trained with {change} ({_short(present.get(key))}). Put back what was there{allow}, "
                    "or start a new run."
                )
            if self.run.leads:
                self.observers.said(f"The run was trained with {change}; it goes on with the present ones.")

    def _validation_is_due(self) -> bool:
        step = self.position.step
        return step > self.position.validated_step and (step % self.run.steps_per_validation == 0 or self.finished)

    def _save_is_due(self) -> bool:
        step = self.position.step
        due = step % self.save_every == 0 or self.finished or bool(self._stopping)
        return step > self.saved_step and due

    def _validate(self) -> None:
        position, run = self.position, self.run
        run.peers.reached(f"the validation after step {position.step}")
        row: dict[str, float] = {
            "step": position.step,
            "epoch": position.step / run.steps_per_epoch,
            "lr": learning_rate(run.optimizer),
            "train_loss": position.loss_sum / max(position.loss_count, 1),
            **{f"train_{name}": value / position.loss_count for name, value in position.term_sums.items()},
            "images_per_second": round(self.pace.lap("validation").images_per_second, 1),
        }
        if self.stepper.scales:
            row["skipped_steps"] = position.skipped
        watch = self.observers.validating
        row |= run.validate(run.whole(run.model), watch).scores.values
        if run.average is not None:
            averaged = run.validate(run.whole(run.average.module), watch)
            row |= {f"ema_{name}": value for name, value in averaged.scores.values.items()}
        position.history.append(row)
        self._keep_best(row)
        position.validated_step, position.loss_sum, position.loss_count = position.step, 0.0, 0
        position.term_sums = {}
        self.observers.validated(row)
        self.pace.pause()

    def _keep_best(self, row: dict[str, float]) -> None:
        run, position = self.run, self.position
        best = better_of(position.best, row, run.task.headline)
        if best is position.best:
            return
        position.best = best
        averaged = run.average is not None and best.weights == "averaged"
        whole = run.whole(run.average.module if run.average is not None and averaged else run.model)
        if run.leads:
            self.best_weights = {
                name: value.detach().to("cpu", copy=True) for name, value in whole.state_dict().items()
            }

    def _train_step(self, stream: Iterator[Batch]) -> None:
        position, run = self.position, self.run
        run.scheduler.step_update(position.step)
        averaged = run.average.module if run.average is not None else None
        moment = Moment(step=position.step, total_steps=run.total_steps, averaged=averaged)
        outcome = self.stepper.take(stream, moment)
        self._stopping = outcome.signum
        position.step += 1
        position.loss_sum += outcome.loss
        position.loss_count += 1
        for name, value in outcome.terms.items():
            position.term_sums[name] = position.term_sums.get(name, 0.0) + value
        self._count_skipped(outcome.skipped)
        if run.average is not None and not outcome.skipped:
            run.average.update(step=position.step)
        self._tell(outcome)

    def _tell(self, outcome: StepOutcome) -> None:
        pace, position = self.pace, self.position
        pace.step(self.run.recipe.data.total_batch)
        is_logged = position.step % self.log_every == 0
        self.observers.stepped(
            Step(
                step=position.step,
                loss=outcome.loss,
                skipped=position.skipped,
                images_per_second=pace.images_per_second,
                seconds_per_step=pace.seconds_per_step,
                seconds=self.seconds,
                data_wait=pace.data_wait,
                slow_loader=pace.slow_loader() if is_logged else None,
            )
        )
        if not is_logged:
            return
        lap = pace.lap("step")
        self.observers.logged(
            {
                "step": position.step,
                "epoch": position.step / self.run.steps_per_epoch,
                "loss": outcome.loss,
                **outcome.terms,
                "lr": learning_rate(self.run.optimizer),
                "grad_norm": outcome.norm,
                "images_per_second": round(lap.images_per_second, 1),
                "data_wait": round(lap.data_wait, 4),
                "seconds": round(self.seconds, 1),
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
                f"--optim.clip_norm, or train with --precision bf16-mixed or 32-true, and {self.run.folder.way_on}."
            )


def _match_layout(optimizer: Any) -> None:
    """Lay the restored moments out, and share them out, as their weights are: mixed strides take slower kernels."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(part_of(value, parameter))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
