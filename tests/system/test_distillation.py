"""What the training methods compute: distillation, MESA, layer-wise decay, and which weights a run may start from."""

import dataclasses
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import contract_model, trained_like
from timm.utils import ModelEmaV3
from torch import Tensor, nn

import hybridvit
from hybridvit.card import IMAGENET_MEAN, IMAGENET_STD, ModelCard, Preprocessing
from hybridvit.data.seeding import seed_everything
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.recipe.groups import OptimConfig, ScheduleConfig
from hybridvit.task import Batch, Moment, Objective, Place
from hybridvit.tasks.classify.config import ClassifyData, ClassifyRecipe, DistillConfig, MesaConfig
from hybridvit.tasks.classify.distillation import distilled, divergence, mesa_is_on, mesa_term
from hybridvit.tasks.classify.start import starting_model
from hybridvit.tasks.classify.task import Classify
from hybridvit.tasks.classify.teacher import Teacher, TeacherModel, find_teacher, untrained_teacher
from hybridvit.training.engine.optimizer import build_optimizer, build_schedule, check_optimizer, learning_rate
from hybridvit.training.start import material_of

RECIPE = ClassifyRecipe(
    model="fastvit_debug",
    data=ClassifyData(source="generated", image_size=32, total_batch=8, workers=0),
    accelerator="cpu",
)
DIGITS = tuple("0123456789")
STUDENT = torch.tensor([[0.0, math.log(3)], [math.log(4), 0.0]], dtype=torch.float64)  # 1/4 3/4; 4/5 1/5
TARGET = torch.tensor([[math.log(2), 0.0], [math.log(9), 0.0]], dtype=torch.float64)  # 2/3 1/3; 9/10 1/10


HERE = Place(
    device=torch.device("cpu"),
    layout=torch.contiguous_format,
    micro_batch=RECIPE.data.total_batch,
    autocast=nullcontext,
)


def teacher_of(found: TeacherModel, side: int = 32, class_names: tuple[str, ...] = DIGITS) -> Teacher:
    card = ModelCard(
        architecture="fastvit_debug", class_names=class_names, preprocessing=Preprocessing(image_size=(side, side))
    )
    return Teacher(found, card=card, place=HERE)


def learner(recipe: ClassifyRecipe) -> tuple[nn.Module, Objective]:
    """The model that the recipe starts with, in training mode, and what it minimises."""
    task = Classify()
    material = material_of(recipe, task)
    return material.model.train(), task.objective(recipe, material.card, HERE)


def batch_of(images: Tensor, labels: Tensor) -> Batch:
    """A copy of the images, which a loss may change, with their labels."""
    return Batch(images.clone(), labels, torch.arange(len(images)))


def test_hard_distillation_is_half_the_labels_and_half_the_teachers_answer() -> None:
    base = torch.tensor(2.0, dtype=torch.float64)
    loss = distilled(base, STUDENT, TARGET, DistillConfig(teacher="x", weight=0.25))
    answers = -(math.log(1 / 4) + math.log(4 / 5)) / 2  # the teacher says class 0 twice
    torch.testing.assert_close(loss.item(), 0.75 * 2.0 + 0.25 * answers, rtol=1e-12, atol=0)


def test_soft_distillation_is_the_divergence_times_the_squared_temperature() -> None:
    config = DistillConfig(teacher="x", kind="soft", weight=0.4, temperature=2.0)
    loss = distilled(torch.tensor(1.5, dtype=torch.float64), STUDENT, TARGET, config)
    expected = 0.0
    for student, target in (((1, 3), (2, 1)), ((4, 1), (9, 1))):  # odds; temperature 2 takes their roots
        p = [math.sqrt(odds) / sum(map(math.sqrt, target)) for odds in target]
        q = [math.sqrt(odds) / sum(map(math.sqrt, student)) for odds in student]
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 2
    torch.testing.assert_close(loss.item(), 0.6 * 1.5 + 0.4 * 4 * expected, rtol=1e-12, atol=0)


