"""int8: calibrated on a labelled folder, measured in its own runtime, within a budget or not kept."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import trained_like
from PIL import Image
from torch import nn

import hybridvit
from hybridvit.data.preprocess import prepare
from hybridvit.errors import DatasetError, ExportError, UsageError
from hybridvit.export import EXPORTERS
from hybridvit.export.exporter import Quantisation
from hybridvit.export.graph import DeployedModel
from hybridvit.export.options import ExportOptions
from hybridvit.export.original import Original
from hybridvit.export.pipeline import export
from hybridvit.export.quantise import QuantisationPlan, plan_from_folder
from hybridvit.export.quantise.quality import paired_interval
from hybridvit.export.quantise.search import quantise
from hybridvit.export.spec import GraphSpec
from hybridvit.machine.facts import machine_card

HURT = "stages.1.downsample.project"  # behind the channels that are made to stick out
SIZE = 32
STEPS = 70
PROGRAM = Path(__file__).parent.parent / "programs" / "answers_of_a_file.py"


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise (n h w c) with a darker or brighter square in one of the four quarters, and which one it is."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    images = generator.normal(127, 40, (count, SIZE, SIZE, 3))
    for image, label in zip(images, labels, strict=True):
        top, left = 16 * np.array(divmod(label, 2)) + generator.integers(0, 6, 2)
        image[top : top + 10, left : left + 10] += generator.choice((-70, 70)) + generator.normal(0, 10, 3)
    return images.clip(0, 255).astype(np.uint8), labels


def is_one_pixel(layer: str, target: str) -> bool:
    """Whether `layer` of the debug model is kept in floating point because of its map."""
    return target == "openvino" and layer.startswith(("stages.3.", "expand."))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Trained for some seconds, then folded, two channels made 10,000 times larger, and smaller by the next layer."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = hybridvit.create_model("fastvit_debug", num_classes=4, layer_scale_init=0.1)
    model.card = replace(model.card, class_names=tuple("abcd"))
    mean, std = torch.tensor(model.card.preprocessing.mean), torch.tensor(model.card.preprocessing.std)
    pixels, labels = drawn(1024, seed=1)
    images = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)  # b c h w
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(STEPS):
        part = torch.arange(64 * step, 64 * (step + 1)) % len(images)
        loss = nn.functional.cross_entropy(model(images[part]), torch.from_numpy(labels)[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model = hybridvit.fold(model.eval())
    downsample = model.get_submodule(HURT.rpartition(".")[0])
    with torch.no_grad():
        downsample.large.weight[:2] *= 1e4
        downsample.large.bias[:2] *= 1e4
        downsample.project.conv.weight[:, :2] /= 1e4
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 labelled images of four classes."""
    root = tmp_path_factory.mktemp("labelled")
    for number, (pixels, label) in enumerate(zip(*drawn(120, seed=2), strict=True)):
        (root / "abcd"[label]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / "abcd"[label] / f"{number:03}.png")
    return root


@pytest.fixture(scope="module", params=["onnx", pytest.param("openvino", marks=pytest.mark.nightly)])
def exported(request, folder: Path, model: nn.Module, tmp_path_factory: pytest.TempPathFactory):
    plan = plan_from_folder(folder, model.card, num_calibration=24, max_drop=3.0)
    path = tmp_path_factory.mktemp("int8") / f"m{EXPORTERS[request.param].suffix}"
    return plan, export(model, path, to=request.param, options=ExportOptions(precision="int8"), quantisation=plan)


def test_the_search_finds_the_layer_that_hurts_and_keeps_few(exported) -> None:
    _, report = exported
    quality = report.quality
    assert quality.before > 90
    assert quality.everything < quality.before - 10
    assert quality.drop <= 3.0
    assert quality.worst_layers[0][0].startswith(HURT)
    by_search = [name for name in quality.kept if not is_one_pixel(name, report.target)]
    assert by_search[0] == quality.worst_layers[0][0]
    assert 1 <= len(by_search) <= 3 < quality.num_layers - len(quality.kept)


