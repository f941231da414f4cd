"""NVIDIA's FasterViT weights in and out, against NVIDIA's own package; which variant a file is; hub and timm."""

import argparse
import dataclasses
import warnings
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from conftest import relative_error, trained_like
from nvidia import NARROW, with_oracle
from safetensors.torch import load_file
from torch import Tensor, nn

import hybridvit
from hybridvit.card import ModelCard
from hybridvit.checkpoints import load, load_weights, matching, read_tensors, save_upstream
from hybridvit.checkpoints.keymaps import from_ours
from hybridvit.checkpoints.matching import best_match, skeleton
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.models.fastervit.names import DERIVED
from hybridvit.models.registry import VARIANTS

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
LICENCE = "NVIDIA Source Code License-NC (non-commercial)"
ON_21K = [name for name in VARIANTS if "21k" in name]


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left)


def weights_of(oracle: nn.Module) -> dict[str, Tensor]:
    """What is no derived buffer."""
    return {name: tensor for name, tensor in oracle.state_dict().items() if name.rsplit(".", 1)[-1] not in DERIVED}


def shaped(architecture: str) -> dict[str, Tensor]:
    """Tensors with the names and shapes of a variant, without memory."""
    state = skeleton(ModelCard(architecture=architecture)).state_dict()
    return {name: torch.zeros(()).expand(value.shape).to(value.dtype) for name, value in state.items()}


def narrow(architecture: str) -> nn.Module:
    torch.manual_seed(0)
    return trained_like(hybridvit.create_model(architecture, **NARROW))