def test_mesa_is_the_divergence_at_its_temperature_not_times_its_square() -> None:
    config = MesaConfig(weight=2.0, temperature=1.0)
    expected = (2 / 3 * math.log(8 / 3) + 1 / 3 * math.log(4 / 9) + 0.9 * math.log(9 / 8) + 0.1 * math.log(1 / 2)) / 2
    torch.testing.assert_close(mesa_term(STUDENT, TARGET, config).item(), 2 * expected, rtol=1e-12, atol=0)
    at_three = mesa_term(3 * STUDENT, 3 * TARGET, MesaConfig(weight=2.0)).item()
    torch.testing.assert_close(at_three, 2 * expected, rtol=1e-12, atol=0)


def test_a_divergence_is_zero_at_its_target_and_its_gradient_stays_with_the_student() -> None:
    student, target = STUDENT.clone().requires_grad_(), TARGET.clone().requires_grad_()
    assert divergence(target, target, 3.0).item() == 0
    divergence(student, target, 3.0).backward()
    distilled(student.sum(), student, target, DistillConfig(teacher="x")).backward()
    assert student.grad is not None
    assert target.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_half_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    student, target = (20 * STUDENT).to(dtype), (20 * TARGET).to(dtype)
    for loss in (
        divergence(student, target, 1.0),
        distilled(torch.tensor(1.0), student, target, DistillConfig(teacher="x")),
    ):
        assert loss.dtype == torch.float32
        assert loss.isfinite()
    assert divergence(student, target, 1.0) == divergence(student.float(), target.float(), 1.0)


@pytest.mark.parametrize(("step", "is_on"), [(0, False), (24, False), (25, True), (99, True)])
def test_mesa_begins_after_its_share_of_the_steps(step: int, is_on: bool) -> None:
    moment = Moment(step=step, total_steps=100, averaged=None)
    assert mesa_is_on(MesaConfig(weight=1.0, start=0.25), moment) is is_on
    assert not mesa_is_on(MesaConfig(weight=0.0, start=0.0), moment)


