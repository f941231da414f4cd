"""What a push writes: read back by others' parsers, without the places of this machine, and refused before any work."""

import dataclasses
import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import timm
import torch
import yaml
from conftest import relative_error
from huggingface_hub import ModelCard
from published_runs import finished_run
from safetensors import safe_open
from saved_models import assert_same, randomised

import hybridvit
from hybridvit.card import ModelCard as Card
from hybridvit.cli.main import guarded, main
from hybridvit.errors import CheckpointError, HubError, UsageError
from hybridvit.hub import hub_place
from hybridvit.machine.lock import LOCK, RunLock
from hybridvit.publish import push
from hybridvit.publish.finished import without_places
from hybridvit.publish.licence import in_front_matter, licence_of
from hybridvit.publish.readme import cell
from hybridvit.publish.timm_layout import layout_of
from hybridvit.quantity import Quantity
from hybridvit.recipe.file import load_recipe
from hybridvit.report.charts import picture
from hybridvit.task import find_task
from hybridvit.tasks.classify.task import Classify
from hybridvit.training.record.curves import curves_of

AMLR = "apple-amlr: research only, non-commercial, and so is everything made from the weights"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on photographs of two classes."""
    return finished_run(tmp_path_factory.mktemp("published") / "run")


@pytest.fixture(scope="module")
def written(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its repository."""
    folder = tmp_path_factory.mktemp("written") / "pets"
    done = push(run, "ada/pets", dry_run=folder, licence="apache-2.0")
    assert (done.contents.folder, done.contents.opens_in, done.url) == (folder, "timm", "")
    assert done.contents.difference is not None
    assert done.contents.difference <= 1e-5
    return folder


