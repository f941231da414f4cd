"""The folder of a run: whose it is, what is in it, and what happens to an earlier one.

recipe.yaml        the resolved recipe
report.html        curves, results and events, for people; written at every validation
metrics.csv        one row per validation
steps.csv          training loss, learning rate, gradient norm and speed, about 50 rows per epoch
tensorboard/       both as curves
events.jsonl       starts, resumes, warnings and files left out, over all sessions
checkpoints/       step-N folders to resume from
model.safetensors  the result, written at the end: the weights of the best validation
last.safetensors   those of the last one
result.json        best metrics, and which weights they belong to
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from hybridvit.errors import CheckpointError, UsageError
from hybridvit.machine.lock import LOCK, RunLock
from hybridvit.recipe.file import RECIPE, changed_keys, load_recipe
from hybridvit.recipe.recipe import Recipe
from hybridvit.training.run.snapshot import newest_snapshot, sweep

CHECKPOINTS = "checkpoints"
HARMLESS = (
    "output",
    "data.root",
    "data.workers",
    "data.cache",
    "data.cache_gb",
    "save_every",
    "keep",
    "timeout_seconds",
    "dry_run",
    "fit",
)
"""Keys that may differ on resume: they change no number (the images themselves are compared by their fingerprint, and
what `fit` changes, by itself)."""
FIXED = ("model", "optim.name", "freeze")
"""Keys (and what begins with them) that the saved state depends on: no one can allow them to change."""

Resume = bool | Literal["auto"]


class RunFolder:
    """A locked run folder, and where its files lie. `snapshot`: where to go on from, None at a fresh start."""

    def __init__(self, path: Path, lock: RunLock, *, snapshot: Path | None = None) -> None:
        self.path, self.lock, self.snapshot = path, lock, snapshot
        self.recipe = path / RECIPE
        self.report = path / "report.html"
        self.metrics = path / "metrics.csv"
        self.steps = path / "steps.csv"
        self.tensorboard = path / "tensorboard"
        self.events = path / "events.jsonl"
        self.checkpoints = path / CHECKPOINTS
        self.model = path / "model.safetensors"
        self.last = path / "last.safetensors"
        self.result = path / "result.json"

    @property
    def way_on(self) -> str:
        """What to do once the cause of an error is gone, as the end of a sentence."""
        if any(self.checkpoints.glob("step-*")):
            return "resume from the last checkpoint"
        return "start again: there is no checkpoint yet"


def open_run(
    recipe: Recipe, *, resume: Resume = False, allow_changes: bool = False, say: Callable[[str], None] = print
) -> RunFolder:
    """Lock the recipe's output folder, for a fresh run or to go on with the one in it.

    Args:
        resume: False: an earlier run is moved aside to NAME-1, NAME-2, ...; True: go on from the newest valid
            checkpoint, and there must be one; "auto": go on if there is one, else start, and say which.
        allow_changes: go on although the recipe differs from the run's.
        say: takes the one line that tells what happened.

    Raises:
        CheckpointError: nothing to resume. UsageError: the recipe changed, the folder is in use or is no run folder.
    """
    path = Path(recipe.output).expanduser()
    if path.exists() and not path.is_dir():
        raise UsageError(f"The output {path} is a file, but a run needs a folder. Choose another with --output.")
    snapshot = None
    if resume:
        snapshot = newest_snapshot(path / CHECKPOINTS)
        if snapshot is None and resume != "auto":
            raise CheckpointError(
                f"There is nothing to resume in {path}: it holds no whole checkpoint. Check --output, or leave "
                "--resume out to start anew (--resume auto does either)."
            )
    if snapshot is not None:
        _refuse_changes(path, recipe, allow_changes)
        lock = RunLock(path, say=say)
        sweep(path / CHECKPOINTS)
        say(f"Going on from {snapshot}.")
        return RunFolder(path, lock, snapshot=snapshot)
    if resume:
        say(f"No whole checkpoint in {path / CHECKPOINTS}: starting anew.")
    if _is_filled(path):
        _move_aside(path, say)
    path.mkdir(parents=True, exist_ok=True)
    return RunFolder(path, RunLock(path, say=say))


def recipe_of_run(path: Path) -> Recipe | None:
    """What the run in a folder was started with; None if there is no checkpoint to go on from."""
    if not any((path / CHECKPOINTS).glob("step-*")) or not (path / RECIPE).is_file():
        return None
    return load_recipe(str(path / RECIPE))


def _refuse_changes(path: Path, recipe: Recipe, allow_changes: bool) -> None:
    changes = changed_keys(load_recipe(str(path / RECIPE)), recipe, ignoring=HARMLESS)
    fixed = [change for change in changes if change.startswith(FIXED)]
    if fixed:
        raise UsageError(
            f"The run in {path} was started with another recipe ({'; '.join(fixed)}), and its checkpoints fit no "
            "other. Resume it with its own, or start a new run with --pretrained "
            f"{path / 'model.safetensors'} and another --output."
        )
    if changes and not allow_changes:
        raise UsageError(
            f"The run in {path} was started with another recipe ({'; '.join(changes)}). Resume it with its own, "
            f"--config {path / RECIPE}, or take the change on with --allow_changes."
        )


def _is_filled(path: Path) -> bool:
    return path.is_dir() and any(not child.name.startswith(LOCK) for child in path.iterdir())


def _move_aside(path: Path, say: Callable[[str], None]) -> None:
    if not (path / RECIPE).is_file():
        raise UsageError(
            f"The output folder {path} holds files that are no run's (there is no {RECIPE} in it), and a run does not "
            "mix with them. Choose an empty or new folder with --output."
        )
    lock = RunLock(path, say=say)  # refused while its run goes on
    number = 1
    while (aside := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    if sys.platform == "win32":  # which renames no folder with an open file, ours or that of who comes in between
        lock.release()
    path.rename(aside)
    lock.release()
    (aside / LOCK).unlink(missing_ok=True)
    say(f"The earlier run in {path} is kept in {aside}.")
