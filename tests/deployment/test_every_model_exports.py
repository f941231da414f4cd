"""Every registered model exports. Here and not in the contract suite: the shape hook takes no symbolic sizes."""

import pytest
import torch
from conftest import contract_model, relative_error, trained_like

import hybridvit
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export

BY_DAY = {"fastvit_debug", "fastvit_ma36", "fastervit_debug", "fastervit_3", "swin_debug_hat"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in BY_DAY else pytest.mark.nightly) for name in hybridvit.list_models()],
)
def test_every_model_exports_to_onnx_with_equal_answers(name, tmp_path):
    model = trained_like(contract_model(name, num_classes=3))
    size = (64, 64) if name == "fastervit_debug" or name.startswith("fastvit") else (128, 128)
    report = export(model, tmp_path / "model.onnx", options=ExportOptions(image_size=size))
    assert report.parity.max_error < 1e-5
    runner = hybridvit.load(tmp_path / "model.onnx")
    images = torch.randn(3, 3, *size)
    assert relative_error(torch.as_tensor(runner(images.numpy())["logits"]), model(images).detach()) < 1e-5
