"""Writing .tflite files. Their converter needs an older torch, so these run in its own environment: make test-litert.

What all targets promise is tested for this one too, by tests/contract/test_every_target.py.
"""

import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import trained_like
from golden.litert import ANSWERS, images
from golden.litert import model as golden_model
from torch import nn

import hybridvit
from hybridvit.difference import relative_error
from hybridvit.errors import UsageError
from hybridvit.export import load_runner
from hybridvit.export.bundle import card_metadata
from hybridvit.export.exporter import Quantisation
from hybridvit.export.graph import DeployedModel
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.export.seal import KEY, OPEN
from hybridvit.export.spec import GraphSpec
from hybridvit.export.targets.litert import LiteRTExporter, LiteRTRunner
from hybridvit.export.targets.litert_file import TFLiteFile
from hybridvit.export.targets.litert_graph import TFLiteGraph, tflite_graph
from hybridvit.export.targets.litert_weights import with_integers

pytestmark = pytest.mark.skipif(
    find_spec("litert_torch") is None, reason="litert-torch is not installed: it has an environment of its own"
)


def deployed(name: str, **ends: object) -> DeployedModel:
    model = trained_like(hybridvit.create_model(name, num_classes=5))
    size = (32, 32) if name == "fastvit_debug" else (64, 64)
    folded = hybridvit.fold(model, image_size=None if name == "fastvit_debug" else size)
    return DeployedModel(folded, GraphSpec(**({"image_size": size, "batch": 1} | ends)))


