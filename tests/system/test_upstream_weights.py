"""Weights by the names of Apple and timm, in and out: the same tensors, and the same logits."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from saved_models import IMAGES, assert_equal, assert_same, debug_model, randomised

import hybridvit
from hybridvit.checkpoints import load, load_weights, read_tensors, save_upstream

GOLDEN = Path(__file__).parents[1] / "golden"
_spec = importlib.util.spec_from_file_location("fill", GOLDEN / "fill.py")
golden_inputs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden_inputs)


@pytest.mark.parametrize("naming", ["apple", "timm"])
@pytest.mark.parametrize("extension", [".safetensors", ".pth.tar"])
@pytest.mark.parametrize("form", ["training", "released"])
def test_upstream_names_and_back_is_bit_equal(tmp_path: Path, form: str, extension: str, naming: str) -> None:
    model = debug_model(form)
    save_upstream(model, tmp_path / f"m{extension}", naming)  # type: ignore[arg-type]  # parametrised above
    file = read_tensors(tmp_path / f"m{extension}")
    assert file.weight_set == ("" if extension == ".safetensors" else "state_dict")
    assert any(name.startswith("patch_embed.0.") for name in file.tensors) == (naming == "apple")
    loaded = load(tmp_path / f"m{extension}")
    assert_same(loaded, model)
    assert loaded.card.form == form
    assert loaded.card.architecture == "fastvit_debug"
    assert loaded.card.options == {"num_classes": 5}
    report = load_weights(loaded, tmp_path / f"m{extension}")
    assert report.naming == naming
    assert report.num_tensors == len(model.state_dict())


@pytest.mark.parametrize("architecture", ["fastvit_t8", "fastvit_sa12"])
def test_live_timm_weights_give_timms_logits(tmp_path: Path, architecture: str) -> None:
    upstream = randomised(timm.create_model(architecture, num_classes=7)).eval()
    for extension in ("safetensors", "pth"):
        path = tmp_path / f"timm.{extension}"
        if extension == "safetensors":
            save_file(upstream.state_dict(), path)
        else:
            torch.save(upstream.state_dict(), path)
        ours = load(path)
        assert ours.card.architecture == architecture
        with torch.no_grad():
            expected, logits = upstream(IMAGES), ours(IMAGES)
        assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_reparameterised_timm_weights_give_timms_logits(tmp_path: Path) -> None:
    upstream = timm.utils.reparameterize_model(randomised(timm.create_model("fastvit_t8")).eval())
    torch.save({"state_dict": upstream.state_dict()}, tmp_path / "m.pth.tar")
    ours = load(tmp_path / "m.pth.tar")
    assert (ours.card.architecture, ours.card.form) == ("fastvit_t8", "released")
    with torch.no_grad():
        expected, logits = upstream(IMAGES), ours(IMAGES)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_our_weights_give_the_same_logits_in_timm(tmp_path: Path) -> None:
    ours = randomised(hybridvit.create_model("fastvit_t8")).eval()
    save_upstream(ours, tmp_path / "m.safetensors", "timm")
    upstream = timm.create_model("fastvit_t8").eval()
    upstream.load_state_dict(load_file(tmp_path / "m.safetensors"))
    with torch.no_grad():
        expected, logits = upstream(IMAGES), ours(IMAGES)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("key", json.loads((GOLDEN / "apple_keys.json").read_text()))
def test_apples_files_give_apples_logits(tmp_path: Path, key: str) -> None:
    shapes = json.loads((GOLDEN / "apple_keys.json").read_text())[key]
    filled = {name: golden_inputs.fill(name, tuple(shape)) for name, shape in shapes.items()}
    tensors = {name: torch.tensor(0) if value is None else torch.as_tensor(value) for name, value in filled.items()}
    torch.save({"state_dict": tensors, "epoch": 300}, tmp_path / "m.pth.tar")
    model = load(tmp_path / "m.pth.tar")
    assert model.card.architecture == f"fastvit_{key.removesuffix('_folded')}"
    assert model.card.form == ("released" if key.endswith("_folded") else "training")
    with torch.no_grad():
        logits = model(torch.from_numpy(golden_inputs.image(256, 256))).numpy()
    with np.load(GOLDEN / "apple.npz") as golden:
        expected = golden[f"{key}/logits_256"]
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    save_upstream(model, tmp_path / "back.pth.tar", "apple")
    assert_equal(read_tensors(tmp_path / "back.pth.tar").tensors, tensors)


@pytest.mark.parametrize("naming", ["apple", "timm"])
def test_published_weights_have_the_class_folders_of_imagenet(tmp_path: Path, naming: str) -> None:
    save_upstream(debug_model(num_classes=1000), tmp_path / "m.pth", naming)
    names = load(tmp_path / "m.pth").card.class_names
    assert (len(names), names[0], names[207], names[999]) == (1000, "n01440764", "n02099601", "n15075141")
    created = hybridvit.create_model("fastvit_debug", pretrained=tmp_path / "m.pth")
    assert created.card.class_names == names
    assert hybridvit.create_model("fastvit_debug", pretrained=tmp_path / "m.pth", num_classes=3).card.class_names == ()
    save_upstream(debug_model(num_classes=5), tmp_path / "five.pth", naming)
    assert load(tmp_path / "five.pth").card.class_names == ()