def test_the_file_has_the_reported_accuracy_and_carries_the_report(exported) -> None:
    plan, report = exported
    runner = hybridvit.load(report.path)
    assert runner.spec.precision == "int8"
    samples = plan.labelled.opened(runner.card)
    images, labels = (np.stack(each) for each in zip(*(samples[place] for place in range(len(samples))), strict=True))
    assert 100 * (runner(images)["logits"].argmax(1) == labels).mean() == pytest.approx(report.quality.after)
    stored = json.loads(runner.metadata["hybridvit.accuracy"])
    assert stored == json.loads(json.dumps(report.quality.to_dict()))
    assert stored["num_images"] == len(plan.labelled.paths) == 120 - 24
    assert stored["top1"] == pytest.approx(stored["top1_fp32"] - stored["drop"])
    assert stored["drop_interval"][0] < stored["drop"] < stored["drop_interval"][1]


def test_onnxruntime_computes_kept_layers_in_floating_point_and_the_others_in_integers(
    folder: Path, model: nn.Module, tmp_path: Path
) -> None:
    """It would quantise a layer between two quantised ones by itself, with one scale for all weights."""
    import onnx
    import onnxruntime

    plan = plan_from_folder(folder, model.card, num_calibration=8, keep=("stages.1.blocks.0", "head.*"))
    report = export(model, tmp_path / "m.onnx", options=ExportOptions(precision="int8"), quantisation=plan)
    assert {name.rsplit(".", 1)[0] for name in report.quality.kept} >= {"stages.1.blocks.0", "head"}
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(tmp_path / "m.onnx", options)
    computed = {node.name: node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    layers = [node for node in onnx.load(tmp_path / "m.onnx").graph.node if node.op_type in ("Conv", "Gemm")]
    for node in layers:
        scopes = next(entry.value for entry in node.metadata_props if entry.key.endswith("name_scopes"))
        is_kept = any(f"'backbone.{name}'" in scopes for name in report.quality.kept)
        weight_is_float = not node.input[1].endswith("DequantizeLinear_Output")
        assert weight_is_float == is_kept, node.name
        if is_kept and node.name in computed:
            assert computed[node.name] in ("Conv", "FusedConv", "Gemm"), node.name
    assert sum("QLinearConv" in op_type for op_type in computed.values()) > len(layers) // 2


@pytest.mark.parametrize("target", [pytest.param("onnx", marks=pytest.mark.nightly), "openvino"])
def test_bytes_as_pixels_and_a_fixed_batch_and_top_k(target: str, folder: Path, model: nn.Module, tmp_path: Path):
    plan = plan_from_folder(folder, model.card, num_calibration=10, keep=(HURT,))
    path = tmp_path / f"m{EXPORTERS[target].suffix}"
    report = export(
        model, path, to=target, options=ExportOptions(precision="int8", uint8=True, batch=4, top_k=2), quantisation=plan
    )
    assert report.quality.drop <= 4
    assert all(name.startswith(HURT) or is_one_pixel(name, target) for name in report.quality.kept)
    assert report.quality.num_conversions == 1


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("fastvit_debug", {"image_size": (32, 32)}, marks=pytest.mark.nightly),
        ("fastvit_debug", {"image_size": (32, 64), "batch": 1}),  # maps of one row
        pytest.param("fastvit_debug", {"image_size": (256, 256), "range_px": (32, 512)}, marks=pytest.mark.nightly),
        pytest.param("fastervit_debug", {"image_size": (32, 32)}, marks=pytest.mark.nightly),
    ],
)
def test_openvino_is_given_no_map_of_one_pixel_in_integers(name: str, size: dict, tmp_path: Path) -> None:
    """It dies of them on CPUs with AMX, which may be another than the one that exports."""
    import openvino

    spec = GraphSpec(precision="int8", **size)
    model = DeployedModel(hybridvit.fold(trained_like(hybridvit.create_model(name, num_classes=4))), spec)
    images = torch.randn(spec.shape(4, spec.image_size))
    EXPORTERS["openvino"].convert(model, tmp_path / "m.xml", Quantisation(images))
    graph = openvino.Core().read_model(tmp_path / "m.xml")
    graph.reshape([spec.batch or 1, 3, *(spec.image_size if spec.range_px is None else spec.range_px[:1] * 2)])
    sides = {True: [], False: []}
    for op in graph.get_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution"):
            is_integer = op.input_value(0).get_node().get_type_name() == "FakeQuantize"
            sides[is_integer].append(min(list(op.get_output_shape(0))[2:]))
    assert min(sides[True]) > 1
    assert 1 in sides[False]
    assert len(sides[True]) > 5


