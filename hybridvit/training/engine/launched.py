"""What started this process: torchrun and SLURM say by environment variables how many processes there are."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from hybridvit.errors import UsageError
from hybridvit.recipe.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Launched:
    """Processes that a launcher has started: `devices` on each of `num_nodes` machines."""

    by: str
    devices: int
    num_nodes: int


def launched(environment: Mapping[str, str] = os.environ) -> Launched | None:
    """What the launcher's variables say; None without a launcher, and within a shell that SLURM gave for typing.

    Raises UsageError if machines have different numbers of processes: a step could not be shared evenly.
    """
    if "LOCAL_WORLD_SIZE" in environment and "WORLD_SIZE" in environment:
        return _evenly("torchrun", int(environment["WORLD_SIZE"]), per_node=int(environment["LOCAL_WORLD_SIZE"]))
    if "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        nodes = int(environment.get("SLURM_NNODES", "1"))
        tasks = int(environment["SLURM_NTASKS"])
        return _evenly("SLURM", tasks, per_node=max(1, tasks // nodes))
    return None


def check_launched(recipe: Recipe, by_launcher: Launched | None) -> None:
    """Raise UsageError where the recipe asks for other numbers of devices or machines than the launcher started."""
    if by_launcher is None:
        return
    if recipe.gpu_numbers:
        raise UsageError(
            f"Recipe key 'devices' is '{recipe.devices}', but {by_launcher.by} gives each process its GPU. Leave it at "
            f"auto, and set CUDA_VISIBLE_DEVICES={','.join(map(str, recipe.gpu_numbers))} for {by_launcher.by}."
        )
    option = {"torchrun": "--nproc-per-node", "SLURM": "srun --ntasks-per-node"}[by_launcher.by]
    if recipe.devices not in ("auto", by_launcher.devices):
        raise UsageError(
            f"Recipe key 'devices' is {recipe.devices}, but {by_launcher.by} has started {by_launcher.devices} "
            f"processes on this machine. Leave 'devices' at auto, or start as many with {option}={recipe.devices}."
        )
    if recipe.num_nodes not in (1, by_launcher.num_nodes):
        raise UsageError(
            f"Recipe key 'num_nodes' is {recipe.num_nodes}, but {by_launcher.by} has started processes on "
            f"{by_launcher.num_nodes} machines. Leave 'num_nodes' out: the launcher knows it."
        )


def _evenly(by: str, total: int, *, per_node: int) -> Launched:
    if total % per_node:
        raise UsageError(
            f"{by} has started {total} processes, {per_node} of them on this machine, so the machines have different "
            "numbers. Start the same number on each."
        )
    return Launched(by=by, devices=per_node, num_nodes=total // per_node)
