"""The ablation lab without a training: its tables, the names of its cells, and what it says of differences."""

import json
from pathlib import Path

import numpy as np
import pytest

import hybridvit
from hybridvit.ablate.cells import RESULT, Cell, cells_of, recipe_of_row, shard_of
from hybridvit.ablate.compare import Comparison, bootstrap_two_levels, compare, holm, student_p, student_quantile
from hybridvit.ablate.report import conclusion, text_of, to_dict, write_page
from hybridvit.ablate.run import prepare
from hybridvit.ablate.tables import TABLES, find_table
from hybridvit.errors import UsageError
from hybridvit.recipe.file import load_recipe

TABLE = TABLES["fastervit-s1-small"]
SEEDS = (0, 1, 2)


def grid(lab: Path, seeds: tuple[int, ...] = SEEDS, **keys: str) -> list[Cell]:
    return cells_of("fastervit-s1-small", TABLE, base="two_marks", keys=keys, seeds=seeds, lab=lab)


def finish(cell: Cell, right: np.ndarray) -> None:
    """As if it had been trained, with these answers."""
    done = {"metric": "top1", "value": 100 * float(right.mean()), "right": "".join(str(int(each)) for each in right)}
    costs = {"core_seconds": 1.0, "wall_seconds": 1.0, "peak_memory_mib": 9, "parameters": 7, "multiply_adds": 8}
    prepare([cell])
    (cell.folder / RESULT).write_text(json.dumps({**done, **costs, "images_until_90": None, "resumed": False}))


def compared(lab: Path, share: dict[str, float]) -> Comparison:
    """The table as it comes out where each row is right so often, independent of the others."""
    dice = np.random.default_rng(0)
    cells = grid(lab, (0, 1, 2, 3, 4))
    for cell in cells:
        if cell.row in share:
            finish(cell, dice.random(1000) < share[cell.row])
    return compare("fastervit-s1-small", TABLE, cells)


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_every_table_can_be_built_on_the_papers_recipe(name: str) -> None:
    table = find_table(name)
    keys = {} if table.recipe == "two_marks" else {"data.root": "images"}
    base = load_recipe(table.recipe, keys)
    for row in list(table.rows)[:: max(1, len(table.rows) - 1)]:  # the first and the last; each is checked before a run
        recipe = recipe_of_row(base, table.rows[row], row)
        assert recipe.model == (table.rows[row].model or base.model)
    assert table.baseline in table.rows
    assert all(table.against(row) in table.rows for row in table.rows)


def test_published_changes_are_those_between_the_printed_rows() -> None:
    assert TABLES["fastvit-4"].published_change("V3") == 2.1
    assert TABLES["fastervit-s1"].published_change("no attention bias") == -0.31
    assert TABLES["fastervit-s7"].published_change("4 without") == -0.5


def test_a_cells_folder_is_named_after_what_is_trained(tmp_path: Path) -> None:
    cells, again = grid(tmp_path), grid(tmp_path)
    assert [cell.folder for cell in cells] == [cell.folder for cell in again]
    assert len({cell.folder for cell in cells}) == len(TABLE.rows) * len(SEEDS)
    longer = grid(tmp_path, **{"schedule.epochs": "5"})
    assert not {cell.folder for cell in cells} & {cell.folder for cell in longer}
    elsewhere = grid(tmp_path, accelerator="cpu")
    assert [cell.folder for cell in cells] == [cell.folder for cell in elsewhere]


def test_shards_are_disjoint_and_together_everything(tmp_path: Path) -> None:
    cells = grid(tmp_path)
    parts = [shard_of(cells, f"{part}/5") for part in range(1, 6)]
    assert sorted(str(cell.folder) for part in parts for cell in part) == sorted(str(cell.folder) for cell in cells)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/"])
def test_a_shard_that_is_none_is_refused(shard: str) -> None:
    with pytest.raises(UsageError, match=r"--shard is '.*', but must be i/n"):
        shard_of([], shard)


def test_a_table_seeds_and_rows_that_are_wrong_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no table 'fastvit-9'.*Nearest: 'fastvit-"):
        find_table("fastvit-9")
    with pytest.raises(UsageError, match="seeds are 1 1, but each counts once"):
        grid(tmp_path, (1, 1))
    row = TABLES["fastervit-s1"].rows["no HAT block"]  # four stages on a base of two
    with pytest.raises(UsageError, match="Row 'no HAT block' cannot be built on this base"):
        recipe_of_row(load_recipe("two_marks"), row, "no HAT block")


def test_large_differences_are_resolved_and_small_ones_are_not(tmp_path: Path) -> None:
    shares = {"baseline": 0.80, "no HAT block": 0.60, "no absolute bias": 0.801, "window 14": 0.95}
    found = compared(tmp_path, shares)
    differences = {row.name: row.difference for row in found.rows}
    verdicts = {name: each.verdict for name, each in differences.items() if each is not None}
    assert verdicts == {"no HAT block": "worse", "no absolute bias": "not resolved", "window 14": "better"}
    drop = differences["no HAT block"]
    assert drop is not None
    assert drop.t_low is not None
    assert drop.t_high is not None
    assert drop.low < drop.mean < drop.high
    assert drop.t_low < drop.mean < drop.t_high
    assert "Better: window 14. Worse: no HAT block. Not resolved: no absolute bias." in conclusion(found)


def test_what_was_not_run_or_failed_is_a_row_that_says_so(tmp_path: Path) -> None:
    (failed, *_) = [cell for cell in grid(tmp_path, (0, 1, 2, 3, 4)) if cell.row == "no HAT block"]
    prepare([failed])
    (failed.folder / "failed.json").write_text(json.dumps({"code": 1, "message": "no memory"}))
    text = text_of(compared(tmp_path, {"baseline": 0.8}))
    assert "no HAT block, seed 0: failed: no memory" in text
    assert "window 14: not run: seed 0, 1, 2, 3, 4" in text


def test_the_page_and_the_json_hold_the_published_row_beside_ours(tmp_path: Path) -> None:
    found = compared(tmp_path, {"baseline": 0.8, "no attention bias": 0.7})
    page = write_page(found, TABLE, tmp_path / "page", base="two_marks", keys={}).read_text()
    assert "-0.31" in page
    assert "worse than baseline" in page
    assert "http" not in page.split("<body")[1]
    values = json.loads(json.dumps(to_dict(found, base="two_marks", keys={})))
    row = next(each for each in values["rows"] if each["name"] == "no attention bias")
    assert row["published_change"] == -0.31
    assert row["difference"]["verdict"] == "worse"
    assert values["version"] == hybridvit.__version__


def test_the_bootstrap_has_the_spread_of_seeds_and_of_images() -> None:
    dice = np.random.default_rng(1)
    seeds, images = dice.normal(0, 1.0, (40, 1)), dice.normal(0, 4.0, (1, 400))
    spread = bootstrap_two_levels(seeds + images).std()
    expected = np.hypot(seeds.std() / np.sqrt(40), images.std() / np.sqrt(400))
    assert spread == pytest.approx(expected, rel=0.05)


def test_holm_multiplies_and_never_decreases() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)])
def test_students_t_is_that_of_the_printed_tables(freedom: int, quantile: float) -> None:
    assert student_quantile(freedom) == pytest.approx(quantile, abs=6e-4)
    assert student_p(quantile, freedom) == pytest.approx(0.05, abs=1e-4)
