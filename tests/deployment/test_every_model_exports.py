"""Every registered model exports. Here and not in the contract suite: the shape hook takes no symbolic sizes."""

import pytest
import torch
from conftest import contract_model, relative_error, trained_like

import hybridvit
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export

CASES = [  # the other families' are among those that every target exports (test_every_target.py)
    ("swin_debug_hat", 3),
    *(pytest.param(name, "dynamic", marks=pytest.mark.nightly) for name in hybridvit.list_models()),
]


@pytest.mark.parametrize(("name", "batch"), CASES)
def test_every_model_exports_to_onnx_with_equal_answers(name, batch, tmp_path):
    model = trained_like(contract_model(name, num_classes=3))
    size = (64, 64) if name == "fastervit_debug" or name.startswith("fastvit") else (128, 128)
    report = export(model, tmp_path / "model.onnx", options=ExportOptions(image_size=size, batch=batch))
    assert report.parity.max_error < 1e-5
    runner = hybridvit.load(tmp_path / "model.onnx")
    images = torch.randn(3, 3, *size)
    assert relative_error(torch.as_tensor(runner(images.numpy())["logits"]), model(images).detach()) < 1e-5
