"""One optimizer step: its micro-batches, the norm of the gradient, and whether all ranks take it or none does."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor

from hybridvit.data.loader import Batch
from hybridvit.data.seeding import seed_everything
from hybridvit.errors import NonFiniteError
from hybridvit.training.devices import batch_shape, memory_format
from hybridvit.training.interrupt import StopRequest
from hybridvit.training.optimizer import learning_rate
from hybridvit.training.peers import PeerWatch
from hybridvit.training.recipe import Recipe
from hybridvit.training.task import Moment, Task


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What one step was, the same on all ranks."""

    loss: float  # mean over the images of all ranks
    norm: float  # of the gradient, before clipping; this rank's view of what all ranks share
    signum: int  # the signal that one of the ranks got, 0 if none did


class Stepper:
    """Takes optimizer steps with `model` and `optimizer`, which are what Fabric made of the task's."""

    def __init__(
        self,
        *,
        fabric: Fabric,
        recipe: Recipe,
        task: Task,
        model: _FabricModule,
        optimizer: _FabricOptimizer,
        stop: StopRequest,
        peers: PeerWatch,
    ) -> None:
        self.fabric, self.recipe, self.task, self.model, self.optimizer = fabric, recipe, task, model, optimizer
        self._stop, self._peers = stop, peers
        self.batch_size, self.accumulate = batch_shape(recipe, fabric.world_size)
        self._layout = memory_format(recipe, fabric.device)
        self._parameters = list(task.model.parameters())
        self._buffers = list(task.model.buffers())
        self._buffers_before = [buffer.clone() for buffer in self._buffers]

    def take(self, stream: Iterator[Batch], moment: Moment) -> StepOutcome:
        """One step over the next micro-batches of `stream`.

        Raises NonFiniteError, on all ranks, for a loss, gradient or learning rate that is not finite: weights, optimizer
        and BatchNorm statistics are then as before.
        """
        self._peers.reached(f"the images of step {moment.step}")
        torch._foreach_copy_(self._buffers_before, self._buffers)
        self.model.train()
        loss_sum = torch.zeros((), device=self.fabric.device)
        samples: list[Tensor] = []
        for micro_batch in range(self.accumulate):
            batch = next(stream)
            samples.append(batch.samples)
            images = batch.images.to(self.fabric.device, memory_format=self._layout, non_blocking=True)
            labels = batch.labels.to(self.fabric.device, non_blocking=True)
            seed_everything("step", self.recipe.seed, moment.step, micro_batch, self.fabric.global_rank)
            with self.fabric.no_backward_sync(self.model, enabled=micro_batch < self.accumulate - 1):
                loss = self.task.loss(self.model, images, labels, moment)
                if micro_batch == self.accumulate - 1:
                    self._peers.reached(f"the exchange of gradients of step {moment.step}")
                self.fabric.backward(loss / self.accumulate)
            loss_sum += loss.detach()
        norm = self._gradient_norm()
        losses, norm_value, received = self._exchange(loss_sum / self.accumulate, norm)
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        if not all(map(_is_finite, [*losses, norm_value, *rates])):
            self._undo()
            raise self._non_finite(losses, norm_value, torch.cat(samples).tolist(), moment.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepOutcome(loss=sum(losses) / len(losses), norm=norm_value, signum=received)

    def _gradient_norm(self) -> Tensor:
        clip_norm = self.recipe.optim.clip_norm or float("inf")
        parameters = [parameter for parameter in self._parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if clip_norm < float("inf"):
            torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
        return norm

    def _exchange(self, loss: Tensor, norm: Tensor) -> tuple[list[float], float, int]:
        """Losses of all ranks, a norm that is not finite if one rank's is not, the signal that any of them got.

        One exchange, and one wait for the device, so that all ranks decide alike.
        """
        own = torch.stack([loss.float(), norm.float(), torch.full_like(loss, self._stop.signum, dtype=torch.float32)])
        if self.fabric.world_size > 1:
            everyone = own.new_empty(self.fabric.world_size, len(own))
            torch.distributed.all_gather(list(everyone.unbind()), own)
        else:
            everyone = own[None]
        losses, norms, signals = zip(*everyone.tolist(), strict=True)
        refused = [value for value in norms if not _is_finite(value)]
        return list(losses), refused[0] if refused else norms[self.fabric.global_rank], int(max(signals))

    def _undo(self) -> None:
        torch._foreach_copy_(self._buffers, self._buffers_before)
        self.optimizer.zero_grad(set_to_none=True)

    def _non_finite(self, losses: list[float], norm: float, samples: list[int], step: int) -> NonFiniteError:
        """The error, with the files of the ranks whose loss is not finite; of all if only the gradient is not."""
        files_by_rank: list[list[str]] = [[self.task.images.paths[sample] for sample in samples]]
        if self.fabric.world_size > 1:
            own, files_by_rank = files_by_rank[0], [[] for _ in range(self.fabric.world_size)]
            torch.distributed.all_gather_object(files_by_rank, own)
        guilty = [not _is_finite(loss) for loss in losses]
        files = [
            file for names, bad in zip(files_by_rank, guilty, strict=True) if bad or not any(guilty) for file in names
        ]
        return NonFiniteError(
            f"Step {step} was refused: loss {sum(losses) / len(losses):g}, gradient norm {norm:g}, "
            f"learning rate {learning_rate(self.optimizer):g}; the images were {', '.join(files)}. The weights "
            "are as before the step. Look at these images, lower --optim.lr or set --optim.clip_norm, and resume from "
            "the last checkpoint."
        )


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")  # false for NaN too
