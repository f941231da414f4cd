"""What is said of a job: where it is computed, and what it writes."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from hybridvit.errors import UsageError
from hybridvit.jobs.answerer import PREDICTIONS, Question
from hybridvit.machine.facts import usable_cores


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Where a job is computed; another start of the same job may have others."""

    engine: Literal["local", "ray"] = "local"
    """local: processes of this machine; ray: a Ray cluster, or one on this machine."""
    address: str | None = None
    """of the Ray cluster: HOST:PORT, or auto for the one of this machine; by default RAY_ADDRESS, else one is begun."""
    workers: str | None = None
    """processes with the model; of Ray also MIN:MAX; by default as many as there are processors or GPUs for."""
    cpus_per_worker: int = 1
    """processors of each worker, and threads of its runtime."""
    gpus_per_worker: float = 0.0
    """GPUs of each worker, for checkpoints; 0.5: two workers share one."""
    batch: int | Literal["auto"] = "auto"
    """images computed at once; auto measures which number is the fastest."""

    def __post_init__(self) -> None:
        """Raise UsageError for values out of their range."""
        if self.cpus_per_worker < 1:
            raise UsageError(f"--cpus_per_worker is {self.cpus_per_worker}, but a worker needs at least 1.")
        if self.engine == "local" and self.cpus_per_worker > usable_cores():
            raise UsageError(
                f"--cpus_per_worker is {self.cpus_per_worker}, but this process may use {usable_cores()} processors."
            )
        if not (math.isfinite(self.gpus_per_worker) and self.gpus_per_worker >= 0):
            raise UsageError(f"--gpus_per_worker is {self.gpus_per_worker}, but it must be a number from 0.")
        if self.engine == "local" and self.gpus_per_worker > 1:
            raise UsageError(f"--gpus_per_worker is {self.gpus_per_worker}, but a worker computes on one GPU. Use 1.")
        if self.batch != "auto" and self.batch < 1:
            raise UsageError(f"--batch is {self.batch}, but it must be at least 1, or auto.")
        if self.engine == "local" and self.address is not None:
            raise UsageError(f"--address is {self.address}, but --engine is local. Add --engine ray, or leave it out.")
        fewest, most = self.pool
        if fewest != most and self.engine == "local" and self.workers is not None:
            raise UsageError(f"--workers is {self.workers}, but processes of one machine are a number, such as {most}.")

    @property
    def pool(self) -> tuple[int, int | None]:
        """The fewest and the most workers; None: as many as there is room for."""
        if self.workers is None:
            return 1, None
        match = re.fullmatch(r"(\d+)(?::(\d+))?", self.workers)
        if match is None or not 1 <= int(match[1]) <= int(match[2] or match[1]):
            raise UsageError(f"--workers is {self.workers}, but it must be a number from 1, or MIN:MAX such as 2:8.")
        return int(match[1]), int(match[2] or match[1])


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a job writes; a job that goes on must have the same, but for the last two."""

    unit: int = 1024
    """images of one file of answers, and of what is done again where a machine is lost."""
    top: int | None = None
    """answers per image, the most probable first; by default 5, or what the file gives if that is less."""
    returns: str = PREDICTIONS
    """predictions, or an output of the model as it stands: logits, or what the file was exported with."""
    files: bool = False
    """also what of an answer is a file of its own, such as the mask of a segmentation, as a column."""
    allow_bad: float = 0.01
    """the share of bad images up to which the exit code is 0; above it is 3."""
    overwrite: bool = False
    """begin anew, and remove the answers of the job that is there."""

    def __post_init__(self) -> None:
        """Raise UsageError for values out of their range."""
        if not 0 <= self.allow_bad <= 1:
            raise UsageError(f"--allow_bad is {self.allow_bad}, but a share lies between 0 and 1.")
        for option, number in (("unit", self.unit), ("top", self.top)):
            if number is not None and number < 1:
                raise UsageError(f"--{option} is {number}, but it must be at least 1. Leave it out for the default.")

    @property
    def question(self) -> Question:
        """What is asked of each picture."""
        return Question(top=self.top, returns=self.returns, files=self.files)
