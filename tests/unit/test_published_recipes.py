"""The numbers of the papers, written down a second time: a typo in a recipe is found here."""

import functools
import re
import shlex
from pathlib import Path

import pytest

from hybridvit.cli.main import main
from hybridvit.models.registry import VARIANTS
from hybridvit.recipe.file import RECIPE, load_recipe, recipe_names, recipe_text, recipe_titles
from hybridvit.recipe.recipe import Recipe
from hybridvit.tasks.classify.config import ClassifyRecipe
from hybridvit.tasks.segment.config import SegmentRecipe

OWN = {"digits", "folder", "two_marks", "finetune", "multilabel", "several_digits"}  # nothing is published of these
FASTVIT = {  # stochastic depth plain, distilled; crop; published top-1 of the paper plain, distilled
    "t8": (0.0, 0.0, 0.9, 75.6, 76.7),
    "t12": (0.0, 0.0, 0.9, 79.1, 80.3),
    "s12": (0.0, 0.0, 0.9, 79.8, 80.9),
    "sa12": (0.1, 0.0, 0.9, 80.6, 81.9),
    "sa24": (0.1, 0.05, 0.9, 82.6, 83.4),
    "sa36": (0.2, 0.1, 0.95, 83.6, 84.2),
    "ma36": (0.35, 0.2, 0.95, 83.9, 84.6),
}
FASTERVIT = {  # stochastic depth, weight decay, MESA, crop, top-1
    0: (0.2, 0.005, 0.1, 0.875, 82.1),
    1: (0.2, 0.005, 0.2, 1.0, 83.2),
    2: (0.2, 0.005, 0.5, 1.0, 84.2),
    3: (0.3, 0.005, 0.5, 1.0, 84.9),
    4: (0.3, 0.12, 5.0, 1.0, 85.4),
    5: (0.3, 0.12, 5.0, 1.0, 85.6),
    6: (0.5, 0.12, 5.0, 1.0, 85.8),
}
TABLE_6 = {  # pixels: window, top-1 of FasterViT-2 and -4
    256: (8, 84.3, 85.3),
    384: (12, 85.3, 86.0),
    512: (16, 85.5, 86.1),
    768: (24, 85.6, 86.0),
}
FROM_21K = {224: (0.95, 86.6), 384: (1.0, 87.6), 512: (1.0, 87.8), 768: (0.93, 87.9)}  # crop, top-1
README_COMMANDS = re.compile(r"(?:^|[\s`])hybridvit ((?:train|doctor) [^`#\n]*)")


@functools.cache
def any_recipe(name: str) -> Recipe:
    recipe = load_recipe(name, {"data.root": "images"})
    assert recipe.output == f"runs/{name}"
    return recipe


def recipe_of(name: str) -> ClassifyRecipe:
    recipe = any_recipe(name)
    assert isinstance(recipe, ClassifyRecipe)
    return recipe


def head_of(name: str) -> str:
    return "".join(line for line in recipe_names()[name].read_text().splitlines(True) if line.startswith("#"))


def drop_path(recipe: ClassifyRecipe) -> object:
    return recipe.model_options.get("drop_path_rate", 0.0)


def test_there_is_a_recipe_for_each_published_row_and_no_other() -> None:
    fastvit = {f"fastvit_{name}{kind}" for name in FASTVIT for kind in ("", "_dist")}
    fastervit = {f"fastervit_{number}" for number in FASTERVIT}
    table_6 = {f"fastervit_{number}_{size}" for number in (2, 4) for size in TABLE_6}
    from_21k = {f"fastervit_4_21k_{size}" for size in FROM_21K} | {"fastervit_4_21k_pretrain"}
    fine_tuned = {"fastvit_sa36_384", "fastvit_ma36_384"}
    of_images = {name for name in recipe_names() if any_recipe(name).task in ("classify", "multilabel")}
    assert of_images == OWN | fastvit | fastervit | table_6 | from_21k | fine_tuned