def test_the_weights_and_the_card_are_the_runs_to_the_last_bit(run: Path, written: Path) -> None:
    ours, again = (hybridvit.load(folder / "model.safetensors") for folder in (run, written))
    assert_same(ours, again)
    assert dataclasses.replace(ours.card, licence="apache-2.0") == again.card
    with safe_open(written / "model.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == "pt"
        in_timm = timm.create_model("fastvit_sa12", **_arguments(written))
        assert set(file.keys()) == set(in_timm.state_dict())


def _arguments(folder: Path) -> dict[str, object]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {"num_classes": config["num_classes"], **config["model_args"]}


def test_the_same_run_is_written_alike_twice(run: Path, written: Path, tmp_path: Path) -> None:
    push(run, "ada/pets", dry_run=tmp_path / "again", licence="apache-2.0")
    for name in json.loads((written / "hybridvit.json").read_text(encoding="utf-8"))["files"]:
        assert (tmp_path / "again" / name).read_bytes() == (written / name).read_bytes(), name
    there = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert there == set(json.loads((written / "hybridvit.json").read_text(encoding="utf-8"))["files"])


def test_the_hub_can_read_the_front_matter_and_finds_the_measured_numbers(run: Path, written: Path) -> None:
    told = ModelCard.load(written / "README.md").data
    best = json.loads((run / "result.json").read_text(encoding="utf-8"))
    measured = {each.metric_type: each.metric_value for each in told.eval_results}
    assert measured["top1"] == pytest.approx(best["best"], abs=1e-4)
    assert (told.pipeline_tag, told.library_name, told.license) == ("image-classification", "timm", "apache-2.0")
    assert {"timm", "transformers", "fastvit"} <= set(told.tags)
    assert told.eval_results[0].dataset_name == "pets"


def test_the_page_has_the_numbers_the_machine_and_what_is_needed_to_use_it(run: Path, written: Path) -> None:
    text = (written / "README.md").read_text(encoding="utf-8")
    best = json.loads((run / "result.json").read_text(encoding="utf-8"))
    for part in (
        f"| Top-1 | {best['best']:.2f} % |",
        f"the same answer on {best['same_answers']} of {best['num_images']} images",
        best["machine"]["Processor"],
        "hybridvit predict hf://ada/pets photo.jpg",
        'timm.create_model("hf-hub:ada/pets", pretrained=True)',
        'AutoImageProcessor.from_pretrained("ada/pets")',
        "| Size | 48x48 px |",
        "Classes, in the order of the outputs: cat &amp; co, dog.",
        "apache-2.0",
    ):
        assert part in text, part
    for picture_file in ("curves/loss.svg", "curves/validation-top-1.svg"):
        assert f"]({picture_file})" in text
        ElementTree.parse(written / picture_file)


def test_nothing_tells_where_the_run_and_its_pictures_lie(run: Path, written: Path) -> None:
    for path in written.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"secret-place" not in content, path
            assert str(run.parent).encode() not in content, path
    recipe = yaml.safe_load((written / "recipe.yaml").read_text(encoding="utf-8"))
    assert (recipe["data"]["root"], recipe["output"], recipe["data"]["image_size"]) == ("pets", "run", 48)


def test_places_in_a_recipe_keep_their_last_part_and_words_stay() -> None:
    keys = {
        "data.root": "C:\\Users\\ada\\pets", "data.fold": "1/5", "pretrained": "/home/ada/start.safetensors",
        "distill.teacher": "resnet50.a1_in1k", "distill.teacher_weights": "s3://bucket/teacher.pth",
    }  # fmt: skip
    recipe = without_places(load_recipe("digits", keys | {"data.source": "folder"}))
    assert (recipe.data.root, recipe.data.fold, recipe.pretrained) == ("pets", "1/5", "start.safetensors")
    assert recipe.distill.teacher == "resnet50.a1_in1k"  # type: ignore[attr-defined]
    assert recipe.distill.teacher_weights == "teacher.pth"  # type: ignore[attr-defined]
    labels = {"data.source": "table", "data.root": "photos/", "data.label_separator": "/"}
    assert without_places(load_recipe("multilabel", labels)).data.label_separator == "/"  # type: ignore[attr-defined]
    on_hub = without_places(load_recipe("digits", {"pretrained": "hf://ada/pets@v2"}))
    assert on_hub.pretrained == "hf://ada/pets@v2"


@pytest.mark.parametrize(
    ("name", "options", "opens_in", "architecture", "arguments"),
    [
        ("fastvit_t8", {"num_classes": 3, "drop_path_rate": 0.1}, "timm", "fastvit_t8", {}),
        (
            "fastvit_t8",
            {"depths": (1, 1, 1, 1), "in_chans": 1},
            "timm",
            "fastvit_t8",
            {"layers": (1,) * 4, "in_chans": 1},
        ),
        ("fastvit_mci0", {"depths": (1, 1, 1, 1)}, "timm", "fastvit_mci0", {"layers": (1, 1, 1, 1)}),
        ("fastvit_debug", {"norm": "layer"}, "timm with hybridvit", "hybridvit_fastvit_debug", {"norm": "layer"}),
        ("fastervit_debug", {"num_classes": 3}, "timm with hybridvit", "hybridvit_fastervit_debug", {}),
    ],
)
def test_a_layout_is_timms_own_where_timm_has_the_model(
    name: str, options: dict[str, object], opens_in: str, architecture: str, arguments: dict[str, object]
) -> None:
    torch.manual_seed(0)
    model = randomised(hybridvit.create_model(name, **options)).eval()
    layout = layout_of(model)
    assert (layout.opens_in, layout.config["architecture"]) == (opens_in, architecture)
    assert layout.config.get("model_args", {}) == arguments
    config = json.loads(json.dumps(layout.config))
    built = {"num_classes": config["num_classes"], "in_chans": model.in_chans, **config.get("model_args", {})}
    theirs = timm.create_model(architecture, **built).eval()
    theirs.load_state_dict(layout.tensors, strict=True)
    with torch.no_grad():
        images = torch.randn(1, model.in_chans, 64, 64)
        assert relative_error(theirs(images), model(images)) <= 1e-5


def test_a_model_with_a_head_is_said_to_need_this_package() -> None:
    model = hybridvit.create_model("fastvit_debug", task="segment", num_classes=3)
    layout = layout_of(model)
    assert layout.opens_in == "hybridvit"
    assert "pretrained_cfg" not in layout.config  # by which transformers would take it for timm's
    assert layout.config["library_name"] == "hybridvit"


def test_what_a_user_has_to_get_beside_the_weights_is_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Classify, "needs", lambda _, card: f"It needs the key of {card.architecture}.")
    push(run, "ada/pets", dry_run=tmp_path / "pets")
    assert "- It needs the key of fastvit_debug." in (tmp_path / "pets" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("assets", "words"), [({}, "mano convert MANO_RIGHT.pkl"), ({"assets": "generated"}, "")])
def test_a_hand_of_manos_needs_its_file(assets: dict[str, str], words: str) -> None:
    card = Card(architecture="fastvit_debug", task="hand", head_options=assets)
    said = find_task("hand").needs(card)
    assert words in said
    assert bool(said) is bool(words)


