"""Without a package that an extra brings, each command that needs it names that extra, before the work."""

import ast
import json
import re
from pathlib import Path

import pytest
from fresh import output_of
from PIL import Image
from serving import classifier

import hybridvit
from hybridvit.export.targets import EXPORTERS
from hybridvit.machine.packages import IMPORT_NAMES, required_and_optional

PACKAGE = Path(hybridvit.__file__).parent
EXTRAS = required_and_optional()[1]
BROUGHT = {"coreai"}  # by coreai-torch
REQUIRED = {"PIL"}  # by hybridvit itself
NAMED = re.compile(r"\[([a-z-]+)\]")
OF_EXPORTS = {"export/exporter.py", "export/targets/litert.py", "export/targets/tensorrt.py"}  # all in their table
QUOTED = {"data/file_kind.py", "data/video.py"}  # whose texts others raise
DETECTOR = """\
task: detect
model: fastvit_debug
data: {source: generated, image_size: 64, total_batch: 2, workers: 0}
schedule: {steps: 1, warmup_epochs: 0}
output: run
"""
DINO = """\
head: dino
head_options: {num_queries: 20, dim: 32, num_heads: 2, encoder_depth: 1, decoder_depth: 1, ffn_width: 64}
"""
WAYS: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "answers/table.py": [("pyarrow", ("predict", "m.onnx", "photos", "--output", "answers.parquet"))],
    "charts/chart_file.py": [
        ("plotly", ("bench", "m.onnx", "--chart", "chart.html")),
        ("matplotlib", ("bench", "m.onnx", "--chart", "chart.png")),
    ],
    "cli/serve.py": [(name, ("serve", "m.onnx")) for name in ("fastapi", "h11", "prometheus_client", "uvicorn")],
    "data/digits.py": [("sklearn", ("train", "digits"))],
    "data/file_kind.py": [("pillow_heif", ("predict", "m.onnx", "heic"))],
    "data/huggingface.py": [("datasets", ("train", "folder", "--data.source", "huggingface", "--data.root", "photos"))],
    "data/shards/remote.py": [
        (name, ("train", "folder", "--data.source", "shards", "--data.root", "s3://bucket/shards"))
        for name in ("s3fs",)
    ],
    "data/table.py": [
        ("pyarrow", ("train", "folder", "--data.source", "table", "--data.root", ".", "--data.train", "t.parquet"))
    ],
    "data/video.py": [("av", ("predict", "m.onnx", "street.mp4"))],
    "evaluate/corruptions/corrupt.py": [
        ("imagecorruptions", ("corrupt", "photos/val", "corrupted")),
        ("imagecorruptions", ("evaluate", "m.onnx", "photos/val", "--corruptions", "noise")),
    ],
    "evaluate/suites/predictions.py": [
        ("pyarrow", ("evaluate", "m.onnx", "--suites", "mine=photos", "--predictions", "answers.parquet"))
    ],
    "jobs/run.py": [
        ("pyarrow", ("batch", "m.onnx", "photos", "--output", "answers")),
        ("ray", ("batch", "m.onnx", "photos", "--output", "answers", "--engine", "ray")),
    ],
    "tasks/detect/data_masks.py": [("faster_coco_eval", ("train", "--config", "detector.yaml"))],
    "tasks/detect/dino/matching.py": [("scipy", ("train", "--config", "dino.yaml"))],
    "training/record/weights_and_biases.py": [("wandb", ("train", "--config", "detector.yaml", "--wandb", "project"))],
}
"""By the file whose message it is: a package, and a command that needs it."""


def test_every_message_about_a_package_has_its_command_here() -> None:
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if _names_an_extra(path)}
    assert found - {"cli/doctor.py"} == set(WAYS) | OF_EXPORTS


def _names_an_extra(path: Path) -> bool:
    """Whether a text of the file, other than what documents it, tells to install an extra."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in documents)
    return any(isinstance(node.value, str) and "hybridvit[" in node.value for node in texts)


def _pairs() -> list[tuple[str, str, tuple[str, ...]]]:
    """A file whose message it has to be, a package, and a command that needs it."""
    of_files = [(file, package, words) for file, ways in WAYS.items() for package, words in ways]
    of_exports = [
        ("export/exporter.py", package, words)
        for exporter in EXPORTERS.values()
        for packages, words in (
            (exporter.writer_packages, ("export", "m.safetensors", "--to", exporter.target)),
            (exporter.runner_packages, ("predict", f"m{exporter.suffix}", "photos")),
        )
        for package in packages
        if package not in REQUIRED
    ]
    return of_files + of_exports


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the commands name."""
    folder = tmp_path_factory.mktemp("files")
    classifier(folder / "m.onnx")
    classifier(folder / "m.safetensors")
    (folder / "detector.yaml").write_text(DETECTOR, encoding="utf-8")
    (folder / "dino.yaml").write_text(DETECTOR + DINO, encoding="utf-8")
    (folder / "heic").mkdir()
    for name in ("heic/photo.heic", "street.mp4", "t.parquet"):
        (folder / name).write_bytes(b"")
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (folder / "photos" / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(folder / "photos" / split / name / "photo.png")
    return folder


@pytest.mark.timeout(1000)  # forty commands, a minute on a quiet machine
def test_each_command_names_the_extra_that_brings_what_it_lacks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = _pairs()
    (folder / "pairs.json").write_text(json.dumps([pair[1:] for pair in pairs]), encoding="utf-8")
    monkeypatch.chdir(folder)
    lines = output_of("without_packages", "pairs.json", timeout=900).splitlines()
    answers = [json.loads(line.removeprefix("said:")) for line in lines if line.startswith("said:")]
    wrong = [
        (package, words, said)
        for (file, package, words), said in zip(pairs, answers, strict=True)
        if not (_is_right(package, said["message"]) and (file in said["files"] or file in QUOTED))
    ]
    assert wrong == []


def _is_right(package: str, message: str) -> bool:
    """Whether the message tells to install extras that there are, and one of them brings the package."""
    named = set(NAMED.findall(message))
    brought = BROUGHT.union(*map(_modules, named & set(EXTRAS)))
    return "pip install" in message and bool(named) and named <= set(EXTRAS) and package in brought


def _modules(extra: str) -> set[str]:
    """What is imported of an extra's packages."""
    return {IMPORT_NAMES.get(name, name.replace("-", "_")).partition(".")[0] for name in EXTRAS[extra]}
