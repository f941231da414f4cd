"""Every number of a resumed run is that of a straight one: two families, six places to stop, workers and processes.

Compared with torch.equal or ==: weights, averaged weights, optimizer, position, losses, learning rates, sample ids and
rows of metrics. Each place is run once in one process, the families and numbers of workers taking turns, and one of
them in two processes; all combinations are nightly. Two processes with two workers and SIGKILL are what
test_never_lost_processes.py runs.
"""

import dataclasses
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import TINY, Interruption, TinyTask, assert_same_bits
from torch import Tensor, nn

from hybridvit.batch import Batch
from hybridvit.errors import NonFiniteError
from hybridvit.task import Moment, Objective
from hybridvit.tasks.classify.config import ClassifyRecipe
from hybridvit.training import train as training
from hybridvit.training.loop import Loop
from hybridvit.training.observe import Observer
from hybridvit.training.run.interrupt import Stopped
from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot
from hybridvit.training.start import Run

SIZES_PX = {"fastvit_debug": 32, "fastervit_debug": 64}
STOPS = {  # six steps, three an epoch; two micro-batches a step; a checkpoint after steps 2, 4, 6
    "at the start of an epoch": ("loss", 6),
    "in the middle of an epoch": ("loss", 8),
    "at the end of an epoch": ("loss", 4),
    "after the evaluation": ("validate", 1),
    "between micro-batches": ("loss", 9),
    "by SIGKILL": ("loss", 9),
}


