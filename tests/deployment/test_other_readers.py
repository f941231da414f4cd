"""ONNX files in readers other than the one that proves them, each installed in an environment of its own."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import trained_like
from fresh import PROGRAMS

import hybridvit
from hybridvit.difference import relative_error
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export

pytestmark = pytest.mark.nightly

OLDEST_RUNTIME = {(3, 11): ("onnxruntime==1.17.3", "numpy<2"), (3, 12): ("onnxruntime==1.17.3", "numpy<2")}
"""That has wheels for this Python; for a newer one whichever pip finds."""
READERS = [
    pytest.param(
        "answers_of_onnxruntime", 17, OLDEST_RUNTIME.get(sys.version_info[:2], ("onnxruntime",)), id="onnxruntime-1.17"
    ),
    pytest.param("answers_of_opencv", 20, ("opencv-python-headless<5",), id="opencv-4"),
    pytest.param("answers_of_opencv", 20, ("opencv-python-headless>=5",), id="opencv-5"),
    pytest.param("answers_of_opencv", 17, ("opencv-python-headless<5",), id="opencv-4-opset-17"),
]


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """The Python of a new environment with `packages`; skips where they cannot be had."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    installed = subprocess.run([*pip, *packages], capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"{' and '.join(packages)} cannot be installed here: {installed.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fixed-size FasterViT in two opsets, images, and what PyTorch answers to them."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    model = trained_like(hybridvit.create_model("fastervit_0"))
    for opset in (17, 20):
        export(model, folder / f"{opset}.onnx", options=ExportOptions(opset=opset, batch=1))
    images = torch.randn(1, 3, 224, 224)
    np.save(folder / "images.npy", images.numpy())
    with torch.no_grad():
        np.save(folder / "logits.npy", model(images).numpy())
    return folder


@pytest.mark.parametrize(("program", "opset", "packages"), READERS)
def test_a_fixed_fastervit_answers_as_pytorch_in_other_readers(
    program: str, opset: int, packages: tuple[str, ...], files: Path, tmp_path: Path
) -> None:
    python, answers = environment(tmp_path / "environment", packages), tmp_path / "answers.npy"
    words = [python, PROGRAMS / f"{program}.py", files / f"{opset}.onnx", files / "images.npy", answers]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert relative_error(np.load(answers), np.load(files / "logits.npy")) <= 1e-5
