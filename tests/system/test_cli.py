"""The command line as a user meets it: help, errors in one paragraph, exit codes, what a terminal shows."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fresh
import pytest
from fresh import output_of
from rich.cells import cell_len

import hybridvit
from hybridvit.cli import main
from hybridvit.cli.main import ORDER, guarded
from hybridvit.cli.progress import status_line
from hybridvit.cli.table import aligned, pairs
from hybridvit.errors import DiskFull, ImageDecodeError, OutOfMemory
from hybridvit.machine import threads

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def spawn(*words: str, folder: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """A real process, as typed."""
    return subprocess.run(
        [sys.executable, "-m", "hybridvit", *words], capture_output=True, text=True, cwd=folder, env=ENVIRONMENT
    )


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
        (["train", "digts"], 2, "no recipe 'digts'. Nearest: 'digits'"),
        (["train", "--config", "no.yaml"], 2, "no.yaml"),
        (["train", "digits", "--optm.lr", "1"], 2, "'optm.lr' is unknown. Nearest: 'optim.lr'"),
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
def test_an_interrupted_process_says_so() -> None:
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


def test_an_error_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes may share stderr, and what one writes must not land within the line of another."""
    writes: list[str] = []

    class Pieces(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stderr", Pieces())
    assert main(["list", "nothing_like_it", "--no-such"]) == 2
    assert len(writes) == 1
    assert writes[0].endswith("\n")


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
