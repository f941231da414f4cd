"""The cells of a table: one recipe for each row and seed, and the folder that belongs to exactly that recipe."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hybridvit import __version__
from hybridvit.ablate.tables import AblationTable, Row
from hybridvit.errors import UsageError
from hybridvit.recipe.file import as_plain, flat, load_recipe
from hybridvit.recipe.recipe import Recipe
from hybridvit.task import find_task

DIGITS = 12  # of the SHA-256 in a folder's name
RESULT, FAILURE, RUN = "cell.json", "failed.json", "run"
ELSEWHERE = ("output", "accelerator", "devices")  # keys that say where a cell is run, not what it is


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training: a row of the table with a seed."""

    row: str
    seed: int
    recipe: Recipe  # resolved; it writes into `folder`/run
    folder: Path

    def result(self) -> dict[str, Any] | None:
        """What it came to, where it is finished."""
        return _read(self.folder / RESULT)

    def failure(self) -> str | None:
        """The message of its last try, where that failed."""
        found = None if self.result() else _read(self.folder / FAILURE)
        return None if found is None else str(found["message"])


def cells_of(
    name: str, table: AblationTable, *, base: str, keys: Mapping[str, Any], seeds: Sequence[int], lab: Path
) -> list[Cell]:
    """Every cell, seed by seed, so that a grid which is cut short has whole seeds.

    Opens the data once, as their fingerprint is part of a folder's name. Raises UsageError for a row that cannot be
    built, a seed twice, and what the recipe has wrong; DatasetError for data that cannot be used.
    """
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"The seeds are {' '.join(map(str, seeds))}, but each counts once. Leave out the second.")
    start = load_recipe(base, keys)
    recipes = {row: recipe_of_row(start, table.rows[row], row) for row in table.rows}
    of_data = {each.data: each for each in recipes.values()}  # those that differ in their data, mostly one
    prints = {data: find_task(each.task).open(each).train.fingerprint for data, each in of_data.items()}
    return [
        _cell(name, row, seed, recipe, prints[recipe.data], lab) for seed in seeds for row, recipe in recipes.items()
    ]


def recipe_of_row(base: Recipe, row: Row, name: str) -> Recipe:
    """The base with what the row changes; without averaged weights, which are not compared, unless MESA needs them.

    Raises UsageError with the row's name for options that the base's model does not take.
    """
    import torch

    from hybridvit.create import create_model

    options: dict[str, Any] = {key: value for key, value in base.model_options.items() if key not in row.without}
    options |= {key: list(value) if isinstance(value, tuple) else value for key, value in row.options.items()}
    as_built: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    model = row.model or base.model
    try:
        with torch.device("meta"):
            create_model(model, **as_built)
    except UsageError as error:
        raise UsageError(f"Row '{name}' cannot be built on this base: {error}") from error
    learns = flat(base).get("mesa.weight")
    changed = replace(base, model=model, model_options=options)
    changed = changed if learns else replace(changed, ema=replace(base.ema, decay=0.0))
    for key, value in row.keys.items():
        group, _, leaf = key.partition(".")
        changed = replace(changed, **{group: replace(getattr(changed, group), **{leaf: value})})
    return changed


def shard_of(cells: Sequence[Cell], shard: str) -> list[Cell]:
    """Part i of n of the cells, for "i/n" with i from 1. Raises UsageError."""
    first, slash, second = shard.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise UsageError(f"--shard is '{shard}', but must be i/n with i from 1 to n, such as 1/4.")
    return list(cells[int(first) - 1 :: int(second)])


def rows_of(cells: Sequence[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    """Each row with its cells."""
    for row in dict.fromkeys(cell.row for cell in cells):
        yield row, [cell for cell in cells if cell.row == row]


def _cell(name: str, row: str, seed: int, recipe: Recipe, fingerprint: str, lab: Path) -> Cell:
    recipe = replace(recipe, seed=seed)
    content = {key: value for key, value in as_plain(recipe).items() if key not in ELSEWHERE}
    text = json.dumps([content, fingerprint, __version__], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
    folder = lab / name / row.replace(" ", "-") / f"seed-{seed}-{digest}"
    return Cell(row=row, seed=seed, recipe=replace(recipe, output=str(folder / RUN)), folder=folder)


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
