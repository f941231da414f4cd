"""One suite answered by a checkpoint, its folded form and exported files, in one command."""

import json

import pytest
from conftest import trained_like
from suite_folders import one_picture, subset

import hybridvit
from hybridvit.cli.main import main


def test_checkpoint_folded_and_exported_files_answer_one_suite_in_one_command(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    weights, folded = tmp_path / "m.safetensors", tmp_path / "folded.safetensors"
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=1000))
    hybridvit.save_checkpoint(model, weights)
    hybridvit.save_checkpoint(hybridvit.fold(model), folded)
    exported = [hybridvit.export(weights, to=target).path for target in ("onnx", "openvino")]
    folder = subset(tmp_path / "imagenet-a", one_picture(tmp_path), "a")
    files = [str(path) for path in (weights, folded, *exported)]
    capsys.readouterr()
    assert main(["evaluate", *files, "--suites", f"a={folder}", "--folder", str(tmp_path / "kept"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["suites"]
    assert [row["file"] for row in rows] == files
    assert {row["num_right"] for row in rows} == {1}
    assert [row.get("against_first", {}).get("resolved") for row in rows] == [None, False, False, False]
    assert (tmp_path / "kept" / "report.html").is_file()
