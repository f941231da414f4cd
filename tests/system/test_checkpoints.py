"""Saving, loading and converting whole models."""

import errno
import importlib.util
import json
import os
import stat
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import hybridvit
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.checkpoints import load, load_weights, read_tensors, save_checkpoint, save_upstream
from hybridvit.errors import CheckpointError, DiskFull, UsageError
from hybridvit.models.backbone import Backbone

GOLDEN = Path(__file__).parents[1] / "golden"
_spec = importlib.util.spec_from_file_location("fill", GOLDEN / "fill.py")
golden_inputs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden_inputs)
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
FORMS = ("training", "released", "folded")


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights as after training: no scale, shift or statistic at its neutral value."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.1)
        else:
            tensor.fill_(seed + 3)
    return model


def debug_model(form: str = "training", **options: object) -> Backbone:
    torch.manual_seed(0)
    model = randomised(hybridvit.create_model("fastvit_debug", **{"num_classes": 5, **options})).eval()
    return model if form == "training" else hybridvit.fold(model, released=form == "released")


def assert_same(left: nn.Module, right: nn.Module) -> None:
    assert_equal(left.state_dict(), right.state_dict())


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left)


@pytest.mark.parametrize("form", FORMS)
def test_a_saved_model_comes_back_bit_equal_with_its_card(tmp_path: Path, form: str) -> None:
    model = debug_model(form, in_chans=1, drop_path_rate=0.1, mixers=["repmixer"] * 4)
    model.card = replace(
        model.card,
        class_names=("bee", "ant", "fly", "été", "猫"),
        preprocessing=Preprocessing(image_size=(32, 48), interpolation="bilinear", mean=(0.5,), std=(0.25,)),
        source="a test",
        licence="Apache-2.0",
    )
    save_checkpoint(model, tmp_path / "m.safetensors")
    loaded = load(str(tmp_path / "m.safetensors"))
    assert loaded.card == model.card
    assert loaded.card.form == form
    assert not loaded.training
    assert type(loaded) is type(model)
    assert_same(loaded, model)
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in model.parameters()]
    torch.testing.assert_close(loaded(IMAGES[:, :1]), model(IMAGES[:, :1]), rtol=0, atol=0)


