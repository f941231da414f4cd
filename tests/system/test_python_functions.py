"""What the command line does, from Python: `hybridvit.train`, `dry_run`, `evaluate`, `predict`, `export`, `bench`."""

import inspect
import json
from pathlib import Path

import pytest
from fresh import output_of
from tiny_runs import TINY
from two_classes import dark_and_light

import hybridvit
from hybridvit import api
from hybridvit.cli import main
from hybridvit.errors import CheckpointError, ImageDecodeError, UsageError
from hybridvit.recipe.file import recipe_text

NAMES = ("train", "dry_run", "evaluate", "predict", "export", "bench")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two classes, and images of them, one of which is none."""
    root = tmp_path_factory.mktemp("functions")
    dark_and_light(root)
    (root / "images" / "dark" / "bad.png").write_bytes(b"no picture")
    return root


def test_every_command_is_a_documented_function_of_the_package() -> None:
    for name in NAMES:
        function = getattr(hybridvit, name)
        assert inspect.signature(function) == inspect.signature(getattr(api, name))
        described = inspect.getdoc(getattr(api, name)) or ""
        options = [each for each in inspect.signature(function).parameters if each not in ("recipe", "keys")]
        assert "Raise" in described or "Raises" in described
        assert all(f"{each}:" in described or f"`{each}`" in described for each in options), name
    assert set(NAMES) <= set(hybridvit.__all__) <= set(dir(hybridvit))


def test_a_function_and_the_package_of_its_name_are_one_and_hide_nothing() -> None:
    import hybridvit.export.pipeline

    assert hybridvit.export.load_runner is not None
    assert hybridvit.export.pipeline.export is not hybridvit.export
    with pytest.raises(TypeError, match="unexpected keyword argument 'dta'"):
        hybridvit.evaluate("m.safetensors", dta="images")


def test_a_trained_run_is_evaluated_answers_and_is_exported(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(recipe_text(TINY), encoding="utf-8")
    keys = {"schedule.epochs": 1, "schedule.warmup_epochs": 0, "output": str(tmp_path / "run"), "save_every": 1}
    run = hybridvit.train(recipe, keys, progress=False)
    assert run.folder == tmp_path / "run"
    assert run.model.exists()
    with pytest.raises(UsageError, match="read already, and seed would change it"):
        hybridvit.train(TINY, {"seed": 1})


def test_evaluate_finds_what_the_command_finds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(folder / "m.safetensors"), str(folder / "images"), "--on_bad_image", "skip", "--json"]
    assert main(words) == 0
    shown = json.loads(capsys.readouterr().out)
    for model in (folder / "m.safetensors", hybridvit.load(folder / "m.safetensors")):
        found = hybridvit.evaluate(model, folder / "images", on_bad_image="skip")
        assert (found.num_samples, found.num_skipped) == (shown["num_images"], shown["num_skipped"]) == (6, 1)
        assert found.scores.values["top1"] == pytest.approx(shown["top1"])


def test_evaluate_takes_a_table_whose_columns_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = folder / "labels.csv"
    rows = [f"images/{name}/{number}.png,{name}" for name in ("dark", "light") for number in range(3)]
    table.write_text("\n".join(["scan,kind of", *rows]), encoding="utf-8")
    columns = {"image_column": "scan", "label_column": "kind of"}
    found = hybridvit.evaluate(folder / "m.safetensors", table, **columns)
    assert (
        found.scores.values
        == hybridvit.evaluate(folder / "m.safetensors", folder / "images", on_bad_image="skip").scores.values
    )
    words = [word for name, column in columns.items() for word in (f"--{name}", column)]
    assert main(["evaluate", str(folder / "m.safetensors"), str(table), *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(found.scores.values["loss"], abs=1e-6)


def test_predict_answers_by_path_and_says_why_it_cannot(folder: Path) -> None:
    answers = hybridvit.predict(folder / "m.safetensors", folder / "images" / "dark", top=1, batch=2)
    assert [path.name for path in answers] == ["0.png", "1.png", "2.png", "bad.png"]
    assert isinstance(answers[folder / "images" / "dark" / "bad.png"], ImageDecodeError)
    assert next(iter(answers.values())).names[0] in ("dark", "light")
    with pytest.raises(UsageError, match="--batch is 0"):
        hybridvit.predict(folder / "m.safetensors", folder / "images", batch=0)


def test_export_writes_beside_the_checkpoint_or_where_it_is_told(folder: Path, tmp_path: Path) -> None:
    report = hybridvit.export(folder / "m.safetensors", options=hybridvit.ExportOptions(batch=1))
    assert report.path == folder / "m.onnx"
    assert report.parity.max_error < 1e-5
    model = hybridvit.load(folder / "m.safetensors")
    assert hybridvit.export(model, tmp_path / "n.onnx").path.exists()
    with pytest.raises(UsageError, match="Give a path"):
        hybridvit.export(model)
    with pytest.raises(UsageError, match="is exported already"):
        hybridvit.export(folder / "m.onnx")


def test_bench_takes_one_model_or_several() -> None:
    with pytest.raises(UsageError, match="'fastvit_t88' is neither a model"):
        hybridvit.bench("fastvit_t88")
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        hybridvit.bench(Path("none.safetensors"))
    with pytest.raises(UsageError, match="Name at least one model"):
        hybridvit.bench([])


@pytest.mark.nightly
def test_all_of_them_work_in_a_notebook(folder: Path, tmp_path: Path) -> None:
    model, images, file = str(folder / "m.safetensors"), str(folder / "images"), str(tmp_path / "m.onnx")
    code = f"""
import hybridvit
hybridvit.dry_run("digits")
assert len(hybridvit.predict({model!r}, {images + "/light"!r})) == 3
assert hybridvit.evaluate({model!r}, {images!r}, on_bad_image="skip", workers=1).num_samples == 6
hybridvit.export({model!r}, {file!r})
options = hybridvit.BenchOptions(rounds=8, calls=1, threads=1, processes=1, runtimes=["torch", "onnxruntime"])
assert len(hybridvit.bench(["fastvit_debug", {file!r}], options).rows) == 3
"""
    output_of("cell", code, timeout=400)