@pytest.fixture(scope="module")
def released() -> nn.Module:
    """NVIDIA's own FasterViT-0, with random norms."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package imports timm under old names
        import fastervit

        return trained_like(fastervit.create_model("faster_vit_0_224"))


# ---- NVIDIA's package and ours


def test_nvidias_checkpoint_gives_nvidias_logits_and_goes_back(released: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "fastervit_0_224_1k.pth.tar"
    state = {f"module.{name}": tensor for name, tensor in released.state_dict().items()}
    torch.save({"arch": "x", "state_dict": state, "args": argparse.Namespace(lr=1e-3), "epoch": 300}, path)
    ours = load(path)
    assert (ours.card.architecture, ours.card.options, ours.card.form) == ("fastervit_0", {}, "training")
    assert (ours.card.source, ours.card.licence) == ("fastervit_0_224_1k.pth.tar (nvidia names)", LICENCE)
    assert ours.card.class_names[0] == "n01440764"
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = released(images)
        assert relative_error(ours(images), expected) < 2e-6
    for name in ("back.pth.tar", "back.safetensors"):
        save_upstream(ours, tmp_path / name, "nvidia")
        assert_equal(read_tensors(tmp_path / name).tensors, weights_of(released))
    with torch.no_grad():
        for parameter in released.parameters():
            parameter.add_(1)
    missing, unexpected = released.load_state_dict(load_file(tmp_path / "back.safetensors"), strict=False)
    assert {name.rsplit(".", 1)[-1] for name in missing} == set(DERIVED)
    assert not unexpected
    with torch.no_grad():
        assert torch.equal(released(images), expected)


LAYOUTS = [(prefix, entry) for prefix in ("", "module.", "module._orig_mod.") for entry in ("", "state_dict", "model")]
DIAGONAL = LAYOUTS[::4]  # each prefix and each entry once


@pytest.mark.parametrize(
    ("prefix", "entry"),
    [pytest.param(*each, marks=() if each in DIAGONAL else pytest.mark.nightly) for each in LAYOUTS],
)
def test_every_layout_of_a_training_script_loads_strictly(tmp_path: Path, entry: str, prefix: str) -> None:
    ours, oracle = with_oracle("fastervit_3", 224, **NARROW)
    state = {prefix + name: tensor for name, tensor in oracle.state_dict().items()}
    torch.save({entry: state, "args": argparse.Namespace(x=1), "epoch": 3} if entry else state, tmp_path / "m.pth")
    model = hybridvit.create_model("fastervit_3", **NARROW)
    report = load_weights(model, tmp_path / "m.pth")
    assert_equal(dict(model.state_dict()), dict(ours.state_dict()))
    assert_equal(from_ours(dict(model.state_dict()), "nvidia"), weights_of(oracle))
    assert (report.naming, report.weight_set, report.num_tensors) == ("nvidia", entry, len(model.state_dict()))


@pytest.mark.parametrize("extension", [".pth.tar", ".safetensors"])
@pytest.mark.parametrize(
    "architecture",
    [
        "fastervit_debug",
        "fastervit_4_21k_384",
        *(pytest.param(f"fastervit_{size}", marks=pytest.mark.nightly) for size in range(7)),
    ],
)
def test_nvidias_names_and_back_is_bit_equal(tmp_path: Path, architecture: str, extension: str) -> None:
    options = {} if architecture == "fastervit_debug" else NARROW
    model = trained_like(hybridvit.create_model(architecture, **options))
    save_upstream(model, tmp_path / f"m{extension}", "nvidia")
    again = hybridvit.create_model(architecture, **options)
    load_weights(again, tmp_path / f"m{extension}")
    assert_equal(dict(again.state_dict()), dict(model.state_dict()))


def test_our_own_weights_in_nvidias_names_are_not_under_nvidias_licence(tmp_path: Path) -> None:
    model = trained_like(hybridvit.create_model("fastervit_debug", num_classes=5))
    save_upstream(model, tmp_path / "mine.pth", "nvidia")
    loaded = load(tmp_path / "mine.pth")
    assert (loaded.card.architecture, loaded.card.options) == ("fastervit_debug", {"num_classes": 5})
    assert (loaded.card.licence, loaded.card.class_names) == ("", ())
    assert_equal(dict(loaded.state_dict()), dict(model.state_dict()))


def test_a_folded_model_has_no_names_of_nvidias(tmp_path: Path) -> None:
    model = trained_like(hybridvit.create_model("fastervit_debug"))
    with pytest.raises(CheckpointError, match=r"has no name in NVIDIA's FasterViT.*in training form"):
        save_upstream(hybridvit.fold(model), tmp_path / "m.pth", "nvidia")
    assert not list(tmp_path.iterdir())


def test_a_folded_file_does_not_load_into_an_unfolded_model() -> None:
    model = trained_like(hybridvit.create_model("fastervit_debug"))
    with pytest.raises(CheckpointError, match=r"is folded \(inference form\); it cannot be unfolded"):
        load_weights(model, hybridvit.fold(model).state_dict())
    with pytest.raises(CheckpointError, match=r"is in training form and the model in folded form"):
        load_weights(hybridvit.fold(model), model.state_dict())


@pytest.mark.parametrize("channels", [1, 4])
def test_classifier_and_stem_are_adapted_when_asked(channels: int) -> None:
    weights = from_ours(dict(narrow("fastervit_0").state_dict()), "nvidia")
    model = hybridvit.create_model("fastervit_0", **{**NARROW, "num_classes": 3}, in_chans=channels).eval()
    with pytest.raises(CheckpointError, match=f"takes 3 input channels, the model {channels}"):
        load_weights(model, weights)
    report = load_weights(model, weights, reset_head=True, adapt_input=True)
    assert report.adapted == ("stem.0.conv.weight",)
    assert report.reset == ("head.fc.weight", "head.fc.bias")
    assert model(IMAGES[:, :1].expand(-1, channels, -1, -1)).shape == (2, 3)


# ---- which variant a file is


@pytest.mark.parametrize(
    ("have", "asked"),
    [
        ("fastervit_1", "fastervit_0"),
        ("fastervit_0", "fastervit_2"),
        ("fastervit_4", "fastervit_4_21k_384"),
        ("fastervit_5", "fastervit_6"),
        ("fastvit_t8", "fastervit_0"),
    ],
)
def test_another_variant_is_recognised(have: str, asked: str) -> None:
    tensors = shaped(have)
    if have.startswith("faster"):
        tensors = from_ours(tensors, "nvidia")
    with torch.device("meta"):
        model = hybridvit.create_model(asked)
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, tensors)
    count = len(shaped(have))
    assert f"It looks like {have} ({count}/{count} keys), you asked for {asked}: create that" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 14


def test_missing_and_renamed_keys_are_listed() -> None:
    model = trained_like(hybridvit.create_model("fastervit_debug"))
    weights = from_ours(dict(model.state_dict()), "nvidia")
    weights["levels.2.blocks.0.attn.query.weight"] = weights.pop("levels.2.blocks.0.attn.qkv.weight")
    del weights["norm.bias"]
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, weights)
    assert "It has 156 of the 158 keys of fastervit_debug" in str(caught.value)
    for line in (
        "- stages.2.body.blocks.0.attention.to_qkv.weight (48, 16)",
        "- head.norm.bias (32,)",
        "+ levels.2.blocks.0.attn.query.weight (48, 16)",
    ):
        assert f"\n  {line}" in str(caught.value)


@pytest.mark.parametrize("asked", ON_21K)
def test_variants_that_differ_in_windows_alone_are_told_apart_by_name(asked: str) -> None:
    tensors = shaped("fastervit_4_21k_224")
    assert best_match(tensors, "training") == ("fastervit_4_21k_224", len(tensors))
    window = asked.replace("224", "224_w14")
    assert best_match(tensors, "training", f"{window}.pth.tar") == (asked, len(tensors))
    assert best_match(tensors, "training", "fastervit_4.pth.tar") == ("fastervit_4_21k_224", len(tensors))


def test_a_file_is_loaded_as_the_variant_that_its_name_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {key: NARROW[key] for key in ("widths", "stem_width", "depths", "num_heads")}
    for name in ON_21K:  # as small as a test can bear
        variant = VARIANTS[name]
        monkeypatch.setitem(
            VARIANTS, name, dataclasses.replace(variant, config=dataclasses.replace(variant.config, **sizes))
        )
    matching._expected.cache_clear()
    try:
        model = hybridvit.create_model("fastervit_4_21k_224")
        for file, expected in {
            "fastervit_4_21k_384_w24.pth.tar": "fastervit_4_21k_384",
            "fastervit_4_21k_768_w48.pth.tar": "fastervit_4_21k_768",
            "weights.pth": "fastervit_4_21k_224",
        }.items():
            save_upstream(model, tmp_path / file, "nvidia")
            loaded = load(tmp_path / file)
            assert loaded.card.architecture == expected
            assert loaded.card.preprocessing == VARIANTS[expected].preprocessing
            assert loaded.card.licence == (LICENCE if file.startswith("fastervit") else "")
            demanded = load(tmp_path / file, architecture="fastervit_4_21k_512")
            assert demanded.card.architecture == "fastervit_4_21k_512"
    finally:
        matching._expected.cache_clear()


def test_a_model_of_other_options_is_named_with_the_way_to_load_it(tmp_path: Path) -> None:
    save_upstream(narrow("fastervit_0"), tmp_path / "m.pth", "nvidia")
    with pytest.raises(
        CheckpointError, match=r"fits no model of this library: the nearest, fastervit_\w+, .*use load_weights"
    ):
        load(tmp_path / "m.pth")


# ---- what the weights do not tell


def test_weights_fit_any_windows() -> None:
    trained = narrow("fastervit_4_21k_224")
    weights = from_ours(dict(trained.state_dict()), "nvidia")
    larger = hybridvit.create_model("fastervit_4_21k_224", **NARROW, windows=(7, 7, 24, 12), image_size=384)
    load_weights(larger, weights)
    assert_equal(dict(larger.state_dict()), dict(trained.state_dict()))
    images = torch.randn(1, 3, 384, 384)
    with torch.no_grad():
        expected = hybridvit.create_model("fastervit_4_21k_384", **NARROW).eval()
        load_weights(expected, weights)
        assert torch.equal(larger.eval()(images), expected(images))
        assert relative_error(trained(images), expected(images)) > 1e-3  # and the windows did stay


# ---- hub and timm


@pytest.fixture
def hub_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A hub that has a narrow fastervit_0, in the layout of NVIDIA's training script; what was asked of it."""
    state = from_ours(dict(narrow("fastervit_0").state_dict()), "nvidia")
    path = tmp_path / "fastervit_0_224_1k.pth.tar"
    torch.save({"state_dict": state, "args": argparse.Namespace(x=1), "epoch": 3}, path)
    asked = []

    def download(repo_id: str, filename: str, **_: Any) -> str:
        asked.append((repo_id, filename))
        if filename != path.name:
            raise huggingface_hub.errors.EntryNotFoundError(f"no {filename}")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(timm.models._hub, "hf_hub_download", download)
    return asked


