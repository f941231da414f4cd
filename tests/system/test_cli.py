"""The command line as a user meets it: help, answers, errors in one paragraph, exit codes."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fresh
import pytest
import torch
from fresh import output_of
from PIL import Image
from rich.cells import cell_len
from two_classes import dark_and_light

import hybridvit
from hybridvit.checkpoints import save_upstream
from hybridvit.cli import main
from hybridvit.cli.main import ORDER, guarded
from hybridvit.cli.progress import status_line
from hybridvit.cli.table import aligned, pairs
from hybridvit.data.imagenet import in_words
from hybridvit.errors import DiskFull, ImageDecodeError, OutOfMemory
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.machine import threads

ROOT = Path(__file__).parents[2]


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def spawn(*words: str, folder: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """A real process, as typed."""
    return subprocess.run(
        [sys.executable, "-m", "hybridvit", *words], capture_output=True, text=True, cwd=folder, env=ENVIRONMENT
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, its export, and images of two classes."""
    root = tmp_path_factory.mktemp("cli")
    model = dark_and_light(root)
    export(model, root / "m.onnx")
    return root


# ------------------------------------------------------------------ help


def test_help_lists_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ORDER:
        assert f"\n  {name} " in text
    assert "exit codes: 0 done" in text


@pytest.mark.parametrize("name", ORDER)
def test_the_help_of_a_command_has_examples_and_explains_each_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"hybridvit {name}" in text
    assert "Examples:" in text
    assert "None" not in text


def test_help_and_list_import_no_torch_and_answer_at_once() -> None:
    commands = [*([name, "--help"] for name in ORDER), ["--help"], ["list"]]
    assert float(output_of("commands_without_torch", json.dumps(commands)).splitlines()[-1]) < 3


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hybridvit {hybridvit.__version__}\n"


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["predit"], 2, "no command 'predit'. Nearest: 'predict'"),
        (["list", "--patern", "x"], 2, "no option '--patern'. Nearest: '--pattern'"),
        (["list", "--pattern", "resnet*"], 2, "No model matches 'resnet*'"),
        (["info", "fastvit_t88"], 2, "Unknown model 'fastvit_t88'. Nearest: 'fastvit_t8'"),
        (["info"], 2, "`hybridvit info` also needs MODEL"),
        (["predict", "m.onnx"], 2, "also needs IMAGES"),
        (["predict"], 2, "`hybridvit predict` also needs CHECKPOINT, IMAGES. See `hybridvit predict --help`."),
        (["predict", "m.onnx", "x.png", "--top"], 2, "`hybridvit predict`: argument --top: expected one argument. See"),
        (["predict", "m.onnx", "x.png", "--top", "1", "2"], 2, "`hybridvit predict`: unrecognized arguments: 2. See"),
        (["bench", "fastvit_debug", "--batch", "1", "two"], 2, "--batch is 'two', but it must be a whole number. See"),
        (["predict", "m.onnx", "x.png", "--top", "many"], 2, "--top is 'many', but it must be a whole number"),
        (["predict", "m.onnx", "x.png", "--device", "gpu"], 2, "--device is 'gpu', but it must be 'auto' or 'cpu'"),
        (["predict", "m.onnx", "no-such.png"], 3, "'no-such.png' does not exist"),
        (["export", "m.safetensors", "--to", "onyx"], 2, "no export target 'onyx'"),
        (["export", "m.safetensors", "--image_size", "big"], 2, "--image_size is 'big', but it must be"),
        (["export", "no-such.safetensors"], 5, "no-such.safetensors"),
        (["fold", "no-such.safetensors"], 5, "no-such.safetensors"),
        (["evaluate", "m.onnx", "images"], 5, "There is no file m.onnx"),
        (["bench", "fastvit_debug", "--rounds", "1"], 2, "at least 8 rounds"),
        (["bench", "fastvit_debug", "--threads", "0"], 2, "number of threads is 0"),
        (["bench", "fastvit_debug", "--protocol", "phon"], 2, "no protocol 'phon'. Nearest: 'phone'"),
        (["bench", "fastvit_debug", "--against", "none.json"], 2, "There is no file none.json"),
        (["bench", "fastvit_debug", "--chart", "c.jpg"], 2, "a page (.html) or a picture (.png)"),
        (["bench", "fastvit_debug", "--batch", "100000000"], 6, "needs more memory than the device has"),
        (["bench", "fastvit_debug", "--image_size", "16"], 2, "both sides >= 32"),
        (["bench", "fastvit_debug", "--forms", "unfolded"], 2, "no form 'unfolded'"),
        (["train"], 2, "takes one recipe, none given"),
        (["train", "digts"], 2, "no recipe 'digts'. The nearest are 'digits'"),
        (["train", "--config", "no.yaml"], 2, "no.yaml"),
        (["train", "digits", "--optm.lr", "1"], 2, "'optm.lr' is unknown. The nearest are 'optim.lr'"),
        (["train", "digits", "--optim.lr", "fast"], 2, "'optim.lr'"),
        (["train", "digits", "--batch", "4", "--data.micro_batch", "8"], 2, "--batch sets the key data.micro_batch"),
        (["train", "digits", "--allow_changes"], 2, "--allow_changes is for a run that goes on"),
        (["train", "digits", "--dry_run", "--resume"], 2, "a dry run leaves none"),
        (["tables", "--runtime", "onxruntime", "--no_measuring"], 2, "no runtime 'onxruntime'"),
        (["tables", "--rounds", "9", "--no_measuring"], 2, "--rounds is 9, but --no_measuring is set"),
    ],
)
def test_an_error_is_one_paragraph_with_its_exit_code(
    words: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Error: ")
    assert captured.err.count("\n") == 1
    assert text in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["predict", "no.onnx", str(ROOT / "tests")], 3, "has no file that ends in"),
        (["infoo"], 2, "'info'"),
        ([], 2, "usage"),
    ],
)
def test_a_real_process_ends_with_the_code_and_no_traceback(words: list[str], code: int, text: str) -> None:
    done = spawn(*words)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback() -> None:
    done = spawn("info", "fastvit_t88", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "Unknown model 'fastvit_t88'" in done.stderr


def _raise(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (ImageDecodeError("bad"), 3),
        (OutOfMemory("small"), 6),
        (MemoryError(), 6),
        (DiskFull("full"), 7),
        (OSError(5, "Input/output error", "x.csv"), 7),
    ],
)
def test_every_outcome_has_its_exit_code(error: BaseException, code: int) -> None:
    assert guarded(lambda: _raise(error), debug=False) == code


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m hybridvit list --json | head -c 10"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hybridvit", "list"], stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
    assert done.returncode == 7
    assert done.stderr == "Error: A file or the output could not be read or written: No space left on device.\n"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to see how far the process has come")