class Recorded(TinyTask):
    """Notes, for each micro-batch, what was seen and what came of it."""

    current: "Recorded"

    def __init__(self, disturb: Callable[[str, int], None] = lambda *_: None) -> None:
        super().__init__(disturb)
        self.loop: Loop | None = None
        self.seen: dict[tuple[int, int], tuple[object, ...]] = {}
        Recorded.current = self

    def loss(self, learn: Objective, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        loss = super().loss(learn, model, batch, moment)
        assert self.loop is not None
        rates = tuple(group["lr"] for group in self.loop.run.optimizer.param_groups)
        self.seen[moment.step, len(self.seen) % 2] = (tuple(batch.samples.tolist()), float(loss.detach()), rates)
        return loss


class RecordedLoop(Loop):
    """Makes itself known to the task."""

    def __init__(self, run: Run, observers: Observer) -> None:
        super().__init__(run, observers)
        assert isinstance(run.task, Recorded)
        run.task.loop = self


def recipe_for(model: str, folder: Path, *, workers: int, processes: int = 1) -> ClassifyRecipe:
    size = dataclasses.replace(TINY.data, image_size=SIZES_PX[model], workers=workers, micro_batch=4 // processes)
    return dataclasses.replace(TINY, model=model, data=size, devices=processes, output=str(folder))


def run(
    recipe: ClassifyRecipe, disturb: Callable[[str, int], None] = lambda *_: None, resume: bool = False
) -> dict[str, Any]:
    """Train, and give back all that was saved at the end and all that was seen."""
    before, training.Loop = training.Loop, RecordedLoop  # type: ignore[misc]
    try:
        result = training.train(recipe, resume=resume, progress=False, task=Recorded(disturb))
    finally:
        training.Loop = before  # type: ignore[misc]
    newest = newest_snapshot(result.folder / "checkpoints")
    assert newest is not None
    state = read_snapshot(newest)
    rows = (result.folder / "metrics.csv").read_text().splitlines()
    columns = rows[0].split(",")
    kept = [index for index, name in enumerate(columns) if name in ("step", "lr", "train_loss", "top1", "ema_top1")]
    assert len(kept) == 5
    state["metrics"] = [[row.split(",")[index] for index in kept] for row in rows]
    state["logging"] = None  # where the writers of the record are
    state["seen"] = Recorded.current.seen
    return state


def stopped(recipe: ClassifyRecipe, stop: str, by: str) -> dict[tuple[int, int], tuple[object, ...]]:
    """Start the run and have it end at `stop`; what it had seen."""

    def disturb(what: str, count: int) -> None:
        if (what, count) == STOPS[stop]:
            if by == "exception":
                raise Interruption
            if os.environ.get("LOCAL_RANK", "0") == str(recipe.devices - 1):  # the last process alone gets the signal
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interruption if by == "exception" else Stopped) as ended:
        run(recipe, disturb)
    assert by == "exception" or ended.value.code == 143
    return Recorded.current.seen


def killed(recipe: ClassifyRecipe) -> None:
    """The same in a process that SIGKILL ends."""

    def disturb(what: str, count: int) -> None:
        if (what, count) == STOPS["by SIGKILL"]:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            run(recipe, disturb)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def assert_resumes_alike(recipe: ClassifyRecipe, straight: dict[str, Any], stop: str, by: str) -> None:
    earlier = stopped(recipe, stop, by)
    again = run(recipe, resume=True)
    for key, value in earlier.items():
        assert again["seen"].get(key, value) == value, (stop, key)  # done twice, where nothing was saved at the stop
    again["seen"] = earlier | again["seen"]
    assert_same_bits(again, straight)


_straight: dict[str, dict[str, Any]] = {}


def straight_run(model: str, folder: Path) -> dict[str, Any]:
    if model not in _straight:
        _straight[model] = run(recipe_for(model, folder / "straight", workers=0))
        seen = _straight[model]["seen"]
        assert len(seen) == 12
        assert len({samples for samples, *_ in seen.values()}) == 12
    return _straight[model]


def combinations() -> list[Any]:
    """Of model, workers and place; each place once, and every pair of the others at one of them, outside of nightly."""
    pairs = list(itertools.product(SIZES_PX, (0, 2)))
    chosen = {(*pairs[number % len(pairs)], stop) for number, stop in enumerate(STOPS)}
    every = [(*pair, stop) for stop in STOPS for pair in pairs]
    return [pytest.param(*each, marks=() if each in chosen else pytest.mark.nightly) for each in every]


@pytest.mark.parametrize(("model", "workers", "stop"), combinations())
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_one_process(tmp_path: Path, model: str, workers: int, stop: str) -> None:
    straight = straight_run(model, tmp_path)
    recipe = recipe_for(model, tmp_path / "run", workers=workers)
    if stop == "by SIGKILL":
        killed(recipe)
        again = run(recipe, resume=True)
        assert again["seen"].items() <= straight["seen"].items()
        assert min(again["seen"]) == (4, 0)  # the interval since the checkpoint of step 4 is all that was lost
        again["seen"] = straight["seen"]
        assert_same_bits(again, straight)
    else:
        assert_resumes_alike(recipe, straight, stop, by="exception" if workers else "signal")


# What test_two_processes.py calls in each of two processes.


def resume_together(folder: Path) -> None:
    """After a signal that one of the two gets; without workers, which start slowly there."""
    _resume_at(folder, [("fastvit_debug", 0, "in the middle of an epoch")])


def resume_every_combination(folder: Path) -> None:
    """Of family, number of workers and place."""
    _resume_at(folder, list(itertools.product(SIZES_PX, (0, 2), STOPS)))


def _resume_at(folder: Path, chosen: list[tuple[str, int, str]]) -> None:
    models = {model for model, _, _ in chosen}
    straight = {model: run(recipe_for(model, folder / model, workers=0, processes=2)) for model in sorted(models)}
    for number, (model, workers, stop) in enumerate(chosen):
        if stop != "by SIGKILL":
            recipe = recipe_for(model, folder / f"{number}", workers=workers, processes=2)
            assert_resumes_alike(recipe, straight[model], stop, ("signal", "exception")[number % 2])


POISONS = ("NaN pixel", "infinite learning rate", "injected loss", "gradient that is not finite")


@pytest.mark.parametrize("poison", POISONS)
def test_a_poisoned_step_changes_no_bit_of_anything(tmp_path: Path, poison: str) -> None:
    before: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    checkpoints = tmp_path / "run" / "checkpoints"

    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(checkpoints.rglob("*")) if path.is_file()}

    def state() -> dict[str, Any]:
        loop = Recorded.current.loop
        assert loop is not None
        assert loop.run.average is not None
        saved = loop.state()
        kept = {"model": saved["model"], "ema": saved["ema"], "optimizer": saved["optimizer"]["state"]}
        names = {name.rsplit(".", 1)[-1] for name in saved["model"]}
        assert {"running_mean", "running_var", "num_batches_tracked"} <= names
        return kept

    class Poisoned(Recorded):
        def loss(self, learn: Objective, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
            if (moment.step, len(self.seen) % 2) == (3, 0):
                before.update(clone(state()))
                files.update(contents())
            if (moment.step, len(self.seen) % 2) == (3, 1):  # after one micro-batch whose statistics are already in
                assert self.loop is not None
                if poison == "NaN pixel":
                    batch.inputs[0, 0, 0, 0] = torch.nan
                if poison == "infinite learning rate":
                    for group in self.loop.run.optimizer.param_groups:
                        group["lr"] = float("inf")
            loss = super().loss(learn, model, batch, moment)
            if moment.step == 3 and poison == "injected loss":
                return loss + torch.inf
            if moment.step == 3 and poison == "gradient that is not finite":
                assert self.loop is not None
                weight = next(self.loop.run.model.parameters())
                return loss + (0 * weight).square().sum().sqrt()  # is 0, and its derivative is 0/0
            return loss

    before_loop, training.Loop = training.Loop, RecordedLoop  # type: ignore[misc]
    try:
        with pytest.raises(NonFiniteError) as caught:
            training.train(recipe_for("fastvit_debug", tmp_path / "run", workers=0), progress=False, task=Poisoned())
    finally:
        training.Loop = before_loop  # type: ignore[misc]
    assert before
    assert_same_bits(state(), before)
    assert files
    assert contents() == files
    text = str(caught.value)
    assert "Step 3 was refused: loss " in text
    assert "learning rate " in text
    assert text.count("generated/") == 8
    assert {"NaN pixel": "loss nan", "infinite learning rate": "learning rate inf", "injected loss": "loss inf"}.get(
        poison, "gradient norm nan"
    ) in text


def clone(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    return [clone(item) for item in value] if isinstance(value, list | tuple) else value


def test_weights_that_a_finite_step_has_made_infinite_are_not_saved(tmp_path: Path) -> None:
    def overflow(what: str, count: int) -> None:
        loop = Recorded.current.loop
        assert loop is not None
        if (what, count) == ("loss", 6):
            weight = next(loop.run.model.parameters())
            loop.run.optimizer.optimizer.register_step_post_hook(lambda *_: weight.data[0].fill_(torch.inf))

    with pytest.raises(NonFiniteError, match=r"After step 4 the weights are not finite .*Nothing of it is saved"):
        run(recipe_for("fastvit_debug", tmp_path / "run", workers=0), overflow)
    newest = newest_snapshot(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert newest.name == "step-000000002"