@pytest.mark.parametrize("pretrained", [True, "nvidia_in1k"])
def test_published_weights_come_from_the_hub_by_file_name(hub_file: list[tuple[str, str]], pretrained: Any) -> None:
    model = hybridvit.create_model("fastervit_0", pretrained=pretrained, **NARROW)
    assert hub_file == [("ahatamiz/FasterViT", "fastervit_0_224_1k.pth.tar")]
    assert_equal(dict(model.state_dict()), dict(narrow("fastervit_0").state_dict()))
    assert model.card.source == "ahatamiz/FasterViT/fastervit_0_224_1k.pth.tar"
    assert model.card.licence == LICENCE


def test_every_published_file_has_a_name_and_a_tag() -> None:
    for name, variant in VARIANTS.items():
        if variant.family == "fastervit" and name != "fastervit_debug":
            ((tag, weights),) = variant.published.weights
            assert tag == ("nvidia_in21k_ft_in1k" if "21k" in name else "nvidia_in1k")
            assert weights.file.startswith(name)
            assert weights.url.endswith(f"{weights.hub_id}/resolve/main/{weights.file}")
            assert variant.published.weights_of(weights.file) == weights
            assert weights.licence == LICENCE
    with pytest.raises(UsageError, match=r"No weights 'apple_in1k' for fastervit_0.*Published weights: nvidia_in1k"):
        hybridvit.create_model("fastervit_0", pretrained="apple_in1k", **NARROW)


