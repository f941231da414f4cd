"""Classification by a stored matrix of text embeddings: equal to NumPy by hand, and each refusal."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import trained_like
from safetensors.torch import save_file
from torch import Tensor, nn

import hybridvit
from hybridvit.errors import UsageError
from hybridvit.models.zero_shot import normalised, read_text_matrix, with_text_matrix

NAMES = ["cat", "dog", "hot dog"]


def tower() -> nn.Module:
    return trained_like(hybridvit.create_model("fastvit_mci_debug"))


def written(path: Path, embeddings: Tensor, names: Any = NAMES, **more: Any) -> Path:
    scale = {"logit_scale": torch.tensor(more["scale"])} if "scale" in more else {}
    metadata = {} if names is None else {"class_names": json.dumps(names)}
    metadata |= {"weights": more["weights"]} if "weights" in more else {}
    save_file({"text_embeddings": embeddings} | scale, path, metadata=metadata)
    return path


@torch.no_grad()
@pytest.mark.parametrize("shape", [(3, 16), (3, 7, 16)])
def test_the_head_is_numpys_by_hand(shape: tuple[int, ...], tmp_path: Path) -> None:
    rows = torch.randn(shape)
    model, image = tower(), torch.randn(2, 3, 64, 64)
    made = with_text_matrix(model, read_text_matrix(written(tmp_path / "text.safetensors", rows, scale=17.5)))
    texts = rows.double().numpy().reshape(3, -1, 16)
    texts = (texts / np.linalg.norm(texts, axis=-1, keepdims=True)).mean(1)
    texts /= np.linalg.norm(texts, axis=-1, keepdims=True)
    embedding = model(image).double().numpy()
    embedding /= np.linalg.norm(embedding, axis=-1, keepdims=True)
    for form in (made, hybridvit.fold(made)):
        np.testing.assert_allclose(form(image).numpy(), 17.5 * embedding @ texts.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(normalised(model(image)).numpy(), embedding, rtol=1e-4, atol=1e-6)
    assert (made.card.class_names, made.num_classes, made.present_card.class_names) == (tuple(NAMES), 3, tuple(NAMES))
    assert (model.num_classes, model.card.class_names) == (16, ())


def test_the_scale_is_100_where_the_file_has_none_and_other_weights_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    matrix = read_text_matrix(written(tmp_path / "text.safetensors", torch.randn(3, 16), weights="apple/mobileclip_s0"))
    assert (matrix.logit_scale, matrix.weights) == (100.0, "apple/mobileclip_s0")
    with_text_matrix(tower(), matrix)
    assert "embeddings of different weights are not comparable" in caplog.text


ROWS = torch.ones(3, 16)
REFUSED: dict[str, tuple[Tensor, Any, dict[str, Any]]] = {
    r"1 of 3 rows .*\(1\) are zero, or no finite": (torch.stack([ROWS[0], ROWS[0] * 0, ROWS[0]]), NAMES, {}),
    r"1 of 3 rows .*\(2\) are zero, or no finite": (torch.stack([ROWS[0], ROWS[0], ROWS[0] / 0]), NAMES, {}),
    r"does not name its classes: .* JSON list of 3 texts": (ROWS, None, {}),
    r"does not name its classes: .* in the order": (ROWS, {"cat": 0}, {}),
    r"names 4 classes, but has embeddings of 3": (ROWS, [*NAMES, "bird"], {}),
    r"names 'cat' more than once": (ROWS, ["cat", "dog", "cat"], {}),
    r"'logit_scale' must be one number above 0": (ROWS, NAMES, {"scale": -1.0}),
    r"but must be floats \(classes, d\)": (torch.ones(16), NAMES, {}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_each_refusal_says_what_is_wrong(message: str, tmp_path: Path) -> None:
    rows, names, more = REFUSED[message]
    with pytest.raises(UsageError, match=message):
        read_text_matrix(written(tmp_path / "text.safetensors", rows, names, **more))


def test_a_matrix_of_another_width_and_a_model_without_projection_are_refused(tmp_path: Path) -> None:
    matrix = read_text_matrix(written(tmp_path / "text.safetensors", torch.ones(3, 8)))
    with pytest.raises(UsageError, match=r"text embeddings have 8 numbers each, but fastvit_mci_debug gives 16"):
        with_text_matrix(tower(), matrix)
    with pytest.raises(UsageError, match="has no projection into the space of texts"):
        with_text_matrix(hybridvit.create_model("fastvit_mci_debug", num_classes=0), matrix)


def test_what_is_no_safetensors_file_is_refused_with_the_way_to_write_one(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    path.write_bytes(b"no")
    with pytest.raises(UsageError, match=r"Write it with safetensors\.torch\.save_file"):
        read_text_matrix(path)
    save_file({"other": torch.ones(2)}, path)
    with pytest.raises(UsageError, match="has no tensor 'text_embeddings' but 'other'"):
        read_text_matrix(path)
