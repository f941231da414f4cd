"""data.micro_batch auto: the largest micro-batch that fits, found by trying; the batch of a step stays as it is."""

import bisect
import copy
import gc
from collections.abc import Callable, Sequence

import torch
import torch.distributed
from lightning_fabric import Fabric
from torch import nn

from hybridvit.batch import Batch
from hybridvit.data.seeding import seeded
from hybridvit.errors import UsageError
from hybridvit.machine.memory import is_out_of_memory
from hybridvit.recipe.recipe import Recipe
from hybridvit.task import Moment, Objective, Task
from hybridvit.training.engine.average import WeightAverage
from hybridvit.training.engine.devices import batch_shape, memory_format
from hybridvit.training.engine.memory import micro_batch_sizes, out_of_memory, with_micro_batch
from hybridvit.training.engine.optimizer import build_optimizer
from hybridvit.training.start import Material, objective_of, placed

SPARE = 0.05  # of a GPU's memory, kept free in the trial: a run's memory is more fragmented than a trial's
STEPS = 2  # the second one has the optimizer's moments from the beginning


def settle_micro_batch(
    recipe: Recipe,
    fabric: Fabric,
    task: Task,
    material: Material,
    *,
    earlier: Recipe | None = None,
    say: Callable[[str], None],
) -> tuple[Recipe, Objective]:
    """The recipe with a number in place of "auto", and its objective.

    The number is that of the `earlier` recipe, of the run to go on with, or a found one. Raises as `find_micro_batch`,
    `batch_shape` and the objective do.
    """
    if recipe.data.micro_batch == "auto":
        number = earlier.data.micro_batch if earlier is not None else None
        if not isinstance(number, int):
            number = find_micro_batch(with_micro_batch(recipe, 0), fabric, task, material, say=say)
        recipe = with_micro_batch(recipe, number)
    return recipe, objective_of(recipe, fabric, task, material.card, material.splits.train)


def find_micro_batch(
    recipe: Recipe, fabric: Fabric, task: Task, material: Material, *, say: Callable[[str], None]
) -> int:
    """The largest legal micro-batch with which a training step fits into the memory of every process.

    Steps are tried on a copy of the model, with an optimizer and a moving average of their own: the material and all
    random generators are as before. All processes call it, and get the same number. On a CPU the host's memory is
    the limit, and it is known only where the process has one set (RLIMIT_AS).

    Raises:
        UsageError: with strategy fsdp, whose steps no process can try alone. OutOfMemory: not even the smallest fits.
    """
    if recipe.strategy == "fsdp":
        raise UsageError(
            "Recipe key 'data.micro_batch' is 'auto', but with fsdp a process cannot try a step by itself. Give a "
            "number: --data.micro_batch 32 for a start."
        )

    batch_shape(recipe, fabric.world_size)  # refuses what cannot be shared out
    objective = objective_of(recipe, fabric, task, material.card, material.splits.train)

    def fits(size: int) -> bool:
        with seeded("example", size):
            batch = task.example(recipe, size)
        fitting = torch.tensor(
            float(_fits_here(recipe, fabric, material.model, objective, batch)), device=fabric.device
        )
        if fabric.world_size > 1:
            torch.distributed.all_reduce(fitting, op=torch.distributed.ReduceOp.MIN)
        return bool(fitting)

    sizes = micro_batch_sizes(recipe, fabric.world_size)
    found = largest_fitting(sizes, fits)
    if found is None:
        raise out_of_memory(with_micro_batch(recipe, sizes[0] if sizes else 2), fabric.world_size)
    share = recipe.data.total_batch // fabric.world_size
    whole = ", the whole share of a process" if found == share else f", {share // found} of them in a step"
    say(f"Micro-batch: {found} images{whole} (found by trying; a step has {recipe.data.total_batch}).")
    return found


def largest_fitting(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The largest of ascending `sizes` that fits, by bisection; the largest of all is tried first."""
    if not sizes or fits(sizes[-1]):
        return sizes[-1] if sizes else None
    num_fitting = bisect.bisect_left(sizes, True, hi=len(sizes) - 1, key=lambda size: not fits(size))
    return sizes[num_fitting - 1] if num_fitting else None


def _fits_here(recipe: Recipe, fabric: Fabric, model: nn.Module, objective: Objective, batch: Batch) -> bool:
    """Whether this process can take steps over `batch`; it exchanges nothing with the others."""
    device = fabric.device
    devices = [device] if device.type == "cuda" else []
    try:
        with seeded("trial", len(batch.samples)), torch.random.fork_rng(devices=devices):
            _try(recipe, fabric, model, objective, batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        gc.collect()  # the frames of an exception may keep tensors in cycles
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return True


def _try(recipe: Recipe, fabric: Fabric, model: nn.Module, objective: Objective, batch: Batch) -> None:
    device = fabric.device
    held: list[torch.Tensor] = []
    if device.type == "cuda":
        spare = int(SPARE * torch.cuda.get_device_properties(device).total_memory)
        held.append(torch.empty(spare, dtype=torch.uint8, device=device))
    model = placed(copy.deepcopy(model), recipe, fabric).train()
    average = WeightAverage(model, recipe.ema) if recipe.ema.decay else None
    if fabric.world_size > 1:  # DDP's bucket holds the gradient once more
        held += [torch.empty_like(parameter) for parameter in model.parameters()]
    optimizer = build_optimizer(recipe, model)
    # The last step of a run: whatever begins on the way has begun.
    moment = Moment(step=10**9 - 1, total_steps=10**9, averaged=average.module if average is not None else None)
    for _ in range(STEPS):
        on_device = batch.to(device, memory_format(recipe, device))
        if on_device.inputs is batch.inputs:  # a loss may change its inputs
            on_device = on_device._replace(inputs=batch.inputs.clone())
        with fabric.autocast():
            loss = objective.loss(model, on_device, moment)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