@pytest.mark.parametrize("short", FASTVIT)
@pytest.mark.parametrize("distilled", [False, True])
def test_fastvit_is_trained_as_table_5_of_the_supplement_says(short: str, distilled: bool) -> None:
    plain_rate, distilled_rate, crop, top1, top1_distilled = FASTVIT[short]
    name = f"fastvit_{short}" + ("_dist" if distilled else "")
    recipe = recipe_of(name)
    data, augment, optim, schedule = recipe.data, recipe.augment, recipe.optim, recipe.schedule
    assert recipe.model == f"fastvit_{short}"
    assert drop_path(recipe) == (distilled_rate if distilled else plain_rate)
    assert (data.image_size, data.total_batch, data.crop_fraction) == (256, 1024, crop)
    assert (optim.name, optim.lr, optim.weight_decay, optim.clip_norm) == ("adamw", 1e-3, 0.05, 0.0)
    assert (schedule.epochs, schedule.warmup_epochs, schedule.kind) == (300, 5, "cosine")
    assert (schedule.warmup_lr, schedule.min_lr, recipe.ema.decay) == (1e-6, 1e-5, 0.9995)
    assert (augment.rand_augment, augment.color_jitter) == ("rand-m9-mstd0.5-inc1", 0.4)
    assert (augment.mixup, augment.cutmix, augment.random_erasing, augment.label_smoothing) == (0.8, 1.0, 0.25, 0.1)
    assert (augment.scale, augment.hflip, data.interpolation) == ((0.08, 1.0), 0.5, "bicubic")
    teacher = ("regnety_160.deit_in1k", "hard", 0.5) if distilled else ("", "hard", 0.5)
    assert (recipe.distill.teacher, recipe.distill.kind, recipe.distill.weight) == teacher
    assert f"Published: {top1_distilled if distilled else top1} % top-1" in head_of(name)
    assert not recipe.pretrained


@pytest.mark.parametrize(("short", "rate", "top1"), [("sa36", 0.2, 84.5), ("ma36", 0.4, 84.9)])
def test_fastvit_at_384_px_is_fine_tuned_as_the_supplement_says(short: str, rate: float, top1: float) -> None:
    recipe = recipe_of(f"fastvit_{short}_384")
    assert (recipe.model, drop_path(recipe)) == (f"fastvit_{short}", rate)
    assert recipe.pretrained == "apple_in1k"
    assert (recipe.data.image_size, recipe.data.total_batch) == (384, 1024)
    assert (recipe.optim.name, recipe.optim.lr, recipe.optim.weight_decay) == ("adamw", 5e-6, 1e-8)
    assert (recipe.schedule.epochs, recipe.schedule.warmup_epochs, recipe.schedule.kind) == (30, 0, "constant")
    assert (recipe.augment.mixup, recipe.ema.decay) == (0.8, 0.9995)
    head = head_of(f"fastvit_{short}_384")
    assert f"Published: {top1} %" in head
    assert "batch 512 and learning rate 5e-5" in head


def is_trained_like_fastervit(
    recipe: ClassifyRecipe, *, lr: float, epochs: int, cooldown: int, weight_decay: float
) -> None:
    optim, schedule, augment = recipe.optim, recipe.schedule, recipe.augment
    assert (optim.name, optim.lr, optim.weight_decay, optim.clip_norm) == ("lamb", lr, weight_decay, 5.0)
    assert (schedule.epochs, schedule.cooldown_epochs, schedule.kind) == (epochs, cooldown, "cosine")
    assert (recipe.data.total_batch, recipe.precision, schedule.warmup_lr) == (4096, "bf16-mixed", 1e-6)
    assert augment.rand_augment == "rand-m9-mstd0.5-inc1"
    assert (augment.mixup, augment.cutmix, augment.random_erasing, augment.label_smoothing) == (0.8, 1.0, 0.25, 0.1)
    assert (recipe.mesa.start, recipe.mesa.temperature) == (0.25, 3.0)
    assert recipe.ema.decay == 0.9998


