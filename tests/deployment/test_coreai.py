"""Core AI's folders, run by Apple's own runtime: equal to PyTorch, and refused when they are damaged."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import trained_like

import hybridvit
from hybridvit.difference import relative_error
from hybridvit.errors import CheckpointError
from hybridvit.export import load_runner
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import ExportReport, export

pytestmark = pytest.mark.skipif(find_spec("coreai") is None, reason="coreai-torch is not installed")

LIMITS = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 5e-2}


def made(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return trained_like(hybridvit.create_model(name, num_classes=5))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fastvit_debug", {"batch": "dynamic"}),
        ("fastvit_debug", {"precision": "fp16", "uint8": True}),
        ("fastvit_debug", {"precision": "bf16", "top_k": 2}),
        ("fastervit_debug", {"returns": "pyramid", "batch": 2}),
    ],
)
def test_core_ai_answers_as_pytorch(name: str, options: dict, tmp_path: Path) -> None:
    report = export(made(name), tmp_path / "m.aimodel", to="coreai", options=ExportOptions(**options))
    assert 0 <= report.proof.max_error <= LIMITS[report.spec.precision]
    assert [path.name for path in tmp_path.iterdir()] == ["m.aimodel"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export(made("fastvit_debug"), tmp_path_factory.mktemp("coreai") / "m.aimodel", to="coreai")


def test_it_runs_inside_another_event_loop(exported: ExportReport) -> None:
    import asyncio

    images = torch.randn(3, 3, 32, 32)

    async def notebook() -> np.ndarray:
        return hybridvit.load(exported.path)(images)

    with torch.no_grad():
        assert relative_error(asyncio.run(notebook()), made("fastvit_debug")(images).numpy()) <= 1e-5


def test_damage_is_noticed(exported: ExportReport, tmp_path: Path) -> None:
    path = Path(shutil.copytree(exported.path, tmp_path / "m.aimodel"))
    content = bytearray((path / "main.mlirb").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "main.mlirb").write_bytes(content)
    with pytest.raises(CheckpointError, match="its files are not those of its digest"):
        load_runner(path)
    (path / "metadata.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds no metadata of hybridvit that can be read"):
        load_runner(path)
    (path / "metadata.json").unlink()
    with pytest.raises(CheckpointError, match="A Core AI model is a folder: copy all of it"):
        load_runner(path)
