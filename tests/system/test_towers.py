"""Image towers in commands and programs: embeddings to files, classes by stored texts; checkpoints, exported files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import EXPORTERS, drafted
from PIL import Image
from pyarrow.parquet import read_table
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import hybridvit
from hybridvit.cli.main import main
from hybridvit.data.preprocess import prepare
from hybridvit.errors import ImageDecodeError, UsageError
from hybridvit.export.embeddings import Embedding
from hybridvit.export.spec import GraphSpec
from hybridvit.loading import open_runner
from hybridvit.measure.choose import score_of
from hybridvit.models.backbone import Backbone
from hybridvit.models.zero_shot import read_text_matrix, with_text_matrix

SIDE = 64
NAMES = ["dark", "light", "red"]
FORMS = ("tower.safetensors", "folded.safetensors", "tower.onnx", "logits.onnx")
"""One tower: as it was trained, folded, and exported to give its embeddings, and to give the bare projection."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tower in all forms, photos by class, and texts that lie where the first picture of each class does."""
    root = tmp_path_factory.mktemp("towers")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dice = np.random.default_rng(0)
    for name, (low, high) in zip(NAMES, ((0, 40), (200, 256), (0, 256)), strict=True):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(2):
            pixels = dice.integers(low, high, (SIDE, SIDE, 3), dtype=np.uint8)
            if name == "red":
                pixels[..., 1:] = 0
            Image.fromarray(pixels).save(root / "photos" / name / f"{number}.png")
    model = attentive(hybridvit.create_model("fastvit_mci_debug"), root / "photos")
    folded = hybridvit.fold(model)
    hybridvit.save_checkpoint(model, root / "tower.safetensors")
    hybridvit.save_checkpoint(folded, root / "folded.safetensors")
    for returns, name in (("embeddings", "tower.onnx"), ("logits", "logits.onnx"), ("map", "map.onnx")):
        spec = GraphSpec(image_size=(32, 32), returns=returns)
        with drafted(folded, spec, EXPORTERS["onnx"], root / name) as draft:
            draft.write()
    hybridvit.save_checkpoint(hybridvit.create_model("fastvit_debug", num_classes=2).eval(), root / "plain.safetensors")
    bare = hybridvit.create_model("fastvit_mci_debug", num_classes=0).eval()
    hybridvit.save_checkpoint(bare, root / "bare.safetensors")
    runner = open_runner(root / "tower.safetensors", embeddings=True)
    predictor = hybridvit.Predictor(root / "tower.safetensors", embeddings=True)
    firsts = predictor([root / "photos" / name / "0.png" for name in NAMES])
    rows = np.stack([each.vector for each in firsts if isinstance(each, Embedding)])
    texts(root / "text.safetensors", torch.from_numpy(rows), embedding_space=runner.card.embedding_space)
    return root


@torch.no_grad()
def attentive(model: Backbone, folder: Path) -> Backbone:
    """The model with the statistics of these pictures, so that what it answers depends on which one it is shown.

    Not of these alone: a channel that is the same in all six would be divided by nothing, and its rounding be seen.
    """
    shown = torch.stack([torch.from_numpy(prepare(path, model.card.preprocessing)) for path in folder.rglob("*.png")])
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.99
    model.train()(shown)
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def texts(path: Path, rows: torch.Tensor, names: list[str] = NAMES, **metadata: str) -> Path:
    save_file({"text_embeddings": rows}, path, metadata={"class_names": json.dumps(names)} | metadata)
    return path


def photos(place: Path) -> list[Path]:
    return sorted((place / "photos").rglob("*.png"))


def test_all_forms_and_files_of_a_tower_give_the_same_vectors_of_length_1(place: Path, tmp_path: Path) -> None:
    model = hybridvit.load(place / "tower.safetensors")
    expected = []
    predictor = hybridvit.Predictor(place / "tower.safetensors", embeddings=True)
    for path in photos(place):
        with torch.no_grad():
            projected = model(torch.from_numpy(predictor.prepare(path).image)[None])[0].double().numpy()
        expected.append(projected / np.linalg.norm(projected))
    for form in FORMS:
        target = tmp_path / f"{form}.npy"
        assert main(["predict", str(place / form), str(place / "photos"), "--embeddings", str(target)]) == 0
        found = np.load(target)
        assert (found.dtype, found.shape) == (np.float32, (6, 16))
        np.testing.assert_allclose(found, expected, atol=5e-5)


