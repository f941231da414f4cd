"""What jobs are made of: lists of units, pace, batch sizes, options."""

import sys
import tarfile
import time
from pathlib import Path

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

import hybridvit
from hybridvit.errors import DatasetError, OutOfMemory, UsageError
from hybridvit.jobs.answerer import best_batch
from hybridvit.jobs.cluster import reply
from hybridvit.jobs.job import begin, record_of
from hybridvit.jobs.local import visible_gpu
from hybridvit.jobs.notes import Tried
from hybridvit.jobs.options import Resources, Wanted
from hybridvit.jobs.pictures import pictures
from hybridvit.jobs.place import FolderPlace, Place, RemotePlace, open_place
from hybridvit.jobs.schema import schema_of
from hybridvit.jobs.tally import Standing, Tally, duration
from hybridvit.jobs.unit import Receipt
from hybridvit.jobs.units import Unit, find, read_units, write_list


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40)).save(path)
    return path


def listed(tmp_path: Path, *words: object, size: int = 2) -> list[Unit]:
    target = tmp_path / "units.parquet"
    found = write_list([str(word) for word in words], target, size=size, folder=str(tmp_path))
    with parquet.ParquetFile(target) as file:
        units = list(read_units(file, range(file.num_row_groups)))
    assert found.num_units == len(units)
    assert found.num_images == sum(unit.num_images for unit in units)
    return units


def test_a_list_is_the_same_whatever_the_order_of_its_words(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("b.png", "a.png", "deep/c.png"):
        image(folder / name)
    (folder / "notes.txt").write_text("not a picture", encoding="utf-8")
    units = listed(tmp_path, folder, folder / "a.png", f"{folder}/**/*.png")
    assert [unit.images for unit in units] == [
        (str(folder / "a.png"), str(folder / "b.png")),
        (str(folder / "deep/c.png"),),
    ]
    assert [unit.part for unit in units] == ["part-00000-of-00002.parquet", "part-00001-of-00002.parquet"]
    assert units == listed(tmp_path, f"{folder}/**/*.png", folder)


def test_a_tar_file_is_a_unit_and_a_row_group_is_one_or_several(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(image(tmp_path / "one.png"), "x/one.png")
        archive.add(tmp_path / "one.png", "x/._one.png")
    cells = [(tmp_path / "one.png").read_bytes(), None, b"no picture"] * 2
    parquet.write_table(pyarrow.table({"image": pyarrow.array(cells)}), tmp_path / "t.parquet", row_group_size=3)
    units = listed(tmp_path, tmp_path / "s.tar", tmp_path / "t.parquet")
    assert [(unit.form, unit.row_group, unit.first, unit.num_images) for unit in units] == [
        ("tar", 0, 0, 1),
        ("parquet", 0, 0, 2),
        ("parquet", 0, 2, 1),
        ("parquet", 1, 0, 2),
        ("parquet", 1, 2, 1),
    ]
    shown = [each for unit in units for each in pictures(unit, str(tmp_path))]
    table = tmp_path / "t.parquet"
    assert [each.source for each in shown] == [
        f"{tmp_path / 's.tar'}/x/one.png",
        *(f"{table}#{row}" for row in range(6)),
    ]
    assert str(shown[2].content) == f"{table}#1 holds no image: the cell is empty."


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("none.png", r"none\.png' does not exist"),
        ("*.bmp", r"\*\.bmp' matches no image"),
        ("t.parquet#imag", r"t.parquet has no column 'imag'. Nearest: 'image'"),
        ("t.parquet#number", "The column 'number' of .*t.parquet holds int64, but images are bytes or paths"),
        ("broken.parquet", "broken.parquet cannot be read as Parquet"),
        ("broken.tar", "broken.tar is no whole tar file"),
        ("empty", "'.*empty' matches no image"),
    ],
)
def test_what_is_no_input_is_refused_before_the_work(tmp_path: Path, word: str, message: str) -> None:
    parquet.write_table(pyarrow.table({"image": [b"x"], "number": [1]}), tmp_path / "t.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR0")
    (tmp_path / "broken.tar").write_bytes(b"no archive" * 100)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=message):
        listed(tmp_path, tmp_path / word)


