"""Image towers as files: embeddings of length 1, the last map, and texts as a head; each equal to PyTorch's."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import relative_error, trained_like
from torch import nn

import hybridvit
from hybridvit.errors import UsageError
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.models.zero_shot import TextMatrix, normalised, with_text_matrix

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "executorch": ".pte"}


def tower() -> nn.Module:
    return trained_like(hybridvit.create_model("fastvit_mci_debug"))


CASES = [(target, returns) for returns in (None, "map") for target in SUFFIXES]


@pytest.mark.parametrize(
    ("target", "returns"), [CASES[0], *(pytest.param(*each, marks=pytest.mark.nightly) for each in CASES[1:])]
)
def test_a_file_gives_embeddings_unless_asked_for_the_map(target: str, returns: str | None, tmp_path: Path) -> None:
    model, path = tower(), tmp_path / f"model{SUFFIXES[target]}"
    model.card = dataclasses.replace(model.card, licence="apple-amlr: research only")
    report = export(model, path, to=target, options=ExportOptions(image_size=(64, 96), returns=returns))
    assert report.parity.max_error < 1e-5
    assert "for research only, not commercial" in report.metadata["hybridvit.notice"]
    images = torch.randn(2, 3, 64, 96)
    answer = hybridvit.load(path)(images.numpy())[returns or "embeddings"]
    with torch.no_grad():
        expected = model.forward_features(images) if returns else normalised(model(images))
    assert relative_error(torch.as_tensor(answer), expected) < 1e-5
    if returns is None:
        np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1, rtol=1e-5)


def test_texts_as_a_head_export_as_an_ordinary_classifier(tmp_path: Path) -> None:
    matrix = TextMatrix(embeddings=normalised(torch.randn(4, 16)), class_names=("cat", "dog", "fox", "owl"))
    model, path = with_text_matrix(tower(), matrix), tmp_path / "model.onnx"
    report = export(model, path, options=ExportOptions(image_size=(64, 64), uint8=True, top_k=2))
    assert (report.spec.returns, report.parity.max_error < 1e-5) == ("logits", True)
    assert hybridvit.load(path).card.class_names == matrix.class_names


def test_a_model_without_a_projection_gives_no_embeddings(tmp_path: Path) -> None:
    for name, options in (("fastvit_mci_debug", {"num_classes": 0}), ("fastvit_debug", {"num_classes": 3})):
        with pytest.raises(UsageError, match=rf"this {name} has no projection\. Choose features"):
            export(
                hybridvit.create_model(name, **options).eval(),
                tmp_path / "model.onnx",
                options=ExportOptions(returns="embeddings"),
            )
