"""Image towers as files: embeddings of length 1, the last map, and texts as a head; each equal to PyTorch's."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import relative_error, trained_like
from PIL import Image
from torch import nn

import hybridvit
from hybridvit.data.preprocess import prepare
from hybridvit.errors import ExportError, UsageError
from hybridvit.export.graph import DeployedModel
from hybridvit.export.options import ExportOptions
from hybridvit.export.original import Original
from hybridvit.export.pipeline import export
from hybridvit.export.quantise import plan_from_folder
from hybridvit.export.quantise.search import quantise
from hybridvit.export.spec import GraphSpec
from hybridvit.loading import open_runner
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
    space = report.metadata.get("hybridvit.embedding_space")
    assert space == (None if returns else hybridvit.fold(model).card.embedding_space)
    images = torch.randn(2, 3, 64, 96)
    answer = hybridvit.load(path)(images.numpy())[returns or "embeddings"]
    with torch.no_grad():
        expected = model.forward_features(images) if returns else normalised(model(images))
    assert relative_error(torch.as_tensor(answer), expected) < 1e-5
    assert (report.parity.cosines is None) == (returns is not None)
    if returns is None:
        assert report.parity.cosines == pytest.approx((1, 1), abs=1e-6)
        np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1, rtol=1e-5)


@pytest.mark.nightly
@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("name", [f"fastvit_mci{size}" for size in range(5)])
def test_every_tower_exports_with_equal_embeddings(name: str, target: str, tmp_path: Path) -> None:
    model = trained_like(hybridvit.create_model(name))
    options = ExportOptions(image_size=(64, 96), batch=1)
    report = export(model, tmp_path / f"model{SUFFIXES[target]}", to=target, options=options)
    assert report.spec.outputs == ("embeddings",)
    assert report.parity.max_error < (1e-4 if target == "executorch" else 1e-5)
    assert report.folding.left == ()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures in folders whose names the tower knows nothing of."""
    dice = np.random.default_rng(0)
    for number in range(24):
        folder = tmp_path / "photos" / f"album {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "photos"


def test_int8_is_kept_with_a_mean_cosine_of_99_hundredths_on_pictures_of_any_class(
    photos: Path, tmp_path: Path
) -> None:
    model, path = tower(), tmp_path / "model.onnx"
    plan = plan_from_folder(photos, model.card, num_calibration=12)
    report = export(model, path, options=ExportOptions(precision="int8", image_size=(32, 32)), quantisation=plan)
    quality, runner = report.quality, hybridvit.load(path)
    assert quality is not None
    assert (quality.quantity.name, quality.max_drop, quality.num_images) == ("cosine", 0.01, 12)
    assert json.loads(runner.metadata["hybridvit.accuracy"])["cosine"] == quality.after >= 0.99
    found = []
    for each in plan.labelled.paths:
        image = torch.from_numpy(prepare(each, runner.card.preprocessing))[None]
        with torch.no_grad():
            found.append(
                (torch.from_numpy(runner(image.numpy())["embeddings"]) * normalised(model(image))).sum().item()
            )
    assert quality.after == pytest.approx(np.mean(found), abs=1e-5)
    assert report.parity.cosines is not None
    assert report.parity.cosines[0] <= report.parity.cosines[1] < 1


def test_int8_that_is_further_from_the_model_is_not_kept_with_any_layers(photos: Path) -> None:
    model, spec = tower(), GraphSpec(image_size=(32, 32), precision="int8", returns="embeddings")
    original = Original(model, spec)
    plan = plan_from_folder(photos, model.card, num_calibration=12)
    deployed = DeployedModel(hybridvit.fold(model), spec)

    def turned(images: np.ndarray) -> dict[str, np.ndarray]:
        return {"embeddings": -original(images)[0]}

    with pytest.raises(
        ExportError, match=r"cost 0\.01 of mean cosine to fp32 at most, .* is 2\.0000 \(from 1\.0000 on 12"
    ):
        quantise(deployed, original, model.card, plan, lambda _: turned)


@pytest.mark.parametrize(("precision", "off"), [("fp16", 1e-3), ("bf16", 1e-5)])
@pytest.mark.nightly
def test_files_of_16_bits_give_length_1_and_predict_takes_it_again_in_32(
    precision: str, off: float, tmp_path: Path
) -> None:
    path = tmp_path / "model.xml"
    options = ExportOptions(precision=precision, image_size=(64, 64))  # type: ignore[arg-type]
    report = export(tower(), path, to="openvino", options=options)
    assert report.parity.cosines is not None
    assert report.parity.cosines[0] > 0.999
    vectors = hybridvit.load(path)(np.random.default_rng(0).random((2, 3, 64, 64)))["embeddings"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=off)
    taken = open_runner(path, embeddings=True)(np.zeros((1, 3, 64, 64), np.float32))["embeddings"]
    np.testing.assert_allclose(np.linalg.norm(taken, axis=1), 1, rtol=1e-5)


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
