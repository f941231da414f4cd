"""What a run writes about itself: numbers, events, and the page that shows both."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from hybridvit.atomic import write_text
from hybridvit.errors import HybridViTError
from hybridvit.evaluate.agreement import Agreement
from hybridvit.recipe.file import as_plain
from hybridvit.report.content import Report
from hybridvit.report.html import render
from hybridvit.training.best import better_of
from hybridvit.training.fit import left_over
from hybridvit.training.observe import Beginning, Observer, Observers, Row, Step
from hybridvit.training.record.events import Events
from hybridvit.training.record.logbook import MetricsCsv, StepsCsv, TensorBoard
from hybridvit.training.record.page import RunRecord, run_report
from hybridvit.training.record.weights_and_biases import WeightsAndBiases
from hybridvit.training.run.interrupt import Stopped
from hybridvit.training.start import Run

log = logging.getLogger(__name__)


class Record(Observer):
    """Keeps the files of a run up to date. Every process has one; rank 0's writes.

    A page that cannot be made or written is a warning, once, and never the end of the run.
    """

    def __init__(self, run: Run, *, say: Observer) -> None:
        self._run, self._say = run, say
        self.events = Events(run.folder.events, leads=run.leads)
        self._state: dict[str, str] = {}
        self._numbers = Observers()
        self._wandb: WeightsAndBiases | None = None
        self._page = RunRecord(
            folder=run.folder.path,
            recipe=run.recipe,
            quantities=run.task.quantities,
            samples=run.splits.validation,
            preprocessing=run.splits.preprocessing,
            facts=_facts(run),
            events=self.events.known,
            total_steps=run.total_steps,
            steps_per_epoch=run.steps_per_epoch,
        )
        self._has_warned = False

    def state(self) -> dict[str, str]:
        return self._state

    def load_state(self, state: Mapping[str, str]) -> None:
        self._state = dict(state)

    def begun(self, beginning: Beginning) -> None:
        page = self._page
        page.history, page.best = list(beginning.history), beginning.best
        page.step, page.seconds = beginning.step, beginning.seconds
        self.events.step = beginning.step
        self.events.__enter__()
        if not self._run.leads:
            return
        if beginning.step:
            self.events.add(f"Went on from the checkpoint of step {beginning.step:,}.", "resume")
        else:
            self.events.add("Started.", "start")
        for remark in self._run.splits.train.remarks:
            self._say.said(remark)
            self.events.add(remark)
        folder = self._run.folder
        self._numbers = Observers(
            MetricsCsv(folder.metrics, history=beginning.history),
            StepsCsv(folder.steps, first_step=beginning.step),
            TensorBoard(folder.tensorboard, first_step=beginning.step),
            *self._weights_and_biases(),
        )
        self._write()

    def stepped(self, step: Step) -> None:
        page = self._page
        page.step, page.seconds, page.data_wait, page.skipped = step.step, step.seconds, step.data_wait, step.skipped
        self.events.step = step.step
        if step.slow_loader is not None and self._run.leads:
            text = (
                f"{step.slow_loader:.0%} of the time goes into waiting for images. Raise data.workers (now "
                f"{self._run.recipe.data.workers} per process; this machine has {os.cpu_count()} cores), or store the "
                "images at a smaller size."
            )
            self._say.said(text)
            self.events.add(text)

    def logged(self, row: Row) -> None:
        self._numbers.logged(row)

    def validated(self, row: Row) -> None:
        page = self._page
        page.history.append(row)
        page.best = better_of(page.best, row, page.headline)
        self.events.gather()
        self._numbers.validated(row)
        self._write()

    def ended(self, error: BaseException | None) -> None:
        try:
            if isinstance(error, HybridViTError | Stopped | KeyboardInterrupt):
                self._page.ended = str(error) or "interrupted."
                self.events.add(self._page.ended, "end")
                self._write()
        finally:
            self._numbers.ended(error)
            self.events.__exit__(None, None, None)

    def finish(self, *, agreement: Agreement | None) -> Report | None:
        """The last page, once the model is written. Every process calls it; rank 0 gets what the page says."""
        self._page.finished, self._page.agreement = True, agreement
        self.events.add("Finished.", "end")
        self.events.gather()
        return self._write()

    def _write(self) -> Report | None:
        """Make the page anew; what it says, or None if that failed or another process does it."""
        if not self._run.leads:
            return None
        path = self._run.folder.report
        if self._wandb is not None:
            self._page.wandb = self._wandb.address  # none any more, once it has failed
        try:
            report = run_report(self._page)
            write_text(path, render(report))
        except Exception as error:  # whatever it is, days of training are worth more than a page about them
            if not self._has_warned:
                log.warning("%s could not be written (%s: %s).", path, type(error).__name__, error)
                self._has_warned = True
            return None
        return report

    def _weights_and_biases(self) -> list[WeightsAndBiases]:
        recipe: Any = self._run.recipe
        if not recipe.wandb:
            return []
        self._wandb = WeightsAndBiases(
            recipe.wandb,
            run_id=self._state.get("wandb_run", ""),
            folder=self._run.folder.path,
            config=as_plain(recipe),
        )
        self._state |= {"wandb_run": self._wandb.run_id}
        if self._wandb.address:
            self._say.said(f"Weights & Biases: {self._wandb.address}")
        return [self._wandb]


def _facts(run: Run) -> list[tuple[str, str]]:
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    names, fabric = run.splits.train.class_names, run.fabric
    classes = f" of {len(names):,} classes" if names else ""
    over = left_over(len(run.splits.train), run.recipe.data.total_batch)
    processes = f"{fabric.world_size} processes" if fabric.world_size > 1 else "one process"
    return [
        ("Model", f"{run.recipe.model}, {parameters:,} parameters"),
        ("Training images", f"{len(run.splits.train):,}{classes}"),
        *([("Left out", over)] if over else []),
        ("Validation images", f"{len(run.splits.validation):,}"),
        ("Trained on", f"{fabric.device.type}, {processes}, precision {run.recipe.precision}"),
    ]