def test_an_interrupted_process_says_so(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "hybridvit", "bench", "fastvit_debug", "--rounds", "10000000", "--runtimes", "torch"],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 120
    while (
        "libtorch_cpu" not in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)  # Python itself has no handler in its first moments
    try:
        for _ in range(6):  # a package that is being imported can swallow one; a person presses again
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
                break
    finally:
        process.kill()
        _, errors = process.communicate()
    assert process.returncode == 130
    assert "Interrupted." in errors
    assert "Traceback" not in errors


# ------------------------------------------------------------------ answers


def test_list_shows_published_figures_and_the_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.startswith("fastvit_sa12"))
    assert row.split() == ["fastvit_sa12", "256", "10.9", "1.9", "80.9", "81.9", "1.6", "2.5", "-"]
    assert "Licence:" in text
    assert main(["list", "--json", "--pattern", "*t8"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["name"] == "fastvit_t8"


def test_info_of_a_name_has_counts_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "fastvit_t8"]) == 0
    text = capsys.readouterr().out
    for fact in ("4,026,232 in training, 3,992,392 folded", "ICCV 2023", "iPhone 12 Pro", "Licence", "apple_dist_in1k"):
        assert fact in text


@pytest.mark.parametrize(("name", "runtime"), [("m.safetensors", "torch"), ("m.onnx", "onnxruntime")])
def test_info_of_a_file_tells_what_is_inside(
    folder: Path, name: str, runtime: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(folder / name)]) == 0
    text = capsys.readouterr().out
    for fact in ("fastvit_debug", runtime, "32x32 px", "2: dark, light"):
        assert fact in text


