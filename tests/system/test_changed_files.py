"""Exported files that their owner changed on purpose, and ONNX files of others."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import trained_like
from PIL import Image

import hybridvit
from hybridvit.cli import main
from hybridvit.difference import relative_error
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.export import load_runner
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.export.seal import Trust
from hybridvit.measure.subject import find_subject

WEIGHTS = onnx.numpy_helper


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("changed")
    torch.manual_seed(0)
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=3))
    hybridvit.save_checkpoint(model, made / "m.safetensors")
    export(model, made / "m.onnx", options=ExportOptions(batch=1))
    return made


def in_half(path: Path, target: Path) -> None:
    """What converters to fp16 do: weights, inputs and outputs in half precision; the properties stay."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(WEIGHTS.from_array(WEIGHTS.to_array(tensor).astype(np.float16), tensor.name))
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del model.graph.value_info[:]
    onnx.save(model, target)


def without_card(path: Path, target: Path) -> None:
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, target)


@pytest.fixture
def changed(folder: Path, tmp_path: Path) -> Path:
    in_half(folder / "m.onnx", tmp_path / "half.onnx")
    return tmp_path / "half.onnx"


def test_a_file_changed_on_purpose_answers_when_it_is_trusted(
    folder: Path, changed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CheckpointError, match=r"was changed: .* If you changed it on purpose, --trust_changed"):
        hybridvit.load(changed)
    images = torch.randn(2, 3, 32, 32)
    runner = hybridvit.load(changed, trust_changed=True)
    assert f"{changed} is not as it was exported: what was proven of it" in caplog.text
    assert relative_error(runner(images)["logits"], load_runner(folder / "m.onnx")(images)["logits"]) < 5e-3
    assert runner.spec.precision == "fp16"  # and no longer what is written inside


def test_a_sound_file_is_trusted_without_a_word(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    runner = load_runner(folder / "m.onnx", trust=Trust(changed=True, foreign=True))
    assert (runner.spec.precision, runner.card.architecture) == ("fp32", "fastvit_debug")
    assert not caplog.text


def test_the_commands_take_a_changed_file(changed: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("0", "1", "2"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), (80 * int(name), 30, 30)).save(tmp_path / "photos" / name / "a.png")
    for words in (
        ["info", str(changed)],
        ["predict", str(changed), str(tmp_path / "photos")],
        ["evaluate", str(changed), str(tmp_path / "photos"), "--json"],
    ):
        assert main(words) == 5
        assert "--trust_changed" in capsys.readouterr().err
        assert main([*words, "--trust_changed"]) == 0
        assert capsys.readouterr().out


def test_trust_in_a_checkpoint_is_refused(folder: Path) -> None:
    for work in (hybridvit.load, hybridvit.loading.open_runner):
        with pytest.raises(UsageError, match=r"--trust_changed is for exported files, but .*m\.safetensors is a check"):
            work(folder / "m.safetensors", trust_changed=True)


@pytest.mark.nightly
def test_a_changed_file_of_openvino_is_trusted_too(folder: Path, tmp_path: Path) -> None:
    export(hybridvit.load(folder / "m.safetensors"), tmp_path / "m.xml", to="openvino")
    before = load_runner(tmp_path / "m.xml")(torch.ones(1, 3, 32, 32))["logits"]
    content = (tmp_path / "m.xml").read_text(encoding="utf-8")
    (tmp_path / "m.xml").write_text(content.replace("<net ", "<!-- mine --><net ", 1), encoding="utf-8")
    with pytest.raises(CheckpointError, match="--trust_changed"):
        load_runner(tmp_path / "m.xml")
    after = load_runner(tmp_path / "m.xml", trust=Trust(changed=True))(torch.ones(1, 3, 32, 32))["logits"]
    np.testing.assert_array_equal(before, after)


def test_a_foreign_file_and_a_changed_one_are_timed(folder: Path, changed: Path, capsys: pytest.CaptureFixture) -> None:
    foreign = changed.with_name("foreign.onnx")
    without_card(folder / "m.onnx", foreign)
    words = ["bench", str(foreign), str(changed), "--rounds", "8", "--calls", "1", "--processes", "1"]
    assert main([*words, "--trust_changed"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["bench"]
    assert {(Path(row["model"]).name, row["precision"], row["image_size"]) for row in rows} == {
        ("foreign.onnx", "fp32", "32x32"),
        ("half.onnx", "fp16", "32x32"),
    }
    with pytest.raises(CheckpointError, match="--trust_changed"):
        find_subject(str(changed))


def graph_taking(shape: list[object], kind: int, path: Path) -> Path:
    taken, given = (onnx.helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [taken], [given])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("shape", "kind", "size", "batch", "channels"),
    [
        (["n", 3, 32, 48], onnx.TensorProto.FLOAT, (32, 48), None, 3),
        ([2, 1, "h", "w"], onnx.TensorProto.FLOAT16, (224, 224), 2, 1),
        ([1, 40, 50, 3], onnx.TensorProto.UINT8, (40, 50), 1, 3),
    ],
)
def test_what_a_foreign_graph_takes_is_read_from_it(
    shape: list, kind: int, size: tuple, batch: int | None, channels: int, tmp_path: Path
) -> None:
    path = graph_taking(shape, kind, tmp_path / "m.onnx")
    runner = load_runner(path, trust=Trust(foreign=True))
    assert (runner.spec.image_size, runner.spec.batch, runner.spec.channels) == (size, batch, channels)
    assert runner(np.zeros((batch or 3, channels, *size)))["y"].shape[0] == (batch or 3)
    assert find_subject(str(path)).image_size == size


@pytest.mark.parametrize("shape", [[1, 32, 32, 3], [3, 32, 32]])
def test_a_foreign_graph_that_takes_no_images_is_refused_with_what_it_takes(shape: list, tmp_path: Path) -> None:
    path = graph_taking(shape, onnx.TensorProto.FLOAT, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=r"takes x: tensor\(float\) \[.*but a file from elsewhere can be timed if it"):
        find_subject(str(path))
    with pytest.raises(CheckpointError, match=r"holds no hybridvit\.card"):
        hybridvit.load(shutil.copy(path, tmp_path / "other.onnx"))
