"""What every target promises, whatever its format. A new target is tested by being registered."""

import dataclasses
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import trained_like
from PIL import Image
from torch import nn

import hybridvit
from hybridvit.cli import main
from hybridvit.difference import relative_error
from hybridvit.errors import CheckpointError, ExportError, UsageError
from hybridvit.export import EXPORTERS, ExportedRunner, load_runner
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import ExportReport, export

SIZE = (64, 64)  # of FasterViT's debug size four windows of carriers
NAMES = ('<b>"kräftig"</b>', "二", "c & d", "d", "e")


def _why_not(target: str) -> str:
    exporter = EXPORTERS[target]
    packages = dict.fromkeys((*exporter.writer_packages, *exporter.runner_packages))
    missing = [name for name in packages if find_spec(name) is None]
    return f"{' and '.join(missing)} not installed" if missing else exporter.why_not_here()


def _mark(target: str) -> pytest.MarkDecorator:
    why = _why_not(target)
    return pytest.mark.skipif(bool(why), reason=f"{target}: {why}")


NIGHTLY = {"executorch"}  # takes longest, and by day its file is looked at in test_executorch.py
TARGETS = [
    pytest.param(target, marks=(_mark(target), *((pytest.mark.nightly,) if target in NIGHTLY else ())))
    for target in EXPORTERS
]


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = trained_like(hybridvit.create_model(name, num_classes=len(NAMES)))
    model.card = dataclasses.replace(model.card, class_names=NAMES)
    return model


