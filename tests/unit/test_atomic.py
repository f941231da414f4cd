"""A file is written whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

from hybridvit.atomic import replacing, write_text
from hybridvit.errors import DiskFull, UsageError


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text("old")
    return path


def test_the_new_content_takes_the_place_of_the_old(target: Path) -> None:
    write_text(target, "neu ✓")
    assert target.read_text(encoding="utf-8") == "neu ✓"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_while_writing_leaves_the_old_file_alone(target: Path) -> None:
    def interrupted() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text(encoding="utf-8") == "old"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_device_that_refuses_leaves_the_old_file_alone(
    target: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, step, refuse)
    with pytest.raises(DiskFull, match=r"report\.html could not be written .*; what stood there before is untouched"):
        write_text(target, "new")
    assert target.read_text(encoding="utf-8") == "old"
    assert list(target.parent.iterdir()) == [target]


def test_the_mode_is_that_of_the_old_file_or_the_umask(target: Path, tmp_path: Path) -> None:
    target.chmod(0o640)
    write_text(target, "new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "fresh", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o640


def test_places_that_cannot_be_a_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder, but a file is to be written"):
        write_text(tmp_path, "x")
    with pytest.raises(UsageError, match=r"The folder .*none does not exist, so r\.csv cannot be written"):
        write_text(tmp_path / "none" / "r.csv", "x")


def test_the_temporary_file_keeps_the_suffix_that_tools_go_by(tmp_path: Path) -> None:
    with replacing(tmp_path / "m.onnx") as temporary:
        assert temporary.suffix == ".onnx"
        temporary.write_bytes(b"x")


def test_a_folder_that_cannot_be_synced_is_not_told_as_a_file_untouched(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def refuse_folders(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    code = errno.EIO
    with pytest.raises(DiskFull, match=r"report\.html is written, but its folder could not be synced .* Check"):
        write_text(target, "new")
    assert target.read_text(encoding="utf-8") == "new"
    code = errno.EINVAL  # the file system knows no such thing
    write_text(target, "newer")
    assert target.read_text(encoding="utf-8") == "newer"
    assert list(target.parent.iterdir()) == [target]


def test_a_place_that_takes_no_files_ends_as_a_full_disk_does() -> None:
    with pytest.raises(DiskFull, match=r"^/proc/x could not be written .* Choose a place that you may write to"):
        write_text(Path("/proc/x"), "x")
