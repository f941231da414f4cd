"""Opening a .tflite file, which needs no converter: the file is a golden one, written by tests/golden/litert.py."""

import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.litert import ANSWERS, FILE, NAMES, images

import hybridvit
from hybridvit.difference import relative_error
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.export import load_runner
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.export.targets import litert
from hybridvit.export.targets.litert_file import TFLiteFile
from hybridvit.task import find_task

pytestmark = pytest.mark.skipif(find_spec("ai_edge_litert") is None, reason="ai-edge-litert is not installed")


@pytest.fixture(scope="module")
def answers() -> np.ndarray:
    """What PyTorch answered to `images()` when the file was written."""
    return np.load(ANSWERS)["logits"]


def opened(path: Path, content: bytes) -> litert.LiteRTRunner:
    path.write_bytes(content)
    return litert.LiteRTRunner(path, threads=1)


def test_the_file_answers_as_pytorch_did_when_it_was_written(answers: np.ndarray) -> None:
    runner = load_runner(FILE)
    assert relative_error(runner(images())["logits"], answers) <= 1e-5
    assert runner.spec.batch == 1  # three images are three runs
    assert runner.card.class_names == NAMES
    results = find_task(runner.card.task).results(runner(images()), [None] * 3, runner.card, most=1)
    assert [result.names for result in results] == [(NAMES[best],) for best in answers.argmax(1)]


def test_opening_and_answering_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    load_runner(FILE)(images())
    assert capfd.readouterr() == ("", "")


def test_plain_tools_read_the_graph_and_the_record(answers: np.ndarray) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(FILE))
    run = interpreter.get_signature_runner()
    assert relative_error(run(images=images()[:1])["logits"], answers[:1]) <= 1e-5
    with zipfile.ZipFile(FILE) as archive:
        assert archive.testzip() is None
        assert archive.read("labels.txt").decode().splitlines() == list(NAMES)
        assert b"hybridvit.card" in archive.read("hybridvit.json")


def test_no_cut_and_no_flip_is_taken_for_the_whole_file(tmp_path: Path, answers: np.ndarray) -> None:
    content = FILE.read_bytes()
    generator = np.random.default_rng(0)
    places = generator.integers(0, len(content), 150).tolist() + list(range(len(content) - 1500, len(content), 5))
    refused = 0
    for place in places:
        bit = 1 << int(generator.integers(8))
        flipped = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        for damaged in (content[:place], flipped):
            try:
                runner = opened(tmp_path / "m.tflite", damaged)
            except CheckpointError:
                refused += 1
            else:  # a date or a reserved byte of the archive
                assert damaged is flipped
                assert relative_error(runner(images())["logits"], answers) <= 1e-5
    assert refused > 1.9 * len(places)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is no .tflite file"),
        (b"<html>not found</html>", "is no .tflite file"),
        (TFLiteFile.read(FILE).graph, "has no record of hybridvit behind its graph"),
    ],
    ids=["empty", "page", "foreign"],
)
def test_what_is_not_ours_is_refused(content: bytes, text: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=text):
        opened(tmp_path / "m.tflite", content)


def test_a_record_of_another_graph_or_an_edited_one_is_noticed(tmp_path: Path) -> None:
    file, path = TFLiteFile.read(FILE), tmp_path / "m.tflite"
    edited = file.metadata["hybridvit.card"].replace("0.485", "0.585")
    for changed in (
        TFLiteFile(file.graph[:-1] + b"\xff", file.metadata),
        TFLiteFile(file.graph, {**file.metadata, "hybridvit.card": edited}),
    ):
        changed.write(path)
        with pytest.raises(CheckpointError, match="its content is not that of its digest"):
            load_runner(path)


def test_a_record_is_replaced_and_the_graph_stays(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(FILE.read_bytes())
    exporter = litert.LiteRTExporter()
    exporter.annotate(path, {"hybridvit.accuracy": "二"})
    exporter.annotate(path, {"hybridvit.accuracy": "{}"})
    with pytest.raises(CheckpointError, match="its content is not that of its digest"):
        load_runner(path)
    exporter.seal(path)
    before, after = load_runner(FILE), load_runner(path)
    assert set(after.metadata.items()) - set(before.metadata.items()) >= {("hybridvit.accuracy", "{}")}
    assert TFLiteFile.read(path).graph == TFLiteFile.read(FILE).graph


def test_without_the_converter_the_error_names_an_environment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litert.LiteRTExporter, "writer_packages", ("no_such_converter",))
    text = (
        r"'litert' needs no_such_converter, missing here\. Its converter needs torch older than 2\.15, .*python -m "
        r'venv \.venv-litert; \.venv-litert/bin/pip install -e "\.\[litert\]" in a clone'
    )
    with pytest.raises(UsageError, match=text):
        export(hybridvit.create_model("fastvit_debug").eval(), tmp_path / "m.tflite", to="litert")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch": "dynamic"}, "files of the target 'litert' take one number of images"),
        ({"dynamic_size": True}, "files of the target 'litert' take fixed sizes"),
        ({"precision": "bf16"}, "'litert' has no bf16: it writes fp32, fp16, int8"),
    ],
)
def test_what_a_file_cannot_do_is_refused_in_words(
    options: dict, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litert.LiteRTExporter, "writer_packages", ())
    with torch.no_grad(), pytest.raises(UsageError, match=text):
        export(
            hybridvit.create_model("fastvit_debug").eval(),
            tmp_path / "m.tflite",
            to="litert",
            options=ExportOptions(**options),
        )
    assert list(tmp_path.iterdir()) == []