def test_one_space_of_embeddings_is_told_from_another_whatever_the_form(place: Path) -> None:
    spaces = {open_runner(place / form, embeddings=True).card.embedding_space for form in FORMS}
    assert len(spaces) == 1
    assert len(spaces.pop()) == 64
    model = hybridvit.load(place / "tower.safetensors")
    assert {hybridvit.fold(model, released=released).card.embedding_space for released in (True, False)} == {
        hybridvit.fold(hybridvit.fold(model, released=True)).card.embedding_space
    }
    with torch.no_grad():
        model.stem[0].conv.kxk.norm.weight[0] += 1e-3
    assert (
        hybridvit.fold(model).card.embedding_space != hybridvit.load(place / "folded.safetensors").card.embedding_space
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".npy", ".parquet", ".jsonl"])
def test_a_picture_that_cannot_be_decoded_is_reported_and_takes_no_other_ones_place(
    suffix: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, target = tmp_path / "bad.png", tmp_path / f"out{suffix}"
    bad.write_bytes(b"no picture")
    good = photos(place)[:2]
    found = hybridvit.predict(place / "tower.onnx", [good[0], bad, good[1]], embeddings=target)
    assert [type(each) for each in found.values()] == [Embedding, ImageDecodeError, Embedding]
    rows = np.stack([each.vector for each in found.values() if isinstance(each, Embedding)])
    if suffix == ".npy":
        written = np.load(target)
        assert np.isnan(written[1]).all()
        np.testing.assert_array_equal(written[[0, 2]], rows)
    elif suffix == ".safetensors":
        with safe_open(target, "np") as file:
            np.testing.assert_array_equal(file.get_tensor("embeddings"), rows)
            assert json.loads(file.metadata()["images"]) == [str(path) for path in good]
            assert file.metadata()["embedding_space"] == hybridvit.load(place / "tower.onnx").card.embedding_space
    else:
        table = (
            read_table(target).to_pylist()
            if suffix == ".parquet"
            else [json.loads(line) for line in target.read_text("utf-8").splitlines()]
        )
        assert [row["image"] for row in table] == [str(good[0]), str(bad), str(good[1])]
        assert "error" in table[1]
        np.testing.assert_allclose([table[0]["embedding"], table[2]["embedding"]], rows, atol=1e-7)
    assert main(["predict", str(place / "tower.onnx"), str(bad), "--embeddings", str(tmp_path / "n.npy")]) == 3
    assert "1 of 1 images could not be decoded" in capsys.readouterr().err


@pytest.mark.parametrize("form", FORMS)
def test_texts_name_the_classes_of_pictures_in_every_form(
    form: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = str(place / "text.safetensors")
    assert main(["predict", str(place / form), str(place / "photos"), "--zero_shot", text, "--json"]) == 0
    answers = [json.loads(line)["predictions"] for line in capsys.readouterr().out.splitlines()]
    runner = hybridvit.Predictor(place / "tower.safetensors", embeddings=True)
    matrix = read_text_matrix(text)
    for path, answer in zip(photos(place), answers, strict=True):
        (embedded,) = runner([path])
        assert isinstance(embedded, Embedding)
        cosines = 100 * matrix.embeddings.double().numpy() @ embedded.vector.astype(np.float64)
        chances = np.exp(cosines - cosines.max()) / np.exp(cosines - cosines.max()).sum()
        by_name = {each["class"]: each["probability"] for each in answer}
        assert [by_name[name] for name in NAMES] == pytest.approx(chances.tolist(), abs=2e-3)
    assert main(["evaluate", str(place / form), str(place / "photos"), "--zero_shot", text, "--json"]) == 0
    top1 = json.loads(capsys.readouterr().out)["top1"]
    right = [answer[0]["class"] == path.parent.name for path, answer in zip(photos(place), answers, strict=True)]
    assert top1 == pytest.approx(100 * sum(right) / 6, abs=1e-3)
    assert all(right[::2]), "the first picture of each class lies where its text does"
    assert score_of(str(place / form), place / "photos", Path(text)) == pytest.approx(top1, abs=1e-3)
    assert hybridvit.evaluate(place / form, place / "photos", zero_shot=text).scores.values["top1"] == top1


def test_texts_answer_suites_and_other_texts_are_another_answer(place: Path, tmp_path: Path) -> None:
    def answered(text: Path) -> dict[str, object]:
        files, own = [str(place / form) for form in ("tower.safetensors", "tower.onnx")], f"own={place / 'photos'}"
        given = ["evaluate", *files, "--suites", own, "--zero_shot", str(text), "--folder", str(tmp_path / "kept")]
        assert main(given) == 0
        rows = json.loads((tmp_path / "kept" / "results.json").read_text("utf-8"))["suites"]
        return {row["file"]: row["top1"] for row in rows}

    found = answered(place / "text.safetensors")
    assert len(set(found.values())) == 1
    rows = read_text_matrix(place / "text.safetensors").embeddings
    turned = answered(texts(tmp_path / "turned.safetensors", -rows))
    assert turned != found


def test_an_exported_file_has_the_texts_inside(place: Path, tmp_path: Path) -> None:
    target, text = tmp_path / "zero.onnx", str(place / "text.safetensors")
    words = ["export", str(place / "tower.safetensors"), "--output", str(target), "--zero_shot", text]
    assert main([*words, "--image_size", "32", "--top_k", "2", "--limit", "1e-4"]) == 0
    inside = hybridvit.predict(target, photos(place))
    beside = hybridvit.predict(place / "tower.onnx", photos(place), zero_shot=text, top=2)
    assert all(one.names == beside[path].names for path, one in inside.items())
    made = with_text_matrix(hybridvit.load(place / "tower.safetensors"), read_text_matrix(text))
    assert hybridvit.evaluate(made, place / "photos").num_samples == 6


@pytest.mark.nightly
def test_choose_judges_a_tower_by_texts_in_each_runtime(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tower, text = str(place / "tower.safetensors"), str(place / "text.safetensors")
    measured = ["--data", str(place / "photos"), "--runtime", "torch", "onnxruntime", "--rounds", "8", "--json"]
    assert main(["choose", "--models", tower, "--zero_shot", text, *measured]) == 0
    chosen = json.loads(capsys.readouterr().out)
    assert {each["record"]["runtime"] for each in chosen["configurations"]} == {"torch", "onnxruntime"}
    right = score_of(tower, place / "photos", Path(text))
    assert [each["top1"] for each in chosen["configurations"]] == [pytest.approx(right)] * 2


WRONG: dict[str, tuple[str, ...]] = {
    r"tower\.safetensors is an image tower: .* --zero_shot TEXTS": ("predict", "tower.safetensors", "photos"),
    r"tower\.onnx is an image tower: .* --embeddings FILE": ("predict", "tower.onnx", "photos"),
    r"logits\.onnx is an image tower": ("evaluate", "logits.onnx", "photos"),
    r"plain\.safetensors has no embeddings .* fastvit_debug is no image tower": (
        *("predict", "plain.safetensors", "photos", "--embeddings", "e.npy"),
    ),
    r"plain\.safetensors has no embeddings .* Give an image tower": (
        *("evaluate", "plain.safetensors", "photos", "--zero_shot", "text.safetensors"),
    ),
    r"bare\.safetensors has no embeddings .* left without its projection": (
        *("predict", "bare.safetensors", "photos", "--embeddings", "e.npy"),
    ),
    r"map\.onnx gives map, not embeddings\. Export .* without --returns": (
        *("predict", "map.onnx", "photos", "--zero_shot", "text.safetensors"),
    ),
    r"--top does not go with --embeddings": (
        *("predict", "tower.onnx", "photos", "--embeddings", "e.npy", "--top", "3"),
    ),
    r"--zero_shot does not go with --embeddings": (
        *("predict", "tower.onnx", "photos", "--embeddings", "e.npy", "--zero_shot", "text.safetensors"),
    ),
    r"e\.txt, but must go to a name that ends in \.safetensors, \.npy": (
        *("predict", "tower.onnx", "photos", "--embeddings", "e.txt"),
    ),
    r"text embeddings have 8 numbers each, but fastvit_mci_debug gives 16": (
        *("predict", "tower.onnx", "photos", "--zero_shot", "narrow.safetensors"),
    ),
    r"for an image tower of the space abc\.\.\., but these weights of fastvit_mci_debug have": (
        *("predict", "tower.onnx", "photos", "--zero_shot", "other.safetensors"),
    ),
    r"of the space abc\.\.\., but these weights": (
        *("export", "tower.safetensors", "--zero_shot", "other.safetensors", "--output", "x.onnx"),
    ),
    r"--zero_shot is text\.safetensors, but texts are judged by": (
        *("choose", "--models", "fastvit_mci0", "--zero_shot", "text.safetensors"),
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_each_misuse_is_one_clear_error_and_writes_nothing(
    message: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    texts(place / "narrow.safetensors", torch.ones(3, 8))
    texts(place / "other.safetensors", torch.ones(3, 16), embedding_space="abc")
    before = sorted(place.iterdir())
    with pytest.raises(UsageError, match=message):
        assert main(["--debug", *WRONG[message]]) == 2
    assert sorted(place.iterdir()) == before
