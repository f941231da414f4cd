"""The program of the docs that writes texts with open_clip, run with a stand-in of it, and the file of its tower."""

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import trained_like
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import hybridvit
from hybridvit.checkpoints.keymaps import from_ours
from hybridvit.models.zero_shot import normalised, read_text_matrix

DOCS = Path(__file__).parents[2] / "docs" / "mci.md"
SCALE = 50.0


class TwoTowers(nn.Module):
    """As open_clip's models: `encode_text` gives rows of any length, `logit_scale` is a logarithm."""

    def __init__(self, texts: Tensor) -> None:
        super().__init__()
        self.texts = nn.Parameter(texts)
        self.logit_scale = nn.Parameter(torch.tensor(SCALE).log())

    def encode_text(self, tokens: list[str]) -> Tensor:
        assert not self.training
        return self.texts[[("cat" not in text) * 1 for text in tokens]]


@pytest.mark.parametrize("is_wanted", [True, False])
def test_the_recipe_writes_what_a_file_of_open_clip_names_classes_with(
    is_wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = trained_like(hybridvit.create_model("fastvit_mci_debug"))
    upstream = {f"visual.trunk.{name}": value for name, value in from_ours(tower.state_dict(), "timm").items()}
    beside = {"text.token_embedding.weight": torch.zeros(2, 2), "logit_scale": torch.tensor(SCALE).log()}
    save_file({name: value.contiguous() for name, value in upstream.items()} | beside, tmp_path / "clip.safetensors")
    dice = np.random.default_rng(0)
    photo = tmp_path / "photo.png"
    Image.fromarray(dice.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(photo)
    (embedded,) = hybridvit.Predictor(tmp_path / "clip.safetensors", embeddings=True)([photo])
    lies_there = torch.from_numpy(embedded.vector)
    texts = torch.stack([lies_there if is_wanted else -lies_there, torch.randn(16)]) * torch.tensor([[3.0], [0.1]])

    stand_in = ModuleType("open_clip")
    stand_in.create_model_and_transforms = lambda name, pretrained: (TwoTowers(texts).train(), None, None)
    stand_in.get_tokenizer = lambda name: list
    monkeypatch.setitem(sys.modules, "open_clip", stand_in)
    monkeypatch.chdir(tmp_path)
    (recipe,) = (
        block for block in re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.S) if "open_clip" in block
    )
    exec(compile(recipe, DOCS, "exec"), {})

    matrix = read_text_matrix("text.safetensors")
    assert (matrix.class_names, matrix.weights) == (("cat", "dog"), "apple/mobileclip_s1_timm")
    assert matrix.logit_scale == pytest.approx(SCALE)
    torch.testing.assert_close(matrix.embeddings, normalised(texts))
    (answer,) = hybridvit.Predictor("clip.safetensors", zero_shot="text.safetensors")([photo])
    assert answer.names[0] == ("cat" if is_wanted else "dog")