def test_weights_for_research_alone_stay_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = finished_run(tmp_path / "run", licence=AMLR)
    code = guarded(lambda: main(["push", str(copy), "ada/pets", "--dry_run", str(tmp_path / "out")]), debug=False)
    assert code == 0
    notice = "for research only, not commercial, and so is everything made from them"
    assert notice in capsys.readouterr().out
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert notice in text
    assert "license: apple-amlr\n" in text
    with pytest.raises(UsageError, match="made from weights under another: apple-amlr"):
        push(copy, "ada/pets", dry_run=tmp_path / "other", licence="mit")
    assert not (tmp_path / "other").exists()


def test_licences_as_the_hub_has_them() -> None:
    assert in_front_matter("mit") == {"license": "mit"}
    assert in_front_matter("") == {}
    named = in_front_matter("NVIDIA Source Code License-NC (non-commercial)")
    assert named == {"license": "other", "license_name": "nvidia-source-code-license-nc"}
    with pytest.raises(UsageError, match="one line of at most 100 characters"):
        licence_of(Card(architecture="fastvit_debug"), "a\nb")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pets", "is no name of a repository: write OWNER/NAME"),
        ("ada/pets/more", "is no name of a repository"),
        ("ada/p..s", "is no name of a repository"),
        (f"ada/{'p' * 100}", "is no name of a repository"),
        ("https://example.invalid/ada/pets", "is no name of a repository"),
    ],
)
def test_a_name_that_is_none_is_refused(run: Path, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        push(run, name, dry_run=tmp_path / "out")
    with pytest.raises(UsageError, match="must be the name of a branch"):
        push(run, "ada/pets", revision="a b", dry_run=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_finished_run_is_refused(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=r"There is no run .*/absent"):
        push(tmp_path / "absent", "ada/pets", dry_run=out)
    with pytest.raises(UsageError, match=r"is a file\. Give the folder of its run"):
        push(run / "model.safetensors", "ada/pets", dry_run=out)
    with pytest.raises(UsageError, match=r"is no run: there is no recipe\.yaml in it"):
        push(tmp_path, "ada/pets", dry_run=out)
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(run / "recipe.yaml", begun)
    with pytest.raises(UsageError, match=r"has not ended: there is no result\.json and no model\.safetensors\. Go on "):
        push(begun, "ada/pets", dry_run=out)
    (begun / "result.json").write_text('{"history": [], "step": 1, "weights": "raw"}', encoding="utf-8")
    shutil.copy(run / "model.safetensors", begun)
    with pytest.raises(CheckpointError, match=r"result\.json is damaged"):
        push(begun, "ada/pets", dry_run=out)
    lock = RunLock(begun)
    try:
        with pytest.raises(UsageError, match="is in use by process"):
            push(begun, "ada/pets", dry_run=out)
    finally:
        lock.release()
    assert not (begun / LOCK).exists()
    assert not out.exists()


def test_a_folder_that_is_there_is_left_as_it_is(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="is there already"):
        push(run, "ada/pets", dry_run=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="The network is switched off"):
        push(run, "ada/pets")


def test_what_an_address_on_the_hub_stands_for() -> None:
    assert hub_place("runs/digits/model.safetensors") is None
    place = hub_place("hf://ada/digits-t8@refs%2Fpr%2F1/onnx/model.onnx")
    assert place is not None
    assert (place.repository, place.revision, place.file) == ("ada/digits-t8", "refs/pr/1", "onnx/model.onnx")
    plain = hub_place("hf://ada/digits-t8")
    assert plain is not None
    assert (plain.revision, plain.file, plain.name) == (None, "", "digits-t8")
    for text in ("hf://ada", "hf://ada/", "hf://ada/p@", "hf://ada/p/../q", "hf://a b/c", "hf://ada/p@v1@v2"):
        with pytest.raises(UsageError, match="is no place on the hub: write hf://OWNER/NAME"):
            hub_place(text)


def test_a_text_neither_leaves_its_cell_nor_marks_it_up() -> None:
    assert cell("a | b\n<script>`c`") == "a \\| b &lt;script&gt;\\`c\\`"


def test_a_curve_without_points_is_no_picture() -> None:
    history = [{"epoch": 1.0, "top1": 50.0, "loss": float("nan"), "train_loss": float("nan")}]
    loss, top1, *_ = curves_of(history, [Quantity(name="top1", title="top-1 <&>")])
    assert picture(loss) == ""
    assert "top-1 &lt;&amp;&gt;" in ElementTree.fromstring(picture(top1)).tag + picture(top1)
