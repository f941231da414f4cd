"""`hybridvit export`: a process per target, whose end, however it comes, leaves one clear error and nothing else."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import trained_like
from PIL import Image
from programs import children

import hybridvit
from hybridvit.checkpoints import load
from hybridvit.cli import main
from hybridvit.errors import DiskFull, ExportError, OutOfMemory, UsageError
from hybridvit.export import EXPORTERS, apart, load_runner
from hybridvit.export.apart import ExportJob, run_apart
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    hybridvit.save_checkpoint(
        trained_like(hybridvit.create_model("fastvit_debug", num_classes=3)), tmp_path / "m.safetensors"
    )
    return tmp_path / "m.safetensors"


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What concerns no process is tested without one, which takes seconds to start."""
    log = logging.getLogger("hybridvit")  # which a process of its own makes talk
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "level", log.level)
    monkeypatch.setattr("hybridvit.cli.export.run_apart", lambda job, show: apart.carry_out(job))


def test_several_targets_are_written_side_by_side_and_compared_on_the_images_that_are_named(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path_factory.mktemp("photos")
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    words = ["--to", "onnx", "openvino", "--batch", "2", "--image_size", "32x64", "--images", str(photos)]
    assert main(["export", str(checkpoint), *words]) == 0
    text = capsys.readouterr().out
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["m.bin", "m.onnx", "m.safetensors", "m.xml"]
    assert text.count("Exported fastvit_debug, folded, to") == 2
    assert text.count("6 images, same answer on 6") == 2
    assert "Takes               2 x 3 x 32 x 64, fp32" in text
    assert "Gives               logits" in text
    assert load_runner(checkpoint.with_suffix(".onnx"))(torch.zeros(3, 3, 32, 64))["logits"].shape == (3, 3)


def test_the_process_is_given_what_is_asked_for(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Began(Exception):
        """With the job."""

    def begin(job: ExportJob, *, show: object) -> None:
        raise Began(job)

    monkeypatch.setattr("hybridvit.cli.export.run_apart", begin)
    with pytest.raises(Began) as began:
        main(["export", str(checkpoint), "--returns", "features", "--uint8", "--image_size", "64x96"])
    options = ExportOptions(returns="features", uint8=True, image_size=(64, 96))
    path = str(checkpoint.with_suffix(".onnx"))
    assert began.value.args == (ExportJob(checkpoint=str(checkpoint), output=path, to="onnx", options=options),)


@pytest.mark.nightly
def test_a_target_that_fails_does_not_stop_the_others(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(checkpoint), "--to", "openvino", "onnx", "--precision", "bf16"]) == 2
    captured = capsys.readouterr()
    assert "The target 'onnx' has no bf16: it writes" in captured.err
    assert "Targets with bf16: openvino" in captured.err
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == [
        "m-bf16.bin", "m-bf16.xml", "m.safetensors",
    ]  # fmt: skip
    assert captured.out.count("Exported") == 1


def test_an_error_of_the_process_is_told_as_one_of_the_command(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(checkpoint), "--top_k", "9"]) == 2
    assert capsys.readouterr().err.startswith("Error: top_k is 9, but must be a whole number from 1 to 3")
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--limit", "1e-12"], 5, r"the limit is 1e-12. It was not kept"),
        (["--batch", "many"], 2, "--batch is many, but must be a number of images from 1, or dynamic"),
        (["--image_sizes", "64", "96"], 2, "takes one size, or any with dynamic_size"),
        (["--top_k", "4"], 2, "top_k is 4, but must be a whole number from 1 to 3"),
        (["--top_k", "2", "--returns", "pyramid"], 2, "top_k is 2, but the file is to return pyramid"),
        (["--output", "no/such/m.onnx"], 2, "folder no/such does not exist"),
        (["--to", "onnx", "openvino", "--output", "nowhere"], 2, "2 targets need a folder that exists"),
        (["--precision", "int8"], 2, "int8 is set, but no images to calibrate on"),
        (["--calibration", "nothing-here"], 2, "are for int8, but the precision is fp32"),
        (["--calibration_images", "0"], 2, "are for int8, but the precision is fp32"),
        (["--precision", "fp16", "--max_drop", "1"], 2, "are for int8, but the precision is fp16"),
        (["--images", "nothing-here"], 3, "nothing-here"),
    ],
)
def test_bad_input_is_one_error_and_no_file(
    checkpoint: Path, words: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(checkpoint), *words]) == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.err.startswith("Error: ")
    assert "Traceback" not in captured.err
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def job(checkpoint: Path) -> ExportJob:
    return ExportJob(checkpoint=str(checkpoint), output=str(checkpoint.with_suffix(".onnx")), to="onnx")


