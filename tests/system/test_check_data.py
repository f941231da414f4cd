"""`hybridvit check-data` says everything that is wrong with a data set, and stops at nothing."""

import json
import os
import shutil
import subprocess
import sys
import time
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hybridvit.cli.main import main
from hybridvit.data import check_findings, check_report
from hybridvit.data.check import check_images
from hybridvit.data.check_contents import Contents, Looked, contents_of_folder
from hybridvit.data.check_report import CheckReport, Finding, finding, remarks_or_refusal
from hybridvit.data.class_names import difference
from hybridvit.data.inspect import Inspection, inspect_file
from hybridvit.data.listing import scan_folder
from hybridvit.errors import DatasetError
from hybridvit.task import TASKS, Task

CHANCE = np.random.default_rng(0)


def paint(path: Path, width: int = 20, height: int = 16, dtype: type = np.uint8, orientation: int = 1) -> None:
    """A picture unlike all others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = CHANCE.integers(0, 256, (height, width, 3) if dtype is np.uint8 else (height, width)).astype(dtype)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(levels).save(path, exif=exif)


def kinds(report: CheckReport) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {finding.kind: (finding.number, finding.examples) for finding in report.findings}


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for number in range(4):
                paint(tmp_path / "set" / split / name / f"{number}.{'png' if number % 2 else 'jpg'}", 20 + number)
    return tmp_path / "set"


@pytest.mark.parametrize("workers", [0, 2])
def test_every_fault_of_a_nasty_set_is_named(clean: Path, workers: int) -> None:
    train, val = clean / "train", clean / "val"
    for name, content in {
        "cut.jpg": (train / "cat/0.jpg").read_bytes()[:300],
        "cut2.jpg": (train / "cat/2.jpg").read_bytes()[:310],
        "page.jpg": b"<!DOCTYPE html><p>404",
        "empty.png": b"",
        "float.tif": None,
    }.items():
        if content is None:
            Image.fromarray(np.ones((4, 4), np.float32)).save(train / "cat" / name)
        else:
            (train / "cat" / name).write_bytes(content)
    (train / "cat/gone.png").symlink_to(clean / "nowhere")
    (train / "cat/loop").symlink_to(train / "cat")
    (train / "ant").mkdir()
    paint(train / "bee/only.png")
    paint(val / "zoo/1.png")
    paint(train / "Dog/1.png")
    paint(train / "Dog/2.png")
    paint(train / "dog/3.PNG")
    paint(train / "cat/dog/inside.png")
    paint(train / "outside.png")
    paint(train / "cat/long.png", 90, 3)
    paint(train / "cat/deep.png", dtype=np.uint16)
    paint(train / "cat/turned.jpg", orientation=6)
    (train / "cat/notes.txt").write_text("no image")
    shutil.copy(train / "cat/1.png", train / "dog/copy.png")
    shutil.copy(train / "cat/3.png", val / "cat/leak.png")
    shutil.copy(train / "dog/2.jpg", train / "dog/again.jpg")
    odd = os.fsdecode(os.fsencode(train / "cat") + b"/\xff.png")
    shutil.copy(train / "cat/3.png", odd)

    report = check_images(contents_of_folder(str(clean)), workers=workers)
    found = kinds(report)
    bad = [finding for finding in report.findings if finding.kind == "undecodable"]
    assert [(finding.number, finding.examples) for finding in bad[:1]] == [
        (2, ("train/cat/cut.jpg", "train/cat/cut2.jpg"))
    ]
    assert {finding.what.split(" (")[0] for finding in bad} >= {
        "Bad files: JPEG image is truncated",
        "Bad files: this is no image that can be read",
        "Bad files: the file cannot be read: No such file or directory. Check that it exists and that you may read it",
    }
    names = sorted(os.path.basename(path) for path, _ in report.bad_files)
    assert names == ["cut.jpg", "cut2.jpg", "empty.png", "float.tif", "gone.png", "page.jpg"]
    assert all(message.startswith(str(clean)) for _, message in report.bad_files)
    expected = {
        "empty-class": ("train/ant",),
        "unknown-class": ("zoo",),
        "missing-class": ("Dog", "ant", "bee"),
        "single-image-class": ("train/bee",),
        "case-only-class": ("Dog = dog",),
        "case-only-file": ("train/dog/3.PNG = train/dog/3.png",),
        "nested-class": ("train/cat/dog",),
        "outside-classes": ("train/outside.png",),
        "label-conflict": ("train/cat/1.png = train/dog/copy.png",),
        "leak": (f"train/cat/3.png = {os.path.relpath(odd, clean)} = val/cat/leak.png",),
        "duplicate": ("train/dog/2.jpg = train/dog/again.jpg",),
        "extreme-ratio": ("train/cat/long.png (90x3)",),
        "rotated": ("train/cat/turned.jpg (16x20)",),
        "16-bit": ("train/cat/deep.png (20x16)",),
        "other-files": (".txt: 1",),
        "dark": ("train/cat/deep.png (up to 255)",),
    }
    assert {kind: examples for kind, (_, examples) in found.items() if kind != "undecodable"} == expected
    assert not report.is_usable
    counts = {split.name: (split.num_images, split.num_bad) for split in report.splits}
    assert counts == {"train": (25, 6), "val": (10, 0)}
    assert report.splits[0].classes == {"Dog": 2, "ant": 0, "bee": 1, "cat": 15, "dog": 7}
    assert report.kinds == {"PNG": 19, "JPEG": 10}
    assert report.modes == {"RGB": 28, "I;16": 1}
    assert report.sizes == {"smallest": (90, 3), "median": (21, 16), "largest": (23, 16)}
    assert "Not ready: see the errors above." in report.text()
    assert "\\udcff" in report.text()  # can be printed anywhere


def test_a_clean_set_is_ready_and_exits_with_0(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    assert main(["check-data", str(clean), "--workers", "0", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert f"16 images (0.0 MB) in {clean}" in text
    assert "train: 8 images in 2 classes, 4 to 4 in a class; 0 bad" in text
    assert "Ready to train on." in text
    record = json.loads(file.read_text())
    assert record["is_usable"] is True
    assert record["findings"] == []
    assert record["splits"][1]["classes"] == {"cat": 4, "dog": 4}


def test_errors_exit_with_3_and_warnings_do_not(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(clean / "train/bee/only.png")
    assert main(["check-data", str(clean), "--workers", "0"]) == 0
    assert "Warnings\n  Classes of train that val does not have: 1\n    bee\n" in capsys.readouterr().out
    (clean / "val/cat/0.jpg").write_bytes(b"")
    assert main(["check-data", str(clean), "--workers", "0"]) == 3
    assert "Errors\n  Bad files: this is no image that can be read" in capsys.readouterr().out
    assert main(["check-data", str(clean), "--workers", "-1"]) == 2


@pytest.mark.parametrize("folder", ["train", "val"])
def test_one_split_is_a_folder_of_classes(clean: Path, folder: str) -> None:
    report = check_images(contents_of_folder(str(clean / folder)), workers=0)
    assert [(split.name, split.num_images) for split in report.splits] == [("", 8)]
    assert report.is_usable


def test_what_lies_beside_the_splits_is_said(clean: Path) -> None:
    paint(clean / "masks/1.png")
    paint(clean / "test/1.png")
    found = kinds(check_images(contents_of_folder(str(clean)), workers=0))
    assert found["beside-splits"] == (1, ("masks",))
    assert found["no-classes"] == (1, ("test",))
    assert found["outside-classes"] == (1, ("test/1.png",))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train", "car"):
        paint(tmp_path / name / "1.png")
        paint(tmp_path / name / "2.png")
    report = check_images(contents_of_folder(str(tmp_path)), workers=0)
    assert report.splits[0].classes == {"car": 2, "train": 2}


def test_no_data_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"Cannot read the folder .*gone"):
        check_images(contents_of_folder(str(tmp_path / "gone")), workers=0)
    with pytest.raises(DatasetError, match=r"is empty: it has neither class folders nor images"):
        check_images(contents_of_folder(str(tmp_path)), workers=0)


def test_a_folder_that_cannot_be_read_is_an_error_among_others(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str):  # a mode of 000 would not stop root, as which tests may run
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    (clean / "train/cat/locked").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    report = check_images(contents_of_folder(str(clean)), workers=0)
    assert [finding.kind for finding in report.findings] == ["unreadable-folder"]
    assert "locked: Permission denied" in report.findings[0].examples[0]
    assert report.num_images == 16


def end_at_a_2(file: tuple[int, str]) -> Inspection:
    if file[1].endswith("2.jpg"):
        os._exit(9)
    return inspect_file(file)


def test_a_file_that_ends_its_process_is_a_bad_file(clean: Path) -> None:
    for number in range(40):
        paint(clean / "train/cat" / f"more{number}.png")
    progress: list[tuple[int, int, int]] = []
    report = check_images(
        contents_of_folder(str(clean)),
        workers=2,
        inspect=end_at_a_2,
        on_progress=lambda *counts: progress.append(counts),
    )
    assert [os.path.relpath(path) for path, _ in report.bad_files] == [
        f"{split}/{name}/2.jpg" for split in ("train", "val") for name in ("cat", "dog")
    ]
    assert report.findings[0].what.startswith("Bad files: decoding it ended the process")
    assert (report.num_images, report.num_bad) == (56, 4)
    assert [done for done, _, _ in progress] == list(range(1, 57))
    assert progress[-1] == (56, 56, 4)


def test_numbers_that_all_messages_share_stay_and_others_are_left_out(clean: Path) -> None:
    for number, level in enumerate((1, 7)):
        Image.fromarray(np.full((4, 4), level, np.int32)).save(clean / f"train/cat/{number}.tif")
    texts = [finding.what for finding in check_images(contents_of_folder(str(clean)), workers=0).findings]
    assert texts[0] == (
        "Bad files: image with signed 32-bit pixels from N to N, whose black and white levels the file does not say. "
        "Say them, as in --data.levels '...' of train, or scale it to 8 or 16 bits and save it as PNG first"
    )


def test_a_remainder_counts_what_is_listed(clean: Path) -> None:
    for number in range(7):
        for copy in range(number + 1):
            (clean / "train/cat" / f"{copy}.x{number}").write_bytes(b"")
    for copy in range(24):
        shutil.copy(clean / "train/cat/0.jpg", clean / "train/cat" / f"copy{copy}.jpg")
    report = check_images(contents_of_folder(str(clean)), workers=0)
    lines = report.text().splitlines()
    start = lines.index("  Files without the ending of an image, which are not looked at: 28")
    assert lines[start + 1 : start + 7] == [
        "    .x6: 7", "    .x5: 6", "    .x4: 5", "    .x3: 4", "    .x2: 3", "    and 2 more",
    ]  # fmt: skip
    assert kinds(report)["duplicate"][1][0].endswith(" = 5 more")


def test_names_that_look_equal_are_told_apart(clean: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    for name in (f"train/{composed}/1.png", f"train/{composed}/2.png", f"val/{apart}/3.png", f"train/dog/{apart}.png"):
        paint(clean / name)
    paint(clean / f"train/dog/{composed}.png")
    found = kinds(check_images(contents_of_folder(str(clean)), workers=0))
    assert found["case-only-class"][1] == (f"{apart} (NFD) = {composed} (NFC)",)
    assert found["case-only-file"][1] == (f"train/dog/{apart}.png (NFD) = train/dog/{composed}.png (NFC)",)
    known = scan_folder(clean / "train").class_names
    with pytest.raises(DatasetError, match=rf"'{apart}' \(NFD\) looks like the known '{composed}' \(NFC\).*rename it"):
        scan_folder(clean / "val", known)
    assert difference([composed, "cat"], [apart, "cat"]).endswith(
        "macOS stores names: rename it (convmv -t utf8 --nfc)"
    )


def test_long_lists_are_cut_and_counted(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (check_report, check_findings):
        monkeypatch.setattr(module, "MOST_LISTED", 7)
    for number in range(12):
        (clean / "train/cat" / f"bad{number:02d}.png").write_bytes(b"")
    report = check_images(contents_of_folder(str(clean)), workers=0)
    assert (report.num_bad, len(report.bad_files)) == (12, 7)
    assert (report.findings[0].number, len(report.findings[0].examples)) == (12, 7)
    assert "    and 7 more\n" in report.text()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_its_processes_end_with_it(clean: Path) -> None:
    for number in range(2000):
        (clean / "train/cat" / f"copy{number}.png").symlink_to(clean / "train/cat/1.png")
    command = [sys.executable, "-m", "hybridvit", "check-data", str(clean), "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as check:
        group = check.pid
        deadline = time.monotonic() + 20
        while len(members(group)) < 4 and time.monotonic() < deadline and check.poll() is None:  # 2, a tracker, itself
            time.sleep(0.05)
        check.kill()
    deadline = time.monotonic() + 20
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert members(group) == []


def members(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def test_a_task_says_what_is_wrong_with_data_sets_of_its_own(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from number_task import Number  # torch: not for the processes that the other tests start

    def further(looked: Mapping[str, Looked], workers: int) -> list[Finding]:
        sides = sorted(f"{path} {each.size} {each.orientation}" for path, each in looked.items())
        return finding("warning", "odd", f"Pictures, by {workers} processes", sides, fix="Look away.")

    def contents(self: Task, root: str, data: Any = None) -> Contents | None:
        if not root.endswith("set"):
            return None
        rows = [(0, 0, os.fsencode("train/cat/0.jpg")), (0, 0, os.fsencode("turned.jpg"))]
        wrong = finding(
            "error", "bent", "Bent pictures", [f"{number}.jpg" for number in range(7)], fix="Straighten them."
        )
        return Contents(
            root=root, names=("a",), splits={"": ("a",)}, sets=[(0,)], rows=rows,
            findings=wrong, of_pictures=False, further=further,
        )  # fmt: skip

    paint(clean / "turned.jpg", orientation=6)
    for name in ("number", "headed"):
        monkeypatch.setitem(TASKS, name, f"{name}_task:{name.capitalize()}")
    monkeypatch.setattr(Number, "contents", contents)
    assert main(["check-data", str(clean), "--workers", "0", "--json", str(tmp_path / "report.json")]) == 3
    out = capsys.readouterr().out
    assert "  Bent pictures: 7\n    0.jpg\n" in out
    assert "    4.jpg\n    and 2 more\n    Fix: Straighten them.\n" in out
    assert "    train/cat/0.jpg (20, 16) 1\n    turned.jpg (16, 20) 6\n    Fix: Look away.\n" in out
    assert "  Looked at as a data set of the task number. Others that it may be for (--recipe): 1\n    headed\n" in out
    assert "One class only" not in out
    assert json.loads((tmp_path / "report.json").read_text())["findings"][0]["fix"] == "Straighten them."


def test_before_a_training_errors_refuse_and_warnings_are_remarks() -> None:
    odd = finding("warning", "odd", "Odd boxes", [f"{number}.jpg" for number in range(7)], fix="Look at them.")
    bent = finding("error", "bent", "Bent boxes", ["a.jpg: 3"], 12, fix="Straighten them.")
    remarks = remarks_or_refusal([*odd, *finding("note", "turned", "Turned", ["a.jpg"])], "photos")
    assert remarks == ["Odd boxes: 7 (0.jpg; 1.jpg; 2.jpg; 3.jpg; 4.jpg; and 2 more). Look at them."]
    with pytest.raises(DatasetError) as refusal:
        remarks_or_refusal([*odd, *bent, *bent], "photos")
    sentence = "Bent boxes: 12 (a.jpg: 3; and 11 more). Straighten them."
    assert str(refusal.value) == f"photos cannot be trained on. {sentence} {sentence}"
