"""Recipes: what is read is what runs, and what is wrong is said in one paragraph."""

from pathlib import Path

import pytest

from hybridvit.cli import main
from hybridvit.errors import UsageError
from hybridvit.recipe.file import (
    changed_keys,
    find_recipe,
    flat,
    keys_of,
    load_recipe,
    recipe_names,
    recipe_text,
)
from hybridvit.recipe.groups import OptimConfig, ScheduleConfig
from hybridvit.task import TASKS, find_task
from hybridvit.tasks.classify.config import ClassifyData, ClassifyRecipe

MINIMAL = "model: fastvit_debug\ndata: {root: photos, total_batch: 8}\noptim: {lr: 1e-3}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    return path


def message(source: str, overrides: object = ()) -> str:
    with pytest.raises(UsageError) as caught:
        load_recipe(source, overrides)  # type: ignore[arg-type]  # wrong ones are passed on purpose
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_recipe_holds_what_differs_and_the_rest_is_default(file: Path) -> None:
    recipe = load_recipe(str(file))
    assert recipe == ClassifyRecipe(
        model="fastvit_debug", data=ClassifyData(root="photos", total_batch=8), optim=OptimConfig(lr=1e-3)
    )


def test_every_recipe_of_the_package_loads_and_is_found_by_name() -> None:
    assert {"digits", "folder"} <= set(recipe_names())
    for name, path in recipe_names().items():
        assert find_recipe(name) == path
        assert load_recipe(name, {"data.root": "photos"}).model


def test_overrides_win_in_both_spellings_and_as_a_mapping(file: Path) -> None:
    words = ["--optim.lr", "1e-4", "--seed=3", "--dry_run", "--model_options.drop_path_rate", "0.1"]
    recipe = load_recipe(str(file), words)
    assert (recipe.optim.lr, recipe.seed, recipe.dry_run) == (1e-4, 3, True)
    assert dict(recipe.model_options) == {"drop_path_rate": 0.1}
    assert load_recipe(str(file), {"augment.scale": (0.5, 1.0), "devices": "auto"}).augment.scale == (0.5, 1.0)


def test_options_of_a_model_are_set_one_by_one_or_all_together(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL + "model_options: {drop_path_rate: 0.1, depths: [1, 1, 1, 1]}\n")
    for words, options in (
        (["--model_options.drop_path_rate", "0.2"], {"drop_path_rate": 0.2, "depths": (1, 1, 1, 1)}),
        (["--model_options", "{drop_path_rate: 0.2}"], {"drop_path_rate": 0.2}),
        (["--model_options", "{}", "--model_options.depths=[2, 2]"], {"depths": (2, 2)}),
    ):
        assert load_recipe(str(path), words).model_options == options


def test_a_resolved_recipe_names_every_key_and_reads_back_equal(file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(file), ["--model_options", "{depths: [1, 1, 1, 1]}", "--seed", "7"])
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(recipe_text(recipe))
    assert "warmup_lr" in resolved.read_text()
    assert load_recipe(str(resolved)) == recipe


def test_changed_keys_are_listed_with_both_values(file: Path) -> None:
    before, after = load_recipe(str(file)), load_recipe(str(file), ["--seed", "1", "--data.workers", "0"])
    assert changed_keys(before, after, ignoring=("data.workers",)) == ["seed: 0 -> 1"]


