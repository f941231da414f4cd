"""Exported files run without PyTorch, and start fast: no part of it is imported, nor need it be installed."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import trained_like
from fresh import TESTS, output_of
from PIL import Image
from required import missing

import hybridvit
from hybridvit.data.imagenet import class_names, in_words
from hybridvit.data.preprocess import frame_of, preprocess
from hybridvit.export.pipeline import export
from hybridvit.machine import light
from hybridvit.predictor import Predictor
from hybridvit.recipe.file import load_recipe
from hybridvit.task import TASKS, find_task
from hybridvit.training.start import material_of

ROOT = TESTS.parent


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with ImageNet's classes, and beside it its export."""
    folder = tmp_path_factory.mktemp("thousand")
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=1000))
    model.card = dataclasses.replace(model.card, class_names=class_names())
    hybridvit.save_checkpoint(model, folder / "m.safetensors")
    export(model, folder / "m.onnx")
    return folder / "m.safetensors"


def small_model(name: str, folder: Path) -> Any:
    """An untrained one of a task, with a small head."""
    (folder / "recipe.yaml").write_text("model: fastvit_debug\n")
    settings = {"task": name, "data.source": "generated", "data.image_size": 32, "data.total_batch": 8}
    recipe = load_recipe(str(folder / "recipe.yaml"), settings | {"accelerator": "cpu", "output": str(folder / name)})
    if options := recipe.trial_settings()[0].get("head_options"):
        recipe = dataclasses.replace(recipe, head_options=options)
    return material_of(recipe, find_task(name)).model.eval()


def test_the_answers_of_every_task_are_read_without_torch(picture: Path, tmp_path: Path) -> None:
    expected = []
    shutil.copy(picture, tmp_path / "picture.png")
    with Image.open(picture) as shown:
        for name in sorted(TASKS):
            model = small_model(name, tmp_path)
            task, card = find_task(name), model.card
            with torch.inference_mode():
                tensors = task.forward(model, torch.from_numpy(preprocess(shown, card.preprocessing))[None])
            outputs = {key: value.numpy() for key, value in tensors.items()}
            np.savez(tmp_path / f"{name}.npz", **outputs)
            (tmp_path / f"{name}.json").write_text(json.dumps(dataclasses.asdict(card)))
            expected.append(task.results(outputs, [frame_of(shown.size, card.preprocessing)], card)[0].to_dict())
    said = output_of("results_without_torch", tmp_path).splitlines()
    assert [json.loads(line) for line in said] == expected


@pytest.mark.nightly  # by day classification alone, and the answers of the other tasks without their files
@pytest.mark.parametrize("name", TASKS)
def test_exported_files_of_every_task_are_answered_without_torch(name: str, picture: Path, tmp_path: Path) -> None:
    file = export(small_model(name, tmp_path), tmp_path / f"{name}.onnx").path
    _check_without_torch(file, picture, tmp_path)


def test_an_exported_file_is_answered_without_torch(thousand: Path, picture: Path, tmp_path: Path) -> None:
    _check_without_torch(thousand.with_suffix(".onnx"), picture, tmp_path)


def _check_without_torch(file: Path, picture: Path, folder: Path) -> None:
    """The commands with all that they can write, and the Python interface."""
    commands = [
        ["info", str(file)],
        ["predict", str(file), str(picture), str(picture), "--pictures", str(folder / "drawn")],
        ["predict", str(file), str(picture), "--json", "--output", str(folder / "answers.jsonl")],
    ]
    output_of("commands_without_torch", json.dumps(commands))
    assert json.loads(output_of("answers_in_python", picture, file)) == Predictor(file)([picture])[0].to_dict()


def test_classes_are_told_in_the_words_that_timm_has() -> None:
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    assert list(class_names()) == info.label_names()
    assert dict(zip(class_names(), in_words(class_names()), strict=True)) == info.label_descriptions(as_dict=True)


@pytest.mark.skipif(sys.platform == "win32", reason="the processor time of a child is asked for as POSIX has it")
def test_one_picture_costs_no_more_than_starting_the_runtime(thousand: Path, picture: Path) -> None:
    words = ["-m", "hybridvit", "predict", str(thousand.with_suffix(".onnx")), str(picture)]
    seconds, peak_bytes = map(float, output_of("cost", sys.executable, *words).split())
    assert seconds < 2  # 0.5 on a quiet machine, and 5 with what is not to be imported
    assert peak_bytes < 250e6


def test_what_is_installed_is_as_new_as_the_whole_library_wants() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    lines = [_requirements(ROOT / f"requirements-{name}.txt") for name in ("light", "light-serve")]
    extras = project["optional-dependencies"]
    assert set(lines[0]) <= {*project["dependencies"], *extras["export"]}
    assert set(lines[1]) == {"-r requirements-light.txt", *extras["serve"]}
    names = [line.partition(">=")[0] for line in lines[0]]
    assert set(names) == {*light.PACKAGES, "onnxruntime"}
    said = (ROOT / "docs" / "light.md").read_text(encoding="utf-8").splitlines()
    assert f"pip install {' '.join(names)}" in said  # what is to be typed


def test_an_environment_without_torch_runs_exported_files(thousand: Path, picture: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path / "light")
    exported = str(thousand.with_suffix(".onnx"))

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [python, *words], capture_output=True, encoding="utf-8", cwd=tmp_path, env=environment, timeout=120
        )

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answered = run("-m", "hybridvit", "predict", exported, str(picture), "--json", "--threads", "1")
    expected = Predictor(exported, threads=1)([picture])[0].to_dict()
    assert json.loads(answered.stdout) == {"image": str(picture)} | expected
    refused = run("-m", "hybridvit", "predict", str(thousand), str(picture))
    assert refused.returncode == 2
    assert refused.stderr == (
        f"Error: {thousand} is no exported file, so it needs the package torch, and this installation has only what "
        "runs exported files. Run: pip install hybridvit\n"
    )
    refused = run("-m", "hybridvit", "evaluate", exported, str(picture.parent))
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "This needs the package torch" in refused.stderr
    doctor = run("-m", "hybridvit", "doctor")
    assert doctor.returncode == 0
    assert "Exported files run here, and nothing else: " in doctor.stdout
    openvino = run("-m", "hybridvit", "predict", "m.xml", str(picture))
    assert "Run: pip install openvino\n" in openvino.stderr
    program = run(str(TESTS / "programs" / "answers_in_python.py"), str(picture), exported)
    assert program.returncode == 0
    assert json.loads(program.stdout) == expected


def _environment(folder: Path) -> str:
    """A new environment as docs/light.md says; its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    python = str(folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    for words in (["-r", str(ROOT / "requirements-light.txt")], ["--no-deps", str(ROOT)]):
        done = subprocess.run([*pip, *words], capture_output=True, text=True, timeout=300)
        if done.returncode:
            missing("network", f"pip could not install {words[-1]} ({done.stderr[-300:].strip()})")
    return python


def _requirements(file: Path) -> list[str]:
    lines = (line.partition("  #")[0] for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
