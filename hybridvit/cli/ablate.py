"""`hybridvit ablate`: a table of ablations, trained again with seeds on data of one's own."""

from json import dumps
from pathlib import Path

from hybridvit.stderr import remark


def ablate(
    table: str,
    *,
    data: str = "",
    base: str = "",
    keys: list[str] | None = None,
    seeds: list[int] | None = None,
    lab: str = "runs/lab",
    shard: str = "1/1",
    jobs: int = 1,
    print_commands: bool = False,
    report: bool = False,
    json: bool = False,
) -> None:
    """Train a table of ablations of the papers on your data, and say which differences are resolved.

    fastvit-1, -3, -4, -s1, -s2, -s3; fastervit-5, -s1, -s4, -s7; fastervit-s1-small is S.1 for models of two
    stages, as in the recipe two_marks. Every row is trained with every seed in a process of its own: a finished one is
    never trained again, one that was stopped goes on, one that fails becomes a row with its message. Rows are compared
    by seed, with intervals over seeds and test images, and the page shows the published row beside.

    Examples:
      hybridvit ablate fastvit-4 --data photos --base folder --keys model=fastvit_s12 --seeds 0 1 2
      hybridvit ablate fastervit-s1-small --seeds 0 1 2 --jobs 2
      hybridvit ablate fastvit-s2 --data /imagenet --lab /shared/lab --shard 3/15
      hybridvit ablate fastervit-s1-small --seeds 0 1 2 --report

    Args:
        table: the table to run.
        data: folder of the images (data.root); by default that of the recipe.
        base: recipe that all rows share; by default that of the paper's model.
        keys: more keys of the recipe, each as key=value.
        seeds: seeds of each row; 0 1 2 by default. Five or more give a t-interval too.
        lab: folder that holds the cells and the page.
        shard: i/n: only part i of n of the cells, for array jobs of any scheduler on a shared folder.
        jobs: cells at a time; each has an equal part of the cores.
        print_commands: print the command of each cell that is not finished, a line each, and run nothing.
        report: run nothing: compare what is there, with the same options.
        json: one line of JSON.
    """
    from hybridvit.ablate.cells import cells_of, shard_of
    from hybridvit.ablate.compare import compare
    from hybridvit.ablate.report import text_of, to_dict, write_page
    from hybridvit.ablate.run import command_of, prepare, run_cells
    from hybridvit.ablate.tables import find_table

    found = find_table(table)
    changes = _keys(keys or [], data)
    recipe = base or found.recipe
    cells = cells_of(table, found, base=recipe, keys=changes, seeds=seeds or [0, 1, 2], lab=Path(lab))
    mine = shard_of(cells, shard)
    if print_commands:
        prepare(mine)
        print("\n".join(command_of(cell) for cell in mine if cell.result() is None))
        return
    if not report:
        run_cells(mine, jobs=jobs, say=remark)
    comparison = compare(table, found, cells)
    page = write_page(comparison, found, Path(lab) / table, base=recipe, keys=changes)
    if json:
        print(dumps(to_dict(comparison, base=recipe, keys=changes), ensure_ascii=False))
        return
    print(text_of(comparison))
    remark(f"The page is {page}")


def _keys(words: list[str], data: str) -> dict[str, str]:
    """Recipe keys by name. Raises UsageError for a word without "="."""
    from hybridvit.errors import UsageError

    keys = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--keys has '{word}', but each is key=value, such as schedule.epochs=2.")
        keys[key] = value
    return keys | ({"data.root": data} if data else {})
