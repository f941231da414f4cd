"""What is ExecuTorch's own: what XNNPACK computes, int8, metadata that a phone can read, one pool of threads.

Nightly its files are tested as those of every target too, whatever their ends (test_every_target.py).
"""

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from conftest import relative_error, trained_like
from fresh import ENVIRONMENT, command
from torch import nn

import hybridvit
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.export.draft import drafted
from hybridvit.export.exporter import Quantisation
from hybridvit.export.graph import DeployedModel
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.export.spec import GraphSpec, Precision
from hybridvit.export.targets import xnnpack
from hybridvit.export.targets.executorch import ExecuTorchExporter
from hybridvit.export.targets.xnnpack import lowered, xnnpack_graph
from hybridvit.export.targets.xnnpack_int8 import quantised_graph
from hybridvit.folding.fold import fold

pytestmark = pytest.mark.skipif(find_spec("executorch") is None, reason="executorch is not installed")

EXPORTER = ExecuTorchExporter()


def made(name: str = "fastvit_debug") -> nn.Module:
    return trained_like(hybridvit.create_model(name, num_classes=5))


def deployed(name: str = "fastvit_debug", precision: Precision = "fp32") -> DeployedModel:
    size = (64, 64)
    model = fold(made(name), image_size=size if name != "fastvit_debug" else None)
    return DeployedModel(model, GraphSpec(image_size=size, batch=1, precision=precision))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A file of the model that `made` gives a test, and what XNNPACK does not compute of it."""
    torch.manual_seed(0)
    path, left = tmp_path_factory.mktemp("pte") / "m.pte", []

    def watched(*given: object) -> object:
        manager = lowered(*given)
        left.extend(outside(manager))
        return manager

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xnnpack, "lowered", watched)
        export(made(), path, to="executorch")
    return path, left


@pytest.fixture(scope="module")
def written(exported: tuple[Path, list[str]]) -> Path:
    return exported[0]


def outside(manager: object) -> list[str]:
    """The operators that XNNPACK does not compute, and "delegate" for each part that it does."""
    nodes = manager.exported_program().graph.nodes
    names = [str(node.target) for node in nodes if node.op == "call_function"]
    assert names
    return ["delegate" if "delegate" in name else name for name in names if "getitem" not in name]


def test_xnnpack_computes_all_of_a_fastvit(exported: tuple[Path, list[str]]) -> None:
    assert exported[1] == ["delegate"]


@pytest.mark.nightly
def test_xnnpack_computes_all_of_a_fastervit_but_the_choice_of_tokens() -> None:
    model = deployed("fastervit_debug")
    left = [name for name in outside(lowered(xnnpack_graph(model), model, "{}")) if name != "delegate"]
    assert all("aten.index_select" in name for name in left)
    assert len(left) == 3


@pytest.mark.parametrize(  # the file of a FastViT is compared with PyTorch every day
    "name",
    [
        pytest.param("fastvit_debug", marks=pytest.mark.nightly),
        "fastervit_debug",
        pytest.param("swin_debug_hat", marks=pytest.mark.nightly),
    ],
)
def test_spelled_out_operators_change_no_output(name: str) -> None:
    model = deployed(name)
    images = torch.randn(1, 3, 64, 64)
    assert relative_error(xnnpack_graph(model)(images), model(images)) <= 1e-6


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param((), marks=pytest.mark.nightly),
        pytest.param(("backbone.stages.0",), marks=pytest.mark.nightly),
        ("backbone.stages.3.blocks.0.mixer.to_qkv",),
    ],
)
def test_int8_is_every_layer_but_those_kept_and_large_depthwise_ones(kept: tuple[str, ...]) -> None:
    model, images = deployed(precision="int8"), torch.randn(3, 3, 64, 64)
    graph = quantised_graph(model, Quantisation(images=images, kept=kept))
    layers = [
        name
        for name, layer in model.named_modules()
        if (isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and not is_large_depthwise(layer)))
        and not any(name == each or name.startswith(f"{each}.") for each in kept)
    ]
    assert len(layers) > 10
    assert sum("dequantize_per_channel" in str(node.target) for node in graph.graph.nodes) == len(layers)
    assert 1e-6 < relative_error(graph(images[:1]), model(images[:1])) < 0.2


def test_int8_of_maps_that_are_padded_opens(tmp_path: Path) -> None:
    size = (64, 64)  # maps of 4x4 and 2x2, in windows of 3
    model = trained_like(hybridvit.create_model("fastervit_debug", num_classes=5, depths=(1, 1, 1, 1)))
    spec, images = GraphSpec(image_size=size, batch=1, precision="int8"), torch.randn(3, 3, *size)
    with drafted(fold(model, image_size=size), spec, EXPORTER, tmp_path / "m.pte") as draft:
        draft.write(Quantisation(images=images))
        logits = draft.opened()(images[:1].numpy())["logits"]
    assert 1e-6 < relative_error(torch.from_numpy(logits), model(images[:1])) < 0.2


def is_large_depthwise(conv: nn.Conv2d) -> bool:
    return conv.groups == conv.in_channels > 1 and conv.kernel_size > (3, 3)


def test_a_kept_layer_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'backbone\.steem' is to keep .* Nearest: 'backbone\.stem'"):
        quantised_graph(deployed(), Quantisation(images=torch.randn(1, 3, 64, 64), kept=("backbone.steem",)))


def test_a_phone_reads_the_metadata_by_a_method(written: Path) -> None:
    from executorch.runtime import Runtime

    runner = EXPORTER.load_runner(written)
    (text,) = Runtime.get().load_program(written.read_bytes()).load_method("hybridvit").execute(())
    assert json.loads(text) == runner.metadata
    assert json.loads(runner.metadata["hybridvit.graph"])["batch"] == 1


def test_metadata_are_replaced_where_they_stand(written: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m.pte"
    copy.write_bytes(written.read_bytes())
    metadata = EXPORTER.load_runner(written).metadata | {"hybridvit.note": "zwölf", "hybridvit.sha256": "0" * 64}
    EXPORTER.annotate(copy, metadata)
    EXPORTER.seal(copy)
    assert copy.stat().st_size == written.stat().st_size
    assert EXPORTER.load_runner(copy).metadata["hybridvit.note"] == "zwölf"


def test_a_file_of_others_or_damaged_anywhere_is_refused_before_the_runtime_sees_it(
    written: Path, tmp_path: Path
) -> None:
    sound = written.read_bytes()
    damaged = [sound[:place] for place in range(0, len(sound), len(sound) // 40)]
    for place in range(0, len(sound), len(sound) // 200):
        damaged.append(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
    for content in damaged:
        (tmp_path / "m.pte").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"[Ee]xport (it|one) again|Export it"):
            EXPORTER.load_runner(tmp_path / "m.pte")
    with pytest.raises(CheckpointError, match="There is no file"):
        EXPORTER.load_runner(tmp_path / "none.pte")


def test_one_process_has_one_number_of_threads(written: Path) -> None:
    first = EXPORTER.load_runner(written, threads=None)
    from executorch.extension.pybindings import portable_lib

    count = portable_lib._threadpool_get_thread_count()
    EXPORTER.load_runner(written, threads=count)
    with pytest.raises(UsageError, match=rf"one pool of {count} threads for all.*in a process of its own"):
        EXPORTER.load_runner(written, threads=count + 1)
    assert first.spec.batch == 1


def test_opening_a_file_tells_nothing_on_stderr_and_takes_the_threads_asked_for(written: Path) -> None:
    words = command("opened_with_threads", written)
    environment = ENVIRONMENT | {"PYTHONWARNINGS": "error"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("3\n", "", 0)


def test_it_answers_as_pytorch_at_any_batch_size(written: Path) -> None:
    torch.manual_seed(0)
    model, runner = made(), EXPORTER.load_runner(written)
    images = [torch.randn(batch, 3, 32, 32) for batch in (1, 2, 5)]
    answers = [runner(each)["logits"] for each in images]  # of which none is overwritten by the next
    for each, answer in zip(images, answers, strict=True):
        assert relative_error(torch.as_tensor(answer), model(each).detach()) <= 1e-5
    assert runner.card.form == "folded"
    assert runner.card.architecture == "fastvit_debug"


@pytest.mark.nightly
def test_a_dynamic_batch_may_have_any_size(tmp_path: Path) -> None:
    model = made()
    path = export(model, tmp_path / "m.pte", to="executorch", options=ExportOptions(batch="dynamic")).path
    runner = EXPORTER.load_runner(path)
    assert runner.spec.batch is None
    for batch in (1, 7, 64, 65):
        images = torch.randn(batch, 3, 32, 32)
        assert relative_error(torch.as_tensor(runner(images)["logits"]), model(images).detach()) <= 1e-5


def test_dynamic_sides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="files of the target 'executorch' take fixed sizes"):
        export(made(), tmp_path / "m.pte", to="executorch", options=ExportOptions(dynamic_size=True))
    assert list(tmp_path.iterdir()) == []
