"""A finished run, read for publication: its model, its recipe without the places of this machine, what it measured."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridvit.checkpoints import load
from hybridvit.errors import CheckpointError, UsageError, command_line
from hybridvit.hub import hub_place
from hybridvit.machine.lock import LOCK, RunLock
from hybridvit.models.registry import VARIANTS
from hybridvit.models.whole import WholeModel
from hybridvit.quantity import Quantity
from hybridvit.recipe.file import RECIPE, load_recipe
from hybridvit.recipe.recipe import Recipe
from hybridvit.task import Task, find_task
from hybridvit.training.record.curves import told

RESULT, MODEL = "result.json", "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """What a run folder holds that others may see."""

    folder: Path
    recipe: Recipe  # of paths the last part alone
    task: Task
    model: WholeModel
    result: Mapping[str, Any]  # of result.json
    base: str  # the weights that it began with: a repository of the hub, or the name of a file; empty: random ones
    data_on_hub: str  # the data set's name on the hub; empty: it lies elsewhere

    @property
    def averaged(self) -> bool:
        """Whether the model holds the moving average of the weights."""
        return self.result["weights"] == "averaged"

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """One row per validation."""
        return self.result["history"]

    @property
    def measured(self) -> list[tuple[Quantity, float]]:
        """What the model's weights reached on the validation images, the headline first."""
        row = next(row for row in self.history if row["step"] == self.result["step"])
        prefix = "ema_" if self.averaged else ""
        return [(each, row[prefix + each.name]) for each in self.task.quantities if prefix + each.name in row]

    @property
    def telling(self) -> list[tuple[Quantity, float]]:
        """Those of them that tell something: the top-5 of two classes does not."""
        shown = {self.task.headline.name, "loss", *(each.name for each in told(self.history, self.task.quantities))}
        return [(quantity, value) for quantity, value in self.measured if quantity.name in shown]


def read_run(folder: Path) -> FinishedRun:
    """The finished run in `folder`.

    Raises UsageError for a folder that is none of a run, or of one that goes on or has not ended; CheckpointError for
    a model or a result that is damaged.
    """
    folder = folder.expanduser()
    _check(folder)
    recipe = load_recipe(str(folder / RECIPE))
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        run = FinishedRun(
            folder=folder,
            recipe=without_places(recipe),
            task=find_task(recipe.task),
            model=load(folder / MODEL),
            result=result,
            base=_base_of(recipe),
            data_on_hub=_data_on_hub(recipe),
        )
        if run.measured[0][0] != run.task.headline:
            raise LookupError
    except (OSError, ValueError, LookupError, TypeError, StopIteration) as error:
        if isinstance(error, CheckpointError | UsageError):
            raise
        raise CheckpointError(
            f"{folder / RESULT} is damaged or incomplete, so it is not known what the run measured. Take it from a "
            "copy of the run, or train again."
        ) from error
    return run


def _check(folder: Path) -> None:
    if folder.is_file():
        raise UsageError(f"{folder} is a file. Give the folder of its run, which tells what it was trained on as well.")
    if not folder.is_dir():
        raise UsageError(f"There is no run {folder}. Check the path; `hybridvit train` says where a run lies.")
    if not (folder / RECIPE).is_file():
        raise UsageError(
            f"{folder} is no run: there is no {RECIPE} in it. Give the folder that `hybridvit train` wrote, such as "
            "runs/digits."
        )
    if (folder / LOCK).exists():
        RunLock(folder).release()  # refuses a run that goes on
    lacking = [name for name in (RESULT, MODEL) if not (folder / name).is_file()]
    if lacking:
        on = command_line("hybridvit", "train", "--config", folder / RECIPE, "--resume")
        raise UsageError(
            f"The run in {folder} has not ended: there is no {' and no '.join(lacking)}. Go on with it: {on}"
        )


def without_places(recipe: Recipe) -> Recipe:
    """The recipe with the last part alone of each path and URL in it, which may tell more than others should know."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changed[field.name] = dataclasses.replace(value, **_shortened(value))
    return dataclasses.replace(recipe, **changed, **_shortened(recipe))


def _shortened(group: Any) -> dict[str, Any]:
    """The texts among a group's keys that the user has set, less what leads to a file."""
    texts = {each.name: getattr(group, each.name) for each in dataclasses.fields(group)}
    defaults = {each.name: each.default for each in dataclasses.fields(group)}
    changed = {key: text for key, text in texts.items() if isinstance(text, str) and text != defaults[key]}
    return {key: _last_part(text) for key, text in changed.items()}


def _last_part(text: str) -> str:
    """What leads nowhere stays: words, the part of a fold (1/5), addresses on the hub."""
    if text.startswith("hf://") or re.fullmatch(r"\d+/\d+", text):
        return text
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1] or text


def _base_of(recipe: Recipe) -> str:
    choice = recipe.pretrained
    if choice is False:
        return ""
    place = hub_place(str(choice))
    if place is not None:
        return place.repository
    variant = VARIANTS.get(recipe.model)
    tags = dict(variant.published.weights) if variant else {}
    if choice is True:
        return next(iter(tags.values())).hub_id if tags else f"timm/{recipe.model}"
    return tags[str(choice)].hub_id if str(choice) in tags else _last_part(str(choice))


def _data_on_hub(recipe: Recipe) -> str:
    is_there = recipe.data.source == "huggingface" and not Path(recipe.data.root).exists()
    return recipe.data.root if is_there else ""