class Recorder(nn.Module):
    """Answers with the mean of each channel, spread over ten classes; keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3, 10)
        self.norm = nn.BatchNorm2d(3)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return self.out(self.norm(images).mean((2, 3)))


def test_a_teacher_sees_the_students_pixels_as_it_was_trained_to_see_them() -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.5, 1.0)
    module = Recorder()
    found = TeacherModel(name="t", module=module, num_classes=10, mean=mean, std=std)
    teacher = teacher_of(found)
    pixels = torch.rand(2, 3, 32, 32)
    column = lambda values: torch.tensor(values)[:, None, None]  # noqa: E731
    teacher.logits((pixels - column(IMAGENET_MEAN)) / column(IMAGENET_STD))
    torch.testing.assert_close(module.seen[-1], (pixels - column(mean)) / column(std))
    alike = Recorder()
    same = teacher_of(dataclasses.replace(found, module=alike, mean=IMAGENET_MEAN, std=IMAGENET_STD))
    same.logits(pixels)
    assert alike.seen[-1] is pixels  # not a bit is changed where nothing differs


def test_a_teacher_is_frozen_and_leaves_no_trace_on_the_generators_or_its_own_statistics() -> None:
    module = Recorder().train()
    teacher = teacher_of(TeacherModel(name="t", module=module, num_classes=10))
    before, state = {name: value.clone() for name, value in module.state_dict().items()}, torch.get_rng_state()
    logits = teacher.logits(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_())
    assert not logits.requires_grad
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_checkpoint_of_this_package_teaches_folded_with_its_own_classes(tmp_path: Path) -> None:
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=10))
    model.card = dataclasses.replace(model.card, class_names=DIGITS)
    hybridvit.save_checkpoint(model, tmp_path / "teacher.safetensors")
    found = find_teacher(DistillConfig(teacher=str(tmp_path / "teacher.safetensors")), 10)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(teacher_of(found).logits(images), model(images), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.module.modules())
    named = DistillConfig(teacher="fastvit_debug", teacher_weights=str(tmp_path / "teacher.safetensors"))
    assert teacher_of(find_teacher(named, 10)).fingerprint == teacher_of(found).fingerprint
    with pytest.raises(
        UsageError, match="other classes than the images: the same in another order, first at 0, '0' th"
    ):
        teacher_of(found, class_names=DIGITS[::-1])
    with pytest.raises(UsageError, match="new: cat; absent: 9"):
        teacher_of(found, class_names=(*DIGITS[:9], "cat"))
    with pytest.raises(UsageError, match=r"teacher.safetensors has 10 classes, but the images have 12"):
        teacher_of(found, class_names=(*DIGITS, "cat", "dog"))


def test_a_timm_teacher_takes_its_weights_from_a_file_and_says_what_does_not_fit(tmp_path: Path) -> None:
    theirs = timm.create_model("test_vit", num_classes=10).eval()
    path = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), path)
    found = find_teacher(DistillConfig(teacher="test_vit", teacher_weights=str(path)), 10)
    images = torch.randn(2, 3, 160, 160)
    half = (
        (images * torch.tensor(IMAGENET_STD)[:, None, None]) + torch.tensor(IMAGENET_MEAN)[:, None, None] - 0.5
    ) / 0.5
    torch.testing.assert_close(teacher_of(found, 160).logits(images), theirs(half), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="has 10 classes, but the images have 12"):
        find_teacher(DistillConfig(teacher="test_vit", teacher_weights=str(path)), 12)
    with pytest.raises(CheckpointError, match=r"does not fit the teacher test_resnet: .*Missing key"):
        find_teacher(DistillConfig(teacher="test_resnet", teacher_weights=str(path)), 10)


def test_a_teacher_that_cannot_take_the_images_is_refused_with_the_size_it_can() -> None:
    module = timm.create_model("vit_tiny_patch16_224", num_classes=10, depth=1)
    found = TeacherModel(name="the_vit", module=module, num_classes=10, image_size=(224, 224))
    with pytest.raises(
        UsageError, match=r"the_vit does not take images of 32x32.*trained on 224x224\. Set data.image_s"
    ):
        teacher_of(found)
    features = TeacherModel(name="headless", module=nn.AvgPool2d(32), num_classes=10)
    with pytest.raises(UsageError, match=r"answers two images with shape \(2, 3, 1, 1\), not \(2, 10\)"):
        teacher_of(features)


@pytest.mark.parametrize(
    ("config", "num_classes", "error", "text"),
    [
        (DistillConfig(teacher="regnety_16"), 10, UsageError, "no model of timm or of this package.*'regnety_160'"),
        (DistillConfig(teacher="test_vit.mine"), 1000, UsageError, "no weights 'mine' of it. Published: test_vit.r160"),
        (DistillConfig(teacher="test_vit"), 10, UsageError, "test_vit has 1000 classes, but the images have 10"),
        (DistillConfig(teacher="test_vit"), 1000, CheckpointError, "cannot be had.*--distill.teacher_weights FILE"),
        (DistillConfig(teacher="fastvit_debug"), 10, UsageError, "no published weights of fastvit_debug"),
        (DistillConfig(teacher="runs/none.safetensors"), 10, CheckpointError, "does not exist"),
    ],
)
def test_a_teacher_that_cannot_be_had_is_an_error_with_a_way_out(
    config: DistillConfig, num_classes: int, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        find_teacher(config, num_classes)


def test_a_pickle_that_could_run_code_is_no_teacher(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "harm").encode() + b"'\ntR.")
    for find in (find_teacher, untrained_teacher):
        with pytest.raises(CheckpointError):
            find(DistillConfig(teacher="test_vit", teacher_weights=str(path)), 10)
    assert not (tmp_path / "harm").exists()


def test_dry_runs_find_out_that_a_teacher_does_not_exist_without_its_weights() -> None:
    assert untrained_teacher(DistillConfig(teacher="regnety_160.deit_in1k"), 10).num_classes == 10
    with pytest.raises(UsageError, match="Nearest"):
        untrained_teacher(DistillConfig(teacher="regnety_16"), 10)
    with pytest.raises(CheckpointError, match="does not exist"):
        untrained_teacher(DistillConfig(teacher="nowhere/teacher.safetensors"), 10)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"teacher_weights": "x.pth"}, "no teacher"),
        ({"teacher": "x", "weight": 0.0}, "would teach nothing"),
        ({"teacher": "x", "temperature": 2.0}, "at any temperature"),
    ],
)
def test_distillation_keys_without_effect_are_refused(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        DistillConfig(**keys)


def test_mesa_learns_from_the_average_of_each_step_and_disturbs_nothing() -> None:
    """The average's weights change in place between steps: kernels that it folded before must not be used again."""
    recipe = dataclasses.replace(RECIPE, mesa=MesaConfig(weight=1.0, start=0.5))
    model, learn = learner(recipe)
    ema = ModelEmaV3(model, decay=0.5)
    optimizer = build_optimizer(recipe, model)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    for step in range(4):
        moment = Moment(step=step, total_steps=4, averaged=ema.module)
        buffers = {name: value.clone() for name, value in ema.module.state_dict().items()}
        seed_everything("step", step)
        loss = learn.loss(model, batch_of(images, labels), moment)
        after = torch.get_rng_state()
        seed_everything("step", step)
        shown: list[Tensor] = []
        with model.register_forward_pre_hook(lambda _, arguments, shown=shown: shown.append(arguments[0])):
            without = learn.loss(model, batch_of(images, labels), dataclasses.replace(moment, averaged=None))
        assert torch.equal(after, torch.get_rng_state())
        assert all(torch.equal(value, buffers[name]) for name, value in ema.module.state_dict().items())
        assert not ema.module.training
        if step < 2:
            assert torch.equal(loss, without)
        else:
            fresh = hybridvit.create_model("fastvit_debug", num_classes=10).eval()  # remembers nothing
            fresh.load_state_dict(ema.module.state_dict())
            (mixed,) = shown
            with torch.no_grad():
                expected = divergence(model(mixed), fresh(mixed), 3.0)
            torch.testing.assert_close(loss - without, expected, rtol=1e-3, atol=2e-6)
        loss.backward()
        assert all(parameter.grad is None for parameter in ema.module.parameters())
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)