def answers(model: nn.Module, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(images).numpy()


@dataclasses.dataclass
class Exported:
    """One file of a target, with the model that it came from."""

    target: str
    model: nn.Module
    report: ExportReport

    def copied(self, folder: Path) -> Path:
        for file in self.report.path.parent.iterdir():
            shutil.copytree(file, folder / file.name) if file.is_dir() else shutil.copy(file, folder)
        return folder / self.report.path.name


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def exported(target: str, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model = made("fastvit_debug")
    path = tmp_path_factory.mktemp(target) / f"m{EXPORTERS[target].suffix}"
    images = np.random.default_rng(0).standard_normal((7, 3, 32, 32), dtype=np.float32)
    return Exported(target, model, export(model, path, to=target, images=images))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_it_answers_as_pytorch_at_any_batch_size(exported: Exported, batch: int) -> None:
    images = torch.randn(batch, 3, 32, 32)
    runner = load_runner(exported.report.path)
    limit = EXPORTERS[exported.target].limits["fp32"]
    assert relative_error(runner(images)["logits"], answers(exported.model, images)) <= limit


def test_what_was_written_holds_all_that_is_needed(exported: Exported, tmp_path: Path) -> None:
    path = exported.copied(tmp_path)
    exporter, report = EXPORTERS[exported.target], exported.report
    assert sorted(tmp_path.iterdir()) == sorted([path, *exporter.companions(path)])
    assert report.size_bytes == sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    runner = hybridvit.load(path)
    assert isinstance(runner, ExportedRunner)
    assert runner.spec == report.spec
    assert runner.card.class_names == NAMES
    assert runner.card.preprocessing == exported.model.card.preprocessing
    assert runner.card.form == "folded"
    parity = json.loads(runner.metadata["hybridvit.parity"])
    assert 0 < parity["max_error"] == report.parity.max_error <= exporter.limits["fp32"]
    assert (parity["real_images"], parity["num_same"]) == (7, 7)
    assert set(json.loads(runner.metadata["hybridvit.versions"])) >= {"torch", "hybridvit"}
    assert len(runner.metadata["hybridvit.weights_sha256"]) == 64


def test_an_answer_is_not_overwritten_by_the_next(exported: Exported) -> None:
    runner = load_runner(exported.report.path, threads=1)
    images = torch.randn(2, 1, 3, 32, 32)
    first = runner(images[0])["logits"]
    kept = first.copy()
    runner(images[1])
    np.testing.assert_array_equal(first, kept)


def test_predict_names_what_pytorch_names(exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    hybridvit.save_checkpoint(exported.model, tmp_path / "m.safetensors")
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    told = []
    for path in (tmp_path / "m.safetensors", exported.report.path):
        assert main(["predict", str(path), str(tmp_path / "a.png"), "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out)["predictions"])
    assert [each["class"] for each in told[0]] == [each["class"] for each in told[1]]
    for ours, theirs in zip(*told, strict=True):
        assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-4)


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("how", ["cut", "flipped", "replaced"])
def test_a_damaged_file_is_refused_and_never_answers_wrongly(
    exported: Exported, tmp_path: Path, how: str, where: float
) -> None:
    path = exported.copied(tmp_path)
    images = torch.randn(1, 3, 32, 32)
    victim = max((file for file in tmp_path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    content = bytearray(victim.read_bytes())
    place = int(len(content) * where)
    if how == "cut":
        content = content[:place]
    elif how == "flipped":
        content[place : place + 64] = bytes(255 - byte for byte in content[place : place + 64])
    else:
        content = bytearray(b"<html>not found</html>")
    victim.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"(?i)export (it|one|again)"):
        load_runner(path)(images)


ENDS: dict[str, dict[str, object]] = {
    "uint8-top-2": {"uint8": True, "top_k": 2, "batch": 2},
    "pyramid": {"returns": "pyramid"},
    "logits": {},
    "uint8": {"uint8": True},
    "features": {"returns": "features"},
    "top-2": {"top_k": 2, "batch": 2},
}
BY_DAY = {("fastervit_debug", "uint8-top-2"), ("fastvit_debug", "pyramid")}  # each of these ends alone is nightly
FEWER_BY_DAY: dict[str, set[tuple[str, str]]] = {
    "openvino": {("fastvit_debug", "pyramid")},  # it is given the graph of ONNX
    "executorch": set(),
}


def _ends() -> list[object]:
    """Of targets, families and ends, each conversion of which takes seconds."""
    return [
        pytest.param(
            *(target, name, options),
            id=f"{target}-{name}-{end}",
            marks=(
                _mark(target),
                *(() if (name, end) in FEWER_BY_DAY.get(target, BY_DAY) else (pytest.mark.nightly,)),
            ),
        )
        for target in EXPORTERS
        for end, options in ENDS.items()
        for name in ("fastervit_debug", "fastvit_debug")
    ]


@pytest.mark.parametrize(("target", "name", "options"), _ends())
def test_every_option_of_the_ends_is_proven_equal(target: str, name: str, options: dict, tmp_path: Path) -> None:
    model, exporter = made(name), EXPORTERS[target]
    report = export(
        model, tmp_path / f"m{exporter.suffix}", to=target, options=ExportOptions(image_size=SIZE, **options)
    )
    assert 0 < report.parity.max_error <= exporter.limits["fp32"]
    runner = load_runner(report.path)
    assert runner.card.fixed_size == (SIZE if name == "fastervit_debug" else None)  # its positions are constants
    levels = torch.randint(0, 256, (3, 3, *SIZE)).float()
    preprocessing = model.card.preprocessing
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    images = (levels / 255 - mean) / std
    answer = runner(levels if options.get("uint8") else images)
    with torch.no_grad():
        if options.get("returns") == "pyramid":
            for key, fmap in model.features(images).items():
                assert relative_error(answer[key], fmap.numpy()) <= exporter.limits["fp32"]
        elif options.get("returns") == "features":
            wanted = model.forward_head(model.forward_features(images), pre_logits=True).numpy()
            assert relative_error(answer["features"], wanted) <= exporter.limits["fp32"]
        elif "top_k" in options:
            probabilities, indices = model(images).softmax(1).topk(2)
            np.testing.assert_array_equal(answer["indices"], indices)
            assert relative_error(answer["probabilities"], probabilities.numpy()) <= exporter.limits["fp32"]
        else:
            assert relative_error(answer["logits"], model(images).numpy()) <= exporter.limits["fp32"]


def test_what_differs_is_not_kept(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    exporter, model = EXPORTERS[exported.target], made("fastvit_debug")
    sound = exported.copied(tmp_path_factory.mktemp("sound"))

    def wrong(deployed: nn.Module, path: Path, quantisation: object = None) -> None:
        """Write the file of a model whose head is another; what is compared beside answers is that model's."""
        deployed.backbone.head.fc.bias.copy_(exported.model.head.fc.bias)
        for source, place in zip((sound, *exporter.companions(sound)), (path, *exporter.companions(path)), strict=True):
            shutil.copytree(source, place) if source.is_dir() else shutil.copy(source, place)

    monkeypatch.setattr(exporter, "convert", wrong)
    with torch.no_grad():
        model.head.fc.bias[0] += 1e-2
        with pytest.raises(ExportError, match=r"differs from PyTorch by .* It was not kept"):
            export(model, tmp_path / f"m{exporter.suffix}", to=exported.target)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_names_the_extra(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = EXPORTERS[target]
    monkeypatch.setattr(type(exporter), "writer_packages", ("no_such_package",))
    with pytest.raises(UsageError, match=rf"needs no_such_package, missing here\..*hybridvit\[{exporter.extra}\]"):
        export(made("fastvit_debug"), tmp_path / f"m{exporter.suffix}", to=target)


def test_a_precision_that_the_target_lacks_is_refused_with_those_that_have_it(target: str, tmp_path: Path) -> None:
    exporter = EXPORTERS[target]
    lacking = [each for each in ("fp16", "bf16", "int8") if each not in exporter.precisions]
    for precision in lacking:
        with pytest.raises(UsageError, match=rf"'{target}' has no {precision}: it writes fp32"):
            export(
                made("fastvit_debug"),
                tmp_path / f"m{exporter.suffix}",
                to=target,
                options=ExportOptions(precision=precision),
            )
