"""LoRA by PEFT: adapters on every layer that PEFT adapts are trained, merged, folded and exported."""

import pytest
import torch
from conftest import relative_error, trained_like
from torch import nn

import hybridvit
from hybridvit.errors import FoldError
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export

peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")

SIZE = (64, 96)  # at which all parts of the debug sizes run
OTHERS = ("fastervit_debug", "swin_debug_hat")
MODELS = [
    ("fastvit_debug", {}),
    pytest.param(
        "fastvit_debug",
        {"mixers": ("pooling", "pooling", "pooling", "attention"), "ffn_kernel": None},
        marks=pytest.mark.nightly,
    ),
    ("fastervit_debug", {}),
    pytest.param("fastervit_debug", {"mixers": ("conv", "conv", "twins", "edgevit")}, marks=pytest.mark.nightly),
    pytest.param("swin_debug_hat", {}, marks=pytest.mark.nightly),
]
# once merged it is the model that it was
EXPORTED = [("fastvit_debug", {}), *(pytest.param(name, {}, marks=pytest.mark.nightly) for name in OTHERS)]


def adaptable(model: nn.Module) -> list[str]:
    """The layers that LoRA of PEFT is for: linear ones, and convolutions that are not depthwise."""
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    ]


def with_adapters(name: str, options: dict[str, object]) -> nn.Module:
    model = trained_like(hybridvit.create_model(name, num_classes=5, **options))
    return peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=adaptable(model)))


def merged(name: str, options: dict[str, object]) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A model trained by its adapters and merged with them, with images and what it answered to them before."""
    adapted = with_adapters(name, options).train()
    adapters = {key: weight for key, weight in adapted.named_parameters() if weight.requires_grad}
    assert len(adapters) == 2 * len(adaptable(hybridvit.create_model(name, **options)))
    images = torch.randn(4, 3, *SIZE)
    optimizer = torch.optim.SGD(adapters.values(), lr=0.1)
    for _ in range(2):  # the second factor of an adapter starts at zero, and with it the first one's gradient
        optimizer.zero_grad()
        adapted(images).square().mean().backward()
        optimizer.step()
    assert [key for key, weight in adapters.items() if weight.grad is None or not weight.grad.any()] == []
    with torch.no_grad():
        expected = adapted.eval()(images)
        with adapted.disable_adapter():
            assert relative_error(adapted(images), expected) > 1e-3
        return adapted.merge_and_unload(), images, expected


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_lora_of_peft_trains_merges_and_folds(name, options):
    model, images, expected = merged(name, options)
    assert type(model) is type(hybridvit.create_model(name, **options))
    with torch.no_grad():
        assert relative_error(model(images), expected) < 1e-5
        assert relative_error(hybridvit.fold(model)(images), expected) < 1e-5


@pytest.mark.parametrize(("name", "options"), EXPORTED)
def test_what_lora_of_peft_has_trained_exports(name, options, tmp_path):
    model, images, expected = merged(name, options)
    report = export(model, tmp_path / "model.onnx", options=ExportOptions(image_size=SIZE))
    assert report.parity.max_error < 1e-5
    answers = hybridvit.load(tmp_path / "model.onnx")(images.numpy())["logits"]
    assert relative_error(torch.as_tensor(answers), expected) < 1e-5


@pytest.mark.parametrize("name", ["fastvit_debug", "fastervit_debug", "swin_debug_hat"])
def test_fold_says_that_adapters_of_peft_are_merged_first(name):
    with pytest.raises(FoldError, match=r"is a (Conv2d|Linear) of peft.* call merge_and_unload\(\) first"):
        hybridvit.fold(with_adapters(name, {}).eval().base_model.model)


def test_adapters_of_a_pyramid_are_trained_and_merged():
    pyramid = trained_like(hybridvit.create_model("fastvit_debug", features_only=True))
    adapted = peft.get_peft_model(pyramid, peft.LoraConfig(r=4, target_modules=adaptable(pyramid)))
    sum(fmap.square().mean() for fmap in adapted.train()(torch.randn(2, 3, *SIZE))).backward()
    assert all(weight.grad.any() for key, weight in adapted.named_parameters() if "lora_B" in key)
    maps, images = hybridvit.fold(adapted.merge_and_unload().eval()), torch.randn(1, 3, *SIZE)
    for found, expected in zip(maps(images), pyramid.eval()(images), strict=True):
        assert relative_error(found, expected) < 1e-5
