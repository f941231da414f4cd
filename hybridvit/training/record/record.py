"""What a run writes about itself while it trains, and at its end."""

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from hybridvit.errors import FoldError, HybridViTError
from hybridvit.recipe.file import as_plain
from hybridvit.report.content import Report
from hybridvit.report.run import RunRecord
from hybridvit.training.classify.final_check import FinalCheck
from hybridvit.training.loop import Loop
from hybridvit.training.record.events import Events
from hybridvit.training.record.logbook import Logbook, Logger, MetricsCsv, StepsCsv, TensorBoard
from hybridvit.training.record.report import RunReport
from hybridvit.training.record.weights_and_biases import WeightsAndBiases
from hybridvit.training.run.interrupt import Stopped


class Record:
    """Gives a loop its logbook. Every process has one; rank 0's writes.

    Use as a context around the training: what ends it early is in the report. `finish` afterwards writes the last one.
    """

    def __init__(self, loop: Loop, *, say: Callable[[str], None]) -> None:
        self._loop, self._say = loop, say
        folder, leads = loop.folder, loop.fabric.global_rank == 0
        self.events = Events(folder.events, leads=leads, step=lambda: loop.position.step)
        self._ended, self._weights = "", ""
        self._check: FinalCheck | None = None
        self._report: RunReport | None = None
        self._wandb: WeightsAndBiases | None = None
        self._seconds_before = 0.0

    def __enter__(self) -> Self:
        self.events.__enter__()
        loop = self._loop
        position, folder, leads = loop.position, loop.folder, loop.fabric.global_rank == 0
        loggers: list[Logger] = []
        if leads:
            if position.step:
                self.events.add(f"Went on from the checkpoint of step {position.step:,}.", "resume")
            else:
                self.events.add("Started.", "start")
            steps = StepsCsv(folder.steps, first_step=position.step)
            self._seconds_before = steps.seconds_before
            self._report = RunReport(folder.report, self._describe)
            loggers = [
                MetricsCsv(folder.metrics, history=position.history),
                steps,
                TensorBoard(folder.tensorboard, first_step=position.step),
                *self._weights_and_biases(),
                self._report,
            ]
        loop.logbook = Logbook(
            loggers, events=self.events, watch=self._judge_loader, seconds_before=self._seconds_before
        )
        if self._report is not None:
            self._report.write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, HybridViTError | Stopped | KeyboardInterrupt):
                self._ended = str(error) or "interrupted."
                self.events.add(self._ended, "end")
                if self._report is not None:
                    self._report.write()
        finally:
            self._loop.logbook.close()
            self.events.__exit__(kind, error, trace)

    @property
    def seconds(self) -> float:
        """Of training, in all sessions; what was lost between a checkpoint and a kill is not counted."""
        return self._seconds_before + self._loop.progress.pace.session_seconds

    def check_folded(self, model: Any) -> FinalCheck | None:
        """The trained model against its folded form; every process calls it. None, and an event, if it cannot fold."""
        self._loop.progress.say("comparing with the folded model")
        with self.events:
            try:
                return self._loop.task.check_folded(model)
            except FoldError as error:
                self.events.add(f"The model could not be folded: {error}")
                return None

    def finish(self, *, weights: str, check: FinalCheck | None) -> Report | None:
        """The last report, once the model is written. Every process calls it; rank 0 gets what the page says."""
        self._weights, self._check = weights, check
        with self.events:
            self.events.add("Finished.", "end")
            self.events.gather()
            return self._report.write() if self._report is not None else None

    def _describe(self) -> RunRecord:
        loop = self._loop
        position = loop.position
        return RunRecord(
            folder=loop.folder.path,
            recipe=loop.recipe,
            headline=loop.task.headline,
            facts=[*loop.task.facts, *self._facts()],
            history=position.history,
            events=self.events.known,
            step=position.step,
            total_steps=loop.total_steps,
            steps_per_epoch=loop.steps_per_epoch,
            seconds=self.seconds,
            data_wait=loop.progress.pace.data_wait,
            ended=self._ended,
            weights=self._weights,
            check=self._check,
            picture=loop.task.picture,
        )

    def _facts(self) -> list[tuple[str, str]]:
        fabric, recipe = self._loop.fabric, self._loop.recipe
        processes = f"{fabric.world_size} processes" if fabric.world_size > 1 else "one process"
        facts = [("Trained on", f"{fabric.device.type}, {processes}, precision {recipe.precision}")]
        if self._loop.position.skipped:
            facts.append(("Skipped steps", f"{self._loop.position.skipped:,}, whose gradient left float16's range"))
        if self._wandb is not None and self._wandb.address:
            facts.append(("Weights & Biases", self._wandb.address))
        return facts

    def _weights_and_biases(self) -> list[Logger]:
        loop = self._loop
        if not loop.recipe.wandb:
            return []
        run_id = str(loop.logging_state.get("wandb_run", ""))
        self._wandb = WeightsAndBiases(
            loop.recipe.wandb, run_id=run_id, folder=loop.folder.path, config=as_plain(loop.recipe)
        )
        loop.logging_state = {**loop.logging_state, "wandb_run": self._wandb.run_id}
        if self._wandb.address:
            self._say(f"Weights & Biases: {self._wandb.address}")
        return [self._wandb]

    def _judge_loader(self) -> None:
        share = self._loop.progress.pace.slow_loader()
        if share is None:
            return
        text = (
            f"{share:.0%} of the time goes into waiting for images. Raise data.workers (now "
            f"{self._loop.recipe.data.workers} per process; this machine has {os.cpu_count()} cores), or store the "
            "images at a smaller size."
        )
        self._say(text)
        self.events.add(text)