@pytest.mark.parametrize(
    ("work", "error", "text"),
    [
        (
            children.dead_by_a_fault_after_half_an_export,
            ExportError,
            r"was ended by signal SIGSEGV; the last it said: half way\. Nothing was written\. Another",
        ),
        (children.killed, OutOfMemory, r"was killed, as happens when memory runs out"),
        (children.ended_with_3, ExportError, r"ended with code 3; the last it said: half way / gone\. Nothing was wri"),
    ],
)
def test_a_converter_that_dies_is_an_error_and_leaves_nothing(
    checkpoint: Path, work: object, error: type, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "carry_out", work)
    with pytest.raises(error, match=text):
        run_apart(job(checkpoint))
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_runtime_that_dies_of_the_written_file_is_named_with_a_way_out(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "carry_out", children.dead_by_a_fault_while_it_proves)
    died = "The runtime of the target '{}' died while it ran the written file to prove it: .*by signal SIGSEGV.*"
    with pytest.raises(ExportError, match=died.format("onnx") + "Another version of onnxruntime may run it; --verb"):
        run_apart(job(checkpoint))
    in_int8 = replace(job(checkpoint), to="openvino", options=ExportOptions(precision="int8"))
    with pytest.raises(ExportError, match=died.format("openvino") + "--keep .* ONEDNN_MAX_CPU_ISA=AVX512_CORE_FP16"):
        run_apart(in_int8)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """An empty file system at `folder` that takes no file, not even root's."""
    words = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a file system needs root")
def test_a_read_only_output_ends_as_a_full_disk_does_before_anything_is_converted(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "carry_out", children.killed)
    folder = checkpoint.parent / "locked"
    folder.mkdir()
    with read_only(folder):
        for target, name in (("onnx", "m.onnx"), ("openvino", "m.xml"), ("coreml", "m.mlpackage")):
            path = folder / name
            assert main(["export", str(checkpoint), "--to", target, "--output", str(path)]) == 7
            assert f"{path} could not be written (Read-only file system). Choose" in capsys.readouterr().err
            with pytest.raises(DiskFull, match="Read-only file system"):
                export(load(checkpoint), path, to=target)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_package_that_cannot_be_imported_is_named_with_its_reason_and_the_way_out(
    target: str, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("packages")
    reason = "cannot import name 'runtime_version' from 'google.protobuf'"  # as onnx says beside an older protobuf
    (elsewhere / "made_with_newer_protobuf.py").write_text(f'raise ImportError("""{reason}""")', encoding="utf-8")
    monkeypatch.syspath_prepend(elsewhere)
    exporter, path = EXPORTERS[target], checkpoint.with_suffix(EXPORTERS[target].suffix)
    text = rf"needs made_with_newer_protobuf, which is broken here \(ImportError: {reason}\).* `hybridvit doctor` tells"
    for packages in ("writer_packages", "runner_packages"):
        with monkeypatch.context() as patched:
            patched.setattr(type(exporter), packages, ("made_with_newer_protobuf",))
            with pytest.raises(UsageError, match=text + rf'.*pip install "hybridvit\[{exporter.extra}\]"'):
                export(load(checkpoint), path, to=target) if packages == "writer_packages" else load_runner(path)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_what_the_converter_prints_is_shown_when_asked(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(apart, "carry_out", children.stumbling)
    with pytest.raises(ExportError, match=r"ended with code 1; the last it said: .* RuntimeError: stumbled\. Nothing"):
        run_apart(job(checkpoint), show=shown.append)
    assert shown[0].startswith("to stdout\nto stderr\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of POSIX")
def test_a_process_ends_with_its_parent() -> None:
    program = Path(__file__).parent.parent / "programs" / "parent.py"
    parent = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(1)  # until it watches
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("it lives on")


def test_interrupted_while_it_converts_it_ends_and_leaves_nothing(checkpoint: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "hybridvit", "export", str(checkpoint), "--to", "openvino"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while running.poll() is None and time.monotonic() < deadline:
        if any(path.name.startswith(".m.tmp-") for path in checkpoint.parent.iterdir()):
            break
        time.sleep(0.05)
    assert running.poll() is None, "it ended before it wrote anything"
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert (running.returncode, told.strip()) == (130, "Interrupted.")
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
