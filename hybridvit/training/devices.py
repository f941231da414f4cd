"""Where a recipe trains: Fabric, the batch of each process, and the memory layout."""

import os
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from hybridvit.errors import UsageError
from hybridvit.training.recipe import Recipe

GROUP_TIMEOUT_SECONDS = 120  # the default of half an hour keeps a machine waiting for a process that is gone
ONE_BUCKET_MB = 100_000  # one gradient bucket: its sums are taken in the same order before and after a resume


def build_fabric(recipe: Recipe) -> Fabric:
    """Fabric as the recipe asks for it, not launched. Raises UsageError for a device that is not there."""
    accelerator = _accelerator(recipe)
    devices = _num_devices(recipe, accelerator)
    world_size = devices * recipe.num_nodes
    strategy = "auto"
    if world_size > 1:
        strategy = DDPStrategy(  # type: ignore[assignment]  # Fabric takes a name or a strategy
            timeout=timedelta(seconds=GROUP_TIMEOUT_SECONDS), bucket_cap_mb=ONE_BUCKET_MB
        )
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=recipe.num_nodes,
        precision=recipe.precision,
        strategy=strategy,
    )


def leave_process_group() -> None:
    """End gloo's threads before the interpreter does: a process that exits with them running is aborted by C++."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def batch_shape(recipe: Recipe, world_size: int) -> tuple[int, int]:
    """Images in a micro-batch of one process, and micro-batches per step, so that a step has total_batch images.

    Raises UsageError, with the nearest batch that works, if the total cannot be shared out evenly.
    """
    total, largest = recipe.data.total_batch, recipe.data.micro_batch
    if largest == "auto":
        raise UsageError("data.micro_batch is 'auto', which is to be a number before a step is made.")
    if total % world_size:
        fitting = max(world_size, round(total / world_size) * world_size)
        counts = [count for count in range(1, min(total, 64) + 1) if total % count == 0]
        raise UsageError(
            f"data.total_batch is {total}, which {world_size} processes cannot share evenly. Use {fitting}, or one of "
            f"these numbers of processes: {', '.join(map(str, counts))}."
        )
    share = total // world_size
    if share < 2:
        raise UsageError(
            f"data.total_batch is {total}, which leaves {share} image to each of {world_size} processes, but BatchNorm "
            f"needs two. Use {2 * world_size} or more."
        )
    size = share if largest == 0 or largest >= share else largest
    if share % size:
        sizes = [count for count in range(2, share + 1) if share % count == 0]
        raise UsageError(
            f"data.micro_batch is {largest}, but the {share} images of one process in a step do not divide by it. Use "
            f"one of {', '.join(map(str, sizes))}."
        )
    return size, share // size


def memory_format(recipe: Recipe, device: torch.device) -> torch.memory_format:
    """The layout of images and kernels. "auto": channels-last wherever the convolutions are faster in it."""
    faster = device.type in ("cpu", "cuda")  # measured on both; on mps neither layout wins
    wanted = faster if recipe.channels_last == "auto" else recipe.channels_last
    return torch.channels_last if wanted else torch.contiguous_format


def _accelerator(recipe: Recipe) -> str:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if recipe.accelerator == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available[recipe.accelerator]:
        present = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise UsageError(
            f"Recipe key 'accelerator' is '{recipe.accelerator}', but this machine offers {present}. Use "
            "--accelerator auto, or install the PyTorch build for that device."
        )
    return recipe.accelerator


def _num_devices(recipe: Recipe, accelerator: str) -> int:
    launched = os.environ.get("LOCAL_WORLD_SIZE")  # torchrun has already decided
    if recipe.devices == "auto":
        if launched is not None:
            return int(launched)
        return torch.cuda.device_count() if accelerator == "cuda" else 1
    if accelerator == "cuda" and recipe.devices > torch.cuda.device_count():
        raise UsageError(f"Recipe key 'devices' is {recipe.devices}, but there are {torch.cuda.device_count()} GPUs.")
    return recipe.devices