def test_an_unknown_recipe_names_the_nearest() -> None:
    assert "no recipe 'digit'" in message("digit")
    assert "'digits'" in message("digit")
    assert "There is no recipe file" in message("nowhere/digits.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("modle: x\n", "unknown key 'modle'. Nearest: 'model'"),
        ("model: x\ndata: {rooot: y}\n", "unknown key 'data.rooot'. Nearest: 'data.root'"),
        ("model: x\ndata: 3\n", "'data' is 3, but it is a group of keys: data.root"),
        ("model: [x\n", "is not valid YAML"),
        ("just text\n", "is no recipe"),
        ("data: {root: y}\n", "names no model"),
        ("model: x\ndata: {root: y, image_size: big}\n", "but it must be a whole number. Set it in"),
        ("model: x\ndata: {root: y, image_size: null}\n", "'data.image_size' is 'null', but it must be a whole number"),
        (
            "model: x\ndata: {root: y}\nmodel_options: null\n",
            "'model_options' is 'null', but it must be a group of keys",
        ),
        ("model: x\ndata: {root: [a, b]}\n", "'data.root' is '[a, b]', but it must be text. Set it in"),
    ],
)
def test_a_faulty_file_is_refused_by_name(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "faulty.yaml"
    path.write_text(content)
    assert said in message(str(path))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--optim.lrr", "1"], "'optim.lrr' is unknown. Nearest: 'optim.lr'"),
        (["--patience", "3"], "'patience' is unknown. It is called 'early_stop' here."),
        (["--batch_size", "8"], "'batch_size' is unknown. It is called 'data.total_batch' here."),
        (["--pos_weight", "2"], "'pos_weight' is unknown. It is called 'class_weights' here."),
        (["--data.label_separator", "|"], "It is for recipes of the task 'multilabel', and this one's is another."),
        (["--epochs", "8"], "'epochs' is unknown. Nearest: 'schedule.epochs'."),
        (
            ["--loss", "focal"],
            "'loss' is unknown. No key is spelled like it; `hybridvit train --help` explains all there are.",
        ),
        (["--model_options.", "1"], "'model_options.' is unknown. Nearest: 'model_options'"),
        (["--seed", "x"], "'seed' is 'x', but it must be a whole number. Write --seed VALUE"),
        (["--data.val", "train"], "are both 'train', but accuracy on the images trained on tells nothing"),
        (["--data.val_share", "0.6"], "must lie between 0.0 and 0.5"),
        (["--seed"], "'seed' has no value"),
        (["7"], "'7' stands where a recipe key is expected"),
        (["--optim", "3"], "'optim' is a group"),
        (["--precision", "fp8"], "it must be '32-true' or 'bf16-mixed'"),
        (["--optim.lr", "-1"], "'optim.lr' is -1.0, but it must be a finite number above 0"),
        (["--augment.scale", "[1]"], "it must be a list of 2 numbers"),
        (["--augment.scale", "[a,b]"], "'augment.scale' is '[a,b]', but it must be a list of 2 numbers. Write"),
        (["--seed", "true"], "'seed' is 'true', but it must be a whole number"),
        (["--schedule.warmup_epochs", "999"], "must lie between 0 and 300"),
        (["--data.total_batch", "1"], "BatchNorm needs two images"),
        (["--data.root", ""], "'data.root' is empty"),
        (["--model_options.num_classes", "3"], "the task decides that"),
        (["--ema.decay", "1"], "at least 0 and below 1"),
    ],
)
def test_a_faulty_override_is_refused_with_value_rule_and_fix(file: Path, words: list[str], said: str) -> None:
    assert said in message(str(file), words)


def test_values_are_checked_without_a_file_too() -> None:
    with pytest.raises(UsageError, match=r"schedule\.epochs.* is 0"):
        ScheduleConfig(epochs=0)


def test_head_is_an_option_of_a_classifier_and_a_key_of_tasks_with_heads() -> None:
    recipe = load_recipe("digits", {"model_options.head": "plain"})
    assert recipe.creation["head"] == "plain"
    said = "Recipe key 'model_options' sets head, which is a key of its own. Write --head."
    assert message("segment_scenes", {"model_options.head": "upernet"}) == said


def test_help_explains_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    keys = {key for task in TASKS for key in keys_of(find_task(task).recipe)[1]}
    assert keys > set(flat(load_recipe("digits")))
    for key in keys:
        assert f" --{key} " in text
    assert "Peak learning rate for the total batch" in text
    assert "Random resized crop" in text