def test_both_files_give_the_same_answers_one_json_line_per_image(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for name in ("m.safetensors", "m.onnx"):
        assert main(["predict", str(folder / name), str(folder / "images"), "--json", "--batch", "4"]) == 0
        answers.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert len(answers[0]) == 6
    for ours, exported in zip(*answers, strict=True):
        assert ours["image"] == exported["image"]
        for left, right in zip(ours["predictions"], exported["predictions"], strict=True):
            assert left["class"] == right["class"]
            assert left["probability"] == pytest.approx(right["probability"], abs=2e-6)
        assert sum(each["probability"] for each in ours["predictions"]) == pytest.approx(1, abs=1e-5)


def test_an_exported_model_predicts_without_torch(folder: Path) -> None:
    output_of("commands_without_torch", json.dumps([["predict", str(folder / "m.onnx"), str(folder / "images")]]))


def test_a_bad_image_is_reported_and_the_others_go_on(folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "a.jpg").write_text("<!DOCTYPE html><html></html>")
    good = folder / "images/dark/0.png"
    assert main(["predict", str(folder / "m.onnx"), str(tmp_path / "a.jpg"), str(good), "--json"]) == 3
    captured = capsys.readouterr()
    bad, answered = (json.loads(line) for line in captured.out.splitlines())
    assert "a.jpg" in bad["error"]
    assert answered["image"] == str(good)
    assert "1 of 2 images could not be decoded" in captured.err


def test_evaluate_counts_and_says_what_it_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(folder / "m.safetensors"), str(folder / "images")]
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["num_images"] == 6
    assert record["num_skipped"] == 0
    assert main(words) == 0
    right = round(6 * record["top1"] / 100)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["Top-1", "Top-5", "Loss", "Skipped", "Time"]
    assert lines[1].split(maxsplit=1)[1] == f"{record['top1']:.2f} %, {right} of 6 right"


def test_evaluate_finds_in_an_exported_file_what_it_finds_in_the_checkpoint(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = []
    for name in ("m.safetensors", "m.onnx"):
        assert main(["evaluate", str(folder / name), str(folder / "images"), "--batch", "4", "--json"]) == 0
        records.append(json.loads(capsys.readouterr().out))
    weights, exported = records
    for key in ("top1", "top5", "num_images", "num_skipped"):
        assert exported[key] == weights[key], key
    assert exported["loss"] == pytest.approx(weights["loss"], rel=1e-4)
    assert main(["evaluate", str(folder / "m.onnx"), str(folder / "images")]) == 0
    assert "(onnxruntime)" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize(
    ("options", "gives"),
    [({"returns": "features"}, "features"), ({"top_k": 1}, "probabilities and indices")],
    ids=["features", "top-1"],
)
def test_evaluate_refuses_a_file_that_gives_no_logits(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], gives: str
) -> None:
    export(hybridvit.load(folder / "m.safetensors"), tmp_path / "m.onnx", options=ExportOptions(**options))
    assert main(["evaluate", str(tmp_path / "m.onnx"), str(folder / "images")]) == 2
    assert f"gives {gives}, but accuracy and loss are computed from logits. Export" in capsys.readouterr().err


def test_evaluate_refuses_classes_that_the_model_does_not_know(folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "grey").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "grey/0.png")
    assert main(["evaluate", str(folder / "m.safetensors"), str(tmp_path)]) == 3
    assert "'grey'" in capsys.readouterr().err


def test_fold_writes_a_checkpoint_and_its_largest_difference(folder: Path, tmp_path: Path, capsys) -> None:
    target = tmp_path / "folded.safetensors"
    assert main(["fold", str(folder / "m.safetensors"), "--output", str(target)]) == 0
    text = capsys.readouterr().out
    assert "Largest difference" in text
    assert "of the largest output" in text
    assert hybridvit.load(target).card.form == "folded"
    assert main(["fold", str(target)]) == 2
    assert "folded already" in capsys.readouterr().err
    assert main(["fold", str(folder / "m.safetensors"), "--output", str(folder / "m.safetensors")]) == 2
    assert "is the checkpoint itself" in capsys.readouterr().err


class Terminal(io.StringIO):
    """Keeps what is written to it."""

    def isatty(self) -> bool:
        return True


