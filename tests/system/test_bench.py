"""`hybridvit bench`, `choose`, `mixers` and `stages` in real processes, with small models."""

import dataclasses
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bench_results
import pytest
from fresh import ENVIRONMENT, command
from programs import children
from two_classes import dark_and_light

import hybridvit
from hybridvit.cli import main
from hybridvit.errors import OutOfMemory, ProcessLost, UsageError
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.machine import threads
from hybridvit.measure import bench as bench_module
from hybridvit.measure import worker as worker_module
from hybridvit.measure.bench import _Run, bench
from hybridvit.measure.candidate import Candidate
from hybridvit.measure.options import BenchOptions
from hybridvit.measure.prepare import prepared
from hybridvit.measure.result import BenchResult, read_result
from hybridvit.measure.subject import find_subject
from hybridvit.peers import Accuracy


def quick(**options: Any) -> BenchOptions:
    """Options for a measurement of seconds."""
    return BenchOptions(**{"rounds": 8, "calls": 1, "threads": 1, "processes": 1} | options)


WORDS = ("--rounds", "8", "--calls", "1", "--threads", "1", "--processes", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two classes that are easily told apart, its ONNX file, and images."""
    root = tmp_path_factory.mktemp("bench")
    model = dark_and_light(root, num_images=6)
    export(model, root / "m.onnx", options=ExportOptions(batch=1))
    return root


def test_timms_and_a_file_in_their_runtimes_in_one_run(folder: Path) -> None:
    models = ["test_convnext.r160_in1k", str(folder / "m.onnx")]
    result = bench(models, quick(runtimes=("torch", "onnxruntime")))
    rows = [(row.candidate.subject.name, row.candidate.runtime) for row in result.rows]
    assert rows == [
        ("test_convnext.r160_in1k", "torch"),
        ("test_convnext.r160_in1k", "onnxruntime"),
        (str(folder / "m.onnx"), "onnxruntime"),
    ]
    assert [record["image_size"] for record in checked(result)] == ["160x160", "160x160", "32x32"]
    assert result.is_complete


def checked(result: BenchResult) -> list[dict[str, Any]]:
    """The records of a result, whose numbers have to be possible ones."""
    records = result.records()
    for record in records:
        assert 0 < record["low_ms"] <= record["median_ms"] <= record["high_ms"] <= record["p99_ms"]
        assert record["rounds"] == record["calls"] == 8
        assert record["memory_mib"] > 0 if sys.platform == "linux" else record["memory_mib"] is None
        assert record["parameters"] is None if record["model"].endswith(".onnx") else record["parameters"] > 1000
    assert result.settings["threads"] == 1
    return records


@pytest.mark.nightly
def test_ours_timms_and_a_file_in_their_runtimes_in_one_run(folder: Path) -> None:
    models = ["fastvit_debug", "test_convnext.r160_in1k", str(folder / "m.onnx")]
    result = bench(models, quick(runtimes=("torch", "onnxruntime"), image_size=((64, 96),)))
    rows = [(row.candidate.subject.name, row.candidate.runtime) for row in result.rows]
    assert rows == [
        ("fastvit_debug", "torch"),
        ("fastvit_debug", "onnxruntime"),
        ("test_convnext.r160_in1k", "torch"),
        ("test_convnext.r160_in1k", "onnxruntime"),
    ]
    (skipped,) = result.skipped  # the file takes 32x32 alone
    assert skipped.reason == "it takes 32x32 px, and --image_size 64x96 is asked for"
    assert {record["image_size"] for record in checked(result)} == {"64x96"}
    assert result.is_complete


def test_the_processes_of_a_candidate_take_turns_and_count_their_page_faults() -> None:
    (record,) = bench(["fastvit_debug"], quick(runtimes=("torch",), processes=2)).records()
    assert [len(turns) for turns in record["turns_ms"]] == [4, 4]
    assert record["processes"] == 2
    assert record["low_ms"] <= min(map(statistics.median, record["turns_ms"])) + 1e-4
    assert record["high_ms"] >= max(map(statistics.median, record["turns_ms"])) - 1e-4
    assert record["faults_per_call"] < 50 if sys.platform != "win32" else record["faults_per_call"] is None


@pytest.mark.nightly
@pytest.mark.parametrize("batches", [(3,), (1, 3)])
def test_precisions_forms_and_batches_of_one_model(batches: tuple[int, ...]) -> None:
    result = bench(
        ["fastvit_debug"],
        quick(
            runtimes=("torch", "onnxruntime"),
            precisions=("fp32", "bf16", "int8"),
            forms=("folded", "training"),
            batch=batches,
        ),
    )
    rows = [
        (row.candidate.batch, row.candidate.form, row.candidate.runtime, row.candidate.precision) for row in result.rows
    ]
    of_one_batch = [
        ("training", "torch", "fp32"),
        ("training", "torch", "bf16"),
        ("folded", "torch", "fp32"),
        ("folded", "torch", "bf16"),
        ("folded", "onnxruntime", "fp32"),
        ("folded", "onnxruntime", "int8"),
    ]
    assert rows == [(batch, *rest) for batch in batches for rest in of_one_batch]
    assert {each.reason.partition(":")[0] for each in result.skipped} == {
        "PyTorch has no int8 here",
        "onnxruntime has no bf16",
    }


@pytest.mark.nightly
def test_converted_files_are_kept_and_used_again(tmp_path: Path) -> None:
    bench(["fastvit_debug"], quick(runtimes=("onnxruntime",), files=tmp_path))
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    bench(["fastvit_debug"], quick(runtimes=("onnxruntime",), files=tmp_path))
    assert file.stat().st_mtime_ns == before
    file.write_bytes(file.read_bytes()[:1000])
    bench(["fastvit_debug"], quick(runtimes=("onnxruntime",), files=tmp_path))
    assert file.stat().st_size > 1000
    assert list(tmp_path.iterdir()) == [file]


def test_what_does_not_fit_into_memory_is_left_out_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    real = bench_module.limits

    def cramped(path: Path) -> object:
        return dataclasses.replace(real(path), memory_free=3_000_000, memory_limit=None)

    monkeypatch.setattr(bench_module, "limits", cramped)
    result = bench(["fastvit_debug"], quick(runtimes=("torch",), batch=(1, 1000)))
    assert [row.candidate.batch for row in result.rows] == [1]
    (skipped,) = result.skipped
    assert "A batch of 1000 and the weights take at least" in skipped.reason
    with pytest.raises(OutOfMemory, match="more memory than the device has"):
        bench(["fastvit_debug"], quick(runtimes=("torch",), batch=(1000,)))


def test_a_tenth_of_the_free_memory_is_left_free(monkeypatch: pytest.MonkeyPatch) -> None:
    real, batch = bench_module.limits, 300
    pixels = batch * 3 * 32 * 32 * 4
    for free, fits in ((int(1.05 * pixels), False), (2 * pixels, True)):
        there = dataclasses.replace(real(Path.cwd()), memory_free=free, memory_limit=None)
        monkeypatch.setattr(bench_module, "limits", lambda _, there=there: there)
        if fits:
            assert bench(["fastvit_debug"], quick(runtimes=("torch",), batch=(batch,))).rows
        else:
            with pytest.raises(OutOfMemory, match="have to stay so"):
                bench(["fastvit_debug"], quick(runtimes=("torch",), batch=(batch,)))


@pytest.mark.parametrize(("given", "seen"), [(None, "as by default"), ("PASSIVE", "PASSIVE")])
def test_threads_of_what_is_timed_wait_as_the_user_said(given: str | None, seen: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != threads.POLICY}
    environment |= {} if given is None else {threads.POLICY: given}
    program = Path(__file__).parent.parent / "programs" / "waiting_policy.py"
    told = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["here: PASSIVE", f"torch: {seen}", f"onnxruntime: {seen}"]


@pytest.mark.parametrize(
    ("work", "error", "text"),
    [(children.killed, OutOfMemory, "ended by the system"), (children.ended_with_3, ProcessLost, "with 3: gone")],
)
def test_a_process_that_dies_takes_nobody_with_it(
    work: object, error: type, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "serve", work)
    with pytest.raises(error, match=text):
        bench(["fastvit_debug"], quick(runtimes=("torch",)))


def test_one_that_dies_between_two_turns_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[worker_module.Worker] = []

    class Watched(worker_module.Worker):
        def turn(self, calls: int) -> object:
            opened.append(self)
            if len(opened) == 6:
                os.kill(self.pid, signal.SIGKILL)
            return super().turn(calls)

    monkeypatch.setattr(bench_module, "Worker", Watched)
    result = bench(["fastvit_debug", "fastervit_debug"], quick(runtimes=("torch",)))
    assert len(result.rows) == len(result.skipped) == 1
    assert "ended by the system" in result.skipped[0].reason
    assert result.rows[0].candidate != result.skipped[0].candidate


@pytest.mark.parametrize(
    ("models", "options", "text"),
    [
        (["fastvit_t88"], {}, r"'fastvit_t88' is neither a model of hybridvit or timm nor a file. Nearest"),
        (["repvit_m1_1.dist_in1k"], {}, r"Nearest models: 'repvit_m1_1.dist_"),
        ([], {}, "Name at least one model"),
        (["fastvit_debug"], {"runtimes": ["onxruntime"]}, "no runtime 'onxruntime'. Nearest: 'onnxruntime'"),
        (["fastvit_debug"], {"runtimes": ["tensorrt"]}, r"tensorrt, missing here. Run: pip install"),
        (["fastvit_debug"], {"precisions": ["fp8"]}, "no precision 'fp8'. There are 'fp32', 'fp16'"),
        (["fastvit_debug"], {"forms": ["fold"]}, "no form 'fold'. Nearest: 'folded'"),
        (["fastvit_debug"], {"batch": [0]}, "The batch is 0"),
        (["fastvit_debug"], {"calls": 0}, "calls is 0"),
        (["fastvit_debug"], {"processes": 0}, "processes is 0, but each candidate needs one at least. Use --proc"),
        (["fastvit_debug"], {"processes": 9, "rounds": 8}, r"processes is 9, but with 8 rounds .* Use --rounds 9"),
        (["fastvit_debug"], {"device": "tpu"}, "The device is 'tpu', but this measures on cpu or cuda"),
    ],
)
def test_bench_refuses_what_it_cannot_measure(models: list[str], options: dict, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        bench(models, BenchOptions(**options))


def test_the_command_ends_with_one_json_line_and_writes_its_files(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "r.json"
    words = ["bench", str(folder / "m.safetensors"), *WORDS, "--runtimes", "torch"]
    assert main([*words, "--csv", str(tmp_path / "t.csv"), "--json", str(written)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == read_result(written)
    assert lines[0].split()[:3] == ["model", "runtime", "precision"]
    assert (tmp_path / "t.csv").read_text().startswith("model,infer_img_size,infer_samples_per_sec,")
    # as if it had been a hundred times as fast, or as slow
    for factor, code, verdict in ((0.01, 9, "slower"), (100, 0, "faster")):
        before = json.loads(written.read_text())
        for record in before["bench"]:
            record |= {name: factor * record[name] for name in ("median_ms", "low_ms", "high_ms")}
        (tmp_path / "before.json").write_text(json.dumps(before))
        assert main([*words, "--against", str(tmp_path / "before.json")]) == code
        assert f"  {verdict}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["m.onnx", "--runtimes", "torch"], 2, "m.onnx: it runs in onnxruntime, and --runtimes torch is asked for"),
        (["m.onnx", "--image_size", "64x96"], 2, "m.onnx: it takes 32x32 px, and --image_size 64x96 is asked for"),
        (["m.onnx", "--batch", "4"], 2, "m.onnx: it takes a batch of 1, and --batch 4 is asked for"),
        (["m.safetensors", "--against", "other.json"], 2, "no candidate in common"),
        (["m.safetensors", "--against", "other.json", "--tolerance", "-1"], 2, "The tolerance is -1 %"),
        (["m.safetensors", "--tolerance", "3"], 2, "--tolerance is 3, but there is nothing to compare with"),
        (["m.safetensors", "--json", "a.json", "--csv", "./a.json"], 2, "a.json is asked for twice"),
        pytest.param(
            ["m.safetensors", "--json", "/proc/a.json"],
            7,
            "/proc/a.json could not be written",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"),
        ),
    ],
)
def test_what_can_be_known_before_is_refused_before_anything_is_converted_or_timed(
    words: list[str],
    code: int,
    text: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr(bench_module, "prepared", work)
    monkeypatch.setattr(bench_module, "Worker", work)
    monkeypatch.chdir(folder)
    Path("other.json").write_text(bench_results.result(bench_results.row((1.0,) * 9)).json(), encoding="utf-8")
    assert main(["bench", *words]) == code
    assert text in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of POSIX")
def test_interrupted_it_keeps_what_was_measured(tmp_path: Path) -> None:
    written = tmp_path / "r.json"
    words = ["bench", "fastvit_debug", "--threads", "1", "--processes", "1", "--json", str(written)]
    running = subprocess.Popen(
        command("kept_often", *words, "--runtimes", "torch", "--rounds", "1000000"),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 180
    while not written.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert read_result(written)["complete"] is False  # should it be killed now, this much is kept
    running.send_signal(signal.SIGINT)
    shown, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Interrupted. The rounds until then are kept." in errors
    assert "Traceback" not in errors
    result = read_result(written)
    assert result == json.loads(shown.splitlines()[-1])
    assert result["complete"] is False
    assert result["bench"][0]["rounds"] > 8


@pytest.mark.nightly
def test_choose_names_the_most_accurate_that_is_fast_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"fastvit_debug": 60.0, "fastervit_debug": 70.0}
    monkeypatch.setattr(
        "hybridvit.peers.published_accuracy",
        lambda name, side: Accuracy(top1=known[name], image_size_px=side, training="plain", source="a test"),
    )
    words = ["choose", "--models", *known, "--runtime", "torch", "--rounds", "8", "--threads", "1", "--json"]
    assert main([*words, "--max_latency_ms", "100000"]) == 0
    choice = json.loads(capsys.readouterr().out)
    assert (choice["chosen"]["model"], choice["chosen"]["top1"]) == ("fastervit_debug", 70.0)
    assert [each["model"] for each in choice["configurations"]] == ["fastervit_debug", "fastvit_debug"]
    assert main([*words, "--max_latency_ms", "0.001"]) == 2
    assert "Nothing fits: the most accurate with a median of at most 0.001 ms" in capsys.readouterr().err


@pytest.mark.nightly
def test_choose_measures_what_each_way_of_a_checkpoint_gets_right(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = str(folder / "images")
    words = ["choose", "--models", str(folder / "m.safetensors"), "--data", images, "--runtime", "onnxruntime", "torch"]
    words += ["--precisions", "fp32", "int8", "--rounds", "8", "--threads", "1", "--files", str(tmp_path), "--json"]
    assert main(words) == 2
    assert "int8 needs images to calibrate on" in capsys.readouterr().err
    # half of these few images may change their answer: nothing here is trained
    assert main([*words, "--calibration", images, "--max_drop", "100"]) == 0
    choice = json.loads(capsys.readouterr().out)
    found = {(each["record"]["runtime"], each["record"]["precision"]): each for each in choice["configurations"]}
    assert set(found) == {("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("torch", "fp32")}, choice["left_out"]
    assert choice["left_out"] == ["torch, int8: PyTorch has no int8 here: it is a precision of exported files"]
    assert found["onnxruntime", "fp32"]["drop"] == 0
    assert found["onnxruntime", "fp32"]["speed"] > 0
    assert Path(choice["chosen"]["record"]["model"]).exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--max_latency_ms", "0"], "max_latency_ms is 0"),
        (["--max_drop", "-1"], "max_drop is -1"),
        (["--models", "m.safetensors"], "a checkpoint, whose accuracy only labelled images tell"),
        (["--models", "m.onnx"], "exported already"),
        (["--models", "fastvit_debug", "--max_latency_ms", "8"], "no accuracy is published of these models at this"),
        (["--models", "m.safetensors", "--data", "images", "--rounds", "2"], "needs at least 8 rounds"),
        (["--models", "m.safetensors", "--data", "images", "--files", "m.onnx"], "m.onnx is a file, but a folder is"),
        (["--models", "fastvit_debug", "--data", "images"], "has no trained weights here"),
        (["--models", "fastvit_debug", "--calibration", "images"], "none to measure the accuracy on"),
        (["--models", "m.safetensors", "--data", "images", "--calibration", "images"], "nothing is to be int8"),
        (["--models", "fastvit_debug", "--max_drop", "1"], "--max_drop is 1, but a loss is only measured of a checkp"),
    ],
)
def test_choose_refuses_options_that_say_nothing(
    words: list[str], text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(["choose", *words]) == 2
    assert text in capsys.readouterr().err


def test_mixers_stand_beside_the_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--runtimes", "torch", "--image_sizes", "64", "--rounds", "8", "--processes", "1"]
    assert main(["mixers", *words, "--chart", str(tmp_path / "m.png")]) == 0
    shown = capsys.readouterr().out
    assert "paper, iPhone 12 Pro" in shown
    found = json.loads(shown.splitlines()[-1])["reductions"]
    assert [each["side_px"] for each in found] == [64]
    assert (tmp_path / "m.png").stat().st_size > 10_000


def test_a_command_that_ctrl_c_ends_early_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = _Run.measure

    def interrupted(run: _Run, group: list[Candidate]) -> None:
        whole(run, group)
        raise KeyboardInterrupt

    monkeypatch.setattr(_Run, "measure", interrupted)
    words = ["--runtimes", "torch", "--image_sizes", "32", "64", "--rounds", "8", "--processes", "1"]
    assert main(["mixers", *words]) == 130
    captured = capsys.readouterr()
    assert captured.err == "Interrupted. The rounds until then are kept.\n"
    assert [each["side_px"] for each in json.loads(captured.out.splitlines()[-1])["reductions"]] == [32]
    monkeypatch.setattr("hybridvit.peers.published_accuracy", lambda *_: object())
    assert main(["choose", "--models", "fastvit_debug", "--runtime", "torch", "--max_latency_ms", "9"]) == 130
    assert "Choose" not in capsys.readouterr().out


def test_two_checkpoints_of_one_name_are_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridvit.measure.prepare.in_child", lambda _: None)
    files = set()
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        hybridvit.save_checkpoint(hybridvit.create_model("fastvit_debug").eval(), tmp_path / run / "model.safetensors")
        subject = find_subject(str(tmp_path / run / "model.safetensors"))
        candidate = Candidate(
            subject=subject, form="folded", runtime="onnxruntime", precision="fp32", batch=1, image_size=(32, 32),
            threads=1, device="cpu",
        )  # fmt: skip
        files.add(Path(prepared(candidate, tmp_path).file).name)
    assert len(files) == 2, files


@pytest.mark.nightly
def test_choose_keeps_two_checkpoints_of_one_name_apart(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = []
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        checkpoints.append(str(shutil.copy(folder / "m.safetensors", tmp_path / run / "model.safetensors")))
    words = ["choose", "--data", str(folder / "images"), "--runtime", "onnxruntime", "--rounds", "8", "--json"]
    assert main([*words, "--models", *checkpoints]) == 0
    choice = json.loads(capsys.readouterr().out)
    assert sorted(each["model"] for each in choice["configurations"]) == checkpoints


def test_stages_add_up_to_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--rounds", "8", "--threads", "1", "--chart", str(tmp_path / "s.png"), "--json", str(tmp_path / "s.json")]
    assert main(["stages", "fastervit_debug", *words]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == json.loads((tmp_path / "s.json").read_text())
    model = hybridvit.create_model("fastervit_debug", folded=True)
    assert [each["stage"] for each in found["stages"]] == ["stem", "1", "2", "3", "4", "head"]
    whole = sum(parameter.numel() for parameter in model.parameters())
    assert sum(each["parameters"] for each in found["stages"]) <= whole
    assert (tmp_path / "s.png").stat().st_size > 10_000
    assert "noise" in found["conditions"]
    hybridvit.save_checkpoint(
        hybridvit.create_model("fastvit_debug", task="segment", num_classes=3), tmp_path / "segmenter.safetensors"
    )
    for refused, message in (
        (["resnet50"], "resnet50.a1_in1k is no model of hybridvit in PyTorch"),
        (["fastvit_debug", "--batch", "0"], "The batch is 0"),
        ([str(tmp_path / "segmenter.safetensors")], "--depth stage"),
    ):
        assert main(["stages", *refused]) == 2
        assert message in capsys.readouterr().err