def test_the_average_is_not_run_before_mesa_begins() -> None:
    model, learn = learner(dataclasses.replace(RECIPE, mesa=MesaConfig(weight=1.0, start=0.5)))
    forbidden = nn.Module()  # its forward raises
    batch = batch_of(torch.randn(8, 3, 32, 32), torch.arange(8))
    learn.loss(model, batch, Moment(step=1, total_steps=4, averaged=forbidden))
    with pytest.raises(NotImplementedError):
        learn.loss(model, batch, Moment(step=2, total_steps=4, averaged=forbidden))


def test_mixing_is_a_function_of_seed_step_micro_batch_and_rank() -> None:
    _, learn = learner(RECIPE)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)

    def mixed(*place: int) -> Tensor:
        student = Recorder()
        seed_everything("step", *place)
        learn.loss(student, batch_of(images, labels), Moment(step=0, total_steps=1, averaged=None))
        return student.seen[0]

    place = (0, 5, 1, 0)
    assert torch.equal(mixed(*place), mixed(*place))
    for other in ((1, 5, 1, 0), (0, 6, 1, 0), (0, 5, 0, 0), (0, 5, 1, 1)):
        assert not torch.equal(mixed(*place), mixed(*other))


@pytest.mark.parametrize(
    "name", ["fastvit_debug", "fastvit_ma36", "fastervit_debug", "fastervit_4", "swin_debug_hat", "swin_tiny_hat"]
)
def test_layer_wise_decay_takes_every_weight_once_in_order_of_depth(name: str) -> None:
    with torch.device("meta"):
        model = contract_model(name, num_classes=10)
    recipe = dataclasses.replace(RECIPE, optim=OptimConfig(layer_decay=0.5, weight_decay=0.1))
    groups = build_optimizer(recipe, model).param_groups
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    taken = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(taken) == sorted(names.values())
    scales = {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0), names[id(parameter)]
    depth = {key: _depth(key) for key in scales}
    for one in scales:
        for other in scales:
            if depth[one] < depth[other]:
                assert scales[one] <= scales[other], (one, other)
    assert scales["head.fc.weight"] == 1
    stem = next(scale for key, scale in scales.items() if key.startswith("stem"))
    num_blocks = len({depth[key] for key in scales if depth[key][0] == 1})
    assert stem <= 0.5 ** (num_blocks - len(model.stages))  # a factor for every block