def test_in_a_terminal_the_status_is_one_line_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with status_line() as show:
        show("round 1/2 [x]")
        show("round 2/2 " + "x" * 500)
        during = terminal.getvalue()
        print("a warning", file=sys.stderr)
    assert "round 1/2 [x]" in during
    assert "…" in during  # cut, where a second line would stay
    assert "\n" not in during
    assert "a warning\n" in terminal.getvalue()
    assert terminal.getvalue().rstrip("\n").endswith("\x1b[2K")
    with status_line() as show:
        show("round 3/3")
    assert terminal.getvalue().count("round 3/3") == 1


@pytest.mark.parametrize(("in_logs", "written"), [(False, ""), (True, "round 1/2\nround 2/2\n")])
def test_in_a_log_the_status_is_plain_lines_or_nothing(
    in_logs: bool, written: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with status_line(in_logs=in_logs) as show:
        show("round 1/2")
        show("round 2/2")
    assert capsys.readouterr().err == written


def test_columns_line_up_whatever_is_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    rows = [("model", "class", "ms"), ("[red]", "犬 [/]", "1.25"), (":smile:", "x" * 300, "-")]
    widths = (7, 300, 4)
    lines = [
        f"{'model':<7}  {'class':<300}    ms",
        f"{'[red]':<7}  {'犬 [/]':<299}  1.25",  # 犬 is two columns wide
        f"{':smile:':<7}  {'x' * 300}     -",
    ]
    assert aligned(rows, left=2) == "\n".join(lines)
    assert {cell_len(line) for line in lines} == {sum(widths) + 4}
    assert pairs([("Top-1", "99 %"), ("Loss", "")]) == "  Top-1  99 %\n  Loss"


def test_print_config_trains_nothing(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", "--seed", "7", "--print_config"]) == 0
    assert "\nseed: 7\n" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_predict_and_info_say_imagenet_classes_in_words(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "published.pth"
    model = hybridvit.create_model("fastvit_debug").eval()
    torch.nn.init.zeros_(model.head.fc.weight)
    torch.nn.init.zeros_(model.head.fc.bias).data[207] = 5.0
    save_upstream(model, weights, "apple")
    assert main(["predict", str(weights), str(folder / "images/dark/0.png"), "--top", "1"]) == 0
    assert "%  golden retriever\n" in capsys.readouterr().out
    assert main(["info", str(weights)]) == 0
    assert "1000: tench, Tinca tinca, goldfish" in capsys.readouterr().out


def test_other_class_names_are_left_as_they_are() -> None:
    assert in_words(("n0", "cat")) == ("n0", "cat")
    assert in_words(("n02099601", "n99999999")) == ("golden retriever", "n99999999")


@pytest.mark.parametrize("option", ["--csv", "--json"])
def test_bench_refuses_a_place_it_cannot_write_to_before_it_measures(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "fastvit_debug", option, str(tmp_path / "none" / "out")]) == 2
    shown = capsys.readouterr()
    assert "none does not exist, so out cannot be written" in shown.err
    assert not shown.out


def test_idle_threads_sleep_unless_the_command_takes_times_or_the_user_says_otherwise() -> None:
    without = {name: value for name, value in ENVIRONMENT.items() if name != "OMP_WAIT_POLICY"}
    active = without | {"OMP_WAIT_POLICY": "ACTIVE"}
    cases = (("list", without, "PASSIVE"), ("list", active, "ACTIVE"), ("bench", without, "None"))
    for name, environment, policy in cases:
        words = fresh.command("waiting", name, "--pattern", "*debug")
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert done.stdout.splitlines()[-1] == f"{policy} False"


def test_what_is_timed_waits_as_the_user_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_set_here", set())
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    threads.let_waiting_threads_sleep()
    assert threads.given_environment()["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    threads.let_waiting_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "OMP_WAIT_POLICY" not in threads.given_environment()


def test_bench_refuses_threads_that_never_sleep(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert main(["bench", "fastvit_debug", "--runtimes", "torch"]) == 2
    assert "OMP_WAIT_POLICY is ACTIVE: threads of the candidates" in capsys.readouterr().err


def test_list_shows_models_of_which_nothing_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--pattern", "*debug"]) == 0
    header, row, *_ = capsys.readouterr().out.splitlines()
    assert "iPhone" not in header
    assert row.split() == ["fastvit_debug", "32", "-", "-", "-", "-"]
