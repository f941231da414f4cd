"""The models inside other libraries: timm, segmentation_models_pytorch, torchvision, transformers."""

import json
import math
from collections import OrderedDict

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from conftest import first_of_each_kind, relative_error, trained_like
from timm.optim import param_groups_layer_decay
from timm.utils import reparameterize_model
from torch import nn
from transformers import TimmBackbone, TimmBackboneConfig

import hybridvit
from hybridvit.errors import UsageError
from hybridvit.models.registry import find_variant

NAMES = [f"hybridvit_{name}" for name in hybridvit.list_models()]
DEBUG = "hybridvit_fastvit_debug"
DEBUGS = (DEBUG, "hybridvit_fastervit_debug")
FROM_TIMM = pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")


def shallow(name):
    """Depths of one block in each stage."""
    return (1,) * len(find_variant(name).config.depths)


def test_timm_lists_our_names_beside_its_own():
    assert set(NAMES) <= set(timm.list_models("hybridvit_*"))
    assert timm.create_model("fastvit_t8").__class__.__module__ == "timm.models.fastvit"
    assert "hybridvit_fastvit_t8.apple_dist_in1k" in timm.list_models("hybridvit_*", pretrained=True)


@pytest.mark.parametrize("name", first_of_each_kind())
def test_timms_conformance_list(name):
    with torch.device("meta"):
        model = timm.create_model(f"hybridvit_{name}", depths=shallow(name)).eval()
        cfg = model.default_cfg
        images = torch.empty(1, *cfg["input_size"])
        fmap = model.forward_features(images)
        assert fmap.shape[1:] == (model.num_features, *cfg["pool_size"])
        assert model.forward_head(fmap, pre_logits=True).shape == (1, model.head_hidden_size)
        assert model(images).shape == (1, model.num_classes) == (1, cfg["num_classes"])
        names = model.state_dict()
        for layer in (cfg["classifier"], *cfg["first_conv"]):
            assert f"{layer}.weight" in names
        assert model.get_classifier() is model.head.fc
        model.reset_classifier(0)
        assert model(images).shape == (1, model.head_hidden_size)
        model.reset_classifier(0, "")
        assert model(images).shape == fmap.shape
        model.reset_classifier(7, "avg")
        assert model(images).shape == (1, 7)
        unpooled = timm.create_model(f"hybridvit_{name}", depths=shallow(name), num_classes=0, global_pool="").eval()
        assert unpooled(images).shape == fmap.shape
        unpooled.reset_classifier(7)  # which needs a pooled vector
        assert unpooled(images).shape == (1, 7)


@pytest.mark.parametrize("name", DEBUGS)
def test_timm_places_our_models_and_refuses_unknown_options_as_its_own(name):
    model = timm.create_model(name, device="meta", dtype=torch.bfloat16)
    assert {(weight.device.type, weight.dtype) for weight in model.parameters()} == {("meta", torch.bfloat16)}
    pyramid = timm.create_model(name, features_only=True, dtype=torch.float64)
    assert all(weight.dtype == torch.float64 for weight in pyramid.parameters())
    with pytest.raises(TypeError, match="'not_an_option' is no option of"):
        timm.create_model(name, not_an_option=1)


@pytest.mark.parametrize("name", first_of_each_kind())
def test_timms_feature_pyramid(name):
    with torch.device("meta"):
        options = {"in_chans": 1, "depths": shallow(name)}
        pyramid = timm.create_model(f"hybridvit_{name}", features_only=True, **options).eval()
        maps = pyramid(torch.empty(1, 1, 96, 160))
        model = timm.create_model(f"hybridvit_{name}")
    assert pyramid.feature_info.reduction() == [4 * 2**stage for stage in range(len(shallow(name)))]
    assert [fmap.shape[1] for fmap in maps] == pyramid.feature_info.channels()
    assert [info["module"] for info in model.feature_info] == [f"stages.{index}" for index in range(len(shallow(name)))]
    for info, fmap in zip(model.feature_info, maps, strict=True):
        assert fmap.shape[-1] == math.ceil(160 / info["reduction"])