INSTRUCTION_SETS = {  # values of ONEDNN_MAX_CPU_ISA, and what the machine card calls them
    "AVX2": "avx2",
    "AVX512_CORE": "avx512bw",
    "AVX512_CORE_VNNI": "avx512_vnni",
    "AVX512_CORE_BF16": "avx512_bf16",
    "AVX512_CORE_FP16": "avx512_fp16",
    "AVX512_CORE_AMX": "amx_int8",
}


@pytest.mark.nightly
@pytest.mark.parametrize("exported", ["openvino"], indirect=True)
@pytest.mark.parametrize("limit", INSTRUCTION_SETS)
def test_openvino_answers_alike_with_each_instruction_set(exported, limit: str, tmp_path: Path) -> None:
    if INSTRUCTION_SETS[limit] not in machine_card().instruction_sets:
        pytest.skip(f"this CPU has no {INSTRUCTION_SETS[limit]}")
    plan, report = exported
    runner = hybridvit.load(report.path)
    images = np.stack([prepare(path, runner.card.preprocessing) for path in plan.labelled.paths])
    np.save(tmp_path / "images.npy", images)
    subprocess.run(
        [sys.executable, PROGRAM, report.path, tmp_path / "images.npy", tmp_path / "logits.npy"],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": limit},
        check=True,
    )
    expected = runner(images)["logits"].argmax(1)
    for logits in np.load(tmp_path / "logits.npy"):  # in batches of 1, of 2, and of all
        assert (logits.argmax(1) == expected).mean() > 0.95  # without VNNI some sums saturate


@pytest.mark.parametrize("target", ["onnx", pytest.param("openvino", marks=pytest.mark.nightly)])
def test_attention_is_quantised_too(target: str, tmp_path: Path, folder: Path) -> None:
    model = trained_like(hybridvit.create_model("fastervit_debug", num_classes=4))
    model.card = replace(model.card, class_names=tuple("abcd"))
    report = export(
        model,
        tmp_path / f"m{EXPORTERS[target].suffix}",
        to=target,
        options=ExportOptions(precision="int8", image_size=(64, 64), batch=1),
        quantisation=plan_from_folder(folder, model.card, num_calibration=16),
    )
    assert report.quality.same_answer > 90


def test_calibration_takes_evenly_over_the_classes_and_the_same_each_time(folder: Path, model: nn.Module) -> None:
    plan = plan_from_folder(folder, model.card, num_calibration=12)
    assert plan == plan_from_folder(folder, model.card, num_calibration=12)
    per_class = [sum(Path(path).parent.name == name for path in plan.calibration.paths) for name in "abcd"]
    assert len(plan.calibration.paths) == 12
    sizes = [len(list((folder / name).glob("*"))) if (folder / name).exists() else 0 for name in "abcd"]
    assert all(count == size or count >= 12 // 4 for count, size in zip(per_class, sizes, strict=True))
    assert set(plan.calibration.paths).isdisjoint(plan.labelled.paths)
    assert len(plan.calibration.paths) + len(plan.labelled.paths) == 120
    again = plan_from_folder(folder, model.card, labelled=folder, num_calibration=120)
    assert set(again.labelled.paths) == set(plan.calibration.paths + plan.labelled.paths)


def test_a_small_folder_calibrates_on_what_it_has(folder: Path, model: nn.Module) -> None:
    assert len(plan_from_folder(folder, model.card).calibration.paths) == 60  # of 120 images; half measure
    assert len(plan_from_folder(folder, model.card, labelled=folder).calibration.paths) == 120


def test_folders_that_cannot_calibrate_are_refused(folder: Path, model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is empty: it has neither class folders nor images"):
        plan_from_folder(tmp_path, model.card)
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    with pytest.raises(DatasetError, match="has 1 image but no class folders"):
        plan_from_folder(tmp_path, model.card)
    (tmp_path / "a").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "a" / "one.png")
    (tmp_path / "one.png").unlink()
    with pytest.raises(DatasetError, match="has one image, but int8 needs one to calibrate on and another to measure"):
        plan_from_folder(tmp_path, model.card)
    (tmp_path / "zebra").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "zebra" / "one.png")
    with pytest.raises(DatasetError, match="1 class that the 4 known ones do not include: 'zebra'"):
        plan_from_folder(tmp_path, model.card)
    with pytest.raises(
        DatasetError, match=r"has 120 images, at least half .* 61 are wanted .* Calibrate on 60 or fewer"
    ):
        plan_from_folder(folder, model.card, num_calibration=61)
    with pytest.raises(UsageError, match="num_calibration is 0, but must be a whole number of images from 1"):
        plan_from_folder(folder, model.card, num_calibration=0)
    with pytest.raises(UsageError, match="max_drop is -1, but must be a number of percentage points from 0"):
        plan_from_folder(folder, model.card, num_calibration=8, max_drop=-1)