def test_equal_models_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_checkpoint(debug_model(), tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_classifier_of_now_is_saved_not_the_one_of_creation(tmp_path: Path) -> None:
    model = debug_model()
    model.reset_classifier(3)
    save_checkpoint(model, tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors")(IMAGES).shape == (2, 3)
    model.reset_classifier(0, "")
    save_checkpoint(model, tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors")(IMAGES).shape == (2, 64, 2, 3)


def test_layout_precision_and_wrappers_do_not_change_the_file(tmp_path: Path) -> None:
    model = debug_model().half()
    save_checkpoint(model, tmp_path / "plain.safetensors")
    wrapped = nn.DataParallel(model.to(memory_format=torch.channels_last))
    save_checkpoint(wrapped, tmp_path / "wrapped.safetensors")
    assert (tmp_path / "plain.safetensors").read_bytes() == (tmp_path / "wrapped.safetensors").read_bytes()
    assert_same(load(tmp_path / "plain.safetensors"), model)


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


# ---- what does not fit


def test_another_variant_is_recognised(tmp_path: Path) -> None:
    ours = hybridvit.create_model("fastvit_t12")
    save_upstream(ours, tmp_path / "m.safetensors", "apple")
    model = debug_model(num_classes=1000)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, tmp_path / "m.safetensors")
    count = len(ours.state_dict())
    assert f"It looks like fastvit_t12 ({count}/{count} keys), you asked for fastvit_debug" in str(caught.value)
    assert "\n  - stem.0.conv.kxk.conv.weight (4, 3, 3, 3)" in str(caught.value)
    assert "\n  + stem.0.conv.kxk.conv.weight (64, 3, 3, 3)" in str(caught.value)
    assert str(caught.value).count("\n") <= 13
    assert " more" in str(caught.value).splitlines()[-1]
    assert_equal(model.state_dict(), before)
    with pytest.raises(CheckpointError, match=r"It looks like fastvit_t12 .* you asked for fastvit_s12"):
        load(tmp_path / "m.safetensors", architecture="fastvit_s12")
    assert load(tmp_path / "m.safetensors").card.architecture == "fastvit_t12"


def test_a_missing_and_an_additional_tensor_are_listed() -> None:
    model = debug_model()
    tensors = dict(model.state_dict())
    tensors["head.fc.extra"] = tensors.pop("head.fc.bias")
    with pytest.raises(CheckpointError, match=r"(?s)- head\.fc\.bias \(5,\).*\+ head\.fc\.extra \(5,\)"):
        load_weights(model, tensors)


def test_integers_in_place_of_floats_are_refused() -> None:
    model = debug_model()
    tensors = model.state_dict()
    tensors["head.fc.bias"] = torch.ones(5, dtype=torch.int64)
    with pytest.raises(CheckpointError, match=r"'head\.fc\.bias' holds torch\.int64, but the model has torch\.float32"):
        load_weights(model, tensors)


@pytest.mark.parametrize("form", ["released", "folded"])
def test_a_folded_file_does_not_load_into_an_unfolded_model(tmp_path: Path, form: str) -> None:
    save_checkpoint(debug_model(form), tmp_path / "m.safetensors")
    with pytest.raises(
        CheckpointError, match=r"is folded \(inference form\); it cannot be unfolded. Create with folded"
    ):
        load_weights(debug_model(), tmp_path / "m.safetensors")
    save_checkpoint(debug_model(), tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=rf"is in training form and the model in {form} form"):
        load_weights(debug_model(form), tmp_path / "m.safetensors")


def test_the_head_is_reset_only_when_asked(tmp_path: Path) -> None:
    trained = debug_model()
    save_checkpoint(trained, tmp_path / "m.safetensors")
    model = hybridvit.create_model("fastvit_debug", num_classes=9)
    head = model.head.fc.weight.clone()
    with pytest.raises(CheckpointError, match=r"has 5 classes, the model 9. Pass reset_head=True"):
        load_weights(model, tmp_path / "m.safetensors")
    report = load_weights(model, tmp_path / "m.safetensors", reset_head=True)
    assert report.reset == ("head.fc.weight", "head.fc.bias")
    assert report.card == trained.card
    assert torch.equal(model.head.fc.weight, head)
    assert_equal(
        {name: value for name, value in model.state_dict().items() if not name.startswith("head")},
        {name: value for name, value in trained.state_dict().items() if not name.startswith("head")},
    )
    headless = hybridvit.create_model("fastvit_debug", num_classes=0)
    assert load_weights(headless, tmp_path / "m.safetensors", reset_head=True).reset == ()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", [1, 2, 4, 6, 7])
def test_the_stem_is_adapted_only_when_asked(channels: int, form: str) -> None:
    trained, model = debug_model(form), debug_model(form, in_chans=channels)
    with pytest.raises(CheckpointError, match=f"takes 3 input channels, the model {channels}. Pass adapt_input=True"):
        load_weights(model, trained.state_dict())
    report = load_weights(model, trained.state_dict(), adapt_input=True)
    training = ("stem.0.conv.kxk.conv.weight", "stem.0.conv.scale.conv.weight")
    assert report.adapted == (training if form == "training" else ("stem.0.conv.weight",))
    if channels in (1, 6):  # one colour in all channels gives the same answer
        grey = IMAGES[:, :1]
        answer = trained(grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(model(grey.expand(-1, channels, -1, -1)), answer, rtol=1e-4, atol=1e-5)


# ---- what cannot be saved, or not any more be read


def test_a_changed_model_is_not_saved(tmp_path: Path) -> None:
    model = debug_model()
    model.stages[0].blocks[0].ffn.expand = nn.Conv2d(8, 16, 1, bias=False)
    with pytest.raises(UsageError, match="not the training form of fastvit_debug that its card describes"):
        save_checkpoint(model, tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="A Linear is not a whole model of this library"):
        save_checkpoint(nn.Linear(2, 2), tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match=r"ends in '.pth', but checkpoints are safetensors: name it m.safetensors"):
        save_checkpoint(debug_model(), tmp_path / "m.pth")
    with pytest.raises(UsageError, match="does not exist"):
        save_checkpoint(debug_model(), tmp_path / "absent" / "m.safetensors")
    with pytest.raises(UsageError, match="naming is 'torch', but must be one of 'apple', 'timm', 'nvidia'"):
        save_upstream(debug_model(), tmp_path / "m.pth", "torch")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(UsageError, match="must end in"):
        save_upstream(debug_model(), tmp_path / "m.onnx", "timm")
    assert list(tmp_path.iterdir()) == []


def test_a_diverged_model_is_not_saved(tmp_path: Path) -> None:
    model = debug_model()
    model.head.fc.bias.data[2] = float("nan")
    with pytest.raises(
        CheckpointError, match=r"'head\.fc\.bias' has NaN or infinite values, so the model was not saved"
    ):
        save_checkpoint(model, tmp_path / "m.safetensors")


def test_one_flipped_bit_in_the_weights_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(debug_model(), path)
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="the SHA-256 of its tensors is not the one recorded"):
        load(path)
    model = hybridvit.create_model("fastvit_debug", num_classes=5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="the SHA-256 of its tensors is not the one recorded"):
        load_weights(model, path)
    assert_equal(model.state_dict(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, "a hybridvit checkpoint of version 3, and this release reads up to 2"),
        ({"card": {"architecture": "fastvit_x99"}}, "cannot build the 'fastvit_x99'"),
        ({"card": {"options": {"num_clases": 3}}}, "'num_clases' is no option"),
        ({"card": {"options": {"num_classes": "many"}}}, "cannot build the 'fastvit_debug'"),
        ({"card": {"options": {"depths": [10**9, 1, 1, 1]}}}, "more than it has tensors"),
        ({"card": {"options": {"num_classes": 6}}}, "does not fit"),
        ({"card": {"form": "melted"}}, "its model card is damaged"),
        ({"card": {"class_names": 3}}, "its model card is damaged"),
        ({"card": {"colour": "red"}}, "its model card is damaged"),
        ({"card": {"preprocessing": {"size": 3}}}, "its model card is damaged"),
        ({"card": {"preprocessing": {"image_size": [0, 32]}}}, "image_size cannot be (0, 32)"),
        ({"card": {"preprocessing": {"crop_fraction": "all"}}}, "crop_fraction cannot be all"),
        ({"card": {"preprocessing": {"interpolation": "magic"}}}, "interpolation cannot be magic"),
        ({"card": {"preprocessing": {"std": [0, 1, 1]}}}, "std cannot be (0, 1, 1)"),
        ({"card": {"preprocessing": {"mean": "grey"}}}, "mean cannot be grey"),
        ({"card": None}, "its model card is damaged"),
    ],
)
def test_a_wrong_card_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(debug_model(), path)
    file = read_tensors(path)
    entry = json.loads(file.metadata["hybridvit"])
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(value.get("preprocessing"), dict):
            value = {"preprocessing": entry[key]["preprocessing"] | value["preprocessing"]}
        entry[key] = entry[key] | value if isinstance(value, dict) else value
    save_file(file.tensors, path, {"hybridvit": json.dumps(entry)})
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_checkpoint_of_version_1_whose_card_names_no_task_is_a_classifier(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(debug_model(), path)
    file = read_tensors(path)
    entry = json.loads(file.metadata["hybridvit"])
    assert (entry["version"], entry["card"].pop("task")) == (2, "classify")
    save_file(file.tensors, path, {"hybridvit": json.dumps(entry | {"version": 1})})
    assert load(path).card == debug_model().card


@pytest.mark.parametrize(
    ("place", "step", "number"),
    [(Path, "write_bytes", errno.ENOSPC), (os, "fsync", errno.EIO), (os, "replace", errno.EDQUOT)],
)
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: object, step: str, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    path, upstream = tmp_path / "m.safetensors", tmp_path / "m.pth"
    save_checkpoint(debug_model(), path)
    save_upstream(debug_model(), upstream, "apple")
    old, old_upstream = path.read_bytes(), upstream.read_bytes()
    monkeypatch.setattr(place, step, refuse)
    with pytest.raises(DiskFull, match=os.strerror(number)):
        save_checkpoint(debug_model("folded"), path)
    with pytest.raises(DiskFull, match="what stood there before is untouched"):
        save_upstream(debug_model("released"), upstream, "apple")
    monkeypatch.undo()
    assert path.read_bytes() == old
    assert upstream.read_bytes() == old_upstream
    assert sorted(item.name for item in tmp_path.iterdir()) == ["m.pth", "m.safetensors"]


def test_file_modes_and_links_are_kept(tmp_path: Path) -> None:
    path, link = tmp_path / "m.safetensors", tmp_path / "link.safetensors"
    umask = os.umask(0o027)
    try:
        save_checkpoint(debug_model(), path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(umask)
    path.chmod(0o604)
    link.symlink_to(path)
    save_checkpoint(debug_model("folded"), link)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert load(path).card.form == "folded"


def test_a_card_is_the_same_after_a_trip_through_json() -> None:
    card = replace(debug_model(depths=(1, 2, 1, 1)).card, class_names=("a", "b"), form="folded", licence="none")
    assert ModelCard.from_dict(json.loads(json.dumps(asdict(card)))) == card


def test_class_names_of_another_classifier_are_not_saved(tmp_path: Path) -> None:
    model = debug_model()
    model.card = replace(model.card, class_names=tuple("abcde"))
    save_checkpoint(model, tmp_path / "five.safetensors")
    model.reset_classifier(3)
    save_checkpoint(model, tmp_path / "three.safetensors")
    assert load(tmp_path / "five.safetensors").card.class_names == tuple("abcde")
    assert load(tmp_path / "three.safetensors").card.class_names == ()


def test_a_model_that_takes_raw_pixels_is_refused_with_the_way_round_it(tmp_path: Path) -> None:
    raw = hybridvit.fold_preprocessing(debug_model("folded"))
    with pytest.raises(UsageError, match=r"normalisation is folded into .* call fold_preprocessing again after load"):
        save_checkpoint(raw, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


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


def test_a_loaded_folded_model_lies_in_memory_as_the_saved_one(tmp_path):
    folded = hybridvit.fold(hybridvit.create_model("fastervit_debug").eval())
    hybridvit.save_checkpoint(folded, tmp_path / "folded.safetensors")
    again = hybridvit.load(tmp_path / "folded.safetensors")
    strides = {name: value.stride() for name, value in folded.state_dict().items()}
    assert {name: value.stride() for name, value in again.state_dict().items()} == strides
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(images), folded(images))
