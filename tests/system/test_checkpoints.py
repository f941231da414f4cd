"""Saving and loading whole models: bit equal, or refused with what does not fit."""

import errno
import json
import os
import stat
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from saved_models import FORMS, IMAGES, assert_equal, assert_same, debug_model
from torch import nn

import hybridvit
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.checkpoints import load, load_weights, read_tensors, save_checkpoint, save_upstream
from hybridvit.errors import CheckpointError, DiskFull, UsageError


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
    reason = r"cannot be unfolded, since the branches of its layers are summed in it. Create with folded"
    with pytest.raises(CheckpointError, match=rf"is folded \(inference form\); it {reason}"):
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
        ({"version": 4}, "a hybridvit checkpoint of version 4, and this release reads up to 3"),
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


OF_HEADS = ("head", "head_options", "class_facts")


@pytest.mark.parametrize(("version", "unknown"), [(1, ("task", *OF_HEADS)), (2, OF_HEADS)])
def test_a_checkpoint_of_an_older_version_is_a_classifier(tmp_path: Path, version: int, unknown: tuple[str]) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(debug_model(), path)
    file = read_tensors(path)
    entry = json.loads(file.metadata["hybridvit"])
    assert (entry["version"], entry["card"]["task"]) == (3, "classify")
    card = {key: value for key, value in entry["card"].items() if key not in unknown}
    save_file(file.tensors, path, {"hybridvit": json.dumps(entry | {"version": version, "card": card})})
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


def test_a_loaded_folded_model_lies_in_memory_as_the_saved_one(tmp_path):
    folded = hybridvit.fold(hybridvit.create_model("fastervit_debug").eval())
    hybridvit.save_checkpoint(folded, tmp_path / "folded.safetensors")
    again = hybridvit.load(tmp_path / "folded.safetensors")
    strides = {name: value.stride() for name, value in folded.state_dict().items()}
    assert {name: value.stride() for name, value in again.state_dict().items()} == strides
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(images), folded(images))