def operations(content: bytes) -> list[tuple[str, str, set[str]]]:
    """Of each operation its kind, its name, and the types of its tensors."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    return [
        (
            operation["op_name"],
            tensors[operation["outputs"][0]]["name"],
            {tensors[i]["dtype"].__name__ for i in (*operation["inputs"], *operation["outputs"]) if i in tensors},
        )
        for operation in interpreter._get_ops_details()
    ]


def opened(content: bytes, model: DeployedModel, path: Path) -> LiteRTRunner:
    metadata = card_metadata(model.backbone.card) | model.spec.metadata() | {KEY: OPEN}
    TFLiteFile(content, metadata).sealed().write(path)
    return LiteRTRunner(path)


def outputs(model: nn.Module, batch: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(batch)).numpy()


@pytest.fixture(scope="module")
def fastvit() -> tuple[DeployedModel, TFLiteGraph]:
    model = deployed("fastvit_debug", precision="int8")
    return model, tflite_graph(model)


@pytest.fixture(scope="module")
def fastervit() -> tuple[DeployedModel, TFLiteGraph]:
    model = deployed("fastervit_debug", precision="int8")
    return model, tflite_graph(model)


def test_kernels_that_lie_channels_last_keep_their_values(
    fastervit: tuple[DeployedModel, TFLiteGraph], tmp_path: Path
) -> None:
    model, graph = fastervit
    body = model.backbone.stages[1].body[0]
    assert body.conv1.weight.shape == body.conv2.weight.shape  # litert-torch 0.10 gives both the kernel of the first
    assert not body.conv1.weight.is_contiguous()  # and the conversion has left it as it was
    batch = np.random.default_rng(0).standard_normal((3, 3, 64, 64), dtype=np.float32)
    assert relative_error(opened(graph.content, model, tmp_path / "m.tflite")(batch), outputs(model, batch)) <= 1e-5


def test_operations_are_named_after_modules_and_nothing_is_left_that_no_image_changes(
    fastervit: tuple[DeployedModel, TFLiteGraph],
) -> None:
    model, graph = fastervit
    found = operations(graph.content)
    modules = dict(model.named_modules())
    for _, name, _ in found[:-1]:
        assert re.split(r";", name)[0] in modules, name
    assert found[-1][1] == "serving_default_logits_output"
    assert graph.last == {"serving_default_logits_output": "backbone.head.fc"}
    computed_on_integers = [name for kind, name, types in found if "float32" not in types]
    assert computed_on_integers == []
    assert Counter(kind for kind, _, _ in found)["GELU"] == 7  # each one operation, not its formula


def test_float16_weights_halve_the_file_and_stay_near(tmp_path: Path) -> None:
    model = golden_model()
    reports = {
        precision: export(
            model, tmp_path / f"{precision}.tflite", to="litert", options=ExportOptions(precision=precision)
        )
        for precision in ("fp32", "fp16")
    }
    assert reports["fp16"].size_bytes < 0.7 * reports["fp32"].size_bytes
    assert reports["fp32"].parity.max_error < 1e-5 < reports["fp16"].parity.max_error < 5e-3
    # the golden file is what this code writes
    for precision, limit in (("fp32", 1e-5), ("fp16", 5e-3)):
        answers = load_runner(tmp_path / f"{precision}.tflite")(images())["logits"]
        assert relative_error(answers, np.load(ANSWERS)["logits"]) <= limit


def test_integers_inside_and_floating_point_at_the_ends(
    fastvit: tuple[DeployedModel, TFLiteGraph], tmp_path: Path
) -> None:
    model, graph = fastvit
    batch = images()
    content = with_integers(graph, model, Quantisation(torch.from_numpy(batch)))
    assert len(content) < 0.65 * len(graph.content)
    runner = opened(content, model, tmp_path / "m.tflite")
    assert 1e-5 < relative_error(runner(batch)["logits"], outputs(model, batch)) < 0.1
    kinds = [(kind, "int8" in types) for kind, _, types in operations(content)]
    assert kinds[0] == ("QUANTIZE", True)
    assert kinds[-1] == ("DEQUANTIZE", True)
    assert all(is_integer for kind, is_integer in kinds if "CONV" in kind or kind in ("FULLY_CONNECTED", "GELU"))


def test_kept_modules_compute_in_floating_point_and_all_others_do_not(
    fastvit: tuple[DeployedModel, TFLiteGraph],
) -> None:
    model, graph = fastvit
    kept = ("backbone.stages.1", "backbone.stem.0.conv", "backbone.head")
    content = with_integers(graph, model, Quantisation(torch.from_numpy(images()), kept))
    for kind, name, types in operations(content):
        if kind in ("QUANTIZE", "DEQUANTIZE", "EXP"):  # EXP: LiteRT has none in 8 bits
            continue
        module = graph.last.get(name, name.split(";")[0])
        assert ("int8" in types) != any(f"{module}.".startswith(f"{each}.") for each in kept), name


def test_with_all_modules_kept_the_graph_stays(fastvit: tuple[DeployedModel, TFLiteGraph]) -> None:
    model, graph = fastvit
    assert with_integers(graph, model, Quantisation(torch.from_numpy(images()), ("backbone",))) == graph.content


def test_a_kept_name_that_is_no_module_is_refused(fastvit: tuple[DeployedModel, TFLiteGraph]) -> None:
    model, graph = fastvit
    text = r"'backbone\.stagse\.1' is to keep .* no module of that name\. Nearest: .*'backbone\.stages\.1'"
    with pytest.raises(UsageError, match=text):
        with_integers(graph, model, Quantisation(torch.from_numpy(images()), ("backbone.stagse.1",)))


def test_carriers_are_pooled_in_floating_point(fastervit: tuple[DeployedModel, TFLiteGraph], tmp_path: Path) -> None:
    model, graph = fastervit
    batch = np.random.default_rng(0).standard_normal((8, 3, 64, 64), dtype=np.float32)
    runner = opened(with_integers(graph, model, Quantisation(torch.from_numpy(batch))), model, tmp_path / "m.tflite")
    assert relative_error(runner(batch)["logits"], outputs(model, batch)) < 0.2


def test_a_conversion_prints_nothing(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = deployed("fastvit_debug", precision="int8")
    calibration = Quantisation(torch.from_numpy(images()))
    LiteRTExporter().convert(model, tmp_path / "m.tflite", calibration)
    assert capfd.readouterr() == ("", "")
