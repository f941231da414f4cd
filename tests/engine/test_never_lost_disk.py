"""On a disk that is full the checkpoint before stays, and the run goes on when there is room."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import assert_same_bits

from hybridvit.cli.main import main
from hybridvit.errors import DiskFull
from hybridvit.training.run.snapshot import newest_snapshot, read_snapshot, save_snapshot


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a file system needs root")
def test_on_a_disk_that_is_full_the_checkpoint_before_stays_and_superfluous_ones_go_first(tmp_path: Path) -> None:
    disk = tmp_path / "disk"

    def of_a_megabyte(step: int) -> dict[str, Any]:
        return {"step": step, "w": torch.full((250_000,), float(step))}

    with small_disk(disk, "3M"):
        for step in (1, 2, 3):  # the third does not fit beside two others, and keep=2 needs only one of them
            save_snapshot(disk, step, of_a_megabyte(step), keep=2)
        assert sorted(path.name for path in disk.iterdir()) == ["step-000000002", "step-000000003"]
        (disk / "other people's").write_bytes(b"\0" * 1_000_000)
        with contextlib.suppress(OSError), (disk / "more of it").open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        with pytest.raises(DiskFull, match=r"step 4 could not be written .*newest checkpoint before it is untouched"):
            save_snapshot(disk, 4, of_a_megabyte(4) | {"x": torch.zeros(600_000)}, keep=2)
        newest = newest_snapshot(disk)
        assert newest is not None
        assert_same_bits(read_snapshot(newest), of_a_megabyte(3))
        assert not list(disk.glob(".tmp-*"))


TINY = (
    "model: fastvit_debug\n"
    "data: {{source: generated, image_size: 32, total_batch: 8, workers: 0}}\n"
    "output: {output}\nschedule: {{epochs: 3, warmup_epochs: 0}}\nsave_every: 0.5\nkeep: 1\naccelerator: cpu\n"
)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a file system needs root")
def test_the_command_ends_with_7_on_a_full_disk_and_goes_on_when_there_is_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk, config = tmp_path / "disk", tmp_path / "tiny.yaml"
    config.write_text(TINY.format(output=disk / "run"))
    words = ["train", "--config", str(config)]
    with small_disk(disk, "700k"):
        # the first checkpoint fits; a second one beside it does not
        assert main(words) == 7
        text = capsys.readouterr().err
        assert "could not be written" in text
        assert "No space left on device" in text
        assert "Traceback" not in text
        assert newest_snapshot(disk / "run" / "checkpoints") is not None
        subprocess.run(["mount", "-o", "remount,size=50M", str(disk)], check=True)
        assert main([*words, "--resume"]) == 0
        assert (disk / "run" / "model.safetensors").is_file()