def test_a_name_that_no_table_can_hold_is_refused_before_the_work(tmp_path: Path) -> None:
    wild = "caf\udce9.png"  # as Python reads a byte of Latin-1
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(image(tmp_path / "one.png"), wild)
    words = ["s.tar"]
    if sys.platform == "linux":  # other systems take no such name
        with tarfile.open(tmp_path / f"{wild}.tar", "w") as archive:
            archive.add(tmp_path / "one.png", "one.png")
        image(tmp_path / "photos" / wild)
        words += [f"{wild}.tar", "photos"]
    for word in words:
        with pytest.raises(DatasetError, match=r"caf\\udce9\.png.* is no name in UTF-8"):
            listed(tmp_path, tmp_path / word)


def test_damage_inside_a_table_is_a_fault_of_the_table(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"image": [bytes(range(256)) * 8] * 2}), table, use_dictionary=False)
    (unit,) = listed(tmp_path, table)
    damaged = bytearray(table.read_bytes())
    damaged[4:200] = bytes(196)  # pages, not the end of the file, which says what is in it
    table.write_bytes(damaged)
    with pytest.raises(DatasetError, match=r"t\.parquet cannot be read as Parquet"):
        list(pictures(unit, str(tmp_path)))


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    (tmp_path / "clip.mp4").write_bytes(b"")
    said: list[str] = []
    find([str(tmp_path)], say=said.append)
    assert said == [f"Left out of {tmp_path}: 1 file without the ending of an image (.mp4 1)."]


def interrupted(place: Place) -> None:
    with place.writing("part") as path:
        path.write_bytes(b"half")
        raise ZeroDivisionError


