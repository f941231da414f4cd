"""`predict`: whatever can be shown to a model in; lines, tables, pictures and videos out, for every task."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from conftest import trained_like
from fresh import ENVIRONMENT, output_of
from number_task import Number
from PIL import Image
from pyarrow.parquet import read_table
from two_classes import dark_and_light
from videos import frames_in, truncated, write_video

import hybridvit
from hybridvit.answers import table
from hybridvit.answers.gallery import names_of
from hybridvit.answers.video_file import VideoFile
from hybridvit.cli import main
from hybridvit.cli.predict import Progress
from hybridvit.data import video
from hybridvit.data.inputs import FrameAt, pictures
from hybridvit.errors import ImageDecodeError, UsageError
from hybridvit.predictor import Predictor
from hybridvit.task import TASKS


@pytest.fixture(scope="module", autouse=True)
def number_task() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "number", "number_task:Number")
        yield


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the task of numbers, which has a file beside each answer and joins tiles."""
    path = tmp_path_factory.mktemp("numbers") / "m.safetensors"
    torch.manual_seed(0)
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=1))
    torch.nn.init.normal_(model.head.fc.weight, std=3.0)  # so that pictures differ in their numbers
    preprocessing = dataclasses.replace(model.card.preprocessing, image_size=(32, 32), crop_mode="letterbox")
    model.card = dataclasses.replace(model.card, task="number", preprocessing=preprocessing)
    hybridvit.save_checkpoint(model, path)
    return path


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two classes."""
    root = tmp_path_factory.mktemp("classes")
    dark_and_light(root)
    return root / "m.safetensors"


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with a picture, a broken one and a video of twelve frames."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    Image.effect_noise((50, 40), 90).convert("RGB").save(folder / "a.png")
    (folder / "b.png").write_bytes(b"no picture")
    write_video(folder / "c.mp4", range(0, 240, 20), rate=10)
    return folder


def test_lines_tell_frames_and_times_for_every_task(
    numbers: Path, classes: Path, mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model, key in ((numbers, "millimetres"), (classes, "predictions")):
        assert main(["predict", str(model), str(mixed), "--every", "4", "--json"]) == 3
        captured = capsys.readouterr()
        rows = [json.loads(line) for line in captured.out.splitlines()]
        assert [Path(row["image"]).name for row in rows] == ["a.png", "b.png", "c.mp4", "c.mp4", "c.mp4"]
        assert [(row.get("frame"), row.get("seconds")) for row in rows[2:]] == [(0, 0.0), (4, 0.4), (8, 0.8)]
        assert [key in row for row in rows] == [True, False, True, True, True]
        assert "this is no image that can be read" in rows[1]["error"]
        assert "1 of 3 inputs could not be read whole." in captured.err
    assert main(["predict", str(numbers), str(mixed / "c.mp4"), "--frames", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == [
        f"{mixed / 'c.mp4'}, frame 0 (0.00 s)",
        f"{mixed / 'c.mp4'}, frame 1 (0.10 s)",
    ]


def test_pictures_and_videos_are_drawn_with_the_files_of_their_answers(
    numbers: Path, classes: Path, mixed: Path, tmp_path: Path
) -> None:
    drawn = tmp_path / "drawn"
    assert main(["predict", str(numbers), str(mixed), "--every", "2", "--pictures", str(drawn)]) == 3
    assert sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*") if path.is_file()) == [
        *("a.number.txt", "a.png", "c.mp4"),
        *(f"c/{number:06}.number.txt" for number in range(0, 12, 2)),
    ]
    (answer,) = hybridvit.predict(numbers, mixed / "a.png").values()
    with Image.open(mixed / "a.png") as picture, Image.open(drawn / "a.png") as shown:
        assert np.array_equal(np.asarray(shown), np.asarray(answer.draw(picture)))
    frames = frames_in(drawn / "c.mp4")
    assert [seconds for seconds, _ in frames] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert frames[0][1].shape == (48, 64, 3)
    assert [round(float(pixels[-8:, -20:].mean())) for _, pixels in frames] == pytest.approx(range(0, 240, 40), abs=6)
    assert main(["predict", str(classes), str(mixed / "c.mp4"), "--pictures", str(drawn)]) == 0  # a strip below each
    frames = frames_in(drawn / "c.mp4")
    assert len(frames) == 12
    assert frames[0][1].shape == (162, 192, 3)  # enlarged, so that the words have room


@pytest.mark.parametrize("codecs", [av.codecs_available, {"mpeg4"}], ids=["h264", "mpeg4"])
@pytest.mark.parametrize("rate", [Fraction(10), Fraction(30000, 1001), Fraction(359281, 11987)])
def test_a_video_keeps_its_times_and_odd_sides_become_even(
    tmp_path: Path, monkeypatch: Any, codecs: set[str], rate: Fraction
) -> None:
    monkeypatch.setattr(av, "codecs_available", codecs)
    with VideoFile(tmp_path / "x.mp4", rate=rate) as video:
        for number, level in ((0, 0), (1, 100), (6, 200)):
            video.add(Image.new("RGB", (51, 33) if number < 6 else (90, 70), (level,) * 3), float(number / rate))
    frames = frames_in(tmp_path / "x.mp4")
    assert [seconds for seconds, _ in frames] == pytest.approx([0, 1 / rate, 6 / rate], rel=1e-3)
    assert {pixels.shape for _, pixels in frames} == {(34, 52, 3)}
    assert [float(pixels[:30, :40].mean()) for _, pixels in frames] == pytest.approx([0, 100, 200], abs=5)


def test_a_frame_a_day_is_a_video_too(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "x.mp4", rate=Fraction(1, 86_400)) as video:
        video.add(Image.new("RGB", (64, 64)), 0.0)
    assert len(frames_in(tmp_path / "x.mp4")) == 1


def test_what_can_be_read_of_a_truncated_video_is_answered_and_drawn(
    numbers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = truncated(write_video(tmp_path / "clip.mp4", [*range(0, 240, 10)], index_first=True), 0.7)
    assert main(["predict", str(numbers), str(clip), "--pictures", str(tmp_path / "drawn"), "--json"]) == 3
    *rows, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert "truncated" in last["error"]
    assert len(frames_in(tmp_path / "drawn" / "clip.mp4")) == len(rows) < 24


def test_one_parquet_row_for_each_picture_and_frame(numbers: Path, classes: Path, mixed: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.parquet"
    answers = hybridvit.predict(classes, [mixed / "a.png", mixed / "c.mp4"], every=6, output=output)
    rows = read_table(output).to_pylist()
    assert [(Path(row["image"]).name, row["frame"], row["seconds"]) for row in rows] == [
        ("a.png", None, None),
        ("c.mp4", 0, 0.0),
        ("c.mp4", 6, 0.6),
    ]
    assert [row["predictions"] for row in rows] == [each.to_dict()["predictions"] for each in answers.values()]
    assert list(answers) == [mixed / "a.png", FrameAt(mixed / "c.mp4", 0, 0.0), FrameAt(mixed / "c.mp4", 6, 0.6)]


def test_columns_are_one_table_whatever_single_answers_lack(numbers: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(table, "_ROWS", 1)
    given = iter([{"boxes": []}, {"boxes": [{"x": 1}]}, {"boxes": [{"x": 0.5, "rle": {"size": [2, 3]}}], "n": 1}])
    monkeypatch.setattr("number_task.NumberResult.to_dict", lambda self: next(given))
    for name in "abc":
        Image.new("RGB", (40, 40), "white").save(tmp_path / f"{name}.png")
    hybridvit.predict(numbers, tmp_path, output=tmp_path / "answers.parquet")
    rows = read_table(tmp_path / "answers.parquet").to_pylist()
    assert [row["boxes"] for row in rows] == [[], [{"x": 1.0, "rle": None}], [{"x": 0.5, "rle": {"size": [2, 3]}}]]
    assert [row["n"] for row in rows] == [None, None, 1]


def test_an_output_takes_the_place_of_lines(
    numbers: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "answers.jsonl"
    assert main(["predict", str(numbers), str(mixed), "--output", str(output)]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"14 answers in {output}" in captured.err
    assert "b.png: this is no image" in captured.err
    assert len(output.read_text(encoding="utf-8").splitlines()) == 14


def test_nothing_is_left_of_what_is_interrupted(numbers: Path, mixed: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "answers.jsonl").write_text("before", encoding="utf-8")
    calls = iter(range(5))

    def draw(self: object, picture: Image.Image) -> Image.Image:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return picture

    monkeypatch.setattr("number_task.NumberResult.draw", draw)
    with pytest.raises(KeyboardInterrupt):
        hybridvit.predict(numbers, mixed / "c.mp4", pictures=tmp_path / "drawn", output=tmp_path / "answers.jsonl")
    assert (tmp_path / "answers.jsonl").read_text(encoding="utf-8") == "before"
    assert not list((tmp_path / "drawn").glob("*.mp4"))
    assert not list(tmp_path.rglob("*.tmp-*"))


def test_ctrl_c_ends_a_camera_and_keeps_what_it_showed(
    numbers: Path, mixed: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = av.open(str(mixed / "c.mp4"))
    monkeypatch.setattr(video, "_open_camera", lambda name: opened)
    calls = iter(range(99))
    to_dict = Number().results({"millimetres": np.zeros((1, 1))}, [None], None)[0].to_dict

    def interrupted(self: object) -> dict[str, Any]:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return to_dict()

    monkeypatch.setattr("number_task.NumberResult.to_dict", interrupted)
    words = ["predict", str(numbers), "camera:0", "--json", "--pictures", str(tmp_path / "drawn"), "--batch", "2"]
    assert main(words) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert len(frames_in(tmp_path / "drawn" / "camera_0.mp4")) == 6
    with pytest.raises(UsageError, match=r"A camera gives pictures without end\. Say how many: frames=100"):
        hybridvit.predict(numbers, "camera:0")


def test_a_large_picture_is_answered_by_tiles(numbers: Path, tmp_path: Path) -> None:
    left, right = Image.new("RGB", (64, 64), "black"), Image.new("RGB", (64, 64), "white")
    both = Image.new("RGB", (128, 64), "white")
    both.paste(left, (0, 0))
    both.save(tmp_path / "both.png")
    left.save(tmp_path / "left.png")
    right.save(tmp_path / "right.png")
    found = hybridvit.predict(numbers, tmp_path, tile=64, overlap=0)
    said = {path.stem: answer.millimetres for path, answer in found.items()}
    assert said["both"] == pytest.approx((said["left"] + said["right"]) / 2, rel=1e-5)
    whole = hybridvit.predict(numbers, tmp_path)
    assert said["left"] == pytest.approx(whole[tmp_path / "left.png"].millimetres, rel=1e-5)
    assert said["both"] != pytest.approx(whole[tmp_path / "both.png"].millimetres, rel=1e-3)
    by_two = hybridvit.predict(numbers, tmp_path / "both.png", tile=64, overlap=0, batch=2)
    assert by_two[tmp_path / "both.png"].millimetres == pytest.approx(said["both"], rel=1e-5)


def test_tiles_are_refused_where_a_task_does_not_join_them(
    classes: Path, mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(classes), str(mixed), "--tile", "64"]) == 2
    message = (
        "is a model of the task 'classify', whose answer is to a whole picture, so answers to tiles cannot be joined"
    )
    assert message in capsys.readouterr().err
    with pytest.raises(UsageError, match=message):
        hybridvit.evaluate(classes, mixed, tile=64)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "answers.txt"], "must end in .parquet (for data frames) or .jsonl (JSON lines)"),
        (["--output", "none/answers.jsonl"], "The folder none does not exist"),
        (["--pictures", "{mixed}"], "a.png is shown to the model, and would be written over. Give another folder"),
        (["--pictures", "{mixed}/a.png"], "is a file, but pictures are to be written into a folder"),
        (["--batch", "0"], "--batch is 0, but it must be at least 1"),
        (["--frames", "0"], "--frames is 0, but it must be at least 1"),
    ],
)
def test_what_cannot_be_written_or_counted_is_refused_before_any_work(
    numbers: Path, mixed: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(numbers), str(mixed), *(word.format(mixed=mixed) for word in words)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode there")
def test_a_name_that_is_no_unicode_is_shown_and_refused_where_it_cannot_be_written(
    classes: Path, tmp_path: Path
) -> None:
    os.mkdir(folder := os.fsencode(tmp_path / "odd"))
    name = os.fsdecode(folder + b"/caf\xe9.png")
    Image.new("RGB", (32, 32)).save(name)
    words = [sys.executable, "-m", "hybridvit", "predict", str(classes), name]
    shown = subprocess.run(words, capture_output=True, env=ENVIRONMENT, check=False)
    assert (shown.returncode, b"caf\\udce9.png" in shown.stdout) == (0, True), shown.stderr
    refused = subprocess.run([*words, "--output", str(tmp_path / "o.jsonl")], capture_output=True, env=ENVIRONMENT)
    assert refused.returncode == 3
    assert b"is no name in UTF-8" in refused.stderr
    assert not (tmp_path / "o.jsonl").exists()


def test_progress_tells_what_of_how_many_and_how_fast(tmp_path: Path, monkeypatch: Any) -> None:
    clip, said = write_video(tmp_path / "clip.mp4", [0, 50, 100]), list[str]()
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    inputs = [tmp_path / "a.png", clip]
    given = list(pictures(inputs))  # before: PyAV looks at the clock too
    monkeypatch.setattr(time, "monotonic", iter([1.0, 2.0, 3.0, 3.1, 4.0]).__next__)
    progress = Progress(said.append, inputs)
    for shown in given:
        progress(shown)
    assert said == [
        f"1 of 2: {tmp_path / 'a.png'}, 1.0 images/s",
        f"2 of 2: {clip}, 0.0 s of 0.3 s, 1.0 images/s",
        f"2 of 2: {clip}, 0.2 s of 0.3 s, 1.3 images/s",
    ]


def test_files_are_named_as_their_pictures_and_never_alike() -> None:
    address, camera = "https://example.com/a%20b/c%20d.jpg?x=1", "camera:0"
    assert list(names_of([Path("x/a.jpg"), Path("y/b.jpg"), address, camera]).values()) == ["a", "b", "c_d", "camera_0"]
    assert list(names_of([Path("r/x/a.jpg"), Path("r/y/A.jpg")]).values()) == ["x/a", "y/A"]
    assert list(names_of([Path("x/a.jpg"), Path("x/a.png"), Path("x/b.png")]).values()) == ["a.jpg", "a.png", "b"]
    assert list(names_of(["http://h/a.jpg", "http://i/a.jpg"]).values()) == ["a-1", "a-2"]
    assert list(names_of([Path("a.png"), Path("a.labels.png")]).values()) == ["a-1", "a.labels-2"]


def test_a_predictor_takes_pictures_of_pillow(numbers: Path, mixed: Path) -> None:
    predictor = Predictor(numbers, device="cpu")
    with Image.open(mixed / "a.png") as picture:
        decoded, encoded, bad = predictor([picture.convert("RGB"), mixed / "a.png", b"no picture"])
    assert decoded.millimetres == pytest.approx(encoded.millimetres, rel=1e-5)  # one batch: the last bits may differ
    assert isinstance(bad, ImageDecodeError)


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell the most memory of a process")
@pytest.mark.parametrize("options", [
    {"task": "segment", "num_classes": 150},
    {"task": "detect", "head": "mask_rcnn", "num_classes": 80, "head_options": {
        "pyramid_channels": 64, "conv_channels": 64, "fc_width": 128, "proposals": 300, "score_threshold": 0.0}},
], ids=["segment", "detect"])  # fmt: skip
def test_24_megapixels_by_tiles_take_two_gigabytes_at_most(tmp_path: Path, options: dict[str, Any]) -> None:
    model = hybridvit.create_model("fastvit_debug", **options).eval()
    hybridvit.save_checkpoint(model, tmp_path / "m.safetensors")
    Image.effect_noise((6000, 4000), 80).convert("RGB").save(tmp_path / "large.jpg")
    words = (tmp_path / "m.safetensors", tmp_path / "large.jpg", 1024, tmp_path / "drawn")
    num_entries, most_bytes = map(int, output_of("memory_of_tiles", *words, timeout=550).split())
    assert num_entries == (100 if options["task"] == "detect" else num_entries)
    assert most_bytes <= 2e9
    with Image.open(tmp_path / "drawn" / "large.png") as drawn:
        assert drawn.size == (6000, 4000)
