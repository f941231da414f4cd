"""Jobs on one machine: every picture once, whatever dies; answers as predict has them."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from fresh import output_of
from pyarrow import parquet

import hybridvit
from hybridvit.cli import main
from hybridvit.errors import CheckpointError, DatasetError, ProcessLost, UsageError
from hybridvit.jobs.options import Resources, Wanted
from hybridvit.jobs.run import run_job
from hybridvit.jobs.worker import DIED
from hybridvit.scores import Result
from jobs.tables import pace_of, parts_of, rows_of

ONE = Resources(workers="1", batch=4)
SMALL = Wanted(unit=10)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "hybridvit", "batch", *map(str, words)]


@pytest.fixture
def inputs(photos: Callable[..., Path], tmp_path: Path) -> list[str]:
    """Thirty pictures in a folder, two of them bad; some in a tar file, and in Parquet as bytes and as paths."""
    folder = photos("pictures", ok=28, bad=2)
    some = sorted(folder.glob("ok-*"))[:5]
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for path in some:
            archive.add(path, f"cat/{path.name}")
    contents = [path.read_bytes() for path in some]
    columns = {
        "image": pyarrow.array(contents),
        "pair": pyarrow.array([{"bytes": each, "path": "x.png"} for each in contents]),
        "where": pyarrow.array([f"pictures/{path.name}" for path in some]),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "photos.parquet", row_group_size=3)
    return [str(folder), *(str(tmp_path / name) for name in ("shard.tar", "photos.parquet", "photos.parquet#pair"))]


def test_answers_are_those_of_predict_wherever_a_picture_lies(model: Path, inputs: list[str], tmp_path: Path) -> None:
    outcome = run_job(model, inputs, tmp_path / "answers", wanted=SMALL, resources=Resources(workers="2"))
    assert (outcome.summary["rows"], outcome.summary["bad"]) == (45, 2)
    rows = rows_of_any(tmp_path / "answers")
    expected = {str(path): answer for path, answer in hybridvit.predict(model, inputs[0]).items()}
    folder = Path(inputs[0])
    for number, path in enumerate(sorted(folder.glob("ok-*"))[:5]):
        expected[f"{inputs[1]}/cat/{path.name}"] = expected[str(path)]
        expected[f"{inputs[2]}#{number}"] = expected[str(path)]
    assert {row["image"] for row in rows} == expected.keys()
    for row in rows:
        answer = expected[row["image"]]
        if not isinstance(answer, Result):
            assert row["error"] == str(answer)
            assert row["predictions"] is None
            continue
        theirs = answer.to_dict()["predictions"]
        assert row["error"] is None
        assert row["width"] == 40
        assert [each["index"] for each in row["predictions"]] == [each["index"] for each in theirs]
        assert [each["class"] for each in row["predictions"]] == [each["class"] for each in theirs]
        assert [each["probability"] for each in row["predictions"]] == pytest.approx(
            [each["probability"] for each in theirs], rel=1e-5, abs=1.1e-6  # both are rounded to six places
        )  # fmt: skip


def rows_of_any(folder: Path) -> list[dict]:
    """All rows; pictures of two columns of one table have one name."""
    return parquet.read_table(folder).to_pylist()


def test_a_killed_driver_loses_nothing_and_done_parts_stay_as_they_are(
    model: Path, photos: Callable[..., Path], hooked: dict[str, str], tmp_path: Path
) -> None:
    folder, output = photos("pictures", slow=40), tmp_path / "answers"
    words = command(model, folder, "--output", output, "--unit", 5, "--workers", 1, "--batch", 4)
    driver = subprocess.Popen(words, env=hooked, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len(parts_of(output)) < 3:
        assert time.monotonic() < deadline
        assert driver.poll() is None
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    time.sleep(0.5)  # its processes notice
    before = parts_of(output)
    assert 3 <= len(before) < 8
    done = subprocess.run(words, env=hooked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = parts_of(output)
    assert {name: after[name] for name in before} == before
    assert len(after) == 8
    assert len(rows_of(output)) == 40
    assert sorted(path.name for path in output.iterdir()) == ["_job", *after]
    again = subprocess.run(words, env=hooked, capture_output=True, text=True)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert parts_of(output) == after


def test_a_picture_that_kills_processes_is_a_row(
    model: Path, photos: Callable[..., Path], hooked: dict[str, str], tmp_path: Path
) -> None:
    folder = photos("pictures", a=4, kills=1, z=4)
    run_job(model, [folder], tmp_path / "answers", wanted=SMALL, resources=ONE)
    rows = rows_of(tmp_path / "answers")
    assert [Path(row["image"]).name for row in rows if row["error"]] == ["kills-0000.png"]
    assert rows[4]["error"] == DIED
    assert [row["predictions"] is None for row in rows] == [*[False] * 4, True, *[False] * 4]
    assert not list((tmp_path / "answers" / "_job" / "tries").iterdir())


def test_bad_images_up_to_a_share_are_no_failure(
    model: Path, photos: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos("pictures", ok=99, bad=1)
    words = ["batch", str(model), str(folder), "--output", str(tmp_path / "a"), "--batch", "8", "--workers", "1"]
    assert main(words) == 0
    assert "100 images, 1 bad" in capsys.readouterr().out
    assert main([*words, "--allow_bad", "0.005"]) == 3
    assert "1 of 100 images are bad, more than --allow_bad 0.005" in capsys.readouterr().err
    (bad,) = [row for row in rows_of(tmp_path / "a") if row["error"]]
    assert "this is no image" in bad["error"]
    assert bad["width"] is None


def test_a_second_job_on_a_folder_is_refused(model: Path, photos: Callable[..., Path], hooked: dict[str, str],
                                             tmp_path: Path) -> None:  # fmt: skip
    folder, output = photos("pictures", stuck=1), tmp_path / "answers"
    words = command(model, folder, "--output", output, "--batch", 4)
    first = subprocess.Popen(words, env=hooked, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240  # a loaded machine takes its time to start
    while not (output / "_job" / "run.lock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(UsageError, match=f"is in use by process {first.pid} on"):
        run_job(model, [folder], output, resources=ONE)
    first.send_signal(signal.SIGTERM)
    first.wait()


def test_a_job_in_which_nothing_happens_ends(
    model: Path, photos: Callable[..., Path], hooked: dict[str, str], tmp_path: Path
) -> None:
    folder = photos("pictures", a=10, stuck=1)
    message = r"sign of life for 6 s; at work were: part-00001-of-00002\.parquet on .*/\d+\. Done parts stay"
    with pytest.raises(ProcessLost, match=message):
        run_job(model, [folder], tmp_path / "answers", wanted=SMALL, resources=ONE, patience_s=6)
    assert list(parts_of(tmp_path / "answers")) == ["part-00000-of-00002.parquet"]


def test_a_folder_of_another_job_is_refused_until_it_is_given_up(
    model: Path, photos: Callable[..., Path], tmp_path: Path
) -> None:
    folder, output = photos("pictures", ok=3), tmp_path / "answers"
    run_job(model, [folder], output, wanted=SMALL, resources=ONE)
    with pytest.raises(UsageError, match=r"differs in --unit \(was 10\); --top \(was None\)\. Repeat its command"):
        run_job(model, [folder], output, wanted=Wanted(unit=2, top=1), resources=ONE)
    with pytest.raises(UsageError, match=r"differs in its inputs \(were .*pictures\)"):
        run_job(model, [folder / "ok-0000.png"], output, wanted=SMALL, resources=ONE)
    (folder / "ok-0001.png").unlink()
    with pytest.raises(UsageError, match="the images that lie there: 3 were listed, now 2"):
        run_job(model, [folder], output, wanted=SMALL, resources=ONE)
    with pytest.raises(DatasetError, match="'none' does not exist"):
        run_job(model, ["none"], output, wanted=Wanted(unit=1, overwrite=True), resources=ONE)
    with pytest.raises(CheckpointError, match="gone"):
        run_job(tmp_path / "gone.safetensors", [folder], output, wanted=Wanted(overwrite=True), resources=ONE)
    assert len(rows_of(output)) == 3
    run_job(model, [folder], output, wanted=Wanted(unit=1, overwrite=True), resources=ONE)
    assert len(parts_of(output)) == len(rows_of(output)) == 2


def test_what_is_refused_leaves_nothing_behind(model: Path, photos: Callable[..., Path], tmp_path: Path) -> None:
    folder = photos("pictures", ok=1)
    with pytest.raises(UsageError, match=r"holds files that are not of such a job: ok-0000\.png"):
        run_job(model, [folder], folder, resources=ONE)
    with pytest.raises(DatasetError, match="'none' does not exist"):
        run_job(model, ["none"], tmp_path / "answers", resources=ONE)
    with pytest.raises(UsageError, match=r"gives no 'logit'\. Nearest: 'logits'"):
        run_job(model, [folder], tmp_path / "answers", wanted=Wanted(returns="logit"), resources=ONE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures"]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2 if hasattr(os, "sched_getaffinity") else False, reason="one core")
def test_a_second_worker_nearly_doubles_the_pace(
    model: Path, photos: Callable[..., Path], hooked: dict[str, str], tmp_path: Path
) -> None:
    folder = photos("pictures", slow=64)
    paces = []
    for workers in ("1", "2"):
        output = tmp_path / workers
        resources = Resources(workers=workers, batch=4)
        run_job(model, [folder], output, wanted=Wanted(unit=8), resources=resources)
        paces.append(pace_of(output, unit=8))
    assert paces[1] / paces[0] >= 1.8, paces


def test_the_table_opens_in_pyarrow_pandas_and_datasets(
    model: Path, photos: Callable[..., Path], tmp_path: Path
) -> None:
    import pandas
    from datasets import load_dataset

    folder, output = photos("pictures", ok=20, bad=10), tmp_path / "answers"  # one part is of bad ones alone
    run_job(model, [folder], output, wanted=Wanted(unit=10, top=2), resources=ONE)
    rows = rows_of(output)
    metadata = parquet.read_schema(next(output.glob("part-*"))).metadata
    assert metadata[b"hybridvit.schema"] == b"1"
    assert json.loads(metadata[b"hybridvit.card"])["architecture"] == "fastvit_debug"
    frame = pandas.read_parquet(output).sort_values("image")
    assert list(frame.columns) == ["image", "error", "width", "height", "predictions"]
    assert frame["error"].isna().sum() == 20
    assert frame["predictions"].iloc[-1][0]["index"] == rows[-1]["predictions"][0]["index"]
    loaded = load_dataset(
        "parquet", data_files=str(output / "part-*.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert sorted(loaded["image"]) == [row["image"] for row in rows]
    assert len(loaded[10]["predictions"]) == 2


def test_an_output_of_the_model_is_a_column_as_it_stands(
    model: Path, photos: Callable[..., Path], tmp_path: Path
) -> None:
    folder = photos("pictures", ok=7, bad=1)
    wanted = Wanted(returns="logits")
    run_job(model, [folder], tmp_path / "answers", wanted=wanted, resources=ONE)
    table = parquet.read_table(tmp_path / "answers")
    assert table.schema.field("logits").type == pyarrow.list_(pyarrow.float32(), 5)
    predictor = hybridvit.Predictor(model)
    for row in table.to_pylist():
        if row["error"] is None:
            expected = predictor.runner(predictor.prepare(row["image"]).image[None])["logits"][0]
            assert row["logits"] == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell the most memory of a process")
def test_the_driver_of_a_million_images_takes_no_more_than_50_megabytes_for_them(model: Path, tmp_path: Path) -> None:
    rows, grown_bytes = map(int, output_of("memory_of_a_job", model, tmp_path, 1_000_000, timeout=580).split())
    assert rows == 1_000_000
    assert grown_bytes <= 50e6
