"""One optimizer step: its micro-batches, the norm of the gradient, and whether all ranks take it or none does."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.tensor import DTensor

from hybridvit.batch import Batch
from hybridvit.data.seeding import seed_everything
from hybridvit.errors import NonFiniteError
from hybridvit.task import Moment
from hybridvit.training.engine.devices import batch_shape, memory_format
from hybridvit.training.engine.freezing import frozen_parts
from hybridvit.training.engine.optimizer import learning_rate
from hybridvit.training.start import Run


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What one step was, the same on all ranks."""

    loss: float  # mean over the images of all ranks
    terms: Mapping[str, float]  # what the loss is the sum of, by name, as the objective tells; likewise
    norm: float  # of the gradient, before clipping; this rank's view of what all ranks share
    signum: int  # the signal that one of the ranks got, 0 if none did
    skipped: bool = False  # the scaled gradient left float16's range: nothing but the scale has changed


class Stepper:
    """Takes the optimizer steps of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.fabric, self.recipe, self.model, self.optimizer = run.fabric, run.recipe, run.wrapped, run.optimizer
        self.batch_size, self.accumulate = batch_shape(run.recipe, run.fabric.world_size)
        self._layout = memory_format(run.recipe, run.fabric.device)
        self._parameters = list(run.model.parameters())
        self._buffers = list(run.model.buffers())
        self._buffers_before = [buffer.clone() for buffer in self._buffers]
        self._statistics = [buffer for buffer in self._buffers if buffer.is_floating_point()]
        self.rehearse = False
        """Run the first backward pass twice. In its second one DDP lays the gradients out anew, in the order in which
        they came, and with more than two processes that changes the order in which they are summed. So a resumed run
        needs one pass that does not count, to go on as it was."""
        self._frozen = frozen_parts(run.model, run.recipe.freeze)
        self._train_mode()
        self._precision = run.fabric.strategy.precision
        self._scaler: torch.amp.GradScaler | None = getattr(self._precision, "scaler", None)

    def take(self, stream: Iterator[Batch], moment: Moment) -> StepOutcome:
        """One step over the next micro-batches of `stream`.

        Raises NonFiniteError, on all ranks, for a loss, gradient or learning rate that is not finite: weights,
        optimizer and BatchNorm statistics are then as before.
        """
        self._run.peers.reached(f"the images of step {moment.step}")
        if self._buffers:
            torch._foreach_copy_(self._buffers_before, self._buffers)
        self._train_mode()
        loss_sum = torch.zeros((), device=self.fabric.device)
        term_sums: dict[str, Tensor] = {}
        samples: list[Tensor] = []
        for micro_batch in range(self.accumulate):
            batch = next(stream)
            samples.append(batch.samples)
            batch = batch.to(self.fabric.device, self._layout)
            if self.rehearse:
                self.rehearse = False
                rehearsed = batch._replace(inputs=batch.inputs.clone())
                self.fabric.backward(self._run.objective.loss(self.model, rehearsed, moment))
                self._undo()
            seed_everything("step", self.recipe.seed, moment.step, micro_batch, self.fabric.global_rank)
            with self.fabric.no_backward_sync(self.model, enabled=micro_batch < self.accumulate - 1):
                loss = self._run.objective.loss(self.model, batch, moment)
                if micro_batch == self.accumulate - 1:
                    self._run.peers.reached(f"the exchange of gradients of step {moment.step}")
                self.fabric.backward(loss / self.accumulate)
            loss_sum += loss.detach()
            for name, term in self._run.objective.terms.items():
                term_sums[name] = term_sums.get(name, 0) + term.detach() / self.accumulate
        norm = self._gradient_norm()
        losses, norm_value, received, terms = self._exchange(loss_sum / self.accumulate, norm, term_sums)
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        finite_norm = math.isfinite(norm_value)
        if not all(map(math.isfinite, [*losses, *rates])) or (not finite_norm and self._scaler is None):
            self._undo()
            raise self._non_finite(losses, norm_value, torch.cat(samples).tolist(), moment.step)
        if finite_norm:
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self._share_statistics()
        else:
            self._undo()
            self._lower_scale()
        loss_value = sum(losses) / len(losses)
        return StepOutcome(loss=loss_value, terms=terms, norm=norm_value, signum=received, skipped=not finite_norm)

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled, so that steps may be skipped."""
        return self._scaler is not None

    def state(self) -> dict[str, Any]:
        """The scale of the loss, as JSON values; empty without one."""
        return self._precision.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with the scale of `state()`; with a fresh one if there was none."""
        if state:
            self._precision.load_state_dict(state)

    def _train_mode(self) -> None:
        """Where a validation has left another mode: going through all modules takes 1 ms."""
        if self._run.model.training and not any(part.training for part in self._frozen):
            return
        self.model.train()
        for part in self._frozen:
            part.eval()

    def _gradient_norm(self) -> Tensor:
        """The norm over all weights, unscaled; the gradient is then clipped to the recipe's."""
        self._precision.unscale_gradients(self.optimizer.optimizer)
        clip_norm = self.recipe.optim.clip_norm or float("inf")
        parameters = [parameter for parameter in self._parameters if parameter.grad is not None]
        # as torch.nn.utils.get_total_norm does, which first sorts the gradients by device
        norms = torch._foreach_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        norm = torch.linalg.vector_norm(torch.stack(norms))
        if clip_norm < float("inf"):
            torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _exchange(
        self, loss: Tensor, norm: Tensor, terms: Mapping[str, Tensor]
    ) -> tuple[list[float], float, int, dict[str, float]]:
        """Losses of all ranks, a norm that is not finite if one rank's is not, the signal that any of them got.

        And the means of the loss's terms over the ranks.

        One exchange, and one wait for the device, so that all ranks decide alike.
        """
        signum = torch.full_like(loss, self._run.stop.signum, dtype=torch.float32)
        own = torch.stack([loss.float(), norm.float(), signum, *(term.float() for term in terms.values())])
        if self.fabric.world_size > 1:
            everyone = own.new_empty(self.fabric.world_size, len(own))
            torch.distributed.all_gather(list(everyone.unbind()), own)
        else:
            everyone = own[None]
        losses, norms, signals, *parts = zip(*everyone.tolist(), strict=True)
        refused = [value for value in norms if not math.isfinite(value)]
        norm_value = refused[0] if refused else norms[self.fabric.global_rank]
        means = {name: sum(values) / len(values) for name, values in zip(terms, parts, strict=True)}
        return list(losses), norm_value, int(max(signals)), means

    def _undo(self) -> None:
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._buffers_before)
        self.optimizer.zero_grad(set_to_none=True)

    def _lower_scale(self) -> None:
        scaler = self._scaler
        assert scaler is not None
        before = scaler.get_scale()
        scaler.update()  # lowers it if a single gradient was not finite
        if scaler.get_scale() >= before:  # only their norm was not
            scaler.update(before * scaler.get_backoff_factor())

    def _share_statistics(self) -> None:
        """Give all ranks rank 0's BatchNorm statistics: each has its own, and averages and validation use one set."""
        if self.fabric.world_size > 1 and self._statistics:
            flat = torch.cat([buffer.flatten() for buffer in self._statistics])
            torch.distributed.broadcast(flat, src=0)
            parts = flat.split([buffer.numel() for buffer in self._statistics])
            torch._foreach_copy_(
                self._statistics,
                [part.view_as(buffer) for part, buffer in zip(parts, self._statistics, strict=True)],
            )

    def _non_finite(self, losses: list[float], norm: float, samples: list[int], step: int) -> NonFiniteError:
        """The error, with the files of the ranks whose loss is not finite; of all if only the gradient is not."""
        files_by_rank: list[list[str]] = [[self._run.splits.train.paths[sample] for sample in samples]]
        if self.fabric.world_size > 1:
            own, files_by_rank = files_by_rank[0], [[] for _ in range(self.fabric.world_size)]
            torch.distributed.all_gather_object(files_by_rank, own)
        guilty = [not math.isfinite(loss) for loss in losses]
        files = [
            file for names, bad in zip(files_by_rank, guilty, strict=True) if bad or not any(guilty) for file in names
        ]
        return NonFiniteError(
            f"Step {step} was refused: loss {sum(losses) / len(losses):g}, gradient norm {norm:g}, "
            f"learning rate {learning_rate(self.optimizer):g}; the images were {', '.join(files)}. The weights "
            "are as before the step. Look at these images, lower --optim.lr or set --optim.clip_norm, and "
            f"{self._run.folder.way_on}."
        )