@pytest.mark.parametrize("indices", [None, 2, [0, 3], [-1], (1,)])
def test_forward_intermediates_agrees_with_the_forward_pass(indices, any_debug_model):
    images = torch.randn(1, 3, 33, 64)
    final, maps = any_debug_model.forward_intermediates(images, indices)
    everything = list(any_debug_model.features(images).values())
    chosen = {None: everything, 2: everything[2:]}.get(indices if not isinstance(indices, list | tuple) else ...)
    chosen = [everything[index] for index in indices] if chosen is None else chosen
    assert all(torch.equal(fmap, expected) for fmap, expected in zip(maps, chosen, strict=True))
    assert torch.equal(final, any_debug_model.forward_features(images))
    only = any_debug_model.forward_intermediates(images, indices, intermediates_only=True, stop_early=True)
    assert all(torch.equal(fmap, expected) for fmap, expected in zip(only, maps, strict=True))


def test_stopping_early_gives_the_map_of_the_last_stage_that_ran(any_debug_model):
    images = torch.randn(1, 3, 33, 64)
    final, maps = any_debug_model.forward_intermediates(images, [1], stop_early=True)
    assert torch.equal(final, maps[0])
    assert torch.equal(final, any_debug_model.features(images)["stride_8"])


@pytest.mark.usefixtures("unchecked")
def test_a_new_classifier_is_where_and_as_the_old_one_was(debug_model):
    model = hybridvit.create_model("fastvit_debug", drop_rate=0.5).eval().double()
    model.reset_classifier(4)
    images = torch.randn(1, 3, 33, 64, dtype=torch.float64)
    assert torch.equal(model(images), model(images))
    model.to("meta").reset_classifier(6)
    assert model.head.fc.weight.device.type == "meta"
    with pytest.raises(UsageError, match="global_pool is 'bogus'"):
        debug_model.reset_classifier(5, "bogus")
    with pytest.raises(UsageError, match="needs a pooled vector, but global_pool is ''"):
        debug_model.reset_classifier(5, "")
    assert debug_model.num_classes == debug_model(torch.randn(1, 3, 32, 32)).shape[1] == 10


def test_timm_knows_the_settings_of_models_it_did_not_create(tmp_path):
    model = hybridvit.create_model("fastvit_sa36", num_classes=6)
    config = timm.data.resolve_model_data_config(model)
    assert (config["input_size"], config["crop_pct"]) == ((3, 256, 256), 0.95)
    model = hybridvit.create_model("fastvit_debug", num_classes=6)
    timm.models.save_for_hf(model, tmp_path)
    assert timm.create_model(f"local-dir:{tmp_path}", pretrained=True).num_classes == 6


def test_weights_loaded_by_timm_are_named_on_the_card(tmp_path):
    hybridvit.save_checkpoint(hybridvit.create_model("fastvit_t8"), tmp_path / "t8.safetensors")
    overlay = {"file": str(tmp_path / "t8.safetensors"), "mean": (0.5, 0.5, 0.5)}
    model = timm.create_model("hybridvit_fastvit_t8", pretrained=True, pretrained_cfg_overlay=overlay)
    assert model.card.source == overlay["file"]
    assert "Apple" in model.card.licence
    assert model.card.preprocessing.mean == (0.5, 0.5, 0.5)


@pytest.mark.usefixtures("unchecked")
def test_wrong_indices_and_formats_are_refused(debug_model):
    with pytest.raises(UsageError, match="Stage indices are \\[4\\], but there are 4 stages"):
        debug_model.forward_intermediates(torch.zeros(1, 3, 32, 32), [4])
    with pytest.raises(UsageError, match="output_fmt is 'NLC'"):
        debug_model.forward_intermediates(torch.zeros(1, 3, 32, 32), output_fmt="NLC")


def test_pruning_keeps_the_maps_that_remain(any_debug_model):
    images = torch.randn(1, 3, 33, 64)
    expected = list(any_debug_model.features(images).values())
    assert any_debug_model.prune_intermediate_layers([0, 2]) == [0, 2]
    maps = any_debug_model.forward_intermediates(images, [0, 2], intermediates_only=True)
    assert all(torch.equal(fmap, expected[index]) for fmap, index in zip(maps, (0, 2), strict=True))
    assert list(any_debug_model.features(images)) == ["stride_4", "stride_8", "stride_16"]
    assert any_debug_model.get_classifier().__class__ is nn.Identity


