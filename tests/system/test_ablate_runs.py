"""The ablation lab as it runs: cells in processes, in parts, killed, failed, and gone on with."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hybridvit.ablate.cells import FAILURE, RESULT, Cell, cells_of, shard_of
from hybridvit.ablate.compare import compare
from hybridvit.ablate.report import to_dict
from hybridvit.ablate.run import PROGRAM, prepare, run_cells
from hybridvit.ablate.tables import AblationTable, Row
from hybridvit.cli import main

TABLE = AblationTable(
    title="Two rows",
    recipe="two_marks",
    baseline="repmixer",
    rows={"repmixer": Row(options={"mixers": ("repmixer",) * 4}), "default": Row()},
)
KEYS: dict[str, Any] = {
    "model": "fastvit_debug",
    "model_options": {},
    "data.source": "digits",
    "data.val": "test",
    "data.image_size": 32,
    "data.total_batch": 128,
    "schedule.epochs": 1,
    "save_every": 0.25,
    "accelerator": "cpu",
}


def grid(lab: Path, seeds: tuple[int, ...], *, digits: Path, table: AblationTable = TABLE) -> list[Cell]:
    keys = KEYS | {"data.root": str(digits)}
    return cells_of("two", table, base="two_marks", keys=keys, seeds=seeds, lab=lab)


def came_out(cells: list[Cell]) -> dict[str, Any]:
    """The table without what a clock or the memory says."""
    found = to_dict(compare("two", TABLE, cells), base="two_marks", keys={})
    for row in found["rows"]:
        row["costs"] = {name: row["costs"][name] for name in ("parameters", "multiply_adds", "images_until_90")}
    return found


def test_a_failed_cell_is_told_the_others_finish_and_a_finished_one_is_never_run_again(tmp_path: Path) -> None:
    cells = grid(tmp_path / "lab", (0,), digits=tmp_path / "digits")
    prepare(cells)
    failed, fine = cells
    (failed.folder / "run").write_text("a file where the folder of the run should be")
    said: list[str] = []
    run_cells(cells, say=said.append)
    assert (failed.folder / FAILURE).is_file()
    assert failed.failure()
    assert any(line.startswith("repmixer, seed 0: failed: ") for line in said)
    done = fine.result()
    assert done is not None
    assert len(done["right"]) == 360
    assert done["value"] == pytest.approx(100 * done["right"].count("1") / 360, abs=1e-6)
    before = (fine.folder / RESULT).stat().st_mtime_ns
    run_cells([fine])
    assert (fine.folder / RESULT).stat().st_mtime_ns == before


def test_commands_are_printed_for_the_cells_of_the_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablate", "fastervit-s1-small", "--seeds", "0", "1", "--lab", str(tmp_path), "--print_commands"]
    assert main([*words, "--shard", "1/2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert all(PROGRAM in line and str(tmp_path) in line for line in lines)


def test_a_table_that_there_is_not_ends_with_its_nearest_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "fastvit-44"]) == 2
    assert "Nearest: 'fastvit-4'" in capsys.readouterr().err


@pytest.mark.nightly
def test_two_shards_and_random_kills_end_with_the_table_of_one_run(tmp_path: Path) -> None:
    digits = tmp_path / "digits"
    whole = grid(tmp_path / "whole", (0, 1), digits=digits)
    run_cells(whole)
    parts = grid(tmp_path / "parts", (0, 1), digits=digits)
    dice = random.Random(0)
    prepare(parts)
    for cell in parts:
        killed = subprocess.Popen([sys.executable, "-m", PROGRAM, str(cell.folder)], stderr=subprocess.DEVNULL)
        time.sleep(dice.uniform(2, 8))
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    for shard in ("1/2", "2/2"):
        run_cells(shard_of(parts, shard))
    assert json.dumps(came_out(parts)) == json.dumps(came_out(whole))