@pytest.mark.parametrize("number", FASTERVIT)
def test_fastervit_is_trained_as_the_appendix_says(number: int) -> None:
    rate, weight_decay, mesa, crop, top1 = FASTERVIT[number]
    recipe = recipe_of(f"fastervit_{number}")
    is_trained_like_fastervit(recipe, lr=5e-3, epochs=300, cooldown=10, weight_decay=weight_decay)
    assert (recipe.model, drop_path(recipe), recipe.mesa.weight) == (f"fastervit_{number}", rate, mesa)
    assert (recipe.data.image_size, recipe.data.crop_fraction) == (224, crop)
    assert f"Published: {top1} % top-1" in head_of(f"fastervit_{number}")


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("size", TABLE_6)
def test_high_resolutions_are_fine_tuned_as_table_6_says(number: int, size: int) -> None:
    window, *top1 = TABLE_6[size]
    rate, weight_decay, mesa, *_ = FASTERVIT[number]
    name = f"fastervit_{number}_{size}"
    recipe = recipe_of(name)
    assert recipe.data.image_size == size
    assert recipe.model == f"fastervit_{number}"
    assert recipe.model_options == {"drop_path_rate": rate, "windows": (window,) * 4}
    if size == 256:
        is_trained_like_fastervit(recipe, lr=5e-3, epochs=300, cooldown=10, weight_decay=weight_decay)
        assert recipe.mesa.weight == mesa
    else:
        is_trained_like_fastervit(recipe, lr=7e-5, epochs=30, cooldown=0, weight_decay=weight_decay)
        assert recipe.pretrained == f"runs/fastervit_{number}_256/model.safetensors"
    assert f"Published: {dict(zip((2, 4), top1, strict=True))[number]} % top-1" in head_of(name)


def test_imagenet_21k_is_trained_on_and_fine_tuned_as_the_appendix_says() -> None:
    recipe = recipe_of("fastervit_4_21k_pretrain")
    is_trained_like_fastervit(recipe, lr=4e-3, epochs=90, cooldown=0, weight_decay=0.12)
    assert (recipe.model, drop_path(recipe)) == ("fastervit_4_21k_224", 0.42)
    assert "21,841 classes" in head_of("fastervit_4_21k_pretrain")
    for size, (crop, top1) in FROM_21K.items():
        name = f"fastervit_4_21k_{size}"
        recipe = recipe_of(name)
        is_trained_like_fastervit(recipe, lr=7e-5, epochs=60, cooldown=0, weight_decay=0.12)
        assert (recipe.model, drop_path(recipe), recipe.reset_head) == (name, 0.42, True)
        assert recipe.pretrained == "runs/fastervit_4_21k_pretrain/model.safetensors"
        assert (recipe.data.image_size, recipe.data.crop_fraction) == (size, crop)
        assert f"Published: {top1} % top-1" in head_of(name)


ADE20K = {  # model: mIoU in one scale, stochastic depth (FastViT, Table 9; FasterViT, Table S.6)
    "fastvit_sa12": (38.0, 0.1),
    "fastvit_sa24": (41.0, 0.1),
    "fastvit_sa36": (42.9, 0.2),
    "fastvit_ma36": (44.6, 0.35),
    "fastervit_1": (42.7, 0.2),
    "fastervit_2": (43.5, 0.2),
}
TABLE_4 = {"fastervit_2": (47.2, 48.4), "fastervit_3": (48.7, 49.7), "fastervit_4": (49.1, 50.3)}  # one scale, several


def segmenter_of(name: str) -> SegmentRecipe:
    recipe = any_recipe(name)
    assert isinstance(recipe, SegmentRecipe)
    data, augment = recipe.data, recipe.augment
    assert (data.image_size, data.fit_px, data.reduce_zero_label) == (512, (), True)
    assert (data.train, data.val) == ("training", "validation")
    assert (augment.scale, augment.largest_share, augment.hflip, augment.distortion) == ((0.5, 2.0), 0.75, 0.5, 0.5)
    assert (recipe.optim.name, recipe.schedule.kind, recipe.schedule.min_lr) == ("adamw", "poly", 0.0)
    assert recipe.pretrained is True
    return recipe


def test_there_is_a_segmentation_recipe_for_each_published_row_and_no_other() -> None:
    published = {f"semantic_fpn_{model}_ade20k" for model in ADE20K} | {f"upernet_{model}_ade20k" for model in TABLE_4}
    own = {"segment", "segment_scenes"}
    assert {name for name in recipe_names() if any_recipe(name).task == "segment"} == own | published


@pytest.mark.parametrize("model", ADE20K)
def test_semantic_fpn_is_trained_as_poolformers_was(model: str) -> None:
    miou, rate = ADE20K[model]
    recipe = segmenter_of(f"semantic_fpn_{model}_ade20k")
    assert (recipe.model, recipe.head, recipe.model_options) == (model, "semantic_fpn", {"drop_path_rate": rate})
    assert (recipe.optim.lr, recipe.optim.weight_decay, recipe.data.total_batch) == (2e-4, 1e-4, 32)
    assert (recipe.schedule.steps, recipe.schedule.power, recipe.schedule.warmup_steps) == (40_000, 0.9, 0)
    assert f"Published: {miou} % mIoU" in head_of(f"semantic_fpn_{model}_ade20k")


