"""`hybridvit check-data`: is this folder of images fit to train on?"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

from hybridvit.cli.output import check_outputs
from hybridvit.cli.progress import status_line
from hybridvit.errors import DatasetError, UsageError, nearest

if TYPE_CHECKING:
    from hybridvit.data.check_contents import Contents

ANY_RECIPE = "folder"  # whose task and keys a table is read by unless one is named
LINE_EVERY_SECONDS = 10.0


def check_data(
    root: str,
    *,
    recipe: str | None = None,
    keys: list[str] | None = None,
    suite: str | None = None,
    partial: bool = False,
    workers: int | None = None,
    json: Path | None = None,
) -> int:
    """Decode every image of a data set and report what a training would trip over.

    The folder holds one folder per class, or splits such as train/ and val/ that do; or a table names the images; or it
    is laid out as another task's data sets are, or as a robustness suite (see `evaluate --suites`), which is found by
    looking. Reported are bad files by cause, empty and unknown classes, equal files across classes and splits, sizes
    and colours, and what that task looks at; the folders of a suite are checked before an image is decoded. The exit
    code is 3 if there are errors; warnings and notes leave it at 0.

    Examples:
      hybridvit check-data photos
      hybridvit check-data imagenet --workers 16 --json imagenet-check.json
      hybridvit check-data photos/all.csv --keys data.label_column=diagnosis
      hybridvit check-data imagenet/val --suite real

    Args:
        root: folder of the data set, or a table (.csv, .tsv, .parquet).
        recipe: the recipe that the data set is for: its task and its keys say how it is read.
        keys: keys of the recipe with their values, as train takes them: data.label_column=diagnosis.
        suite: the robustness suite that the folder is: v2-matched, v2-threshold, v2-top, real, a, r, sketch, c, c-bar,
            3dcc or imagenet; found by looking where the folder's name or those in it tell.
        partial: corruptions and severities of the suite may be missing.
        workers: processes that decode; 0 decodes in this one, by default one per core.
        json: file to write the whole report to, with all bad files and groups of equal ones.
    """
    from hybridvit.atomic import write_text
    from hybridvit.data.check import check_images
    from hybridvit.machine.facts import usable_cores

    if workers is not None and workers < 0:
        raise UsageError(f"--workers is {workers}, but it must be at least 0 (0: this process decodes).")
    check_outputs(json)
    workers = usable_cores() if workers is None else workers
    contents = _contents_of_suite(root, suite, partial=partial, has_recipe=recipe is not None or bool(keys))
    contents = contents or _contents(root, recipe, keys or [])
    with status_line(in_logs=True) as show:
        report = check_images(contents, workers=workers, on_progress=_reporter(show))
    if json is not None:
        write_text(json, dumps(report.to_dict(), indent=1) + "\n")
    print(report.text())
    return 0 if report.is_usable else DatasetError.exit_code


def _contents_of_suite(root: str, name: str | None, *, partial: bool, has_recipe: bool) -> "Contents | None":
    """Those of a robustness suite, which is named or found by looking; None where it is another data set."""
    from hybridvit.evaluate.suites.contents import contents_of_suite, recognised
    from hybridvit.evaluate.suites.suites import SUITES

    if has_recipe and (name is not None or partial):
        raise UsageError(
            "--suite and --partial say that a robustness suite is checked, which has no recipe. Leave out one."
        )
    if name is not None and name not in SUITES:
        raise UsageError(f"There is no suite '{name}'. {nearest(name, SUITES)}.")
    folder = Path(root).expanduser()
    if name is None and (has_recipe or not folder.is_dir()):
        return None
    suite = SUITES[name] if name is not None else recognised(folder)
    if suite is not None:
        return contents_of_suite(suite, folder, partial=partial)
    if partial:
        raise UsageError(f"--partial is of robustness suites, but {root} is laid out as none. Say which with --suite.")
    return None


def _contents(root: str, recipe: str | None, keys: list[str]) -> "Contents":
    from hybridvit.data.check_contents import contents_of_folder, contents_of_listings
    from hybridvit.data.table import is_table
    from hybridvit.recipe.file import load_recipe
    from hybridvit.task import find_task

    if recipe is None and not keys:
        if (found := _laid_out_as(root)) is not None:
            return found
        if not is_table(root):
            return contents_of_folder(root)
    words = [f"--{key}" for key in keys]
    place = f"--data.root={root}"
    if is_table(root) and "table" in load_recipe(recipe or ANY_RECIPE, [place]).data.sources:
        words.append("--data.source=table")
    asked = load_recipe(recipe or ANY_RECIPE, [*words, place])
    task = find_task(asked.task)
    if (found := task.contents(root, asked.data)) is not None:
        return found
    if asked.data.source != "table":
        raise UsageError(
            f"--recipe and --keys say how tables are read, but {root} is no table, and the recipe's data.source is "
            f"'{asked.data.source}'. Leave them out, or add --keys data.source=table for a folder of tables."
        )
    listings = task.listed(asked.data)
    return contents_of_listings(next(iter(listings.values())).root, listings)


def _laid_out_as(root: str) -> "Contents | None":
    """The data set of the first task that knows the layout, with a note of the others that know it too."""
    from hybridvit.data.check_report import finding
    from hybridvit.task import TASKS, find_task

    found = {name: contents for name in TASKS if (contents := find_task(name).contents(root)) is not None}
    if not found:
        return None
    first, *others = found
    what = f"Looked at as a data set of the task {first}. Others that it may be for (--recipe)"
    return replace(found[first], findings=[*found[first].findings, *finding("note", "other-tasks", what, others)])


def _reporter(show: Callable[[str], None]) -> Callable[[int, int, int], None]:
    """Tells how many images are decoded: five times a second in a terminal, every ten seconds elsewhere."""
    every_s = 0.2 if sys.stderr.isatty() else LINE_EVERY_SECONDS
    began = last = time.monotonic()

    def report(done: int, total: int, bad: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every_s:
            return
        last = now
        speed = done / (now - began)
        left = (total - done) / speed
        show(f"{done:,} of {total:,} images, {bad:,} bad, {speed:,.0f} images/s, {left / 60:.0f} min left")

    return report
