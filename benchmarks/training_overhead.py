"""What a run costs beside the training itself: images/s of train() against a bare PyTorch loop.

    python benchmarks/training_overhead.py                      # fastvit_t8, batch 16 at 64 px, 3 epochs of 50 steps
    python benchmarks/training_overhead.py --device cuda --batch 256 --side 224

Both have the same model, images, loader, optimizer and loss; train() has its logs, progress, checks and snapshots
besides. They take turns in one process: before every fifth step of the run, the bare loop takes five of its own. A
round with a validation or a snapshot in it is left out. `speed` is by the clock, `cpu_speed` by the processor time of
the process, which other programs on the machine disturb less. Ends with one JSON line; `rss_mb` is memory after each
epoch.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Self

import torch
from comparison import report
from timm.utils import ModelEmaV3
from torch import Tensor, nn

import hybridvit
from hybridvit.batch import Batch
from hybridvit.card import ModelCard
from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.generated import GeneratedImages
from hybridvit.data.loader import make_train_loader
from hybridvit.data.samples import Samples
from hybridvit.recipe.groups import EmaConfig, ScheduleConfig
from hybridvit.task import Metric, Moment, Objective, Place, Splits
from hybridvit.tasks.classify.config import ClassifyData, ClassifyRecipe
from hybridvit.tasks.classify.task import Classify
from hybridvit.training.engine.optimizer import build_optimizer
from hybridvit.training.train import train

TURN = 5  # steps
EPOCHS = 3


class Times(NamedTuple):
    """By the clock, and of the processor for this process."""

    seconds: float
    cpu_seconds: float

    @classmethod
    def now(cls, device: torch.device) -> Self:
        """After the device has done all that was asked of it."""
        if device.type == "cuda":
            torch.cuda.synchronize()
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.seconds - other.seconds, self.cpu_seconds - other.cpu_seconds)


class BareLoop:
    """The loop that one writes by hand; with a moving average if the run has one, timm's."""

    def __init__(self, recipe: ClassifyRecipe, images: Samples, device: torch.device) -> None:
        model = hybridvit.create_model(recipe.model, num_classes=10, image_size=recipe.data.image_size)
        self.model = model.to(device).to(memory_format=torch.channels_last).train()
        self.optimizer = build_optimizer(recipe, self.model)
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.augment.label_smoothing)
        self.average = ModelEmaV3(self.model, decay=recipe.ema.decay) if recipe.ema.decay else None
        self.device = device
        self.stream = iter(
            make_train_loader(images, batch_size=recipe.data.total_batch, num_steps=10**6, workers=recipe.data.workers)
        )

    def run(self, steps: int) -> Times:
        """Time of so many steps."""
        began = Times.now(self.device)
        for _ in range(steps):
            batch = next(self.stream)
            images = batch.inputs.to(self.device, memory_format=torch.channels_last, non_blocking=True)
            loss = self.loss(self.model(images), batch.targets.to(self.device, non_blocking=True))
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if self.average is not None:
                self.average.update(self.model)
        return Times.now(self.device) - began


class Turns(Objective):
    """Hands over to the bare loop before every fifth step, and keeps the times of both."""

    def __init__(self, objective: Objective, bare: BareLoop) -> None:
        self._objective, self._bare_loop = objective, bare
        self.turns: list[tuple[Times, Times, Times]] = []  # of the bare loop, of the run after it, of the bare loop
        self.disturbed = True  # by a validation
        self._began = self._bare = Times(0.0, 0.0)

    def loss(self, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        if moment.step % TURN == 0:
            own = Times.now(batch.inputs.device) - self._began
            before, self._bare = self._bare, self._bare_loop.run(TURN)
            if not self.disturbed:
                self.turns.append((before, own, self._bare))
            self.disturbed = False
            self._began = Times.now(batch.inputs.device)
        return self._objective.loss(model, batch, moment)


class TakingTurns(Classify):
    """Classification in turns with the bare loop; notes the memory at each validation."""

    objective_of_run: Turns

    def __init__(self, *, steps_per_epoch: int) -> None:
        self._steps_per_epoch = steps_per_epoch
        self.rss_mb: list[float] = []

    def open(self, recipe: ClassifyRecipe) -> Splits:
        side = recipe.data.image_size
        images = GeneratedImages(
            length=self._steps_per_epoch * recipe.data.total_batch, image_size=(side, side), training=True
        )
        return dataclasses.replace(super().open(recipe), train=images)

    def objective(self, recipe: ClassifyRecipe, card: ModelCard, place: Place) -> Objective:
        bare = BareLoop(recipe, self.open(recipe).train, place.device)
        bare.run(3)
        self.objective_of_run = Turns(super().objective(recipe, card, place), bare)
        return self.objective_of_run

    def metric(self, card: ModelCard, *, num_examples: int = 0) -> Metric:
        self.objective_of_run.disturbed = True
        self.rss_mb.append(round(rss_mb(), 1))
        return super().metric(card, num_examples=num_examples)


def rss_mb() -> float:
    """Memory that this process holds now, in MiB; on Linux only."""
    if sys.platform != "linux":
        return float("nan")
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(recipe: ClassifyRecipe, steps_per_epoch: int) -> dict[str, object]:
    task = TakingTurns(steps_per_epoch=steps_per_epoch)
    with tempfile.TemporaryDirectory() as folder:
        train(dataclasses.replace(recipe, output=f"{folder}/run"), task=task)
    turns = task.objective_of_run.turns
    clock = sorted((before.seconds + after.seconds) / 2 / own.seconds for before, own, after in turns)
    cpu = sorted((before.cpu_seconds + after.cpu_seconds) / 2 / own.cpu_seconds for before, own, after in turns)
    per_epoch = 1 if recipe.ema.decay == 0 else 2  # validations; the comparison with the folded model comes after all
    return {
        "speed": round(statistics.median(clock), 4),
        "speed_p90_slowest": round(clock[int(0.1 * len(clock))], 4),
        "cpu_speed": round(statistics.median(cpu), 4),
        "cpu_speed_p90_slowest": round(cpu[int(0.1 * len(cpu))], 4),
        "rounds": len(turns),
        "run_ms_per_step": round(1e3 * statistics.median(own.seconds for _, own, _ in turns) / TURN, 2),
        "bare_ms_per_step": round(1e3 * statistics.median(after.seconds for *_, after in turns) / TURN, 2),
        "rss_mb": task.rss_mb[per_epoch - 1 : per_epoch * EPOCHS : per_epoch],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fastvit_t8")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--steps", type=int, default=50, help="per epoch; there are three")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    augment = dataclasses.replace(AugmentConfig(), rand_augment="", mixup=0.0, cutmix=0.0)
    recipe = ClassifyRecipe(
        model=arguments.model,
        data=ClassifyData(
            source="generated",
            image_size=arguments.side,
            total_batch=arguments.batch,
            workers=arguments.workers,
        ),
        augment=augment,
        schedule=ScheduleConfig(epochs=EPOCHS, warmup_epochs=1),
        ema=EmaConfig(decay=0.0),
        accelerator=arguments.device,
    )
    results: dict[str, object] = {}
    for name, decay in (("without average", 0.0), ("with average", 0.999)):
        row = measure(dataclasses.replace(recipe, ema=EmaConfig(decay=decay)), arguments.steps)
        results[name] = row
        print(f"{recipe.model}, batch {arguments.batch} at {arguments.side} px, {name}: {row}")
    report("training_overhead", results, output=arguments.output)


if __name__ == "__main__":
    main()