@pytest.mark.parametrize("model", TABLE_4)
def test_upernet_is_trained_as_swins_was(model: str) -> None:
    recipe = segmenter_of(f"upernet_{model}_ade20k")
    assert (recipe.model, recipe.head, recipe.model_options) == (model, "upernet", {"drop_path_rate": 0.3})
    assert (recipe.optim.lr, recipe.optim.weight_decay, recipe.data.total_batch) == (6e-5, 0.01, 16)
    schedule = recipe.schedule
    assert (schedule.steps, schedule.power, schedule.warmup_steps) == (160_000, 1.0, 1500)
    assert schedule.warmup_lr == pytest.approx(1e-6 * recipe.optim.lr)
    assert recipe.auxiliary_weight == 0.4
    one, several = TABLE_4[model]
    assert f"Published: {one} % mIoU in one scale, {several} % in several" in head_of(f"upernet_{model}_ade20k")


def test_finetune_starts_from_published_weights_with_a_new_head() -> None:
    recipe = recipe_of("finetune")
    assert (recipe.pretrained, recipe.reset_head) == (True, True)
    assert 0.6 <= recipe.optim.layer_decay < 1
    assert recipe.optim.lr < 1e-3
    assert (recipe.augment.mixup, recipe.augment.cutmix) == (0, 0)
    assert recipe.schedule.epochs <= 30


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_agrees_with_the_published_preparation_of_its_model(name: str) -> None:
    recipe = any_recipe(name)
    published = VARIANTS[recipe.model].published
    is_as_published = recipe.task == "classify" and name not in OWN and "pretrain" not in name
    if is_as_published and recipe.data.image_size == published.image_size_px:
        assert recipe.data.crop_fraction == published.crop_fraction


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_has_a_lab_card(name: str) -> None:
    head = head_of(name)
    assert "Published: " in head
    assert "Ours: " in head
    assert "--dry_run" in head
    assert recipe_titles()[name].endswith((".", "?")) or name in ("digits", "two_marks", "folder")
    assert all(len(line) <= 122 for line in head.splitlines())


@pytest.mark.parametrize("name", recipe_names())
def test_every_printed_recipe_reads_back_equal(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", name, "--data.root", "images", "--print_config"]) == 0
    path = tmp_path / "resolved.yaml"
    path.write_text(capsys.readouterr().out)
    assert load_recipe(str(path)) == any_recipe(name)


def commands() -> list[str]:
    """Every `hybridvit train ...` and `doctor ...` of the heads of the recipes and of docs/training.md."""
    found = []
    for name, path in recipe_names().items():
        for line in path.read_text().replace("\\\n#", "").splitlines():
            match = re.search(r"hybridvit (train \S.*?)(?:\s{4,}.*)?$", line) if line.startswith("#") else None
            if match:
                found.append(match[1])
            for extra in re.findall(r"(?:^|[,;] )?(?:add|or) (--\S+ [^,();]*?)(?=  |\(|,|$| is the other)", line):
                found.append(f"train {name} {extra}")
    page = Path(__file__).parents[2] / "docs" / "training.md"
    text = page.read_text().replace("\\\n", " ")
    return [*found, *README_COMMANDS.findall(text)]


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_commands_that_are_written_down_parse(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.rstrip(".,;:) ").replace("$", ""))
    if words[1:] and words[1].startswith("runs/"):
        run = Path(words[1])
        run.mkdir(parents=True)
        (run / RECIPE).write_text(recipe_text(load_recipe(run.name, {"data.root": "images"})), encoding="utf-8")
    if words[0] == "doctor":
        if "--memory" in words:
            place = words.index("--memory")
            assert float(words[place + 1]) > 0
            del words[place : place + 2]
        if words[1:]:
            assert load_recipe(words[1], [*words[2:], "--dry_run"]).model
        return
    if "--recipes" in words or "--help" in words:
        assert main(words) == 0
        return
    if "--data.root" not in words and "--config" not in words:
        words += ["--data.root", "images"]
    assert main([word for word in words if word != "--print_config"] + ["--print_config"]) == 0
    assert "model:" in capsys.readouterr().out


def test_recipes_are_listed_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("fastvit_sa36_dist ") and "RegNetY-16GF" in line for line in lines)
    assert len(lines) == len(recipe_names()) + 2