def _depth(name: str) -> tuple[int, int, int]:
    """Stem, stages and the blocks in them, what follows; the first block of a stage goes with what precedes it."""
    parts = name.split(".")
    if parts[0] == "stem":
        return 0, 0, 0
    if parts[0] != "stages":
        return 2, 0, 0
    numbers = [int(part) for part in parts[2:5] if part.isdigit()]
    return 1, int(parts[1]), numbers[0] if numbers else 0


@pytest.mark.parametrize("kind", ["constant", "cosine"])
def test_the_schedule_scales_the_rates_of_all_layers_alike(kind: Any) -> None:
    schedule = ScheduleConfig(epochs=4, warmup_epochs=1, kind=kind, min_lr=0.0)
    recipe = dataclasses.replace(RECIPE, optim=OptimConfig(lr=1.0, layer_decay=0.5), schedule=schedule)
    optimizer = build_optimizer(recipe, contract_model("fastvit_debug", num_classes=10))
    scheduler = build_schedule(recipe, optimizer, 10)
    for step in (0, 5, 20, 39):
        scheduler.step_update(step)
        rate = learning_rate(optimizer)
        assert rate == max(group["lr"] for group in optimizer.param_groups)
        assert all(group["lr"] == rate * group["lr_scale"] for group in optimizer.param_groups)
        if kind == "constant" and step >= 10:
            assert rate == 1.0
    assert len({group["lr"] for group in optimizer.param_groups}) > 3


@pytest.mark.parametrize(
    ("name", "momentum", "key", "value"),
    [
        ("adamw", None, "betas", (0.9, 0.999)),
        ("lamb", None, "betas", (0.9, 0.999)),
        ("lamb", 0.8, "betas", (0.8, 0.999)),
        ("adan", None, "betas", (0.98, 0.92, 0.99)),
        ("lion", 0.95, "betas", (0.95, 0.99)),
        ("sgd", None, "momentum", 0.9),
        ("sgd", 0.5, "momentum", 0.5),
    ],
)
def test_momentum_is_the_optimizers_own_unless_set(name: str, momentum: float | None, key: str, value: Any) -> None:
    recipe = dataclasses.replace(RECIPE, optim=OptimConfig(name=name, momentum=momentum))
    check_optimizer(recipe)
    optimizer = build_optimizer(recipe, nn.Linear(2, 2))
    assert all(group[key] == value for group in optimizer.param_groups)


def test_momentum_that_an_optimizer_has_no_use_for_is_refused() -> None:
    with pytest.raises(UsageError, match=r"optim.momentum' is 0.5, but adagrad has neither momentum nor betas"):
        check_optimizer(dataclasses.replace(RECIPE, optim=OptimConfig(name="adagrad", momentum=0.5)))
    with pytest.raises(UsageError, match=r"at least 0 and below 1"):
        OptimConfig(momentum=1.0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("saved")
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=10))
    model.card = dataclasses.replace(model.card, class_names=DIGITS)
    hybridvit.save_checkpoint(model, tmp_path / "model.safetensors")
    hybridvit.save_checkpoint(hybridvit.fold(model), tmp_path / "folded.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ((*DIGITS, "cat", "dog"), r"has 10 classes, the images have 12 \(new: cat, dog\)\. Add --reset_head"),
        (DIGITS[:8], r"has 10 classes, the images have 8 \(absent: 8, 9\)\. Add --reset_head"),
        ((*DIGITS[:9], "cat"), r"other classes than the images, as many as they are \(new: cat; absent: 9\)"),
        (DIGITS[::-1], r"the same in another order, first at 0, '0' there and '9' here"),
    ],
)
def test_other_classes_need_a_new_head_and_the_message_says_which(
    saved: Path, classes: tuple[str, ...], text: str
) -> None:
    recipe = dataclasses.replace(RECIPE, pretrained=str(saved))
    with pytest.raises(UsageError, match=text):
        starting_model(recipe, classes)
    model = starting_model(dataclasses.replace(recipe, reset_head=True), classes)
    before = hybridvit.load(saved).state_dict()
    for name, value in model.state_dict().items():
        if name.startswith("head.fc"):
            assert value.shape != before[name].shape or name.endswith("bias") or not torch.equal(value, before[name])
        else:
            assert torch.equal(value, before[name]), name
    assert model.num_classes == len(classes)