def test_weights_of_a_path_keep_the_licence_of_a_published_name(hub_file: object, tmp_path: Path) -> None:
    model = hybridvit.create_model("fastervit_0", pretrained=tmp_path / "fastervit_0_224_1k.pth.tar", **NARROW)
    assert model.card.licence == LICENCE
    (tmp_path / "fastervit_0_224_1k.pth.tar").rename(tmp_path / "mine.pth")
    assert hybridvit.create_model("fastervit_0", pretrained=tmp_path / "mine.pth", **NARROW).card.licence == ""


def test_timm_loads_nvidias_file(hub_file: list[tuple[str, str]], tmp_path: Path) -> None:
    expected = dict(narrow("fastervit_0").state_dict())
    overlay = {"file": str(tmp_path / "fastervit_0_224_1k.pth.tar"), "num_classes": 10}
    from_file = timm.create_model("hybridvit_fastervit_0", pretrained=True, pretrained_cfg_overlay=overlay, **NARROW)
    assert_equal(dict(from_file.state_dict()), expected)
    assert hub_file == []
    overlay = {"num_classes": 10}
    from_hub = timm.create_model("hybridvit_fastervit_0", pretrained=True, pretrained_cfg_overlay=overlay, **NARROW)
    assert_equal(dict(from_hub.state_dict()), expected)
    assert hub_file[-1] == ("ahatamiz/FasterViT", "fastervit_0_224_1k.pth.tar")
    assert (from_hub.card.source, from_hub.card.licence) == ("ahatamiz/FasterViT", LICENCE)
    options = {**NARROW, "num_classes": 4, "in_chans": 1}
    adapted = timm.create_model(
        "hybridvit_fastervit_0", pretrained=True, pretrained_cfg_overlay=overlay, **options
    ).eval()
    grey = IMAGES[:, :1]
    assert adapted(grey).shape == (2, 4)
    theirs = from_hub.eval().forward_features(grey.expand(-1, 3, -1, -1))
    assert relative_error(adapted.forward_features(grey), theirs) < 1e-5


def test_timms_settings_are_the_published_ones() -> None:
    cfg = timm.get_pretrained_cfg("hybridvit_fastervit_4_21k_384.nvidia_in21k_ft_in1k")
    assert (cfg.hf_hub_id, cfg.hf_hub_filename) == ("ahatamiz/FasterViT", "fastervit_4_21k_384_w24.pth.tar")
    assert (cfg.input_size, cfg.pool_size, cfg.crop_mode) == ((3, 384, 384), (12, 12), "squash")
    assert (cfg.first_conv, cfg.classifier, cfg.license) == (("stem.0.conv",), "head.fc", LICENCE)
    assert timm.get_pretrained_cfg("hybridvit_fastervit_0.nvidia_in1k").crop_pct == 0.875
    assert timm.get_pretrained_cfg("hybridvit_fastvit_t8.apple_in1k").hf_hub_filename is None
