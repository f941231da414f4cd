"""A training step, timed by block: forward, backward, loss and optimizer."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridvit.measure.profile.units import Unit, tensors_in, watched
from hybridvit.models.whole import WholeModel

WARMUP_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """One training step, in milliseconds."""

    forward: dict[str, float]  # by the path of the unit
    backward: dict[str, float]
    between: float  # forward and backward, in none of the units
    loss: float
    optimizer: float  # with setting the gradients to None
    whole: float

    def share(self, path: str) -> float:
        """Of the step, forward and backward of a unit."""
        return (self.forward[path] + self.backward[path]) / self.whole


class Clock:
    """Points in time of the CPU or, as events that nobody waits for, of a GPU."""

    def __init__(self, device: str) -> None:
        self._is_cuda = device.startswith("cuda")

    def mark(self) -> Any:
        """Now; on a GPU, when it has done what it was given so far."""
        if not self._is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, start: Any, end: Any) -> float:
        """From one mark to another, once the device has reached both."""
        return start.elapsed_time(end) if self._is_cuda else (end - start) * 1e3

    def wait(self) -> None:
        """Until the device is idle."""
        if self._is_cuda:
            torch.cuda.synchronize()


class _Step:
    """The marks of one step.

    The backward pass of a unit lies between the moment at which the gradient of what it gave is known and the one at
    which that of what it was given is: hooks on these tensors, since hooks on modules forbid changes in place. The
    input of the first unit has no gradient; its end is that of the whole backward pass.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.entered: dict[str, Any] = {}
        self.left: dict[str, Any] = {}
        self.begun: dict[str, Any] = {}
        self.ended: dict[str, Any] = {}

    def before(self, unit: Unit, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        for tensor in tensors_in((inputs, options)):
            if tensor.requires_grad:
                tensor.register_hook(lambda _: self.ended.update({unit.path: self.clock.mark()}))
        self.entered[unit.path] = self.clock.mark()

    def after(self, unit: Unit, result: Any) -> None:
        self.left[unit.path] = self.clock.mark()
        for tensor in tensors_in(result):
            if tensor.requires_grad:
                tensor.register_hook(lambda _: self._begin(unit.path))

    def _begin(self, path: str) -> None:
        if path not in self.begun:
            self.begun[path] = self.clock.mark()

    def times(self, start: Any, answered: Any, judged: Any, backward_end: Any, end: Any) -> StepTimes:
        """The milliseconds between the marks, which the device must have reached."""
        between = self.clock.milliseconds
        forward = {path: between(mark, self.left[path]) for path, mark in self.entered.items()}
        order = sorted(self.begun, key=lambda path: between(judged, self.begun[path]))
        starts = [*(self.begun[path] for path in order), backward_end]
        first = starts[0] if order else judged
        # where one unit gives what the next is given, hooks of one tensor mark the end of one and the start of another
        backward = {
            path: min(between(start, following), between(start, self.ended.get(path, backward_end)))
            for path, start, following in zip(order, starts, starts[1:], strict=False)
        }
        loss = between(answered, judged) + between(judged, first)
        computed = between(start, answered) + between(first, backward_end)
        return StepTimes(
            forward=forward,
            backward={path: backward.get(path, 0.0) for path in forward},
            between=computed - sum(forward.values()) - sum(backward.values()),
            loss=loss,
            optimizer=between(backward_end, end),
            whole=between(start, end),
        )


def timed_steps(
    model: nn.Module,
    units: Sequence[Unit],
    images: Tensor,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    device: str = "cpu",
    show: Callable[[str], None] = lambda _: None,
) -> list[StepTimes]:
    """Take so many training steps on `images` (b c h w) after WARMUP_STEPS that are not timed."""
    clock, found = Clock(device), []
    targets = example_targets(model, images)
    for number in range(WARMUP_STEPS + steps):
        show(f"training step {number + 1} of {WARMUP_STEPS + steps}")
        clock.wait()
        step = _Step(clock)
        with watched(units, before=step.before, after=step.after):
            start = clock.mark()
            answers = model(images)
            answered = clock.mark()
            loss = F.cross_entropy(answers, targets)
            judged = clock.mark()
            loss.backward()
            backward_end = clock.mark()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            end = clock.mark()
        clock.wait()
        found.append(step.times(start, answered, judged, backward_end, end))
    return found[WARMUP_STEPS:]


def example_targets(model: nn.Module, images: Tensor) -> Tensor:
    """A class for each image: any, since none changes the time."""
    assert isinstance(model, WholeModel)
    return torch.arange(len(images), device=images.device) % model.num_classes