def test_a_place_behind_a_url_is_as_a_folder(tmp_path: Path) -> None:
    places = [FolderPlace(str(tmp_path / "a")), RemotePlace(f"file://{tmp_path}/b")]
    for place in places:
        assert place.names() == place.names("_job") == []
        place.write("part", b"1")
        place.write("_job/note", b"2")
        place.write("_job/note", b"3")
        assert place.names() == ["part"]
        assert [place.has(name) for name in ("part", "_job/note", "_job", "none", "none/none")] == [
            *[True] * 2, *[False] * 3
        ]  # fmt: skip
        assert place.read("_job/note") == b"3"
        place.fetch("part", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b"1"
        with pytest.raises(ZeroDivisionError):
            interrupted(place)
        assert place.read("part") == b"1"
        place.remove("part")
        place.remove("part")
        assert place.names() == []
    with pytest.raises(UsageError, match="web servers take no files"):
        open_place("https://example.com/answers")


def test_a_place_can_be_read_by_pyarrow(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "t.parquet")
    for place in (FolderPlace(str(tmp_path)), RemotePlace(f"file://{tmp_path}")):
        with parquet.ParquetFile(place.open("t.parquet")) as file:
            assert file.read().to_pylist() == [{"a": 1}]


def test_a_record_of_another_format_is_refused(tmp_path: Path) -> None:
    place = FolderPlace(str(tmp_path))
    (tmp_path / "list").write_bytes(b"")
    record = record_of(inputs=[], unit=1, question={}, units={"num_images": 1}, model={"file": "m", "sha256": "0" * 64})
    begin(place, record, tmp_path / "list")
    begin(place, record, tmp_path / "list")
    with pytest.raises(UsageError, match=r"differs in the model \(m, SHA-256 000000000000\.\.\.\)"):
        begin(place, record | {"model": {"file": "m", "sha256": "1" * 64}}, tmp_path / "list")
    place.write("_job/job.json", b'{"format": 2}')
    with pytest.raises(UsageError, match="is a job of another version"):
        begin(place, record, tmp_path / "list")


def test_a_machine_with_another_version_or_another_folder_is_found_out(tmp_path: Path) -> None:
    place = FolderPlace(str(tmp_path))
    place.write("_job/check/driver", b"token")
    version = hybridvit.__version__
    assert reply(place.root, "token", "node", "0.0.0") == f"has hybridvit {version}"
    assert reply(place.root, "other", "node", version) == "sees another folder there"
    assert place.names("_job/check") == ["driver"]
    assert not reply(place.root, "token", "node", version)
    assert place.read("_job/check/node") == b"token"


def test_pace_and_time_left_are_of_the_last_minute() -> None:
    clock = iter([0.0, 10.0, 100.0, 130.0]).__next__
    tally = Tally(1000, [Receipt(unit=0, rows=100, bad=1, seconds=1, worker="a/1")], clock=clock)
    tally.take(Receipt(unit=1, rows=50, bad=0, seconds=1, worker="a/2"))
    first = tally.standing({"part-1": Tried(2, "a/1", 10, 0.0)})
    assert (first.done, first.bad, first.workers, first.per_second) == (160, 1, 1, 6.0)
    assert tally.standing({}).done == 160  # a unit that is begun again takes nothing back
    tally.take(Receipt(unit=2, rows=310, bad=0, seconds=1, worker="a/2"))
    last = tally.standing({})
    assert last.done == 460
    assert last.per_second == pytest.approx(10)
    assert last.seconds_left == pytest.approx(54)
    assert str(last) == ("460 of 1,000 images, 10.0/s in the last minute, 2.8/s in all, 0 workers, 1 bad, 54 s left")
    assert Standing(done=0, total=9, bad=0, workers=1, per_second=0.0, per_second_in_all=0.0).seconds_left is None
    assert [duration(seconds) for seconds in (5, 65, 7200)] == ["5 s", "1 min 05 s", "2 h 00 min"]


def test_a_unit_that_is_done_is_not_counted_by_its_last_note_too() -> None:
    tally = Tally(100, [])
    notes = {"part-0": Tried(0, "a/1", 40, 0.0)}
    assert tally.standing(notes).done == 40
    tally.take(Receipt(unit=0, rows=50, bad=0, seconds=1, worker="a/1"))
    assert tally.standing(notes).done == 50


@pytest.mark.parametrize(("per_call_s", "per_image_s", "best"), [(0.02, 0.0, 8), (0.0, 0.01, 1)])
def test_the_smallest_batch_that_is_nearly_the_fastest_is_taken(
    per_call_s: float, per_image_s: float, best: int
) -> None:
    assert best_batch(lambda size: time.sleep(per_call_s + size * per_image_s), (1, 2, 4, 8)) == best


@pytest.mark.parametrize(("visible", "own"), [(None, "1"), ("2,GPU-7f", "GPU-7f"), ("3", ""), ("", "")])
def test_a_worker_takes_one_of_the_gpus_that_the_job_may_use(visible: str | None, own: str) -> None:
    assert visible_gpu(1, visible) == own


@pytest.mark.parametrize("most", [0, 1, 2])
def test_a_batch_that_memory_does_not_hold_is_not_taken(most: int) -> None:
    def answer(size: int) -> None:
        if size > most:
            raise OutOfMemory("too large")
        time.sleep(0.01)

    if most:
        assert best_batch(answer, (1, 2, 4)) == most
    else:
        with pytest.raises(OutOfMemory, match="too large"):
            best_batch(answer, (1, 2, 4))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workers": "many"}, "--workers is many, but it must be a number from 1, or MIN:MAX"),
        ({"workers": "3:2"}, "--workers is 3:2, but"),
        ({"workers": "1:2"}, "processes of one machine are a number, such as 2"),
        ({"batch": 0}, "--batch is 0, but it must be at least 1, or auto"),
        ({"address": "auto"}, "--address is auto, but --engine is local"),
        ({"cpus_per_worker": 0}, "--cpus_per_worker is 0"),
        ({"cpus_per_worker": 9999}, "--cpus_per_worker is 9999, but this process may use"),
        ({"gpus_per_worker": -1.0}, "--gpus_per_worker is -1.0"),
    ],
)
def test_resources_out_of_their_range_are_refused(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Resources(**values)


@pytest.mark.parametrize("values", [{"unit": 0}, {"top": 0}, {"allow_bad": 1.5}])
def test_what_cannot_be_wanted_is_refused(values: dict) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(values))} is"):
        Wanted(**values)


def test_columns_are_typed_whether_they_have_values_or_not() -> None:
    schema = schema_of({"width": int, "predictions": [{"class": str, "score": float}]}, {"made": "by us"})
    assert schema.names == ["image", "error", "width", "height", "predictions"]
    table = pyarrow.Table.from_pylist([{"image": "a", "predictions": []}, {"image": "b", "error": "why"}], schema)
    assert table.schema.field("predictions").type == pyarrow.list_(
        pyarrow.struct({"class": pyarrow.string(), "score": pyarrow.float64()})
    )
    assert table.to_pylist()[0]["predictions"] == []
