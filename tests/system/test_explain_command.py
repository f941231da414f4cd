"""`hybridvit explain`: a page that needs nothing else, numbers beside it, and refusals before anything is written."""

import json

import numpy as np
import pytest
from conftest import trained_like
from PIL import Image

import hybridvit
from hybridvit.checkpoints import save_checkpoint
from hybridvit.cli.main import main


@pytest.fixture
def files(tmp_path):
    model = trained_like(hybridvit.create_model("fastervit_debug", num_classes=3, image_size=64))
    save_checkpoint(model, tmp_path / "model.safetensors")
    pixels = np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "<b>.png")
    return str(tmp_path / "model.safetensors"), str(tmp_path / "<b>.png"), tmp_path / "why"


def test_all_drawings_are_on_one_page_and_their_numbers_beside_it(files, capsys):
    model, picture, folder = files
    words = ["--draw", "cam", "attention", "positions", "erf", "--check", "--label", "0,2", "--json"]
    assert main(["explain", model, picture, *words, "--output", str(folder)]) == 0
    told = json.loads(capsys.readouterr().out)
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == len(list(folder.glob("*.png"))) == len(list(folder.glob("*.npz")))
    assert "http" not in page
    assert "<b>.png" not in page
    assert "Rank correlation" in told["captions"]["cam"]
    with np.load(folder / "0-cam.npz") as numbers:
        assert np.isfinite(numbers["map"]).all()
    assert any("embedding" in name for name in told["captions"])


def test_the_matrix_of_one_window_is_not_the_mean_of_all(files, capsys):
    model, picture, folder = files
    matrices = []
    for words in ([], ["--window", "0"]):
        assert main(["explain", model, picture, "--draw", "attention", *words, "--output", str(folder)]) == 0
        with np.load(next(folder.glob("*attention-matrix*.npz"))) as numbers:
            matrices.append(next(iter(numbers.values())))
    assert "Inside window 0" in capsys.readouterr().out
    assert np.abs(matrices[0] - matrices[1]).max() > 1e-4


def test_two_models_are_drawn_side_by_side(tmp_path, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "one.png")
    paths = [str(tmp_path / name) for name in ("small.safetensors", "large.safetensors")]
    for path, kernel in zip(paths, (3, 7), strict=True):
        save_checkpoint(trained_like(hybridvit.create_model("fastvit_debug", num_classes=3, ffn_kernel=kernel)), path)
    folder = tmp_path / "why"
    words = ["explain", paths[0], str(tmp_path / "one.png"), "--draw", "erf", "kernels", "--output", str(folder)]
    assert main(words) == 0
    with Image.open(folder / "0-erf.png") as drawn:
        alone = drawn.size
    assert main([*words, "--beside", paths[1], "--json"]) == 0
    captions = json.loads(capsys.readouterr().out.splitlines()[-1])["captions"]
    assert captions["erf"].startswith("Left, small.safetensors: What the centre")
    assert " Right, large.safetensors: What the centre" in captions["erf"]
    with Image.open(folder / "0-erf.png") as drawn:
        assert drawn.size == (2 * alone[0] + 24, alone[1])
    with np.load(folder / "0-erf.npz") as numbers:
        assert not np.array_equal(numbers["gradient"], numbers["beside_gradient"])
    assert any(name.startswith("kernels-") and "Right, large" in caption for name, caption in captions.items())
    assert "--beside" in (folder / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--beside", "other.safetensors"], "--beside is for receptive fields and kernels"),
        (["--draw", "erf", "--beside", "other.onnx"], "other.onnx is an exported file"),
        (["--draw", "kernels", "attention", "--block", "9"], "--block is 9"),
        (["--draw", "attention", "--query", "99,1"], "--query is 99,1"),
        (["--draw", "attention", "--query", "1"], "row,column"),
        (["--query", "1,1"], "--query is for attention, but --draw is cam. Add attention to it"),
        (["--head", "1"], "--head is for attention, but --draw is cam"),
        (["--draw", "kernels", "--stage", "2"], "--stage is for cam and erf, but --draw is kernels. Add cam or erf"),
        (["--draw", "erf", "--method", "layer"], "--method is for cam"),
        (["--label", "zebra"], "no such class"),
        (["--draw", "erf", "--check"], "--check is for cam, but --draw is erf"),
        (["--stage", "7"], "has 4"),
        (["--draw", "attention", "--window", "99"], "The window is 99"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_nothing_written(files, capsys, words, message):
    model, picture, folder = files
    assert main(["explain", model, picture, *words, "--output", str(folder)]) == 2
    assert message in capsys.readouterr().err
    assert not folder.exists()


def test_an_exported_file_is_refused_with_the_reason(capsys):
    assert main(["explain", "model.onnx", "picture.png"]) == 2
    assert "no gradients and no inner values" in capsys.readouterr().err
