"""Models with a head of their own: created, saved, loaded, folded and started like all others, on any backbone."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import relative_error, trained_like
from safetensors.torch import save_file
from timm.optim import param_groups_layer_decay

import hybridvit
from hybridvit.build import with_head_options
from hybridvit.errors import CheckpointError, UnknownOptionError, UsageError
from hybridvit.models.with_head import WithHead
from hybridvit.task import TASKS


@pytest.fixture(autouse=True)
def _headed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "headed", "headed_task:Headed")
        yield


def headed(name: str = "fastvit_debug", **options: Any) -> WithHead:
    model = hybridvit.create_model(name, task="headed", **options)
    assert isinstance(model, WithHead)
    return model


def test_what_was_asked_for_is_on_the_card() -> None:
    model = headed(head="other", head_options={"channels": 4, "strides": [16]}, num_classes=3, image_size=96)
    card = model.card
    assert (card.task, card.head, card.architecture) == ("headed", "other", "fastvit_debug")
    assert card.head_options == {"channels": 4, "strides": (16,)}
    assert card.options == {"num_classes": 3}
    assert (card.preprocessing.crop_mode, card.preprocessing.image_size) == ("fit", (96, 96))
    assert model(torch.randn(2, 3, 65, 98)).shape == (2, 3)
    assert list(model.features(torch.randn(1, 3, 65, 98))) == ["stride_4", "stride_8", "stride_16", "stride_32"]
    assert headed().card.head == "mean"
    assert headed().num_classes == 7


@pytest.mark.parametrize("name", ["fastvit_debug", "fastervit_debug", "swin_debug_hat", "resnet10t", "swin_test"])
def test_it_is_saved_loaded_and_folded_on_any_backbone(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {}
    if name == "swin_test":  # a timm model of fixed positions, and constants that no file holds
        name = "swin_tiny_patch4_window7_224"
        options = {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 1, 1, 1)}
    model = trained_like(headed(name, num_classes=3, drop_path_rate=0.1, **options))
    folded = hybridvit.fold(model)
    for form in (model, folded):
        hybridvit.save_checkpoint(form, tmp_path / "model.safetensors")
        again: Any = hybridvit.load(tmp_path / "model.safetensors")
        assert again.card == form.card
        images = torch.randn(2, 3, 130, 161)
        assert torch.equal(again(images), form(images))
        assert relative_error(form(images), model(images)) < 1e-5
    assert folded.card.form == folded.pyramid.card.form == "folded"
    report = hybridvit.fold_report(model, folded)
    assert report.max_error < 1e-5
    assert bool(report.left) == (name not in ("fastvit_debug", "fastervit_debug"))


def test_positions_of_a_backbone_are_made_constants_with_the_card_saying_so(tmp_path: Path) -> None:
    model = trained_like(headed("fastervit_debug"))
    fixed = hybridvit.fold(model, image_size=(128, 160))
    assert fixed.card.fixed_size == (128, 160)
    images = torch.randn(1, 3, 128, 160)
    assert relative_error(fixed(images), model(images)) < 1e-5
    hybridvit.save_checkpoint(fixed, tmp_path / "fixed.safetensors")
    again: Any = hybridvit.load(tmp_path / "fixed.safetensors")
    assert torch.equal(again(images), fixed(images))
    with pytest.raises(UsageError, match=r"Image is 64x64 pixels, but the positions of this fastervit_debug"):
        again(torch.randn(1, 3, 64, 64))


def test_it_begins_with_the_weights_of_a_backbone(tmp_path: Path) -> None:
    whole = hybridvit.create_model("fastvit_debug", num_classes=5)
    hybridvit.save_checkpoint(whole, tmp_path / "classifier.safetensors")
    model = headed(pretrained=tmp_path / "classifier.safetensors", in_chans=1)
    own = model.state_dict()
    same = [
        torch.equal(own[f"pyramid.backbone.{name}"], value)
        for name, value in whole.state_dict().items()
        if "s.1" in name
    ]
    assert len(same) > 10
    assert all(same)
    assert model.card.source == f"backbone: {tmp_path / 'classifier.safetensors'}"
    assert model.card.preprocessing.crop_mode == "fit"


def test_it_begins_with_the_weights_of_a_model_like_itself(tmp_path: Path) -> None:
    first = headed(num_classes=3)
    hybridvit.save_checkpoint(first, tmp_path / "first.safetensors")
    same, other = (headed(num_classes=num, pretrained=tmp_path / "first.safetensors") for num in (3, 4))
    for name, value in first.state_dict().items():
        assert torch.equal(same.state_dict()[name], value)
        assert name in first.classifier or torch.equal(other.state_dict()[name], value)
    assert first.classifier == ("head.classes.weight", "head.classes.bias")
    assert first.card.preprocessing == same.card.preprocessing
    with pytest.raises(UsageError, match=r"holds a mean of the task 'headed', not a other of 'headed'. Give weights"):
        headed(head="other", pretrained=tmp_path / "first.safetensors")


def test_it_begins_with_the_weights_of_a_timm_model_that_fit(tmp_path: Path) -> None:
    whole = timm.create_model("resnet10t", num_classes=4)
    save_file(whole.state_dict(), tmp_path / "timm.safetensors")
    model = headed("resnet10t", pretrained=tmp_path / "timm.safetensors")
    assert torch.equal(model.state_dict()["pyramid.maps.layer2.0.conv1.weight"], whole.layer2[0].conv1.weight)
    del whole.layer2[0].conv1
    save_file(whole.state_dict(), tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit resnet10t: .*layer2.0.conv1.weight"):
        headed("resnet10t", pretrained=tmp_path / "part.safetensors")
    with pytest.raises(UsageError, match=r"No weights 'a1_in1k' for resnet10t: it is no existing file. Tags of timm"):
        headed("resnet10t", pretrained="a1_in1k")


@pytest.mark.parametrize("name", ["fastvit_debug", "resnet10t"])
def test_layers_are_decayed_from_the_head_down(name: str) -> None:
    model = headed(name)
    groups = param_groups_layer_decay(model, 0.05, layer_decay=0.5)
    scale = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    found = {key: scale[id(parameter)] for key, parameter in model.named_parameters()}
    assert {value for key, value in found.items() if key.startswith("head.")} == {1.0}
    backbone = [value for key, value in found.items() if not key.startswith("head.")]
    assert max(backbone) < 1
    assert backbone == sorted(backbone)


def test_what_cannot_be_is_refused(unchecked: None) -> None:
    with pytest.raises(UsageError, match=r"head is 'maen', which the task 'headed' does not have. Nearest: 'mean'"):
        headed(head="maen")
    with pytest.raises(UnknownOptionError, match=r"'chanels' is no option of the head mean. Nearest: 'channels'"):
        headed(head_options={"chanels": 3})
    with pytest.raises(UsageError, match=r"mean's channels is 'many', but it must be a whole number. Correct it"):
        headed(head_options={"channels": "many"})
    with pytest.raises(UsageError, match=r"num_classes is 0, but must be a whole number from 1"):
        headed(num_classes=0)
    with pytest.raises(UsageError, match=re.escape("head is 'mean', but models of the task 'classify' answer with")):
        hybridvit.create_model("fastervit_debug", head="mean")
    with pytest.raises(UsageError, match=r"features_only leaves the head out, and the task 'headed' is learnt by one"):
        headed(features_only=True)
    with pytest.raises(UsageError, match=r"drop_rate belongs to the classifier of fastvit_debug"):
        headed(drop_rate=0.5)
    with pytest.raises(UsageError, match=r"Unknown backbone 'fastvit_debgu'. Nearest: 'fastvit_debug'"):
        headed("fastvit_debgu")
    with pytest.raises(UsageError, match=r"vit_tiny_patch16_224 gives maps of stride 16, but heads read strides 4, 8"):
        headed("vit_tiny_patch16_224")
    with pytest.raises(UnknownOptionError, match=r"timm's resnet10t cannot be made with the options in_chans, width: "):
        headed("resnet10t", width=3)
    with pytest.raises(UsageError, match=r"checkpoint_path is no option of a backbone: weights are chosen by"):
        headed("resnet10t", checkpoint_path="/some/file.pth")
    with pytest.raises(UsageError, match=r"Input has 3 channels of 16x64 pixels, but this resnet10t takes 3"):
        headed("resnet10t")(torch.randn(1, 3, 16, 64))


def test_options_of_a_head_that_change_no_weights_can_be_others_than_it_was_trained_with() -> None:
    options = {"pyramid_channels": 8, "conv_channels": 8, "fc_width": 8, "proposals": 20}
    model = hybridvit.create_model(
        "fastvit_debug", task="detect", head="faster_rcnn", num_classes=3, head_options=options, image_size=64
    ).eval()
    other = with_head_options(model, {"proposals": 5, "detections": 7})
    assert other.card.head_options == options | {"proposals": 5, "detections": 7}
    assert other.card.preprocessing == model.card.preprocessing
    assert all(torch.equal(values, model.state_dict()[name]) for name, values in other.state_dict().items())
    assert other(torch.randn(1, 3, 64, 64))["scores"].shape == (1, 7)
    with pytest.raises(UsageError, match=r"head_options \{'fc_width': 16\} change the weights of the head faster_rcnn"):
        with_head_options(model, {"fc_width": 16})
    with pytest.raises(UsageError, match="the model is folded, and its head cannot be built anew"):
        with_head_options(hybridvit.fold(model), {"proposals": 5})