def test_int8_and_its_images_go_together(folder: Path, model: nn.Module, tmp_path: Path) -> None:
    plan = plan_from_folder(folder, model.card, num_calibration=8, keep=("stages.1.blok.0",))
    with pytest.raises(UsageError, match=r"int8 is set, but no images to calibrate on: .* Give --calibration"):
        export(model, tmp_path / "m.onnx", options=ExportOptions(precision="int8"))
    with pytest.raises(UsageError, match="calibrate on are given, but the precision is fp32"):
        export(model, tmp_path / "m.onnx", quantisation=plan)
    with pytest.raises(UsageError, match=r"'stages.1.blok.0' is to be kept .* Nearest: '"):
        export(model, tmp_path / "m.onnx", options=ExportOptions(precision="int8"), quantisation=plan)
    with pytest.raises(UsageError, match="is to return features in int8, but what integers cost is measured as"):
        export(
            model, tmp_path / "m.onnx", options=ExportOptions(precision="int8", returns="features"), quantisation=plan
        )
    assert list(tmp_path.iterdir()) == []


class Stubborn:
    """A runtime that is wrong on one image of three unless so many layers or more are kept."""

    def __init__(self, original: Original, needed: int) -> None:
        self.original, self.needed = original, needed
        self.asked: list[int] = []
        self.kept: tuple[str, ...] = ()

    def __call__(self, quantisation: Quantisation) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        self.kept = quantisation.kept
        self.asked.append(len(quantisation.kept))
        return self.answer

    def answer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        logits = self.original(images)[0].copy()
        if len(self.kept) < self.needed:
            logits[::3] = np.roll(logits[::3], 1, axis=1)
        return {"logits": logits}


def searched(model: nn.Module, plan: QuantisationPlan, needed: int) -> tuple[Stubborn, object]:
    spec = GraphSpec(image_size=(SIZE, SIZE))
    original = Original(model, spec)
    runtime = Stubborn(original, needed)
    deployed = DeployedModel(hybridvit.fold(model), spec)
    return runtime, lambda: quantise(deployed, original, model.card, plan, runtime)


def test_the_search_needs_few_conversions_and_leaves_the_file_that_it_chose(folder: Path, model: nn.Module) -> None:
    plan = plan_from_folder(folder, model.card, num_calibration=8, max_drop=0.5)
    runtime, run = searched(model, plan, needed=11)
    quality = run()
    assert 11 <= len(quality.kept) <= 12
    assert len(runtime.kept) == len(quality.kept)
    assert runtime.asked[:5] == [0, 1, 2, 4, 8]
    assert quality.num_conversions == len(runtime.asked) <= 9


def test_a_budget_that_cannot_be_met_says_what_was_reached(folder: Path, model: nn.Module) -> None:
    plan = plan_from_folder(folder, model.card, num_calibration=8, max_drop=0.5)
    _, run = searched(model, plan, needed=10_000)
    with pytest.raises(
        ExportError, match=r"to cost 0.5 points of top-1 at most, but the least that was reached is 3\d\.\d\d \(from "
    ):
        run()


def test_the_interval_is_that_of_agresti_and_min() -> None:
    before, after = np.zeros(100, bool), np.zeros(100, bool)
    before[:20], after[5:28] = True, True  # 5 lost, 8 won
    low, high = paired_interval(before, after)
    middle = 100 * (5.5 - 8.5) / 102
    assert (low + high) / 2 == pytest.approx(middle)
    assert high - low == pytest.approx(2 * 196 * ((14 / 102 - (3 / 102) ** 2) / 102) ** 0.5)
