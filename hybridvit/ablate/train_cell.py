"""`python -m hybridvit.ablate.train_cell FOLDER`: train the cell whose recipe lies there, and write what it came to."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from hybridvit.ablate.cells import RESULT, RUN
from hybridvit.atomic import write_text
from hybridvit.errors import HybridViTError
from hybridvit.machine.facts import bytes_in
from hybridvit.recipe.file import RECIPE, load_recipe

GOOD_PERCENT = 90.0  # of the metric; how many images it took to get there is told


def train_cell(folder: Path) -> dict[str, Any]:
    """Train, or go on, as FOLDER/recipe.yaml says; the metric of record is that of the last validation.

    Raises what training raises.
    """
    from hybridvit.checkpoints import load
    from hybridvit.evaluate.run import evaluate_model, ready
    from hybridvit.measure.counts import count
    from hybridvit.task import find_task
    from hybridvit.training.train import train

    recipe = load_recipe(str(folder / RECIPE), {"output": str(folder / RUN)})
    is_resumed = (folder / RUN).is_dir()
    began, began_s = time.process_time(), time.perf_counter()
    run = train(recipe, resume="auto", progress=False)
    core_seconds, wall_seconds = time.process_time() - began, time.perf_counter() - began_s
    task, name = find_task(recipe.task), run.headline.name
    model = load(run.last).eval()
    found = evaluate_model(model, task.open(recipe).validation, task, model.card)
    right = found.scores.per_image if run.averaged is None else None  # the file may hold the averaged weights then
    counts = count(ready(model), (recipe.data.image_size, recipe.data.image_size))
    epoch_images = run.history[-1]["step"] / run.history[-1]["epoch"] * recipe.data.total_batch
    good = next((row["epoch"] * epoch_images for row in run.history if row[name] >= GOOD_PERCENT), None)
    return {
        "metric": name,
        "value": run.history[-1][name],
        "right": None if right is None or right.dtype != bool else "".join("1" if each else "0" for each in right),
        "images_until_90": None if good is None else round(good),
        "resumed": is_resumed,
        "core_seconds": round(core_seconds, 2),
        "wall_seconds": round(wall_seconds, 2),
        "peak_memory_mib": _peak_mib(),
        "parameters": counts.parameters,
        "multiply_adds": counts.multiply_adds,
    }


def _peak_mib() -> int | None:
    """The most memory that this process has held; None where the system does not tell."""
    peak = bytes_in(Path("/proc/self/status"), "VmHWM")
    return None if peak is None else round(peak / 2**20)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        write_text(place / RESULT, json.dumps(train_cell(place)) + "\n")
    except HybridViTError as error:
        sys.exit(str(error))
