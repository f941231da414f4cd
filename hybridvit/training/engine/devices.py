"""Where a recipe trains: Fabric, the batch of each process, and the memory layout."""

import inspect
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch.nn.parallel import DistributedDataParallel

from hybridvit.errors import UsageError
from hybridvit.recipe.recipe import Recipe
from hybridvit.training.engine.launched import check_launched, launched
from hybridvit.training.engine.sharding import shard

ONE_BUCKET_MB = 100_000  # one gradient bucket: its sums are taken in the same order before and after a resume


def build_fabric(recipe: Recipe) -> Fabric:
    """Fabric as the recipe asks for it, not launched.

    Raises UsageError for a device that is not there, or one that cannot do what the recipe asks of it.
    """
    accelerator = _accelerator(recipe)
    by_launcher = launched()
    check_launched(recipe, by_launcher)
    devices = by_launcher.devices if by_launcher is not None else _num_devices(recipe, accelerator)
    num_nodes = by_launcher.num_nodes if by_launcher is not None else recipe.num_nodes
    check_abilities(recipe, accelerator)
    # Made here: Fabric by itself has no 16-mixed with fsdp, nor on a CPU, where its scaler is tested.
    mixed = MixedPrecision(recipe.precision, device=accelerator) if recipe.precision != "32-true" else None
    return Fabric(
        accelerator=accelerator,
        devices=list(recipe.gpu_numbers) or devices,
        num_nodes=num_nodes,
        plugins=mixed,
        strategy=_strategy(recipe, devices * num_nodes),
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
    """Processes to start where no launcher has done so."""
    if isinstance(recipe.devices, str):
        if recipe.gpu_numbers:
            _check_gpus(recipe, accelerator)
            return len(recipe.gpu_numbers)
        return torch.cuda.device_count() if accelerator == "cuda" else 1
    if accelerator == "cuda" and recipe.devices > torch.cuda.device_count():
        raise UsageError(f"Recipe key 'devices' is {recipe.devices}, but there are {torch.cuda.device_count()} GPUs.")
    return recipe.devices


def _check_gpus(recipe: Recipe, accelerator: str) -> None:
    present = torch.cuda.device_count() if accelerator == "cuda" else 0
    if not all(number < present for number in recipe.gpu_numbers):
        there = f"has GPUs 0 to {present - 1}" if present > 1 else "has one GPU, 0" if present else "is for no GPU"
        raise UsageError(
            f"Recipe key 'devices' is '{recipe.devices}', the numbers of GPUs, but this run {there} "
            f"(accelerator {accelerator}). Name others, or say how many: --devices {max(1, present)}."
        )


def _strategy(recipe: Recipe, world_size: int) -> str | Strategy:
    timeout = timedelta(seconds=recipe.timeout_seconds)
    if recipe.strategy == "fsdp":
        if world_size == 1:
            raise UsageError(
                "Recipe key 'strategy' is 'fsdp', which shares the weights out over several processes, but there is "
                "one. Start more (--devices, or torchrun), or use --strategy ddp."
            )
        return ModelParallelStrategy(shard, data_parallel_size=world_size, tensor_parallel_size=1, timeout=timeout)
    if world_size == 1:
        return "auto"
    # The loop hands rank 0's buffers on by itself, after a step: DDP would do it before each micro-batch.
    names = inspect.signature(DistributedDataParallel.__init__).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"  # its old name
    options: dict[str, Any] = {buffers: False}
    return DDPStrategy(timeout=timeout, bucket_cap_mb=ONE_BUCKET_MB, **options)


def check_abilities(recipe: Recipe, accelerator: str) -> None:
    """Refuse what the device cannot do, before anything is started on it."""
    if recipe.precision == "16-mixed" and accelerator == "cpu":
        raise UsageError(
            "Recipe key 'precision' is '16-mixed', but float16 is for GPUs: a CPU computes it slowly and not in every "
            "operation. A CPU trains in 32-true or bf16-mixed."
        )
    if recipe.precision == "bf16-mixed" and accelerator == "cuda" and not _has_bfloat16():
        raise UsageError(
            f"Recipe key 'precision' is 'bf16-mixed', but {torch.cuda.get_device_name()} does not compute in bfloat16. "
            "It trains in 32-true or 16-mixed."
        )
    if recipe.sync_batchnorm and accelerator != "cuda":
        raise UsageError(
            f"Recipe key 'sync_batchnorm' is true, but PyTorch shares the statistics of BatchNorm on CUDA GPUs only, "
            f"and this run is on {accelerator}. Set it to false, and give each process a larger share of the batch."
        )
    if recipe.compile and accelerator == "mps":
        raise UsageError(
            "Recipe key 'compile' is true, but torch.compile is for cuda and cpu; on mps it is a prototype. Set it to "
            "false."
        )


def _has_bfloat16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)