def test_the_same_classes_keep_the_head_unless_a_new_one_is_asked_for(saved: Path) -> None:
    recipe, before = dataclasses.replace(RECIPE, pretrained=str(saved)), hybridvit.load(saved).state_dict()
    kept = starting_model(recipe, DIGITS).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in kept.items())
    fresh = starting_model(dataclasses.replace(recipe, reset_head=True), DIGITS).state_dict()
    assert not torch.equal(fresh["head.fc.weight"], before["head.fc.weight"])


def test_upstream_weights_are_taken_for_imagenet_and_need_a_new_head_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "apple.pth"
    hybridvit.checkpoints.save_upstream(hybridvit.create_model("fastvit_t8"), path, "apple")
    recipe = dataclasses.replace(RECIPE, model="fastvit_t8", pretrained=str(path))
    with pytest.raises(UsageError, match=r"apple.pth has 1000 classes, the images have 10 \(new: 0, 1, 2, 3, 4 and 5"):
        starting_model(recipe, DIGITS)
    with pytest.raises(UsageError, match=r"as many as they are \(new: 0, 1"):
        starting_model(recipe, tuple(map(str, range(1000))))
    assert starting_model(recipe, hybridvit.data.imagenet.class_names()).num_classes == 1000


def test_folded_weights_cannot_be_trained_further(saved: Path) -> None:
    folded = str(saved.with_name("folded.safetensors"))
    with pytest.raises(
        CheckpointError, match=r"is folded: its branches are merged.*Give the weights it was folded from"
    ):
        starting_model(dataclasses.replace(RECIPE, pretrained=folded, reset_head=True), DIGITS)


def test_a_new_head_without_pretrained_weights_is_refused() -> None:
    with pytest.raises(UsageError, match="the classifier is new in any case"):
        dataclasses.replace(RECIPE, reset_head=True)


@pytest.mark.parametrize(
    ("model", "before", "after", "sides"),
    [
        ("fastervit_debug", (7, 7, 8, 8), (7, 7, 12, 12), (256, 384)),
        ("fastervit_debug", (7, 7, 8, 8), (7, 7, 16, 16), (256, 512)),
        ("fastervit_debug", (7, 7, 8, 8), (7, 7, 24, 24), (256, 768)),
        ("fastervit_4_21k_224", (7, 7, 14, 7), (7, 7, 24, 12), (224, 384)),
        ("fastervit_4_21k_224", (7, 7, 14, 7), (7, 7, 48, 24), (224, 768)),
    ],
)
def test_weights_of_one_window_fit_the_windows_of_the_papers_table_6(
    tmp_path: Path, model: str, before: tuple[int, ...], after: tuple[int, ...], sides: tuple[int, int]
) -> None:
    small: dict[str, Any] = {} if model.endswith("debug") else {"position_hidden": 8, "mlp_ratio": 2}
    if small:
        small |= {"depths": (1, 1, 1, 1), "widths": (4, 8, 16, 32), "num_heads": (1, 1, 1, 1), "stem_width": 4}
    trained = trained_like(hybridvit.create_model(model, num_classes=10, windows=before, image_size=sides[0], **small))
    hybridvit.save_checkpoint(trained, tmp_path / "model.safetensors")
    recipe = ClassifyRecipe(
        model=model,
        model_options={"windows": after, **small},
        pretrained=str(tmp_path / "model.safetensors"),
        data=ClassifyData(source="generated", image_size=sides[1]),
    )
    tuned = starting_model(recipe, DIGITS).eval()
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in tuned.state_dict().items())
    if sides[1] == 384:  # the larger ones take seconds
        images = torch.randn(1, 3, 384, 384)
        with torch.no_grad():
            assert not torch.equal(tuned(images), trained(images))
    assert tuned.card.options["windows"] == after