def test_layer_decay_orders_the_layers(any_debug_model):
    groups = param_groups_layer_decay(any_debug_model, weight_decay=0.05, layer_decay=0.5)
    scales = {group["lr_scale"] for group in groups}
    assert len(scales) >= 6
    parameters = sum(parameter.numel() for group in groups for parameter in group["params"])
    assert parameters == sum(parameter.numel() for parameter in any_debug_model.parameters())
    assert isinstance(any_debug_model.no_weight_decay(), set)


def test_timm_folds_it_too(any_debug_model):
    images = torch.randn(1, 3, 33, 64)
    with torch.no_grad():
        expected = any_debug_model(images)
    folded = reparameterize_model(any_debug_model)
    assert relative_error(folded(images), expected) < 1e-5
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


@pytest.mark.parametrize("name", DEBUGS)
def test_a_hub_folder_goes_round(name, tmp_path):
    model = trained_like(timm.create_model(name, num_classes=6))
    timm.models.save_for_hf(model, tmp_path, model_config={"label_names": list("abcdef")})
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == name
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(images), model(images))
    adapted = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=7, in_chans=1).eval()
    grey = torch.randn(1, 1, 64, 64)
    assert adapted(grey).shape == (1, 7)
    assert relative_error(adapted.forward_features(grey), model.forward_features(grey.expand(1, 3, 64, 64))) < 1e-5


@pytest.mark.parametrize("name", DEBUGS)
def test_inside_segmentation_models(name):
    unet = smp.Unet(f"tu-{name}", encoder_weights=None, classes=2, encoder_depth=5)
    assert unet.encoder.out_channels == [3, 0, 4, 8, 16, 32]
    assert unet.encoder.output_stride == 32
    trained_like(unet)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = unet(images)
    assert expected.shape == (1, 2, 64, 96)
    folded = hybridvit.fold(unet)
    assert relative_error(folded(images), expected) < 1e-5
    assert not any("encoder" in name and isinstance(m, nn.BatchNorm2d) for name, m in folded.named_modules())


class PyramidBackbone(nn.Module):
    """What torchvision's detectors take as a backbone."""

    out_channels = 64

    def __init__(self, name: str) -> None:
        super().__init__()
        self.body = hybridvit.create_model(name, features_only=True)
        self.neck = torchvision.ops.FeaturePyramidNetwork(
            self.body.channels,
            self.out_channels,
            extra_blocks=torchvision.ops.feature_pyramid_network.LastLevelMaxPool(),
        )

    def forward(self, images):
        return self.neck(OrderedDict((str(index), fmap) for index, fmap in enumerate(self.body(images))))


@pytest.mark.parametrize("name", ["fastvit_debug", "fastervit_debug"])
def test_inside_torchvisions_detectors(name):
    sizes = tuple((size,) for size in (8, 16, 32, 64, 128))
    detector = torchvision.models.detection.FasterRCNN(
        PyramidBackbone(name),
        num_classes=3,
        min_size=64,
        max_size=96,
        rpn_anchor_generator=torchvision.models.detection.anchor_utils.AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5),
    )
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    losses = detector([torch.rand(3, 64, 80)] * 2, [target] * 2)
    sum(losses.values()).backward()
    assert next(detector.backbone.body.parameters()).grad.abs().sum() > 0
    found = hybridvit.fold(detector.eval())([torch.rand(3, 64, 80)])
    assert set(found[0]) == {"boxes", "labels", "scores"}


@FROM_TIMM
@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("name", DEBUGS)
def test_inside_transformers(name, freeze):
    config = TimmBackboneConfig(
        backbone=name, use_pretrained_backbone=False, out_indices=(1, 3), freeze_batch_norm_2d=freeze
    )
    backbone = TimmBackbone(config)
    images = torch.randn(2, 3, 64, 96)
    maps = backbone(images).feature_maps
    assert [tuple(fmap.shape) for fmap in maps] == [(2, 8, 8, 12), (2, 32, 2, 3)]
    assert list(backbone.channels) == [8, 32]
    if freeze:
        assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
